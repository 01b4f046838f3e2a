"""HyenaDNA from directories of both formats and back, against what its classes compute."""

import json

import numpy as np
import pytest

from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.layers import Hyena, Mamba
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from tests import hyena_files
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.hyena_files import IDS, LENGTH, make_tensors, published_logits
from tests.published_models import change, read_tensors, weights, write_tensors

pytestmark = pytest.mark.once("torch")  # layers and blocks are compared everywhere

EXACT = BACKEND != "jax"  # whose float64 is a mode of the process
WRITERS = {"hyena-hf": hyena_files.write_hf, "hyena-original": hyena_files.write_original}


@pytest.fixture(scope="module")
def tensors():
    return make_tensors()


@pytest.fixture(scope="module")
def directories(tensors, tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {to: write(root / to, tensors) for to, write in WRITERS.items()}


def of_trained(arguments):
    """A model of ours with all weights as if trained."""
    options = {"activation": None, "gate": None, "prenorm": True, "final_norm": "layer"}
    options |= {"residual_dtype": "float32", "tie_dropout": False, "encoder_dropout": 0.1}
    mixer = Hyena(9, emb_dim=5, filter_width=4, **{"shift": 0.05, **arguments}, seed=0)
    model = SSMCausalLM(SSMBackbone(mixer, 2, 4, vocabulary_size=16, intermediate_dim=6, **options))
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(to_numpy(weight) + 0.3 * rng.standard_normal(weight.shape))
    return model


@pytest.mark.parametrize("to", WRITERS)
def test_logits_are_those_of_the_published_classes(to, directories, tensors):
    model = SSMCausalLM.from_preset(directories[to], dtype="float64" if EXACT else None)
    close = 1e-9 if EXACT else 2e-5
    assert relative_error(to_numpy(model(IDS)), published_logits(tensors)) < close
    assert model.tie_embeddings == (to == "hyena-original")
    single = SSMCausalLM.from_preset(str(directories[to]))
    assert relative_error(to_numpy(single(IDS)), published_logits(tensors)) < 2e-5
    backbone = single.backbone
    assert (backbone.residual_dtype, backbone.encoder_dropout) == ("float32", 0.1)
    # The tokens of the tokenizer that every such directory means.
    tokenizer = single.preprocessor.tokenizer
    assert tokenizer(["ACGTN", "a\nA"]) == [[7, 8, 9, 10, 11], [6, 6, 7]]
    assert tokenizer.detokenize([7, 8, 1, 9]) == "ACG"
    ids = [tokenizer.start_token_id, tokenizer.end_token_id, tokenizer.pad_token_id]
    assert ids == [2, 1, 4]
    single.compile(sampler="greedy", run_eagerly=True)
    text = single.generate("ACG", max_length=6, stop_token_ids=None)
    assert text.startswith("ACG")
    states = single(IDS[:, :5], return_state=True)[1]
    y, _ = single.step(IDS[:, 5], states)
    assert relative_error(to_numpy(y), published_logits(tensors)[:, 5]) < 2e-5


@pytest.mark.parametrize("to", WRITERS)
def test_files_come_back_as_they_were_published(to, directories, tensors, tmp_path):
    model = SSMCausalLM.from_preset(directories[to])
    assert export_checkpoint(model, tmp_path / "out", to) == []
    again = load_checkpoint(tmp_path / "out")
    for (path, mine), its in zip(weights(model).items(), weights(again).values(), strict=True):
        np.testing.assert_array_equal(mine, its, path)
    if to == "hyena-hf":
        found, expected = (read_tensors(d) for d in (tmp_path / "out", directories[to]))
    else:
        import torch

        state = torch.load(tmp_path / "out" / "weights.ckpt", weights_only=True)["state_dict"]
        found = {name: value.numpy() for name, value in state.items()}
        expected = {f"model.{name}": value for name, value in tensors.items()}
        frequency = "model.backbone.layers.0.mixer.filter_fn.implicit_filter.{}.freq"
        assert state[frequency.format(1)].data_ptr() == state[frequency.format(5)].data_ptr()
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    published = hyena_files.HF if to == "hyena-hf" else hyena_files.ORIGINAL
    differ = {name for name in published if config.get(name) != published[name]}
    harmless = {"_name_or_path", "auto_map", "initializer_range", "torch_dtype", "layer"}
    harmless |= {"transformers_version", "vocab_size", "pad_vocab_size_multiple"}
    harmless |= {name for name in published if name.startswith(("fused", "checkpoint", "return"))}
    assert differ <= harmless


def test_names_of_other_writers(directories, tensors, tmp_path):
    expected = published_logits(tensors)
    lean = {n: v for n, v in tensors.items() if not n.endswith((".z", ".t", ".deltas"))}
    checkpointed = hyena_files.write_original(tmp_path / "lean", lean, checkpoint_mixer=True)
    found = SSMCausalLM.from_preset(checkpointed)  # positions are computed anew
    assert relative_error(to_numpy(found(IDS)), expected) < 2e-5
    frequency = "backbone.layers.0.mixer.filter_fn.implicit_filter.{}.freq"
    other = dict(tensors)
    other.pop(frequency.format(1))  # transformers keeps any one of the names
    other.pop(frequency.format(3))
    path = hyena_files.write_original(tmp_path / "other", {**other, "metric.total": np.ones(1)})
    assert relative_error(to_numpy(SSMCausalLM.from_preset(path)(IDS)), expected) < 2e-5
    wrong = {**tensors, frequency.format(5): tensors[frequency.format(5)] + 1}
    path = hyena_files.write_original(tmp_path / "wrong", wrong)
    with pytest.raises(ValueError, match=r"are one parameter.*Received: other numbers"):
        SSMCausalLM.from_preset(path)


def test_the_shift_of_the_code_that_trained_a_model(tensors, tmp_path):
    path = hyena_files.write_original(tmp_path / "it", tensors, {"shift": 0.0})
    found = to_numpy(SSMCausalLM.from_preset(path)(IDS))
    assert relative_error(found, published_logits(tensors, shift=0.0)) < 2e-5
    assert relative_error(found, published_logits(tensors)) > 1e-3


def test_what_is_trained_on_for_other_tasks(directories):
    model = SSMClassifier.from_preset(directories["hyena-hf"], num_classes=2)
    model.fit(IDS, [0, 1], epochs=1, verbose=0)
    model.backbone.enable_lora(2)
    other = SSMBackbone.from_preset(
        directories["hyena-hf"], load_weights=False, max_length=2 * LENGTH, dropout=0.2
    )
    assert other.blocks[0].mixer.max_length == 2 * LENGTH and other.dropout == 0.2
    with pytest.raises(ValueError, match=r"`max_length` of these weights is 10.*max_length=20"):
        SSMBackbone.from_preset(directories["hyena-hf"], max_length=2 * LENGTH)


@pytest.mark.parametrize(
    ("to", "fields", "words"),
    [
        ("hyena-hf", {"hyena_order": 3}, "`hyena_order` .*Received: hyena_order=3"),
        ("hyena-hf", {"short_filter_order": 5}, "not causal"),
        ("hyena-hf", {"layer_norm_epsilon": 1e-6}, "norms of the blocks have 1e-05"),
        ("hyena-hf", {"train_freq": False}, "do not hold the factors"),
        ("hyena-hf", {"d_inner": 0}, "`d_inner` .*must be a positive integer"),
        ("hyena-hf", {"rotary": 8}, "must be known.*rotary='8'"),
        ("hyena-hf", {"n_layer": 3}, "must hold every tensor.*missing: backbone.layers.2"),
        ("hyena-hf", {"max_seq_len": 11}, r"must have the shape \(1, 11, 5\)"),
        ("hyena-original", {"attn_layer_idx": [1]}, r"layers \[1\] are attention"),
        ("hyena-original", {"max_position_embeddings": 8}, "no position embeddings"),
    ],
)
def test_configurations_of_other_models_are_refused(to, fields, words, tensors, tmp_path):
    path = WRITERS[to](tmp_path / "it", tensors, **fields)
    with pytest.raises(ValueError, match=words):
        SSMCausalLM.from_preset(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"_name_": "long-conv"}, "_name_='long-conv'"),
        ({"modulate": False}, "`modulate` .*no such option"),
        ({"num_heads": 2}, "num_heads=2"),
        ({"dropouts": 1}, "must be known.*dropouts"),
    ],
)
def test_other_layers_are_refused(fields, words, tensors, tmp_path):
    path = hyena_files.write_original(tmp_path / "it", tensors, fields)
    with pytest.raises(ValueError, match=words):
        SSMCausalLM.from_preset(path)


