"""What TensorFlow alone has: replicas, and graphs that other programs read."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssm.layers import S4D
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from keras_ssm.optimizers import ssm_optimizer

REPLICAS = """
import keras, numpy as np, tensorflow as tf
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
rng = np.random.default_rng(0)
x, y = rng.standard_normal((8, 9, 2)).astype("float32"), np.arange(8) % 3
losses = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(0)
    tf.config.run_functions_eagerly(not losses)  # tracing takes longer than these few steps
    with strategy.scope():
        model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=2), 3)
    history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    losses.append([*history["loss"], *model.evaluate(x, y, verbose=0), *model.predict(x).ravel()])
np.testing.assert_allclose(*losses, rtol=1e-4, atol=1e-5)
assert strategy.num_replicas_in_sync == 2
"""


def test_fit_evaluate_and_predict_on_several_replicas():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", REPLICAS], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_graphs_hold_no_operation_that_onnx_lacks():
    model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=2), 3)
    x = {"inputs": np.zeros((2, 9, 2), "float32"), "padding_mask": np.ones((2, 9), "bool")}
    signature = keras.tree.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype), x)
    graph = tf.function(model).get_concrete_function(signature).graph
    names = {operation.type for operation in graph.get_operations()}
    assert "Erf" in names and "Erfc" not in names


def test_gradients_of_a_table_are_clipped_under_a_loss_scale():
    """They are sparse on TensorFlow, and the scale changes nothing in the weights."""
    trained = []
    for scale in (None, 128.0):
        backbone = SSMBackbone(S4D(4, seed=1), 1, 4, vocabulary_size=5)
        model = SSMClassifier(backbone, 2)
        optimizer = ssm_optimizer(1e-2, global_clipnorm=1e-3)
        optimizer.loss_scale_factor = scale
        keras.utils.set_random_seed(0)
        model.set_weights([np.random.normal(size=w.shape) for w in model.get_weights()])
        model.compile(optimizer, run_eagerly=True)
        model.train_on_batch(np.array([[3, 1, 1]]), np.array([1]))
        trained.append(model.get_weights())
    for plain, scaled in zip(*trained, strict=True):
        np.testing.assert_allclose(plain, scaled, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("return_state", [False, True])
def test_no_rows_of_an_unknown_length(return_state):
    layer = S4D(4)
    shapes = [tf.TensorSpec((0, None, 3), "float32"), tf.TensorSpec((0, None), "bool")]

    @tf.function(input_signature=shapes)
    def run(x, mask):
        return layer(x, mask=mask, return_state=return_state)

    outputs = keras.tree.flatten(run(np.zeros((0, 7, 3), "float32"), np.zeros((0, 7), bool)))
    assert [tuple(y.shape) for y in outputs] == [(0, 7, 3), (0, 3, 4)][: 1 + return_state]


def language_model():
    settings = {"vocabulary_size": 8, "norm": "rms", "gate": None, "activation": None}
    model = SSMCausalLM(SSMBackbone(S4D(4, seed=1), 1, 4, **settings))
    model.compile("adam")
    return model, (np.arange(24).reshape(2, 12) % 8,)


def classifier():
    model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=2), 3)
    model.compile("adam", metrics=["accuracy"])
    return model, (np.zeros((2, 12, 2), "float32"), np.array([0, 1]))


def classifier_of_a_stream():
    model, data = classifier()
    return model, (tf.data.Dataset.from_tensor_slices(data).batch(2),)


def classifier_of_steps():
    model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=2), 3, pooling=None)
    model.compile("adam", metrics=["accuracy"])
    return model, (np.zeros((2, 12, 2), "float32"), np.ones((2, 12), int))


@pytest.mark.parametrize(
    "make", [language_model, classifier, classifier_of_a_stream, classifier_of_steps]
)
def test_the_first_fit_traces_its_step_once(make):
    """A trace that makes variables, such as those of optimizer and metrics, is thrown away."""
    model, data = make()
    traced, step = [], model.train_step

    def counted(data):
        traced.append(data)
        return step(data)

    model.train_step = counted
    history = model.fit(*data, verbose=0).history
    assert any("accuracy" in name for name in history)
    assert len(traced) == 1


@pytest.mark.parametrize("trainable", [True, False])
def test_a_dense_layer_of_features_that_a_graph_does_not_know(trainable):
    """Nothing waits for the gradient of frozen weights, which then is no part of what runs."""
    layer = Dense(3)
    layer.build((None, None, 2))
    layer.trainable = trainable

    @tf.function(input_signature=[tf.TensorSpec([None, None, None]), tf.TensorSpec([None] * 3)])
    def slopes(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(tf.ensure_shape(x, [None, None, None]))
        return tape.gradient(y, [x, *layer.trainable_variables], upstream)

    rng = np.random.default_rng(0)
    x, upstream = rng.standard_normal((4, 5, 2)), rng.standard_normal((4, 5, 3))
    wanted = [upstream @ np.transpose(layer.kernel), np.einsum("bti,bto->io", x, upstream)]
    wanted = [*wanted, upstream.sum((0, 1))] if trainable else wanted[:1]
    found = slopes(x.astype("float32"), upstream.astype("float32"))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    operations = slopes.get_concrete_function().graph.get_operations()
    waiting = [o for o in operations if any("MatMul" in before.type for before in o.control_inputs)]
    assert bool(waiting) == trainable
