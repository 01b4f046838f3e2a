"""Published checkpoints as models of this package: the same logits, on every backend."""

import gzip
import json

import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops

from keras_ssm import cli
from keras_ssm.convert import compare_recorded, convert_checkpoint, load_checkpoint
from keras_ssm.convert.checkpoint import build_model, read_model
from keras_ssm.convert.containers.checkpoint_file import (
    CheckpointFile,
    read_checkpoint_file,
    read_configuration,
)
from keras_ssm.convert.formats.s4_kernel import s4_mixer, s4_weight_maps
from keras_ssm.convert.formats.truncated_c import plain_C
from keras_ssm.convert.settings import Settings
from keras_ssm.convert.tensors import Tensors
from keras_ssm.models import SSMClassifier, SSMPairClassifier
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.converted import inputs_of
from tests.shared_data import HERE, checkpoint, golden, shared

pytestmark = pytest.mark.once("torch")

# Settings that the files lack, from the recorded configurations: the norm of an `example.py` file
# and the pooling of a bare state dict.
OVERRIDES = {
    "a_example_s4d_postnorm.pth": {"prenorm": False},
    "a_example_s4d_prenorm.pth": {"prenorm": True},
    "b_example_s4block_diag.pth": {"prenorm": True},
    "b_example_s4block_dplr.pth": {"prenorm": False},
    "d_dss_exp_pathfinder_last.pt": {"pooling": "last"},
}
CHECKPOINTS = [
    *OVERRIDES,
    "c_s4_lra_aan.ckpt",
    "c_s4_lra_cifar.ckpt",
    "c_s4_lra_cifar_pl_omegaconf.ckpt",
    "c_s4_lra_listops.ckpt",
    "c_s4_lra_listops_v3layout.ckpt",
    "c_s4_lra_pathx_indep.pt",
    "c_s4_sc_uni_prenorm_id.ckpt",
    "c_s4_scifar_layernorm.ckpt",
    "c_s4_transposed_scalarLN.ckpt",
    "c_s4d_lra_listops.ckpt",
    "c_s4d_minimal_cifar.ckpt",
    "d_dss_lra_aan.ckpt",
    "d_dss_lra_cifar.ckpt",
    "d_dss_lra_listops.ckpt",
    "d_dss_scifar_scalarLN_bidir.ckpt",
    "s5_aan.msgpack",
    "s5_cifar.msgpack",
    "s5_last_ln_post.msgpack",
    "s5_listops.msgpack",
    "s5_pathx.msgpack",
]

# Where evaluating a model takes long, some run each time and the others in `make test-all`.
QUICK = CHECKPOINTS
if BACKEND == "jax":
    QUICK = sorted(p.name for p in (HERE / "golden" / "checkpoints").glob("*[!n]"))
EACH_TIME = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CHECKPOINTS]

FIRST = "a_example_s4d_postnorm.pth"


def recording_of(name):
    stem = name.rpartition(".")[0]
    return golden(f"models/{stem.removesuffix('_pl_omegaconf').removesuffix('_v3layout')}")[0]


@pytest.mark.parametrize("name", EACH_TIME)
def test_logits_of_checkpoints(name):
    data = recording_of(name)
    model, report = read_model(checkpoint(name), overrides=OVERRIDES.get(name))
    assert isinstance(model, SSMPairClassifier if "aan" in name else SSMClassifier)
    y = model(inputs_of(model, data))
    key = "logits" if "logits" in data else "log_probs_eval"
    y = y if key == "logits" else ops.log_softmax(y, axis=-1)
    for recorded in (data[key], data[f"f64/{key}"]):
        assert relative_error(y, recorded) < 5e-5
    # The given settings are those that the file lacks, and the report marks them.
    for setting in OVERRIDES.get(name, {}):
        assert report.settings[setting][1:] == ("given", False)


