"""The compiled programs of a generation: reading a prompt, decoding, and samplers of their own."""

import contextlib

import keras
import numpy as np
from keras import ops, tree
from keras_hub.samplers import BeamSampler, GreedySampler, Sampler

from keras_ssm.ops import backend

CHUNK = 256  # tokens that one call of the decoding program can give
NO_TOKEN = -1  # what is chosen where logits are NaN
STOPS = 8  # stop tokens are padded to a multiple of this, or each number needs a program


class Programs:
    """The programs of a model with its sampler, made when they are first needed.

    A backend that compiles does so once for each shape: of batches, and of the few lengths in
    which prompts come. How many tokens follow is an argument, not a shape.

    Args:
        model: the language model.
        sampler: `keras_hub.samplers.Sampler`.
        known: int. Tokens that may be sampled: rows of the table after them are padding.
    """

    def __init__(self, model, sampler, known):
        self.model = model
        self.sampler = sampler
        self.known = known
        self.weights = model.variables
        self.seeds = list(sampler.variables)
        self.settings = repr(_settings(sampler))
        self.traces = 0  # how often a program was traced (or run, uncompiled)
        self._greedy = type(sampler) is GreedySampler
        self._made = {}
        self._step, self._note = self._next_of, _noted
        if not model.run_eagerly:
            self._step, self._note = backend.traced(self._next_of), backend.traced(_noted)

    def fit(self, sampler, known):
        """Whether these programs are those of a sampler, and of the weights, as they are now."""
        unchanged = sampler is self.sampler and known == self.known
        unchanged = unchanged and [*map(id, self.weights)] == [*map(id, self.model.variables)]
        return unchanged and self.settings == repr(_settings(sampler))

    def steps_alone(self):
        """Whether the sampler chooses token by token: others run a loop of their own."""
        return type(self.sampler).__call__ is Sampler.__call__

    def compares_hidden(self):
        """Whether the sampler reads hidden features, as contrastive search does."""
        return not self.steps_alone() and not isinstance(self.sampler, BeamSampler)

    # The programs

    def read(self, layers, token_ids, mask, with_hidden=False):
        """The states after the valid tokens of each row and, if asked, the hidden sequence."""
        return self._program("read", self._read, with_hidden)(layers, token_ids, mask)

    def decode(self, freeze, *arguments):
        """See `_decode`; with `freeze` the state of a row that has stopped stays as it is."""
        return self._program("decode", self._decode, freeze)(*arguments)

    def sample(self, stops, *arguments):
        """See `_sample`; `stops` is a tuple of stop tokens."""
        return self._program("sample", self._sample, stops)(*arguments)

    def _program(self, name, function, fixed):
        if (name, fixed) not in self._made:

            def traced(*arguments):
                self.traces += 1
                return function(fixed, *arguments)

            self._made[name, fixed] = backend.program(
                traced, self.weights, self.model.jit_compile, self.model.run_eagerly
            )
        return self._made[name, fixed]

    def _read(self, with_hidden, weights, layers, token_ids, mask):
        inputs = {"token_ids": token_ids, "padding_mask": mask}
        with self._values(weights):
            y, states = self.model.backbone(inputs, initial_state=layers, return_state=True)
        states = tree.map_structure(_like, states, layers)
        return (y, states) if with_hidden else states

    def _decode(self, freeze, weights, seeds, layers, tokens, remaining, stops, count):
        """Chooses up to `count` tokens for each row.

        Args:
            weights: values of the weights, where programs are functions of their arguments alone.
            seeds: list of the values of the sampler's seeds.
            layers: list of the states of the layers, before each row's last token.
            tokens: int32 `(batch,)`. The last tokens, which are read first.
            remaining: int32 `(batch,)`. Tokens that each row may still get; 0 where it stopped.
            stops: int32. Tokens after which a row stops.
            count: int32 scalar, at most `CHUNK`.

        Returns:
            Tuple `(ids, emitted, seeds, layers, tokens, remaining)`: `(batch, CHUNK)` new tokens,
            and of each row how many of them there are.
        """
        with self._values(weights):
            systems = self.model.discretize()
        notes = {
            "place": ops.zeros((), dtype="int32"),
            "ids": ops.zeros((remaining.shape[0], CHUNK), dtype="int32"),
            "emitted": ops.zeros_like(remaining),
            "tokens": tokens,
            "remaining": remaining,
            "going": ops.logical_and(count > 0, ops.any(remaining > 0)),
        }

        def going(notes, seeds, layers):
            return notes["going"]

        def advance(notes, seeds, layers):
            chosen, following = self._step(notes["tokens"], layers, systems, weights)
            if not self._greedy:
                chosen, seeds = self._token(weights, seeds, chosen)
            if freeze:
                active = notes["remaining"] > 0
                following = tree.map_structure(
                    lambda new, old: _rows_where(active, new, old), following, layers
                )
            return self._note(chosen, notes, stops, count), seeds, following

        notes, seeds, layers = ops.while_loop(going, advance, (notes, seeds, layers))
        return (notes["ids"], notes["emitted"], seeds, layers, notes["tokens"], notes["remaining"])

    def _next_of(self, tokens, layers, systems, weights):
        """Logits, or what a greedy sampler makes of them, and the states."""
        with self._values(weights):
            result, _, following = self._next(tokens, layers, systems)
        if self._greedy:
            # The largest logit: as probabilities, close logits would round to the same number.
            result = _unless_nan(result, ops.argmax(result, axis=-1))
        return result, tree.map_structure(_like, following, layers)

    def _token(self, weights, seeds, logits):
        with self._values(weights, seeds) as scope:
            numbers = ops.where(ops.isnan(logits), ops.zeros_like(logits), logits)
            probabilities = self.sampler.compute_probabilities(numbers)
            chosen = _unless_nan(logits, self.sampler.get_next_token(probabilities))
        if self.seeds:
            seeds = [scope.get_current_value(v) for v in self.seeds]
        return chosen, seeds

    def _next(self, tokens, layers, systems):
        """Logits of the tokens that there are, hidden features, and the states after a token."""
        hidden, following = self.model.backbone.step(tokens, layers, systems)
        logits = self.model.logits(hidden)
        size = logits.shape[-1]
        if self.known < size:
            is_known = ops.convert_to_tensor(np.arange(size) < self.known)
            logits = ops.where(is_known, logits, ops.full_like(logits, -np.inf))
        return logits, hidden, following

    def _sample(self, stops, weights, seeds, layers, prompt, mask, index, hidden):
        """Runs a sampler that has a loop of its own, such as beam search.

        Args:
            stops: tuple of int. Tokens after which a row stops.
            weights, seeds, layers: as in `_decode`.
            prompt: int32 `(batch, length)`. The last token of the prompt stands before `index`.
            mask: bool `(batch, length)`, True before `index`.
            index: int32 scalar. Where the first new token goes; the last goes to the end.
            hidden: `(batch, length, hidden_dim)` before `index`, or `None`.

        Returns:
            Tuple of the prompt with what was chosen, and the seeds.
        """
        stateless = backend.is_stateless()
        if not stateless:  # the sampler's own loop draws from its variables
            for variable, seed in zip(self.seeds, seeds, strict=True):
                variable.assign(seed)
        with self._values(weights, seeds if stateless else None) as scope:
            systems = self.model.discretize()
            if hidden is not None:
                hidden = ops.cast(hidden, self.model.backbone.compute_dtype)

            def following(prompt, cache, index):
                tokens = ops.slice(prompt, [0, index - 1], [ops.shape(prompt)[0], 1])
                return self._next(ops.squeeze(tokens, 1), cache, systems)

            sampled = self.sampler(
                next=following,
                prompt=prompt,
                cache=layers,
                index=index,
                mask=mask,
                stop_token_ids=stops or None,
                hidden_states=hidden,
                model=self.model,
            )
            first = following(prompt, layers, index)[0]
            sampled = _unless_nan(ops.expand_dims(first, 1), sampled)
            seeds = [scope.get_current_value(v) if stateless else v.value for v in self.seeds]
        return sampled, seeds

    @contextlib.contextmanager
    def _values(self, weights, seeds=None):
        """A scope in which weights and seeds have these values, where there is need of one."""
        mapping = []
        if weights is not None:
            mapping += zip(self.weights, weights, strict=True)
        if seeds is not None:
            mapping += zip(self.seeds, seeds, strict=True)
        if not mapping:
            yield None
            return
        with keras.StatelessScope(state_mapping=mapping) as scope:
            yield scope


