"""Directories of published Mamba models: their logits, and what is refused."""

import json
import shutil

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.convert import assigning, load_checkpoint
from keras_ssm.convert.containers import stored_tensor
from keras_ssm.convert.formats import mamba_hf, mamba_original
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMCausalLM, SSMClassifier
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.mamba_recordings import CASES, recorded
from tests.published_models import (
    CODESTRAL,
    IDS,
    change,
    copied,
    in_shards,
    logits,
    make_model,
    read_tensors,
    weights,
    write_json,
    write_tensors,
    written,
)
from tests.shared_data import SHARED

pytestmark = pytest.mark.once("torch")

EXACT = BACKEND != "jax"


def folder(name):
    return SHARED / "goldens" / "mamba" / name


def check_logits(path, record):
    """Loads a model as exactly as the backend can, and compares its logits with a recording."""
    model = SSMCausalLM.from_preset(path, dtype="float64" if EXACT else None)
    found = to_numpy(model(record["input_ids"].astype("int32")))
    assert relative_error(found, record["logits"]) < (1e-9 if EXACT else 2e-5)
    return model


@pytest.mark.parametrize("name", CASES)  # with gradients everywhere: test_mamba_models.py
def test_logits_of_recorded_models(name):
    check_logits(folder(name), recorded(name))


@pytest.mark.parametrize("name", ["mamba_a", "mamba2_c", "falcon_mamba_b"])
def test_the_same_in_single_precision_and_of_the_backbone(name):
    record = recorded(name)
    ids = record["input_ids"].astype("int32")
    model = SSMCausalLM.from_preset(folder(name))
    assert relative_error(to_numpy(model(ids)), record["logits"]) < 2e-5
    hidden = SSMBackbone.from_preset(str(folder(name)))(ids)
    assert relative_error(to_numpy(hidden), record[f"hidden_{record.layers}"]) < 2e-5


