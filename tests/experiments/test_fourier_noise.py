"""A wave in every layer: what is added, where, and what the theory says of it."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.linalg import expm

from keras_ssm import initializers
from keras_ssm.experiments import (
    DirectBlock,
    set_fourier_noise,
    time_steps,
    with_fourier_noise,
)
from keras_ssm.layers import DSS, S4, S4D, S4PTD, S5, Mamba, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier

N = 32


def alone(mixer, features):
    """A model of one layer without its skip."""
    inputs = keras.Input((None, features))
    model = keras.Model(inputs, mixer(inputs))
    mixer.D.assign(0 * mixer.D)
    return model


def classifier(mixer, **settings):
    return SSMClassifier(SSMBackbone(mixer, 2, 4, **settings), num_classes=3)


def transfer(A, B, frequency, dt):
    """The states of x' = A x + B u, held between samples, for a wave of that frequency."""
    matrix = np.zeros((len(A) + 1, len(A) + 1))
    matrix[:-1] = dt * np.column_stack([A, B])
    matrix = expm(matrix)
    z = np.exp(1j * frequency * dt)
    return np.linalg.solve(z * np.eye(len(A)) - matrix[:-1, :-1], z * matrix[:-1, -1])


def array(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("perturbation", "size"), [("rank1", 1.0), ("rank1", None), ("optimized", None)]
)
def test_the_spike_has_the_height_that_the_theory_gives(perturbation, size):
    """The wave is multiplied by a transfer function: of S4D-LegS, that of LegS over 1 + b."""
    dt, features, length = 1e-3, 16, 16384
    layer = S4PTD(N, perturbation, size, dt_min=dt, dt_max=dt, seed=0)
    noisy = with_fourier_noise(alone(layer, features), 0.0)
    A, B = initializers.transition("legs", N)
    spike = np.linalg.eigvals(A + 0.5 * np.outer(B, B)).imag.max()
    assert 0.99 < spike / (N**2 / np.pi) < 1.01
    set_fourier_noise(noisy, spike, 1.0, seed=3)
    height = array(keras.random.uniform((1, 1, features), seed=keras.random.SeedGenerator(3)))
    y = array(noisy(np.zeros((1, length, features), "float32")))[0] / height[0]
    wave = np.exp(-1j * spike * dt * np.arange(length))[-2048:, None]
    y = y[-2048:] * np.hanning(2048)[:, None]
    found = np.abs(np.sum(wave * y, axis=0)) / np.hanning(2048).sum() * 2

    system = initializers.ptd(N, perturbation, size)
    C = 2 * np.real((array(layer.C_real) + 1j * array(layer.C_imag))[0] @ system.V_inv[: N // 2])
    own = C @ transfer(A + system.E, np.real(system.V @ system.B), spike, dt)
    np.testing.assert_allclose(found, np.abs(own), rtol=0.01)
    factor = np.abs(own) / np.abs(C @ transfer(A, B, spike, dt))
    b = initializers.blaschke(1j * spike, N)
    if perturbation == "optimized":
        assert 0.9 < factor.mean() < 1.1
    elif size is None:
        assert np.abs(factor - 1).max() < 0.1 / (2 - 2 * 0.1) + 0.01
    else:
        assert 205 < 1 / abs(1 + b) < 210
        np.testing.assert_allclose(factor, 1 / abs(1 + b), rtol=0.05)


def test_each_feature_reads_a_wave_of_its_own_time_step():
    layer = S4D(state_dim=4, dt_min=0.01, dt_max=1.0, seed=0)
    noisy = with_fourier_noise(alone(layer, 3), frequency=2.0, amplitude=0.5, seed=7)
    outputs = array(noisy.predict(np.zeros((2, 12, 3), "float32"), verbose=0))
    height = array(keras.random.uniform((2, 1, 3), seed=keras.random.SeedGenerator(7)))
    dt = np.exp(array(layer.log_dt))[:, 0]
    wave = 0.5 * height * np.cos(2.0 * dt * np.arange(12)[:, None])
    np.testing.assert_allclose(outputs, array(layer(wave.astype("float32"))), atol=1e-5)
    # Another wave, in the program that is already compiled.
    set_fourier_noise(noisy, frequency=2.0, amplitude=1.0, seed=7)
    repeated = array(noisy.predict(np.zeros((2, 12, 3), "float32"), verbose=0))
    np.testing.assert_allclose(repeated, 2 * outputs, atol=1e-5)


def test_a_model_stays_as_it_is_and_its_copy_without_noise_gives_the_same():
    model = classifier(S5(state_dim=4, seed=0))
    x = np.random.default_rng(0).standard_normal((3, 10, 1)).astype("float32")
    before = model.predict(x, verbose=0)
    noisy = with_fourier_noise(model, frequency=1.0, amplitude=0.0)
    np.testing.assert_allclose(noisy.predict(x, verbose=0), before, atol=1e-6)
    set_fourier_noise(noisy, frequency=1.0, amplitude=2.0)
    first = noisy.predict(x, verbose=0)
    assert np.abs(first - before).min() > 1e-4
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    noisy.backbone.blocks[0].mixer.mixer.D.assign(np.zeros(4))
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.backbone.blocks[0].mixer.trainable = False
    frozen = with_fourier_noise(model, frequency=1.0, amplitude=0.0)
    np.testing.assert_allclose(frozen.predict(x, verbose=0), before, atol=1e-6)


@pytest.mark.once("torch")
def test_the_same_seed_gives_the_same_noise_and_each_layer_draws_for_itself():
    model = classifier(S4D(state_dim=4, seed=0))
    noisy, x = with_fourier_noise(model, 1.0, 1.0, seed=5), np.zeros((2, 10, 1), "float32")
    first, second = noisy.predict(x, verbose=0), noisy.predict(x, verbose=0)
    assert np.abs(first - second).max() > 1e-5
    set_fourier_noise(noisy, 1.0, 1.0, seed=5)
    np.testing.assert_array_equal(noisy.predict(x, verbose=0), first)
    states = [array(block.mixer.uniform.state) for block in noisy.backbone.blocks]
    assert states[0][0] != states[1][0]


@pytest.mark.once("torch")
def test_time_steps_of_every_kind_of_layer():
    def built(layer):
        layer.build((None, None, 4))
        return layer

    tied = built(S4(state_dim=4, seed=0))
    np.testing.assert_allclose(time_steps(tied), np.exp(array(tied.log_dt))[:, 0])
    tied.step_scale = 2.0
    np.testing.assert_allclose(time_steps(tied), 2 * np.exp(array(tied.log_dt))[:, 0])
    soft = built(S4D(state_dim=4, dt_transform="softplus", dt_min=0.1, dt_max=0.1))
    np.testing.assert_allclose(time_steps(soft), 0.1, rtol=1e-5)
    free = built(S4D(state_dim=8, dt_tie=False, seed=0))
    fastest = np.abs(array(free.A_imag)).argmax(axis=1)
    np.testing.assert_allclose(time_steps(free), np.exp(array(free.log_dt))[range(4), fastest])
    apart = built(DSS(state_dim=4, sep_dt_re_im=True, seed=0))
    np.testing.assert_allclose(time_steps(apart), np.exp(array(apart.log_dt))[:, 1])
    fixed = built(DSS(state_dim=4, softmax_length=8, fixed_dt=0.25, seed=0))
    fixed.step_scale = 2.0
    np.testing.assert_allclose(time_steps(fixed), 0.5)
    whole = built(S5(state_dim=16, blocks=2, seed=0))
    dt, speed = np.exp(array(whole.log_dt)), np.abs(array(whole.Lambda_imag))
    first, second = speed[:4].argmax(), 4 + speed[4:].argmax()
    np.testing.assert_allclose(time_steps(whole), dt[[first, second, first, second]])


@pytest.mark.once("torch")
def test_what_has_no_such_layer_is_refused():
    with pytest.raises(ValueError, match=r"time-invariant.*Received: model=ssm"):
        with_fourier_noise(classifier(Mamba(state_dim=4)), 1.0)
    with pytest.raises(ValueError, match=r"`model` must be a built.*Received"):
        with_fourier_noise("s4d_digits", 1.0)
    model = classifier(S4D(state_dim=4))
    with pytest.raises(ValueError, match=r"what `with_fourier_noise` returned.*Received"):
        set_fourier_noise(model, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"`frequency` must be a number.*Received"):
        with_fourier_noise(model, float("nan"))
    noisy = with_fourier_noise(model, 1.0)
    with pytest.raises(ValueError, match=r"has no state.*Received"):
        noisy.stream()


@pytest.mark.once("torch")
@pytest.mark.parametrize("prenorm", [True, False])
def test_a_direct_block_lacks_the_residual_sum(prenorm):
    x = np.random.default_rng(0).standard_normal((2, 6, 4)).astype("float32")
    kinds = SSMBlock, DirectBlock
    blocks = [kind(S4D(state_dim=4, seed=0), norm="layer", prenorm=True) for kind in kinds]
    with_sum, without = (array(block(x)) for block in blocks)
    for own, other in zip(blocks[1].weights, blocks[0].weights, strict=True):
        own.assign(other)
    without = array(blocks[1](x))
    np.testing.assert_allclose(without, with_sum - x, atol=1e-5)
    if not prenorm:
        block = DirectBlock.from_config({**blocks[1].get_config(), "prenorm": False})
        block(x)
        assert np.abs(array(block(x)).mean(axis=-1)).max() < 1e-5  # the norm comes last
