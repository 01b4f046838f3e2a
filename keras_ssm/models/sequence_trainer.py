import keras
from keras import ops

from keras_ssm.models.data_trainer import DataTrainer
from keras_ssm.models.preset_loading import PresetTable


class SequenceTrainer(DataTrainer):
    """What backbone and task models share: inputs of every kind, and a trainer that recovers.

    Data may be arrays, lists, dicts, `tf.data`, a `keras.utils.PyDataset` or a generator. It is
    checked before training starts, and a call that fails leaves a model that works.
    """

    presets = PresetTable()

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(self.as_tensors(inputs), *args, **kwargs)

    def call(self, inputs, *args, **kwargs):
        # Again, since Keras also calls this directly: on JAX and when nothing is traced.
        return super().call(self.as_tensors(inputs), *args, **kwargs)

    def compute_output_shape(self, input_shape):
        if not isinstance(input_shape, dict):
            mask = tuple(input_shape if self.input_key == "token_ids" else input_shape[:-1])
            input_shape = {self.input_key: tuple(input_shape), "padding_mask": mask}
        return super().compute_output_shape(input_shape)

    def as_tensors(self, inputs):
        """Returns `standardize(inputs)` as tensors of the backend; symbolic ones stay."""
        inputs = self.standardize(inputs)
        symbolic = any(isinstance(x, keras.KerasTensor) for x in inputs.values())
        return inputs if symbolic else {k: ops.convert_to_tensor(x) for k, x in inputs.items()}

    def record_sample(self):
        """A short input and its outputs, for whoever checks a copy of the preset."""
        inputs = self.sample_inputs()
        outputs = ops.convert_to_numpy(ops.cast(self(inputs), "float32"))
        return {"inputs": inputs.tolist(), "outputs": outputs.tolist()}
