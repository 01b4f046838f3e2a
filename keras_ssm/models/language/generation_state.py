import json
from typing import Self

import keras
import numpy as np
from keras import ops, tree

from keras_ssm.models.saving import state_files
from keras_ssm.models.saving.fingerprint import fingerprint
from keras_ssm.types import PathLike, State

FORMAT = 1


class GenerationState:
    """Where a generation stands: `generate(..., state=state)` goes on without reading it again.

    `generate(..., return_state=True)` returns one. Its arrays are NumPy's, so that it can be kept,
    copied and pickled, saved to a file, and continued in another process and on another backend.
    Its size does not depend on how much was read. The random numbers of a sampler go on as well: a
    sampler of the same seed that is behind goes on where the state's was; one with another seed, or
    further on, draws as it would.

    Attributes:
        layers: dict of arrays `(batch, ...)`. The states of the layers, by layer and part.
        tokens: int32 array `(batch,)`. The last tokens, which were given and not read yet.
        batch_size: int. Number of rows.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.Mamba(state_dim=4), num_layers=1, hidden_dim=8, vocabulary_size=32
        )
        model = keras_ssm.models.SSMCausalLM(backbone)
        story, state = model.generate([3, 1, 4], max_length=20, return_state=True)
        state.save("story.npz")

        state = keras_ssm.models.GenerationState.load("story.npz")
        story += model.generate(None, max_length=20, state=state)
        ```
    """

    def __init__(
        self,
        layers: dict[str, np.ndarray],
        tokens: np.ndarray,
        windows: list[tuple[list[int], int]],
        seeds: list[np.ndarray],
        form: tuple[str, bool],
        model: str,
    ):
        self.layers = layers
        self.tokens = tokens
        self.windows = (
            windows  # of each row: its last ids, and the number of its characters given out
        )
        self.seeds = seeds
        self.form = form
        self.model = model

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    def __repr__(self):
        return f"<GenerationState of {self.batch_size} rows, {len(self.layers)} arrays>"

    # Of a model

    @classmethod
    def of(
        cls,
        model: keras.Model,
        layers: list[State],
        tokens: np.ndarray,
        windows: list[tuple[list[int], int]],
        seeds: list[np.ndarray],
        form: tuple[str, bool],
    ) -> Self:
        """The state of a model, from the tree of its layers' states."""
        named = {
            _name(path): state_files.storable(part) for path, part in tree.flatten_with_path(layers)
        }
        seeds = [np.asarray(seed, "int64") for seed in seeds]
        return cls(named, np.asarray(tokens), windows, seeds, form, fingerprint(model))

    def layers_of(self, model: keras.Model) -> list[State]:
        """The states of the layers as a model takes them.

        Raises:
            ValueError: for another model than the one that made it.
        """
        spec = model.backbone.state_spec(self.batch_size)
        expected = {_name(path): tuple(part.shape) for path, part in tree.flatten_with_path(spec)}
        received = {name: part.shape for name, part in self.layers.items()}
        if expected != received:
            raise ValueError(
                "`state` must come from this model, whose layers have states of the shapes "
                f"{expected}. Received: a state of {received}"
            )
        if self.model != fingerprint(model):
            raise ValueError(
                "`state` must come from this model with the weights that it has now: after others "
                "it means nothing. Received: the state of a model with other weights"
            )
        values = [
            ops.convert_to_tensor(self.layers[_name(path)], dtype=part.dtype)
            for path, part in tree.flatten_with_path(spec)
        ]
        return tree.pack_sequence_as(spec, values)

    def seeds_after(self, seeds: list[np.ndarray]) -> list[np.ndarray]:
        """The values of a sampler's seeds: those of the state where the sampler is behind it."""
        if len(seeds) != len(self.seeds):
            return seeds
        return [
            saved.astype(seed.dtype)
            if saved.shape == seed.shape and saved[0] == seed[0] and saved[-1] > seed[-1]
            else seed
            for seed, saved in zip(seeds, self.seeds, strict=True)
        ]

    # In files

    def to_dict(self) -> dict[str, np.ndarray]:
        """Returns all there is as a flat dict of arrays, as `numpy.savez` takes it."""
        facts = {"format": FORMAT, "form": self.form, "model": self.model, "windows": self.windows}
        return {
            **{f"layers/{name}": part for name, part in self.layers.items()},
            **{f"seeds/{i}": seed for i, seed in enumerate(self.seeds)},
            "tokens": self.tokens,
            "facts": np.array(json.dumps(facts)),
        }

    @classmethod
    def from_dict(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Makes a state of what `to_dict` returned.

        Raises:
            ValueError: for arrays that `to_dict` did not make.
        """
        arrays = dict(arrays)
        try:
            facts = json.loads(str(arrays["facts"]))
            known = facts["format"] == FORMAT
            (form, single), model = facts["form"], str(facts["model"])
            windows = [([int(i) for i in ids], int(given)) for ids, given in facts["windows"]]
            tokens = np.asarray(arrays["tokens"]).astype("int32", casting="safe")
            count = sum(name.startswith("seeds/") for name in arrays)
            seeds = [np.asarray(arrays[f"seeds/{i}"]) for i in range(count)]
            known = known and tokens.shape == (len(windows),)
        except (KeyError, TypeError, ValueError):
            known = False
        if not known:
            raise ValueError(
                "`arrays` must be what `GenerationState.to_dict` of this version returned. "
                f"Received: arrays {sorted(arrays)}"
            )
        layers = {
            name.removeprefix("layers/"): np.asarray(part)
            for name, part in arrays.items()
            if name.startswith("layers/")
        }
        return cls(layers, tokens, windows, seeds, (form, single), model)

    def save(self, filepath: PathLike) -> None:
        """Writes the state to a file `.npz`, whole or not at all."""
        state_files.save(self.to_dict(), filepath)

    @classmethod
    def load(cls, filepath: PathLike) -> Self:
        """Reads what `save` wrote.

        Raises:
            ValueError: for a file that `save` did not write.
        """
        return cls.from_dict(state_files.load(filepath, "GenerationState.save"))


def _name(path):
    return "/".join(map(str, path))
