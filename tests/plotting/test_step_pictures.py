"""Pictures of steps and of time scales show what there is."""

import numpy as np
import pytest

from keras_ssm import plotting
from keras_ssm.layers import DSS, S4, S4D, S5, Mamba
from keras_ssm.models import Detection, SSMBackbone, SSMClassifier
from keras_ssm.plotting.timescales import time_scales

pytestmark = pytest.mark.once("torch")

pytest.importorskip("matplotlib")


def built(layer, features=3):
    layer.build((None, None, features))
    return layer


def test_steps_lie_below_the_samples_that_they_end_with():
    signal, probabilities = np.arange(40.0), np.random.default_rng(0).random((10, 12))
    event = Detection(row=0, label=3, start=2, end=5, peak=4, score=0.9)
    figure = plotting.plot_step_predictions(
        signal, probabilities, [f"c{i}" for i in range(12)], 20.0, [event], np.repeat([3, 11], 5)
    )
    above, below = figure.axes
    assert above.lines[0].get_xdata()[-1] == pytest.approx(39 / 20)
    curves = [line for line in below.lines if len(line.get_xdata()) == 10]
    assert len(curves) == 8 and curves[0].get_xdata()[[0, -1]] == pytest.approx([0.2, 2.0])
    shown = [text.get_text() for text in below.get_legend().get_texts()]
    highest = np.sort(probabilities.max(axis=0).argsort()[-8:])
    assert shown == [f"c{i}" for i in highest]
    (span,) = above.patches
    assert (span.get_x(), span.get_width()) == pytest.approx((0.4, 0.6))
    single = plotting.plot_step_predictions(signal[:, None], probabilities[:, 0])
    assert single.axes[1].get_xlabel() == "samples"


def test_refusals():
    signal, probabilities = np.zeros(40), np.zeros((10, 2))
    for arguments, match in (
        ((np.zeros((1, 40, 2)), probabilities), "`signal`"),
        ((signal, probabilities, ["one"]), "name 2 classes"),
        ((signal, probabilities, None, 0), "sampling_rate"),
        ((signal, probabilities, None, None, (), np.zeros(40)), "`truth`"),
    ):
        with pytest.raises(ValueError, match=match):
            plotting.plot_step_predictions(*arguments)
    with pytest.raises(ValueError, match="a Mamba"):
        plotting.plot_timescales(SSMBackbone(Mamba(2), num_layers=1, hidden_dim=4))
    with pytest.raises(ValueError, match="sampling_rate"):
        plotting.plot_timescales(built(S4D(4)), sampling_rate=-1)


def test_time_scales_are_those_of_the_weights():
    layer = built(S4D(4, init="lin", dt_min=0.01, dt_max=0.01, seed=0))  # Re A = -1/2
    scales, weights = time_scales(layer)
    np.testing.assert_allclose(scales, 200.0, rtol=1e-5)
    assert weights.sum() == pytest.approx(1.0) and len(scales) == 6
    layer.step_scale = 2.0
    np.testing.assert_allclose(time_scales(layer)[0], 100.0, rtol=1e-5)
    layer.C_real.assign(np.where(np.arange(2) == 1, layer.C_real, 0.0))
    layer.C_imag.assign(np.where(np.arange(2) == 1, layer.C_imag, 0.0))
    assert time_scales(layer)[1].reshape(3, 2)[:, 0].max() == 0.0
    # LegS itself, from -1 to -4, under the bilinear rule.
    scales, weights = time_scales(built(S4(4, dt_min=0.01, dt_max=0.01, seed=0)))
    assert weights is None
    np.testing.assert_allclose(np.sort(scales)[::3], [25, 100 / 3, 50, 100], rtol=1e-2)


@pytest.mark.parametrize("mixer", [S5(4, seed=0), DSS(4, seed=0), DSS(4, variant="exp", seed=0)])
def test_energies_are_those_of_single_modes(mixer):
    """Where one mode alone is read, the whole kernel is its own."""
    layer = built(mixer)
    scales, weights = time_scales(layer)
    assert (scales > 0).all() and weights.sum() == pytest.approx(1.0)
    for C in (layer.C_real, layer.C_imag):
        C.assign(np.where(np.arange(C.shape[-1]) == 0, C, 0.0))
    shares = time_scales(layer)[1].reshape(-1, layer.C_real.shape[-1])
    assert shares[:, 0].sum() == pytest.approx(1.0)


def test_a_picture_of_a_model():
    backbone = SSMBackbone(S4D(8, seed=0), num_layers=2, hidden_dim=4)
    figure = plotting.plot_timescales(SSMClassifier(backbone, 2), sampling_rate=100)
    assert [axis.get_ylabel() for axis in figure.axes] == ["layer 0", "layer 1"]
    assert "seconds" in figure.axes[-1].get_xlabel()
    fills = [patch.get_data() for patch in figure.axes[0].patches]
    assert [data.values.sum() for data in fills] == pytest.approx([1.0, 1.0])
    assert len(plotting.plot_timescales(built(S4(4))).axes[0].patches) == 1
