"""What goes into a backbone: the checks of its inputs, its encoder, and what augments them."""

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_choice, check_number, check_positive
from keras_ssm.layers.augmentation import Augmentation
from keras_ssm.layers.conv_encoder import ConvEncoder
from keras_ssm.layers.exact_layers import Dense, Embedding
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.token_dense import TokenDense
from keras_ssm.models.trainer.finite_inputs import is_tensorflow

TOKEN_ENCODERS = {"embedding": Embedding, "one_hot": TokenDense}
ENCODERS = ("auto", "linear", "conv", *TOKEN_ENCODERS, None)


def make_encoder_dropout(rate, dtype):
    """Returns what drops features of the encoded sequence, `None` for a rate of 0.

    Raises:
        ValueError: for a rate outside [0, 1).
    """
    check_number("encoder_dropout", rate)
    if not 0 <= rate < 1:
        raise ValueError(f"`encoder_dropout` must lie in [0, 1). Received: encoder_dropout={rate}")
    return keras.layers.Dropout(rate, dtype=dtype, name="encoder_dropout") if rate else None


def make_encoder(encoder, hidden_dim, vocabulary_size, input_dim, width, stride, dtype):
    """Returns the layer of an encoder, `None` for none.

    Raises:
        ValueError: for an unknown encoder, or arguments that do not go together.
    """
    check_choice("encoder", encoder, ENCODERS)
    kind = encoder
    if encoder == "auto":
        kind = "linear" if vocabulary_size is None else "embedding"
    if (kind in TOKEN_ENCODERS) != (vocabulary_size is not None):
        raise ValueError(
            "The encoders 'embedding' and 'one_hot' go with a `vocabulary_size`, the others "
            "without. "
            f"Received: encoder={encoder!r}, vocabulary_size={vocabulary_size}"
        )
    if kind is None and input_dim != hidden_dim:
        raise ValueError(
            "Without an encoder `input_dim` must equal `hidden_dim`. "
            f"Received: input_dim={input_dim}, hidden_dim={hidden_dim}"
        )
    if kind != "conv" and (width is not None or stride != 1):
        raise ValueError(
            "`encoder_width` and `encoder_stride` go with the encoder 'conv'. "
            f"Received: encoder={encoder!r}, encoder_width={width}, encoder_stride={stride}"
        )
    if kind == "conv":
        check_positive(encoder_stride=stride)
        width = 4 * stride if width is None else width
        return ConvEncoder(hidden_dim, width, stride, dtype=dtype, name="input_conv")
    if kind == "linear":
        return Dense(hidden_dim, dtype=dtype, name="input_dense")
    if kind is None:
        return None
    return TOKEN_ENCODERS[kind](vocabulary_size, hidden_dim, dtype=dtype, name="token_embedding")


def own_copies(augmentation, vocabulary_size):
    """Returns copies of the layers that augment the inputs, as a tuple.

    Raises:
        ValueError: for something else than a list of them, or with tokens.
    """
    if augmentation is None:
        return ()
    layers = [
        keras.layers.deserialize(layer) if isinstance(layer, dict) else layer
        for layer in (augmentation if isinstance(augmentation, (list, tuple)) else [augmentation])
    ]
    if not all(isinstance(layer, Augmentation) for layer in layers):
        raise ValueError(
            "`augmentation` must be a list of layers such as `RandomGain()`. "
            f"Received: augmentation={augmentation}"
        )
    if layers and vocabulary_size is not None:
        raise ValueError(
            "`augmentation` changes numbers and cannot go with a `vocabulary_size`. "
            f"Received: augmentation={augmentation}, vocabulary_size={vocabulary_size}"
        )
    return tuple(type(layer).from_config(layer.get_config()) for layer in layers)


def check_mixer(mixer, vocabulary_size, encoder, augmentation):
    """Raises a `ValueError` for no mixer, and for what one of images does not go with."""
    if not isinstance(mixer, SequenceMixer):
        raise ValueError(
            "`mixer` must be a layer that mixes sequences or images, such as "
            f"`S4D(state_dim=64)`. Received: mixer={mixer}"
        )
    if mixer.input_rank == 3:
        return
    arguments = {"vocabulary_size": vocabulary_size, "augmentation": augmentation or None}
    arguments["encoder"] = "conv" if encoder == "conv" else None
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`{name}` goes with mixers of sequences. Received: {name}={value!r} and a mixer "
                f"{type(mixer).__name__} of {mixer.input_rank - 2} axes"
            )


def named_shape(axes, *features):
    """The shape of inputs with so many axes between batch and features, for messages."""
    sizes = ["length"] if axes == 1 else [f"size_{i + 1}" for i in range(axes)]
    return f"({', '.join(['batch', *sizes, *map(str, features)])})"


def check_model_inputs(key, shape, dtype, input_dim, axes=1):
    """Raises a `ValueError` unless a model with this main input accepts such an array."""
    kind = "floats" if key == "inputs" else "integers"
    if getattr(dtype, "kind", "") in ("O", "S", "U"):  # texts, or rows of different lengths
        raise ValueError(
            f"`{key}` must be {kind}, in rows of one length: `fit` and `predict` read others, and "
            f"texts by a preprocessor. Received: {key}.dtype={dtype}"
        )
    shape, dtype = tuple(shape), keras.backend.standardize_dtype(dtype)
    expected_shape = named_shape(axes, *[input_dim] * (key == "inputs"))
    if len(shape) != axes + (2 if key == "inputs" else 1) or (
        key == "inputs" and shape[-1] not in (None, input_dim)
    ):
        raise ValueError(f"`{key}` must have shape {expected_shape}. Received: {key}.shape={shape}")
    if 0 in shape[1:]:
        raise ValueError(f"`{key}` must have at least one step. Received: {key}.shape={shape}")
    if ("int" in dtype) != (key == "token_ids") or "bool" in dtype:
        raise ValueError(f"`{key}` must be {kind}. Received: {key}.dtype={dtype}")


def full_mask(like):
    """An all-true mask of the kind of array it is given: NumPy, TensorFlow or the backend's."""
    if isinstance(like, np.ndarray):
        return np.ones(like.shape, bool)
    if is_tensorflow(like):
        import tensorflow as tf

        return tf.ones_like(like, dtype=tf.bool)
    return ops.ones_like(like, dtype="bool")
