"""ONNX files from PyTorch, by its exporter that reads programs rather than one run."""

import warnings


def export_onnx(model, filepath, signature, verbose=None, opset_version=None):
    """Writes an ONNX file in which unknown batches and lengths are free.

    Keras takes the older exporter of PyTorch where a size is unknown, which lacks operations that
    these models have, and would fix the length to that of one example.

    Args:
        model: backbone or task, within `keras_ssm.ops.exporting.exporting`.
        filepath: str.
        signature: dict of `keras.InputSpec`, or one of them.
        verbose: bool or `None`. Whether PyTorch says what it does.
        opset_version: int or `None`. Version of ONNX' operations.

    Raises:
        ValueError: without the packages of an export, and where a part cannot be written.
    """
    import torch

    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "An ONNX file of PyTorch is written by the packages onnx and onnxscript: "
            f"`pip install onnx onnxscript`. Received: {error}"
        ) from None

    def example(spec):
        # PyTorch would fix a size of 1, even that of a number of chunks that depends on the length.
        shape = [size or examples for size, examples in zip(spec.shape, (2, 150, 12), strict=False)]
        shape += list(spec.shape[len(shape) :])
        return torch.ones(shape, dtype=getattr(torch, spec.dtype), device=device)

    def free(spec):
        return {i: torch.export.Dim.AUTO for i, size in enumerate(spec.shape) if size is None}

    device = model.variables[0].value.device
    single = not isinstance(signature, dict)
    names = [signature.name or model.input_key] if single else list(signature)
    specs = [signature] if single else list(signature.values())
    program = _positional(model, signature).eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(
                program,
                tuple(map(example, specs)),
                dynamo=True,
                dynamic_shapes=(tuple(map(free, specs)),),
                input_names=names,
                opset_version=opset_version,
                verbose=bool(verbose),
            )
    except Exception as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"{model.name} could not be written as ONNX. An `input_signature` of known sizes "
            f"may help. Received: {type(cause).__name__}: {cause}"
        ) from error
    written.save(filepath)


def _positional(model, signature):
    """The model as a module that takes its inputs one by one, as ONNX has them."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            if isinstance(signature, dict):
                inputs = (dict(zip(signature, inputs, strict=True)),)
            return self.model(*inputs)

    return Positional()
