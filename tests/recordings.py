"""Recorded runs of the official code, and their comparison with our layers.

A recording holds official parameters, inputs, outputs and gradients. `Recording` gives our layer
those parameters, runs it inside the block that was recorded, and maps gradients back.
"""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers.activations import get_activation
from keras_ssm.ops import backend
from tests.backend_tools import BACKEND, compiled, gradients, relative_error, to_numpy
from tests.shared_data import golden

gelu = get_activation("gelu")

# Longest sequence whose gradients are taken step by step.
LONGEST_RECURRENT_GRADIENT = 257

# Parameter transforms of the official code: value and derivative.
TRANSFORMS = {
    "none": (lambda x: x, np.ones_like),
    "exp": (np.exp, np.exp),
    "relu": (lambda x: np.maximum(x, 0) + 1e-4, lambda x: (x > 0).astype(x.dtype)),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "softplus": (lambda x: np.log1p(np.exp(x)), lambda x: 1 / (1 + np.exp(-x))),
}


def join(z):
    """Complex numbers as our layers hold them: real parts, then imaginary parts."""
    return np.concatenate([z.real, z.imag], axis=-1)


def stacked(weights, name):
    """The real weights `name_real` and `name_imag` as the official code holds them."""
    return np.stack([weights[f"{name}_real"], weights[f"{name}_imag"]], axis=-1)


def parts(name, value):
    """Our two real weights of an official array with real and imaginary part on its last axis."""
    return {f"{name}_real": value[..., 0], f"{name}_imag": value[..., 1]}


# The evaluation that is compared for every recording each time: where compiling takes long, for
# some of each kind, whose other evaluations `test_layers.py` compares with the same numbers.
AUTO = ["auto"] if BACKEND == "torch" else []


def some(names):
    """All of the names on PyTorch, the first on the backends that compile."""
    return names if BACKEND == "torch" else names[:1]


def slow_but(quick, cases):
    """Parameters: `cases`, all but the `quick` ones marked as slow."""
    slow = pytest.mark.slow
    return [pytest.param(case, marks=[] if case in quick else slow) for case in cases]


def evaluations(cases, each_time, quick, without):
    """Parameters `(case, method)`: how a layer evaluates each of the cases.

    Args:
        cases: list of names.
        each_time: methods of which none is marked as slow.
        quick: names of cases of which none is marked as slow; on the backends that compile, the
            first of them by its own choice of method.
        without: dict of the methods that cases lack.
    """
    pairs = [
        (case, method)
        for case in cases
        for method in ("auto", "fft", "recurrent")
        if method not in without.get(case, ())
    ]
    methods = ("auto", "fft", "recurrent") if BACKEND == "torch" else ("auto",)
    quick = some(quick)
    fast = [p for p in pairs if (p[0] in quick and p[1] in methods) or p[1] in each_time]
    slow = pytest.mark.slow
    return [pytest.param(*pair, marks=[] if pair in fast else slow) for pair in pairs]


