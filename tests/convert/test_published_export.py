"""Language models as directories of transformers and state-spaces/mamba: out and in again."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.convert.containers.safetensors_file import read_stored
from keras_ssm.convert.containers.weight_files import open_file
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from tests.mamba_recordings import MODELS, recorded
from tests.published_models import change, in_shards, make_model, read_tensors, weights, written
from tests.shared_data import SHARED

pytestmark = pytest.mark.once("torch")

# Fields that our layers lack: initialisation, speed, and the tokens of a tokenizer.
NOT_OURS = {
    *("transformers_version", "chunk_size"),
    *("initializer_range", "rescale_prenorm_residual", "time_step_scale", "time_step_rank"),
    *("time_step_init_scheme", "use_mambapy", "use_associative_scan"),
}


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_model_again(name, tmp_path):
    recorded(name)
    source = SHARED / "goldens" / "mamba" / name
    assert export_checkpoint(load_checkpoint(source), tmp_path, "mamba-hf") == []
    expected, found = read(source / "config.json"), read(tmp_path / "config.json")
    assert set(found) <= set(expected)
    differing = {key for key in expected if found.get(key, "none") != expected[key]}
    assert differing <= NOT_OURS
    if "time_step_rank" in found:
        assert found["time_step_rank"] == expected["time_step_rank"]
    before, after = read_tensors(source), read_tensors(tmp_path)
    assert set(before) == set(after)
    for key, array in before.items():
        assert array.dtype == after[key].dtype
        np.testing.assert_array_equal(array, after[key], key)


@pytest.mark.parametrize("name", ["mamba_a", "mamba_b", "mamba2_b", "mamba2_c"])
def test_an_original_model_again(name, tmp_path):
    recorded(name)
    source = SHARED / "goldens" / "mamba" / name / "original"
    export_checkpoint(load_checkpoint(source), tmp_path, "mamba-original")
    before, after = (open_file(path / "pytorch_model.bin")[0] for path in (source, tmp_path))
    assert set(before) == set(after) and list(after)[-1] == "lm_head.weight"
    for key, tensor in before.items():
        np.testing.assert_array_equal(tensor.array(), after[key].array(), key)
    expected, found = read(source / "config.json"), read(tmp_path / "config.json")
    tied = expected.get("tie_embeddings", True)
    table = after["backbone.embedding.weight"]
    assert after["lm_head.weight"].is_same_place(table) == tied
    padding = ("vocab_size", "pad_vocab_size_multiple", "ssm_cfg")
    differing = {key for key in expected if found.get(key) != expected[key]} - set(padding)
    assert not differing
    arguments = {k: v for k, v in expected["ssm_cfg"].items() if k != "chunk_size"}
    assert found["ssm_cfg"] == arguments
    assert found["vocab_size"] == table.shape[0]


@pytest.mark.parametrize("to", ["mamba-hf", "mamba-original"])
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_half_precision_out_and_in_again_is_exact(kind, to, tmp_path):
    model = load_checkpoint(written(make_model(kind), tmp_path / "it", to), dtype="bfloat16")
    path = written(model, tmp_path / "again", to)
    if to == "mamba-hf":
        assert read(path / "config.json")["dtype"] == "bfloat16"
        kinds = {t.kind for t in read_stored(path / "model.safetensors").values()}
        assert kinds == {"bfloat16", "<f4"}  # the weights of systems are never halved
    found = load_checkpoint(path, dtype="bfloat16")
    for mine, its in zip(weights(model).values(), weights(found).values(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_format_from_the_other(tmp_path):
    """Falcon's norms and another epsilon are what the original format cannot say."""
    model = make_model("mamba2", num_groups=2, dt_limit=(0.01, 0.5), tie_embeddings=False)
    hf = load_checkpoint(written(model, tmp_path / "hf", "mamba-hf"))
    found = load_checkpoint(written(hf, tmp_path / "original", "mamba-original"))
    assert found.backbone.blocks[0].mixer.dt_limit == (0.01, 0.5)
    for mine, its in zip(weights(model).values(), weights(found).values(), strict=True):
        np.testing.assert_array_equal(mine, its)
    falcon = make_model(norm_bcdt=True, norm_epsilon=1e-3, inner_dim=6)
    found = load_checkpoint(written(falcon, tmp_path / "falcon", "mamba-hf"))
    mixer = found.backbone.blocks[0].mixer
    assert mixer.norm_bcdt and mixer.norm_epsilon == 1e-3 and mixer.given_inner_dim == 6
    with pytest.raises(ValueError, match="Received: norm_bcdt=True"):
        export_checkpoint(falcon, tmp_path / "no", "mamba-original")
    assert not (tmp_path / "no").exists()


def language_model(mixer, **arguments):
    published = {"activation": None, "gate": None, "norm": "rms", "prenorm": True}
    published |= {"final_norm": "rms", "num_layers": 1, "hidden_dim": 4, "vocabulary_size": 8}
    return SSMCausalLM(SSMBackbone(mixer, **{**published, **arguments}))


