import contextlib
import inspect
import warnings

import keras
from keras_hub.models import Task

from keras_ssm import presets
from keras_ssm.models.ssm_backbone import SSMBackbone


class SSMTask(Task):
    """Base class of the task models: a backbone with a head, a preprocessor and a trainer.

    Data may be arrays, lists of arrays of different lengths, a dict with a `padding_mask`,
    `tf.data`, a `keras.utils.PyDataset` or a generator. Arrays and lists are preprocessed once,
    then shuffled every epoch. Input of the wrong kind is refused before training starts.

    Args:
        backbone: `keras_ssm.models.SSMBackbone`.
        preprocessor: callable or `None`. Applied to the data of `fit`, `evaluate`, `predict`.
        inputs, outputs: symbolic tensors of the functional model.
        **kwargs: `compile`, `name`, `trainable`.
    """

    backbone_cls = SSMBackbone

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(self.backbone.as_tensors(inputs), *args, **kwargs)

    # Data

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        **kwargs,
    ):
        """Trains the model; the arguments of `keras.Model.fit`."""
        x, y, sample_weight = self._prepare(x, y, sample_weight)
        if validation_data is not None:
            if isinstance(validation_data, (tuple, list)):
                validation_data = self._prepare(
                    *keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
                )
            else:
                validation_data = self._prepare(validation_data)[0]
            if isinstance(validation_data, tuple) and validation_data[2] is None:
                validation_data = validation_data[:2]
        with self._left_intact():
            return keras.Model.fit(
                self,
                x=x,
                y=y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                **kwargs,
            )

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs
    ):
        """Returns loss and metrics; the arguments of `keras.Model.evaluate`."""
        if not kwargs.get("_use_cached_eval_dataset"):
            x, y, sample_weight = self._prepare(x, y, sample_weight)
        with self._left_intact():
            return keras.Model.evaluate(
                self,
                x=x,
                y=y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                **kwargs,
            )

    def predict(self, x, batch_size=None, verbose="auto", **kwargs):
        """Returns the outputs as NumPy arrays; the arguments of `keras.Model.predict`."""
        x = self._prepare(x)[0]
        with self._left_intact():
            return keras.Model.predict(self, x, batch_size=batch_size, verbose=verbose, **kwargs)

    def check_targets(self, y):
        """Raises a `ValueError` for targets that the loss would misread."""

    def _convert(self, x, y=None, sample_weight=None):
        """Preprocesses one batch, or whole arrays, and checks the result."""
        packed = self.preprocess_samples(x, y, sample_weight)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(packed)
        x = self.backbone.standardize(x)
        return x, y, sample_weight

    def _convert_batch(self, *batch):
        batch = batch[0] if len(batch) == 1 and isinstance(batch[0], (tuple, list)) else batch
        batch = self._convert(*keras.utils.unpack_x_y_sample_weight(tuple(batch)))
        return keras.utils.pack_x_y_sample_weight(*batch)

    def _prepare(self, x, y=None, sample_weight=None):
        """Brings any data to what `keras.Model.fit` takes."""
        stream = None
        if type(x).__module__.startswith("tensorflow.") and hasattr(x, "element_spec"):
            stream = x.map(self._convert_batch)
        elif isinstance(x, keras.utils.PyDataset):
            stream = _ConvertedDataset(x, self._convert_batch)
        elif inspect.isgenerator(x):
            stream = (self._convert_batch(*_as_batch(batch)) for batch in x)
        if stream is not None:
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "A dataset yields its own targets: pass `x` alone. "
                    f"Received: y of type {type(y).__name__}"
                )
            return stream, None, None
        if x is None:
            raise ValueError("`x` must be data. Received: x=None")
        if not isinstance(x, (list, tuple, dict)) and not hasattr(x, "shape"):
            # A loader of another library: its batches reach the model as they are.
            return x, y, sample_weight
        x, y, sample_weight = self._convert(x, y, sample_weight)
        rows = len(x[self.backbone.input_key])
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if isinstance(value, (list, tuple)):
                value = keras.ops.convert_to_numpy(value)
                y, sample_weight = (value, sample_weight) if name == "y" else (y, value)
            if hasattr(value, "shape") and (not value.shape or value.shape[0] != rows):
                raise ValueError(
                    f"`{name}` must have one entry for each of the {rows} rows of `x`. "
                    f"Received: {name}.shape={tuple(value.shape)}"
                )
        if y is not None:
            self.check_targets(y)
        return x, y, sample_weight

    # On JAX the trainer empties the variables while it runs, and a call that it refuses would
    # leave them empty. Kept, they cost nothing: their buffers are donated to the first step.
    def _purge_model_variables(self, **kinds):
        pass

    @contextlib.contextmanager
    def _left_intact(self):
        """Leaves a model that works when a call of the trainer fails."""
        try:
            yield
        except BaseException:
            if keras.config.backend() == "jax":
                self.jax_state_sync()
            # A traced function that failed half-way does not run again.
            self.train_function = self.test_function = self.predict_function = None
            raise

    # Saving and loading

    def get_compile_config(self):
        config = _portable(super().get_compile_config())
        if config.get("jit_compile") == keras.Model._resolve_auto_jit_compile(self):
            # What was chosen for this backend need not suit the one that loads.
            config["jit_compile"] = "auto"
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """Loads a task model from a preset.

        Args:
            preset: str or `Path`. A built-in name (`keras_ssm.list_presets()`), a directory,
                or `hf://organisation/name`.
            load_weights: bool. Whether the trained weights are loaded. Defaults to `True`.
            **kwargs: Arguments that override the saved configuration, such as `dtype`, or
                `num_classes`, which brings a new head.

        Returns:
            The task model, compiled with its defaults.

        Raises:
            ValueError: if the preset is unknown, incomplete, altered or of a newer format.

        Example:
            ```python
            model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
            ```
        """
        directory = presets.resolve(preset)
        return super().from_preset(str(directory), load_weights=load_weights, **kwargs)

    def save_to_preset(self, preset_dir, max_shard_size=10, info=None):
        """Saves the model as a preset, with a `preset.json` that vouches for its files.

        Args:
            preset_dir: str or `Path`. Written whole or not at all.
            max_shard_size: float. Largest weights file, in GB. Defaults to `10`.
            info: dict or `None`. Facts for `preset.json`: `name`, `data`, `licences`,
                `scores`, and the like.
        """
        with presets.writing(preset_dir) as directory:
            super().save_to_preset(str(directory), max_shard_size=max_shard_size)
            facts = {**self.backbone.facts(), "task": type(self).__name__, **(info or {})}
            facts["parameters"] = self.count_params()
            presets.describe(directory, {**facts, "sample": self._sample()})

    def save_task_weights(self, filepath):
        """Saves what the head adds to the backbone; not the optimizer."""
        keras.saving.save_weights(self, filepath, objects_to_skip=self._not_in_head())

    def load_task_weights(self, filepath):
        """Loads what `save_task_weights` saved."""
        keras.saving.load_weights(self, filepath, objects_to_skip=self._not_in_head())

    def _not_in_head(self):
        parts = list(self.backbone._flatten_layers())
        return parts if self.optimizer is None else [*parts, self.optimizer]

    def _sample(self):
        """A short input and its outputs, for whoever checks a copy of the preset."""
        inputs = self.backbone.sample_inputs()
        outputs = keras.ops.convert_to_numpy(keras.ops.cast(self(inputs), "float32"))
        return {"inputs": inputs.tolist(), "outputs": outputs.tolist()}

    # Adaptation

    def enable_lora(self, rank, target_layer_names=None):
        """Freezes the backbone but for low-rank updates of its projections; the head trains.

        The model is compiled anew with the same settings, since other weights train.

        Args:
            rank: int. Rank of the updates.
            target_layer_names: list of str or `None`. Names of the layers to adapt. Defaults
                to `["input_dense", "output_dense"]`.

        Reference:
            [LoRA](https://arxiv.org/abs/2106.09685), equation 3.
        """
        self.backbone.enable_lora(rank, target_layer_names)
        self._compile_anew()

    def quantize(self, mode=None, config=None, **kwargs):
        """Quantizes the projections and the head; the systems stay float32.

        The model is compiled anew with the same settings, since other weights train.

        Args:
            mode: str. `"int8"`, `"int4"` or `"float8"`.
            config: see `keras.Model.quantize`.
            **kwargs: see `keras.Model.quantize`.
        """
        with warnings.catch_warnings():
            # One for each layer without a kernel: norms, dropouts, inputs.
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            super().quantize(mode, config=config, **kwargs)
        self._compile_anew()

    def _compile_anew(self):
        """Compiles with the same settings and a new optimizer, when other weights train."""
        if self.compiled:
            settings = self.get_compile_config()
            self.compile_from_config(settings)


class _ConvertedDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are preprocessed."""

    def __init__(self, dataset, convert):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset, self.convert = dataset, convert

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        return self.convert(*_as_batch(self.dataset[index]))

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


def _as_batch(batch):
    return batch if isinstance(batch, (tuple, list)) else (batch,)


def _portable(config):
    """Names optimizers as every backend does: PyTorch's own modules load nowhere else."""
    if isinstance(config, (list, tuple)):
        return type(config)(_portable(value) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: _portable(value) for key, value in config.items()}
    if str(config.get("module", "")).startswith("keras.src.backend.torch.optimizers"):
        config["module"], config["registered_name"] = "keras.optimizers", None
    return config
