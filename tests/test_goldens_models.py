"""Whole models of the official repositories, through our backbone and a map of their names."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DSS, S4, S4D, S5
from keras_ssm.layers.ssm_block import get_activation
from keras_ssm.models import SSMBackbone
from keras_ssm.ops import DenseBank
from tests.backend_tools import BACKEND, compiled, gradients, relative_error, to_numpy
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

# Each time where compiling takes long; the others in `make test-all`.
QUICK = MODELS
if BACKEND != "torch":
    QUICK = [
        "b_example_s4block_dplr",
        "c_s4_transposed_scalarLN",
        "d_dss_lra_listops",
        "s5_listops",
    ]


EACH_TIME = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]


@keras.saving.register_keras_serializable(package="keras_ssm_tests")
class AttunedS4(S4):
    """S4 whose C weights hold C~ = C (I - dA^L), as trained by the official code."""

    def __init__(self, l_kernel=1, **kwargs):
        super().__init__(**kwargs)
        self.l_kernel = l_kernel

    def bank(self, length=None):
        bank = super().bank(length)
        E, dB, C = bank.matrices()
        left = -ops.transpose(bank.power(self.l_kernel), (0, 2, 1))
        plain = ops.solve(left, ops.transpose(C, (1, 2, 0)))
        return DenseBank(E, dB, ops.transpose(plain, (2, 0, 1)))

    def get_config(self):
        return {**super().get_config(), "l_kernel": self.l_kernel}


class Weights:
    """Official tensors by our weights: `(variable, value, key of the gradient, transformation)`."""

    def __init__(self, data, prefix):
        self.data, self.prefix, self.entries = data, prefix, []

    def __call__(self, key):
        return self.data[f"{self.prefix}{key}"].astype("float64")

    def has(self, key):
        return f"{self.prefix}{key}" in self.data

    def put(self, variable, key, transformation=lambda x: x):
        value = transformation(self(key))
        variable.assign(value.reshape(variable.shape).astype(variable.dtype))
        self.entries.append((variable, key, transformation))

    def put_complex(self, layer, name, key, transformation=lambda x: x):
        for part, axis in (("real", 0), ("imag", 1)):
            pick = lambda x, axis=axis: transformation(x[..., axis])  # noqa: E731
            self.put(getattr(layer, f"{name}_{part}"), key, pick)

    def dense(self, layer, key, transposed=True):
        """A linear layer of PyTorch, or with `transposed=False` of flax."""
        if transposed:
            out = self(f"{key}.weight").shape[0]
            self.put(layer.kernel, f"{key}.weight", lambda x: x.reshape(out, -1).T)
            if self.has(f"{key}.bias"):
                self.put(layer.bias, f"{key}.bias")
        else:
            self.put(layer.kernel, f"{key}/kernel")
            self.put(layer.bias, f"{key}/bias")


def put_mixer(w, mixer, stem, key):
    """Gives a mixer of the S4 or DSS code its weights; C~ becomes C, unless the layer wants it."""
    w.put(mixer.D, f"{stem}D")
    if isinstance(mixer, DSS):
        w.put(mixer.log_dt, f"{key}log_dt")
        w.put_complex(mixer, "C", f"{key}W")
        if mixer.variant == "softmax":
            w.put_complex(mixer, "A", f"{key}Lambda")
        else:
            w.put(mixer.log_A_real, f"{key}Lambda_log_neg_re")
            w.put(mixer.A_imag, f"{key}Lambda_im")
        return
    if w.has(f"{key}log_dt"):  # minimal S4D
        w.put(mixer.log_dt, f"{key}log_dt")
        w.put(mixer.log_A_real, f"{key}log_A_real")
        w.put(mixer.A_imag, f"{key}A_imag")
        mixer.B_real.assign(np.ones(mixer.B_real.shape))
        mixer.B_imag.assign(np.zeros(mixer.B_imag.shape))
    else:
        dt = mixer.log_dt if mixer.dt_transform == "exp" else mixer.inv_dt
        w.put(dt, f"{key}inv_dt")
        w.put(mixer.log_A_real, f"{key}A_real")
        w.put(mixer.A_imag, f"{key}A_imag", lambda x: -x)
        w.put_complex(mixer, "B", f"{key}B")
    w.put_complex(mixer, "C", f"{key}C")
    if isinstance(mixer, S4):
        w.put_complex(mixer, "P", f"{key}P")
        length = int(w(f"{key}l_kernel"))
        if length and not isinstance(mixer, AttunedS4):
            C = plain_C(mixer, length)
            mixer.C_real.assign(C.real.astype(mixer.C_real.dtype))
            mixer.C_imag.assign(C.imag.astype(mixer.C_imag.dtype))


class Model(keras.layers.Layer):
    """A recorded model: our backbone, pooling, and a linear or retrieval head."""

    def __init__(self, name, attuned=False):
        self.data, self.description = golden(f"models/{name}")
        super().__init__(name="recorded")
        self.recorded, self.config = name, self.description["config"]
        self.mapped = Weights(self.data, "variables/params/" if name[:2] == "s5" else "sd/")
        if name[:2] == "s5":
            self._read_s5()
        else:
            self._read_torch(attuned)

    # The official configurations

    def _read_torch(self, attuned):
        w, config = self.mapped, self.config
        self.lengths = self.data.get("lengths")
        if "layer_args" in config:  # example.py
            stem, norm, prenorm = "s4_layers.{}.", "layer", config["prenorm"]
            given, pooling, self.head_key = config["layer_args"], "mean", "decoder"
            encoder, norm_key, final = "encoder", "norms.{}.", None
            minimal = config["layer"] == "S4D"
            given = {"dt_transform": "exp", **given, "disc": None}
            projection = "glu"
        else:
            model = config["resolved"]["model"]
            given = model["layer"]
            stem, norm_key = "model.layers.{}.layer.", "model.layers.{}.norm.norm."
            prenorm = model["prenorm"]
            norm = "scalar" if model["transposed"] and model["norm"] == "layer" else model["norm"]
            final = norm if prenorm else None
            encoder = "encoder.0" if w.has("encoder.0.weight") else "encoder"
            decoder = config["resolved"]["decoder"]
            pooling = "mean" if decoder["mode"] == "pool" else "last"
            self.head_key = "decoder" + (".0" if encoder.endswith("0") else "")
            minimal = given["_name_"] == "s4d"
            kind = "postact" if given["_name_"] == "dss" else "final_act"
            projection = "linear" if given.get(kind, "glu") in ("id", None) else "glu"
        inner = "" if minimal or given.get("_name_") == "dss" else "layer."
        kernel = f"{stem}{inner}kernel."
        tokens = w(f"{encoder}.weight").shape[0] if not w.has(f"{encoder}.bias") else None
        self.backbone = SSMBackbone(
            self._mixer(given, kernel.format(0), minimal, attuned),
            num_layers=sum(w.has(f"{stem.format(i)}{inner}D") for i in range(9)),
            hidden_dim=w(f"{stem.format(0)}{inner}D").shape[-1],
            vocabulary_size=tokens,
            input_dim=1 if tokens else w(f"{encoder}.weight").shape[1],
            gate=projection,
            norm=norm,
            prenorm=prenorm,
            final_norm=final,
        )
        if tokens:
            w.put(self.backbone.encoder_layer.embeddings, f"{encoder}.weight")
        else:
            w.dense(self.backbone.encoder_layer, encoder)
        for i, block in enumerate(self.backbone.blocks):
            put_mixer(w, block.mixer, f"{stem.format(i)}{inner}", kernel.format(i))
            key = f"{stem.format(i)}output_linear"
            w.dense(block.output_dense, key + (".0" if w.has(f"{key}.0.weight") else ""))
            self._put_norm(block.norm, norm_key.format(i))
        if final:
            self._put_norm(self.backbone.last_norm, "model.norm.norm.")
        # The DSS code trains on padded steps; the S4 block takes them out of its input.
        self.masks_inside = given.get("_name_") == "s4"
        self._make_head(pooling, retrieval=w.has(f"{self.head_key}.retrieval.classifier.0.weight"))

    def _mixer(self, given, key, minimal, attuned):
        w = self.mapped
        if given.get("_name_") == "dss":
            return DSS(
                given["d_state"], variant=given["version"], bidirectional=given["bidirectional"]
            )
        state_dim = 2 * w(f"{key}A_imag").shape[-1]
        if minimal:
            return S4D(state_dim, init="lin")
        arguments = {
            "state_dim": state_dim,
            "bidirectional": given.get("bidirectional", False),
            "num_ssm": w(f"{key}A_imag").shape[0],
            "dt_transform": given["dt_transform"],
        }
        if not w.has(f"{key}P"):
            return S4D(**arguments, init="lin")
        if attuned:
            return AttunedS4(**arguments, l_kernel=int(w(f"{key}l_kernel")))
        return S4(**arguments)

    def _put_norm(self, norm, key):
        w = self.mapped
        if w.has(f"{key}m"):
            w.put(norm.gamma, f"{key}s")
            w.put(norm.beta, f"{key}m")
            return
        w.put(norm.gamma, f"{key}weight")
        w.put(norm.beta, f"{key}bias")
        if w.has(f"{key}running_mean"):
            norm.moving_mean.assign(w(f"{key}running_mean"))
            norm.moving_variance.assign(w(f"{key}running_var"))

    def _read_s5(self):
        w, c = self.mapped, self.config
        self.lengths = self.data["lengths"].astype(int) if "lengths" in self.data else None
        C1 = "encoder/layers_0/seq/C1"
        norm = "batch" if c["batchnorm"] else "layer"
        self.backbone = SSMBackbone(
            S5(
                c["ssm_size_base"],
                blocks=c["blocks"],
                clip_eigs=c.get("clip_eigs", False),
                bidirectional=c.get("bidirectional", False),
            ),
            num_layers=c["n_layers"],
            hidden_dim=c["d_model"],
            vocabulary_size=c["in_dim"] if c["tokens_onehot"] else None,
            input_dim=1 if c["tokens_onehot"] else c["in_dim"],
            encoder="one_hot" if c["tokens_onehot"] else "linear",
            activation="gelu_tanh",
            gate=c["activation_fn"],
            norm=norm,
            prenorm=c["prenorm"],
            norm_epsilon=1e-5 if c["batchnorm"] else 1e-6,
            norm_momentum=c["bn_momentum"],
        )
        encoder = self.backbone.encoder_layer
        if c["tokens_onehot"]:
            w.put(encoder.embeddings, "encoder/encoder/kernel")
            w.put(encoder.bias, "encoder/encoder/bias")
        else:
            w.dense(encoder, "encoder/encoder", transposed=False)
        for i, block in enumerate(self.backbone.blocks):
            key, mixer = f"encoder/layers_{i}/", block.mixer
            w.put(block.norm.gamma, f"{key}norm/scale")
            w.put(block.norm.beta, f"{key}norm/bias")
            if c["batchnorm"]:
                statistics = f"variables/batch_stats/{key}norm/"
                block.norm.moving_mean.assign(self.data[f"{statistics}mean"])
                block.norm.moving_variance.assign(self.data[f"{statistics}var"])
            w.put(mixer.Lambda_real, f"{key}seq/Lambda_re")
            w.put(mixer.Lambda_imag, f"{key}seq/Lambda_im")
            w.put(mixer.log_dt, f"{key}seq/log_step")
            w.put(mixer.D, f"{key}seq/D")
            w.put_complex(mixer, "B", f"{key}seq/B")
            self._put_s5_output(mixer, f"{key}seq/", split=w.has(C1))
            self._put_gate(block, key, both=c["activation_fn"] == "full_glu")
        self.masks_inside = False
        self._make_head("last" if c["mode"] == "last" else "mean", c["cls"] == "RetrievalModel")

    def _put_s5_output(self, mixer, key, split):
        """C, or C1 and C2, or both side by side."""
        w, modes = self.mapped, mixer.modes
        for part, axis in (("real", 0), ("imag", 1)):
            variable = getattr(mixer, f"C_{part}")
            if split:
                both = np.stack([w(f"{key}C1")[..., axis], w(f"{key}C2")[..., axis]])
            else:
                C = w(f"{key}C")[..., axis]
                both = np.stack([C[:, i : i + modes] for i in range(0, C.shape[1], modes)])
            variable.assign(both.astype(variable.dtype))

    def _put_gate(self, block, key, both):
        w = self.mapped
        if not both:
            w.dense(block.output_dense, f"{key}out2", transposed=False)
            return
        for variable, name in (
            (block.output_dense.kernel, "kernel"),
            (block.output_dense.bias, "bias"),
        ):
            value = np.concatenate([w(f"{key}out1/{name}"), w(f"{key}out2/{name}")], axis=-1)
            variable.assign(value.astype(variable.dtype))

    def _make_head(self, pooling, retrieval):
        w, flax = self.mapped, self.recorded[:2] == "s5"
        self.pooling, self.retrieval = pooling, retrieval
        features = self.backbone.hidden_dim
        if retrieval:
            keys = ["decoder/layer1", "decoder/layer2"]
            if not flax:
                keys = [f"{self.head_key}.retrieval.classifier.{i}" for i in (0, 2)]
            sizes = [4 * features, features]
        else:
            suffix = ".output_transform" if "example" not in self.recorded else ""
            keys, sizes = ["decoder" if flax else self.head_key + suffix], [features]
        name = "kernel" if flax else "weight"
        sep = "/" if flax else "."
        self.head = []
        for key, size in zip(keys, sizes, strict=True):
            units = w(f"{key}{sep}{name}").shape[1 if flax else 0]
            layer = keras.layers.Dense(units, name=f"head_{len(self.head)}")
            layer.build((None, size))
            w.dense(layer, key, transposed=not flax)
            self.head.append(layer)

    # The official forward pass

    def logits(self, x, training=False):
        length = x.shape[1]
        valid = np.ones((x.shape[0], length), bool)
        if self.lengths is not None:
            valid = np.arange(length)[None] < self.lengths[:, None]
        mask = valid if self.masks_inside else np.ones_like(valid)
        h = self.backbone(
            {self.backbone.input_key: x, "padding_mask": ops.convert_to_tensor(mask)},
            training=training,
        )
        if self.pooling == "last":
            pooled = h[:, -1]
        else:
            weight = valid / valid.sum(axis=1, keepdims=True)
            pooled = ops.sum(h * ops.cast(weight[..., None], h.dtype), axis=1)
        if self.retrieval:
            a, b = pooled[: x.shape[0] // 2], pooled[x.shape[0] // 2 :]
            pooled = ops.concatenate([a, b, a - b, a * b], axis=-1)
            gelu = get_activation("gelu_tanh" if self.recorded[:2] == "s5" else "gelu")
            pooled = gelu(self.head[0](pooled))
        return self.head[-1](pooled)

    def outputs(self, x, training=False):
        """What the official model returns: logits, or their logarithmic softmax for S5."""
        y = self.logits(x, training)
        return ops.log_softmax(y, axis=-1) if self.recorded[:2] == "s5" else y

    @property
    def inputs(self):
        x = self.data["tokens" if "tokens" in self.data else "x"]
        return x.astype("int32") if x.dtype.kind == "i" else x

    def array(self, key):
        names = {"logits": "log_probs_eval", "logits_train": "log_probs_train"}
        key = names.get(key, key) if self.recorded[:2] == "s5" else key
        key = f"f64/{key}" if f"f64/{key}" in self.data else key
        return self.data.get(key)


def plain_C(layer, length):
    """C from C~ = C (I - dA^L), in float64 NumPy, with dense matrices."""
    w = {v.name: to_numpy(v).astype("float64") for v in layer.weights}
    both = lambda z: np.concatenate([z, z.conj()], axis=-1)  # noqa: E731
    A = -np.exp(w["log_A_real"]) + 1j * w["A_imag"]
    P = w["P_real"] + 1j * w["P_imag"]
    C = w["C_real"] + 1j * w["C_imag"]
    dt = np.exp(w["log_dt"]) if "log_dt" in w else np.log1p(np.exp(w["inv_dt"]))
    plain = np.empty_like(C)
    for h in range(layer.features):
        s, N = h % len(A), 2 * layer.modes
        M = np.diag(both(A[s])) - sum(np.outer(both(p[s]), both(p[s]).conj()) for p in P)
        inverse = np.linalg.inv(np.eye(N) - 0.5 * dt[h] * M)
        dA = inverse @ (np.eye(N) + 0.5 * dt[h] * M)
        left = np.eye(N) - np.linalg.matrix_power(dA, length)
        solved = np.linalg.solve(left.T, both(C[:, h]).T).T
        plain[:, h] = solved[:, : layer.modes]
    return plain


def check_values(name):
    model = Model(name)
    x = model.inputs
    x = x.astype(keras.config.floatx()) if x.dtype.kind == "f" else x
    run = lambda x: model.outputs(x)  # noqa: E731
    run = compiled(run) if BACKEND == "jax" else run
    close = 1e-9 if keras.config.floatx() == "float64" else 5e-5
    assert relative_error(run(ops.convert_to_tensor(x)), model.array("logits")) < close
    rescaled = model.array("log_probs_eval_step_rescale2")
    if rescaled is not None:
        model.backbone.step_scale = 2.0
        run = lambda x: model.outputs(x)  # noqa: E731
        y = (compiled(run) if BACKEND == "jax" else run)(ops.convert_to_tensor(x))
        assert relative_error(y, rescaled) < close


@pytest.mark.parametrize("name", EACH_TIME)
def test_evaluation_float32(name):
    check_values(name)


@pytest.mark.parametrize("name", EACH_TIME)
def test_evaluation_float64(name, float64):
    check_values(name)


def held_fixed(model, key):
    """Whether a gradient was recorded with C~ held fixed, which costs float32 its digits."""
    stem, _, leaf = key.rpartition("kernel.")
    attuned = model.mapped.has(f"{stem}kernel.l_kernel")
    return attuned and leaf in ("C", "P", "inv_dt", "A_real", "A_imag")


def check_training(name):
    """Training logits and gradients; where C~ was trained, with C~ as our weight in float64."""
    double = keras.config.floatx() == "float64"
    model = Model(name, attuned=double)
    x, labels = model.inputs, model.data["labels"].astype("int32")
    x = x.astype(keras.config.floatx()) if x.dtype.kind == "f" else x

    def loss():
        logits = model.logits(ops.convert_to_tensor(x), training=True)
        chosen = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        logarithms = ops.log_softmax(logits, axis=-1)
        value = -ops.sum(chosen * logarithms) / len(labels)
        return value, logarithms if name[:2] == "s5" else logits

    y, weights, _ = gradients(loss, model, compile=BACKEND == "jax")
    expected = model.array("logits_train")
    if expected is not None:
        assert relative_error(y, expected) < (1e-9 if double else 5e-5)
    found, recorded = [], []
    for variable, key, transformation in model.mapped.entries:
        value = model.array(f"grad/{key}")
        if value is None or (not double and held_fixed(model, key)):
            continue
        value = transformation(value.astype("float64"))
        found.append(weights[variable.path])
        recorded.append(value.reshape(found[-1].shape))
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
    w, stem = Weights(data, "sd/"), "model.layers.{}."
    key = f"{stem.format(0)}layer.layer.kernel."
    dplr, floatx = w.has(f"{key}P"), keras.config.floatx()
    state_dim, copies = 2 * w(f"{key}A_imag").shape[1], w(f"{key}A_imag").shape[0]
    arguments = {"num_ssm": copies, "dt_transform": "softplus", "discretization": "bilinear"}
    mixer = S4(state_dim, **arguments) if dplr else S4D(state_dim, **arguments)
    final = "layer" if dplr else None
    backbone = SSMBackbone(mixer, 2, 16, input_dim=16, encoder=None, prenorm=dplr, final_norm=final)
    for i, block in enumerate(backbone.blocks):
        layer = f"{stem.format(i)}layer."
        put_mixer(w, block.mixer, f"{layer}layer.", f"{layer}layer.kernel.")
        w.dense(block.output_dense, f"{layer}output_linear.0")
        w.put(block.norm.gamma, f"{stem.format(i)}norm.norm.weight")
        w.put(block.norm.beta, f"{stem.format(i)}norm.norm.bias")
    if final:
        w.put(backbone.last_norm.gamma, "model.norm.norm.weight")
        w.put(backbone.last_norm.beta, "model.norm.norm.bias")
    array = lambda key: data[f"f64/{key}"]  # noqa: E731
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


@pytest.mark.parametrize("name", BACKBONES)
def test_steps_float32(name):
    check_steps(name)


@pytest.mark.parametrize("name", BACKBONES)
def test_steps_float64(name, float64):
    check_steps(name)