SLOW_ON_JAX = [pytest.mark.slow] if BACKEND == "jax" else []


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=SLOW_ON_JAX) for n in ("s4d_seqcifar10_a", "s4_seqmnist")]
)
def test_trained_by_others(name):
    model = load_checkpoint(shared(f"checkpoints/{name}.pth"), prenorm=False)
    assert compare_recorded(model, shared(f"checkpoints/golden_{name}.npz")).largest < 5e-5


@pytest.mark.parametrize("tied", [True, False])
def test_how_a_model_drops_is_read_from_the_file(tied):
    file = read_checkpoint_file(checkpoint("c_s4_lra_cifar.ckpt"))
    hyper = file.hyper_parameters
    changed = {**hyper, "model": {**hyper["model"], "dropout": 0.25, "tie_dropout": tied}}
    model, _ = build_model(file._replace(hyper_parameters=changed))
    assert (model.backbone.dropout, model.backbone.tie_dropout) == (0.25, tied)


@pytest.mark.parametrize("ends", ["lengths", "padding_mask"])
def test_recorded_rows_end_where_they_end(ends, tmp_path):
    model = load_checkpoint(checkpoint(FIRST), prenorm=False)
    x = np.random.default_rng(0).standard_normal((2, 9, model.backbone.input_dim))
    lengths = np.array([4, 9])
    parts = [to_numpy(model(x[i : i + 1, :n].astype("float32"))) for i, n in enumerate(lengths)]
    given = {"lengths": lengths, "padding_mask": np.arange(9) < lengths[:, None]}[ends]
    arrays = {"x": x, "logits": np.concatenate(parts), ends: given}
    np.savez(tmp_path / "recorded.npz", **arrays)
    assert compare_recorded(model, tmp_path / "recorded.npz").largest < 1e-5


@pytest.mark.slow
def test_mnist_score():
    """The official code scored 98.8 % on these 2000 test images."""
    folder = shared("data/mnist")
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, 2000 * 784, 16).reshape(2000, 784)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, 2000, 8)
    path = shared("checkpoints/s4_seqmnist.pth")
    model = load_checkpoint(path, prenorm=False, scale=1 / 255)
    logits = model.predict(images, batch_size=100, verbose=0)
    assert (logits.argmax(axis=-1) == labels).mean() == pytest.approx(0.988, abs=5e-4)


def test_C_of_another_length_and_the_condition_of_its_solve():
    """Two modes of which one hardly decays: I - dA^l is diagonal, its condition their ratio."""
    dt, A = np.array([[1.0]]), np.array([[-0.002 + 0j, -1.0 + 0j]])
    C_tilde = np.array([[[1.0 + 2j, 3.0 - 1j]]])
    factor = 1 - ((1 + dt * A / 2) / (1 - dt * A / 2)) ** 5
    C, condition = plain_C(C_tilde, A, np.zeros((1, 1, 2), complex), dt, length=5)
    np.testing.assert_allclose(C, C_tilde / factor, rtol=1e-10)
    np.testing.assert_allclose(condition, factor.real.max() / factor.real.min(), rtol=1e-6)


def test_second_version():
    path = shared("checkpoints/s4_v2_format_sample.pth")
    model, report = read_model(path, overrides={"prenorm": False})
    mixer = model.backbone.blocks[3].mixer
    assert mixer.bidirectional and mixer.state_dim == 64
    assert any(name.endswith("omega") for name in report.dropped)
    assert any("dA^256" in row[-1] for row in report.weights)
    # The converted C gives the recorded C~ = C (I - dA^256) again.
    tensors = read_checkpoint_file(shared("checkpoints/s4_v2_format_sample.pth")).tensors
    (C_tilde,) = (v for k, v in tensors.items() if "layers.3." in k and k.endswith("kernel.C"))
    bank = mixer.bank()
    found = -ops.einsum("chi,hij->chj", bank.readout, bank.power(256)) / 2
    expected = np.concatenate([C_tilde[..., 0], -C_tilde[..., 1]], axis=-1)
    assert relative_error(found, expected) < 1e-3


