"""What a person sets on a model is heard, or refused."""

import inspect
import json
from functools import partial

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm.attributes import Attributes
from keras_ssm.layers import (
    H3,
    S4D,
    DeltaNet,
    Hyena,
    Mamba,
    Mamba2,
    ScalarNormalization,
    SequencePooling,
    SGConv,
    SpaceTime,
    SSMBlock,
)
from keras_ssm.models import (
    SequencePreprocessor,
    SSMBackbone,
    SSMClassifier,
    SSMPairClassifier,
    SSMPairClassifierPreprocessor,
)
from tests.backend_tools import BACKEND, relative_error
from tests.layer_cases import SYSTEMS
from tests.models.test_training_mode import make_model

pytestmark = pytest.mark.once("torch")


def test_the_step_scale_of_a_task(rng, tmp_path):
    x = rng.standard_normal((2, 8, 2)).astype("float32")
    model = make_model()
    model.save_to_preset(tmp_path / "preset")
    before = model.predict(x, verbose=0)
    model.step_scale = 2.0
    assert float(model.step_scale) == float(model.backbone.blocks[0].step_scale) == 2.0
    after = model.predict(x, verbose=0)
    assert relative_error(after, before) > 1e-3
    loaded = SSMClassifier.from_preset(tmp_path / "preset", step_scale=2.0)
    assert relative_error(loaded.predict(x, verbose=0), after) < 1e-6
    backbone = SSMBackbone.from_preset(tmp_path / "preset", step_scale=2.0)
    assert relative_error(backbone(x), model.backbone(x)) < 1e-6
    for scale in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="step_scale"):
            model.step_scale = scale
        with pytest.raises(ValueError, match="step_scale"):
            SSMClassifier.from_preset(tmp_path / "preset", step_scale=scale)


def test_an_attribute_that_nobody_would_hear_is_refused():
    model = make_model()
    model.remark = "mine"
    model.preprocessor = None
    model.trainable = False
    for part, names in (
        (model, ["pooling", "num_classes", "dropout", "backbone"]),  # of the constructor
        (model, ["mask_inputs", "mixer_config", "discretization", "log_dt", "activation"]),
        (make_model(), ["scale", "sequence_length"]),  # of its preprocessor
        (model.backbone, ["dropout", "hidden_dim", "method", "chunk_size", "D"]),
    ):
        for name in names:
            with pytest.raises(AttributeError, match="Received"):
                setattr(part, name, 0.5)
    with pytest.raises(AttributeError, match=r"part of its graph.*Received"):
        model.head = keras.layers.Dense(2)
    assert model.pooling == "mean" and not hasattr(model, "log_dt")


@pytest.mark.parametrize("kind", [H3, DeltaNet, Hyena, Mamba, Mamba2, SGConv, SpaceTime])
def test_layers_without_dt_refuse_a_step_scale(kind):
    layer = kind(64) if kind in (Hyena, SGConv) else kind()
    for build in (lambda: None, lambda: layer.build((None, None, 64))):
        build()
        with pytest.raises(ValueError, match=rf"`step_scale` .*{kind.__name__}.*Received.*=0\.5"):
            layer.step_scale = 0.5


def test_a_model_of_a_trained_backbone_trains(rng):
    backbone = make_model().backbone
    x = rng.standard_normal((4, 6, 2)).astype("float32")
    backbone.compile("sgd", "mse", run_eagerly=True)
    backbone.fit(x, np.zeros((4, 6, 4), "float32"), verbose=0)
    model = SSMClassifier(backbone, num_classes=2, compile=False)
    model.compile("sgd", run_eagerly=True)
    assert model.fit(x, np.arange(4) % 2, verbose=0).history["loss"]


def test_a_class_of_ones_own_keeps_its_attributes():
    class Own(SSMClassifier):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.temperature = 2.0

    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4)
    assert Own(backbone, 2).temperature == 2.0


SERIES = np.random.default_rng(0).standard_normal((2, 8, 2)).astype("float32")


def made(kind):
    if kind in LAYERS:
        layer = LAYERS[kind]()
        layer(SERIES)
        return layer
    model = make_model()
    if kind == "pair":
        return SSMPairClassifier(model.backbone, 2)
    parts = {"task": model, "backbone": model.backbone, "preprocessor": model.preprocessor}
    return parts.get(kind) or SSMPairClassifierPreprocessor()


LAYERS = {case.name: partial(case.make, 2) for case in SYSTEMS}
LAYERS["block"] = lambda: SSMBlock(S4D(4), norm="scalar")
LAYERS["pooling"], LAYERS["norm"] = SequencePooling, ScalarNormalization
KINDS = [*LAYERS, "task", "pair", "backbone", "preprocessor", "pair_preprocessor"]

ARGUMENTS = {
    name
    for module in (keras_ssm.layers, keras_ssm.models)
    for cls in map(vars(module).get, module.__all__)
    if issubclass(cls, Attributes)
    for name in inspect.signature(cls.__init__).parameters
}

