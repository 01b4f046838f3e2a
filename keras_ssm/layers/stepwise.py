"""A sequence read one sample after the other."""

from keras import ops, tree

from keras_ssm.ops.backend import sequential
from keras_ssm.ops.exporting import known, loops_allowed


def stepwise(advance, x, mask, state):
    """Applies a mixer sample by sample; a masked step leaves the state as it was.

    Args:
        advance: function `(sample, state) -> (y, state)` of one sample `(batch, features)`.
        x: tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)` or `None`.
        state: tensor or tree of tensors `(batch, ...)`.

    Returns:
        Tuple `(y, state)`: `(batch, length, ...)` and the state after the last sample.

    Raises:
        ValueError: for a length that is not known, where an exported program may have no loop.
    """

    structure = state

    def one(before, sample):
        valid = None if mask is None else sample[:, 0] > 0
        sample = sample if mask is None else sample[:, 1:]
        y, after = advance(sample, tree.pack_sequence_as(structure, list(before)))
        after = tuple(tree.flatten(after))
        if valid is not None:
            after = tuple(_where(valid, a, b) for a, b in zip(after, before, strict=True))
        return after, ops.cast(y, x.dtype)

    samples = x
    if mask is not None:
        samples = ops.concatenate([ops.cast(mask, x.dtype)[..., None], x], axis=-1)
    samples, state = ops.swapaxes(samples, 0, 1), tuple(tree.flatten(state))
    if loops_allowed():
        state, y = sequential(one, state, samples)
        return ops.swapaxes(y, 0, 1), tree.pack_sequence_as(structure, list(state))
    length = known(x.shape[1])
    if length is None:
        raise ValueError(
            "A mixer that reads sample by sample needs a known length in a program without loops: "
            f"give `input_signature` one. Received: x.shape={tuple(x.shape)}"
        )
    outputs = []
    for t in range(length):
        state, y = one(state, samples[t])
        outputs.append(y)
    return ops.stack(outputs, axis=1), tree.pack_sequence_as(structure, list(state))


def _where(valid, a, b):
    for _ in a.shape[1:]:
        valid = ops.expand_dims(valid, -1)
    return ops.where(valid, a, b)
