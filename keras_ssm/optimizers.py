"""Optimizers that treat the parameters of a state-space model apart."""

import keras
from keras import ops

UNDECAYED_WEIGHTS = ("bias", "gamma", "beta", "scale")


def ssm_optimizer(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-2,
    ssm_learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = 1e-3,
    weight_decay: float = 0.05,
    **kwargs,
) -> keras.optimizers.MultiOptimizer:
    """Returns AdamW with a rate of its own, and no decay, for dt, A, B, P and Lambda.

    These parameters move the poles of the system, and training is unstable when they move
    at the rate of the rest, or decay. C, D, projections and embeddings follow `learning_rate`
    and `weight_decay`; biases and norms do not decay. Default of `compile()` of the task models.
    Each mixer names its slow weights in `slow_weights`.

    Args:
        learning_rate: float or schedule. Rate of all other weights. Defaults to `1e-2`.
        ssm_learning_rate: float or schedule. Rate of the system's weights; `None` for
            `learning_rate`. Defaults to `1e-3`.
        weight_decay: float. Decoupled decay of the other weights. Defaults to `0.05`.
        **kwargs: Further arguments of the optimizers, such as `clipnorm`. A `global_clipnorm` is
            that of all gradients together.

    Returns:
        A `keras.optimizers.MultiOptimizer`.

    Raises:
        ValueError: for `global_clipnorm` with `gradient_accumulation_steps`.

    Example:
        ```python
        model.compile(ssm_optimizer(learning_rate=4e-3), loss="mse")
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), appendix B (training).
    """
    norm = kwargs.pop("global_clipnorm", None)
    steps = kwargs.get("gradient_accumulation_steps")
    if norm is not None and steps is not None:
        raise ValueError(
            "`global_clipnorm` does not go with `gradient_accumulation_steps`: each group of "
            "weights accumulates by itself, and no norm of all is known when they are applied. "
            f"`clipnorm` does. Received: global_clipnorm={norm}, "
            f"gradient_accumulation_steps={steps}"
        )
    if norm is not None:
        keras.optimizers.Adam(global_clipnorm=norm, **kwargs)  # checks that it clips one way
    if ssm_learning_rate is None:
        ssm_learning_rate = learning_rate
    rest = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **kwargs)
    groups = WeightGroups(default_optimizer=rest)
    groups["slow"] = keras.optimizers.Adam(ssm_learning_rate, **kwargs)
    # A group, since `exclude_from_weight_decay` is not saved with an optimizer.
    groups["undecayed"] = keras.optimizers.Adam(learning_rate, **kwargs)
    if norm is None:
        return keras.optimizers.MultiOptimizer(groups)
    return ClippedTogether(groups, global_clipnorm=norm)


@keras.saving.register_keras_serializable(package="keras_ssm")
class WeightGroups(keras.optimizers.OptimizerMap):
    """The optimizers of `ssm_optimizer`: `"slow"`, `"undecayed"` and that of all other weights.

    A mixer names its own weights of the first two in `slow_weights` and `undecayed_weights`.
    """

    def __call__(self, variable):
        group = getattr(variable, "optimizer_group", None)
        if group is None and variable.name in UNDECAYED_WEIGHTS:
            group = "undecayed"
        return self.default_optimizer if group is None else self[group]


@keras.saving.register_keras_serializable(package="keras_ssm")
class ClippedTogether(keras.optimizers.MultiOptimizer):
    """A `keras.optimizers.MultiOptimizer` that clips the norm of all gradients together.

    Args:
        optimizer_map: see `keras.optimizers.MultiOptimizer`.
        global_clipnorm: float. Largest norm of all gradients, as one vector.
        **kwargs: Arguments of `keras.optimizers.MultiOptimizer`.
    """

    def __init__(
        self, optimizer_map: keras.optimizers.OptimizerMap, global_clipnorm: float, **kwargs
    ):
        super().__init__(optimizer_map, **kwargs)
        self.global_clipnorm = global_clipnorm

    def apply(self, grads, trainable_variables=None):
        scale = self.loss_scale_factor
        if scale is None:
            grads = self._clip_gradients(list(grads))
        else:  # the optimizers of the groups take it out again
            # By `keras.ops`, since gradients of an embedding are sparse on TensorFlow.
            grads = [g if g is None else ops.divide(g, scale) for g in grads]
            grads = self._clip_gradients(grads)
            grads = [g if g is None else ops.multiply(g, scale) for g in grads]
        super().apply(grads, trainable_variables)

    def get_config(self):
        return {**super().get_config(), "global_clipnorm": self.global_clipnorm}