class Recording:
    """A recording, its layer, and the mapping between their parameters.

    Args:
        name: str. Name of the recording.
        dtype: str. `"float32"` or `"float64"`.
    """

    def __init__(self, name, dtype):
        self.data, description = golden(name)
        self.name, self.config, self.dtype = name, description["config"], dtype
        self.layer = self.make_layer()
        features = self.config.get("d_model") or self.config["H"]
        mixer = self.layer if hasattr(self.layer, "input_rank") else self.layer.mixer  # of a block
        self.layer.build((*[None] * (mixer.input_rank - 1), features))
        self.assign(self.weights())

    # Methods of one kind of recording

    tolerances = (1e-9, 1e-9)  # of values and gradients

    def make_layer(self):
        """The unbuilt layer."""
        raise NotImplementedError

    def weights(self):
        """The recorded parameters by our weight names, in float64."""
        raise NotImplementedError

    def block(self, u):
        """What the official code computes around the layer."""
        return self.layer(u)

    def official_gradients(self, weights):
        """Gradients of our weights as gradients of the official parameters, by their names."""
        raise NotImplementedError

    # Methods of all kinds

    def assign(self, weights):
        for key, value in weights.items():
            getattr(self.layer, key).assign(value.astype(self.dtype))

    def sd(self, key):
        return self.data[f"sd/{key}"].astype("float64")

    def array(self, key):
        return self.data[f"f64/{key}" if f"f64/{key}" in self.data else key]

    def input(self, key="u"):
        return self.data[key].astype(self.dtype)

    @property
    def single(self):
        return self.dtype == "float32"

    def run(self, function):
        """The function compiled where eager evaluation is slow."""
        return compiled(function) if BACKEND == "jax" else function

    def kernel(self):
        K = self.array("K")
        return ops.reshape(self.layer.kernel(K.shape[-1]), K.shape)

    def check(self, method):
        """Compares kernel, outputs and gradients, through one of the evaluations."""
        close, close_gradient = self.tolerances
        self.layer.method = method
        u, w = self.input(), ops.convert_to_tensor(self.input("w"))
        if method == "recurrent" and u.shape[1] > LONGEST_RECURRENT_GRADIENT:
            assert relative_error(self.run(self.block)(u), self.array("y")) < close
            return
        values, weights, (d_u,) = gradients(
            lambda u: self._loss_and_values(u, w), self.layer, u, compile=BACKEND == "jax"
        )
        y, K = np.split(values, [self.data["y"].size])
        assert relative_error(y, self.array("y").ravel()) < close
        if "K" in self.data:
            assert relative_error(K, self.array("K").ravel()) < close
        assert relative_error(d_u, self.data["f64/grad_u"]) < close_gradient
        for key, value in self.official_gradients(weights).items():
            error = relative_error(value, self.data[f"f64/grad/{key}"])
            assert error < close_gradient, (key, error)

    def _loss_and_values(self, u, w):
        # Together, for the sake of one compilation.
        y = self.block(u)
        values = [ops.reshape(y, (-1,))]
        if "K" in self.data:
            values.append(ops.reshape(self.kernel(), (-1,)))
        return ops.sum(y * w), ops.concatenate(values)

    def project(self, y, glu):
        """The recorded output projection, through a GLU or not."""
        sequential = "sd/output_linear.0.weight" in self.data
        stem = "output_linear.0" if sequential else "output_linear"
        weight, bias = (self.sd(f"{stem}.{key}").astype(self.dtype) for key in ("weight", "bias"))
        weight = weight.reshape(len(weight), -1).T  # of a convolution or a linear layer
        z = backend.matmul(y, ops.convert_to_tensor(weight)) + ops.convert_to_tensor(bias)
        if not glu:
            return z
        first, second = ops.split(z, 2, axis=-1)
        return first * ops.sigmoid(second)

    def stepped(self, u):
        """Outputs of the layer sample by sample, and the last state."""
        layer, outputs = self.layer, []
        state, system = layer.get_initial_state(len(u)), layer.discretize()
        step = self.run(layer.step)
        for t in range(u.shape[1]):
            y, state = step(u[:, t], state, system)
            outputs.append(to_numpy(y))
        return np.stack(outputs, axis=1), state