# Attributes that act when they are set. Each has a test below.
ACTING = {"step_scale", "method", "chunk_size"}
ACTING |= {"preprocessor", "tokens", "scale", "sequence_length", "allow_nan", "sampling_rate"}
OF_KERAS = frozenset(dir(keras.layers.Dense(1)) + dir(keras.Model(*[keras.Input((1,))] * 2)))
OF_KERAS |= {"optimizer", "stop_training", "config_file"}


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", KINDS)
def test_every_attribute_is_heard_or_refused(kind):
    part = made(kind)
    mine = {name for name in dir(part) if not callable(getattr(type(part), name, None))}
    names = (ARGUMENTS | mine) - {"self", "args", "kwargs"} - ACTING
    tried = {name for name in names if name[0] != "_" and name not in OF_KERAS - {"activation"}}
    assert len(tried) > 25
    for name in sorted(tried):
        before = getattr(part, name, None)
        try:
            setattr(part, name, 0.625)
        except (AttributeError, ValueError):
            pass
        else:
            pytest.fail(f"`{name}` is set")
        assert str(getattr(part, name, None)) == str(before), name
    for name in ACTING & set(dir(part)):
        setattr(part, name, getattr(part, name))  # as it is
        if name != "preprocessor":
            with pytest.raises(ValueError, match="Received"):
                setattr(part, name, "nonsense")
    part.remark = "mine"
    part.remark = "mine too"


@pytest.mark.once("torch")
def test_an_unbuilt_layer_keeps_its_settings():
    layer = S4D(4)
    for name, value in {"dt_min": 0.5, "bidirectional": True, "seed": 3}.items():
        with pytest.raises(AttributeError, match=f"`{name}` of s4d.*make another S4D.*Received"):
            setattr(layer, name, value)

    class Own(S4D):
        def __init__(self, temperature, **kwargs):
            super().__init__(**kwargs)
            self.temperature = temperature
            self.count = 0

        def call(self, x, **kwargs):
            self.count += 1
            return super().call(x, **kwargs) * self.temperature

    own = Own(2.0, state_dim=4)
    own.temperature = 3.0
    own(SERIES)
    assert own.count == 1


def test_the_evaluation_of_a_layer_until_a_model_with_it_is_compiled():
    model = make_model()
    mixer = model.backbone.blocks[0].mixer
    calls = []
    mixer.evaluate = lambda x, *args, **kwargs: (
        calls.append(mixer.chosen_method(8)) or S4D.evaluate(mixer, x, *args, **kwargs)
    )
    for method in ("fft", "recurrent", "chunked"):
        mixer.method = method
        model(SERIES)
        assert calls[-1] == mixer.get_config()["method"] == method
    for wrong in ({"method": "fastest"}, {"chunk_size": 0}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"`{name}` must be.*Received"):
            setattr(mixer, name, value)
    model.compile("sgd", run_eagerly=True)
    model.predict(SERIES, verbose=0)
    mixer.method, mixer.chunk_size = "fft", 4
    with pytest.raises(ValueError, match="bidirectional"):
        S4D(4, bidirectional=True).method = "recurrent"
    with pytest.raises(ValueError, match="max_kernel_length"):
        S4D(4, max_kernel_length=4).method = "chunked"
    if BACKEND == "torch":
        return  # PyTorch compiles nothing
    model.compile("sgd")
    model.predict(SERIES, verbose=0)
    for name, value in {"method": "recurrent", "chunk_size": 2}.items():
        with pytest.raises(AttributeError, match=f"`{name}` of s4d.*compiled.*Received"):
            setattr(mixer, name, value)
    assert (mixer.method, mixer.chunk_size) == ("fft", 4)


@pytest.mark.once("torch")
def test_a_preprocessor_reads_its_settings_anew():
    preprocessor = SequencePreprocessor()
    x = np.full((1, 3, 1), 2.0, "float32")
    x[0, 1] = np.nan
    preprocessor.scale, preprocessor.sequence_length, preprocessor.allow_nan = 0.5, 4, True
    batch = preprocessor(x)
    assert batch["inputs"][0, :, 0].tolist() == [1, 0, 1, 0]
    assert batch["padding_mask"].tolist() == [[True, True, True, False]]
    clone = SequencePreprocessor.from_config(preprocessor.get_config())
    assert (clone.scale, clone.sequence_length, clone.allow_nan) == (0.5, 4, True)
    for part, wrong in ((clone, {"scale": "a"}), (S4D(4), {"method": "b"})):
        with pytest.raises(
            ValueError, match=f"^`{next(iter(wrong))}` must be.*Received"
        ) as refused:
            type(part).from_config({**part.get_config(), **wrong})
        assert len(str(refused.value)) < 100
    preprocessor.tokens = True
    assert preprocessor(["a"])["token_ids"].tolist() == [[97, 0, 0, 0]]
    model = make_model()
    model.preprocessor.sequence_length = 4
    expected = model.predict(SERIES[:, :4], verbose=0)
    assert relative_error(model.predict(SERIES, verbose=0), expected) < 1e-6


def test_numbers_of_numpy_become_numbers_of_python():
    """A configuration is written as JSON."""
    sizes = {"num_layers": np.int64(1), "hidden_dim": np.int64(4), "prenorm": np.bool_(True)}
    mixer = Mamba(state_dim=np.int64(2), inner_dim=np.int64(4))
    backbone = SSMBackbone(mixer, dropout=np.float32(0.5), **sizes)
    model = SSMClassifier(backbone, num_classes=np.int64(3), head_dtype="float32")
    for part in (mixer, S4D(state_dim=np.int64(4), dt_min=np.float64(1e-3)), backbone, model):
        config = json.loads(json.dumps(part.get_config()))
        assert part.from_config(config).get_config() == part.get_config()
