import keras


@keras.saving.register_keras_serializable(package="keras_ssm")
class StatefulCall(keras.layers.Layer):
    """A call of a model that returns states, as an operation of another functional model.

    Keras takes the number of outputs of a model within another from what it returns without
    states, so such a call is a layer of its own. It is made where a model is called on symbolic
    tensors with `return_state=True`. A functional model that calls the same model without states
    as well cannot be loaded from a file: Keras would save its weights once and expect them twice.

    Args:
        model: `SSMBackbone` or `SSMClassifier`. Called with `return_state=True`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Returns:
        Tuple of the outputs and the state.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.S4D(state_dim=4), num_layers=1, hidden_dim=4
        )
        x, state = keras.Input((None, 1)), keras.Input((4, 4))
        y, states = backbone(x, initial_state=[state], return_state=True)
        outer = keras.Model([x, state], [y, *states])
        ```
    """

    def __init__(self, model, **kwargs):
        super().__init__(autocast=False, **kwargs)  # states stay float32
        self.model = model
        self.built = True

    def call(self, inputs, training=None, initial_state=None):
        return self.model(inputs, training=training, initial_state=initial_state, return_state=True)

    def compute_output_spec(self, inputs, training=None, initial_state=None):
        return self.model.compute_output_spec(
            inputs, training=training, initial_state=initial_state, return_state=True
        )

    def compute_mask(self, inputs, previous_mask):
        return None

    def get_config(self):
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})
