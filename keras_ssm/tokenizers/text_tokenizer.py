from typing import Self

import keras
import numpy as np
from keras_hub.tokenizers import Tokenizer

from keras_ssm.attributes import Attributes
from keras_ssm.keras_internals import brief_errors
from keras_ssm.models.saving.preset_loading import opened
from keras_ssm.models.trainer.finite_inputs import is_tensorflow
from keras_ssm.tokenizers.nested import is_row, is_text, map_leaves, plain
from keras_ssm.types import PathLike

TOKENIZER_FILE = "tokenizer.json"


class TextTokenizer(Attributes, Tokenizer):
    """Base class of the tokenizers: texts of every kind to token ids and back.

    It runs in Python, on every backend and without TensorFlow, and within `tf.data`, where
    TensorFlow calls it back.

    A derived class has `encode_texts` and `decode_rows`, which work on lists, `count_bytes`,
    `token_to_id`, `id_to_token`, `get_vocabulary`, `vocabulary_size` and `special_token_ids`, and
    the attributes `start_token_id`, `end_token_id` and `pad_token_id`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: str or bytes, a list of them of any depth, an array or tensor of strings.
    """

    def tokenize(self, inputs: object) -> list:
        """Returns the token ids of texts.

        Args:
            inputs: str or bytes, a list of them of any depth, an array or tensor of strings.

        Returns:
            List of ints for one text, otherwise lists of such lists; within `tf.data` a tensor,
            or a ragged tensor.

        Raises:
            ValueError: for what is no text.
        """
        if _is_symbolic(inputs):
            return self._tokenize_in_graph(inputs)
        return map_leaves(self._encode, plain(inputs), is_text)

    def detokenize(self, inputs: object) -> str | list:
        """Returns the texts of token ids; special tokens have none.

        Args:
            inputs: list of ints or integer array, a list of such rows of any depth, a tensor.

        Returns:
            Str for one row, otherwise lists of str; within `tf.data` a tensor of strings.

        Raises:
            ValueError: for what is no token id of this tokenizer.
        """
        if _is_symbolic(inputs):
            return self._detokenize_in_graph(inputs)
        return map_leaves(self._decode, plain(inputs), is_row)

    def call(self, inputs, *args, training=None, **kwargs):
        with brief_errors():
            return self.tokenize(inputs, *args, **kwargs)

    def encode_texts(self, texts: list) -> list[list[int]]:
        """Returns the ids of each of a list of str and bytes."""
        raise NotImplementedError

    def decode_rows(self, rows: list[list[int]]) -> list[str]:
        """Returns the text of each of a list of rows of valid ids."""
        raise NotImplementedError

    def count_bytes(self, ids: list[int]) -> int:
        """Returns how many bytes of UTF-8 a row of ids stands for; special tokens have none.

        A token may be a part of a character, whose text alone would not tell.
        """
        raise NotImplementedError

    @classmethod
    def from_preset(cls, preset: PathLike, revision: str | None = None, **kwargs) -> Self:
        """Loads the tokenizer of a preset, verified as `SSMClassifier.from_preset` does.

        Args:
            preset: str or `Path`. A built-in name, a directory, or `hf://organisation/name`.
            revision: str or `None`. Branch, tag or commit of a preset on the Hub.
            **kwargs: Arguments that override the saved configuration.

        Raises:
            ValueError: if there is no such preset, it holds no such tokenizer, or it is
                incomplete or altered.
        """
        with opened(preset, revision) as files:
            saved = files.documents.get(TOKENIZER_FILE)
            if saved is None:
                raise ValueError(
                    f"Preset '{preset}' holds no tokenizer. "
                    f"Received: files {sorted(files.documents)}"
                )
            tokenizer = keras.saving.deserialize_keras_object(
                {**saved, "config": {**saved["config"], **kwargs}}
            )
            if not isinstance(tokenizer, cls):
                raise ValueError(
                    f"Preset '{preset}' must hold a {cls.__name__}. "
                    f"Received: a {type(tokenizer).__name__}"
                )
            tokenizer.load_preset_assets(str(files.directory))
            return tokenizer

    def save_assets(self, dir_path: PathLike) -> None:
        """Writes the files of the tokenizer into a directory."""

    def load_assets(self, dir_path: PathLike) -> None:
        """Reads the files of the tokenizer from a directory."""

    def load_preset_assets(self, preset):
        if self.file_assets:
            super().load_preset_assets(preset)

    def _encode(self, texts):
        for text in texts:
            if not is_text(text):
                raise ValueError(
                    f"Texts must be str or bytes. Received: {text!r} of type {type(text).__name__}"
                )
        return self.encode_texts(texts)

    def _decode(self, rows):
        size = self.vocabulary_size()
        for row in rows:
            ids = np.asarray(row)
            wrong = ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu")
            if wrong or (ids.size and not 0 <= ids.min() <= ids.max() < size):
                raise ValueError(
                    f"Token ids must be integers from 0 to {size - 1}, in rows. Received: {row!r}"
                )
        return self.decode_rows(rows)

    def _tokenize_in_graph(self, texts):
        import tensorflow as tf

        if texts.dtype != tf.string:
            raise ValueError(f"Texts must be strings. Received: inputs.dtype={texts.dtype.name}")
        ragged = isinstance(texts, tf.RaggedTensor)
        if not ragged and texts.shape.rank not in (0, 1):
            raise ValueError(
                "Within `tf.data` texts are one string, or a batch of shape (batch,). "
                f"Received: inputs.shape={texts.shape}"
            )

        @tf.autograph.experimental.do_not_convert
        def encode(flat):
            rows = [np.asarray(row, "int32") for row in self._encode(flat.tolist())]
            lengths = np.array([len(row) for row in rows], "int64")
            return np.concatenate([np.zeros(0, "int32"), *rows]), lengths

        flat = tf.reshape(texts.flat_values if ragged else texts, [-1])
        ids, lengths = tf.numpy_function(encode, [flat], [tf.int32, tf.int64])
        ids.set_shape([None])
        if not ragged and texts.shape.rank == 0:
            return ids
        lengths.set_shape([None])
        rows = tf.RaggedTensor.from_row_lengths(ids, lengths, validate=False)
        return texts.with_flat_values(rows) if ragged else rows

    def _detokenize_in_graph(self, ids):
        import tensorflow as tf

        ragged = isinstance(ids, tf.RaggedTensor)
        if ids.shape.rank not in (1, 2):
            raise ValueError(
                "Within `tf.data` token ids are one row, or a batch of rows. "
                f"Received: inputs.shape={ids.shape}"
            )

        @tf.autograph.experimental.do_not_convert
        def decode(flat, lengths):
            rows = np.split(flat, np.cumsum(lengths)[:-1])
            texts = self._decode([row.tolist() for row in rows])
            return np.array([text.encode("utf-8", "surrogateescape") for text in texts], object)

        rows = ids if ragged else tf.RaggedTensor.from_tensor(tf.reshape(ids, [-1, _width(ids)]))
        parts = [rows.flat_values, rows.row_lengths()]
        texts = tf.numpy_function(decode, parts, tf.string)
        texts.set_shape([None])
        return texts if ids.shape.rank == 2 else texts[0]


def _width(ids):
    import tensorflow as tf

    return tf.shape(ids)[-1]


def _is_symbolic(inputs):
    """Whether the inputs are tensors of a graph of TensorFlow, such as `tf.data` traces."""
    if not is_tensorflow(inputs):
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()
