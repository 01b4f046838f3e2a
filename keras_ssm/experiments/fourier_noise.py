"""A model with a wave of one frequency added to the input of every state-space layer."""

import copy

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_number
from keras_ssm.layers import S5, SequenceMixer, SSMLayer
from keras_ssm.layers.mixer_config import mixer_from_config
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class NoisyMixer(SequenceMixer):
    """A state-space layer that reads its input plus amplitude * U * cos(angle * step).

    U is uniform in [0, 1), one number for each row and feature of each call. `with_fourier_noise`
    puts these in the place of the layers of a model, and `set_fourier_noise` sets the wave.

    Args:
        mixer: `keras_ssm.layers.SSMLayer`, unbuilt.
        **kwargs: Arguments of `SequenceMixer`.
    """

    streams = False

    def __init__(self, mixer: SSMLayer, **kwargs):
        super().__init__(**kwargs)
        self.mixer = mixer_from_config(mixer)
        self.causal = self.mixer.causal
        self.channels = self.mixer.channels
        self.call_arguments = self.mixer.call_arguments
        self.uniform = keras.random.SeedGenerator(self.seed or 0)

    def build_system(self, features: int) -> None:
        self.mixer.build((None, None, features))
        self.amplitude = self.add_system_weight("amplitude", np.zeros(()), trainable=False)
        self.angle = self.add_system_weight("angle", np.zeros(features), trainable=False)

    def output_features(self, features: int) -> int:
        return self.mixer.output_features(features)

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        training: bool | None = None,
        **arguments,
    ) -> Tensor:
        if initial_state is not None or return_state:
            self.check_has_state()
        x = ops.cast(ops.convert_to_tensor(x), self.system_dtype)
        batch, length, features = ops.shape(x)
        steps = ops.cast(ops.arange(length), self.system_dtype)[:, None]
        heights = keras.random.uniform(
            (batch, 1, features), dtype=self.system_dtype, seed=self.uniform
        )
        x = x + self.amplitude * heights * ops.cos(self.tensor(self.angle) * steps)
        return ops.cast(self.mixer(x, mask=mask, **arguments), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "mixer": keras.layers.serialize(self.mixer)}


