"""Confusion matrices: what is counted, and where it stands."""

import numpy as np
import pytest

from keras_ssm.plotting import plot_confusion_matrix

pytestmark = pytest.mark.once("torch")

pytest.importorskip("matplotlib")

TRUE = np.array([0, 0, 0, 1, 1, 2])
FOUND = np.array([0, 0, 1, 1, 0, 2])
COUNTS = [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
NAMES = ["rest", "walk", "run"]


def shown(figure):
    (axis,) = figure.axes
    return np.asarray(axis.images[0].get_array()), [t.get_text() for t in axis.get_yticklabels()]


def test_counts_and_shares():
    figure = plot_confusion_matrix(TRUE, FOUND, NAMES)
    table, names = shown(figure)
    np.testing.assert_array_equal(table, COUNTS)
    (axis,) = figure.axes
    assert names == NAMES and axis.get_title() == "accuracy 66.7% of 6"
    places = {tuple(text.get_position()): text.get_text() for text in axis.texts}
    assert places[1, 0] == "1" and places[0, 0] == "2" and (2, 0) not in places
    for normalize, sums in (
        ("true", np.sum(COUNTS, 1, keepdims=True)),
        ("predicted", np.sum(COUNTS, 0, keepdims=True)),
        ("all", 6),
    ):
        table, _ = shown(plot_confusion_matrix(TRUE, FOUND, NAMES, normalize))
        np.testing.assert_allclose(table, COUNTS / np.asarray(sums))


def test_names_numbers_and_what_does_not_count():
    names = np.array(NAMES)
    table, sorted_names = shown(plot_confusion_matrix(names[TRUE], names[FOUND].astype(object)))
    assert sorted_names == ["rest", "run", "walk"] and table[0, 2] == 1 and table[2, 0] == 1
    for found in (names[FOUND], FOUND):  # a class without rows keeps its place
        table, shown_names = shown(plot_confusion_matrix(TRUE, found, [*NAMES, "fly"]))
        np.testing.assert_array_equal(table[:3, :3], COUNTS)
        assert shown_names[3] == "fly" and table.sum() == 6
    steps = np.stack([TRUE, TRUE]), np.stack([FOUND, np.full(6, -1)])
    np.testing.assert_array_equal(shown(plot_confusion_matrix(*steps))[0], COUNTS)
    padded = steps[0], np.where(steps[1] < 0, "", names[steps[1]])
    np.testing.assert_array_equal(shown(plot_confusion_matrix(*padded, NAMES))[0], COUNTS)
    mask = np.array([True, False, True, True, True, True])
    assert shown(plot_confusion_matrix(TRUE, FOUND, mask=mask))[0][0, 0] == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((TRUE, FOUND[:5]), r"shape of `y_true`.*\(5,\)"),
        ((TRUE, np.eye(3)[FOUND] * 0.3), "argmax"),
        ((TRUE, FOUND, ["a", "b"]), "2 names, and a class without one"),
        ((TRUE, np.array(["fly"] * 6), NAMES), "a class without one"),
        ((TRUE, np.array(NAMES)[FOUND]), "numbers and one names"),
        ((TRUE, np.full(6, -1)), "a class that counts"),
        ((TRUE, FOUND, None, "row"), "normalize='row'"),
        ((TRUE, FOUND, None, None, [True]), "mask.shape"),
    ],
)
def test_what_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        plot_confusion_matrix(*arguments)
