"""A Mamba of 130 million weights, as published: what loading it takes."""

import json
import sys

import numpy as np
import pytest

from keras_ssm.convert.containers.safetensors_file import write_stored
from keras_ssm.convert.formats import mamba_hf, mamba_weights
from tests.published_models import make_model, written
from tests.small_preset import run_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a peak that began now"),
]

CONFIG = {"model_type": "mamba", "num_hidden_layers": 24, "vocab_size": 50280}

MEASURE = """
import gc, sys, time
import keras_ssm

def memory(key):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[key].split()[0]) * 1024

load = keras_ssm.models.SSMCausalLM.from_preset
load(sys.argv[1])  # what any first model takes
gc.collect()
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
start = time.process_time()
model = load(sys.argv[2])
print(time.process_time() - start, memory("VmHWM") - before, 4 * model.count_params())
"""


@pytest.mark.parametrize("kind", ["F16", "F32"])
def test_loading_takes_a_minute_at_most_and_little_more_than_the_weights(kind, tmp_path):
    spec = mamba_hf.read_config(CONFIG, "config.json")
    rng = np.random.default_rng(0)

    def values(shape):
        return 0.05 * rng.standard_normal(shape, "float32")

    path = tmp_path / "mamba-130m"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    write_stored(
        path / "model.safetensors",
        {
            weight.name: (weight.shape, kind, lambda shape=weight.shape: values(shape))
            for weight in mamba_weights.weights_of(spec)
        },
    )
    small = written(make_model(), tmp_path / "small")
    result = run_python(MEASURE, str(small), str(path))
    assert result.returncode == 0, result.stderr[-2000:]
    seconds, peak, size = map(float, result.stdout.split()[-3:])
    assert 500e6 < size < 530e6 and peak < 1.3 * size
    assert seconds < 60  # of processor time; 4 to 8 were seen
