"""Learning curves, of whatever kind they are kept."""

import keras
import numpy as np
import pytest

from keras_ssm.plotting import plot_learning_curves

pytestmark = pytest.mark.once("torch")

pytest.importorskip("matplotlib")

CURVES = {
    "loss": [3.0, 2.0, 1.0],
    "accuracy": [0.1, 0.5, 0.9],
    "val_loss": [3.0, 1.5, 2.0],
    "val_accuracy": [0.1, float("nan"), 0.4],
}


def history():
    found = keras.callbacks.History()
    found.epoch, found.history = [0, 1, 2], CURVES
    return found


@pytest.mark.parametrize("kind", ["history", "dict", "csv"])
def test_each_metric_has_a_picture_of_training_and_validation(tmp_path, kind):
    path = tmp_path / "log.csv"
    rows = zip(*CURVES.values(), strict=True)
    lines = [f"{i}," + ",".join(map(str, row)) for i, row in enumerate(rows)]
    path.write_text("\n".join([f"epoch,{','.join(CURVES)}", *lines]))
    given = {"history": history(), "dict": CURVES, "csv": path}[kind]
    loss, accuracy = plot_learning_curves(given).axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    training, validation, best = loss.lines
    np.testing.assert_array_equal(training.get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(validation.get_ydata(), CURVES["val_loss"])
    assert best.get_xydata().tolist() == [[2, 1.5]]  # the lowest loss
    assert accuracy.lines[2].get_xydata().tolist() == [[3, 0.4]]  # the highest accuracy


def test_files_without_epochs_are_refused(tmp_path):
    for text, message in (("epoch,loss\n", "at least one epoch"), ("a,b\n1,2\n", "column `epoch`")):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(ValueError, match=f"{message}.*Received"):
            plot_learning_curves(tmp_path / "log.csv")
    with pytest.raises(ValueError, match="at least one epoch"):
        plot_learning_curves({})


def test_epochs_without_validation_are_left_out(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,val_loss\n0,3.0,NA\n1,2.0,2.5\n2,1.5,\n3,1.0,2.0\n")
    training, validation, best = plot_learning_curves(path).axes[0].lines
    assert training.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1.5], [4, 1]]
    assert validation.get_xydata().tolist() == [[2, 2.5], [4, 2]]
    assert best.get_xydata().tolist() == [[4, 2]]
    path.write_text("epoch,loss,val_loss\n0,3.0,NA\n")  # as Keras writes it without validation
    assert len(plot_learning_curves(path).axes[0].lines) == 1
    with pytest.raises(ValueError, match="Received: 1 values of 'val_loss' in 2 epochs"):
        plot_learning_curves({"loss": [2.0, 1.0], "val_loss": [1.5]})
