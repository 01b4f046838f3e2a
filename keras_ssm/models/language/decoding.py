"""One generation: the prompts of a batch are read, then tokens are chosen."""

import time

import numpy as np
from keras import ops, tree

from keras_ssm.models.language.programs import CHUNK, NO_TOKEN, STOPS
from keras_ssm.ops import backend

LONGEST_READ = 2048  # tokens of a prompt that are read at once
SHORTEST_READ = 16
SECONDS_OF_A_PIECE = 0.05


class Decoding:
    """Reads prompts and gives the tokens that follow, some at a time.

    Nothing grows with the length: what was read is in the states of the layers. Beside them a row
    has one token that was given and not read yet.

    Args:
        programs: `Programs`.
        rows: list of integer arrays. The prompts; after a state they may be empty.
        limits: integer array `(batch,)`. How many tokens each row may get.
        stops: tuple of int. Tokens after which a row stops.
        state: `GenerationState` to go on from, or `None`.
        keep_state: bool. Whether the state after each row's last token is asked for.
    """

    def __init__(self, programs, rows, limits, stops, state, keep_state):
        self.programs = programs
        self.limits = limits
        self.stops = stops
        # Without a compiler this takes time; with one, a second program takes more.
        self.freeze = len(rows) > 1 and (keep_state or backend.uses_xla())
        self.keep_state = keep_state
        self.seeds = [ops.convert_to_numpy(v.value) for v in programs.seeds]
        if state is None:
            self.layers = programs.model.get_initial_state(len(rows))
        else:
            self.layers = state.layers_of(programs.model)
            rows = [np.append(t, row) for t, row in zip(state.tokens, rows, strict=True)]
            self.seeds = state.seeds_after(self.seeds)
        self.rows = [np.asarray(row, "int32") for row in rows]
        self.tokens = np.array([row[-1] for row in self.rows], "int32")
        self._stopped_at = {}

    def chunks(self, first, largest):
        """Yields lists of arrays, the new tokens of each row.

        Args:
            first, largest: int. How many tokens come at once, at first and at most: as many as
                take no longer than a person likes to wait, if these are two numbers.
        """
        if not self.programs.steps_alone():
            yield self._by_sampler()
            return
        try:
            self.layers = self._read(self.rows)
            yield from self._token_by_token(first, largest)
        finally:
            self._keep_seeds()

    def _token_by_token(self, first, largest):
        remaining, size = self.limits.astype("int32"), first
        width = -(-max(1, len(self.stops)) // STOPS) * STOPS
        stops = np.full(width, -1, "int32")
        stops[: len(self.stops)] = self.stops
        while remaining.any():
            before, start = (self.seeds, self.layers, self.tokens), time.monotonic()

            def decode(remaining):
                found = self.programs.decode(self.freeze, *before, remaining, stops, _number(size))  # noqa: B023
                ids, emitted, *carried = found
                self.seeds, self.layers, self.tokens, remaining = carried
                return _array(ids), _array(emitted), _array(remaining).copy()

            ids, emitted, left = decode(remaining)
            seconds = time.monotonic() - start
            self._stopped_at = {}
            yield _checked([row[:n] for row, n in zip(ids, emitted, strict=True)])
            for row in self._stopped_at:
                left[row] = 0
            if self._stopped_at and (self.keep_state or not left.any()):
                # Once more, as if each row had stopped there, for its state and the seeds.
                allowed = remaining.copy()
                for row, count in self._stopped_at.items():
                    allowed[row] = count
                decode(allowed)
            fast = seconds < SECONDS_OF_A_PIECE
            remaining, size = left, min(2 * size, largest) if fast else max(size // 2, first)

    def stop(self, row, count):
        """Ends a row after so many tokens of the chunk that was given last."""
        self._stopped_at[row] = count

    def _keep_seeds(self):
        for variable, value in zip(self.programs.seeds, self.seeds, strict=True):
            variable.assign(value)

    # Reading

    def _read(self, rows, with_hidden=False):
        """The states before the last token of each row, and the hidden sequence if asked.

        Rows are padded on the right: each row's state is that after its last valid token, and
        no token is read twice.
        """
        counts = np.array([len(row) - 1 for row in rows])
        layers, hidden, start = self.layers, [], 0
        while start < counts.max():
            width = read_width(counts.max() - start)
            ids = np.zeros((len(rows), width), "int32")
            for padded, row in zip(ids, rows, strict=True):
                piece = row[start : min(len(row) - 1, start + width)]
                padded[: len(piece)] = piece
            mask = np.arange(start, start + width) < counts[:, None]
            layers = self.programs.read(layers, ids, mask, with_hidden)
            if with_hidden:
                hidden.append(_array(layers[0]))
                layers = layers[1]
            start += width
        return (layers, hidden) if with_hidden else layers

    # Samplers with a loop of their own

    def _by_sampler(self):
        """All new tokens at once; rows of as many new tokens run together."""
        start = self.layers
        continuations = [np.zeros(0, "int32")] * len(self.rows)
        for limit in sorted(set(self.limits.tolist()) - {0}):
            group = np.flatnonzero(self.limits == limit)
            chosen = self._sample([self.rows[i] for i in group], limit, _take(start, group))
            for i, ids in zip(group, _checked(chosen, group), strict=True):
                ends = np.flatnonzero(np.isin(ids, self.stops))
                continuations[i] = ids[: ends[0] + 1] if len(ends) else ids
        self._keep_seeds()
        self._start, self._found = start, continuations
        return continuations

    def _sample(self, rows, limit, layers):
        before, self.layers = self.layers, layers
        layers, hidden = self._read(rows, with_hidden=True)
        self.layers = before
        compares = self.programs.compares_hidden()
        longest = max(map(len, rows)) if compares else 1
        length = read_width(longest + limit, longest=None)
        index = length - limit
        prompt = np.zeros((len(rows), length), "int32")
        for padded, row in zip(prompt, rows, strict=True):
            row = row[-index:]
            padded[index - len(row) : index] = row
        mask = np.broadcast_to(np.arange(length) < index, prompt.shape)
        features = self._features(rows, layers, hidden, prompt.shape, index) if compares else None
        sampled, self.seeds = self.programs.sample(
            self.stops, self.seeds, layers, prompt, mask, _number(index), features
        )
        return _array(sampled)[:, index:].astype("int32")

    def _features(self, rows, layers, hidden, shape, index):
        """Hidden features of the prompts where they stand in a batch of this shape."""
        ids = np.array([row[-1:] for row in rows], "int32")
        last = _array(self.programs.read(layers, ids, np.ones(ids.shape, bool), True)[0])
        hidden = np.concatenate(
            [*hidden, last], axis=1
        )  # the states of the first tokens, and of the last
        # Empty places hold the last state, which is the closest to what follows.
        features = np.repeat(last, shape[1], axis=1)
        for i, row in enumerate(rows):
            features[i, index - len(row) : index - 1] = hidden[i, : len(row) - 1]
        return features

    # The state after

    def state_after(self):
        """The states of the layers and the tokens not read yet, as NumPy arrays."""
        layers, tokens = self.layers, self.tokens
        if not self.programs.steps_alone():
            accepted = [
                ids[: self._stopped_at.get(i, len(ids))] for i, ids in enumerate(self._found)
            ]
            rows = [np.append(row, ids) for row, ids in zip(self.rows, accepted, strict=True)]
            self.layers = self._start
            layers = self._read([row.astype("int32") for row in rows])
            tokens = np.array([row[-1] for row in rows])
        return tree.map_structure(_array, layers), _array(tokens).astype("int32")


def read_width(count, longest=LONGEST_READ):
    """The length to which so many tokens are padded: one of few, where lengths are compiled."""
    if longest is not None and count >= longest:
        return longest
    if not backend.uses_xla():
        return count
    return max(SHORTEST_READ, 1 << int(count - 1).bit_length())


def largest_chunk():
    """Tokens that one call of the decoding program can give."""
    return CHUNK


def _checked(rows, numbers=None):
    """Chosen tokens of rows with these numbers, of which none may be `NO_TOKEN`."""
    for i, row in zip(range(len(rows)) if numbers is None else numbers, rows, strict=True):
        if (row == NO_TOKEN).any():
            raise ValueError(
                "The logits of the model must be numbers: its weights may hold NaN, as after "
                f"training that diverged. Received: NaN in row {i}"
            )
    return rows


def _number(n):
    return np.array(n, "int32")


def _array(x):
    return ops.convert_to_numpy(x)


def _take(layers, rows):
    return tree.map_structure(lambda x: ops.take(x, rows, axis=0), layers)
