"""The kernels of `walk` and `slopes` on sequences of one shape."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from keras_ssm.ops.backend.jax import bank
from keras_ssm.ops.backend.jax.pallas import matrices as small
from keras_ssm.ops.backend.jax.pallas import slopes as slopes_kernel
from keras_ssm.ops.backend.jax.pallas import walk as walk_kernels
from keras_ssm.ops.backend.jax.pallas.walk import Tile
from keras_ssm.ops.backend.walk_plan import Plan, T


class Walk:
    """The kernels on sequences of one shape, for one group of modes.

    Args:
        like: array `(batch, length, features)`.
        log_dA: pair of arrays `(features, modes)`.
        way: `"forward"` or `"back"`. Which of the kernels will run.
    """

    def __init__(self, like, log_dA, way="forward"):
        exact = like.dtype != jnp.bfloat16
        self.log_dA = log_dA
        modes = log_dA[0].shape[1]
        self.plan = Plan(*like.shape, modes, like.dtype.itemsize, exact, way)

    def matrices(self, C, dB, D, normal, first=1):
        return small.matrices(self.plan, self.log_dA, C, dB, D, normal, first)

    def starts(
        self,
        x,
        matrices,
        way,
        lag=0,
        channel=(0, 1),
        initial=None,
        lengths=None,
        moment=False,
        ends=False,
        last=False,
    ):
        """States before each segment, flat, and after the last one where they are wanted.

        Args:
            x: array `(batch, length, channels * features)` or `None`. Inputs; none are zeros.
            matrices: what `matrices` returned.
            way: 1 or -1. Whether the walk goes forwards or backwards.
            lag: int. How much later an input counts.
            channel: pair of ints. Which of how many channels of x.
            initial: complex array `(batch, features, modes)` or `None`.
            lengths: integer array `(batch,)` or `None`. Steps of each row.
            moment: bool. Whether there is a second state.
            ends: bool. Whether the segments end where the sequences do, and not begin there.
            last: bool. Whether the state after the last segment is wanted.
        """
        plan, count = self.plan, 4 if moment else 2
        shape = plan.batch, plan.G, plan.lanes, count, plan.size
        added = None
        if x is not None and (last or plan.G > 1):
            F, _, _, A = matrices
            tile = Tile(plan, "moments" if moment else "ends", way, lag, ends)
            options = {"moment": moment, "by_row": lengths is not None}
            kernel = functools.partial(walk_kernels.ends, tile=tile, **_named(channel), **options)
            operands = [x.ravel(), F, A, *([] if lengths is None else [lengths])]
            (added,) = self._call(kernel, tile, operands, [(math.prod(shape), "float32")])
            added = added.reshape(shape)
        states = jnp.zeros((plan.batch, plan.lanes, count, plan.size), "float32")
        if initial is not None:
            x0 = small.pairs(small.filled(jnp.moveaxis(initial, 0, -1), plan))
            states = states.at[:, :, :2].set(jnp.moveaxis(x0, -1, 0))
        if plan.G == 1 and not last:
            return states.ravel(), None
        before, after = _over_segments(self._power_of_segment(), added, states, plan)
        return before.ravel(), after

    def _power_of_segment(self):
        return small.filled(small.power(self.log_dA, float(self.plan.S)), self.plan)

    def outputs(self, x, y, start, matrices, way, lag=0, channel=(0, 1), lengths=None, add=False):
        """The outputs, in the memory of y if that is an array, where `add` adds them to it.

        x may be `None` for zeros; a y that is not there is `(shape, dtype)`.
        """
        tile = Tile(self.plan, "outputs", way, lag)
        options = {"add": add, "by_row": lengths is not None}
        kernel = functools.partial(walk_kernels.outputs, tile=tile, **_named(channel), **options)
        operands, aliases, (shape, dtype) = [x.ravel(), start, *matrices], {}, _shape(y)
        if not isinstance(y, tuple):
            aliases = {len(operands): 0}
            operands.append(y.ravel())
        operands += [] if lengths is None else [lengths]
        return self._call(kernel, tile, operands, [(math.prod(shape), dtype)], aliases)[0].reshape(
            shape
        )

    def slopes(self, u, dy, du, start, matrices, way, lag=0, channel=(0, 1)):
        """The gradient of the inputs, added to du if that is there, and what `gathered` takes."""
        plan = self.plan
        tile = Tile(plan, "slopes", way, lag, ends=True)
        add = du is not None
        kernel = functools.partial(slopes_kernel.slopes, tile=tile, add=add, **_named(channel))
        operands = [u.ravel(), dy.ravel(), start, *matrices]
        aliases = {len(operands): 0} if add else {}
        operands += [du.ravel()] if add else []
        programs = tile.grid[1]
        sums = programs * plan.lanes * 4 * plan.size, "float32"
        lags = programs * plan.width * T * T, "float32"
        results = self._call(kernel, tile, operands, [(u.size, u.dtype), sums, lags], aliases)
        return results[0].reshape(u.shape), results[1:]

    def _call(self, kernel, tile, operands, results, aliases=None):
        shapes = [jax.ShapeDtypeStruct((n,), dtype) for n, dtype in results]
        call = pl.pallas_call(
            kernel,
            out_shape=shapes,
            grid=tile.grid,
            input_output_aliases=aliases or {},
            compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
            interpret=bank.INTERPRETED,
        )
        return call(*operands)


def _over_segments(power, added, states, plan):
    """States before each segment, and the one after the last: one step of a scan a segment."""

    def step(states, added):
        x = lax.complex(states[:, :, 0], states[:, :, 1])
        parts = []
        if states.shape[2] == 4:
            w = power * (lax.complex(states[:, :, 2], states[:, :, 3]) + plan.S * x)
            parts = [w.real, w.imag]
        x = power * x
        after = jnp.stack([x.real, x.imag, *parts], axis=2)
        return (after if added is None else after + added), states

    along = None if added is None else jnp.moveaxis(added, 1, 0)
    after, before = lax.scan(step, states, along, length=plan.G, unroll=min(plan.G, 16))
    return jnp.moveaxis(before, 0, 1), after


def _named(channel):
    return {"channel": channel[0], "channels": channel[1]}


def _shape(y):
    return y if isinstance(y, tuple) else (y.shape, y.dtype)
