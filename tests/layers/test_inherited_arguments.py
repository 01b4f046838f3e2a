"""Layers that differ from their base class in few arguments show, and take, all of them."""

import inspect

import pytest

from keras_ssm.layers import S4D, S4PTD, S5, S5PTD

pytestmark = pytest.mark.once("torch")

OWN = {"perturbation", "perturbation_size"}


@pytest.mark.parametrize(("cls", "base", "without"), [(S4PTD, S4D, {"init"}), (S5PTD, S5, set())])
def test_all_arguments_are_seen_and_taken(cls, base, without):
    shown = inspect.signature(cls).parameters
    there = inspect.signature(base).parameters
    assert set(shown) == (set(there) - without) | OWN
    for name in set(there) - without:
        assert shown[name] == there[name]
    # By position, which Keras takes from the same list; the configuration has them all.
    assert inspect.getfullargspec(cls.__init__).args == ["self", *list(shown)[:-1]]
    values = [p.default for p in shown.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    layer = cls(*values, name="named")
    assert layer.name == "named" and layer.get_config() == cls(name="named").get_config()
    assert set(layer.get_config()) >= set(shown) - {"kwargs"}
    other = cls(16, discretization="bilinear", seed=3, bidirectional=True)
    reloaded = cls.from_config(other.get_config())
    assert reloaded.get_config() == other.get_config()
    assert (reloaded.discretization, reloaded.seed, reloaded.bidirectional) == ("bilinear", 3, True)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"S4PTD has no argument `init`. Received: init='lin'"):
        S4PTD(init="lin")
    for cls in (S4PTD, S5PTD):
        with pytest.raises(ValueError, match="state_dims"):
            cls(state_dims=8)
        with pytest.raises(TypeError):
            cls(8, state_dim=8)
