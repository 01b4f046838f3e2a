"""Two forms of a function in one program, of which the device that runs it takes one."""

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

choice = Primitive("keras_ssm_by_kernel")
choice.multiple_results = True


def by_kernel(kernel, plain, results, *operands):
    """`kernel(*operands)` where a program is compiled for an NVIDIA GPU, else `plain(*operands)`.

    Programs that are exported have the plain form on each device: JAX writes no kernels to files.

    Args:
        kernel, plain: functions with the same results. Neither is traced before the other has
            been ruled out.
        results: nest of arrays or `jax.ShapeDtypeStruct`. The shapes of what they return.
        operands: nests of arrays.
    """
    flat, tree = jax.tree.flatten(operands)
    shapes, result_tree = jax.tree.flatten(results)
    avals = tuple(ShapedArray(x.shape, x.dtype) for x in shapes)

    def flattened(function):
        return lambda *flat: jax.tree.leaves(function(*jax.tree.unflatten(tree, flat)))

    found = choice.bind(*flat, kernel=flattened(kernel), plain=flattened(plain), avals=avals)
    return jax.tree.unflatten(result_tree, found)


@choice.def_abstract_eval
def _shapes(*operands, kernel, plain, avals):
    return avals


@choice.def_impl
def _at_once(*operands, kernel, plain, avals):
    operands = [jnp.asarray(x) for x in operands]
    on_cards = all(d.platform == "gpu" for x in operands for d in x.devices())
    return (kernel if on_cards else plain)(*operands)


def _side_by_side(operands, axes, *, kernel, plain, avals):
    (size,) = {x.shape[i] for x, i in zip(operands, axes, strict=True) if i is not None}
    kernel, plain = (jax.vmap(function, in_axes=tuple(axes)) for function in (kernel, plain))
    avals = tuple(ShapedArray((size, *x.shape), x.dtype) for x in avals)
    found = choice.bind(*operands, kernel=kernel, plain=plain, avals=avals)
    return found, [0] * len(found)


def _for_a_card(ctx, *operands, kernel, plain, avals):
    exported = ctx.module_context.lowering_parameters.for_export
    return mlir.lower_fun(plain if exported else kernel)(ctx, *operands)


def _elsewhere(ctx, *operands, kernel, plain, avals):
    return mlir.lower_fun(plain)(ctx, *operands)


batching.primitive_batchers[choice] = _side_by_side
mlir.register_lowering(choice, _elsewhere)
mlir.register_lowering(choice, _for_a_card, platform="cuda")
