import keras
import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.models.scaled_preprocessor import ScaledPreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.trainer.finite_inputs import is_tensorflow
from keras_ssm.models.trainer.targets import to_numpy

FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0, "bool": 1.0}


@keras.saving.register_keras_serializable(package="keras_ssm")
class ImagePreprocessor(ScaledPreprocessor):
    """Turns images or videos into the inputs of a model.

    Arrays, and lists of images of different sizes, become a dict of a padded float array and its
    `padding_mask`. It works on NumPy data and on `tf.data`.

    Args:
        scale: float or `None`. Factor on the pixels. Defaults to `None`: the full range of uint8,
            uint16 and bool pixels becomes 0 to 1, floats stay as they are, and other integers,
            whose range is not known, are refused.
        allow_nan: bool. Whether NaN marks missing pixels, which are read as zero. Defaults to
            `False`: `fit` and `evaluate` refuse NaN outside of padding.
        axes: int. Axes between batch and features: 2 for images, 3 for videos. Defaults to `2`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: array `(batch, height, width, features)`, or `(batch, height, width)` for grey images;
            a list of arrays of one image each, which are padded below and on the right; or a dict
            of `inputs` and, optionally, `padding_mask` `(batch, height, width)`, True where valid.
            Videos have a further axis before the height.
        y, sample_weight: passed through.

    Returns:
        Dict of `inputs` and `padding_mask`, packed with `y` and `sample_weight` if given.

    Raises:
        ValueError: for images without pixels or of unlike feature counts, integers of unknown
            range, or a `padding_mask` of another shape.

    Example:
        ```python
        preprocessor = keras_ssm.models.ImagePreprocessor()
        images = [np.zeros((28, 28), "uint8"), np.zeros((14, 20), "uint8")]
        batch = preprocessor(images)  # inputs (2, 28, 28, 1), padding_mask (2, 28, 28)
        ```
    """

    backbone_cls = SSMBackbone
    settable = ("scale", "allow_nan")
    scale_can_be_none = True

    def __init__(
        self, scale: float | None = None, allow_nan: bool = False, axes: int = 2, **kwargs
    ):
        super().__init__(**kwargs)
        (self.axes,) = check_positive(axes=axes)
        self.scale = scale
        self.allow_nan = allow_nan
        self.built = True

    def get_config(self):
        return {**super().get_config(), "axes": self.axes}

    def _inputs(self, x):
        mask = None
        if isinstance(x, dict):
            if "inputs" not in x or set(x) - {"inputs", "padding_mask"}:
                raise ValueError(
                    "`x` must be an array, a list or a dict with 'inputs' and, optionally, "
                    f"'padding_mask'. Received: keys {sorted(x)}"
                )
            x, mask = x["inputs"], x.get("padding_mask")
        convert = self._from_tensorflow if is_tensorflow(x) else self._from_numpy
        x, valid = convert(x)
        if mask is not None:
            mask = mask if is_tensorflow(mask) else to_numpy(mask).astype(bool)
            if len(mask.shape) != len(valid.shape) or (
                isinstance(valid, np.ndarray) and mask.shape != valid.shape
            ):
                raise ValueError(
                    f"`padding_mask` must have the shape of the images, {tuple(valid.shape)}. "
                    f"Received: padding_mask.shape={tuple(mask.shape)}"
                )
            valid = valid & mask
        return {"inputs": x, "padding_mask": valid}

    def _from_numpy(self, x):
        if not isinstance(x, (list, tuple)):
            x = to_numpy(x)
            if x.dtype.kind == "O":
                x = list(x)
        if not isinstance(x, (list, tuple)):
            pixels = self._values(self._with_features(x, self.axes + 1))
            return pixels, np.ones(pixels.shape[:-1], bool)
        images = [self._values(self._with_features(to_numpy(one), self.axes)) for one in x]
        if not images:
            raise ValueError("`x` must hold at least one image. Received: an empty list")
        features = {one.shape[-1] for one in images}
        if len(features) > 1:
            raise ValueError(
                "All images of `x` must have the same features, such as three colours. "
                f"Received: {sorted(features)} features"
            )
        sizes = np.max([one.shape[:-1] for one in images], axis=0)
        pixels = np.zeros((len(images), *sizes, *features), images[0].dtype)
        valid = np.zeros((len(images), *sizes), bool)
        for i, one in enumerate(images):
            place = (i, *(slice(0, n) for n in one.shape[:-1]))
            pixels[place], valid[place] = one, True
        return pixels, valid

    def _with_features(self, x, rank):
        """Pixels `(*sizes, features)`, of `rank` sizes."""
        x = x[..., None] if len(x.shape) == rank else x
        if len(x.shape) != rank + 1 or 0 in x.shape:
            names = ["batch"] * (rank > self.axes) + ["time"] * (self.axes == 3)
            names += ["height", "width"] if self.axes in (2, 3) else [f"{self.axes} sizes"]
            raise ValueError(
                f"`x` must have shape ({', '.join(names)}) or ({', '.join(names)}, features) with "
                f"at least one pixel. Received: shape {tuple(x.shape)}"
            )
        return x

    def _values(self, x):
        """Pixels as floats."""
        if x.dtype.kind not in "fiub":
            raise ValueError(f"`x` must be real numbers. Received: x.dtype={x.dtype}")
        factor = self._factor(x.dtype.name, x.dtype.kind == "f")
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        with np.errstate(over="ignore", invalid="ignore"):  # padding may overflow
            x = x.astype(dtype)
            x = x if factor is None else x * np.asarray(factor, dtype)
        return np.where(np.isnan(x), np.asarray(0, dtype), x) if self.allow_nan else x

    def _factor(self, dtype, is_float):
        """What pixels of a dtype are multiplied by, or `None`."""
        if self.scale is not None:
            return self.scale
        if is_float:
            return None
        if dtype not in FULL_SCALES:
            raise ValueError(
                "Pixels must be floats, or uint8, uint16 or bool, which tell their full range; a "
                f"`scale` is the factor for others. Received: dtype {dtype}"
            )
        return 1.0 / FULL_SCALES[dtype]

    def _from_tensorflow(self, x):
        import tensorflow as tf

        if isinstance(x, tf.RaggedTensor):
            raise ValueError(
                "Ragged tensors are not read: pass a list of images, or padded ones with their "
                f"`padding_mask`. Received: shape {x.shape}"
            )
        x = self._with_features(x, self.axes + 1)
        if x.dtype.is_complex or x.dtype == tf.string:
            raise ValueError(f"`x` must be real numbers. Received: x.dtype={x.dtype.name}")
        factor = self._factor(x.dtype.name, x.dtype.is_floating)
        x = tf.cast(x, "float64" if keras.config.floatx() == "float64" else "float32")
        x = x if factor is None else x * tf.cast(factor, x.dtype)
        if self.allow_nan:
            x = tf.where(tf.math.is_nan(x), tf.zeros_like(x), x)
        return x, tf.ones(tf.shape(x)[:-1], tf.bool)
