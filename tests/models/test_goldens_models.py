"""Whole models of the official repositories, converted: float64 outputs, training, steps."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.convert.checkpoint import build_model, find_weight
from keras_ssm.layers import S4
from keras_ssm.ops import DenseBank
from tests.backend_tools import BACKEND, compiled, gradients, relative_error, to_numpy
from tests.converted import inputs_of, official_file, weight_maps
from tests.shared_data import golden

S4_MODELS = [
    "a_example_s4d_postnorm",
    "a_example_s4d_prenorm",
    "b_example_s4block_diag",
    "b_example_s4block_dplr",
    "c_s4_lra_aan",
    "c_s4_lra_cifar",
    "c_s4_lra_listops",
    "c_s4_lra_pathx_indep",
    "c_s4_sc_uni_prenorm_id",
    "c_s4_scifar_layernorm",
    "c_s4_transposed_scalarLN",
    "c_s4d_lra_listops",
    "c_s4d_minimal_cifar",
]
DSS_MODELS = [
    "d_dss_exp_pathfinder_last",
    "d_dss_lra_aan",
    "d_dss_lra_cifar",
    "d_dss_lra_listops",
    "d_dss_scifar_scalarLN_bidir",
]
S5_MODELS = ["s5_aan", "s5_cifar", "s5_last_ln_post", "s5_listops", "s5_pathx"]
MODELS = [*S4_MODELS, *DSS_MODELS, *S5_MODELS]

# Where compiling takes long, these run each time and the others in `make test-all`.
QUICK = MODELS
if BACKEND != "torch":
    QUICK = [
        "b_example_s4block_dplr",
        "s5_listops",
    ]


EACH_TIME = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]


class Model:
    """A recorded model, converted.

    Args:
        name: str. Name of the recording.
        attuned: bool. Whether C of S4 holds C~ = C (I - dA^L), as trained by the official code.
    """

    def __init__(self, name, attuned=False):
        self.data, description = golden(f"models/{name}")
        file = official_file(self.data, description["config"])
        self.flax, self.file = name[:2] == "s5", file
        self.task, _ = build_model(file, name)
        self.weight_maps = weight_maps(file)
        self.attuned = [a for a in self.weight_maps if "C~" in a.note]
        if attuned:
            for block in self.task.backbone.blocks:
                if isinstance(block.mixer, S4):
                    attune(block.mixer, int(self.array("sd/" + length_name(file))))
            for a in self.attuned:
                weight = find_weight(self.task, a.target)
                weight.assign(stored(a, file.tensors[a.sources[0]]).astype(weight.dtype))
        inputs = inputs_of(self.task, self.data, keras.config.floatx())
        self.inputs = {k: ops.convert_to_tensor(v) for k, v in inputs.items()}

    def outputs(self, inputs, training=False):
        """What the official model returns: logits, or their logarithmic softmax for S5."""
        y = self.task(inputs, training=training)
        return ops.log_softmax(y, axis=-1) if self.flax else y

    def array(self, key):
        names = {"logits": "log_probs_eval", "logits_train": "log_probs_train"}
        key = names.get(key, key) if self.flax else key
        key = f"f64/{key}" if f"f64/{key}" in self.data else key
        return self.data.get(key)


def length_name(file):
    return next(name for name in file.tensors if name.endswith("l_kernel"))


def stored(weight_map, C):
    """A part of C~ as it is stored."""
    return C[..., 1 if weight_map.target.endswith("imag") else 0]


def attune(mixer, length):
    """Makes an S4 layer read its C as C~ = C (I - dA^length)."""
    plain = mixer.bank

    def bank(_=None):
        found = plain()
        E, dB, C = found.matrices()
        factor = -ops.transpose(found.power(length), (0, 2, 1))
        solved = ops.solve(factor, ops.transpose(C, (1, 2, 0)))
        return DenseBank(E, dB, ops.transpose(solved, (2, 0, 1)))

    mixer.bank = bank


def check_values(name):
    model = Model(name)
    run = compiled(model.outputs) if BACKEND == "jax" else model.outputs
    assert relative_error(run(model.inputs), model.array("logits")) < 1e-9
    rescaled = model.array("log_probs_eval_step_rescale2")
    if rescaled is not None:
        model.task.backbone.step_scale = 2.0
        assert relative_error(model.outputs(model.inputs), rescaled) < 1e-9


@pytest.mark.parametrize("name", EACH_TIME)
def test_evaluation_float64(name, float64):
    check_values(name)


def held_fixed(model, name):
    """Whether a gradient was recorded with C~ held fixed, which costs float32 its digits."""
    leaf = name.rpartition("kernel.")[-1]
    return bool(model.attuned) and leaf in ("C", "P", "inv_dt", "A_real", "A_imag")


def check_training(name):
    """Training logits and gradients; where C~ was trained, with C~ as our weight in float64."""
    double = keras.config.floatx() == "float64"
    model = Model(name, attuned=double)
    labels = model.data["labels"].astype("int32")

    def loss():
        logits = model.task(model.inputs, training=True)
        chosen = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        logarithms = ops.log_softmax(logits, axis=-1)
        value = -ops.sum(chosen * logarithms) / len(labels)
        return value, logarithms if model.flax else logits

    y, weights, _ = gradients(loss, model.task, compile=BACKEND == "jax")
    expected = model.array("logits_train")
    if expected is not None:
        assert relative_error(y, expected) < (1e-9 if double else 5e-5)
    found, recorded = [], []
    for a in model.weight_maps:
        names = [f"grad/{name.removeprefix('params/')}" for name in a.sources]
        values = [model.array(name) for name in names]
        skipped = not double and any(held_fixed(model, name) for name in names)
        if not names or skipped or any(v is None for v in values):
            continue
        assert a.linear or a in model.attuned
        values = [v.astype("float64") for v in values]
        value = stored(a, *values) if a in model.attuned else a.function(*values)
        found.append(weights[find_weight(model.task, a.target).path])
        recorded.append(value)
    assert len(found) > 10
    largest = max(np.abs(g).max() for g in recorded)
    errors = [np.abs(a - b).max() / largest for a, b in zip(found, recorded, strict=True)]
    assert max(errors) < (1e-9 if double else 2e-4)


@pytest.mark.parametrize("name", EACH_TIME)
def test_training_float64(name, float64):
    check_training(name)


@pytest.mark.parametrize("name", EACH_TIME)
def test_training_float32(name):
    check_training(name)


BACKBONES = ["c_backbone_step_diag_postnorm", "c_backbone_step_dplr_prenorm"]


def check_steps(name):
    data, _ = golden(f"models/{name}")
    # A recording of the layers: the encoder changes nothing, and the head may be any.
    ends = {"encoder.0.weight": np.eye(16), "encoder.0.bias": np.zeros(16)}
    ends |= {
        "decoder.0.output_transform.weight": np.zeros((1, 16)),
        "decoder.0.output_transform.bias": np.zeros(1),
    }
    file = official_file(data, {})
    file = file._replace(tensors={**file.tensors, **ends})
    overrides = {"dt_transform": "softplus", "discretization": "bilinear"}
    backbone = build_model(file, name, overrides=overrides)[0].backbone
    state_dim = backbone.blocks[0].mixer.state_dim
    floatx = keras.config.floatx()
    array = lambda key: data[f"f64/{key}"]
    close = 1e-9 if floatx == "float64" else 5e-5
    x = data["x"].astype(floatx)
    run = compiled(backbone) if BACKEND == "jax" else backbone
    assert (
        relative_error(run({"inputs": x, "padding_mask": np.ones((2, 40), bool)}), array("y"))
        < close
    )
    step = compiled(backbone.step) if BACKEND == "jax" else backbone.step
    states, systems, outputs = backbone.get_initial_state(2), backbone.discretize(), []
    for t in range(40):
        y, states = step(ops.convert_to_tensor(x[:, t]), states, systems)
        outputs.append(to_numpy(y))
    assert relative_error(np.stack(outputs, axis=1), array("y_step")) < close
    for i, state in enumerate(states):
        expected = array(f"state_final/{i}")[..., : state_dim // 2]
        expected = np.concatenate([expected.real, expected.imag], axis=-1)
        assert relative_error(state, expected) < close


@pytest.mark.once("torch")  # other backends compare steps in test_layers.py
@pytest.mark.parametrize("name", BACKBONES)
def test_steps_float32(name):
    check_steps(name)


@pytest.mark.parametrize("name", BACKBONES)
def test_steps_float64(name, float64):
    check_steps(name)
