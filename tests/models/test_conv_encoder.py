"""Backbones whose encoder convolves: many samples become few steps."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D, S5, ConvEncoder, Mamba
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from tests.backend_tools import gradients, relative_error, to_numpy

ONCE = pytest.mark.once("torch")
GRAPH = pytest.mark.once("torch", "tensorflow")  # their graphs do not know the lengths
pytestmark = pytest.mark.once("torch")


def make_backbone(mixer=None, width=5, stride=3, **arguments):
    arguments = {"num_layers": 1, "hidden_dim": 4, "input_dim": 2, "norm": None, **arguments}
    return SSMBackbone(
        mixer or S4D(state_dim=4, seed=0),
        encoder="conv",
        encoder_width=width,
        encoder_stride=stride,
        **arguments,
    )


def definition(encoder, x):
    """The steps of one row, each from its own samples."""
    kernel, bias = (to_numpy(w) for w in encoder.dense.weights)
    x = np.concatenate([np.zeros((encoder.width, x.shape[1])), x])
    ends = range(encoder.width + encoder.stride, len(x) + 1, encoder.stride)
    return np.array([x[end - encoder.width : end].ravel() @ kernel + bias for end in ends])


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("width", "stride"), [(5, 3), *(pytest.param(*n, marks=ONCE) for n in ((6, 3), (4, 1)))]
)
def test_a_step_reads_the_samples_before_its_end(rng, width, stride):
    encoder = ConvEncoder(4, width, stride)
    x = rng.standard_normal((2, 11, 2)).astype("float32")
    y, mask = encoder([x, np.ones((2, 11), bool)])
    assert y.shape == (2, 11 // stride, 4) and to_numpy(mask).all()
    encoder.dense.bias.assign(np.arange(4.0))
    y = to_numpy(encoder([x, np.ones((2, 11), bool)])[0])
    for row, steps in zip(x, y, strict=True):
        assert relative_error(steps, definition(encoder, row)) < 1e-6


def test_padding_changes_nothing(rng):
    """On either side, in values and gradients, whatever it holds."""
    backbone = make_backbone()
    rows = [rng.standard_normal((n, 2)).astype("float32") for n in (13, 6, 8)]
    right, left = np.full((2, 3, 16, 2), np.nan, "float32")
    masks = np.zeros((2, 3, 16), bool)
    for i, row in enumerate(rows):
        right[i, : len(row)] = row
        left[i, 14 - len(row) : 14] = row  # and two covered samples behind it
        masks[0, i, : len(row)] = masks[1, i, 14 - len(row) : 14] = True
    slopes = []
    for x, mask in zip((right, left), masks, strict=True):
        inputs = {"inputs": x, "padding_mask": mask}
        valid, y = (to_numpy(t) for t in (backbone.output_mask(mask), backbone(inputs)))
        assert valid.sum(axis=1).tolist() == [4, 2, 2]
        for row, steps, own in zip(rows, y, valid, strict=True):
            assert relative_error(steps[own], to_numpy(backbone(row[None]))[0]) < 1e-5

        def loss(x, mask=mask):
            y = backbone({"inputs": x, "padding_mask": mask})
            valid = ops.expand_dims(backbone.output_mask(mask), -1)
            return ops.sum(ops.where(valid, y, ops.zeros_like(y)) ** 2)

        slopes.append(gradients(loss, backbone, x)[2][0])
    assert not np.isnan(slopes).any() and not np.any(np.array(slopes)[~masks])
    for i, row in enumerate(rows):
        for slope, mask in zip(slopes, masks, strict=True):
            assert relative_error(slope[i][mask[i]], slopes[0][i, : len(row)]) < 1e-5


def test_time_goes_on_over_holes(rng):
    backbone = make_backbone(S4D(state_dim=4, dt_min=0.1, dt_max=0.5, seed=0))
    x = rng.standard_normal((1, 18, 2)).astype("float32")
    mask = np.ones((1, 18), bool)
    mask[0, 4:5] = mask[0, 8:12] = False
    y = to_numpy(backbone({"inputs": x, "padding_mask": mask}))
    valid = to_numpy(backbone.output_mask(mask))[0]
    assert valid.tolist() == [True, True, True, False, True, True]  # step 3 reads only 9 to 11
    steps = definition(backbone.encoder_layer, np.where(mask[0, :, None], x[0], 0.0))
    steps = np.where(valid[:, None], steps, 0.0).astype("float32")
    expected = to_numpy(backbone.blocks[0](steps[None], mask=valid[None]))
    assert relative_error(y[0, valid], expected[0, valid]) < 1e-5


@pytest.mark.parametrize("kind", [S4D, Mamba])  # streams of it everywhere: test_stream.py
def test_pieces_of_any_size_give_the_steps_of_the_whole(rng, kind):
    model = SSMClassifier(make_backbone(kind(state_dim=4, seed=0)), num_classes=2)
    backbone = model.backbone
    x = rng.standard_normal((3, 17, 2)).astype("float32")
    mask = np.arange(17) < np.array([[17], [7], [11]])
    whole = to_numpy(backbone({"inputs": x, "padding_mask": mask}))
    steps, logits, state = [[], [], []], None, model.get_initial_state(3)
    cuts = [0, 1, 2, 9, 17] if kind is S4D else [0, 2, 17]
    for start, end in itertools.pairwise(cuts):
        piece = {"inputs": x[:, start:end], "padding_mask": mask[:, start:end]}
        valid = to_numpy(backbone.output_mask(piece["padding_mask"], state["layers"]))
        y, _ = backbone(piece, initial_state=state["layers"], return_state=True)
        for row, found, own in zip(steps, to_numpy(y), valid, strict=True):
            row.extend(found[own])
        logits, state = model(piece, initial_state=state, return_state=True)
        state = keras.tree.map_structure(to_numpy, state)
    for row, found, count in zip(steps, whole, (5, 2, 3), strict=True):
        assert relative_error(np.array(row), found[:count]) < 1e-5
    expected = to_numpy(model({"inputs": x, "padding_mask": mask}))
    assert relative_error(logits, expected) < 1e-5


def test_single_steps_without_a_stride(rng):
    model = SSMClassifier(make_backbone(S5(state_dim=4, seed=0), width=3, stride=1), 2)
    x = rng.standard_normal((2, 5, 2)).astype("float32")
    state = model.get_initial_state(2)
    for sample in x.swapaxes(0, 1):
        logits, state = model.step(sample, state)
    assert relative_error(logits, to_numpy(model(x))) < 1e-5


@pytest.mark.parametrize("waiting", [0, 2])
def test_single_steps_of_a_stride(rng, waiting):
    """A step reads three samples, also where others that came before make no step yet."""
    model = SSMClassifier(make_backbone(), 2)
    x = rng.standard_normal((2, waiting + 9, 2)).astype("float32")
    state = model.get_initial_state(2)
    if waiting:
        piece = {"inputs": x[:, :waiting], "padding_mask": np.ones((2, waiting), bool)}
        _, state = model(piece, initial_state=state, return_state=True)
    for start in range(waiting, waiting + 9, 3):
        logits, state = model.step(x[:, start : start + 3], state)
    assert relative_error(logits, to_numpy(model(x))) < 1e-5
    with pytest.raises(ValueError, match=r"must have shape \(batch, 3, 2\). Received"):
        model.step(x[:, 0], state)


@pytest.mark.parametrize("factor", [2, 0.5, 4])
def test_another_rate_takes_other_weights(rng, factor):
    """Samples that hold still are one sample of the other rate."""
    backbone = make_backbone(width=8, stride=4)
    model = SSMClassifier(backbone, 2)
    model.head.bias.assign([1.0, 2.0])
    other = model.rescaled(factor)
    assert other.backbone.stride == 4 / factor
    x = np.repeat(rng.standard_normal((2, 12, 2)).astype("float32"), 4, axis=1)
    other_x = x[:, ::factor] if factor > 1 else np.repeat(x, 2, axis=1)
    assert relative_error(other.predict(other_x, verbose=0), model.predict(x, verbose=0)) < 1e-5
    with pytest.raises(ValueError, match="rescaled"):
        model.step_scale = 2.0
    plain = SSMClassifier(SSMBackbone(S4D(state_dim=4), 1, 4), 2)
    assert float(plain.rescaled(2).step_scale) == 2.0


@pytest.mark.parametrize(("factor", "stride"), [(1.6, 2), (0.75, 5), (9, 1)])
def test_layers_make_up_for_a_stride_that_is_rounded(tmp_path, factor, stride):
    """A slow wave gives the outputs of the model itself, at rates that the stride does not have."""
    mixer = S5(state_dim=4, dt_min=0.01, dt_max=0.03, seed=0)
    model = SSMClassifier(make_backbone(mixer, width=12, stride=4, input_dim=1), 3, pooling="last")
    wave = lambda times: np.sin(times / 90)[None, :, None].astype("float32")
    expected = model.predict(wave(np.arange(1, 1801)), verbose=0)
    x = wave(factor * np.arange(1, int(1800 / factor) + 1))
    other = model.rescaled(factor)
    assert other.backbone.stride == stride
    assert float(other.step_scale) == pytest.approx(stride * factor / 4)
    found, plain = (relative_error(one.predict(x, verbose=0), expected) for one in (other, model))
    assert found < 0.2 * plain
    other.save_to_preset(tmp_path / "other")
    loaded = SSMClassifier.from_preset(tmp_path / "other")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), other.predict(x, verbose=0), atol=1e-6)
    back = other.rescaled(1 / factor)
    assert back.backbone.stride / float(back.step_scale) == pytest.approx(4)


def test_another_rate_is_said_to_the_preprocessor(rng):
    x = rng.standard_normal((2, 40)).astype("float32")
    for encoder in ("linear", "conv"):
        for how in (True, "step_scale"):
            backbone = SSMBackbone(S4D(state_dim=4), 1, 4, encoder=encoder, encoder_stride=1)
            preprocessor = SequencePreprocessor(sampling_rate=1200.0, resample=how)
            model = SSMClassifier(backbone, 2, preprocessor=preprocessor).rescaled(1.5)
            model.predict({"inputs": x, "sampling_rate": 800}, verbose=0)
            if how == "step_scale":
                with pytest.raises(ValueError, match="Received"):
                    model.predict({"inputs": x, "sampling_rate": 1200}, verbose=0)
    mamba = SSMClassifier(make_backbone(Mamba(state_dim=4), width=8, stride=4), 2)
    assert mamba.rescaled(2).backbone.stride == 2
    with pytest.raises(ValueError, match="must divide the stride"):
        mamba.rescaled(3)


@pytest.mark.parametrize("pooling", [pytest.param("mean", marks=GRAPH), None])
def test_training_and_files(rng, tmp_path, pooling):
    model = SSMClassifier(make_backbone(), num_classes=2, pooling=pooling)
    rows = [rng.standard_normal((n, 2)).astype("float32") for n in (13, 9, 7, 12)]
    y = [np.arange(n // 3) % 2 for n in (13, 9, 7, 12)] if pooling is None else [0, 1, 0, 1]
    y = y if pooling is None else np.array(y)
    before = to_numpy(model.backbone.encoder_layer.dense.kernel)
    model.fit(rows, y, epochs=2, batch_size=2, verbose=0)
    assert not np.allclose(before, to_numpy(model.backbone.encoder_layer.dense.kernel))
    model.save_to_preset(tmp_path / "preset")
    expected = model.predict(rows, verbose=0)
    loaded = [SSMClassifier.from_preset(tmp_path / "preset")]
    if pooling is None:
        model.save(tmp_path / "model.keras")
        loaded.append(keras.models.load_model(tmp_path / "model.keras"))
    for again in loaded:
        assert again.backbone.stride == 3
        np.testing.assert_allclose(again.predict(rows, verbose=0), expected, atol=1e-6)
    if pooling is None:
        assert expected.shape == (4, 4, 2)
        with pytest.raises(ValueError, match="one entry for each of the 4 steps"):
            model.fit(rows, [np.zeros(n) for n in (13, 9, 7, 12)], verbose=0)
        # Two steps of seven samples, each right: padding counts in no metric.
        _, accuracy = model.evaluate(
            rows, [p[: len(q)].argmax(-1) for p, q in zip(expected, y, strict=True)], verbose=0
        )
        assert accuracy == 1.0
    else:
        half = SSMClassifier.from_preset(tmp_path / "preset", step_scale=3)
        assert half.backbone.stride == 1


def test_what_does_not_go_together(rng):
    x = rng.standard_normal((2, 9, 2)).astype("float32")
    for wrong, message in (
        ({"width": 2}, "at least `stride`"),
        ({"mask_inputs": False}, "mask_inputs"),
        ({"stride": 0}, "encoder_stride"),
        ({"vocabulary_size": 9}, "vocabulary_size"),
    ):
        with pytest.raises(ValueError, match=message):
            make_backbone(**wrong)
    with pytest.raises(ValueError, match="go with the encoder 'conv'"):
        SSMBackbone(S4D(state_dim=4), 1, 4, encoder_stride=2)
    model = SSMClassifier(make_backbone(S5(state_dim=4)), 2)
    with pytest.raises(ValueError, match="`timesteps` of every sample"):
        model({"inputs": x, "timesteps": np.ones((2, 9))})
    with pytest.raises(ValueError, match="at least 3 samples"):
        model(x[:, :2])
    with pytest.raises(ValueError, match="2 in row 1"):
        model.predict([x[0], x[0, :2]], verbose=0)
    with pytest.raises(ValueError, match="pads on the right"):
        mask = np.arange(9) > np.array([[2], [3]])
        model({"inputs": x, "padding_mask": mask}, return_state=True)
    with pytest.raises(ValueError, match="dict of 'encoder' and 'layers'"):
        model.backbone(x, initial_state=[np.zeros((2, 2, 4))])
    assert "encoder_stride" not in SSMBackbone(S4D(state_dim=4), 1, 4).get_config()


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_other_precisions(rng, dtype):
    model = SSMClassifier(make_backbone(dtype=dtype), 2)
    x = rng.standard_normal((2, 10, 2))
    y, state = model(x[:, :4], return_state=True)
    y, _ = model(x[:, 4:], initial_state=state, return_state=True)
    wide = keras.backend.standardize_dtype(y.dtype) == "float64"
    assert wide == (dtype == "float64")
    assert relative_error(y, to_numpy(model(x))) < (1e-12 if wide else 0.05)


def test_states_as_symbols():
    backbone = make_backbone()
    y, state = backbone(keras.Input((10, 2)), return_state=True)
    assert y.shape == (None, 4, 4)  # rounded up: a piece may complete one more
    assert state["encoder"]["samples"].shape == (None, 4, 2)
