"""What a preset may hold: finite floats of the declared size, and one model throughout."""

import json

import h5py
import numpy as np
import pytest

from keras_ssm import presets
from keras_ssm.layers import DSS, S4D, S5, SSMBlock
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from keras_ssm.presets import weights_check
from tests.backend_tools import relative_error
from tests.small_preset import X, make_model

pytestmark = pytest.mark.once("torch")

WEIGHT = "layers/dense/vars/0"


def vouch(preset):
    """Writes the checksums anew, as somebody does who does not know of the damage."""
    document = presets.read(preset)
    presets.describe(preset, {k: v for k, v in document.items() if k != "files"})


def change_weight(preset, change, name=WEIGHT):
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        value = file[name][()]
        del file[name]
        change(file, name, value)
    vouch(preset)


def put(change):
    return lambda file, name, value: file.create_dataset(name, data=change(value))


def one(value):
    def change(array):
        array.flat[-1] = value
        return array

    return put(change)


WEIGHTS = {
    "nan": (one(np.nan), "finite"),
    "infinite": (one(np.inf), "finite"),
    "integer": (put(lambda v: v.astype("int64")), "floating point"),
    "complex": (put(lambda v: v + 1j), "floating point"),
    "text": (put(lambda v: b"weights"), "floating point"),
    "soft link": (lambda f, n, v: f.__setitem__(n, h5py.SoftLink("/layers")), "a link"),
    "other file": (
        lambda f, n, v: f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/")),
        "a link",
    ),
    "gigabytes": (
        lambda f, n, v: f.create_dataset(n, (2**30,), "float32", chunks=(2**20,)),
        "as large as it says",
    ),
}


