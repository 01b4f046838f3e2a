"""One process, many threads: loading, predicting, training."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_ssm.models import SSMClassifier
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.small_preset import X, make_model

BATCHES = np.random.default_rng(1).standard_normal((8, 3, 9, 2)).astype("float32")


@pytest.fixture(scope="module")
def served():
    model = make_model()
    return model, [to_numpy(model(batch)) for batch in BATCHES]


@pytest.fixture(autouse=True)
def impatient():
    """Threads take turns far more often than they do by themselves."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def in_threads(function, count):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


@pytest.mark.once("torch")
def test_loading_in_many_threads_disturbs_no_model(saved, served):
    model, expected = served

    def load_or_call(i):
        if i % 3 == 0:
            return relative_error(model(BATCHES[i % 8]), expected[i % 8])
        return relative_error(SSMClassifier.from_preset(saved[0])(0.5 * X), saved[1])

    assert max(in_threads(load_or_call, 20)) < 1e-5


def test_prediction_in_many_threads(served):
    model, expected = served
    other = make_model()

    def predict(i):
        first = model.predict(BATCHES[i] / 0.5, verbose=0)
        other.predict(BATCHES[i], verbose=0)
        called = model(BATCHES[i])
        state, systems = model.get_initial_state(3), model.discretize()
        for t in range(9):
            stepped, state = model.step(BATCHES[i, :, t], state, systems)
        model.predict_on_batch(BATCHES[i])
        return max(relative_error(y, expected[i]) for y in (first, called, stepped))

    assert max(in_threads(predict, 8)) < 1e-5
    assert relative_error(model.predict(BATCHES[0] / 0.5, verbose=0), expected[0]) < 1e-5


@pytest.mark.once("jax", "torch")
def test_prediction_while_the_model_trains():
    model = make_model()

    def work(i):
        if i == 0:
            model.fit(X, np.arange(3), epochs=3, verbose=0)
        return model.predict(X, verbose=0)

    found = in_threads(work, 4)
    assert np.isfinite(found).all()
    assert relative_error(model.predict(X, verbose=0), found[0]) < 1e-5


def test_calls_for_one_model_wait_for_each_other_on_jax(served):
    model, _ = served
    inside, other, order = threading.Event(), threading.Event(), []

    class Pause(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            inside.set()
            other.wait(0.3 if BACKEND == "jax" else 60)

    def work(i):
        if i == 0:
            model.predict(X, callbacks=[Pause()], verbose=0)
        else:
            inside.wait(60)
            model.predict(X, verbose=0)
            other.set()
        order.append(i)

    in_threads(work, 2)
    assert order == ([0, 1] if BACKEND == "jax" else [1, 0])
