import keras
import numpy as np

from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier, SSMTask
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.training.baselines import BASELINES
from keras_ssm.training.recipe import Recipe, Splits
from keras_ssm.training.rows import Part, ShuffledRows, predict, split
from keras_ssm.training.systems import cosine, make_mixer

# Settings that the mixer and the backbone take under the same names.
MIXER_SETTINGS = ("state_dim", "bidirectional", "bandlimit", "dt_min", "dt_max", "variant")
ENCODER_SETTINGS = ("encoder_width", "encoder_stride")
BACKBONE_SETTINGS = (
    *("num_layers", "hidden_dim", "dropout", "prenorm", "norm", "final_norm", "encoder"),
    *ENCODER_SETTINGS,
)


class ClassificationRecipe(Recipe):
    """A recipe of classifiers: rows of equal or of different lengths, a label for each.

    A subclass says where the data are (`read` returns `Splits` of `Part`s), which `systems` and
    `settings` there are, and `facts`. The systems are names of `keras_ssm.training.MIXERS`, and of
    `BASELINES`, which the recipe then lists as its `baselines`. It overrides the methods that
    another model needs.

    `settings` have `epochs`, `batch_size`, `num_layers`, `hidden_dim`, `dropout`, `learning_rate`,
    `ssm_learning_rate` and `weight_decay`, and where a recipe wants them:

    - `state_dim`, `bidirectional`, `bandlimit`, `dt_min`, `dt_max`, `variant` (of `DSS`): of the
      mixer.
    - `prenorm`, `norm`, `final_norm`: of the backbone.
    - `encoder`, `encoder_width`, `encoder_stride`: of the backbone. A width and a stride of 1 go
      with every encoder: a step for each sample.
    - `pooling`: of the classifier. `"mean"` without it.
    - `warmup`: share of the steps in which the rate rises before it falls with a cosine.
    - `lengths`: to how many lengths rows of different lengths are padded.
    - `validation`: share of the training part that is held out for validation, where `read`
      returns none; all of it is learned from at 0.
    - `select`, `patience`: see `Recipe`.

    Attributes:
        classes: tuple of str. Names of the labels 0, 1, ...
        input_dim: int. Features of a sample. Defaults to `1`.
        vocabulary_size: int or `None`. For rows of token ids below it, in place of samples.
            Defaults to `None`.
        scale: float. Factor on the inputs, by the preprocessor. Defaults to `1.0`.
        pooling: str or `None`. Where no setting says it. Defaults to `"mean"`.
        of_backbone: dict. Arguments of the backbone that are no settings. Defaults to none.
        of_mixer: dict from the name of a system to arguments of its mixer that are no settings.
            Defaults to none.
        of_blocks: dict from the name of a system to arguments of the backbone that are no settings.
            Defaults to none.
    """

    classes: tuple[str, ...]
    input_dim: int = 1
    vocabulary_size: int | None = None
    scale: float = 1.0
    pooling: str | None = "mean"
    of_backbone: dict = {}
    of_mixer: dict[str, dict] = {}
    of_blocks: dict[str, dict] = {}

    def arrange(self, splits: Splits, settings: dict) -> Splits:
        share = settings.get("validation", 0.0)
        if splits.validation is not None or not share:
            return splits
        train, validation = split(splits.train, share)
        return Splits(train, validation, splits.test)

    def make_model(self, system: str, seed: int, settings: dict) -> keras.Model:
        keras.utils.set_random_seed(seed)
        if system in BASELINES:
            sizes = self.input_dim, len(self.classes)
            return BASELINES[system](*sizes, settings, self.scale, self.vocabulary_size)
        return SSMClassifier(
            self.make_backbone(system, seed, settings),
            num_classes=len(self.classes),
            preprocessor=self.make_preprocessor(settings),
            pooling=settings.get("pooling", self.pooling),
            class_names=self.classes,
        )

    def make_backbone(self, system: str, seed: int, settings: dict) -> SSMBackbone:
        """Returns the backbone of a system of `MIXERS`."""
        of_mixer = self.of_mixer.get(system, {}) | chosen(settings, MIXER_SETTINGS)
        mixer = make_mixer(system, seed=seed, **of_mixer)
        sizes = {"input_dim": self.input_dim, "vocabulary_size": self.vocabulary_size}
        arguments = {**sizes, **self.of_backbone, **self.of_blocks.get(system, {})}
        arguments |= chosen(settings, BACKBONE_SETTINGS)
        if arguments.get("encoder") != "conv":  # only that encoder has a width and a stride
            single = [name for name in ENCODER_SETTINGS if arguments.get(name) == 1]
            arguments = {name: arguments[name] for name in arguments if name not in single}
        return SSMBackbone(mixer, **arguments, augmentation=self.augmentation(seed, settings))

    def augmentation(self, seed: int, settings: dict) -> list | None:
        """Returns the layers that change the inputs in training, or `None`."""
        return None

    def make_preprocessor(self, settings: dict) -> SequencePreprocessor:
        """Returns the preprocessor of the classifier."""
        return SequencePreprocessor(tokens=self.vocabulary_size is not None, scale=self.scale)

    @property
    def input_key(self) -> str:
        """Name of the main input, `"inputs"` or `"token_ids"`."""
        return "inputs" if self.vocabulary_size is None else "token_ids"

    def training_data(self, splits: Splits, seed: int, settings: dict) -> ShuffledRows:
        lengths = settings.get("lengths", 4)
        return ShuffledRows(
            splits.train, settings["batch_size"], seed, lengths=lengths, key=self.input_key
        )

    def prepare(self, model: keras.Model, settings: dict, steps: int) -> None:
        warmup = settings.get("warmup", 0.05)
        rate = cosine(settings["learning_rate"], steps, warmup)
        decay = settings["weight_decay"]
        if isinstance(model, SSMTask):
            slow = cosine(settings["ssm_learning_rate"], steps, warmup)
            optimizer = ssm_optimizer(rate, slow, weight_decay=decay)
        else:
            optimizer = keras.optimizers.AdamW(rate, weight_decay=decay, clipnorm=1.0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])

    def logits(self, model: keras.Model, part: Part, settings: dict) -> np.ndarray:
        """Returns the logits of a model, `(rows, classes)`, as float64."""
        lengths = settings.get("lengths", 4)
        outputs = predict(model, part.x, settings["batch_size"], lengths, self.input_key)
        return outputs.astype("float64")

    def score(self, model: keras.Model, part: Part, settings: dict) -> dict[str, float]:
        logits = self.logits(model, part, settings)
        largest = logits.max(axis=1, keepdims=True)
        costs = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
        costs -= logits[np.arange(part.size), part.y]
        correct = logits.argmax(axis=1) == part.y
        return {"accuracy": float(correct.mean()), "cross-entropy": float(costs.mean())}

    def count(self, metric: str, part: Part) -> int | None:
        return part.size if metric == "accuracy" else None


def chosen(settings, names):
    """The settings with these names."""
    return {name: settings[name] for name in names if name in settings}
