"""How loud untrained layers answer to a wave."""

import keras
import numpy as np

from keras_ssm.checks import check_choice, check_positive
from keras_ssm.experiments.fourier_noise import set_fourier_noise, with_fourier_noise
from keras_ssm.experiments.ptd_recipe import MIXERS, S5_SYSTEMS

SYSTEMS = tuple(system for system in MIXERS if system not in S5_SYSTEMS)


def heard_waves(
    frequencies: np.ndarray,
    systems: tuple[str, ...] = SYSTEMS,
    state_dim: int = 32,
    length: int = 784,
    features: int = 64,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns how loud untrained layers answer to a wave of each frequency and height 1.

    Each layer reads nothing but the wave of `with_fourier_noise`, without its skip D. All of them
    have the same dt.

    Args:
        frequencies: array of angular frequencies, in units of the systems' time.
        systems: names of `PTDNoise.systems` with a dt for each feature. Defaults to all such.
        state_dim: int. Size N of the state. Defaults to `32`.
        length: int. Steps. Defaults to `784`.
        features: int. Features of the layer. Defaults to `64`.
        dt_min, dt_max: float. Range of dt. Default to `1e-3` and `1e-1`.
        seed: int. Of dt, C and U. Defaults to `0`.

    Returns:
        Dict from a system to the root mean square of its outputs, one for each frequency.

    Raises:
        ValueError: for an unknown system, or sizes below 1.

    Example:
        ```python
        heard = keras_ssm.experiments.heard_waves([50.0, 325.4], ["s4d_legs", "s4ptd"], length=100)
        ```
    """
    check_positive(state_dim=state_dim, length=length, features=features)
    levels_of, silence = {}, np.zeros((8, length, features), "float32")
    for system in systems:
        check_choice("system", system, SYSTEMS)
        mixer = MIXERS[system](state_dim=state_dim, dt_min=dt_min, dt_max=dt_max, seed=seed)
        inputs = keras.Input((length, features))
        noisy = with_fourier_noise(keras.Model(inputs, mixer(inputs)), 0.0, 1.0)
        (layer,) = (layer.mixer for layer in noisy.layers[1:])
        layer.D.assign(0 * layer.D)
        levels = []
        for frequency in frequencies:
            set_fourier_noise(noisy, float(frequency), 1.0, seed)
            levels.append(np.sqrt(np.mean(noisy.predict_on_batch(silence).astype("float64") ** 2)))
        levels_of[system] = np.array(levels)
    return levels_of
