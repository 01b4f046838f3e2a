"""The picture of a learning curve, beside its table."""

import sys

import pytest

from keras_ssm.training import train
from tests.training.toy import Toy

pytestmark = pytest.mark.once("torch")


def test_the_learning_curve_is_drawn_where_that_is_possible(tmp_path, data, monkeypatch):
    pytest.importorskip("matplotlib")
    train(Toy(), "plain", data, tmp_path / "drawn")
    assert (tmp_path / "drawn" / "log.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    with pytest.warns(UserWarning, match="no picture") as said:
        train(Toy(), "plain", data, tmp_path / "plain")
    assert len([warning for warning in said if "no picture" in str(warning.message)]) == 1
    assert (tmp_path / "plain" / "log.csv").is_file()
    assert not (tmp_path / "plain" / "log.png").exists()
