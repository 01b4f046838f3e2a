"""Copies of models by the means of Keras and of Python, and what a summary says."""

import copy
import inspect
import pickle
import types

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import (
    SequencePreprocessor,
    SSMBackbone,
    SSMClassifier,
    SSMPairClassifier,
)
from tests.backend_tools import BACKEND, relative_error, to_numpy

pytestmark = pytest.mark.once("torch")

X = np.random.default_rng(0).integers(-9, 9, (6, 8, 1)).astype("int16")
Y = np.arange(6) % 3


def make_backbone():
    return SSMBackbone(S4D(state_dim=4), num_layers=1, hidden_dim=4, name="stack")


def make_model(dropout=0.25, **kwargs):
    preprocessor = SequencePreprocessor(scale=1 / 8)
    return SSMClassifier(make_backbone(), 3, preprocessor, "last", dropout, name="mine", **kwargs)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(1)  # not that of the tests, whose clones have weights of their own
    model = make_model()
    model.compile("adam", run_eagerly=BACKEND == "tensorflow")
    model.fit(X, Y, epochs=2, verbose=0)
    return model


def assert_alike(clone, model):
    assert type(clone) is type(model) and clone.name == model.name
    assert clone.get_config() == model.get_config() and clone.compiled == model.compiled
    if isinstance(model, SSMClassifier):
        assert clone.preprocessor.scale == 1 / 8
        assert clone.preprocessor is not model.preprocessor
    assert not {id(v) for v in clone.variables} & {id(v) for v in model.variables}
    shapes = [[tuple(w.shape) for w in part.weights] for part in (clone, model)]
    assert shapes[0] == shapes[1]


@pytest.mark.everywhere
def test_copies_train_on_like_the_model(trained):
    model = copy.deepcopy(trained)
    clone = pickle.loads(pickle.dumps(model))
    assert_alike(clone, model)
    assert to_numpy(clone.optimizer.iterations) == to_numpy(trained.optimizer.iterations) == 2
    before = clone.predict(X, verbose=0)
    assert relative_error(before, trained.predict(X, verbose=0)) < 1e-6
    for part in (model, clone):
        part.head_dropout.rate = 0.0
        part.train_on_batch(X, Y)
    after = clone.predict(X, verbose=0)
    assert relative_error(after, model.predict(X, verbose=0)) < 1e-5  # by Adam's averages
    assert relative_error(after, before) > 1e-4
    assert relative_error(before, trained.predict(X, verbose=0)) < 1e-6


def test_what_is_not_compiled_stays_so(tmp_path):
    model = make_model(compile=False)
    model.save(tmp_path / "model.keras")
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        keras.models.model_from_json(model.to_json()),
        keras.models.clone_model(model),
        keras.models.load_model(tmp_path / "model.keras"),
    ]
    for clone in copies:
        assert_alike(clone, model)
    assert_alike(copy.deepcopy(model.backbone), model.backbone)


def test_a_file_of_many_blocks_loads(tmp_path):
    """Keras takes what is serialized again while it loads a file for one shared object."""
    backbone = SSMBackbone(S4D(state_dim=4), num_layers=5, hidden_dim=4)
    model = SSMClassifier(backbone, 3, SequencePreprocessor(scale=1 / 8))
    model.save(tmp_path / "model.keras")
    expected = model.predict(X, verbose=0)
    for clone in (keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(model)):
        assert clone.get_config() == model.get_config()
        assert relative_error(clone.predict(X, verbose=0), expected) < 1e-6


def test_json_holds_how_a_model_is_compiled(trained):
    clone = keras.models.model_from_json(trained.to_json())
    assert_alike(clone, trained)
    assert isinstance(clone.optimizer, keras.optimizers.Adam)


def test_clone_model_makes_the_same_with_fresh_weights(trained):
    clone = keras.models.clone_model(trained)
    assert_alike(clone, trained)
    assert relative_error(clone.head.kernel, to_numpy(trained.head.kernel)) > 0.1
    assert isinstance(clone.optimizer, keras.optimizers.Adam)
    assert to_numpy(clone.optimizer.iterations) == 0
    before = trained.predict(X, verbose=0)
    clone.train_on_batch(X, Y)
    assert relative_error(trained.predict(X, verbose=0), before) < 1e-6
    pair = SSMPairClassifier(make_backbone(), 2, head_dim=3)
    for model in (trained.backbone, pair):
        assert_alike(keras.models.clone_model(model), model)
    # Recursively, which Keras does with `clone_function`, and as a layer of another model.
    assert_alike(keras.models.clone_model(trained, recursive=True), trained)
    inputs = keras.Input((8, 1))
    outer = keras.Model(inputs, keras.layers.Dense(2)(trained.backbone(inputs)))
    for recursive in (False, True):
        clone = keras.models.clone_model(outer, recursive=recursive)
        assert_alike(clone.get_layer("stack"), trained.backbone)
    trained.preprocessor, preprocessor = np.asarray, trained.preprocessor
    assert keras.models.clone_model(trained).preprocessor is np.asarray
    trained.preprocessor = None
    assert keras.models.clone_model(trained).preprocessor is None
    trained.preprocessor = preprocessor
    shown = inspect.signature(SSMClassifier).parameters
    assert list(shown)[:2] == ["backbone", "num_classes"] and "args" not in shown


