"""`export` of backbone and task models to files that other programs run."""

import keras

from keras_ssm.checks import check_positive
from keras_ssm.models.saving.torch_onnx import export_onnx
from keras_ssm.ops import backend
from keras_ssm.ops.exporting import DEFAULT_LONGEST, exporting
from keras_ssm.types import PathLike

# Formats whose programs have no loops with lists, no transforms and no XLA.
WITHOUT_LOOPS = ("onnx", "openvino", "litert")


class Exports:
    """`export` with a signature in which all inputs have the same batch and length."""

    def export(
        self,
        filepath: PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: dict | keras.InputSpec | None = None,
        max_length: int = DEFAULT_LONGEST,
        **kwargs,
    ) -> None:
        """Writes the model for other programs; see `keras.Model.export` and docs/exporting.md.

        Args:
            filepath: str or `Path`.
            format: str. `"tf_saved_model"`, `"onnx"`, `"openvino"`, `"litert"` or `"torch"`.
                Defaults to `"tf_saved_model"`.
            verbose: bool or `None`. Whether to say where the file is.
            input_signature: dict of `keras.InputSpec`, one of each input that the file shall
                take, a single one of the main input (the file then takes no mask), or `None`:
                main input and `padding_mask`, of any batch and length. A size of `None` is any.
            max_length: int. Longest sequence for a file of unknown length whose program has no
                loops: its outputs are NaN beyond. Defaults to `65536`.
            **kwargs: see `keras.Model.export`.

        Raises:
            ValueError: for a signature that the model does not take, and where the backend, the
                format or the mixer needs a known batch or length and the signature has none.
        """
        check_positive(max_length=max_length)
        signature = self._signature(input_signature)
        self._check_exportable(format, signature)
        if not self._called:
            self(self.sample_inputs())
        for key, value in backend.export_arguments(format, signature, self._length_axis()).items():
            if key == "jax2tf_kwargs":
                kwargs[key] = {**value, **(kwargs.get(key) or {})}
            kwargs.setdefault(key, value)
        settings = {"format": format, "verbose": verbose, "input_signature": [signature]}
        loops = format not in WITHOUT_LOOPS and backend.exports_loops()
        try:
            with exporting(max_length, loops=loops):
                if format == "onnx" and not backend.keras_writes_onnx():
                    export_onnx(self, str(filepath), signature, verbose, **kwargs)
                else:
                    keras.Model.export(self, str(filepath), **settings, **kwargs)
        except Exception as error:
            if type(error).__name__ != "ConverterError":
                raise
            raise ValueError(
                f"{self.name} holds operations that LiteRT has not; `target_spec` may allow those "
                f"of TensorFlow. Received: {error}"
            ) from error

    def _signature(self, signature):
        """The signature as a dict of `keras.InputSpec`, or one of them, of agreeing sizes."""
        mixer = getattr(self, "backbone", self).blocks[0].mixer
        sequences = {self.input_key, "padding_mask", "timesteps", *mixer.call_arguments}
        if signature is None:
            signature = {
                name: keras.InputSpec(
                    # Inputs that are no sequences have an axis of origins of forecasts. A file
                    # has one origin.
                    shape=(None, *(x.shape[1:] if name in sequences else (1, *x.shape[2:]))),
                    dtype=x.dtype,
                    name=name,
                )
                for name, x in self.input.items()
            }
        while isinstance(signature, (list, tuple)) and len(signature) == 1:
            signature = signature[0]
        specs = signature if isinstance(signature, dict) else {self.input_key: signature}
        others = [name for name in self.input if name not in sequences]
        if self.input_key not in specs or set(specs) - sequences - set(others):
            needed = ", ".join(map(repr, [self.input_key, *others]))
            raise ValueError(
                f"`input_signature` must have {needed} and, optionally, 'padding_mask' "
                f"and 'timesteps'. Received: input_signature={signature}"
            )
        for name, spec in specs.items():
            if getattr(spec, "shape", None) is None or getattr(spec, "dtype", None) is None:
                raise ValueError(
                    "`input_signature` must hold `keras.InputSpec`s with a shape and a dtype. "
                    f"Received: {name}={spec!r}"
                )
        shapes = {name: list(spec.shape) for name, spec in specs.items()}
        axis = self._length_axis()
        for i in (0, axis):
            alike = [shape for name, shape in shapes.items() if i == 0 or name in sequences]
            sizes = {shape[i] for shape in alike if len(shape) > i} - {None}
            if len(sizes) > 1:
                raise ValueError(
                    "All inputs of `input_signature` must have the same batch and length. "
                    f"Received: shapes { {name: spec.shape for name, spec in specs.items()} }"
                )
            for shape in alike:
                if len(shape) > i:
                    shape[i] = next(iter(sizes), None)
        specs = {
            name: keras.InputSpec(
                shape=tuple(shapes[name]),
                dtype=keras.backend.standardize_dtype(spec.dtype),
                name=name,
            )
            for name, spec in specs.items()
        }
        # Refused here: the errors of a converter would hide this one.
        self.standardize({k: keras.KerasTensor(s.shape, s.dtype) for k, s in specs.items()})
        return specs if isinstance(signature, dict) else specs[self.input_key]

    def _length_axis(self):
        return len(self.input["padding_mask"].shape) - 1

    def _check_exportable(self, format, signature):
        specs = signature if isinstance(signature, dict) else {self.input_key: signature}
        sizes = specs[self.input_key].shape[1 : self._length_axis() + 1]
        length = None if None in sizes else sizes[-1]
        mixer = getattr(self, "backbone", self).blocks[0].mixer
        if format == "tf_saved_model" and not backend.writes_saved_models():
            raise ValueError(
                "A SavedModel is written on the backends TensorFlow and JAX: a preset loads "
                "there with the same weights. Received: format='tf_saved_model' on torch"
            )
        if length is None and format != "onnx" and not backend.exports_unknown_lengths():
            raise ValueError(
                f"On PyTorch `input_signature` must have a known length for {format!r}. "
                f"Received: shape {specs[self.input_key].shape}"
            )
        if not mixer.needs_transform(length):
            return
        if format in WITHOUT_LOOPS and length is not None:
            raise ValueError(
                f"A {type(mixer).__name__} with `max_kernel_length` convolves by Fourier "
                f"transforms, which {format!r} has not. Received: format={format!r}"
            )
        if format in WITHOUT_LOOPS or (length is None and not backend.transforms_unknown_lengths()):
            raise ValueError(
                f"`input_signature` must have a known length, since the kernel of this "
                f"{type(mixer).__name__} depends on it. Received: length={length}"
            )