def test_damaged_files_are_refused(tensors, tmp_path):
    path = hyena_files.write_hf(tmp_path / "it", tensors)
    found = read_tensors(path)
    write_tensors(path / "model.safetensors", {**found, "hyena.backbone.extra": np.ones(2, "f4")})
    with pytest.raises(ValueError, match=r"no tensor beside.*hyena.backbone.extra"):
        SSMCausalLM.from_preset(path)
    found["lm_head.weight"] = found["lm_head.weight"] + 1
    write_tensors(path / "model.safetensors", found)
    SSMCausalLM.from_preset(path)  # has a head of its own
    change(path, tie_word_embeddings=True)
    with pytest.raises(ValueError, match="says that the head is the embeddings"):
        SSMCausalLM.from_preset(path)
    write_tensors(tmp_path / "alone.safetensors", found)
    with pytest.raises(ValueError, match="read with the configuration beside them"):
        load_checkpoint(tmp_path / "alone.safetensors")


@pytest.mark.parametrize(
    ("to", "arguments", "words"),
    [
        ("hyena-hf", {"shift": 0.0}, "need shift=0.05. Received: shift=0.0"),
        ("hyena-hf", {"conv_width": 4}, "need conv_width=3"),
        ("hyena-original", {"order": 3}, "need order=2"),
    ],
)
def test_models_that_the_classes_do_not_cover_are_refused(to, arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export_checkpoint(of_trained(arguments), tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_blocks_and_mixers_of_other_models_are_refused(tmp_path):
    options = {"activation": None, "gate": None, "prenorm": True}
    model = of_trained({})
    with pytest.raises(ValueError, match=r"has the mixer Mamba or Mamba2\. Received: mixer Hyena"):
        export_checkpoint(model, tmp_path / "out", "mamba-hf")
    backbone = SSMBackbone(Mamba(4, seed=0), 1, 4, vocabulary_size=8, norm="rms", **options)
    with pytest.raises(ValueError, match=r"has the mixer Hyena\. Received: mixer Mamba"):
        export_checkpoint(SSMCausalLM(backbone), tmp_path / "out", "hyena-hf")
    options |= {"final_norm": "layer"}
    backbone = SSMBackbone(Hyena(8, seed=0), 1, 4, vocabulary_size=8, **options)
    with pytest.raises(ValueError, match="need an `intermediate_dim`"):
        export_checkpoint(SSMCausalLM(backbone), tmp_path / "out", "hyena-original")
    options |= {"norm": "rms", "final_norm": "rms", "intermediate_dim": 4}
    backbone = SSMBackbone(Mamba(4, seed=0), 1, 4, vocabulary_size=8, **options)
    with pytest.raises(ValueError, match="need intermediate_dim=None"):
        export_checkpoint(SSMCausalLM(backbone), tmp_path / "out", "mamba-hf")


@pytest.mark.parametrize("to", WRITERS)
def test_own_models_are_written_and_come_back(to, tmp_path):
    model = of_trained({"filter_depth": 0})  # the fewest, which both formats can say
    remarks = export_checkpoint(model, tmp_path / "out", to)
    assert len(remarks) == (to == "hyena-hf")  # which says that no token ends a text
    again = load_checkpoint(tmp_path / "out")
    assert relative_error(to_numpy(again(IDS)), to_numpy(model(IDS))) < 1e-6
    assert again.tie_embeddings
