"""What a backend writes when it exports a model, as `default.py` has the rest."""


def takes_erfc():
    """Whether Keras writes the exact GELU in terms of erfc."""
    return True


def exports_erf():
    """Whether the readers of exported programs know erf."""
    return True


def exports_unknown_lengths():
    """Whether an exported program may read sequences of any length."""
    return True


def exports_loops():
    """Whether an exported program may hold loops."""
    return True


def writes_saved_models():
    """Whether Keras writes a TensorFlow SavedModel."""
    return True


def keras_writes_onnx():
    """Whether Keras' own export writes these models to ONNX."""
    return True


def export_arguments(format, signature, length_axis):
    """What `keras.Model.export` has to be told for a format and a signature."""
    return {}
