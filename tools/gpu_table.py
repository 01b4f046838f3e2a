"""Times of the layers on an NVIDIA GPU, as the page on performance has them, in a CSV file.

    KERAS_BACKEND=torch python tools/gpu_table.py docs/performance/results/h100-torch.csv

Each row is a layer, a sequence and a way of calling: `eager`, or `graph` for the replays of a CUDA
graph (PyTorch), `jit` (JAX). Forward and training, the gradients of the input and of all weights
for a given gradient of the output, are medians in milliseconds; `floor` is two and five passes over
the sequence at the bandwidth that a copy reached just before, and memory is that of the training
pass in sequences. A layer by another method than its own has it in brackets, `S4 (fft)`:
`tools/method_table.py` reads that. `block of S4D` is the layer in an `SSMBlock`. On JAX `S4D,
portable` is the layer without its GPU kernels. Rows of the form `fit` have the milliseconds of a
training step of a classifier of four blocks, and rows `step ...` those of a streamed step of six
layers. The file begins with the machine, the command and the day. What fails, such as for want of
memory, is said and left out.

On a machine without a GPU the same runs on the processor, which shows that nothing fails.
"""

import csv
import functools
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_ssm import layers, machine
from keras_ssm.benchmark.sections import fit, stream
from keras_ssm.benchmark.yardsticks import published
from keras_ssm.ops import backend

SHAPES = [(16, 1024, 512), (16, 4096, 512), (16, 16384, 512), (4, 65536, 512)]
STATE, STATE_OF_MAMBA = 64, 16
# Batch, length, width, blocks and state of the classifiers, and layers and width of the streams.
FITS = [(32, 1024, width, 4, STATE) for width in (128, 512)]
STREAM = 6, 128
SECONDS = 0.12  # for each time
BLOCK = "block of "
NAMES = ["S4D", "S4", "DSS", "S5", "S4PTD", "Mamba", f"{BLOCK}S4D"]
BY_OTHER_METHODS = [("S4D", "fft"), ("S4", "fft")]
TRAINED, STREAMED = ["S4D", "S4", "DSS", "S5"], ["S4D", "S4", "S5"]
COLUMNS = ["card", "backend", "layer", "dtype", "form", "batch", "length", "features", "state"]
COLUMNS += ["forward", "training", "forward_floor", "training_floor", "memory"]
BACKEND = keras.config.backend()


def made(name, features, dtype="float32", **options):
    options |= {"variant": "exp"} if name == "DSS" else {}
    state = STATE_OF_MAMBA if name == "Mamba" else STATE
    kind = getattr(layers, name.removeprefix(BLOCK))
    layer = kind(state_dim=state, seed=0, dtype=dtype, **options)
    if name.startswith(BLOCK):
        layer = layers.SSMBlock(layer, dtype=dtype)
    layer.build((None, None, features))
    return layer


def as_published(name, features):
    """The published formulation as a function of weights and the sequence, and its weights."""
    layer, (function, features_last) = made(name, features), published(name)

    def call(weights, x):
        if features_last:
            return function(weights, x)
        return keras.ops.transpose(function(weights, keras.ops.transpose(x, (0, 2, 1))), (0, 2, 1))

    return call, {v.name: v.value for v in layer.trainable_variables}


def median(function, wait):
    """Milliseconds; on PyTorch between two events on the card."""
    for _ in range(3):
        function()
    wait()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 100):
        times.append(_timed(function, wait))
    return statistics.median(times)


def _timed(function, wait):
    if BACKEND == "torch" and on_card():
        import torch

        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        wait()
        return start.elapsed_time(stop)
    start = time.perf_counter()
    function()
    wait()
    return 1e3 * (time.perf_counter() - start)


def on_card():
    return backend.device_name() != "cpu"


def wait_for_card():
    """Waits until PyTorch's card has done its work."""
    if on_card():
        import torch

        torch.cuda.synchronize()