def _noted(chosen, notes, stops, count):
    """What is known of the rows after one more token."""
    active = notes["remaining"] > 0
    tokens = ops.where(active, chosen, notes["tokens"])
    at_place = ops.arange(CHUNK, dtype="int32") == notes["place"]
    stopped = ops.any(ops.expand_dims(tokens, 1) == stops, axis=1)
    left = ops.where(stopped, ops.zeros_like(tokens), notes["remaining"] - 1)
    left = ops.where(active, left, notes["remaining"])
    place = notes["place"] + 1
    return {
        "place": place,
        "ids": ops.where(at_place, ops.expand_dims(tokens, 1), notes["ids"]),
        "emitted": notes["emitted"] + ops.cast(active, "int32"),
        "tokens": tokens,
        "remaining": left,
        "going": ops.logical_and(
            place < count, ops.logical_and(ops.any(left > 0), ops.all(tokens >= 0))
        ),
    }


def _unless_nan(logits, chosen):
    """Tokens, and `NO_TOKEN` where they were chosen by logits that are no numbers."""
    chosen = ops.cast(chosen, "int32")
    return ops.where(ops.any(ops.isnan(logits), axis=-1), NO_TOKEN * ops.ones_like(chosen), chosen)


def _settings(sampler):
    try:
        return sampler.get_config()
    except NotImplementedError:
        return None


def _like(new, old):
    """A state in the dtype of the one before: a loop keeps it."""
    return ops.cast(new, old.dtype)


def _rows_where(active, new, old):
    for _ in new.shape[1:]:
        active = ops.expand_dims(active, -1)
    return ops.where(active, new, old)
