"""Tensors of one layer of state-spaces/s4, by their names in versions 2, 3 and 4.

Minimal S4D (`models/s4/s4d.py`) and the DSS layer of ag1988/dss have kernels of their own.
"""

import functools

import numpy as np

from keras_ssm.checks import check_choice
from keras_ssm.convert.formats.truncated_c import plain_C
from keras_ssm.convert.mapping import WeightMap, complex_parts, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import S4, S4D

TRANSFORMS = {
    "none": same,
    "exp": np.exp,
    "relu": lambda x: np.maximum(x, 0) + 1e-4,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
}

# Buffers of the frequency-domain kernel: nodes of a transform of one length.
NODES = ("omega", "z")

# Options of the official block that change its arithmetic and have no counterpart here.
WITHOUT_COUNTERPART = {
    "gate": (None,),
    "bottleneck": (None,),
    "mult_act": (None,),
    "weight_norm": (False, None),
    "disc": ("zoh", "bilinear"),
    "hyper_act": (None,),
}


def find_kernel(tensors, stem):
    """Which version of the layer stands at `stem`, and its prefixes.

    Returns:
        Tuple `(version, outer, kernel)`: `"v4"`, `"v3"`, `"v2"`, `"minimal"` or `"dss"`, the
        prefix of D, and the prefix of the kernel's tensors.

    Raises:
        ValueError: if there is no such layer.
    """
    for version, outer, kernel, name in (
        ("v4", "layer.", "layer.kernel.", "inv_dt"),
        ("v3", "", "kernel.kernel.", "inv_w_real"),
        ("v3", "", "kernel.kernel.", "log_w_real"),
        ("v3", "", "kernel.kernel.", "inv_A_real"),
        ("v2", "", "kernel.kernel.", "w"),
        ("minimal", "", "kernel.", "log_A_real"),
        ("dss", "", "kernel.", "W"),
    ):
        if f"{stem}{kernel}{name}" in tensors:
            return version, stem + outer, stem + kernel
    candidates = sorted(n for n in tensors.arrays if n.startswith(stem)) or sorted(tensors.arrays)
    raise ValueError(
        f"The tensors at '{stem}' must be those of S4, S4D or DSS as published "
        f"(kernel.C, log_dt or inv_dt, ...). Received: {', '.join(candidates[:8])}"
    )


def check_supported(hyper):
    """Raises a `ValueError` for an option of the official layer that we do not have."""
    for name, allowed in WITHOUT_COUNTERPART.items():
        value = hyper.get(name)
        if name in hyper and value not in allowed:
            raise ValueError(
                f"A checkpoint trained with the option `{name}` of the official layer cannot be "
                f"converted. Received: {name}={value!r}"
            )


def s4_mixer(tensors, stem, settings, hyper):
    """The mixer of the layers.

    Args:
        tensors: `Tensors`.
        stem: str. Prefix of the first layer.
        settings: `Settings`.
        hyper: dict. Hyper-parameters of the layer, official names.

    Returns:
        `S4` or `S4D`, unbuilt.
    """
    check_supported(hyper)
    version, outer, kernel = find_kernel(tensors, stem)
    as_published = "softplus" if version == "v4" and stem.startswith("model.") else "exp"
    channels = tensors.shape(f"{outer}D")[0]
    return kernel_mixer(tensors, version, kernel, channels, settings, hyper, as_published)


def kernel_mixer(tensors, version, kernel, channels, settings, hyper, dt_transform):
    """The mixer of a kernel, of S4 or S4D, unbuilt.

    Args:
        tensors: `Tensors`.
        version: str. As `find_kernel` gives it.
        kernel: str. Prefix of the tensors of the kernel.
        channels: int. Channels of the kernel in each direction.
        settings: `Settings`.
        hyper: dict. Hyper-parameters of the layer, official names.
        dt_transform: str. The published default.
    """
    low_rank, C = f"{kernel}P" in tensors, tensors.shape(f"{kernel}C")
    if version == "minimal":
        features, modes = C[:2]
        shapes = {"num_ssm": features, "channels": 1, "bidirectional": False}
    else:
        names = ("A_real", "w", "inv_w_real", "log_w_real", "inv_A_real")
        copies, modes = tensors.shape(tensors.first(*(kernel + n for n in names)))[:2]
        shapes = {
            "num_ssm": copies,
            "channels": channels,
            "bidirectional": C[0] == 2 * channels,
        }
    arguments = {"state_dim": 2 * modes, **shapes}
    arguments = {name: settings.derive(name, value) for name, value in arguments.items()}
    if version == "minimal":
        arguments["dt_transform"] = settings.derive("dt_transform", "exp")
        arguments["discretization"] = settings.derive("discretization", "zoh")
    else:
        transform = _transform(settings, "dt_transform", dt_transform, hyper)
        _transform(settings, "real_transform", "exp", hyper, "real_type")
        _transform(settings, "imag_transform", "none", hyper)
        # Steps of other transforms are stored as log dt.
        arguments["dt_transform"] = transform if _trained_as_is(settings, hyper) else "exp"
    if low_rank:
        arguments["rank"] = settings.derive("rank", tensors.shape(f"{kernel}P")[0])
        arguments["discretization"] = settings.derive("discretization", "bilinear")
        if hyper.get("bandlimit") is not None:
            raise ValueError(
                "S4 with a band limit cannot be converted: only S4D has one. "
                f"Received: bandlimit={hyper['bandlimit']}"
            )
    elif version != "minimal":
        arguments["discretization"] = settings.choose(
            "discretization", "bilinear" if version == "v3" else "zoh", hyper.get("disc", UNSET)
        )
        arguments["bandlimit"] = settings.choose("bandlimit", None, hyper.get("bandlimit", UNSET))
    if version == "v4":
        tied = settings.derive("dt_tie", tensors.shape(f"{kernel}inv_dt")[1] == 1)
        if low_rank and not tied:
            raise ValueError("S4 must have one step a feature. Received: a step for each mode")
        if not low_rank:
            arguments["dt_tie"] = tied
    cls = S4 if low_rank else S4D
    # Every initial value is replaced: the simplest will do.
    arguments["init"] = settings.published("init", "lin")
    return cls(**settings.arguments(cls, arguments))