@pytest.mark.parametrize("name", ["mamba_a", "mamba_b", "mamba2_a", "mamba2_b", "mamba2_c"])
def test_the_original_format_gives_the_same_model(name):
    record = recorded(name)
    model = check_logits(folder(name) / "original", record)
    assert model.tie_embeddings == record.config["tie_word_embeddings"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A Mamba in the format of transformers."""
    return written(make_model(), tmp_path_factory.mktemp("published") / "mamba")


@pytest.fixture
def copy(directory, tmp_path):
    return copied(directory, tmp_path / "copy")


@pytest.mark.everywhere
def test_large_tensors_come_in_pieces(tmp_path, monkeypatch):
    model = make_model("mamba2", tie_embeddings=False)
    monkeypatch.setattr(stored_tensor.StoredTensor.pieces, "__defaults__", (40,))
    monkeypatch.setattr(assigning, "WHOLE", 40)
    found = SSMCausalLM.from_preset(written(model, tmp_path / "it"))
    for (path, mine), its in zip(weights(model).items(), weights(found).values(), strict=True):
        np.testing.assert_array_equal(mine, its, path)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("mamba", {"tie_embeddings": False, "norm": "layer", "expand": 1.75, "use_bias": True}),
        ("mamba2", {"D_per_feature": True, "norm_before_gate": True, "num_groups": 2}),
        ("mamba2", {"gated_norm": False, "dt_limit": (0.01, 0.2), "conv_bias": False}),
    ],
)
def test_options_of_the_original_code(kind, arguments, tmp_path):
    model = make_model(kind, **arguments)
    found = load_checkpoint(written(model, tmp_path / "it", "mamba-original"))
    assert relative_error(logits(found), logits(model)) < 1e-6


@pytest.mark.parametrize("tied", [False, True])
def test_codestral(tied, tmp_path):
    model = make_model("mamba2", hidden_dim=32, tie_embeddings=tied, **CODESTRAL)
    path = written(model, tmp_path / "it", "mamba-codestral")
    assert relative_error(logits(SSMCausalLM.from_preset(path)), logits(model)) < 1e-6
    assert load_checkpoint(path / "consolidated.safetensors", format="mamba-codestral")
    change(path, "params.json", n_experts=8)
    with pytest.raises(ValueError, match=r"must be known.*Received: n_experts='8'"):
        SSMCausalLM.from_preset(path)


@pytest.mark.parametrize("kind", ["F16", "BF16", "F64"])
def test_files_of_other_precision_and_in_shards(kind, copy, directory):
    tensors = read_tensors(directory)
    write_tensors(copy / "model.safetensors", tensors, kind)
    rounded = read_tensors(copy)
    assert (kind == "F64") == all(np.array_equal(rounded[n], tensors[n]) for n in tensors)
    model = SSMCausalLM.from_preset(in_shards(copy))
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    name = "backbone.layers.0.mixer.in_proj.weight"
    kernel = to_numpy(model.backbone.blocks[0].mixer.in_proj.kernel)
    np.testing.assert_array_equal(kernel, rounded[name].astype("float32").T)


@pytest.mark.parametrize("source", ["from_preset", "load_checkpoint"])
def test_pytorch_files_in_shards(copy, directory, source):
    import torch

    tensors = read_tensors(directory)
    files = [f"pytorch_model-{i:05}-of-00002.bin" for i in (1, 2)]
    file_of = {name: files[i % 2] for i, name in enumerate(tensors)}
    for file in files:
        here = {n: torch.from_numpy(x.copy()) for n, x in tensors.items() if file_of[n] == file}
        torch.save(here, copy / file)
    write_json(copy / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": file_of})
    (copy / "model.safetensors").unlink()
    load = SSMCausalLM.from_preset if source == "from_preset" else load_checkpoint
    expected = logits(SSMCausalLM.from_preset(directory))
    np.testing.assert_array_equal(logits(load(copy)), expected)
    (copy / files[1]).unlink()
    with pytest.raises(ValueError, match=f"no file '{files[1]}'"):
        load(copy)


def test_models_of_other_precision(directory):
    model = SSMCausalLM.from_preset(directory, dtype="bfloat16")
    dtypes = {w.name: str(w.dtype) for w in model.weights}
    assert dtypes["A_log"] == "float32" and dtypes["embeddings"] == "bfloat16"
    expected = logits(SSMCausalLM.from_preset(directory))
    assert relative_error(logits(model), expected) < 0.05
    assert model.backbone.residual_dtype == "float32"


def test_names_of_a_bare_model_and_of_pytorch_files(copy, directory):
    import torch

    expected = logits(SSMCausalLM.from_preset(directory))
    bare = {n.removeprefix("backbone."): torch.tensor(a) for n, a in read_tensors(copy).items()}
    bare["embedding.weight"] = bare.pop("embeddings.weight")
    bare["layers.0.mixer.in_proj.weight"] = bare["layers.0.mixer.in_proj.weight"].T.clone().T
    (copy / "model.safetensors").unlink()
    for old in (False, True):
        torch.save(bare, copy / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
        assert relative_error(logits(SSMCausalLM.from_preset(copy)), expected) < 1e-6


def test_infinity_is_read_in_each_way_that_it_is_written(tmp_path):
    path = written(make_model("mamba2"), tmp_path / "it")
    for written_as in ('{"__float__": "Infinity"}', "Infinity", '"Infinity"', "1e999"):
        config = json.loads((path / "config.json").read_text())
        config["time_step_limit"] = [0.0, "HERE"]
        (path / "config.json").write_text(json.dumps(config).replace('"HERE"', written_as))
        assert SSMBackbone.from_preset(path).blocks[0].mixer.dt_limit is None


def test_an_absent_field_is_the_default_of_the_published_class(tmp_path):
    model = make_model(dt_rank=1, state_dim=16)
    original = written(model, tmp_path / "original", "mamba-original")
    config = json.loads((original / "config.json").read_text())
    needed = {name: config[name] for name in ("d_model", "n_layer", "vocab_size")}
    (original / "config.json").write_text(json.dumps(needed))
    assert relative_error(logits(SSMCausalLM.from_preset(original)), logits(model)) < 1e-6
    mamba2 = written(make_model("mamba2", tie_embeddings=False), tmp_path / "mamba2")
    change(mamba2, tie_word_embeddings=None)
    assert not SSMCausalLM.from_preset(mamba2).tie_embeddings


def test_fields_that_its_writers_left_behind_do_no_harm(copy):
    """As in files of state-spaces/mamba-130m-hf."""
    change(copy, d_model=4, n_layer=1, d_inner=8, ssm_cfg={}, rms_norm=True, fused_add_norm=True)
    change(copy, torch_dtype="float32", pad_vocab_size_multiple=8, rescale_prenorm_residual=True)
    out = "backbone.layers.0.mixer.out_proj.weight"
    model = SSMCausalLM.from_preset(copy)
    kernel = to_numpy(model.backbone.blocks[0].mixer.out_proj.kernel)
    np.testing.assert_array_equal(kernel, read_tensors(copy)[out].T)


REFUSED = [
    ({"model_type": "jamba"}, "model_type='jamba'"),
    ({"model_type": None}, "no `model_type`"),
    ({"quantization_config": {"bits": 4}}, "quantization_config="),
    ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map="),
    ({"num_experts": 8}, "num_experts='8'"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ({"d_model": 8}, "d_model=8"),
    ({"use_bias": "no"}, "use_bias='no'"),
    ({"state_size": 0}, "state_size=0"),
    ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=nan"),
    ({"num_hidden_layers": 10**12}, "100 or more missing: backbone.layers.1.norm.weight"),
    ({"num_hidden_layers": 2}, "10 missing: backbone.layers.1.norm.weight"),
    ({"use_conv_bias": False}, "1 left over: backbone.layers.0.mixer.conv1d.bias"),
    ({"intermediate_size": 16}, r"shape \(16, 4\)"),
    ({"vocab_size": 10**12}, r"shape \(8, 4\)"),
    ({"tie_word_embeddings": False}, "1 missing: lm_head.weight"),
    ({"model_type": "mamba2", "num_heads": 3, "head_dim": 4}, "num_heads=3"),
    ({"model_type": "mamba2", "time_step_limit": [0.3, 0.2]}, "time_step_limit="),
]


@pytest.mark.parametrize(("fields", "match"), REFUSED, ids=[m for _, m in REFUSED])
def test_configurations_that_are_refused(fields, match, copy):
    change(copy, **fields)
    with pytest.raises(ValueError, match=match):
        SSMCausalLM.from_preset(copy)


ORIGINAL_REFUSED = [
    ({"attn_layer_idx": [1], "attn_cfg": {"causal": True}}, r"attn_layer_idx=\[1\]"),
    ({"d_intermediate": 128}, "d_intermediate=128"),
    ({"ssm_cfg": {"layer": "Mamba3"}}, "layer='Mamba3'"),
    ({"ssm_cfg": {"layer": "Mamba2", "d_ssm": 4}}, "d_ssm=4"),
    ({"ssm_cfg": {"d_stat": 4}}, "d_stat='4'"),
    ({"ssm_cfg": {"d_state": "4"}}, "d_state='4'"),
    ({"vocab_size": None}, "no vocab_size"),
    ({"pad_vocab_size_multiple": 16}, r"shape \(8, 4\)"),
]


@pytest.mark.parametrize(
    ("fields", "match"), ORIGINAL_REFUSED, ids=[m for _, m in ORIGINAL_REFUSED]
)
def test_original_configurations_that_are_refused(fields, match, tmp_path):
    path = written(make_model(), tmp_path / "it", "mamba-original")
    change(path, **fields)
    with pytest.raises(ValueError, match=match):
        SSMCausalLM.from_preset(path)


WAYS = {}  # in which the files of a directory can be wrong


def damaged(way, match):
    """Keeps what damages a directory, under a name, with what the error says."""
    return lambda function: WAYS.setdefault(way, (function, match))


@damaged("cut short", r"2\d\d\d bytes in place of 2\d\d\d")
def cut(path):
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-100])


@damaged("cut in the header", r"100 bytes")
def cut_header(path):
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:100])


@damaged("empty", r"0 bytes")
def empty(path):
    (path / "model.safetensors").write_bytes(b"")


@damaged("a pointer of Git LFS", "git lfs pull")
def pointer(path):
    (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")


@damaged("another kind of file", "must be a complete safetensors file")
def misnamed(path):
    np.savez(path / "other", **read_tensors(path))
    shutil.move(path / "other.npz", path / "model.safetensors")


@damaged("safetensors as PyTorch", "must be a complete and plain file of PyTorch")
def misnamed_bin(path):
    shutil.move(path / "model.safetensors", path / "pytorch_model.bin")


@damaged("no weights", "must hold its weights as well")
def missing(path):
    (path / "model.safetensors").unlink()


@damaged("a shard missing", "incomplete.*no file 'model-00002-of-00003.safetensors'")
def shard(path):
    (in_shards(path) / "model-00002-of-00003.safetensors").unlink()


@damaged("shards exchanged", "what their index says")
def mixed(path):
    in_shards(path)
    one, two = (path / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


@damaged("an index outside", "weight_map")
def outside(path):
    index = {"weight_map": {"a": "../model.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "model.safetensors").unlink()


@damaged("a tensor too many", "1 left over: backbone.layers.0.mixer.dt_layernorm.weight")
def extra(path):
    more = {"backbone.layers.0.mixer.dt_layernorm.weight": np.ones(1, "f4")}
    write_tensors(path / "model.safetensors", read_tensors(path) | more)


@damaged("NaN", r"'backbone.layers.0.mixer.D' must be finite.*nan")
def not_finite(path):
    tensors = read_tensors(path)
    tensors["backbone.layers.0.mixer.D"][1] = np.nan
    write_tensors(path / "model.safetensors", tensors)


@damaged("integers", "must be of floats.*int8")
def integers(path):
    tensors = read_tensors(path)
    name = "backbone.layers.0.mixer.in_proj.weight"
    write_tensors(path / "model.safetensors", tensors | {name: tensors[name].astype("i1")})


@damaged("another head than the table", "another 'lm_head.weight'")
def head(path):
    tensors = read_tensors(path)
    table = tensors["backbone.embeddings.weight"]
    write_tensors(path / "model.safetensors", tensors | {"lm_head.weight": table + 1})


@damaged("two tables", "One tensor must stand for")
def tables(path):
    tensors = read_tensors(path)
    table = tensors["backbone.embeddings.weight"]
    write_tensors(path / "model.safetensors", tensors | {"backbone.embedding.weight": table})


@damaged("another model", "those of one Mamba model")
def another(path):
    write_tensors(path / "model.safetensors", {"bert.pooler.weight": np.zeros((2, 2), "f4")})


@pytest.mark.parametrize("way", WAYS)
def test_files_that_are_refused(way, copy):
    function, match = WAYS[way]
    function(copy)
    with pytest.raises(ValueError, match=match) as caught:
        SSMCausalLM.from_preset(copy)
    assert "Received: " in str(caught.value)


def test_pytorch_files_that_are_refused(tmp_path):
    path = written(make_model(), tmp_path / "it", "mamba-original") / "pytorch_model.bin"
    data = path.read_bytes()
    changed = bytearray(data)
    changed[data.index(b"/data/0") + 100] ^= 1
    for content, match in {
        bytes(changed): "another CRC-32",
        data[:-1000]: "plain file of PyTorch",
        b"\x80\x02": "plain file of PyTorch",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            SSMCausalLM.from_preset(path.parent)


def test_a_head_beside_the_table_may_say_the_same(copy, directory):
    tensors = read_tensors(copy)
    table = tensors["backbone.embeddings.weight"]
    write_tensors(copy / "model.safetensors", {**tensors, "lm_head.weight": table})
    assert relative_error(logits(SSMCausalLM.from_preset(copy)), logits(load_checkpoint(copy))) == 0


def test_arguments(directory):
    model = SSMCausalLM.from_preset(directory, name="mine", dropout=0.5, trainable=False)
    assert model.name == "mine" and model.backbone.dropout == 0.5 and not model.trainable_weights
    for arguments, match in {
        ("state_dim", 8): "`state_dim` of these weights is 4.*state_dim=8",
        ("gate", "glu"): "`gate` of these weights is None.*gate='glu'",
        ("tie_embeddings", False): "`tie_embeddings` of these weights is True",
        ("state_dims", 8): "Arguments must be those of Mamba.*Received: state_dims",
        ("step_scale", 2.0): "time-invariant",
        ("revision", "main"): "`revision` goes with a preset on the Hub",
    }.items():
        with pytest.raises(ValueError, match=match):
            SSMCausalLM.from_preset(directory, **dict([arguments]))


def test_a_model_without_the_weights_may_be_another(copy):
    (copy / "model.safetensors").unlink()
    model = SSMCausalLM.from_preset(
        copy, load_weights=False, num_layers=2, state_dim=8, tie_embeddings=False
    )
    assert len(model.backbone.blocks) == 2 and model.head is not None
    assert tuple(model.backbone.blocks[1].mixer.A_log.shape) == (8, 8)


def test_a_published_backbone_under_another_head(directory):
    with pytest.warns(UserWarning, match="turns texts into bytes"):
        model = SSMClassifier.from_preset(directory, num_classes=3)
    assert model.compiled and model.predict(IDS, verbose=0).shape == (2, 3)
    table = read_tensors(directory)["backbone.embeddings.weight"]
    np.testing.assert_array_equal(to_numpy(model.backbone.token_embedding.embeddings), table)
    with pytest.raises(ValueError, match="pass `num_classes`"):
        SSMClassifier.from_preset(directory)
    with pytest.raises(ValueError, match="load it as an `SSMCausalLM`"):
        SequencePreprocessor.from_preset(directory)


def test_the_command_shows_a_configuration(directory):
    result = CliRunner().invoke(cli.main, ["info", str(directory)])
    assert result.exit_code == 0, result.output
    for text in ("mamba-hf", "hidden_size", str(directory)):
        assert text in result.output.replace("\n", "")


def test_a_report_and_a_preset(directory, tmp_path):
    result = CliRunner().invoke(cli.main, ["convert", str(directory), str(tmp_path / "preset")])
    assert result.exit_code == 0, result.output
    for text in ("mamba-hf, a safetensors file", "backbone.embeddings.weight", "transposed"):
        assert text in result.output
    assert "could not say" not in result.output
    expected = logits(SSMCausalLM.from_preset(directory))
    assert relative_error(logits(SSMCausalLM.from_preset(tmp_path / "preset")), expected) < 1e-6
    origin = json.loads((tmp_path / "preset" / "preset.json").read_text())["converted_from"]
    assert origin["format"] == "mamba-hf" and set(origin["sha256"]) == {"model.safetensors"}


def test_a_conversion_compared_with_recorded_logits(tmp_path):
    recorded("mamba2_a")
    source = folder("mamba2_a")
    arguments = ["convert", str(source / "original"), str(tmp_path / "preset")]
    result = CliRunner().invoke(cli.main, [*arguments, "--check", str(source / "record64.npz")])
    assert result.exit_code == 0 and "largest differences" in result.output, result.output
    other = str(folder("mamba2_a").parent / "mamba_a" / "record64.npz")
    result = CliRunner().invoke(cli.main, [*arguments[:2], str(tmp_path / "no"), "--check", other])
    assert result.exit_code == 1 and "nothing was written" in result.output
    assert not (tmp_path / "no").exists()


def test_numbers_that_half_precision_does_not_hold(copy):
    tensors = read_tensors(copy)
    tensors["backbone.layers.0.mixer.in_proj.weight"][0, 1] = 1e5
    write_tensors(copy / "model.safetensors", tensors)
    SSMCausalLM.from_preset(copy, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"in the dtype of its weight, float16.*100000"):
        SSMCausalLM.from_preset(copy, dtype="float16")


def test_tensors_and_weights_that_are_ignored(copy):
    tensors = read_tensors(copy)
    del tensors["backbone.norm_f.weight"]
    write_tensors(copy / "model.safetensors", tensors | {"ema.table": np.ones(3, "f4")})
    model = load_checkpoint(copy, ignore=["ema.*", "backbone.norm_f.weight"])
    np.testing.assert_array_equal(to_numpy(model.backbone.last_norm.scale), np.ones(4))
    with pytest.raises(ValueError, match="format='s5-flax', a directory of mamba-hf"):
        load_checkpoint(copy, format="s5-flax")
    shutil.copy(copy / "model.safetensors", copy / "alone.safetensors")
    with pytest.raises(ValueError, match="with the configuration beside them"):
        load_checkpoint(copy / "alone.safetensors")
    assert isinstance(model, keras.Model)


def test_settings_that_change_numbers_alone():
    """No shape tells them."""
    limit = [0.01, {"__float__": "Infinity"}]
    config = {"model_type": "mamba2", "layer_norm_epsilon": 1e-3, "time_step_limit": limit}
    mixer = mamba_hf.read_config(config, "`config.json`").mixer
    assert mixer["norm_epsilon"] == 1e-3 and mixer["num_groups"] == 8
    assert mixer["dt_limit"] == (0.01, np.inf)
    config = {"d_model": 5, "n_layer": 1, "vocab_size": 8, "ssm_cfg": {"expand": 1.5}}
    spec = mamba_original.read_config(config, "`config.json`")
    assert spec.inner_dim == spec.make_mixer().inner_features(5) == 7  # cut, not rounded
