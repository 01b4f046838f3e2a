"""The tokenizer beside published weights: loaded with the model, converted, written back."""

import json
import shutil

import pytest
import tokenizers
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.models import SSMBackbone, SSMCausalLM
from tests.published_models import make_model, written

pytestmark = pytest.mark.once("torch")

WORDS = ("<s>", "</s>", "state", "space", "time", "model")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model in the format of transformers, with a tokenizer that begins texts by `<s>`."""
    directory = written(make_model(), tmp_path_factory.mktemp("published") / "mamba")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="model"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.add_special_tokens(["<s>", "</s>"])
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    library.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def read_text(model):
    return model.preprocessor(["state space"], sequence_length=4)[0]["token_ids"].tolist()[0]


def test_texts_go_into_a_published_model(published, tmp_path):
    model = SSMCausalLM.from_preset(published)
    assert read_text(model) == [0, 2, 3, 1]
    assert model.generate("state space", max_length=5).startswith("state space")
    assert SSMCausalLM.from_preset(published, preprocessor=None).preprocessor is None
    assert isinstance(SSMBackbone.from_preset(published), SSMBackbone)
    shutil.copytree(published, tmp_path / "other")
    settings = tmp_path / "other" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "add_bos_token": False}))
    assert read_text(SSMCausalLM.from_preset(tmp_path / "other")) == [2, 3, 1, 1]
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must be a complete `tokenizer\.json`"):
        SSMCausalLM.from_preset(tmp_path / "other")


def test_a_converted_model_keeps_its_tokenizer_and_gives_it_back(published, tmp_path):
    runner = CliRunner()
    result = runner.invoke(cli.main, ["convert", str(published), str(tmp_path / "preset")])
    assert result.exit_code == 0, result.output
    model = SSMCausalLM.from_preset(tmp_path / "preset")
    assert read_text(model) == [0, 2, 3, 1]
    back = written(model, tmp_path / "back")
    name = "tokenizer.json"
    assert (back / name).read_bytes() == (published / name).read_bytes()
    settings = json.loads((back / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "</s>" and settings["add_bos_token"] is True
    assert json.loads((back / "config.json").read_text())["eos_token_id"] == 1
    assert read_text(SSMCausalLM.from_preset(back)) == [0, 2, 3, 1]
