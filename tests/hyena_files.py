"""Small HyenaDNA models as they are published, and what their classes compute, in NumPy."""

import json

import numpy as np

from tests.published_models import write_json, write_tensors

IDS = np.array([[7, 8, 9, 10, 11, 7, 7, 9], [10, 10, 8, 7, 9, 8, 11, 2]], "int32")

WIDTH, INNER, LAYERS, LENGTH, FILTER, POSITION, ROWS = 4, 6, 2, 10, 5, 5, 16
FREQUENCY = 10.0

HF = {
    "_name_or_path": "hyenadna",
    "activation_freq": FREQUENCY,
    "architectures": ["HyenaDNAForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_hyena.HyenaConfig"},
    "d_inner": INNER,
    "d_model": WIDTH,
    "emb_dim": POSITION,
    "embed_dropout": 0.1,
    "filter_order": FILTER,
    "hyena_dropout": 0.0,
    "hyena_filter_dropout": 0.0,
    "hyena_order": 2,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "max_seq_len": LENGTH,
    "model_type": "hyenadna",
    "n_layer": LAYERS,
    "num_inner_mlps": 2,
    "pad_token_id": 4,
    "pad_vocab_size_multiple": 8,
    "short_filter_order": 3,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "train_freq": True,
    "transformers_version": "4.35.0",
    "use_bias": True,
    "vocab_size": 12,
}

ORIGINAL = {
    "d_model": WIDTH,
    "n_layer": LAYERS,
    "d_inner": INNER,
    "vocab_size": 12,
    "resid_dropout": 0.0,
    "embed_dropout": 0.1,
    "fused_mlp": False,
    "fused_dropout_add_ln": True,
    "checkpoint_mixer": False,
    "checkpoint_mlp": False,
    "residual_in_fp32": True,
    "pad_vocab_size_multiple": 8,
    "return_hidden_state": True,
    "layer": {
        "_name_": "hyena",
        "emb_dim": POSITION,
        "filter_order": FILTER,
        "local_order": 3,
        "l_max": LENGTH,
        "modulate": True,
        "w": 10,
        "lr": 6e-4,
        "wd": 0.0,
        "lr_pos_emb": 0.0,
    },
}


