"""Configurations of published models: each field is read, known as harmless, or refused."""

import math
from typing import NamedTuple

from keras_ssm.layers import Hyena, Mamba, Mamba2

MIXERS = {"mamba": Mamba, "mamba2": Mamba2, "hyena": Hyena}

UNSET = object()

# Fields that all models of transformers have. None of them changes what a model computes.
TRANSFORMERS = (
    *("model_type", "architectures", "transformers_version", "torch_dtype", "dtype"),
    *("_name_or_path", "name_or_path", "_attn_implementation_autoset", "attn_implementation"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
    *("tokenizer_class", "prefix", "_from_model_config", "use_cache", "initializer_range"),
    *("return_dict", "output_hidden_states", "output_attentions", "torchscript", "use_bfloat16"),
    *("tf_legacy_loss", "pruned_heads", "tie_encoder_decoder", "is_encoder_decoder", "is_decoder"),
    *("cross_attention_hidden_size", "add_cross_attention", "chunk_size_feed_forward"),
    *("finetuning_task", "id2label", "label2id", "task_specific_params", "problem_type"),
    # Settings of generation, from before these had a file of their own.
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty"),
    *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
    *("num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id"),
    *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens"),
)


class PublishedSpec(NamedTuple):
    """A published language model, before it is built.

    Fields:
        kind: str. Key of `MIXERS`.
        mixer: dict. Arguments of the mixer.
        backbone: dict. Arguments of `SSMBackbone` but for the mixer.
        tie_embeddings: bool.
        rows: dict. Settings for the report; see `Report`.
        remarks: list of str. What a person should know.
    """

    kind: str
    mixer: dict
    backbone: dict
    tie_embeddings: bool
    rows: dict
    remarks: list

    def make_mixer(self):
        """The layer to stack, unbuilt."""
        return MIXERS[self.kind](**self.mixer)


class Fields:
    """The fields of a configuration, and which of them were read.

    Args:
        config: dict.
        source: str. What messages call it.

    Attributes:
        rows: dict of our names to `(value, origin, in_file)`; see `Report`.
    """

    def __init__(self, config: dict, source: str):
        self.config, self.source, self.rows, self._read = config, source, {}, set()

    def take(self, name, default, check, keras_name=None):
        """The value of a field, or the default of the published class.

        Args:
            name: str. The published name.
            default: what an absent field means, or `UNSET`: it must be there.
            check: callable. Whether a value is one; its docstring says what it must be.
            keras_name: str or `None`. Name of our argument, for the report.
        """
        self._read.add(name)
        value = self.config.get(name, default)
        if value is UNSET or (name in self.config and not check(value)):
            received = f"no {name}" if value is UNSET else f"{name}={value!r}"
            raise ValueError(
                f"`{name}` in {self.source} must be {check.__doc__}. Received: {received}"
            )
        if keras_name is not None:
            # An absent field means the default of the published class.
            self.rows[keras_name] = value, "file" if name in self.config else "default", True
        return value

    def require(self, name, allowed, why):
        """Raises a `ValueError` unless a field is absent or has one of the values."""
        self._read.add(name)
        if name in self.config and self.config[name] not in allowed:
            raise ValueError(
                f"`{name}` in {self.source} has no counterpart here: {why}. "
                f"Received: {name}={self.config[name]!r}"
            )

    def check_all_read(self, harmless):
        """Raises a `ValueError` for fields that are neither read nor known to change no number."""
        unknown = sorted(set(self.config) - self._read - set(harmless))
        if unknown:
            named = ", ".join(f"{name}={str(self.config[name])[:60]!r}" for name in unknown[:8])
            raise ValueError(
                f"Every field of {self.source} must be known, since it might change what the model "
                f"computes. Received: {named}"
            )


def flag(value):
    """true or false"""
    return isinstance(value, bool)


def count(value):
    """a positive integer"""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def count_or_zero(value):
    """an integer of at least 0"""
    return (value == 0 and not isinstance(value, bool)) or count(value)


def number(value):
    """a positive number"""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value) and value > 0


def names(value):
    """an object"""
    return isinstance(value, dict)
