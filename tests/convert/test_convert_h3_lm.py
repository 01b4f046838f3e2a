"""Language models of HazyResearch/H3, there and back, against what their classes compute."""

import numpy as np
import pytest

from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.convert.checkpoint import read_model
from keras_ssm.layers import H3
from keras_ssm.models import SSMBackbone, SSMCausalLM
from tests.backend_tools import BACKEND, relative_error, to_numpy

pytestmark = pytest.mark.once("torch")  # layers and blocks are compared everywhere

EXACT = BACKEND != "jax"  # whose float64 is a mode of the process
WIDTH, INNER, LAYERS, STATES, ROWS = 4, 6, 3, 6, 16
IDS = np.array([[7, 8, 9, 10, 11, 7, 7, 9], [15, 1, 8, 7, 9, 8, 0, 2]], "int32")
NORM = ("weight", "bias")


def make_tensors():
    """The tensors of a model by the names of the published class."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype("float32") * 0.5
    tensors = {"backbone.embeddings.word_embeddings.weight": normal(ROWS, WIDTH)}
    for i in range(LAYERS):
        layer = {
            "mixer.ssm_k_D": normal(WIDTH),
            "mixer.D": normal(WIDTH),
            "mixer.ssm_k_kernel.kernel.B": normal(WIDTH, STATES),
            "mixer.ssm_k_kernel.kernel.C": normal(1, WIDTH, STATES),
            "mixer.kernel.kernel.log_dt": normal(WIDTH) - 2,
            "mixer.kernel.kernel.inv_A_real": normal(WIDTH, STATES // 2),
            "mixer.kernel.kernel.A_imag": 5 * normal(WIDTH, STATES // 2),
            "mixer.kernel.kernel.B": normal(WIDTH, STATES // 2, 2),
            "mixer.kernel.kernel.C": normal(1, WIDTH, STATES // 2, 2),
            "mlp.fc1.weight": normal(INNER, WIDTH),
            "mlp.fc1.bias": normal(INNER),
            "mlp.fc2.weight": normal(WIDTH, INNER),
            "mlp.fc2.bias": normal(WIDTH),
        }
        for name in ("q_proj", "k_proj", "v_proj", "output_linear"):
            layer |= {f"mixer.{name}.weight": normal(WIDTH, WIDTH)}
            layer |= {f"mixer.{name}.bias": normal(WIDTH)}
        for norm in ("norm1", "norm2"):
            layer |= {f"{norm}.weight": 1 + normal(WIDTH), f"{norm}.bias": normal(WIDTH)}
        tensors |= {f"backbone.layers.{i}.{name}": value for name, value in layer.items()}
    tensors |= {"backbone.ln_f.weight": 1 + normal(WIDTH), "backbone.ln_f.bias": normal(WIDTH)}
    tensors["lm_head.weight"] = tensors["backbone.embeddings.word_embeddings.weight"]
    return tensors


def published_logits(tensors):
    """The forward pass of the published class in float64, from the mathematics."""
    w = {name: value.astype("float64") for name, value in tensors.items()}
    linear = lambda name, x: x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(name, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["backbone.embeddings.word_embeddings.weight"][IDS]
    for i in range(LAYERS):
        here = f"backbone.layers.{i}"
        u = normed(f"{here}.norm1", x)
        q, k, v = (linear(f"{here}.mixer.{name}_proj", u) for name in "qkv")
        part = {n.removeprefix(f"{here}.mixer."): a for n, a in w.items() if here in n}
        B, C = part["ssm_k_kernel.kernel.B"], part["ssm_k_kernel.kernel.C"][0]
        taps = [(B[:, : STATES - j] * C[:, j:]).sum(axis=1) for j in range(STATES)]
        k = sum(later(k, j) * taps[j] for j in range(STATES)) + part["ssm_k_D"] * k
        number = lambda name, part=part: part[f"kernel.kernel.{name}"] @ [1, 1j]
        A = part["kernel.kernel.A_imag"] * 1j - np.exp(part["kernel.kernel.inv_A_real"])
        half = A * np.exp(part["kernel.kernel.log_dt"])[:, None] / 2
        dA = (1 + half) / (1 - half)
        gain = number("C")[0] * number("B") * np.exp(part["kernel.kernel.log_dt"])[:, None]
        K = [2 * (gain / (1 - half) * dA**j).sum(axis=1).real for j in range(IDS.shape[1])]
        kv = k * v
        y = sum(later(kv, j) * K[j] for j in range(IDS.shape[1])) + part["D"] * kv
        x = x + linear(f"{here}.mixer.output_linear", q * y)
        y = linear(f"{here}.mlp.fc1", normed(f"{here}.norm2", x))
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + linear(f"{here}.mlp.fc2", y)
    return normed("backbone.ln_f", x) @ w["lm_head.weight"].T


def later(x, steps):
    return np.pad(x, [(0, 0), (steps, 0), (0, 0)])[:, : x.shape[1]]


def as_first_published(tensors):
    """The same model by the names of the code that wrote the files, with its norms behind sums."""
    found = {}
    for name, value in tensors.items():
        name = name.replace("backbone.embeddings.word_embeddings.", "embedding.")
        name = name.replace("backbone.", "s4seq.encoder.")
        found[name] = value
    norms = {name: found.pop(name) for name in list(found) if "norm" in name or "ln_f" in name}
    stem = "s4seq.encoder."
    for part in NORM:
        for i in range(LAYERS):
            found[f"{stem}layers.{i}.norm1.{part}"] = norms[f"{stem}layers.{i}.norm2.{part}"]
            following = f"layers.{i + 1}.norm1" if i + 1 < LAYERS else "ln_f"
            found[f"{stem}layers.{i}.norm2.{part}"] = norms[f"{stem}{following}.{part}"]
        found[f"{stem}norm.{part}"] = norms[f"{stem}layers.0.norm1.{part}"]
    return found


def save(path, tensors, lightning=False):
    import torch

    content = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    if lightning:
        content = {f"model.{name}": value for name, value in content.items()}
        content = {"state_dict": content, "pytorch-lightning_version": "1.8"}
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["today", "former", "lightning"])
def test_logits_are_those_of_the_published_class(kind, tmp_path):
    tensors = make_tensors()
    held = as_first_published(tensors) if kind == "former" else tensors
    path = save(tmp_path / "model.pt", held, lightning=kind == "lightning")
    model, report = read_model(path, overrides={"dtype": "float64"} if EXACT else {})
    assert report.format == "h3-lm" and "lm_head.weight" in report.dropped
    close = 1e-9 if EXACT else 2e-5
    assert relative_error(to_numpy(model(IDS)), published_logits(tensors)) < close
    if kind == "today":
        single = load_checkpoint(path, dropout=0.1)
        assert relative_error(to_numpy(single(IDS)), published_logits(tensors)) < 2e-5
        assert (single.backbone.dropout, single.backbone.encoder_dropout) == (0.1, 0.1)
        states = single(IDS[:, :5], return_state=True)[1]
        y, _ = single.step(IDS[:, 5], states)
        assert relative_error(to_numpy(y), published_logits(tensors)[:, 5]) < 2e-5


def test_files_come_back_as_they_were_published(tmp_path):
    import torch

    tensors = make_tensors()
    model = load_checkpoint(save(tmp_path / "model.pt", tensors))
    (remark,) = export_checkpoint(model, tmp_path / "again.pt", "h3-lm")
    assert "d_model=4, n_layer=3, d_inner=6, vocab_size=16" in remark
    found = torch.load(tmp_path / "again.pt", weights_only=True)
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-6, err_msg=name)


def test_hybrids_are_refused_by_the_names_of_their_layers(tmp_path):
    tensors = make_tensors()
    for i in (1, 2):
        stem = f"backbone.layers.{i}.mixer."
        tensors = {name: value for name, value in tensors.items() if not name.startswith(stem)}
        tensors |= {f"{stem}Wqkv.weight": np.zeros((12, 4), "f4")}
    with pytest.raises(ValueError, match=r"is a hybrid.*Received: attention in layers 1, 2 of 3"):
        load_checkpoint(save(tmp_path / "model.pt", tensors))


def test_what_is_no_such_model_is_refused(tmp_path):
    tensors = make_tensors()
    other = {**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1}
    with pytest.raises(ValueError, match="has one table"):
        load_checkpoint(save(tmp_path / "head.pt", other))
    table = "backbone.embeddings.position_embeddings.weight"
    with pytest.raises(ValueError, match=rf"left over: {table}"):
        load_checkpoint(save(tmp_path / "more.pt", {**tensors, table: np.zeros((8, 4), "f4")}))
    options = {"activation": None, "gate": None, "prenorm": True, "final_norm": "layer"}

    def model(mixer, **more):
        return SSMCausalLM(SSMBackbone(mixer, 1, 4, vocabulary_size=8, **options, **more))

    for mixer, more, words in (
        (H3(4, seed=0), {}, "need an `intermediate_dim`"),
        (H3(4, shift_dim=3, seed=0), {"intermediate_dim": 4}, "need shift_dim=4"),
        (H3(4, seed=0), {"intermediate_dim": 4, "norm": "rms"}, "need norm='layer'"),
    ):
        with pytest.raises(ValueError, match=words):
            export_checkpoint(model(mixer, **more), tmp_path / "out.pt", "h3-lm")
    quantised = model(H3(4, seed=0), intermediate_dim=4)
    quantised.quantize("int8")
    with pytest.raises(ValueError, match=r"are floats: .* quantised to int8"):
        export_checkpoint(quantised, tmp_path / "out.pt", "h3-lm")
