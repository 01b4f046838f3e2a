"""Mixers of other kinds than the family's run through blocks, backbones and tasks."""

import keras
import numpy as np
import pytest
from keras import ops, tree

from keras_ssm.layers import S4D, SequenceMixer, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.optimizers import ssm_optimizer
from tests.backend_tools import relative_error, to_numpy

pytestmark = [pytest.mark.eager, pytest.mark.once("torch")]


@keras.saving.register_keras_serializable(package="tests")
class Selective(SequenceMixer):
    """A convolution, then a scan whose decay the inputs decide: two states, as Mamba has them."""

    call_arguments = ("gain",)
    slow_weights = ("decay",)
    undecayed_weights = ("taps",)

    def build_system(self, features):
        rng = self.make_rng()
        self.taps = self.add_system_weight("taps", rng.standard_normal((3, features)))
        self.decay = self.add_system_weight("decay", rng.standard_normal(features))
        self.width = self.add_system_weight("width", rng.standard_normal(features))

    def state_shape(self, features):
        return {"conv": (2, features), "ssm": (features,)}

    def advance(self, x, state):
        window = ops.concatenate([state["conv"], x[:, None]], axis=1)
        u = ops.silu(ops.sum(window * self.tensor(self.taps), axis=1) + 0.3)
        dt = ops.softplus(u * self.tensor(self.width))
        ssm = ops.exp(-dt * ops.exp(self.tensor(self.decay))) * state["ssm"] + dt * u
        return ssm * u, {"conv": window[:, 1:], "ssm": ssm}

    def call(self, x, mask=None, initial_state=None, return_state=False, gain=None, training=None):
        return self.run(x, mask, initial_state, return_state, gain=gain)

    def evaluate(self, x, mask=None, initial_state=None, return_state=False, gain=None):
        x = x if gain is None else x * gain[..., None]
        return super().evaluate(x, mask, initial_state, return_state)

    def step(self, x, state, gain=None):
        return super().step(x if gain is None else x * gain[..., None], state)


@keras.saving.register_keras_serializable(package="tests")
class LastInputs(SequenceMixer):
    """Attention to the last inputs, which are its state, with a count of them."""

    def __init__(self, memory=3, **kwargs):
        super().__init__(**kwargs)
        self.memory = memory

    def build_system(self, features):
        self.query = self.add_system_weight("query", self.make_rng().standard_normal(features))

    def state_spec(self, batch, features):
        inputs = keras.KerasTensor((batch, self.memory, features), dtype=self.system_dtype)
        return inputs, keras.KerasTensor((batch, 1), dtype="int32")

    def advance(self, x, state):
        inputs = ops.concatenate([state[0], x[:, None]], axis=1)[:, 1:]
        count = ops.minimum(state[1] + 1, self.memory)
        there = ops.arange(self.memory)[None] >= self.memory - count
        scores = ops.sum(inputs * x[:, None] * self.tensor(self.query), axis=-1)
        weights = ops.softmax(ops.where(there, scores, -1e9), axis=-1)
        return ops.sum(weights[..., None] * inputs, axis=1), (inputs, count)

    def get_config(self):
        return {**super().get_config(), "memory": self.memory}


@keras.saving.register_keras_serializable(package="tests")
class Axial(SequenceMixer):
    """Sums over both axes of a picture: no sequence, and no state."""

    input_rank = 4
    causal = streams = False

    def build_system(self, features):
        self.scale = self.add_system_weight("scale", np.ones(features))

    def evaluate(self, x, mask=None, initial_state=None, return_state=False):
        y = ops.cumsum(x, axis=1) + ops.flip(ops.cumsum(x, axis=2), axis=2)
        return y * self.tensor(self.scale), None


MIXERS = [
    pytest.param(Selective(seed=0), id="Selective"),
    pytest.param(LastInputs(memory=3, seed=0), id="LastInputs", marks=pytest.mark.once("torch")),
]


def make_backbone(mixer, **arguments):
    return SSMBackbone(mixer, num_layers=2, hidden_dim=4, input_dim=2, **arguments)


@pytest.fixture
def series(rng):
    mask = np.arange(7)[None] < np.array([[7], [3], [5], [1]])
    return rng.standard_normal((4, 7, 2)).astype("float32"), mask


