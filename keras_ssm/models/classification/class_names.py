from collections.abc import Sequence

import numpy as np

from keras_ssm.models.trainer import targets


class ClassNames:
    """Names of the classes of a classifier: in its labels, its answers and its files.

    A classifier calls `set_class_names` in its constructor.
    """

    def set_class_names(self, class_names: Sequence[str] | None) -> None:
        """Checks the names of `num_classes` classes and keeps them."""
        self.class_names = None
        if class_names is None:
            return
        count = max(2, self.num_classes)  # one logit tells two classes apart
        alone = isinstance(class_names, str) or not hasattr(class_names, "__iter__")
        names = () if alone else tuple(class_names)
        texts = all(isinstance(name, str) and name for name in names)
        if not texts or len(names) != count or len(set(names)) != count:
            raise ValueError(
                f"`class_names` must hold a name for each of the {count} classes, each another. "
                f"Received: class_names={class_names!r}"
            )
        self.class_names = tuple(map(str, names))

    @property
    def id2label(self) -> dict[int, str]:
        """The name of each class by its number, as the Hub has them; empty without names."""
        return dict(enumerate(self.class_names or ()))

    @property
    def label2id(self) -> dict[str, int]:
        """The number of each class by its name; empty without names."""
        return {name: number for number, name in self.id2label.items()}

    def predict_classes(
        self, x: object, batch_size: int | None = None, verbose: str | int = "auto"
    ) -> np.ndarray:
        """Returns the likeliest class of each output, by name if the classes have names.

        Args:
            x: data as for `predict`.
            batch_size, verbose: as for `predict`.

        Returns:
            Array `(batch,)`, or with an output at every step `(batch, length)`: names, or numbers
            where the classes have none. Padded steps are `""`, or -1.

        Raises:
            ValueError: for logits that are NaN, of which none is the largest; and with an output at
                every step for a stream of batches, whose padding is not known here.

        Example:
            ```python
            backbone = keras_ssm.models.SSMBackbone(
                keras_ssm.layers.S4D(state_dim=4), num_layers=1, hidden_dim=4
            )
            model = keras_ssm.models.SSMClassifier(backbone, 2, class_names=["rest", "motion"])
            model.predict_classes(np.zeros((3, 20), "float32"), verbose=0)  # three names
            ```
        """
        valid = None
        if self.has_step_outputs:
            if not isinstance(x, (list, tuple, dict)) and not hasattr(x, "shape"):
                raise ValueError(
                    "`x` must be arrays, lists or a dict for classes of steps. "
                    f"Received: {type(x).__name__}"
                )
            mask = self._convert(x, purpose="predict")[0]["padding_mask"]
            valid = targets.to_numpy(self.backbone.output_mask(mask)).astype(bool)
        logits = self.predict(x, batch_size=batch_size, verbose=verbose)
        unknown = np.isnan(logits).any(axis=-1)
        unknown = unknown if valid is None else unknown & valid
        if unknown.any():
            raise ValueError(
                "`x` must give logits that are numbers. "
                f"Received: NaN for row {int(np.argwhere(unknown)[0][0])}"
            )
        classes = (logits[..., 0] > 0) if self.num_logits == 1 else logits.argmax(axis=-1)
        classes = classes.astype("int64")
        if valid is not None:
            classes = np.where(valid, classes, -1)
        # The last entry is the name of class -1.
        return classes if self.class_names is None else np.array([*self.class_names, ""])[classes]

    def preprocess(self, x: object, y: object = None, sample_weight: object = None) -> tuple:
        y = y if y is None else self.label_numbers(y)
        return super().preprocess(x, y, sample_weight)

    def label_numbers(self, y: object) -> object:
        """Labels as numbers, where they are names.

        What covers a step without a label is -1, as `predict_classes` gives it: `""`, with which
        TensorFlow pads. Symbolic tensors stay as they are.
        """
        if self.class_names is None:
            return y
        y = targets.as_arrays(y)
        if isinstance(y, (list, tuple)) and any(np.ndim(row) for row in y):
            return [self.label_numbers(row) for row in y]
        labels = y.to_numpy() if hasattr(y, "to_numpy") else y  # of pandas
        labels = np.asarray(labels) if isinstance(labels, (list, tuple)) else labels
        kind = labels.dtype.kind if isinstance(labels, np.ndarray) else ""
        if kind not in ("U", "S", "O"):
            return y
        if kind == "O":
            labels = np.frompyfunc(_text, 1, 1)(labels)
        texts = np.char.decode(labels, "utf-8") if kind == "S" else labels.astype(str)
        names, where = np.unique(texts, return_inverse=True)
        numbers = {**self.label2id, **({"": -1} if self.has_step_outputs else {})}
        unknown = [str(name) for name in names if name not in numbers]
        if unknown:
            raise ValueError(
                f"`y` must hold names of {list(self.class_names)}. Received: {unknown[0]!r}"
            )
        return np.array([numbers[name] for name in names], int)[where].reshape(labels.shape)

    def task_facts(self):
        """The entries of `preset.json` on the classes."""
        if self.class_names is None:
            return {}
        return {"id2label": {str(number): name for number, name in self.id2label.items()}}

    def get_config(self):
        names = None if self.class_names is None else list(self.class_names)
        return {**super().get_config(), "class_names": names}


def _text(name):
    """A name, which TensorFlow gives as bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)