def positions():
    """z and t as the published code fills its buffers, in float32."""
    t = np.linspace(0, 1, LENGTH)
    angles = 2 * np.pi * np.arange(LENGTH) / LENGTH
    bands = np.linspace(1e-4, (POSITION - 1) // 2 - 1, (POSITION - 1) // 2)
    waves = np.exp(-1j * bands * angles[:, None])
    z = np.concatenate([t[:, None], waves.real, waves.imag], axis=1)
    return z.astype("float32")[None], t.astype("float32")[None, :, None]


def make_tensors(seed=0):
    """The tensors of a model by the names of its own code, the head tied."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype("float32") * 0.3
    z, t = positions()
    decay = np.linspace(np.log(1e-2) / 1.5, np.log(1e-2) / 0.3, WIDTH).astype("float32")
    tensors = {"backbone.embeddings.word_embeddings.weight": normal(ROWS, WIDTH)}
    for i in range(LAYERS):
        frequency = FREQUENCY * np.ones((1, FILTER), "float32") + normal(1, FILTER)
        network = "mixer.filter_fn.implicit_filter"
        layer = {
            "mixer.in_proj.weight": normal(3 * WIDTH, WIDTH),
            "mixer.in_proj.bias": normal(3 * WIDTH),
            "mixer.out_proj.weight": normal(WIDTH, WIDTH),
            "mixer.out_proj.bias": normal(WIDTH),
            "mixer.short_filter.weight": normal(3 * WIDTH, 1, 3),
            "mixer.short_filter.bias": normal(3 * WIDTH),
            "mixer.filter_fn.bias": normal(WIDTH),
            "mixer.filter_fn.pos_emb.z": z,
            "mixer.filter_fn.pos_emb.t": t,
            "mixer.filter_fn.modulation.deltas": decay[None, None],
            f"{network}.0.weight": normal(FILTER, POSITION),
            f"{network}.0.bias": normal(FILTER),
            f"{network}.1.freq": frequency,
            f"{network}.2.weight": normal(FILTER, FILTER),
            f"{network}.2.bias": normal(FILTER),
            f"{network}.3.freq": frequency,
            f"{network}.4.weight": normal(FILTER, FILTER),
            f"{network}.4.bias": normal(FILTER),
            f"{network}.5.freq": frequency,
            f"{network}.6.weight": normal(WIDTH, FILTER),
            "mlp.fc1.weight": normal(INNER, WIDTH),
            "mlp.fc1.bias": normal(INNER),
            "mlp.fc2.weight": normal(WIDTH, INNER),
            "mlp.fc2.bias": normal(WIDTH),
        }
        for norm in ("norm1", "norm2"):
            layer |= {f"{norm}.weight": 1 + normal(WIDTH), f"{norm}.bias": normal(WIDTH)}
        tensors |= {f"backbone.layers.{i}.{name}": value for name, value in layer.items()}
    tensors |= {"backbone.ln_f.weight": 1 + normal(WIDTH), "backbone.ln_f.bias": normal(WIDTH)}
    tensors["lm_head.weight"] = tensors["backbone.embeddings.word_embeddings.weight"]
    return tensors


def write_hf(directory, tensors, **fields):
    """A directory as transformers loads it, with one name for the factor in the sines."""
    directory.mkdir()
    kept = {
        name if name == "lm_head.weight" else f"hyena.{name}": value
        for name, value in tensors.items()
        if not name.endswith((".3.freq", ".5.freq"))
    }
    write_tensors(directory / "model.safetensors", kept)
    write_json(directory / "config.json", {**HF, **fields})
    settings = {"model_max_length": LENGTH, "padding_side": "left"}
    settings["tokenizer_class"] = "HyenaDNATokenizer"
    write_json(directory / "tokenizer_config.json", settings)
    return directory


def write_original(directory, tensors, layer=(), **fields):
    """A directory as hyena-dna publishes it: a Lightning checkpoint beside its configuration."""
    import torch

    directory.mkdir()
    config = {**ORIGINAL, **fields}
    config["layer"] = {**config["layer"], **dict(layer)}
    checkpointed = config["checkpoint_mixer"]
    wrapped = lambda name: name.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer.")
    names = {name: f"model.{wrapped(name) if checkpointed else name}" for name in tensors}
    state = {names[name]: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    whole = {"epoch": 1, "state_dict": state, "pytorch-lightning_version": "1.8.6"}
    torch.save(whole, directory / "weights.ckpt")
    write_json(directory / "config.json", config)
    return directory


def change_layer(directory, **fields):
    config = json.loads((directory / "config.json").read_text())
    config["layer"] |= fields
    write_json(directory / "config.json", config)


def published_logits(tensors, ids=IDS, shift=0.05):
    """The forward pass of the published classes in float64, from the mathematics."""
    w = {name: value.astype("float64") for name, value in tensors.items()}
    x = w["backbone.embeddings.word_embeddings.weight"][ids]
    for i in range(LAYERS):
        here = {
            name.removeprefix(f"backbone.layers.{i}."): value
            for name, value in w.items()
            if name.startswith(f"backbone.layers.{i}.")
        }
        x = x + _hyena(here, _norm(here, "norm1", x), shift)
        y = _linear(here, "mlp.fc1", _norm(here, "norm2", x))
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + _linear(here, "mlp.fc2", y)
    x = _norm({name.removeprefix("backbone."): value for name, value in w.items()}, "ln_f", x)
    return x @ w["lm_head.weight"].T


def _hyena(w, u, shift):
    length = u.shape[1]
    u = _linear(w, "mixer.in_proj", u)
    taps = w["mixer.short_filter.weight"][:, 0]
    u = sum(_later(u, j) * taps[:, 2 - j] for j in range(3)) + w["mixer.short_filter.bias"]
    first, second, v = np.split(u, 3, axis=-1)
    v = v * second
    network = "mixer.filter_fn.implicit_filter"
    h = w["mixer.filter_fn.pos_emb.z"][0, :length]
    for j in range(3):
        h = np.sin(w[f"{network}.1.freq"] * _linear(w, f"{network}.{2 * j}", h))
    h = h @ w[f"{network}.6.weight"].T
    t = w["mixer.filter_fn.pos_emb.t"][0, :length]
    h = h * (np.exp(-t * np.abs(w["mixer.filter_fn.modulation.deltas"][0])) + shift)
    y = sum(_later(v, j) * h[j] for j in range(length)) + w["mixer.filter_fn.bias"] * v
    return _linear(w, "mixer.out_proj", y * first)


def _later(x, steps):
    return np.pad(x, [(0, 0), (steps, 0), (0, 0)])[:, : x.shape[1]]


def _linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w, name, x):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]
