import numpy as np


def is_tensorflow(x):
    """Whether x is TensorFlow's, a tensor or a dataset, whatever backend runs."""
    return type(x).__module__.startswith("tensorflow.")


def check_finite(inputs, key, mask_inputs=True):
    """Raises a `ValueError` that says where, if a model would read NaN or an infinity.

    Args:
        inputs: dict of the main input and its `padding_mask`.
        key: str. Name of the main input.
        mask_inputs: bool. Whether the model leaves out what the mask covers.
    """
    x, mask = inputs[key], inputs["padding_mask"]
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return
    finite = np.isfinite(x)
    if finite.all():
        return
    wrong = ~finite
    if mask_inputs:
        wrong &= np.asarray(mask, bool)[..., None]
    indices = np.argwhere(wrong)
    if not len(indices):
        return
    row, *steps, feature = map(int, indices[0])
    # Further axes are those of an image, or tell the sequences of a pair apart.
    where = f"row {row}, step {steps[0] if x.ndim == 3 else tuple(steps)}, feature {feature}"
    read = (
        "" if mask_inputs or mask.all() else " (this model reads padded steps: mask_inputs=False)"
    )
    raise ValueError(
        f"`{key}` must be finite where the model reads it{read}. Mark missing steps in a "
        "`padding_mask`, fill them, or read NaN as zero with a preprocessor that has "
        f"`allow_nan=True`. Received: {x[tuple(indices[0])]} at {where}, and {len(indices)} such "
        f"{'value' if len(indices) == 1 else 'values'} in all"
    )
