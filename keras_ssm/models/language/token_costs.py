"""What the tokens of long rows cost, in pieces of fixed size."""

import contextlib

import keras
import numpy as np
from keras import ops, tree

from keras_ssm.models.backbone_layers import check_token_ids
from keras_ssm.models.language.next_tokens import is_text, padder, texts_of
from keras_ssm.models.trainer.targets import as_arrays, to_numpy
from keras_ssm.ops import backend

LOGITS = 2**24  # the most logits of a piece
LONGEST = 1024


def rows_of(model, data, add_end=True):
    """Texts or token ids as a list of int32 arrays, and the texts, `None` for token ids.

    Args:
        model: the language model, with its preprocessor.
        data: what a person passed.
        add_end: bool. Whether texts end with the end token of a tokenizer that adds one.

    Raises:
        ValueError: for data that is neither, or ids that the model does not have.
    """
    texts = None
    if is_text(data):
        single = isinstance(data, (str, bytes))
        texts = texts_of([data] if single else data)
        rows = _tokenized(model.preprocessor, texts, add_end)
    else:
        data = as_arrays(data)
        if not isinstance(data, dict) and (np.isscalar(data) or len(data) == 0):
            raise ValueError(
                "`data` must be texts, a row of token ids, or rows of them. "
                f"Received: data={data!r}"
            )
        if not isinstance(data, dict) and np.ndim(data[0]) == 0:
            data = [to_numpy(data)]
        rows = _rows(padder()(data))
    for row in rows:
        check_token_ids(row, model.backbone.vocabulary_size)
    return rows, texts


def _tokenized(preprocessor, texts, add_end):
    tokenizer = getattr(preprocessor, "tokenizer", None)
    if preprocessor is None:
        raise ValueError(
            "Texts need a `preprocessor`, which turns them into token ids. "
            "Received: texts, with preprocessor=None"
        )
    if tokenizer is None:  # the preprocessor has none, as that of bytes
        x, _, _ = keras.utils.unpack_x_y_sample_weight(preprocessor(texts))
        return _rows(x)
    before, after = [], []
    if getattr(preprocessor, "add_start_token", False):
        before = [tokenizer.start_token_id]
    if add_end and getattr(preprocessor, "add_end_token", False):
        after = [tokenizer.end_token_id]
    rows = as_arrays(tokenizer(texts))
    rows = rows.to_list() if hasattr(rows, "to_list") else rows
    return [np.array([*before, *to_numpy(row), *after], "int32") for row in rows]


def _rows(inputs):
    """The valid tokens of each row."""
    ids, mask = to_numpy(inputs["token_ids"]), to_numpy(inputs["padding_mask"]).astype(bool)
    return [row[valid] for row, valid in zip(ids, mask, strict=True)]


def count_bytes(model, texts, rows):
    """The bytes of texts that are predicted: all, but for a first token without one before it."""
    total = sum(len(text.encode("utf-8", "surrogateescape")) for text in texts)
    preprocessor = model.preprocessor
    if getattr(preprocessor, "add_start_token", False):
        return total
    tokenizer = getattr(preprocessor, "tokenizer", None)
    if tokenizer is None:
        return total - len(rows)  # a token is a byte
    if hasattr(tokenizer, "count_bytes"):  # counts parts of characters too
        return total - sum(tokenizer.count_bytes([int(i) for i in row[:1]]) for row in rows)
    for row in rows:
        first = tokenizer.detokenize([[int(i) for i in row[:1]]])
        first = first if isinstance(first, str) else np.ravel(as_arrays(first)).tolist()[0]
        total -= len(first.encode() if isinstance(first, str) else first)
    return total


def segments_of(rows, window):
    """Rows cut into pieces that are read from a zero state, each with its last target.

    A window of so many inputs shares its last target with the next as that one's first input, so
    that every token but the first of a row is predicted once.
    """
    if window is None:
        return [row for row in rows if len(row) > 1]
    starts = [(row, i) for row in rows for i in range(0, len(row) - 1, window)]
    return [row[i : i + window + 1] for row, i in starts]


def total_cost(model, segments, piece, batch_size, ends):
    """Nats of the tokens that count, summed in float64, and their number.

    Args:
        model: the language model.
        segments: list of int arrays, of which each token but the first is predicted.
        piece: int or `None`. Tokens that are read at a time, with the state carried on.
        batch_size: int.
        ends: tuple of int. Ids behind which a token does not count.
    """
    nats, count = 0.0, 0
    if backend.is_stateless():
        model.jax_state_sync()  # this may be a callback of a running `fit`
    for i in range(0, len(segments), batch_size):
        batch = segments[i : i + batch_size]
        for costs, counts in _batch_costs(
            model, batch, piece, min(batch_size, len(segments)), ends
        ):
            nats += float(costs[counts].sum())
            count += int(counts.sum())
    return nats, count


def _batch_costs(model, segments, piece, batch_size, ends):
    """Yields the costs of the targets of each piece, and which of them count."""
    steps = max(len(row) for row in segments) - 1
    streams = model.backbone.blocks[0].mixer.streams
    if not streams:
        piece = steps
    elif piece is None:
        piece = min(LONGEST, max(16, LOGITS // (batch_size * model.backbone.vocabulary_size)))
    # Few sizes, since some backends compile a program for each.
    piece = min(piece, 1 << (steps - 1).bit_length()) if streams else piece
    program = _program(model)
    states = model.get_initial_state(batch_size) if streams else None
    for start in range(0, steps, piece):
        ids = np.zeros((batch_size, piece + 1), "int32")
        valid = np.zeros((batch_size, piece + 1), bool)
        for row, row_mask, segment in zip(ids, valid, segments, strict=False):
            part = segment[start : start + piece + 1]
            row[: len(part)], row_mask[: len(part)] = part, True
        counts = valid[:, 1:] & ~np.isin(ids[:, :-1], ends)
        costs, states = program(ids[:, :-1], valid[:, 1:], ids[:, 1:], states)
        yield ops.convert_to_numpy(costs).astype("float64"), counts


def _program(model):
    """The function that reads a piece, compiled where the backend does so, kept with the model."""
    stored = vars(model).get("_cost_program")
    weights = model.variables
    if stored is None or len(stored[0]) != len(weights) or any(map(_differ, stored[0], weights)):
        run = backend.program(
            lambda *arguments: _costs(model, weights, *arguments),
            weights,
            getattr(model, "jit_compile", False) is True,
            bool(model.run_eagerly),
        )
        vars(model)["_cost_program"] = stored = (weights, run)
    return stored[1]


def _differ(one, other):
    return one is not other


def _costs(model, weights, values, ids, mask, target_ids, states):
    """What each target costs after the tokens so far, and the states after them."""
    inputs = {"token_ids": ids, "padding_mask": mask}
    scope = contextlib.nullcontext()
    if values is not None:
        scope = keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True)))
    with scope:
        if states is None:
            hidden, following = model.backbone(inputs, training=False), None
        else:
            hidden, following = model.backbone(
                inputs, training=False, initial_state=states, return_state=True
            )
            following = tree.map_structure(
                lambda new, old: ops.cast(new, old.dtype), following, states
            )
        logits = model.logits(hidden)
    return ops.sparse_categorical_crossentropy(target_ids, logits, from_logits=True), following
