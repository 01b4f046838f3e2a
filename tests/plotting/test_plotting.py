"""Pictures show what the layers compute."""

import numpy as np
import pytest
from keras import ops
from keras.layers import Dense

from keras_ssm import plotting
from keras_ssm.initializers import diagonal
from keras_ssm.layers import DSS, LRU, S4, S4D, S4ND, S4PTD, S5, S5PTD, LongConv, SpaceTime
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import companion_matrix

pytestmark = pytest.mark.once("torch")

pytest.importorskip("matplotlib")

FEATURES = 3

FAMILY = {
    "s4d": lambda **kwargs: S4D(state_dim=8, num_ssm=1, **kwargs),
    "s4d_bilinear": lambda **kwargs: S4D(state_dim=8, discretization="bilinear", **kwargs),
    "s4_ptd": lambda **kwargs: S4PTD(state_dim=8, perturbation="rank1", **kwargs),
    "s4": lambda **kwargs: S4(state_dim=8, **kwargs),
    "dss": lambda **kwargs: DSS(state_dim=4, **kwargs),
    "dss_exp": lambda **kwargs: DSS(state_dim=4, variant="exp", **kwargs),
    "s5": lambda **kwargs: S5(state_dim=8, **kwargs),
    "s5_ptd": lambda **kwargs: S5PTD(state_dim=8, conj_sym=False, **kwargs),
    "space_time": lambda **kwargs: SpaceTime(state_dim=8, **kwargs),
    "lru": lambda **kwargs: LRU(state_dim=8, r_min=0.5, r_max=0.7, **kwargs),
}


def built(name, **kwargs):
    layer = FAMILY[name](seed=0, **kwargs)
    layer.build((None, None, FEATURES))
    return layer


def points(axis):
    """The complex numbers of the first scatter of an axis, sorted."""
    return np.sort_complex(axis.collections[0].get_offsets() @ [1, 1j])


# Other initial values or rules of systems that are drawn.
ALIKE = ("s4d_bilinear", "s4_ptd", "s5_ptd", "dss_exp")


@pytest.mark.parametrize(
    ("name", "bidirectional"),
    [*((name, False) for name in FAMILY if name not in ALIKE), ("s4d", True), ("s5", True)],
)
def test_eigenvalues(name, bidirectional):
    layer = built(name, bidirectional=bidirectional)
    axes = plotting.plot_eigenvalues([layer]).axes
    continuous, discrete = points(axes[0]), points(axes[1])
    assert (continuous.real < 0).all() and (np.abs(discrete) < 1).all()
    if name.startswith(("s5", "lru")):
        assert len(continuous) == len(discrete) == 8
    if name.startswith("dss"):
        assert len(continuous) == 4 and len(discrete) == 4 * FEATURES
    if bidirectional:
        return
    if name == "dss":
        layer = built(name, softmax_length=10)
    dA = ops.convert_to_numpy(layer.discretize().dA)
    if name in ("s4", "space_time"):
        whole = (
            dA
            if name == "s4"
            else ops.convert_to_numpy(companion_matrix(ops.convert_to_tensor(dA)))
        )
        expected = np.linalg.eigvals(whole)
    else:
        half = dA.shape[-1] // 2
        expected = dA[..., :half] + 1j * dA[..., half:]
        if not name.startswith("dss") and name not in ("s5_ptd", "lru"):
            expected = np.concatenate([expected, expected.conj()], axis=-1)
    assert distance(discrete, expected.ravel()) < 1e-3
    assert distance(expected.ravel(), discrete) < 1e-3


def distance(these, those):
    """The farthest that any of these is from the nearest of those."""
    return np.abs(these[:, None] - those).min(axis=1).max()


def test_eigenvalues_of_s4_are_those_of_the_dense_matrix():
    # The eigenvalues of LegS, which small sizes keep, mapped by the bilinear rule.
    layer = built("s4", dt_min=0.01, dt_max=0.01)
    axes = plotting.plot_eigenvalues([layer]).axes
    continuous, discrete = points(axes[0]), points(axes[1])
    assert distance(continuous, -np.arange(1.0, 9.0)) < 0.1
    mapped = (1 + 0.005 * continuous) / (1 - 0.005 * continuous)
    assert distance(mapped, discrete) < 1e-3


def answers(layer, length):
    """What the layer makes of an impulse in each input, without the skip D.

    Returns an array `(outputs, inputs, 2 * length)`, with the impulse at step `length`.
    """
    impulses = np.zeros((FEATURES, 2 * length, FEATURES), "float32")
    impulses[range(FEATURES), length, range(FEATURES)] = 1.0
    layer.D.assign(np.zeros(layer.D.shape, "float32"))
    return ops.convert_to_numpy(layer(impulses)).transpose(2, 0, 1)


BOTH = [("s4d", False), ("s4d", True), ("s5", False), ("s5", True), ("s5_ptd", False)]
BOTH += [("lru", False), ("lru", True)]


@pytest.mark.parametrize(("name", "bidirectional"), BOTH)
def test_frequency_response_is_that_of_the_layer(name, bidirectional):
    length = 64
    fast = {} if name == "lru" else {"dt_min": 0.2, "dt_max": 0.4}
    layer = built(name, bidirectional=bidirectional, **fast)
    y = answers(layer, length)
    frequencies = np.fft.rfftfreq(length)[1:]
    wave = np.exp(-2j * np.pi * frequencies[:, None] * np.arange(2 * length))
    expected = np.linalg.norm(y @ wave.T, axis=1)  # (features, frequencies)
    figure = plotting.plot_frequency_response(layer, length=length, features=FEATURES)
    *single, mean = (line.get_ydata() for line in figure.axes[0].lines)
    assert np.allclose(single, expected, atol=2e-4 * expected.max())
    assert np.allclose(mean, np.sqrt(np.mean(expected**2, axis=0)), rtol=1e-2)


