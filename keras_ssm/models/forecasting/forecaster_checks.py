"""What the constructor of a forecaster checks."""

import numpy as np

from keras_ssm.models.ssm_backbone import SSMBackbone


def check_backbone(backbone, width):
    """Raises a `ValueError` for a backbone that cannot be the branch of a forecaster."""
    if not isinstance(backbone, SSMBackbone):
        raise ValueError(f"`backbone` must be an `SSMBackbone`. Received: {backbone!r}")
    if backbone.vocabulary_size is not None or backbone.input_dim != width:
        raise ValueError(
            f"`backbone` must read floats of input_dim={width}: a value and the covariates. "
            f"Received: input_dim={backbone.input_dim}, "
            f"vocabulary_size={backbone.vocabulary_size}"
        )
    mixer = backbone.blocks[0].mixer
    if not mixer.causal or not backbone.mask_inputs:
        raise ValueError(
            "`backbone` must be causal and leave out padding, or a forecast would know what it "
            f"forecasts. Received: a {type(mixer).__name__} with causal={mixer.causal}, "
            f"mask_inputs={backbone.mask_inputs}"
        )
    mixer.check_has_state()


def checked_quantiles(quantiles, feeds_back):
    """The quantiles as a tuple of floats, or `None`."""
    if quantiles is None:
        return None
    values = np.asarray(quantiles, "float64")
    good = values.ndim == 1 and values.size > 0 and bool(((values > 0) & (values < 1)).all())
    if good:
        good = bool((np.diff(values) > 0).all() and np.allclose(values + values[::-1], 1.0))
    if not good or 0.5 not in values:
        raise ValueError(
            "`quantiles` must increase between 0 and 1, be symmetric about 0.5 and hold it, such "
            f"as (0.05, 0.5, 0.95). Received: quantiles={quantiles!r}"
        )
    if feeds_back:
        raise ValueError(
            "A closed loop without a `decoder` feeds one number back: it has intervals from the "
            "residuals of the validation part, and no `quantiles`. "
            f"Received: quantiles={quantiles!r}"
        )
    return tuple(values.tolist())
