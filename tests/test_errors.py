"""Bad input: a clear error that names what was received, and a model that still works."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import DSS, S4, S4D, S4PTD, S5, S5PTD, SequencePooling, SSMBlock
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier

pytestmark = [pytest.mark.eager, pytest.mark.once("torch")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"state_dim": 7}, "state_dim=7"),
        ({"state_dim": -2}, "state_dim=-2"),
        ({"state_dim": 2.5}, "state_dim=2.5"),
        ({"init": "hurwitz"}, "init='hurwitz'"),
        ({"discretization": "euler"}, "discretization='euler'"),
        ({"method": "magic"}, "method='magic'"),
        ({"method": "recurrent", "bidirectional": True}, "bidirectional=True"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "dt_min=1.0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"channels": 0}, "channels=0"),
        ({"bandlimit": -1.0}, "bandlimit=-1.0"),
        ({"max_kernel_length": 8, "method": "chunked"}, "method='chunked'"),
    ],
)
def test_constructor(arguments, named):
    with pytest.raises(ValueError, match="Received") as error:
        S4D(**arguments)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (S4, {"init": "legt"}, "rank=1"),
        (S4, {"rank": 0}, "rank=0"),
        (S4, {"discretization": "zoh"}, "discretization='zoh'"),
        (S4, {"dt_transform": "sigmoid"}, "dt_transform='sigmoid'"),
        (DSS, {"variant": "relu"}, "variant='relu'"),
        (DSS, {"variant": "exp", "init": "randn"}, "variant='exp'"),
        (DSS, {"variant": "exp", "softmax_length": 8}, "softmax_length=8"),
        (DSS, {"softmax_length": 8, "max_kernel_length": 4}, "max_kernel_length=4"),
        (S5, {"blocks": 3}, "blocks=3"),
        (S5, {"state_dim": 8, "blocks": 8}, "blocks=8"),
        (S5, {"c_init": "zeros"}, "c_init='zeros'"),
        (S4PTD, {"perturbation": "laplace"}, "perturbation='laplace'"),
        (S4PTD, {"perturbation_size": 2.0}, "size=2.0"),
        (S5PTD, {"state_dim": 8, "blocks": 4}, "blocks=4"),
    ],
)
def test_constructors_of_the_family(cls, arguments, named):
    with pytest.raises(ValueError, match="Received") as error:
        cls(**arguments)
    assert named in str(error.value)


@pytest.mark.parametrize("cls", [S4D, S5, DSS, SSMBlock, SSMBackbone, SSMClassifier])
def test_keras_bidirectional_is_refused(cls):
    """A copy that reads backwards would be none: there is an argument for both directions."""
    layer = S4D(4) if cls in (SSMBlock, SSMBackbone, SSMClassifier) else cls(4)
    if cls is SSMBlock:
        layer = SSMBlock(layer)
    elif cls is not type(layer):
        layer = SSMBackbone(layer, num_layers=1, hidden_dim=4)
        layer = SSMClassifier(layer, num_classes=2) if cls is SSMClassifier else layer
    with pytest.raises(ValueError, match=r"`bidirectional=True`.*Received: "):
        keras.layers.Bidirectional(layer)


def test_a_softmax_has_states_only_over_a_given_length():
    layer = DSS(4)
    layer.build((None, None, 2))
    x = np.zeros((1, 5, 2), "float32")
    for call in (
        lambda: layer(x, return_state=True),
        lambda: layer.step(x[:, 0], None),
        layer.discretize,
    ):
        with pytest.raises(ValueError, match="softmax_length=None"):
            call()
    short = DSS(4, softmax_length=4)
    with pytest.raises(ValueError, match="5 steps, softmax_length=4"):
        short(x)


@pytest.mark.everywhere
def test_timesteps():
    layer = S5(4)
    x = np.zeros((2, 5, 3), "float32")
    with pytest.raises(ValueError, match=r"timesteps.shape=\(2, 4\)"):
        layer(x, timesteps=np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"timesteps from 0.0 to 0.0"):
        layer(x, timesteps=np.zeros((2, 5), "float32"))
    state, system = layer.get_initial_state(2), layer.discretize()
    with pytest.raises(ValueError, match="Received: both"):
        layer.step(x[:, 0], state, system, timesteps=np.ones(2, "float32"))


def test_copies_that_do_not_divide_the_features():
    with pytest.raises(ValueError, match="num_ssm=3, features=4"):
        S4D(num_ssm=3).build((None, None, 4))
    with pytest.raises(ValueError, match="multiple of 2"):
        S4D(init="diag", num_ssm=1).build((None, None, 4))


@pytest.mark.parametrize(
    ("shape", "dtype", "named"),
    [
        ((2, 8), "float32", r"\(2, 8\)"),
        ((2, 8, 4, 1), "float32", r"\(2, 8, 4, 1\)"),
        ((2, 0, 4), "float32", r"\(2, 0, 4\)"),
        ((2, 8, 3), "float32", r"\(2, 8, 3\)"),
        ((2, 8, 4), "int32", "int32"),
    ],
)
def test_layer_inputs(shape, dtype, named):
    layer = S4D(state_dim=4)
    layer.build((None, None, 4))
    with pytest.raises(ValueError, match=f"Received: .*{named}"):
        layer(np.zeros(shape, dtype))
    with pytest.raises(ValueError, match=f"Received: .*{named}"):
        layer(keras.KerasTensor(shape, dtype=dtype))
    assert layer(np.zeros((2, 8, 4), "float32")).shape == (2, 8, 4)


def test_states_and_masks():
    layer, both = S4D(state_dim=4), S4D(state_dim=4, bidirectional=True)
    x = np.zeros((2, 8, 4), "float32")
    layer(x), both(x)
    with pytest.raises(ValueError, match=r"state.shape=\(2, 4, 3\)"):
        layer(x, initial_state=np.zeros((2, 4, 3), "float32"))
    with pytest.raises(ValueError, match=r"state.shape=\(3, 4, 4\)"):
        layer(x, initial_state=np.zeros((3, 4, 4), "float32"))
    with pytest.raises(ValueError, match=r"state.shape=\(2, 4\)"):
        layer.step(x[:, 0], np.zeros((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"x.shape=\(2, 3\)"):
        layer.step(x[:, 0, :3], layer.get_initial_state(2))
    with pytest.raises(ValueError, match=r"mask.shape=\(2, 7\)"):
        layer(x, mask=np.ones((2, 7), bool))
    holes = np.ones((2, 8), bool)
    holes[0, 3] = False
    layer(x, mask=holes)
    with pytest.raises(ValueError, match="pads on the right"):
        layer(x, mask=holes, return_state=True)
    for call in (
        lambda: both(x, return_state=True),
        lambda: both(x, initial_state=np.zeros((2, 4, 4), "float32")),
        lambda: both.step(x[:, 0], np.zeros((2, 4, 4), "float32")),
        lambda: both.discretize(),
        lambda: both.get_initial_state(2),
        lambda: S4D(max_kernel_length=4)(x, return_state=True),
    ):
        with pytest.raises(ValueError, match="Received"):
            call()
    with pytest.raises(ValueError, match="must be built"):
        S4D().step(x[:, 0], np.zeros((2, 4, 64), "float32"))
    with pytest.raises(ValueError, match="step_scale=0"):
        layer.step_scale = 0
    with pytest.raises(ValueError, match="length=0"):
        layer.kernel(0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"activation": "gelu2"}, "activation='gelu2'"),
        ({"gate": "GLU"}, "gate='GLU'"),
        ({"norm": "group"}, "norm='group'"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"mixer": "s4d"}, "mixer=s4d"),
        ({"mixer": S4D(channels=2), "gate": None}, "mixer.channels=2"),
    ],
)
def test_block(arguments, named):
    with pytest.raises(ValueError, match="Received") as error:
        SSMBlock(**{"mixer": S4D(), **arguments})
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mixer": None}, "mixer=None"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"hidden_dim": -1}, "hidden_dim=-1"),
        ({"vocabulary_size": 0}, "vocabulary_size=0"),
        ({"encoder": "fourier"}, "encoder='fourier'"),
        ({"encoder": "embedding"}, "vocabulary_size=None"),
        ({"encoder": None}, "input_dim=1, hidden_dim=8"),
    ],
)
def test_backbone(arguments, named):
    with pytest.raises(ValueError, match="Received") as error:
        SSMBackbone(**{"mixer": S4D(), "num_layers": 1, "hidden_dim": 8, **arguments})
    assert named in str(error.value)


def test_pooling_and_preprocessor_arguments():
    with pytest.raises(ValueError, match="pooling='median'"):
        SequencePooling("median")
    with pytest.raises(ValueError, match="scale=0"):
        SequencePreprocessor(scale=0)
    with pytest.raises(ValueError, match="sequence_length=0"):
        SequencePreprocessor(sequence_length=0)


def make_classifier(**arguments):
    arguments = {"input_dim": 2, **arguments}
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4, **arguments)
    return SSMClassifier(backbone, num_classes=3)


class WrongFeatures(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((4, 5, 3), "float32"), np.zeros(4, "int32")


@pytest.mark.everywhere
def test_refused_calls_leave_a_working_model(rng):
    model = make_classifier()
    x = rng.standard_normal((6, 5, 2)).astype("float32")
    y = np.arange(6) % 3
    before = model.predict(x, verbose=0)
    weights = model.get_weights()
    nothing = np.zeros((6, 5, 2), "float32")
    refused = [
        lambda: model.predict(x[..., :1], verbose=0),
        lambda: model.predict(x[:, :0], verbose=0),
        lambda: model.predict({"inputs": x, "extra": x}, verbose=0),
        lambda: model.predict({"padding_mask": nothing}, verbose=0),
        lambda: model.predict({"inputs": x, "padding_mask": np.ones((6, 4))}, verbose=0),
        lambda: model.predict([np.zeros((5, 2)), np.zeros((4, 3))], verbose=0),
        lambda: model.predict([], verbose=0),
        lambda: model.predict(["text"], verbose=0),
        lambda: model.predict(None, verbose=0),
        lambda: model.fit(x, y[:4], verbose=0),
        lambda: model.fit(x, y + 1, verbose=0),
        lambda: model.fit(x, y - 1, verbose=0),
        lambda: model.fit(x, np.zeros((6, 2, 2)), verbose=0),
        lambda: model.fit(WrongFeatures(), verbose=0),
        lambda: model.fit(x, y, sample_weight=np.ones(3), verbose=0),
        lambda: model.fit(x, y, validation_data=(x[..., :1], y), verbose=0),
        lambda: model.evaluate(x[..., :1], y, verbose=0),
        lambda: model.evaluate(WrongFeatures(), verbose=0),
        lambda: model(x[..., :1]),
        lambda: model.step(x[:, 0, :1], model.get_initial_state(6)),
    ]
    for number, call in enumerate(refused):
        with pytest.raises((ValueError, TypeError)):
            call()
            pytest.fail(f"call {number} was accepted")
        for now, then in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
        np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.fit(x, y, verbose=0)
    assert np.isfinite(model.predict(x, verbose=0)).all()


def test_token_models_refuse_floats_and_float_models_refuse_nothing_they_can_scale(rng):
    tokens = make_classifier(vocabulary_size=10)
    with pytest.raises(ValueError, match="must be integers"):
        tokens.predict(np.zeros((2, 5), "float32"), verbose=0)
    with pytest.raises(ValueError, match="integers"):
        tokens.backbone(np.zeros((2, 5), "float32"))
    floats = make_classifier()
    with pytest.raises(ValueError, match="floats"):
        floats.backbone(np.zeros((2, 5, 2), "int32"))
    assert floats.predict(np.zeros((2, 5, 2), "int16"), verbose=0).shape == (2, 3)
