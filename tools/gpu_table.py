"""Times of the layers on an NVIDIA GPU, as the page on performance has them, in a CSV file.

    KERAS_BACKEND=torch python tools/gpu_table.py docs/performance/results/h100-torch.csv

Each row is a layer, a sequence and a way of calling: `eager`, or `graph` for the replays of a CUDA
graph (PyTorch), `jit` (JAX). Forward and training, the gradients of the input and of all weights
for a given gradient of the output, are medians in milliseconds; `floor` is two and five passes over
the sequence at the bandwidth that a copy reached just before, and memory is that of the training
pass in sequences. The file begins with the machine, the command and the day.
"""

import csv
import json
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_ssm import layers, machine
from keras_ssm.benchmark.yardsticks import published

SHAPES = [(16, 1024, 512), (16, 4096, 512), (16, 16384, 512), (4, 65536, 512)]
STATE = 64
COLUMNS = ["card", "backend", "layer", "dtype", "form", "batch", "length", "features", "state"]
COLUMNS += ["forward", "training", "forward_floor", "training_floor", "memory"]
BACKEND = keras.config.backend()


def made(name, dtype="float32"):
    options = {"variant": "exp"} if name == "DSS" else {}
    layer = getattr(layers, name)(state_dim=STATE, seed=0, dtype=dtype, **options)
    layer.build((None, None, SHAPES[0][2]))
    return layer


def as_published(name):
    """The published formulation as a function of the sequence, and its weights."""
    layer, (function, features_last) = made(name), published(name)
    weights = {v.name: v.value for v in layer.trainable_variables}

    def call(x):
        if features_last:
            return function(weights, x)
        y = function(weights, keras.ops.transpose(x, (0, 2, 1)))
        return keras.ops.transpose(y, (0, 2, 1))

    return call, list(weights.values())


def median(function, wait, seconds=0.12):
    """Milliseconds; on PyTorch between two events on the card."""
    for _ in range(3):
        function()
    wait()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 100):
        times.append(_timed(function, wait))
    return statistics.median(times)


def _timed(function, wait):
    if BACKEND == "torch":
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


def on_torch(call, weights, shape, dtype):
    """Yields `(form, forward, training, memory)`."""
    import torch

    wait = torch.cuda.synchronize
    x = torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True)
    upstream = torch.randn_like(x)

    def forward():
        with torch.no_grad():
            return call(x)

    def training():
        return torch.autograd.grad(call(x), [*weights, x], upstream)

    times = [median(function, wait) for function in (forward, training)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    training()
    wait()
    memory = (torch.cuda.max_memory_allocated() - before) / (x.numel() * x.element_size())
    yield "eager", *times, memory
    try:
        yield "graph", *(_replayed(function) for function in (forward, training)), None
    except RuntimeError as failure:  # not everything can be captured
        print(f"no graph: {failure}"[:200], file=sys.stderr)


def _replayed(function):
    import torch

    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        kept = function()
    found = median(graph.replay, torch.cuda.synchronize)
    del kept
    return found


def on_jax(layer, shape):
    import jax
    import jax.numpy as jnp

    from keras_ssm.benchmark.stepping import layer_function

    function, weights = layer if isinstance(layer, tuple) else layer_function(layer)
    x, upstream = (
        jnp.asarray(np.random.default_rng(i).normal(size=shape), "float32") for i in (1, 2)
    )
    run = jax.jit(function)
    step = jax.jit(lambda w, x, c: jax.vjp(function, w, x)[1](c))
    memory = step.lower(weights, x, upstream).compile().memory_analysis()
    both = [
        median(lambda: jax.block_until_ready(run(weights, x)), lambda: None),
        median(lambda: jax.block_until_ready(step(weights, x, upstream)), lambda: None),
    ]
    used = memory.temp_size_in_bytes + memory.output_size_in_bytes
    yield "jit", *both, used / x.nbytes


def rows_of_torch(shapes):
    import torch

    for shape in shapes:
        bandwidth = _bandwidth(shape)
        for name in ("S4D", "S4PTD", "DSS", "S5"):
            layer = made(name)
            weights = [v.value for v in layer.trainable_variables]
            for row in on_torch(layer, weights, shape, torch.float32):
                yield name, "float32", shape, bandwidth, *row
        for name in ("S4D", "DSS"):
            layer = made(name, "mixed_bfloat16")
            weights = [v.value for v in layer.trainable_variables]
            for row in on_torch(layer, weights, shape, torch.bfloat16):
                yield name, "bfloat16", shape, bandwidth, *row
        for name in ("S4D", "DSS", "S5"):
            for row in on_torch(*as_published(name), shape, torch.float32):
                yield f"{name} as published", "float32", shape, bandwidth, *row
        for row in on_torch(_attention, [], shape, torch.bfloat16):
            yield "attention, 8 heads", "bfloat16", shape, bandwidth, *row
        if shape[1] <= 4096:
            lstm = torch.nn.LSTM(shape[2], shape[2], batch_first=True, device="cuda")
            call = lambda x: lstm(x)[0]  # noqa: B023
            for row in on_torch(call, list(lstm.parameters()), shape, torch.float32):
                yield "cuDNN LSTM", "float32", shape, bandwidth, *row


def _bandwidth(shape):
    """Bytes that a copy reads and writes in a millisecond."""
    import torch

    x = torch.randn(shape, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.nbytes / median(lambda: y.copy_(x), torch.cuda.synchronize)


def _attention(x):
    """Causal, without projections: queries, keys and values are the sequence itself."""
    from torch.nn import functional

    heads = x.unflatten(2, (8, -1)).transpose(1, 2)
    return (
        functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        .transpose(1, 2)
        .flatten(2)
    )


def rows_of_jax(shapes):
    import jax.numpy as jnp

    for shape in shapes:
        for name in ("S4D", "S5"):
            for row in on_jax(made(name), shape):
                yield name, "float32", shape, None, *row
            layer, (function, last) = made(name), published(name)
            weights = {v.name: v.value for v in layer.trainable_variables}
            swap = (lambda x: x) if last else (lambda x: jnp.swapaxes(x, 1, 2))
            call = lambda w, x: swap(function(w, swap(x)))  # noqa: B023
            for row in on_jax((call, weights), shape):
                yield f"{name} as published", "float32", shape, None, *row


def card():
    if BACKEND == "jax":
        import jax

        return jax.devices()[0].device_kind
    import torch

    return torch.cuda.get_device_name()


def table(shapes=SHAPES):
    """Yields the rows as dicts, and says what fails."""
    name = card()
    found = {"torch": rows_of_torch, "jax": rows_of_jax}[BACKEND](shapes)
    for layer, dtype, shape, bandwidth, form, forward, training, memory in found:
        size = np.prod(shape) * (2 if dtype == "bfloat16" else 4)
        floors = [f"{passes * size / bandwidth:.4f}" if bandwidth else "" for passes in (2, 5)]
        memory = "" if memory is None else f"{memory:.2f}"
        values = name, BACKEND, layer, dtype, form, *shape, STATE
        yield dict(
            zip(
                COLUMNS,
                (*values, f"{forward:.4f}", f"{training:.4f}", *floors, memory),
                strict=True,
            )
        )


def main(path, shapes=SHAPES):
    path = Path(path)
    facts = {
        "machine": json.dumps({**machine.describe(), "gpus": [card()]}),
        "command": f"KERAS_BACKEND={BACKEND} python tools/gpu_table.py {path}",
        "date": time.strftime("%Y-%m-%d"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {name}: {fact}\n" for name, fact in facts.items())
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in table(shapes):
            writer.writerow(row)
            file.flush()
            print(*row.values(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
