"""Features that share a system, in the place of rows of a batch."""

from keras import ops

from keras_ssm.ops.exporting import known


def apply_shared(layer, x, bank, initial_state=None, lengths=None, return_state=False):
    """Applies one bank to all features that share its systems, those of a system side by side.

    Args:
        layer: `SISOLayer` with `copies` systems.
        x: tensor `(batch, length, features)`.
        bank: bank of `copies` systems.
        initial_state, lengths, return_state: as in `SISOLayer.apply_bank`.

    Returns:
        Tuple `(y, state)`, as there, without a skip.
    """
    heads = layer.features // layer.copies
    if heads == 1:
        return layer.apply_bank(x, bank, None, initial_state, lengths, return_state)
    batch = known(x.shape[0]) or ops.shape(x)[0]
    steps = known(x.shape[1]) or ops.shape(x)[1]
    planes = bank.C.shape[0] // (2 if layer.bidirectional else 1)
    apart = ops.reshape(x, (batch, steps, layer.copies, heads))
    apart = ops.reshape(ops.transpose(apart, (0, 3, 1, 2)), (-1, steps, layer.copies))
    if initial_state is not None:
        parts = ops.reshape(initial_state, (batch, layer.copies, heads, layer.state_dim))
        shape = (-1, layer.copies, layer.state_dim)
        initial_state = ops.reshape(ops.swapaxes(parts, 1, 2), shape)
    lengths = None if lengths is None else ops.repeat(lengths, heads, axis=0)
    y, state = layer.apply_bank(apart, bank, None, initial_state, lengths, return_state)
    y = ops.reshape(y, (batch, heads, steps, planes, layer.copies))
    y = ops.transpose(y, (0, 2, 3, 4, 1))
    y = ops.reshape(y, (batch, steps, planes * layer.features))
    if state is not None:
        state = ops.reshape(state, (batch, heads, layer.copies, layer.state_dim))
        state = ops.swapaxes(state, 1, 2)
        state = ops.reshape(state, (batch, layer.features, layer.state_dim))
    return y, state
