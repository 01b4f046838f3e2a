"""Gated state spaces as options of block and DSS, against a port of the paper's pseudo code."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DSS, SSMBlock
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.recordings import Recording, join

MIXER = {"C_real": "C_real", "C_imag": "C_imag", "log_A_real": "Lambda_real"}
DENSE = {"bottleneck_dense": "to_v.0", "gate_dense": "to_u.0", "wide_dense": "to_gate"}
DENSE |= {"output_dense": "to_out"}


class GSSRecording(Recording):
    def make_layer(self):
        config = self.config
        self.imag_exp = config.get("dss_kernel_lambda_imag_exp", True)
        config["d_model"] = config["dim"]
        return SSMBlock(
            DSS(
                config["dss_kernel_N"],
                variant="exp-re-im" if self.imag_exp else "exp",
                init="log_normal",
                fixed_dt=1.0,
            ),
            gate="wide",
            gate_expand=config["dim_expansion_factor"],
            bottleneck=config["dss_kernel_H"],
            bottleneck_norm=True,
            prenorm=True,
            dtype=self.dtype,
        )

    prefix, dense = "dss.", DENSE
    norms = (("norm", "norm"), ("inner_norm", "dss.norm"))

    @property
    def imag(self):
        return "log_A_imag" if self.imag_exp else "A_imag"

    def weights(self):
        found = {f"mixer.{ours}": self.sd(self.prefix + theirs) for ours, theirs in MIXER.items()}
        found = {k: v[None] if v.ndim == 2 else v for k, v in found.items()}
        found |= {f"mixer.{self.imag}": self.sd(f"{self.prefix}Lambda_imag")}
        found |= {"mixer.D": self.sd(f"{self.prefix}param_D")[None]}
        for ours, theirs in self.dense.items():
            found[f"{ours}.kernel"] = self.sd(f"{theirs}.weight").T
        if self.dense:
            found["output_dense.bias"] = self.sd("to_out.bias")
        for ours, theirs in self.norms:
            found[f"{ours}.gamma"] = self.sd(f"{theirs}.weight")
            found[f"{ours}.beta"] = self.sd(f"{theirs}.bias")
        return found

    def assign(self, weights):
        for key, value in weights.items():
            owner, name = key.split(".")
            getattr(getattr(self.layer, owner), name).assign(value.astype(self.dtype))

    def official_gradients(self, weights):
        mixer = {k.split("/")[-1]: v for k, v in weights.items() if k.startswith("dss/")}
        found = {theirs: mixer[ours] for ours, theirs in MIXER.items()}
        found = {k: v[0] if v.ndim == 3 else v for k, v in found.items()}
        found |= {"Lambda_imag": mixer[self.imag], "param_D": mixer["D"][0]}
        found = {self.prefix + k: v for k, v in found.items()}
        for ours, theirs in self.dense.items():
            found[f"{theirs}.weight"] = weights[f"{ours}/kernel"].T
        if self.dense:
            found["to_out.bias"] = weights["output_dense/bias"]
        for ours, theirs in self.norms:
            found[f"{theirs}.weight"] = weights[f"{ours}/gamma"]
            found[f"{theirs}.bias"] = weights[f"{ours}/beta"]
        return found

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 1e-4) if self.single else (1e-9, 1e-9)


class DSSRecording(GSSRecording):
    """The system of these blocks with its norm alone; ours adds the input and its gradient."""

    prefix, dense, norms = "", {}, (("norm", "norm"),)

    def make_layer(self):
        self.imag_exp, self.config["d_model"] = True, self.config["dim"]
        mixer = DSS(self.config["kernel_N"], variant="exp-re-im", init="log_normal", fixed_dt=1.0)
        return SSMBlock(mixer, activation=None, gate=None, prenorm=True, dtype=self.dtype)

    def array(self, key):
        added = {"y": "u", "grad_u": "w"}
        return super().array(key) + (super().array(added[key]) if key in added else 0)


CASES = ["gss_l48", "gss_plain_imag_l257"]
if BACKEND == "torch":
    CASES.append("dss_l64")  # the same system as in a block


def check(name, dtype):
    make = DSSRecording if name.startswith("dss") else GSSRecording
    recording = make(f"relatives/gss/{name}", dtype)
    close, close_gradient = recording.tolerances
    block, u, w = recording.layer, recording.input(), ops.convert_to_tensor(recording.input("w"))

    def loss(u):
        y, state = block(u, return_state=True)
        return ops.sum(y * w), ops.concatenate([ops.reshape(y, (-1,)), ops.reshape(state, (-1,))])

    values, weights, (d_u,) = gradients(loss, block, u, compile=BACKEND == "jax")
    y, state = np.split(values, [u.size])
    assert relative_error(y, recording.array("y").ravel()) < close
    assert relative_error(state, join(recording.array("state_final")).ravel()) < close
    assert relative_error(d_u, recording.array("grad_u")) < close_gradient
    official = recording.official_gradients(weights)
    assert len(official) == len(weights)
    for key, value in official.items():
        assert relative_error(value, recording.array(f"grad/{key}")) < close_gradient, key
    state, system = block.get_initial_state(len(u)), block.discretize()
    for t in range(5):
        y_t, state = block.step(u[:, t], state, system)
        assert relative_error(to_numpy(y_t), recording.array("y")[:, t]) < 10 * close


@pytest.mark.parametrize("name", CASES)
def test_blocks_float32(name):
    check(name, "float32")


@pytest.mark.parametrize("name", CASES if BACKEND == "torch" else CASES[:1])
def test_blocks_float64(name, float64):
    check(name, "float64")


@pytest.mark.once("torch")
def test_a_reversed_sequence(float64):
    recording = GSSRecording("relatives/gss/gss_reverse_l32", "float64")
    y = to_numpy(recording.layer(recording.input()[:, ::-1].copy()))[:, ::-1]
    assert relative_error(y, recording.array("y")) < 1e-9


@pytest.mark.once("torch")
def test_the_layer_alone(float64):
    recording = GSSRecording("relatives/gss/gss_l48", "float64")
    layer, u = recording.layer.mixer, recording.data["f64/dss_in"]
    # The port's layer adds its skip of what came before its norm.
    y = layer(to_numpy(recording.layer.inner_norm(u)))
    assert relative_error(y, recording.array("dss_out")) < 1e-9
