"""Optimizers that treat the parameters of a state-space model apart."""

import keras

# Weights that place the poles and weigh the inputs: a small rate and no decay.
SYSTEM_WEIGHTS = (
    "log_dt",
    "inv_dt",
    "log_A_real",
    "A_real",
    "log_A_imag",
    "A_imag",
    "B_real",
    "B_imag",
    "P_real",
    "P_imag",
    "Lambda_real",
    "Lambda_imag",
)

UNDECAYED_WEIGHTS = ("bias", "gamma", "beta")


def ssm_optimizer(learning_rate=1e-2, ssm_learning_rate=1e-3, weight_decay=0.05, **kwargs):
    """Returns AdamW with a rate of its own, and no decay, for dt, A, B, P and Lambda.

    These parameters move the poles of the system, and training is unstable when they move
    at the rate of the rest, or decay. C, D, projections and embeddings follow `learning_rate`
    and `weight_decay`; biases and norms do not decay. Default of `compile()` of the task models.

    Args:
        learning_rate: float or schedule. Rate of all other weights. Defaults to `1e-2`.
        ssm_learning_rate: float or schedule. Rate of the system's weights; `None` for
            `learning_rate`. Defaults to `1e-3`.
        weight_decay: float. Decoupled decay of the other weights. Defaults to `0.05`.
        **kwargs: Further arguments of both optimizers, such as `clipnorm`.

    Returns:
        A `keras.optimizers.MultiOptimizer`.

    Example:
        ```python
        model.compile(ssm_optimizer(learning_rate=4e-3), loss="mse")
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), appendix B (training).
    """
    if ssm_learning_rate is None:
        ssm_learning_rate = learning_rate
    rest = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **kwargs)
    groups = keras.optimizers.OptimizerMap(default_optimizer=rest)
    groups[_named(SYSTEM_WEIGHTS)] = keras.optimizers.Adam(ssm_learning_rate, **kwargs)
    # A group, since `exclude_from_weight_decay` is not saved with an optimizer.
    groups[_named(UNDECAYED_WEIGHTS)] = keras.optimizers.Adam(learning_rate, **kwargs)
    return keras.optimizers.MultiOptimizer(groups)


def _named(names):
    """A pattern of variable paths that end in one of the names."""
    return rf"(.*/)?({'|'.join(names)})"
