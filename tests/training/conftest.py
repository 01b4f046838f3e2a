import pytest

from keras_ssm.training.learning_curve import LearningCurve


@pytest.fixture
def data(tmp_path):
    """The folder of all data, with that of `tests.training.toy`."""
    (tmp_path / "data" / "toy").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without a picture of their learning curve, which takes longer than they do."""
    monkeypatch.setattr(LearningCurve, "draw", lambda self: None)