def mixer():
    return make_model().backbone.blocks[0].mixer.from_config({"state_dim": 4})


REFUSED = {
    "mixer S4D": lambda: language_model(S4D(state_dim=4)),
    "gate='glu'": lambda: language_model(mixer(), gate="glu"),
    "activation='gelu'": lambda: language_model(mixer(), activation="gelu"),
    "prenorm=False": lambda: language_model(mixer(), prenorm=False),
    "final_norm=None": lambda: language_model(mixer(), final_norm=None),
    "norm='layer'": lambda: language_model(mixer(), norm="layer", final_norm="layer"),
    "gated_norm=False": lambda: make_model("mamba2", gated_norm=False),
    "D_per_feature=True": lambda: make_model("mamba2", D_per_feature=True),
    "norm_before_gate=True": lambda: make_model("mamba2", norm_before_gate=True),
    "norm_epsilon=0.001": lambda: make_model("mamba2", norm_epsilon=1e-3),
    "inner_dim=12": lambda: make_model("mamba2", hidden_dim=8, inner_dim=12),
    "SSMClassifier": lambda: SSMClassifier(make_model().backbone, 3),
}


@pytest.mark.parametrize("received", REFUSED)
def test_what_the_classes_of_transformers_do_not_cover(received, tmp_path):
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        export_checkpoint(REFUSED[received](), tmp_path / "out", "mamba-hf")
    assert not (tmp_path / "out").exists()


def test_adapted_models_are_merged_and_quantised_ones_refused(tmp_path):
    model = make_model()
    model.enable_lora(2)
    dense = model.backbone.blocks[0].mixer.in_proj
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    kernel = keras.ops.convert_to_numpy(dense.kernel)
    export_checkpoint(model, tmp_path, "mamba-hf")
    name = "backbone.layers.0.mixer.in_proj.weight"
    np.testing.assert_array_equal(read_tensors(tmp_path)[name], kernel.T)
    model = make_model()
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"before it is quantised.*int8"):
        export_checkpoint(model, tmp_path, "mamba-hf")


def test_a_directory_that_is_there(tmp_path):
    """Files of an earlier model go, others stay."""
    path = in_shards(written(make_model(), tmp_path / "it"))
    (path / "README.md").write_text("mine")
    change(path, hidden_size=8)
    model = make_model("mamba2")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(ValueError, match=r"`overwrite` must be True.*Received: .*config\.json"):
        export_checkpoint(model, path, "mamba-original")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    export_checkpoint(model, path, "mamba-original", overwrite=True)
    names = {file.name for file in path.iterdir()}
    assert names == {"README.md", "config.json", "pytorch_model.bin", "generation_config.json"}
    assert load_checkpoint(path).backbone.hidden_dim == 4
    model.save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="a preset of keras_ssm"):
        export_checkpoint(model, tmp_path / "preset", "mamba-hf")


def test_ids_of_special_tokens_without_a_tokenizer(tmp_path):
    (remark,) = export_checkpoint(make_model(), tmp_path / "none", "mamba-hf")
    assert "Without a tokenizer" in remark
    path = written(make_model(), tmp_path / "it")
    ids = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": None}
    change(path, **ids, sep_token_id=5)
    model = SSMCausalLM.from_preset(path)
    model.save_to_preset(tmp_path / "preset")
    model = SSMCausalLM.from_preset(tmp_path / "preset")
    assert model.special_token_ids == {"bos_token_id": 1, "eos_token_id": [2, 3]}
    assert model._stop_tokens("auto") == (2, 3)
    assert export_checkpoint(model, tmp_path / "again", "mamba-hf") == []
    for name in ("config.json", "generation_config.json"):
        found = read(tmp_path / "again" / name)
        assert {key: found[key] for key in ids} == ids
    with pytest.raises(ValueError, match=r"ids from 0 to 7. Received: special.*'eos_token_id': 8"):
        SSMCausalLM(make_model().backbone, special_token_ids={"eos_token_id": 8})


def test_command(tmp_path):
    model = make_model()
    model.save_to_preset(tmp_path / "preset")
    arguments = ["convert", str(tmp_path / "preset"), str(tmp_path / "hf"), "--to", "mamba-hf"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    found = SSMCausalLM.from_preset(tmp_path / "hf")
    for mine, its in zip(weights(model).values(), weights(found).values(), strict=True):
        np.testing.assert_array_equal(mine, its)
    arguments[1:3] = [str(tmp_path / "hf"), str(tmp_path / "original")]
    result = CliRunner().invoke(cli.main, [*arguments[:-1], "mamba-original"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "original" / "pytorch_model.bin").is_file()
    result = CliRunner().invoke(cli.main, [*arguments[:-1], "mamba-original"])
    assert result.exit_code == 1 and "`overwrite` must be True" in result.output
    result = CliRunner().invoke(cli.main, [*arguments[:-1], "mamba-original", "--overwrite"])
    assert result.exit_code == 0, result.output