@pytest.mark.parametrize(("change", "said"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_are_none_are_refused(preset, change, said):
    change_weight(preset, change)
    for load in (SSMClassifier.from_preset, SSMBackbone.from_preset):
        with pytest.raises(
            ValueError, match=rf"Weight.*{WEIGHT}.*{said}|a link.*{WEIGHT}"
        ) as error:
            load(preset)
        for part in (WEIGHT, str(preset), "Received: "):
            assert part in str(error.value)


def test_large_weights_are_read_to_their_end(preset, monkeypatch):
    monkeypatch.setattr(weights_check, "_ROWS_BYTES", 1)  # a row at a time
    assert SSMClassifier.from_preset(preset).num_classes == 3
    change_weight(preset, one(np.nan))
    with pytest.raises(ValueError, match=rf"Weight.*{WEIGHT}.*finite.*Received: nan"):
        SSMClassifier.from_preset(preset)


def test_a_step_scale_below_zero_is_refused(preset):
    change_weight(preset, put(lambda v: np.float32(-1)), "layers/ssm_block/mixer/vars/8")
    with pytest.raises(ValueError, match=r"step_scale.*must be positive.*Received: -1"):
        SSMClassifier.from_preset(preset, check_sample=False)


@pytest.mark.parametrize("mark", [b"TREE", b"HEAP", b"SNOD", b"\x89HDF"])
def test_damaged_weights_with_a_fitting_checksum_are_refused(preset, mark):
    path = preset / "task.weights.h5"
    path.write_bytes(path.read_bytes().replace(mark, b"XXXX"))
    vouch(preset)
    with pytest.raises(ValueError, match=r"task.weights.h5.*Received: "):
        SSMClassifier.from_preset(preset)


def test_other_outputs_than_the_recorded_ones_are_refused(preset, saved):
    change_weight(preset, put(lambda v: v[:, ::-1]))
    for given in ({}, {"dropout": 0.5}, {"name": "other"}):
        with pytest.raises(ValueError, match=r"outputs that were recorded.*Received"):
            SSMClassifier.from_preset(preset, **given)
    model = SSMClassifier.from_preset(preset, check_sample=False)
    assert relative_error(model.predict(X, verbose=0), saved[1]) > 1e-3
    assert SSMClassifier.from_preset(preset, num_classes=5).num_classes == 5
    assert SSMClassifier.from_preset(preset, dtype="float64").dtype_policy.name == "float64"
    make_model().backbone.save_to_preset(preset)
    change_weight(preset, put(lambda v: v[:, ::-1]))
    for load in (SSMBackbone.from_preset, SSMClassifier.from_preset):
        with pytest.raises(ValueError, match=r"outputs that were recorded.*Received"):
            load(preset, **({} if load == SSMBackbone.from_preset else {"num_classes": 2}))


def test_outputs_are_compared_to_the_digits_of_their_dtype(preset):
    """A hundredth is another model in float32, which in half precision would be rounding."""
    document = presets.read(preset)
    outputs = np.array(document["sample"]["outputs"])
    outputs.flat[np.abs(outputs).argmax()] *= 1.01
    sample = {**document["sample"], "outputs": outputs.tolist()}
    presets.write(preset, {**document, "sample": sample})
    with pytest.raises(ValueError, match=r"outputs that were recorded.*Received"):
        SSMClassifier.from_preset(preset)


@pytest.mark.parametrize(
    "sample", [{}, {"inputs": "x", "outputs": [[1]]}, {"inputs": [[[1.0, 2.0]]], "outputs": [1.0]}]
)
def test_a_sample_that_is_none_is_refused(preset, sample):
    presets.write(preset, {**presets.read(preset), "sample": sample})
    with pytest.raises(ValueError, match=r"`sample` of preset.*Received"):
        SSMClassifier.from_preset(preset)


def test_a_step_scale_of_ones_own(preset):
    model = SSMClassifier.from_preset(preset, step_scale=2.0)
    expected = SSMClassifier.from_preset(preset)
    expected.backbone.step_scale = 2.0
    assert float(model.backbone.step_scale) == 2.0
    assert relative_error(model(X), expected(X)) == 0
    with pytest.raises(ValueError, match=r"step_scale.*Received"):
        SSMBackbone.from_preset(preset, step_scale=-1.0)


def rewrite(preset, name, change):
    content = json.loads((preset / name).read_text())
    change(content)
    (preset / name).write_text(json.dumps(content))


SIZES = {
    "num_classes": lambda task: task["config"],
    "hidden_dim": lambda task: task["config"]["backbone"]["config"],
    "num_layers": lambda task: task["config"]["backbone"]["config"],
    "input_dim": lambda task: task["config"]["backbone"]["config"],
    "state_dim": lambda task: task["config"]["backbone"]["config"]["mixer"]["config"],
}


@pytest.mark.parametrize(("name", "where"), SIZES.items(), ids=SIZES)
def test_sizes_that_the_weights_contradict_are_refused(preset, name, where):
    rewrite(preset, "task.json", lambda task: where(task).update({name: 10**9}))
    task = json.loads((preset / "task.json").read_text())
    (preset / "config.json").write_text(json.dumps(task["config"]["backbone"]))
    vouch(preset)
    for load_weights in (True, False):
        with pytest.raises(ValueError, match=rf"`{name}`.*fit its weights.*Received"):
            SSMClassifier.from_preset(preset, load_weights=load_weights)


def test_files_that_describe_two_models_are_refused(preset):
    rewrite(preset, "preprocessor.json", lambda content: content["config"].update(scale=0.25))
    vouch(preset)
    with pytest.raises(ValueError, match=r"same preprocessor.*Received: another 'scale'"):
        SSMClassifier.from_preset(preset)
    rewrite(preset, "task.json", lambda content: content["config"].pop("preprocessor"))
    vouch(preset)
    with pytest.raises(ValueError, match=r"same preprocessor.*Received"):
        SSMClassifier.from_preset(preset)


@pytest.mark.parametrize("name", ["preset.json", "config.json", "task.json"])
def test_json_that_is_nested_too_deeply_is_refused(preset, name):
    text = (preset / name).read_text()
    (preset / name).write_text('{"deep": ' + "[" * 10_000 + "]" * 10_000 + "," + text[1:])
    if name != "preset.json":
        vouch(preset)
    with pytest.raises(ValueError, match=rf"{name}.*Received"):
        SSMClassifier.from_preset(preset)


def test_configurations_that_keras_cannot_follow_are_refused(preset):
    for name in ("config.json", "task.json"):
        text = (preset / name).read_text()
        deep = "[" * 900 + "]" * 900
        (preset / name).write_text(text.replace('"norm": "layer"', f'"norm": {deep}'))
    vouch(preset)
    with pytest.raises(ValueError, match=r"could not be loaded.*Received: RecursionError"):
        SSMClassifier.from_preset(preset)


WRONG = [
    (lambda **kw: SSMBlock(S4D(state_dim=4), **kw), {"norm_momentum": 100_000}),
    (lambda **kw: SSMBlock(S4D(state_dim=4), **kw), {"norm_epsilon": -1.0}),
    (lambda **kw: SSMBlock(S4D(state_dim=4), **kw), {"tie_dropout": []}),
    (lambda **kw: SSMBlock(S4D(state_dim=4), **kw), {"prenorm": "no"}),
    (lambda **kw: SSMBlock(S4D(state_dim=4), **kw), {"dropout": False}),
    (lambda **kw: SSMBackbone(S4D(state_dim=4), 1, 4, **kw), {"mask_inputs": 0.0}),
    (S4D, {"dt_max": 1e9}),
    (S4D, {"dt_max": True}),
    (S5, {"dt_min": float("nan")}),
    (S4D, {"dt_tie": {}}),
    (S4D, {"bidirectional": 1}),
    (S4D, {"bandlimit": True}),
    (S5, {"conj_sym": "false"}),
    (DSS, {"sep_dt_re_im": None}),
    (SequencePreprocessor, {"tokens": {}}),
    (SequencePreprocessor, {"scale": 1e-30}),
    (SequencePreprocessor, {"scale": True}),
]


@pytest.mark.parametrize(("make", "given"), WRONG, ids=[str(given) for _, given in WRONG])
def test_values_that_would_pass_without_a_word_are_refused(make, given):
    (name,) = given
    with pytest.raises(ValueError, match=rf"`{name}`.*Received: .*{name}="):
        make(**given)