def s4_weight_maps(tensors, stem, target, settings, hyper):
    """The weight maps of one layer of S4 or S4D, from any version.

    Args:
        tensors: `Tensors`.
        stem: str. Prefix of the layer.
        target: str. Path of the mixer from the task model.
        settings: `Settings`, as `s4_mixer` left them.
        hyper: dict. Hyper-parameters of the layer.
    """
    version, outer, kernel = find_kernel(tensors, stem)
    yield WeightMap(f"{target}.D", (f"{outer}D",), lambda x: x.reshape(-1, x.shape[-1]))
    yield from kernel_weight_maps(tensors, version, kernel, target, settings, hyper)


def kernel_weight_maps(tensors, version, kernel, target, settings, hyper):
    """The weight maps of a kernel, all but D; see `s4_weight_maps`."""
    if version == "minimal":
        yield from _minimal(tensors, kernel, target)
        return
    for name in NODES:
        tensors.drop(f"{kernel}{name}", "bound to one length")
    dt, dt_target, dt_note = _step(tensors, kernel, settings, hyper)
    yield WeightMap(f"{target}.{dt_target[0]}", (dt,), dt_target[1], dt_note, linear=not dt_note)
    A, real, imag = _eigenvalues(tensors, kernel, version, settings)
    yield WeightMap(f"{target}.log_A_real", *real)
    yield WeightMap(f"{target}.A_imag", *imag)
    yield from complex_parts(f"{target}.B", (f"{kernel}B",), _first, "")
    if f"{kernel}P" not in tensors:
        yield from complex_parts(f"{target}.C", (f"{kernel}C",), _pairs, "")
        return
    yield from complex_parts(f"{target}.P", (f"{kernel}P",), _pairs, "")
    if f"{kernel}Q" in tensors:
        _check_Q(tensors, kernel)
    yield from _C_from_truncated(tensors, kernel, target, dt, A, settings, hyper)


def trained_length(tensors, kernel):
    """The kernel length that C~ is bound to, and the name of the tensor that says so."""
    name = tensors.first(f"{kernel}l_kernel", f"{kernel}L", f"{kernel}omega")
    if name is None:
        return 0, None
    if name.endswith("omega"):  # the nodes of the transform, exp(-2 pi i j / length)
        length = round(2 * np.pi / abs(np.angle(_as_complex(tensors[name])[1])))
    else:
        length = int(tensors[name])
    if length < 0:
        raise ValueError(f"A length of the kernel must be positive. Received: {name}={length}")
    return length, name


def _minimal(tensors, kernel, target):
    yield WeightMap(f"{target}.log_dt", (f"{kernel}log_dt",), lambda x: x[:, None])
    yield WeightMap(f"{target}.log_A_real", (f"{kernel}log_A_real",), same)
    yield WeightMap(f"{target}.A_imag", (f"{kernel}A_imag",), same)
    shape = tensors.shape(f"{kernel}A_imag")
    yield WeightMap(f"{target}.B_real", (), lambda: np.ones(shape), "1: B is within C")
    yield WeightMap(f"{target}.B_imag", (), lambda: np.zeros(shape), "0: B is within C")
    yield from complex_parts(f"{target}.C", (f"{kernel}C",), lambda x: x[None], "")


