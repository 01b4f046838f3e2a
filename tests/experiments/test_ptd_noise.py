"""The experiment on noise runs from end to end, and goes on where it was interrupted."""

import gzip

import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.experiments import PTDNoise, frequencies, heard_waves, plot_ptd_noise, ptd_noise
from keras_ssm.experiments.tables import read_table
from keras_ssm.training.learning_curve import LearningCurve

pytestmark = pytest.mark.once("torch")

SMALL = {"pool": 56, "hidden_dim": 4, "state_dim": 8, "batch_size": 4, "num_layers": 1}


@pytest.fixture
def images(tmp_path):
    """Images of noise in the format of MNIST."""
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 20)):
        pixels = rng.integers(256, size=count * 784, dtype="uint8").tobytes()
        labels = (np.arange(count) % 10).astype("uint8").tobytes()
        for kind, header, content in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            path = tmp_path / "data" / "mnist" / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(bytes(header) + content, 1))
    return tmp_path / "data"


def test_the_command_trains_scores_and_draws_and_repeats_nothing(tmp_path, images, monkeypatch):
    monkeypatch.setattr(LearningCurve, "draw", lambda self: None)
    monkeypatch.setattr("keras_ssm.experiments.ptd_experiment.AMPLITUDES", (0.3,))
    words = ["experiment", "ptd_noise", "--data", images, "--out", tmp_path / "out", "--seeds", "0"]
    words += ["1", "--form", "published", "--system", "s5ptd"]
    words += ["--images", 2, "--limit", 1, *(f"{name}={value}" for name, value in SMALL.items())]
    result = CliRunner().invoke(cli.main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert "published" in result.output and "±" in result.output
    rows = read_table(tmp_path / "out" / "noise.csv")
    assert [row["seed"] for row in rows[:: len(rows) // 2]] == [0, 1]
    waves = np.round(frequencies(8), 3)
    first = rows[: len(rows) // 2]
    assert len(first) == 2 + len(waves)
    assert [row["amplitude"] for row in first[:2]] == [0, 0.1] and first[1]["frequency"] == waves[
        -2
    ]
    assert {row["frequency"] for row in first[2:]} == set(waves)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert {row["images"] for row in first} == {4, 2}  # all rows of a smoke run, which are few
    assert (tmp_path / "out" / "noise.png").stat().st_size > 5000
    assert (tmp_path / "out" / "results.csv").is_file()

    monkeypatch.setattr("keras_ssm.experiments.ptd_experiment.with_fourier_noise", None)
    monkeypatch.setattr(PTDNoise, "fit", None)
    repeated = ptd_noise(
        *(images, tmp_path / "out"),
        forms=["published"],
        systems=["s5ptd"],
        seeds=[0, 1],
        overrides=SMALL,
        images=2,
        limit=1,
    )
    assert repeated == rows
    with pytest.raises(ValueError, match=r"the directory of this run alone.*Received"):
        ptd_noise(
            *(images, tmp_path / "out"),
            forms=["published"],
            systems=["s5ptd"],
            overrides={**SMALL, "hidden_dim": 8},
            limit=1,
        )


def test_what_learns_in_each_form(images):
    recipe = PTDNoise()
    for form, learns in (("published", False), ("package", True)):
        settings = recipe.settings_of("s4ptd", {**SMALL, "residual": learns, "frozen": not learns})
        model = recipe.make_model("s4ptd", 0, settings)
        before = {weight.path: np.array(weight) for weight in model.weights}
        splits = recipe.arrange(recipe.read(images), settings)
        recipe.fit(model, splits, 0, {**settings, "epochs": 1}, [], limit=2)
        mixer = model.layers[-3].mixer
        changed = {
            weight.name
            for weight in mixer.weights
            if not np.array_equal(np.array(weight), before[weight.path])
        }
        system = {"log_dt", "log_A_real", "A_imag", "B_real", "B_imag", "D"}
        assert changed == {"C_real", "C_imag"} | (system if learns else set()), form
        assert learns == bool(np.any(np.array(mixer.D)))


def test_steps_are_means_of_neighbouring_pixels(images):
    recipe = PTDNoise()
    settings = recipe.settings_of("s4", {"images": 50, "pool": 4})
    found = recipe.arrange(recipe.read(images), settings)
    whole = recipe.read(images).test.x
    np.testing.assert_allclose(found.test.x[3, 5], whole[3, 20:24].mean())
    assert (found.train.size, found.validation.size, found.test.size) == (45, 5, 20)
    with pytest.raises(ValueError, match=r"`pool` must divide.*Received: pool=5"):
        recipe.arrange(recipe.read(images), {**settings, "pool": 5})


def test_an_untrained_s4d_alone_answers_to_its_spike():
    waves = frequencies(32)[-3:]
    systems = ["s4d_legs", "s4ptd", "s4ptd_rank1"]
    response = heard_waves(waves, systems, features=16, dt_min=2e-3, dt_max=2e-3)
    for system, (between, spike, beyond) in response.items():
        ratio = spike / max(between, beyond)
        assert ratio > 8 if system == "s4d_legs" else ratio < 1.3, (system, ratio)
    with pytest.raises(ValueError, match="system"):
        heard_waves(waves, ["s5"])


def test_pictures_need_rows():
    with pytest.raises(ValueError, match=r"`rows` must hold.*Received"):
        plot_ptd_noise([])
    with pytest.raises(ValueError, match=r"`forms` decides.*Received: \['residual'\]"):
        ptd_noise("data", "out", overrides={"residual": True})
    with pytest.raises(ValueError, match="form"):
        ptd_noise("data", "out", forms=["other"])
