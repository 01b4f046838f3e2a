"""The yardsticks compute what our layers compute, and a benchmark of small shapes runs."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops

from keras_ssm.benchmark import report, run, worker
from keras_ssm.benchmark.yardsticks import published
from keras_ssm.cli import main
from keras_ssm.ops import pair
from tests.backend_tools import BACKEND, relative_error, to_numpy


@pytest.mark.parametrize("name", run.SYSTEMS)
def test_yardsticks_compute_the_same(name, rng):
    layer = worker.make(name, 4, 8)
    layer.build((None, None, 4))
    x = rng.standard_normal((2, 50, 4)).astype("float32")
    expected = to_numpy(layer(x))
    weights = {v.name: to_numpy(v) for v in layer.trainable_variables}
    if name == "S4":  # the published one stores C (I - dA^L)
        bank = layer.bank()
        row = -to_numpy(ops.einsum("chi,hij->chj", bank.readout, bank.power(50)))
        re, im = pair.split(row / 2)
        weights["C_real"], weights["C_imag"] = re, -im
    function, features_last = published(name)
    u = x if features_last else x.transpose(0, 2, 1)
    y = to_numpy(
        function(
            {k: ops.convert_to_tensor(v) for k, v in weights.items()}, ops.convert_to_tensor(u)
        )
    )
    assert relative_error(y if features_last else y.transpose(0, 2, 1), expected) < 2e-5


def test_rows_of_a_benchmark(tmp_path):
    names = ["S4D", "GRU"]
    rows = list(worker.rows([(1, 32, 4, 8)], names, seconds=0.0))
    assert [row["layer"] for row in rows] == names
    for row in rows:
        assert row["backend"] == BACKEND and row["step"] > 0 and row["matmul_rate"] > 0
    assert rows[0]["ratio"] == rows[0]["published"] / rows[0]["step"]
    json.dumps(rows)
    assert report.table(rows).row_count == 2
    report.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_the_command_refuses_an_unknown_layer():
    result = CliRunner().invoke(main, ["benchmark", "--layer", "S7"])
    assert result.exit_code == 2 and "S7 is none of S4" in result.output


def test_a_failing_backend_is_told():
    with pytest.raises(RuntimeError, match=f"failed on {BACKEND}"):
        run.run([BACKEND], [(1, 32, 4, 7)], ["S4D"], seconds=0.0)  # odd state


@pytest.mark.skipif(BACKEND != "torch", reason="compiled elsewhere, for the same code")
def test_the_other_kinds_of_rows():
    names = ["S5", "MultiHeadAttention", "LSTM"]
    rows = list(worker.rows([(1, 32, 4, 8)], names, seconds=0.0))
    assert [row["layer"] for row in rows] == names and rows[0]["ratio"] > 0


def test_attention_that_does_not_fit_is_left_out():
    assert worker.measure("MultiHeadAttention", (8, 65536, 4, 8), 0.0) is None


def test_alternate_runs_in_turn():
    calls = []
    times = worker.alternate([lambda: calls.append(0), lambda: calls.append(1)], 0.0)
    assert len(times) == 2 and calls[-6:] == [0, 1] * 3 and np.isfinite(times).all()
