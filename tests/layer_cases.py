"""The layers that every layer test runs over: a new system is one more entry."""

from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.ops.naive import discretize, naive, to_complex


def naive_s4d(layer, x, initial_state=None):
    """Sequential ground truth of an S4D layer, from its weights; differentiable."""
    A = to_complex(-ops.exp(layer.log_A_real), ops.convert_to_tensor(layer.A_imag))
    B = to_complex(layer.B_real, layer.B_imag)
    C = to_complex(layer.C_real, layer.C_imag)
    repeats = (layer.features // A.shape[0], 1)
    A, B = ops.tile(A, repeats), ops.tile(B, repeats)
    dt = ops.exp(ops.convert_to_tensor(layer.log_dt)) * ops.convert_to_tensor(layer.step_scale)
    dA, dB = discretize(A, B, ops.cast(dt, A.dtype), layer.discretization)
    if initial_state is not None:
        modes = initial_state.shape[-1] // 2
        initial_state = to_complex(initial_state[..., :modes], initial_state[..., modes:])
    y, state = naive(x, dA, dB, C, initial_state, layer.bidirectional)
    D = ops.convert_to_tensor(layer.D)
    skip = ops.concatenate([x * D[c] for c in range(layer.channels)], axis=-1)
    return y + skip, ops.concatenate([ops.real(state), ops.imag(state)], axis=-1)


class Case:
    """A layer, its sequential ground truth, and the evaluations it has."""

    def __init__(self, name, cls, reference, **arguments):
        self.name, self.cls, self.reference = name, cls, reference
        self.arguments = {"state_dim": 8, "seed": 1, **arguments}

    def make(self, features=4, **arguments):
        layer = self.cls(**{**self.arguments, **arguments})
        layer.build((None, None, features))
        return layer

    @property
    def has_state(self):
        return not self.arguments.get("bidirectional")

    @property
    def methods(self):
        return ["chunked", "fft"] + (["recurrent"] if self.has_state else [])

    def __repr__(self):
        return self.name


CASES = [
    Case("s4d", S4D, naive_s4d),
    Case("s4d_bilinear", S4D, naive_s4d, discretization="bilinear", init="lin"),
    Case("s4d_shared", S4D, naive_s4d, channels=2, num_ssm=2, dt_tie=False, init="inv"),
    Case("s4d_bidirectional", S4D, naive_s4d, bidirectional=True, chunk_size=16),
]

WITH_STATE = [case for case in CASES if case.has_state]
