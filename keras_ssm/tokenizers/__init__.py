"""Tokenizers of keras_hub for language models: bytes, and any `tokenizer.json`."""

from keras_ssm.tokenizers.byte_tokenizer import ByteTokenizer
from keras_ssm.tokenizers.json_tokenizer import JSONTokenizer
from keras_ssm.tokenizers.text_tokenizer import TextTokenizer

__all__ = ["ByteTokenizer", "JSONTokenizer", "TextTokenizer"]