def same_state(a, b):
    a, b = rounded(a), rounded(b)
    tree.assert_same_structure(tree.map_structure(to_numpy, a), tree.map_structure(to_numpy, b))
    pairs = zip(tree.flatten(a), tree.flatten(b), strict=True)
    return all(relative_error(ops.cast(p, "float32"), to_numpy(q)) < 1e-5 for p, q in pairs)


def rounded(state):
    """A state whose mean has its sum without the rounding errors, which depend on the pieces."""
    if not isinstance(state, dict) or "rest" not in state:
        return state
    return {name: part for name, part in state.items() if name != "rest"}


@pytest.mark.everywhere
@pytest.mark.parametrize("mixer", MIXERS)
def test_it_trains(mixer, series):
    x, mask = series
    inputs, y = {"inputs": x, "padding_mask": mask}, np.array([0, 1, 0, 1])
    model = SSMClassifier(make_backbone(mixer), num_classes=2)
    before = [to_numpy(w) for w in model.trainable_variables]
    model.fit(inputs, y, epochs=2, verbose=0)
    after = [to_numpy(w) for w in model.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    expected = model.predict(inputs, verbose=0)
    junk = np.where(mask[..., None], x, 1e3).astype("float32")
    padded = model.predict({"inputs": junk, "padding_mask": mask}, verbose=0)
    assert relative_error(padded, expected) < 1e-5


@pytest.mark.parametrize("mixer", MIXERS)
def test_it_streams_and_is_saved(mixer, series, tmp_path):
    x, mask = series
    inputs = {"inputs": x, "padding_mask": mask}
    model = SSMClassifier(make_backbone(mixer), num_classes=2)
    expected = model.predict(inputs, verbose=0)
    assert relative_error(model(x[1:2, :3]), expected[1:2]) < 1e-5

    whole, final = model(inputs, return_state=True)
    assert relative_error(whole, expected) < 1e-5
    state = model({k: v[:, :4] for k, v in inputs.items()}, return_state=True)[1]
    logits, state = model(
        {k: v[:, 4:] for k, v in inputs.items()}, initial_state=state, return_state=True
    )
    assert relative_error(logits, expected) < 1e-5 and same_state(state, final)
    # Single steps. These mixers compute nothing in advance for a stream.
    state, systems = model.get_initial_state(4), model.discretize()
    assert systems == [None, None]
    for t in range(7):
        logits, state = model.step(x[:, t], state, systems)
    unmasked, final = model(x, return_state=True)
    assert relative_error(logits, to_numpy(unmasked)) < 1e-5 and same_state(state, final)

    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for again in (loaded, SSMClassifier.from_preset(tmp_path / "preset")):
        for a, b in zip(again.variables, model.variables, strict=True):
            assert relative_error(ops.cast(a, "float32"), to_numpy(b).astype("float32")) < 1e-6
    assert relative_error(loaded(inputs), expected) < 1e-5
    two = [block.mixer for block in loaded.backbone.blocks]
    assert [m.seed for m in two] == [0, 1] and type(two[0]) is type(mixer)


@pytest.mark.parametrize("mixer", MIXERS)
def test_its_states_go_through_functional_models(mixer, series):
    x = series[0]
    backbone = make_backbone(mixer)
    first, second = keras.Input((None, 2)), keras.Input((None, 2))
    start = backbone(first, return_state=True)[1]
    y, final = backbone(second, initial_state=start, return_state=True)
    outer = keras.Model([first, second], [y, *tree.flatten(final)])
    outputs = outer([x[:, :3], x[:, 3:]])
    expected, states = backbone(x, return_state=True)
    assert relative_error(outputs[0], to_numpy(expected)[:, 3:]) < 1e-5
    assert same_state(outputs[1:], tree.flatten(states))


def test_its_call_arguments_travel(series):
    x, mask = series
    gain = np.random.default_rng(1).uniform(0.5, 2.0, (4, 7)).astype("float32")
    backbone = make_backbone(Selective(seed=0))
    model = SSMClassifier(backbone, num_classes=2, pooling="last")
    given = {"inputs": x, "padding_mask": mask, "gain": gain}
    expected = model.predict(given, verbose=0)
    without = model.predict({"inputs": x, "padding_mask": mask}, verbose=0)
    assert relative_error(without, expected) > 0.01
    y, _ = backbone(given, return_state=True)
    assert relative_error(model(given), expected) < 1e-5
    state = backbone.get_initial_state(4)
    for t in range(7):
        out, state = backbone.step(x[:, t], state, gain=gain[:, t])
    assert relative_error(out[0], to_numpy(y)[0, -1]) < 1e-5
    with pytest.raises(
        ValueError, match=r"`gain` must have shape .* Received: gain.shape=\(4, 6\)"
    ):
        model({**given, "gain": gain[:, :6]})
    with pytest.raises(ValueError, match="`timesteps` need a mixer"):
        model({**given, "timesteps": gain})
    with pytest.raises(ValueError, match=r"Received: keys .*gain"):
        make_backbone(S4D(state_dim=4))(given)
    with pytest.raises(ValueError, match=r"`gain` needs a mixer .* S4D are \[\]"):
        SSMBlock(S4D(state_dim=4))(x, gain=gain)


def test_it_says_which_weights_train_slowly():
    model = SSMClassifier(make_backbone(Selective(seed=0)), num_classes=2)
    optimizer = ssm_optimizer(1e-2, 1e-3, 0.05)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for one in (optimizer, restored):
        groups = {v.name: one._optimizer_map(v) for v in model.trainable_variables}
        rates = {k: round(float(to_numpy(g.learning_rate)), 6) for k, g in groups.items()}
        assert {k for k, rate in rates.items() if rate == 1e-3} == {"decay"}
        decayed = {k for k, g in groups.items() if g.weight_decay}
        assert decayed == {"width", "kernel"} and "taps" in rates


def test_what_it_is_not_is_an_error_that_says_so(series, tmp_path):
    x = series[0]
    model = SSMClassifier(make_backbone(LastInputs(seed=0)), num_classes=2)
    for wrong in (lambda: model.step_scale, lambda: setattr(model, "step_scale", 2.0)):
        with pytest.raises(
            ValueError, match=r"`step_scale` multiplies .* Received: a mixer LastInputs"
        ):
            wrong()
    layer = model.backbone.blocks[0].mixer
    inputs, count = layer.get_initial_state(4)
    for state in (inputs, {"inputs": inputs, "count": count}, (inputs,)):
        with pytest.raises(ValueError, match="A state of lastinputs must"):
            layer.step(ops.zeros((4, 4)), state)
    with pytest.raises(ValueError, match=r"state.shape=\(3, 1\)"):
        layer.step(ops.zeros((4, 4)), (inputs, count[:3]))
    with pytest.raises(ValueError, match="`system` belongs to time-invariant"):
        model.backbone.blocks[0].step(ops.zeros((4, 4)), (inputs, count), system=1)
    with pytest.raises(ValueError, match="`mixer` must be a layer that mixes sequences"):
        make_backbone("s4d")
    assert to_numpy(layer(x[:0].repeat(2, -1), return_state=True)[1][1]).shape == (0, 1)


def test_a_mixer_of_pictures_fits_a_block(rng):
    x = rng.standard_normal((2, 3, 5, 4)).astype("float32")
    mask = np.ones((2, 3, 5), bool)
    mask[1, :, 3:] = False
    block = SSMBlock(Axial(), dropout=0.5)
    y = block(x, mask=mask, training=True)
    assert y.shape == (2, 3, 5, 4)
    y = block(np.where(mask[..., None], x, 7.0), mask=mask)
    assert (
        relative_error(block(np.where(mask[..., None], x, np.nan), mask=mask), to_numpy(y)) < 1e-6
    )
    with pytest.raises(ValueError, match="axial has no state"):
        block(x, return_state=True)
    with pytest.raises(ValueError, match=r"\(batch, size_1, size_2, features\)"):
        block(x[0])


def test_what_the_family_says_of_itself():
    layers = S4D(state_dim=4), S4D(state_dim=4, bidirectional=True), S4D(max_kernel_length=4)
    assert [layer.causal for layer in layers] == [True, False, True]
    assert [layer.streams for layer in layers] == [True, False, False]
    assert S4D(channels=3).output_features(4) == 12
