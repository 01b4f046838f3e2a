from typing import Self

import keras

from keras_ssm import presets
from keras_ssm.models.adapters import Adapters, enable
from keras_ssm.models.saving.adapted_files import (
    adapted_layers,
    let_train,
    merged,
    what_trains,
)
from keras_ssm.models.saving.finite_weights import check_finite
from keras_ssm.models.saving.half_weights import rounded_weights, write_halved
from keras_ssm.models.saving.model_files import ModelFiles
from keras_ssm.models.saving.preset_loading import load, with_saved_policy
from keras_ssm.types import PathLike
from keras_ssm.version import __version__


class BackboneFiles(Adapters, ModelFiles):
    """Presets, files and adapters of a backbone."""

    # The weights that trained with low-rank updates before the whole model was frozen.
    trained_before = None

    @property
    def trainable(self) -> bool:
        """Whether the weights train; with low-rank updates those that did before it was False."""
        return keras.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        adapted = self.is_made() and bool(adapted_layers(self))
        if adapted and self.trainable:
            vars(self)["trained_before"] = what_trains(self)
        keras.Layer.trainable.fset(self, value)
        if adapted and value:
            let_train(self, self.trained_before)

    def default_lora_layer_names(self):
        """The projections around the mixers, and those that a mixer names as its own."""
        around = ["input_dense", "bottleneck_dense", "gate_dense", "wide_dense", "output_dense"]
        around += ["mlp_dense", "mlp_output_dense"]
        return [*around, *self.blocks[0].mixer.lora_layers]

    def enable_lora(self, rank: int, target_layer_names: list[str] | None = None) -> None:
        """Freezes all but new low-rank updates of projections; see `SSMClassifier.enable_lora`."""
        enable(self, rank, target_layer_names, super().enable_lora)
        self.track_weights()

    @classmethod
    def from_preset(
        cls,
        preset: PathLike,
        load_weights: bool = True,
        revision: str | None = None,
        check_sample: bool = True,
        step_scale: float | None = None,
        **kwargs,
    ) -> Self:
        """Loads a backbone from a preset, verified as `SSMClassifier.from_preset` does.

        Args:
            preset: str or `Path`. A built-in name, a directory, or `hf://organisation/name`;
                also of published Mamba models, as there.
            load_weights: bool. Whether the trained weights are loaded. Defaults to `True`.
            revision, check_sample, step_scale: as there.
            **kwargs: Arguments that override the saved configuration, such as `dtype`.

        Returns:
            An `SSMBackbone`.

        Raises:
            ValueError: if the preset is unknown, incomplete, altered or of a newer format.
        """

        def build(files, **arguments):
            arguments = with_saved_policy(arguments, files.documents)
            return super(BackboneFiles, cls).from_preset(str(files.directory), **arguments)

        return load(cls, build, preset, revision, load_weights, check_sample, step_scale, **kwargs)

    def save_to_preset(
        self,
        preset_dir: PathLike,
        max_shard_size: float = 10,
        info: dict | None = None,
        weights_dtype: str | None = None,
    ) -> None:
        """Saves the backbone and its `preset.json` to a directory.

        Args:
            preset_dir: str or `Path`. Written whole or not at all.
            max_shard_size: float. Largest weights file, in GB.
            info: dict or `None`. Facts for `preset.json`; see `SSMClassifier.save_to_preset`.
            weights_dtype: str or `None`. `"float16"` halves the files; see there.
        """
        check_finite(self)
        rounded = rounded_weights(self, weights_dtype)
        with presets.writing(preset_dir) as directory, merged(), rounded:
            super().save_to_preset(str(directory), max_shard_size=max_shard_size)
            write_halved(directory, weights_dtype)
            facts = {**self.facts(), "parameters": self.count_params(), **(info or {})}
            presets.describe(directory, {**facts, "sample": self.record_sample()})

    def facts(self):
        """Returns the entries of `preset.json` on the architecture."""
        return {
            "system": self.mixer_config["class_name"],
            "backbone": type(self).__name__,
            "library_version": __version__,
        }
