"""What TensorFlow alone has: replicas, and graphs that other programs read."""

import os
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier

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
