import numpy as np
import pytest

from keras_ssm.training import waveform_cnn

SETTINGS = {"num_layers": 3, "hidden_dim": 8, "dropout": 0.1}


@pytest.mark.once("torch")
def test_loudness_and_padding_say_nothing_to_the_network_on_the_waveform():
    model = waveform_cnn(10, SETTINGS, scale=1 / 32768)
    x = np.random.default_rng(0).normal(size=(3, 4096, 1)).astype("float32") * 500
    valid = np.arange(4096) < np.array([4096, 4096, 2048])[:, None]

    def logits(x):
        inputs = {"inputs": x, "padding_mask": valid}
        return model.predict(inputs, verbose=0)

    loud = x * np.array([1, 10, 10], "float32")[:, None, None]
    np.testing.assert_allclose(logits(loud), logits(x), atol=1e-4)
    loud[2, 2048:] = 1e4  # covered
    np.testing.assert_allclose(logits(loud), logits(x), atol=1e-4)
    assert np.isfinite(logits(0 * x)).all()
