import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Self

import keras
from keras_hub.models import Task

from keras_ssm import presets
from keras_ssm.keras_internals import Functional, brief_errors, is_torch_optimizer
from keras_ssm.models.adapters import Adapters
from keras_ssm.models.sampled_inputs import STEP_SCALE, SampledInputs
from keras_ssm.models.saving.adapted_files import merged
from keras_ssm.models.saving.finite_weights import check_finite
from keras_ssm.models.saving.frozen_layers import freeze, frozen_config
from keras_ssm.models.saving.half_weights import rounded_weights, write_halved
from keras_ssm.models.saving.head_files import HeadFiles, is_saved_head, leaving_head
from keras_ssm.models.saving.model_files import ModelFiles
from keras_ssm.models.saving.preset_loading import load, with_saved_policy
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.streaming.streams import Streams
from keras_ssm.models.summary import print_preprocessor
from keras_ssm.models.trainer.sequence_trainer import SequenceTrainer
from keras_ssm.types import PathLike, Tensor


# `Functional` stands there by name, or Keras and keras_hub rewrite the bases of these classes
# whenever a model is made, under the feet of other threads.
class SSMTask(Streams, Adapters, HeadFiles, ModelFiles, SequenceTrainer, Task, Functional):
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
    settable = ("preprocessor",)
    head_size = None  # the argument that brings a new head
    of_head = ()  # arguments that a new head does not take over
    keeps_equal_head = False  # whether the saved `head_size` asks for no new head
    pipeline_tag = None  # the name of the task on the Hub, if there is one for all models

    @property
    def input_key(self) -> str:
        """Name of the main input, `"inputs"` or `"token_ids"`."""
        return self.backbone.input_key

    @property
    def step_scale(self):
        """Scalar that multiplies every dt of the backbone: 2 reads samples twice as far apart."""
        return self.backbone.step_scale

    @step_scale.setter
    def step_scale(self, value):
        self.backbone.step_scale = value

    def standardize(self, inputs: Tensor | dict) -> dict[str, Tensor]:
        """Brings arrays and dicts to what the graph takes; see `SSMBackbone.standardize`."""
        return self.backbone.standardize(inputs)

    def sample_inputs(self):
        """Returns a short, fixed input of one row."""
        return self.backbone.sample_inputs()

    def read_inputs(self, x: object) -> object:
        if not isinstance(self.preprocessor, SampledInputs):
            return x
        scale = None
        if self.preprocessor.resample == STEP_SCALE:
            # An encoder that convolves reads one rate, that of the preprocessor.
            own = 1.0 if self.backbone.convolves else self.step_scale
            scale = float(keras.ops.convert_to_numpy(own))
        with brief_errors():
            return self.preprocessor.at_own_rate(x, scale)

    def preprocess(self, x: object, y: object = None, sample_weight: object = None) -> tuple:
        reserved = {}
        if isinstance(x, dict):  # inputs of the mixer that the preprocessor does not know
            names = set(self.backbone.blocks[0].mixer.call_arguments) - {"timesteps"}
            reserved = {name: x[name] for name in names & set(x)}
            x = {name: value for name, value in x.items() if name not in reserved}
        packed = self.preprocess_samples(x, y, sample_weight)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(packed)
        return ({**x, **reserved} if reserved else x), y, sample_weight

    def compile(self, **settings) -> None:
        """Configures training; the keyword arguments of `keras.Model.compile`."""
        # For a second compilation. A partial, since Keras would track the contents of a dict.
        self._compile_alike = functools.partial(self.compile, **settings)
        super().compile(**settings)

    def summary(
        self,
        line_length: int | None = None,
        positions: list[float] | None = None,
        print_fn: Callable | None = None,
        **kwargs,
    ) -> None:
        """Prints what the preprocessor does, if there is one, and the layers of the model.

        Args:
            line_length, positions, print_fn, **kwargs: see `keras.Model.summary`.
        """
        if self.preprocessor is not None:
            print_preprocessor(self.preprocessor, line_length, print_fn)
        keras.Model.summary(
            self, line_length=line_length, positions=positions, print_fn=print_fn, **kwargs
        )

    # Saving and loading

    def get_config(self):
        frozen = frozen_config(self, besides=self.backbone._flatten_layers())
        return {**super().get_config(), "trainable": self.trainable, **frozen}

    @classmethod
    def from_config(cls, config):
        if "compile" in inspect.signature(cls).parameters:
            # Keras compiles the loaded model again, by `compile_from_config`.
            config = {"compile": False, **config}
        config = dict(config)
        frozen = config.pop("frozen", ())
        model = super().from_config(dict(config))
        freeze(model, frozen, besides=model.backbone._flatten_layers())
        if "preprocessor" in config and config["preprocessor"] is None:
            model.preprocessor = None
        return model

    def get_compile_config(self):
        config = _portable(super().get_compile_config())
        if config.get("jit_compile") == keras.Model._resolve_auto_jit_compile(self):
            # A choice for this backend need not suit the backend that loads the file.
            config["jit_compile"] = "auto"
        if config and self.optimizer is not None:
            config["optimizer_built"] = self.optimizer.built
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        built = config.pop("optimizer_built", True)  # of a model that has trained
        self.compile(**config)
        if self.optimizer is not None and self.built and built:
            self.optimizer.build(self.trainable_variables)

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
        """Loads a task model from a preset.

        A preset of the Hub is loaded from one commit, and only after the checksums of all its
        files agree with its `preset.json`; no code of a repository runs. Private repositories
        open with the token of `HF_TOKEN` or of `hf auth login`.

        Args:
            preset: str or `Path`. A built-in name (`keras_ssm.list_presets()`), a directory,
                or `hf://organisation/name`; also of published Mamba models in the formats of
                transformers, state-spaces/mamba and Codestral.
            load_weights: bool. Whether the trained weights are loaded. Defaults to `True`.
            revision: str or `None`. Branch, tag or commit of a preset on the Hub. Defaults to
                its main branch.
            check_sample: bool. Whether the outputs for a short input are compared with those
                that were recorded when the model was saved. Defaults to `True`. Where an
                argument such as `dtype` or `num_classes` changes them, they never are.
            step_scale: float or `None`. Factor on every dt. Defaults to the saved one.
            **kwargs: Arguments that override the saved configuration, such as `dtype`, or
                `num_classes` or `num_outputs`, which brings a new head with initial weights, as
                in keras-hub also where the number is the saved one. Another `horizon` does so.

        Returns:
            The task model, compiled with its defaults.

        Raises:
            ValueError: if the preset is unknown, incomplete, altered or of a newer format, holds
                the head of another task while no argument asks for a new one, holds weights that
                are no finite floats, gives other outputs than those recorded, or could not be
                downloaded.

        Example:
            ```python
            model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
            ```
        """

        def build(files, **arguments):
            size = cls.head_size
            if cls.keeps_equal_head and is_saved_head(files.documents, arguments):
                arguments.pop(size, None)
            if size not in arguments:
                _check_head(files.documents, cls, preset, sorted(kwargs))
            arguments = with_saved_policy(arguments, files.documents)
            if not {"task.json", "preprocessor.json"} & set(files.documents):
                arguments.setdefault("preprocessor", None)  # keras_hub would look for its files
            if size in arguments:
                arguments = {**dict.fromkeys(cls.of_head), **arguments}
            with leaving_head(size in arguments):
                model = super(SSMTask, cls).from_preset(str(files.directory), **arguments)
            if not model.compiled and arguments.get("compile", True):
                model.compile()
            return model

        return load(cls, build, preset, revision, load_weights, check_sample, step_scale, **kwargs)

    def save_to_preset(
        self,
        preset_dir: PathLike,
        max_shard_size: float = 10,
        info: dict | None = None,
        weights_dtype: str | None = None,
    ) -> None:
        """Saves the model as a preset, with a `preset.json` that vouches for its files.

        Args:
            preset_dir: str or `Path`. Written whole or not at all: at every moment the old
                preset or the new one loads. Files that are no part of a preset stay.
            max_shard_size: float. Largest weights file, in GB. Defaults to `10`.
            info: dict or `None`. Facts for `preset.json` and the model card: `name`, `data`,
                `licences`, `scores`, and the rest of what `keras_ssm.hub.card` reads.
            weights_dtype: str or `None`. `"float16"` halves the files: the model that loads
                computes as before, with weights of three digits. Defaults to `None`.

        Raises:
            ValueError: if `preset_dir` is a file or lies in a cache of the Hub, or a weight is
                not finite or beyond `weights_dtype`.
        """
        check_finite(self)
        rounded = rounded_weights(self, weights_dtype)
        with presets.writing(preset_dir) as directory, merged(), rounded:
            super().save_to_preset(str(directory), max_shard_size=max_shard_size)
            write_halved(directory, weights_dtype)
            facts = {**self.backbone.facts(), "task": type(self).__name__}
            if self.pipeline_tag is not None:
                facts["pipeline_tag"] = self.pipeline_tag
            facts |= {**self.task_facts(), **(info or {})}
            facts["parameters"] = self.count_params()
            if not self.has_task_weights():
                facts["task_weights"] = False
            presets.describe(directory, {**facts, "sample": self.record_sample()})

    def task_facts(self):
        """What `preset.json` says of the task."""
        return {}

    # Adaptation

    def enable_lora(self, rank: int, target_layer_names: list[str] | None = None) -> None:
        """Adds low-rank updates to the backbone's projections; only these and the head train.

        The model is compiled anew with the same settings, since other weights train.

        Args:
            rank: int. Rank of the updates.
            target_layer_names: list of str or `None`. Names of the layers to adapt. Defaults
                to `["input_dense", "output_dense"]`.

        A `.keras` file keeps the updates apart, as `copy.deepcopy`, `pickle` and `clone_model` do:
        what is loaded trains on. Presets and files of weights hold them merged: what is loaded
        from these trains as a whole. `save_lora_weights` saves the updates and the head alone.

        Raises:
            ValueError: for a rank below 1, layers that are not there, or a second time.

        Reference:
            [LoRA](https://arxiv.org/abs/2106.09685), equation 3.
        """
        self.backbone.enable_lora(rank, target_layer_names)
        self._compile_anew()

    def quantize(self, mode: str | None = None, config=None, **kwargs) -> None:
        """Quantizes the projections and the head; the systems stay float32.

        The model is compiled anew with the same settings, since other weights train.

        Args:
            mode: str. `"int8"`, `"int4"` or `"float8"`.
            config: see `keras.Model.quantize`.
            **kwargs: see `keras.Model.quantize`.
        """
        with warnings.catch_warnings():
            # One warning for each layer without a kernel: norms, dropouts, inputs.
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            super().quantize(mode, config=config, **kwargs)
        self._compile_anew()

    def _compile_anew(self):
        """Compiles with the same settings and a new optimizer, when other weights train."""
        self.track_weights()
        if self.compiled:
            optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
            self._compile_alike(optimizer=optimizer)
            optimizer.build(self.trainable_variables)


