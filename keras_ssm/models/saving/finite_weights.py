import keras


def check_finite(model: keras.Model) -> None:
    """Raises a `ValueError` if a weight is NaN or infinite: such a preset would not load."""
    for variable in model.variables:
        finite = "float" not in variable.dtype or keras.ops.all(keras.ops.isfinite(variable))
        if not finite:
            raise ValueError(
                "The weights of a preset must be finite; after training that diverged, load those "
                f"from before. Received: NaN or infinity in '{variable.path}'"
            )
