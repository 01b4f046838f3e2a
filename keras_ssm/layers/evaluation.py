"""Settings of how a layer evaluates a sequence. They can be set until they are compiled in."""

from keras import ops

from keras_ssm.checks import check_choice, check_positive
from keras_ssm.keras_internals import called_by_model
from keras_ssm.ops import backend, exporting

METHODS = ("auto", "chunked", "fft", "recurrent")


class Evaluation:
    """`method` and `chunk_size` of a layer, which change its speed and not its outputs.

    Both can be set until a model that holds the layer is compiled, in its first `fit` or `predict`.
    The compiled program would keep the old ones.
    """

    settable = ("method", "chunk_size")
    methods = METHODS
    _in_program = False

    @property
    def method(self):
        """`"auto"`, `"chunked"`, `"fft"` or `"recurrent"`."""
        return self._method

    @method.setter
    def method(self, value):
        self.check_method(value)
        self._check_no_program("method", value)
        self._method = value

    @property
    def chunk_size(self):
        """Steps in a chunk of the chunked evaluation, or `None`."""
        return self._chunk_size

    @chunk_size.setter
    def chunk_size(self, value):
        if value is not None:
            check_positive(chunk_size=value)
        self._check_no_program("chunk_size", value)
        self._chunk_size = value

    def check_method(self, method):
        """Raises a `ValueError` unless the layer has this evaluation."""
        check_choice("method", method, self.methods)
        if self.bidirectional and method == "recurrent":
            raise ValueError(
                "A bidirectional layer has no recurrent evaluation. "
                f"Received: method={method!r}, bidirectional={self.bidirectional}"
            )

    def run(self, x, *args, **kwargs):
        if not (self._in_program or exporting.is_exporting()) and called_by_model(self):
            self._in_program = backend.static_value(ops.cast(x[:0], "float32")) is None
        return super().run(x, *args, **kwargs)

    def _check_no_program(self, name, value):
        if self._in_program:
            raise AttributeError(
                f"`{name}` of {self.name} is part of a model that was compiled, which would go "
                f"on with the old one: make another model. Received: {name}={value!r}"
            )
