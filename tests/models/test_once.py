"""What costs time is done once: a batch is brought to its form, a file of a preset is read."""

import collections
import hashlib
import sys

import keras
import numpy as np
import pytest

from keras_ssm import presets
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMPairClassifier
from keras_ssm.models.saving.preset_loading import load_model
from tests.small_preset import X, make_model

pytestmark = pytest.mark.eager


@pytest.fixture
def standardized(monkeypatch):
    """The number of calls of `SSMBackbone.standardize`, in a list of one number."""
    calls, standardize = [0], SSMBackbone.standardize

    def counting(self, inputs):
        calls[0] += 1
        return standardize(self, inputs)

    monkeypatch.setattr(SSMBackbone, "standardize", counting)
    return calls


@pytest.mark.once("torch")
def test_a_batch_is_brought_to_its_form_once(standardized):
    model = make_model()
    standardized[0] = 0
    model(X)
    assert standardized[0] == 1
    model.backbone(X, return_state=True)
    model(X, return_state=True)
    assert standardized[0] == 3
    model.fit(X, np.array([0, 1, 2]), verbose=0)  # Keras traces the model once more
    standardized[0] = 0
    model.fit(X, np.array([0, 1, 2]), batch_size=1, verbose=0)
    assert standardized[0] == 1 + 3  # all arrays before, and each batch in its call
    pair = SSMPairClassifier(model.backbone, num_classes=2)
    standardized[0] = 0
    pair(np.stack([X, X], axis=1))
    assert standardized[0] == 2  # both sequences


@pytest.mark.once("torch")
def test_a_model_within_another_still_reads_what_it_is_given():
    backbone = make_model().backbone

    class Twice(SSMClassifier):
        def run(self, inputs, training=None, initial_state=None, return_state=False):
            y = super().run(inputs)
            if isinstance(y, keras.KerasTensor):
                return y
            return y + 0.0 * keras.ops.sum(self.backbone(np.ones((1, 4, 2), "float32")))

    model = Twice(backbone, num_classes=2)
    assert model(X, initial_state=model.get_initial_state(3)).shape == (3, 2)
    with pytest.raises(ValueError, match="`inputs` must have shape"):
        model(X[..., :1])


class Opened:
    """How often Python opens each file below a directory, while it counts."""

    def __init__(self):
        self.directory, self.counts = None, collections.Counter()
        sys.addaudithook(self)  # there is no way to take it back

    def __call__(self, event, arguments):
        if event == "open" and self.directory and str(arguments[0]).startswith(self.directory):
            self.counts[str(arguments[0]).removeprefix(self.directory + "/")] += 1

    def during(self, directory, action):
        self.counts.clear()
        self.directory = str(directory)
        try:
            action()
        finally:
            self.directory = None
        return dict(self.counts)


@pytest.mark.once("torch")
@pytest.mark.parametrize("load", [SSMClassifier.from_preset, load_model], ids=["class", "any"])
def test_a_file_of_a_preset_is_read_and_hashed_once(preset, monkeypatch, load):
    hashed, digest = collections.Counter(), hashlib.file_digest

    def counting(file, name):
        hashed[file.name] += 1
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    document = presets.read(preset)
    opened = Opened().during(preset, lambda: load(preset))
    assert hashed == {str(preset / name): 1 for name in document["files"]}
    # Once for the checksum, once by us, and two of them once by keras_hub. `preset.json` is read
    # before, and again at the end: another may stand there by then.
    assert opened == {
        **dict.fromkeys(("metadata.json", "preprocessor.json", "preset.json"), 2),
        **dict.fromkeys(("config.json", "task.json"), 3),
        **dict.fromkeys(("model.weights.h5", "task.weights.h5"), 1),
    }