class S4Recording(Recording):
    """A block of the S4 repository around its diagonal or its low-rank kernel."""

    def weights(self):
        inv_dt, A_real, A_imag = self.transformed()
        weights = {
            "log_A_real": np.log(A_real[0]),
            "A_imag": -A_imag[0],
            **parts("B", self.kernel_sd("B")[0]),
            **parts("C", self.kernel_sd("C")),
        }
        if "sd/layer.D" in self.data:
            weights["D"] = self.sd("layer.D")
        if self.softplus:
            return {**weights, "inv_dt": self.kernel_sd("inv_dt")}
        return {**weights, "log_dt": np.log(inv_dt[0])}

    @property
    def prefix(self):
        return "layer.kernel." if "sd/layer.kernel.C" in self.data else ""

    def kernel_sd(self, key):
        return self.sd(self.prefix + key)

    @property
    def softplus(self):
        return self.config.get("dt_transform") == "softplus"

    def transformed(self):
        """dt, -Re A and -Im A, each with its derivative by what is stored."""
        config, inv_dt = self.config, self.kernel_sd("inv_dt")
        stretch = np.cosh(inv_dt) if config.get("dt_fast") else 1.0
        inv_dt = np.sinh(inv_dt) if config.get("dt_fast") else inv_dt
        dt, d_dt = TRANSFORMS[config.get("dt_transform", "exp")]
        real, d_real = TRANSFORMS[config.get("real_transform", "exp")]
        imag, d_imag = TRANSFORMS[config.get("imag_transform", "none")]
        A_real, A_imag = self.kernel_sd("A_real"), self.kernel_sd("A_imag")
        return (
            (dt(inv_dt), stretch * d_dt(inv_dt)),
            (real(A_real), d_real(A_real)),
            (imag(A_imag), d_imag(A_imag)),
        )

    def block(self, u):
        return self.finish(self.layer(u))

    def finish(self, y):
        """GELU, then GLU or a plain projection."""
        return self.project(gelu(y), glu=self.config.get("final_act", "glu") == "glu")

    def official_gradients(self, weights):
        (dt, d_dt), (A_real, d_A_real), (_, d_A_imag) = self.transformed()
        d_inv_dt = weights["inv_dt"] if self.softplus else weights["log_dt"] * d_dt / dt
        found = {
            "inv_dt": d_inv_dt,
            "A_real": weights["log_A_real"] * d_A_real / A_real,
            "A_imag": -weights["A_imag"] * d_A_imag,
            "B": stacked(weights, "B")[None],
            "C": stacked(weights, "C"),
        }
        return {**{self.prefix + k: v for k, v in found.items()}, "layer.D": weights["D"]}

    def recorded_system(self):
        """The recorded dA, dB and dC, as our layer holds them."""
        return [join(self.array(key)) for key in ("dA", "dB", "dC")]

    def recorded_state(self, key):
        return join(self.array(key))

    def check_states(self, close, close_state, methods):
        """Compares steps, final states and the response to a state, through each evaluation."""
        layer, u = self.layer, self.input()
        inner = gelu if not self.name.startswith("s4_src") else lambda y: y
        if "dA" in self.data:
            ours = layer.discretize()[:3]
            for key, *pair in zip(("dA", "dB", "dC"), ours, self.recorded_system(), strict=True):
                assert relative_error(*pair) < close, key
        if "y_step" in self.data:
            y, state = self.stepped(u)
            y = self.finish(ops.convert_to_tensor(y))
            assert relative_error(y, self.array("y_step")) < close
            final = self.recorded_state("state_step_final")
            assert relative_error(state, final) < close_state
            for method in methods:
                layer.method = method
                y, state = self.run(lambda u: layer(u, return_state=True))(u)
                assert relative_error(inner(y), self.array("y_inner")) < close, method
                assert relative_error(state, final) < close_state, method
        if "state0" in self.data:
            state0 = self.recorded_state("state0").astype(self.dtype)
            for method in methods:
                layer.method = method
                evaluate = self.run(lambda u, s: layer(u, initial_state=s, return_state=True))
                y, state = evaluate(u, state0)
                assert relative_error(state, self.recorded_state("state_next")) < close_state
                assert relative_error(inner(y), self.array("y_inner_with_state")) < close, method
                if method == methods[0]:
                    response = to_numpy(evaluate(np.zeros_like(u), state0)[0])
                    K = self.array("K_state").transpose(0, 3, 1, 2)
                    assert relative_error(response, K.reshape(response.shape)) < close_state
