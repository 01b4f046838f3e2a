"""The page of the gallery: every preset of the package, with its picture, score and card."""

import json
import shutil

import pytest

from keras_ssm import gallery, presets
from tests.small_preset import ROOT, make_model

pytestmark = pytest.mark.once("torch")


def test_the_page_is_that_of_the_presets():
    """`python tools/make_presets.py` writes it."""
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert text == gallery.page()


def test_every_preset_has_its_entry(tmp_path, monkeypatch):
    zoo = tmp_path / "presets"
    for name in ("s4d_digits", "s4d_ecg_ahead"):
        shutil.copytree(presets.resolve(name), zoo / name)
    make_model().save_to_preset(tmp_path / "mine" / "mine")
    monkeypatch.setattr(presets.registry, "zoo", lambda: zoo)
    monkeypatch.setenv("KERAS_SSM_PRESETS", str(tmp_path / "mine"))
    document = json.loads((zoo / "s4d_ecg_ahead" / "preset.json").read_text())
    document["pictures"] = [{"file": "samples.png", "alt": "Three windows."}]
    document["description"] = "It forecasts. It does more."
    (zoo / "s4d_ecg_ahead" / "preset.json").write_text(json.dumps(document))
    text = gallery.page()
    ecg, digits = (text.index(f"## {name}\n") for name in ("s4d_ecg_ahead", "s4d_digits"))
    assert ecg < digits and "## mine" not in text  # presets of real recordings come first
    assert "![Three windows.](../presets/s4d_ecg_ahead/samples.png)" in text
    assert "\nIt forecasts.\n" in text and "It does more" not in text
    assert "0.9167 MSE (3 seeds, spread 0.0035)" in text and "ridge 1.042" in text
    assert "[Card](../presets/s4d_digits/README.md)" in text