def with_fourier_noise(
    model: keras.Model, frequency: float, amplitude: float = 0.1, seed: int = 0
) -> keras.Model:
    """Returns a copy of a model in which every state-space layer hears a wave.

    Feature h of a layer reads its input plus amplitude * U * cos(frequency * dt_h * l) at step l,
    with U uniform in [0, 1) for each row and feature: a wave of one frequency in the time of the
    continuous system, wherever dt has put that system. Where frequency is that of a pole, every
    feature meets the resonance of its own system. At N^2 / pi is the largest spike of S4D-LegS.

    `S5` has a dt for each mode and none for each feature. There dt_h is that of the fastest mode,
    whose resonance it is; features of a layer with several blocks take those of the blocks in turn.

    Args:
        model: built model whose blocks or layers hold state-space layers: a classifier or another
            task, a backbone, or a functional model of Keras. It is left as it is.
        frequency: float. Angular frequency, in units of the system's time.
        amplitude: float. Largest height of the wave. Defaults to `0.1`.
        seed: int. Seed of U. Defaults to `0`.

    Returns:
        A `keras.Model` with weights of its own, not compiled. It has no states and does not
        stream.

    Raises:
        ValueError: for a model without a time-invariant state-space layer, a frequency or an
            amplitude that is no number, or a model that cannot be made anew from its configuration.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        noisy = keras_ssm.experiments.with_fourier_noise(model, frequency=100.0)
        noisy.predict(np.zeros((2, 64), "float32"), verbose=0)
        keras_ssm.experiments.set_fourier_noise(noisy, frequency=50.0, amplitude=1.0)
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), section 5.1; the released script `robustness.py`.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"`model` must be a built Keras model. Received: model={model}")
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    noisy = keras.saving.deserialize_keras_object(_wrapped(config))
    mixers = _noisy_mixers(noisy)
    if not mixers:
        raise ValueError(
            "`model` must hold a time-invariant state-space layer, such as `S4D` or `S5`. "
            f"Received: model={model.name}"
        )
    noise_weights = {id(weight) for mixer in mixers for weight in (mixer.amplitude, mixer.angle)}
    weights = [weight for weight in noisy.weights if id(weight) not in noise_weights]
    for weight, original in zip(weights, model.weights, strict=True):
        # A copy, since `predict` on JAX donates the arrays of a model.
        weight.assign(ops.convert_to_numpy(original))
    set_fourier_noise(noisy, frequency, amplitude, seed)
    return noisy


def set_fourier_noise(
    noisy: keras.Model, frequency: float, amplitude: float, seed: int = 0
) -> None:
    """Sets another wave in a model that `with_fourier_noise` returned; nothing is compiled anew.

    Args:
        noisy: `keras.Model`.
        frequency: float. Angular frequency, in units of the system's time.
        amplitude: float. Largest height of the wave.
        seed: int. Seed of U. Defaults to `0`.

    Raises:
        ValueError: for another model, or a frequency or amplitude that is no number.

    Example:
        ```python
        noisy = keras_ssm.experiments.with_fourier_noise(model, frequency=100.0)
        keras_ssm.experiments.set_fourier_noise(noisy, frequency=50.0, amplitude=1.0)
        ```
    """
    check_number("frequency", frequency)
    check_number("amplitude", amplitude)
    mixers = _noisy_mixers(noisy)
    if not mixers:
        raise ValueError(
            f"`noisy` must be what `with_fourier_noise` returned. Received: noisy={noisy}"
        )
    for number, noise in enumerate(mixers):
        noise.amplitude.assign(amplitude)
        # Reduced to one turn in double precision: angles may be large, and steps multiply them.
        angle = np.mod(frequency * time_steps(noise.mixer), 2 * np.pi)
        noise.angle.assign(angle.astype("float32"))
        state = noise.uniform.state
        state.assign(ops.cast(np.array([seed + number, 0]), state.dtype))


def time_steps(mixer: SSMLayer) -> np.ndarray:
    """Returns dt of each feature of a layer, float64 `(features,)`; see `with_fourier_noise`.

    Args:
        mixer: built `keras_ssm.layers.SSMLayer` with a dt, such as `S4D` or `S5`.

    Raises:
        ValueError: for a layer without one.

    Example:
        ```python
        layer = keras_ssm.layers.S4D(state_dim=4, dt_min=0.01, dt_max=0.01)
        layer.build((None, None, 3))
        keras_ssm.experiments.time_steps(layer)  # 0.01 three times
        ```
    """
    if hasattr(mixer, "inv_dt"):
        dt = np.logaddexp(0.0, _array(mixer.inv_dt))
    elif hasattr(mixer, "log_dt"):
        dt = np.exp(_array(mixer.log_dt))
    elif getattr(mixer, "fixed_dt", None) is not None:
        dt = np.full((mixer.features, 1), mixer.fixed_dt)
    else:
        raise ValueError(f"`mixer` must have a dt. Received: {type(mixer).__name__}")
    dt = dt * float(ops.convert_to_numpy(mixer.step_scale))
    if isinstance(mixer, S5):
        fastest = np.argsort(-np.abs(_array(mixer.Lambda_imag)), kind="stable")[: mixer.blocks]
        return np.resize(dt[fastest], mixer.features)
    if dt.shape[1] == 1:
        return dt[:, 0]
    if not hasattr(mixer, "dt_tie"):
        return dt[:, -1]  # the dt of the imaginary parts
    fastest = np.abs(_array(mixer.A_imag)).argmax(axis=1)
    return dt[np.arange(len(dt)), np.resize(fastest, len(dt))]


def _array(weight):
    return ops.convert_to_numpy(weight).astype("float64")


def _noisy_mixers(model):
    layers = model._flatten_layers() if isinstance(model, keras.Model) else ()
    return list({id(layer): layer for layer in layers if isinstance(layer, NoisyMixer)}.values())


def _wrapped(node):
    """A configuration with a `NoisyMixer` around every time-invariant layer."""
    if isinstance(node, (list, tuple)):
        return type(node)(map(_wrapped, node))
    if not isinstance(node, dict):
        return node
    name = node.get("registered_name")
    layer_class = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if not (isinstance(layer_class, type) and issubclass(layer_class, SSMLayer)):
        # The copy is not trained, and its layers have other paths than those that were frozen.
        return {key: _wrapped(value) for key, value in node.items() if key != "frozen"}
    inner = {key: node[key] for key in ("module", "class_name", "config", "registered_name")}
    settings = {key: node["config"][key] for key in ("name", "dtype", "seed")}
    return {
        **{key: value for key, value in node.items() if key != "build_config"},
        "module": "keras_ssm",
        "class_name": NoisyMixer.__name__,
        "registered_name": f"keras_ssm>{NoisyMixer.__name__}",
        "config": {**settings, "mixer": copy.deepcopy(inner)},
    }