def test_clones_of_other_layers_or_inputs_are_refused(trained):
    def backbone_shared(layer):
        return layer if layer is trained.backbone else type(layer).from_config(layer.get_config())

    clone = keras.models.clone_model(trained, clone_function=backbone_shared)
    assert clone.backbone is trained.backbone and type(clone) is SSMClassifier

    def another_rate(layer):
        config = layer.get_config()
        config.update({"rate": 0.5} if "rate" in config else {})
        return type(layer).from_config(config)

    def called(layer, *args, **kwargs):
        return layer(*args, **kwargs)

    inputs = {name: keras.Input((8, *x.shape[2:]), name=name) for name, x in trained.input.items()}
    refused = {
        "head_dropout": {"clone_function": another_rate},
        "pooling": {"clone_function": lambda layer: layer},
        "call_function": {"call_function": called},
        "input_tensors": {"input_tensors": inputs},
    }
    for message, arguments in refused.items():
        with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
            keras.models.clone_model(trained, **arguments)

    class OfNoArguments(SSMClassifier):
        def __init__(self):
            super().__init__(make_backbone(), 2)

    with pytest.raises(ValueError, match="from_config"):
        keras.models.clone_model(OfNoArguments())


def test_summary_says_what_the_preprocessor_does(trained):
    def summary(model):
        lines = []
        model.summary(line_length=100, print_fn=lambda text, line_break=None: lines.append(text))
        return "\n".join(lines)

    text = summary(trained)
    for expected in ("SequencePreprocessor", "scale: 0.125", "tokens: False", "logits"):
        assert expected in text
    model = make_model()
    model.preprocessor = np.asarray
    assert "asarray" in summary(model)
    model.preprocessor = None
    assert "Preprocessor" not in summary(model)


if BACKEND == "torch":

    def test_pytorch_trains_and_copies_a_model():
        import torch

        # Without dropout: Keras counts the names of seed generators.
        model = make_model(dropout=0.0)
        x, y = torch.tensor(X / 8, dtype=torch.float32), torch.tensor(Y)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            losses.append(torch.nn.functional.cross_entropy(model(x), y))
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < losses[0] / 2
        predicted = model.predict(X, verbose=0)
        assert relative_error(predicted, model(x)) < 1e-6
        for quantise in (False, True):
            other = make_model(dropout=0.0)
            if quantise:
                for part in (model, other):
                    part.quantize("int8")
                assert torch.int8 in {p.dtype for p in model.parameters()}
            assert len(list(model.parameters())) == len(model.variables)
            other.load_state_dict(model.state_dict())
            assert other.to("cpu") is other
            assert relative_error(other(x), model(x)) < 1e-6


class Graph:
    """A graph as `pydot` makes one, without the library."""

    def __init__(self, *names, label="", **attributes):
        self.label, self.parts = label, []

    def set(self, *values, **attributes):
        pass

    set_node_defaults = set

    def add_node(self, part):
        self.parts.append(part)

    add_edge = add_subgraph = add_node

    def get_edge(self, *ends):
        return []

    def labels(self):
        return self.label + "".join(part.labels() for part in self.parts)


def test_the_graph_of_a_model_is_drawn(monkeypatch):
    library = types.SimpleNamespace(**dict.fromkeys(("Dot", "Node", "Edge", "Cluster"), Graph))
    monkeypatch.setattr(inspect.getmodule(keras.utils.model_to_dot), "pydot", library)
    pairs = SSMPairClassifier(make_backbone(), 2)
    for model in (make_backbone(), make_model(), pairs):
        graph = keras.utils.model_to_dot(model, show_shapes=True, expand_nested=True)
        assert "ssm_block" in graph.labels() and "(None, None, 4)" in graph.labels()