# Kernels with the options of the official layer, by their recorded tensors.
KERNELS = [
    "diag_lin_zoh",
    "diag_dtfast",
    "diag_inv2_ch2_relu",
    "diag_quad_bilinear_softplus_imagexp",
    "diag_sigmoid_noglu",
    "diag_untied_dt",
    "diag_bandlimit",
    "diag_real_isreal",
    "diag_bidir_ch2_lmax_short",
    "diag_combo",
    "dplr_legs_ch2",
    "dplr_legs_bidir",
    "dplr_legs_rank3",
]


@pytest.mark.parametrize(
    ("name", "after"),
    [(n, "") for n in KERNELS] + [(n, "sd_fwd/") for n in KERNELS if n.startswith("dplr")],
)
def test_options_of_the_official_layer(name, after):
    data, description = golden(f"s4/{name}")
    stem = "s4_layers.0."
    tensors = {stem + k.removeprefix("sd/"): data[k] for k in data if k.startswith("sd/")}
    for key in ("kernel.C", "kernel.l_kernel") if after else ():
        tensors[f"{stem}layer.{key}"] = data[after + key]
    tensors, settings = Tensors(tensors), Settings({}, {})
    hyper = description["config"]
    mixer = s4_mixer(tensors, stem, settings, hyper)
    mixer.build((None, None, hyper["d_model"]))
    for a in s4_weight_maps(tensors, stem, "mixer", settings, hyper):
        value = a.function(*(tensors[n].astype("float64") for n in a.sources))
        getattr(mixer, a.target.rpartition(".")[2]).assign(value)
    K = data["f64/K"]
    close = 1e-4 if "rank3" in name else 2e-5
    assert relative_error(ops.reshape(mixer.kernel(K.shape[-1]), K.shape), K) < close


def third_version(tensors):
    """The same layers by the names of the third version of state-spaces/s4."""
    names = {
        "layer.kernel.inv_dt": "kernel.kernel.log_dt",
        "layer.kernel.A_real": "kernel.kernel.inv_A_real",
        "layer.kernel.": "kernel.kernel.",
        "layer.D": "D",
    }
    renamed = {}
    for name, value in tensors.items():
        if name.endswith("inv_dt"):
            value = value[:, 0]
        if name.endswith("A_imag"):
            value = -value
        for new, old in names.items():
            name = name.replace(new, old)
        renamed[name] = value
    return renamed


def test_diagonal_layers_of_the_third_version():
    tensors = read_checkpoint_file(checkpoint("b_example_s4block_diag.pth")).tensors
    expected, _ = build_model(file_of(tensors))
    model, report = build_model(file_of(third_version(tensors)))
    for found, value in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(found, value)
    assert report.settings["discretization"] == ("bilinear", "default", False)


def test_the_same_tensors_in_other_containers(tmp_path):
    torch_file = read_checkpoint_file(checkpoint(FIRST))
    safetensors = pytest.importorskip("safetensors.numpy")
    metadata = {"config": json.dumps({"prenorm": False})}
    safetensors.save_file(torch_file.tensors, tmp_path / "a.safetensors", metadata)
    np.savez(tmp_path / "a.npz", **torch_file.tensors)
    expected = load_checkpoint(checkpoint(FIRST), prenorm=False).get_weights()
    for path in (tmp_path / "a.safetensors", tmp_path / "a.npz"):
        given = {} if path.suffix == ".safetensors" else {"prenorm": False}
        model, report = read_model(path, overrides=given)
        if path.suffix == ".safetensors":
            assert report.settings["prenorm"] == (False, "file", True)
        for found, value in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(found, value)


