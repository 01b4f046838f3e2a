"""Expressions of lists of digits: their values by hand, and what the generator makes."""

import numpy as np
import pytest

from keras_ssm import recipes
from keras_ssm.datasets import listops, listops_ids, listops_value
from keras_ssm.datasets.listops import OPERATORS, SYMBOLS

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def generated():
    return listops(400, seed=0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MIN 5 [MAX 1 0]]", 1),
        ("[SM 5 [MED 3 4 9 ] 7 ]", 6),
        ("[MED 3 4 ]", 3),  # the half is cut off
        ("[MED 1 8 2 9 ]", 5),
        ("( ( ( [MAX 2 ) 9 ) ] )", 9),  # as the first files have it
    ],
)
def test_values_of_expressions(text, value):
    assert listops_value(text) == value == listops_value(listops_ids(text))


@pytest.mark.parametrize("text", ["", "[MAX ]", "[MAX 1 2", "1 2", "3 ]", "[AVG 1 ]"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="Received"):
        listops_value(text)


def test_every_expression_has_the_value_that_its_tree_had(generated):
    rows, values = generated
    assert [listops_value(row) for row in rows] == values.tolist()
    assert len({row.tobytes() for row in rows}) == 400


def test_the_statistics_are_those_of_the_arena(generated):
    rows, values = generated
    lengths = np.array([len(row) for row in rows])
    assert lengths.min() > 500 and lengths.max() < 2000 and 900 < lengths.mean() < 1200
    ids = np.concatenate(rows)
    assert len(SYMBOLS) == 15 and set(ids.tolist()) == set(range(1, 16))
    digits = ids[ids <= 10]
    np.testing.assert_allclose(np.bincount(digits)[1:] / len(digits), 0.1, atol=0.005)
    operators = np.bincount(ids[(ids > 10) & (ids < 15)])[11:]
    assert len(OPERATORS) == 4 and operators.sum() == (ids == 15).sum()
    np.testing.assert_allclose(operators / operators.sum(), 0.25, atol=0.01)
    share = np.bincount(values, minlength=10) / 400
    # The smallest and the largest of many lengths.
    assert share[[0, 9]].min() > 0.1 and share[1:9].max() < 0.13
    # An operator has 2 to 10 arguments, 6 in the mean, before trees are chosen by their length.
    assert 5.5 < (len(ids) - operators.sum()) / operators.sum() < 7.0


def test_the_seed_decides_and_more_of_them_begin_alike(generated):
    rows, _ = listops(50, seed=0)
    assert all((a == b).all() for a, b in zip(rows, generated[0], strict=False))
    assert any(len(a) != len(b) for a, b in zip(rows, listops(50, seed=1)[0], strict=True))


def test_expressions_are_made_once_and_kept(tmp_path):
    recipe = recipes.get("listops")
    settings = recipe.settings_of("s5", {"rows": 6, "held_out": 2})
    first = recipe.arrange(recipe.read(tmp_path), settings)
    (path,) = (tmp_path / "listops").iterdir()
    changed = path.stat().st_mtime_ns
    repeated = recipe.arrange(recipe.read(tmp_path), settings)
    assert path.stat().st_mtime_ns == changed
    for part, other in zip(first, repeated, strict=True):
        assert part.size == other.size and (part.y == other.y).all()
        assert all((a == b).all() for a, b in zip(part.x, other.x, strict=True))
    assert [part.size for part in first] == [6, 2, 2]