def _step(tensors, kernel, settings, hyper):
    """Name of the tensor, `(weight, function)` and note of the step."""
    name = tensors.first(f"{kernel}inv_dt", f"{kernel}log_dt")
    column = lambda x: x.reshape(len(x), -1)
    transform = settings.rows["dt_transform"][0]
    if _trained_as_is(settings, hyper):
        return name, ("log_dt" if transform == "exp" else "inv_dt", column), ""
    step = lambda x: np.log(_dt(column(x), settings, hyper))
    return name, ("log_dt", step), f"log {transform}"


def _trained_as_is(settings, hyper):
    exact = settings.rows["dt_transform"][0] in ("exp", "softplus")
    return exact and not hyper.get("dt_fast")


def _dt(x, settings, hyper):
    x = np.sinh(x) if hyper.get("dt_fast") else x
    return TRANSFORMS[settings.rows["dt_transform"][0]](x)


def _eigenvalues(tensors, kernel, version, settings):
    """A function of the arrays, and the rest of the weight maps of its real and imaginary part."""
    if version == "v2":
        w = f"{kernel}w"
        return (
            ((w,), _as_complex),
            ((w,), lambda x: _log(-_as_complex(x).real), "log -w", False),
            ((w,), lambda x: _as_complex(x).imag, "imag part"),
        )
    real_name, imag_name, sign = f"{kernel}A_real", f"{kernel}A_imag", -1.0
    if version == "v3":
        names = ("inv_w_real", "log_w_real", "inv_A_real")
        real_name = tensors.first(*(kernel + name for name in names))
        imag_name, sign = tensors.first(f"{kernel}w_imag", f"{kernel}A_imag"), 1.0
    T_real = settings.rows["real_transform"][0]
    T_imag = settings.rows["imag_transform"][0]
    real, imag = TRANSFORMS[T_real], TRANSFORMS[T_imag]
    as_is = T_real == "exp"
    log_real = same if as_is else (lambda x: _log(real(x)))
    note = "" if as_is else f"log {T_real}"
    if imag_name not in tensors:
        # A system of real modes.
        shape = tensors.shape(real_name)
        return (
            ((real_name,), lambda x: -real(x) + 0j),
            ((real_name,), log_real, note, as_is),
            ((), lambda: np.zeros(shape), "0: real modes"),
        )
    imag_note = {-1.0: "negated", 1.0: ""}[sign] if T_imag == "none" else f"-{T_imag}"
    return (
        ((real_name, imag_name), lambda x, y: -real(x) + 1j * sign * imag(y)),
        ((real_name,), log_real, note, as_is),
        ((imag_name,), lambda x: sign * imag(x), imag_note, T_imag == "none"),
    )


def _C_from_truncated(tensors, kernel, target, dt, A, settings, hyper):
    """C from C~."""
    length, name = trained_length(tensors, kernel)
    if name is not None:
        tensors.drop(name, f"bound to the length {length} of C~, which is undone")
    if not length:
        yield from complex_parts(f"{target}.C", (f"{kernel}C",), _pairs, "")
        return
    names, eigenvalues = A

    @functools.cache
    def solved():
        float64 = lambda name: tensors.arrays[name].astype("float64")
        step = float64(dt)
        return plain_C(
            _as_complex(float64(f"{kernel}C")),
            eigenvalues(*map(float64, names)),
            _as_complex(float64(f"{kernel}P")),
            _dt(step.reshape(len(step), -1), settings, hyper),
            length,
        )

    condition = solved()[1]
    note = f"C~ (I - dA^{length})^-1, condition {condition:.1e}, "
    sources = (f"{kernel}C",)
    yield from complex_parts(f"{target}.C", sources, lambda _: solved()[0], note, linear=False)


def _transform(settings, name, default, hyper, formerly=""):
    file = hyper.get(name, hyper.get(formerly, UNSET))
    value = settings.choose(name, default, file)
    check_choice(name, value, TRANSFORMS)
    return value


def _check_Q(tensors, kernel):
    P, Q = (_as_complex(tensors[f"{kernel}{name}"]) for name in "PQ")
    if np.abs(Q - P.conj()).max() > 1e-5 * np.abs(P).max():
        raise ValueError(
            f"'{kernel}Q' must be the conjugate of P: with both trained apart, the matrix "
            "A - P Q^T is none that S4 holds. Received: another Q"
        )
    tensors.drop(f"{kernel}Q", "the conjugate of P")


def _log(x):
    if not (x > 0).all():
        raise ValueError(
            "Eigenvalues must have a negative real part. "
            f"Received: real parts up to {float(-x.min()):.3g}"
        )
    return np.log(x)


def _as_complex(x):
    """A complex array of one whose last axis of 2 holds real and imaginary part."""
    return x if x.dtype.kind == "c" else x[..., 0] + 1j * x[..., 1]


def _pairs(x):
    """Real and imaginary part on the last axis, of complex numbers or of real ones."""
    return x if x.dtype.kind == "c" or x.ndim == 4 else x + 0j


def _first(x):
    return _pairs(x)[0]