def test_a_nested_npz_of_flax(tmp_path):
    path = checkpoint("s5_last_ln_post.msgpack")
    file = read_checkpoint_file(path)
    np.savez(tmp_path / "a.npz", **file.tensors)
    config = path.with_name(path.name + ".json")
    found = load_checkpoint(tmp_path / "a.npz", config=config).get_weights()
    for value, expected in zip(found, load_checkpoint(path).get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_older_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    content = torch.load(checkpoint(FIRST), weights_only=True)
    content["model"]["half"] = torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3).T[1:]
    for zipped in (False, True):
        path = tmp_path / f"{zipped}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        tensors = read_checkpoint_file(path).tensors
        assert set(tensors) == set(content["model"])
        for name, value in content["model"].items():
            np.testing.assert_array_equal(tensors[name], value.float().numpy())


def file_of(tensors, **hyper_parameters):
    return CheckpointFile(tensors, {"prenorm": False, **hyper_parameters}, [], "test")


@pytest.fixture
def tensors():
    return dict(read_checkpoint_file(checkpoint("b_example_s4block_dplr.pth")).tensors)


def refused(tensors, match, hyper_parameters=None, **arguments):
    file = file_of(tensors, **(hyper_parameters or {}))
    with pytest.raises(ValueError, match=match) as error:
        build_model(file, **arguments)
    assert "Received" in str(error.value)


def test_names_left_over_or_missing(tensors):
    refused({**tensors, "ema.decay": np.zeros(1)}, "left over: ema.decay")
    file = file_of({**tensors, "ema.decay": np.zeros(1)})
    _, report = build_model(file, ignore=["ema.*"])
    assert report.dropped["ema.decay"] == "ignored, as asked"
    incomplete = {n: v for n, v in tensors.items() if n != "norms.1.bias"}
    refused(incomplete, "must hold a tensor 'norms.1.bias'")
    for name in ("norms.1.bias", "*.norm.beta"):
        model, report = build_model(file_of(incomplete), ignore=[name])
        assert "initial value" in report.dropped["backbone.blocks.1.norm.beta"]
        assert not to_numpy(model.backbone.blocks[1].norm.beta).any()
    incomplete = {n: v for n, v in tensors.items() if n != "encoder.bias"}
    refused(incomplete, "embedding or a linear layer with a bias")
    refused({**tensors, "norms.1.bias": np.zeros(5, "f4")}, r"shape \(5,\)")
    refused({**tensors, "norms.1.bias": np.full(16, np.nan, "f4")}, "finite")
    refused({"something": np.zeros(3)}, "one of the formats s4-example, longconv-example")
    refused(tensors, "format 's5-flax'", format="s5-flax")
    refused(tensors, "`format` must be one of", format="s6")


# Wrappers of PyTorch, attributes of a Lightning module, and both, in any order.
WRAPPED = [
    "module.{}",
    "_orig_mod.module.{}",
    "module._orig_mod.module.{}",
    "model.{}",
    "net.module.{}",
    "module.student.net.{}",
    "_forward_module._fsdp_wrapped_module.model.{}",
]


@pytest.mark.parametrize("names", WRAPPED)
@pytest.mark.parametrize("name", ["b_example_s4block_dplr.pth", "c_s4_lra_listops_v3layout.ckpt"])
def test_names_in_wrappers(name, names):
    file = read_checkpoint_file(checkpoint(name))
    given = {"overrides": {"prenorm": False}} if name in OVERRIDES else {}
    tensors = {names.format(n): v for n, v in file.tensors.items()}
    tensors |= {"criterion.weight": np.zeros(3), "module.count": np.zeros(())}
    with pytest.raises(ValueError, match=r"Received: 2 left over: count, criterion\.weight"):
        build_model(file._replace(tensors=tensors), **given)
    ignore = ["criterion.*", "module.count"]
    model, report = build_model(file._replace(tensors=tensors), ignore=ignore, **given)
    assert {"criterion.weight", "module.count"} <= set(report.dropped)
    expected, _ = build_model(file, **given)
    for found, value in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(found, value)