def on_torch(call, weights, shape, dtype="float32"):
    """Yields `(form, forward, training, memory)`."""
    import torch

    device = "cuda" if on_card() else "cpu"
    x = torch.randn(shape, device=device, dtype=getattr(torch, dtype), requires_grad=True)
    upstream = torch.randn_like(x)

    def forward():
        with torch.no_grad():
            return call(x)

    def training():
        return torch.autograd.grad(call(x), [*weights, x], upstream)

    times, memory = [median(function, wait_for_card) for function in (forward, training)], None
    if on_card():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training()
        wait_for_card()
        memory = (torch.cuda.max_memory_allocated() - before) / (x.numel() * x.element_size())
    yield "eager", *times, memory
    if on_card():
        yield "graph", *(_replayed(function) for function in (forward, training)), None


def _replayed(function):
    from keras_ssm.ops.backend.torch import recording

    kept, replay = recording.capture(function)
    found = median(replay, wait_for_card)
    del kept
    return found


def on_jax(function, weights, shape, dtype="float32"):
    """What `on_torch` yields, of a function of weights and the sequence."""
    import jax
    import jax.numpy as jnp

    x, upstream = (jnp.asarray(np.random.default_rng(i).normal(size=shape), dtype) for i in (1, 2))
    run = jax.jit(function)
    step = jax.jit(lambda w, x, c: jax.vjp(function, w, x)[1](c))
    memory = step.lower(weights, x, upstream).compile().memory_analysis()
    both = [
        median(lambda: jax.block_until_ready(run(weights, x)), lambda: None),
        median(lambda: jax.block_until_ready(step(weights, x, upstream)), lambda: None),
    ]
    used = memory.temp_size_in_bytes + memory.output_size_in_bytes
    yield "jit", *both, used / x.nbytes


def layer_rows(shapes):
    """Yields functions without arguments, each of which yields rows of a layer."""
    for shape in shapes:
        bandwidth = _bandwidth(shape)
        known = functools.partial(_known, shape, bandwidth)
        of_layer = functools.partial(_of_layer, shape=shape)
        for name in NAMES:
            yield known(name, functools.partial(of_layer, name))
        for name, method in BY_OTHER_METHODS:
            form = functools.partial(of_layer, name, method=method)
            yield known(f"{name} ({method})", form)
        for name in ("S4D", "S4", "DSS", "S5"):
            form = functools.partial(_of_published, name, shape)
            yield known(f"{name} as published", form)
        for name in ("S4D", "DSS"):
            form = functools.partial(of_layer, name, dtype="bfloat16")
            yield known(name, form, "bfloat16")
        if BACKEND != "torch":
            for name in ("S4D", "DSS", "Mamba"):
                form = functools.partial(_without_kernels, functools.partial(of_layer, name))
                yield known(f"{name}, portable", form)
            continue
        form = functools.partial(on_torch, _attention, [], shape, "bfloat16")
        yield known("attention, 8 heads", form, "bfloat16")
        if shape[1] <= 4096:
            form = functools.partial(_of_lstm, shape)
            yield known("cuDNN LSTM", form)


def _known(shape, bandwidth, name, form, dtype="float32"):
    """A function that yields rows, from one that yields their times."""
    return lambda: ((name, dtype, shape, bandwidth, *row) for row in form())


def _of_layer(name, shape, dtype="float32", **options):
    layer = made(name, shape[2], dtype if dtype == "float32" else f"mixed_{dtype}", **options)
    if BACKEND == "torch":
        return on_torch(layer, [v.value for v in layer.trainable_variables], shape, dtype)
    from keras_ssm.benchmark.stepping import layer_function

    return on_jax(*layer_function(layer), shape, dtype)


def _without_kernels(form):
    """The same rows in portable operations."""
    kept = os.environ.get("KERAS_SSM_FAST_PATHS")
    os.environ["KERAS_SSM_FAST_PATHS"] = "0"
    try:
        yield from form()
    finally:
        if kept is None:
            del os.environ["KERAS_SSM_FAST_PATHS"]
        else:
            os.environ["KERAS_SSM_FAST_PATHS"] = kept


def _of_published(name, shape):
    call, weights = as_published(name, shape[2])
    if BACKEND == "torch":
        return on_torch(functools.partial(call, weights), list(weights.values()), shape)
    return on_jax(call, weights, shape)