@pytest.mark.parametrize(("name", "bidirectional"), BOTH)
def test_kernels_are_those_of_the_layer(name, bidirectional):
    length = 8
    layer = built(name, bidirectional=bidirectional)
    y = answers(layer, length)
    figure = plotting.plot_kernels(layer, length=length, features=FEATURES)
    assert len(figure.axes) == FEATURES
    for output, axis in enumerate(figure.axes):
        *others, own = axis.lines[1:]  # the first is the axis itself
        lags = own.get_xdata()
        assert lags[-1] == length - 1 and (lags[0] < 0) == bidirectional
        expected = y[output][:, lags + length]
        close = {"rtol": 0, "atol": 1e-5 * np.abs(y).max()}
        np.testing.assert_allclose(own.get_ydata(), expected[output], **close)
        if name.startswith(("s5", "lru")):
            curves = [line.get_ydata() for line in others]
            np.testing.assert_allclose(curves, np.delete(expected, output, axis=0), **close)
        else:
            assert not others


def test_kernels_without_a_system():
    layer = LongConv(max_length=8, init="double_exp", seed=0)
    layer.build((None, None, FEATURES))
    figure = plotting.plot_kernels(layer, length=10, features=FEATURES)
    expected = ops.convert_to_numpy(layer.kernel(10))
    curves = [axis.lines[-1].get_ydata() for axis in figure.axes]
    np.testing.assert_allclose(curves, expected, atol=1e-7)
    with pytest.raises(ValueError, match=r"must have modes.*Received: .*LongConv"):
        plotting.plot_timescales(layer)
    with pytest.raises(ValueError, match=r"which have eigenvalues.*Received: .*LongConv"):
        plotting.plot_eigenvalues(layer)


def test_axes_of_images_are_drawn_each():
    layer = S4ND([S4D(4), S5(4)], seed=0)
    layer.build((None, None, None, FEATURES))
    first, second = layer.axis_layers
    _, legend = plotting.plot_eigenvalues(layer).axes
    assert len(legend.get_legend().get_texts()) == 2
    figure = plotting.plot_kernels([layer], length=10, features=FEATURES)
    drawn = np.concatenate([line.get_ydata() for axis in figure.axes for line in axis.lines])
    for one in (first, second):
        kernels = plotting.plot_kernels(one, length=10, features=FEATURES)
        alone = [line.get_ydata() for axis in kernels.axes for line in axis.lines]
        assert all(np.isin(np.round(values, 6), np.round(drawn, 6)).all() for values in alone)


def test_a_layer_a_list_or_a_model():
    backbone = SSMBackbone(S5(state_dim=4), num_layers=3, hidden_dim=4)
    mixers = [block.mixer for block in backbone.blocks]
    for number, mixer in enumerate(mixers):
        mixer.log_dt.assign(mixer.log_dt - number)  # to tell them apart
    task = SSMClassifier(backbone, num_classes=2)
    expected = [points_of(plotting.plot_eigenvalues(mixer)) for mixer in mixers]
    for given in (mixers, backbone, task, backbone.blocks, [backbone.blocks[0], *mixers[1:]]):
        figure = plotting.plot_eigenvalues(given, labels=["a", "b", "c"])
        for collection, points in zip(figure.axes[1].collections, expected, strict=True):
            np.testing.assert_array_equal(collection.get_offsets(), points[0])
    single = plotting.plot_frequency_response(task, length=16).axes[0].lines
    assert [line.get_label() for line in single] == ["layer 0", "layer 1", "layer 2"]
    assert len(plotting.plot_kernels(task, length=4, features=2).axes) == 3 * 2


def points_of(figure):
    return [collection.get_offsets() for collection in figure.axes[1].collections]


def test_initializations():
    figure = plotting.plot_initializations(["lin", "real"], state_dim=8, steps=[0.1])
    lin = figure.axes[0].collections[0].get_offsets()
    assert np.allclose(lin[:, 1], np.abs(diagonal("lin", 8)[0][0].imag))
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels == ["lin\n-0.5", "real\n-1 .. -4"]


@pytest.mark.parametrize(
    ("plot", "match"),
    [
        (lambda: plotting.plot_eigenvalues([]), "built"),
        (lambda: plotting.plot_eigenvalues([S4D()]), "built"),
        (lambda: plotting.plot_eigenvalues([built("s4d")], ["a", "b"]), "labels"),
        (lambda: plotting.plot_kernels(S5()), "built"),
        (lambda: plotting.plot_kernels(built("s5"), length=0), "length"),
        (lambda: plotting.plot_frequency_response(built("s5"), length=3), "length"),
        (lambda: plotting.plot_frequency_response(Dense(2)), "layer"),
        (lambda: plotting.plot_kernels("s5"), "layer"),
        (lambda: plotting.plot_initializations(["none"]), "init"),
    ],
)
def test_errors(plot, match):
    with pytest.raises(ValueError, match=f"{match}(.|\n)*Received: "):
        plot()