def _check_head(documents, cls, preset, arguments):
    """Raises a `ValueError` for a preset whose head is of another task: a new one knows nothing."""
    saved = documents.get("task.json", {}).get("registered_name")
    saved = keras.saving.get_registered_object(saved) if isinstance(saved, str) else None
    is_task = inspect.isclass(saved)
    if is_task and issubclass(saved, cls):
        return
    kind = f"a {saved.__name__}" if is_task else "a backbone"
    received = f"Received: a preset of {kind}, with {', '.join(arguments) or 'no arguments'}"
    if cls.head_size is not None:
        raise ValueError(
            f"Preset '{preset}' holds no head of a {cls.__name__}: pass `{cls.head_size}`, which "
            f"makes one, or load it with `SSMBackbone.from_preset`. {received}"
        )
    # A backbone alone may hold all that a language model needs, its embeddings.
    if is_task and not issubclass(cls, saved):
        raise ValueError(
            f"Preset '{preset}' holds {kind}, which was not trained as a {cls.__name__}: "
            f"`{cls.__name__}(SSMBackbone.from_preset(...))` makes one that is to be trained. "
            f"{received}"
        )


def _portable(config):
    """Names optimizers as every backend does: PyTorch's own modules load nowhere else."""
    if isinstance(config, (list, tuple)):
        return type(config)(_portable(value) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: _portable(value) for key, value in config.items()}
    if is_torch_optimizer(str(config.get("module", ""))):
        config["module"], config["registered_name"] = "keras.optimizers", None
    return config