def test_wrappers_inside_and_two_models(tensors):
    expected = build_model(file_of(tensors))[0].get_weights()
    inside = {n.replace("s4_layers.0.", "s4_layers.0._orig_mod."): v for n, v in tensors.items()}
    teacher = {f"teacher.{n}": v * 2 for n, v in tensors.items()}
    student = {f"student.module.{n}": v for n, v in tensors.items()}
    refused({**teacher, **student}, r"one model.*Received: models at student\., teacher\.")
    refused({**teacher, **tensors}, "left over: teacher")
    refused({**tensors, "module.norms.1.bias": np.zeros(16)}, "stand for 'norms.1.bias'")
    for file, ignore in (
        ({**teacher, **student}, "teacher.*"),
        ({**teacher, **tensors}, ["teacher.*"]),
        (inside, ()),
    ):
        found = build_model(file_of(file), ignore=ignore)[0].get_weights()
        for value, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_a_flax_model_inside_another(tmp_path):
    file = read_checkpoint_file(checkpoint("s5_last_ln_post.msgpack"))
    expected = build_model(file)[0].get_weights()
    outer = {f"state/{n}": v for n, v in file.tensors.items()}
    inner = {n.replace("/", "/model/", 1): v for n, v in file.tensors.items()}
    for tensors in (outer, inner):
        np.savez(tmp_path / "a.npz", **tensors, **{"state/opt_state/0/mu": np.zeros(3)})
        found = read_checkpoint_file(tmp_path / "a.npz")
        model, _ = build_model(found._replace(hyper_parameters=file.hyper_parameters))
        for value, wanted in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("s5_listops.msgpack", "prenorm", None),
        ("s5_listops.msgpack", "prenorm", 1),
        ("s5_listops.msgpack", "tokens_onehot", None),
        ("s5_listops.msgpack", "tokens_onehot", 1e-320),
        ("b_example_s4block_dplr.pth", "prenorm", None),
    ],
)
def test_what_decides_the_numbers_is_asked_for(name, setting, value):
    """And not assumed where the file does not say it, or says it in another type."""
    file = read_checkpoint_file(checkpoint(name))
    known = {"prenorm": True, **file.hyper_parameters}
    known |= {setting: value}
    if value is None:
        del known[setting]
    ours = "encoder" if setting == "tokens_onehot" else setting
    with pytest.raises(ValueError, match=rf"`{ours}` cannot be seen.*--set {ours}=.*Received: "):
        build_model(file._replace(hyper_parameters=known))
    given = "one_hot" if ours == "encoder" else True
    model, report = build_model(file._replace(hyper_parameters=known), overrides={ours: given})
    assert getattr(model.backbone, ours) == given and report.settings[ours][1] == "given"


def test_settings_are_checked(tensors):
    refused(tensors, "Received: prenrm", overrides={"prenrm": True})
    refused(tensors, "`state_dim` must be 16", overrides={"state_dim": 64})
    refused(tensors, "`dt_transform` must be one of", overrides={"dt_transform": "square"})
    model, report = build_model(
        file_of(tensors), overrides={"method": "fft", "scale": 0.5, "dt_transform": "softplus"}
    )
    mixer = model.backbone.blocks[0].mixer
    assert (mixer.method, mixer.dt_transform) == ("fft", "softplus")
    assert model.preprocessor.scale == 0.5
    assert report.settings["method"] == ("fft", "given", False)
    assert report.settings["num_layers"] == (2, "tensors", True)
    assert report.settings["pooling"] == ("mean", "default", False)