def _of_lstm(shape):
    import torch

    device = "cuda" if on_card() else "cpu"
    lstm = torch.nn.LSTM(shape[2], shape[2], batch_first=True, device=device)
    return on_torch(lambda x: lstm(x)[0], list(lstm.parameters()), shape)


def _bandwidth(shape):
    """Bytes that a copy reads and writes in a millisecond."""
    if BACKEND == "jax":
        import jax
        import jax.numpy as jnp

        x, copy = jnp.ones(shape), jax.jit(lambda x: x + 1.0)
        return 2 * x.nbytes / median(lambda: jax.block_until_ready(copy(x)), lambda: None)
    import torch

    x = torch.randn(shape, device="cuda" if on_card() else "cpu")
    y = torch.empty_like(x)
    return 2 * x.nbytes / median(lambda: y.copy_(x), wait_for_card)


def _attention(x):
    """Causal, without projections: queries, keys and values are the sequence itself."""
    from torch.nn import functional

    heads = x.unflatten(2, (8, -1)).transpose(1, 2)
    return (
        functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        .transpose(1, 2)
        .flatten(2)
    )


def fit_rows(sizes):
    """Training steps of classifiers, by `fit`, beside the same on the published formulation."""

    def both(name, size):
        (row,) = fit.rows([name], 20 * SECONDS, size)
        shape = size[:3]
        yield f"fit of {name}", "float32", shape, None, "fit", None, 1e3 / row["rate"], None
        times = None, 1e3 / row["published_rate"], None
        yield f"fit of {name} as published", "float32", shape, None, "fit", *times

    for size in sizes:
        for name in TRAINED:
            yield functools.partial(both, name, size)


def step_rows(layers_and_width):
    """Streamed steps of a stack: as its layers are called, and as the backend replays them."""
    count, width = layers_and_width

    def of_torch(name):
        import torch

        from keras_ssm.ops.backend.torch import recording

        with torch.no_grad():
            step, states, systems = stream._systems(name, width, STATE, count, None)
            arguments = keras.ops.zeros((1, width)), states, systems
            yield "eager", median(lambda: step(*arguments), wait_for_card)
            if on_card():
                replay = recording.Recording(step, arguments)
                yield "graph", median(lambda: replay(*arguments), wait_for_card)

    def of_jax(name):
        for form, (run, steps, _) in stream.streams(name, width, STATE, count).items():
            yield form, median(run, lambda: None) / steps

    def rows(name):
        for form, time_of_step in (of_torch if BACKEND == "torch" else of_jax)(name):
            shape = 1, 1, width
            yield f"step of {count} {name}", "float32", shape, None, form, time_of_step, None, None

    for name in STREAMED:
        yield functools.partial(rows, name)


def table(shapes=SHAPES, fits=FITS, streams=STREAM):
    """Yields the rows as dicts, and says what fails."""
    name = backend.device_name()
    for source in itertools.chain(layer_rows(shapes), step_rows(streams), fit_rows(fits)):
        try:
            for row in source():
                yield _columns(name, *row)
        except Exception as failure:  # for want of memory, say
            print(f"left out: {type(failure).__name__}: {failure}"[:200], file=sys.stderr)


def _columns(card, layer, dtype, shape, bandwidth, form, forward, training, memory):
    size = np.prod(shape) * (2 if dtype == "bfloat16" else 4)
    floors = [f"{passes * size / bandwidth:.4f}" if bandwidth else "" for passes in (2, 5)]
    text = lambda value, digits: "" if value is None else f"{value:.{digits}f}"
    times = text(forward, 4), text(training, 4)
    state = STATE_OF_MAMBA if layer.startswith("Mamba") else STATE
    values = card, BACKEND, layer, dtype, form, *shape, state, *times, *floors, text(memory, 2)
    return dict(zip(COLUMNS, values, strict=True))


def main(path, **sizes):
    path = Path(path)
    facts = {
        "machine": json.dumps({**machine.describe(), "gpus": [backend.device_name()]}),
        "command": f"KERAS_BACKEND={BACKEND} python tools/gpu_table.py {path}",
        "date": time.strftime("%Y-%m-%d"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {name}: {fact}\n" for name, fact in facts.items())
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in table(**sizes):
            writer.writerow(row)
            file.flush()
            print(*row.values(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
