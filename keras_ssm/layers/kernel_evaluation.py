from keras_ssm.layers.evaluation import Evaluation
from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known, loops_allowed


class KernelEvaluation(Evaluation):
    """How a layer that holds a long kernel evaluates a sequence."""

    methods = ("auto", "fft", "direct", "recurrent")

    @property
    def chunk_size(self):
        """`None`: the sequence is not read in chunks."""
        return None

    @chunk_size.setter
    def chunk_size(self, value):
        if value is not None:
            raise ValueError(
                f"A {type(self).__name__} does not read in chunks. Received: chunk_size={value!r}"
            )

    def chosen_method(self, length: int | None) -> str:
        """Returns the evaluation of a sequence of `length` steps, a size of a shape."""
        unknown = known(length) is None and not backend.transforms_unknown_lengths()
        if unknown or not loops_allowed():
            return "direct"
        return "fft" if self.method == "auto" else self.method