def test_a_configuration_in_a_file(tensors, tmp_path):
    (tmp_path / "config.yaml").write_text("prenorm: true\nlayer_args: {dt_transform: softplus}")
    (tmp_path / "config.json").write_text('{"prenorm": true, "dt_transform": "softplus"}')
    for name, origin in (("config.yaml", "config"), ("config.json", "given")):
        config = read_configuration(tmp_path / name)
        file = file_of(tensors)._replace(hyper_parameters={})
        model, report = build_model(file, config=config)
        assert report.settings["prenorm"] == (True, "given", False)
        assert report.settings["dt_transform"] == ("softplus", origin, False)
        assert model.backbone.prenorm
    for text in ("- 1", "a: [", "\t"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match="Received"):
            load_checkpoint(checkpoint(FIRST), config=tmp_path / "config.yaml")


def test_tensors_of_another_kind(tensors):
    refused({**tensors, "s4_layers.0.layer.kernel.C": np.zeros(3, "f4")}, "Received")
    refused({**tensors, "encoder.weight": np.zeros((), "f4")}, "Received")
    refused(tensors, "Received", overrides={"scale": "1/255"})
    name = "s4_layers.0.layer.kernel.l_kernel"
    refused({**tensors, name: np.array(-3)}, "l_kernel=-3")


@pytest.mark.parametrize(
    "layer_args",
    [{"gate": 2}, {"mult_act": "tanh"}, {"disc": "dss"}, {"bandlimit": 1.0}, {"activation": "?"}],
    ids=lambda args: next(iter(args)),
)
def test_options_without_counterpart(tensors, layer_args):
    refused(
        tensors, next(iter(layer_args)).replace("bandlimit", "band"), {"layer_args": layer_args}
    )


def test_untied_Q_is_refused():
    tensors = dict(read_checkpoint_file(shared("checkpoints/s4_v2_format_sample.pth")).tensors)
    name = next(n for n in tensors if n.endswith("s4_layers.0.kernel.kernel.Q"))
    refused({**tensors, name: 2 * tensors[name]}, "must be the conjugate of P")


def test_command(tmp_path):
    path, recorded = checkpoint(FIRST), HERE / "golden" / "models" / "a_example_s4d_postnorm.npz"
    arguments = ["convert", str(path), str(tmp_path / "out"), "--set", "prenorm=false"]
    runner = CliRunner()
    result = runner.invoke(cli.main, [*arguments, "--check", str(recorded)])
    assert result.exit_code == 0, result.output
    for expected in (
        "s4_layers.0.kernel.log_A_real",
        "backbone.blocks.0.mixer.log_A_real",
        "transposed",
        "left aside: acc, epoch",
        "largest differences",
    ):
        assert expected in result.output
    rows = [line for line in result.output.splitlines() if "prenorm" in line]
    assert "given" in rows[0] and "not in the file" in rows[0]
    data = recording_of(FIRST)
    model = SSMClassifier.from_preset(tmp_path / "out")
    assert relative_error(model(inputs_of(model, data)), data["logits"]) < 5e-5
    document = json.loads((tmp_path / "out" / "preset.json").read_text())
    assert document["converted_from"]["format"] == "s4-example"


def test_a_failed_conversion_writes_nothing(tmp_path):
    path, recorded = checkpoint(FIRST), HERE / "golden" / "models" / "a_example_s4d_postnorm.npz"
    result = CliRunner().invoke(
        cli.main,
        [
            *("convert", str(path), str(tmp_path / "out")),
            *("--set", "prenorm=true", "--check", str(recorded)),
        ],
    )
    assert result.exit_code == 1 and "nothing was written" in result.output
    with pytest.raises(ValueError, match="Received: prenrm"):
        convert_checkpoint(path, tmp_path / "out", prenorm=True, prenrm=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for occupied in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(ValueError, match="destination must be"):
            convert_checkpoint(path, occupied)
    convert_checkpoint(path, tmp_path / "mine", prenorm=True, overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert (tmp_path / "mine" / "preset.json").is_file()
    with pytest.raises(ValueError, match="`overwrite` must be True"):  # a preset of somebody
        convert_checkpoint(path, tmp_path / "mine", prenorm=True)
