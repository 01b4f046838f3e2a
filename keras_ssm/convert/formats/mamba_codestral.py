"""Mamba-2 in the format of Codestral: `params.json` and `consolidated.safetensors`."""

from keras_ssm.convert.formats import mamba_original, mamba_weights
from keras_ssm.convert.formats.mamba_fields import MambaSpec
from keras_ssm.convert.formats.published_fields import UNSET, Fields, count

recognises, read = mamba_weights.recognises, mamba_weights.refuse_alone

CONFIG = "params.json"

# The same model under other names.
NAMES = {"dim": "d_model", "n_layers": "n_layer"}
SAME = (
    *("vocab_size", "rms_norm", "residual_in_fp32", "fused_add_norm"),
    *("pad_vocab_size_multiple", "tie_embeddings"),
)


def read_config(config: dict, source: str) -> MambaSpec:
    """Reads a `params.json`; see `mamba_original.read_config`."""
    fields = Fields(config, source)
    groups = fields.take("n_groups", UNSET, count)
    for name in NAMES:
        fields.take(name, UNSET, count)
    fields.require("model_type", ("mamba",), "models of this format are of type 'mamba'")
    fields.check_all_read(SAME)
    original = {ours: config[name] for name, ours in NAMES.items()}
    original |= {name: config[name] for name in SAME if name in config}
    original["ssm_cfg"] = {"layer": "Mamba2", "ngroups": groups}
    return mamba_original.read_config(original, source)
