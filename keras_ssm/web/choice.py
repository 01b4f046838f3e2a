"""Which presets the tabs of the page show: those that are there, without a download."""

from typing import NamedTuple

from keras_ssm import presets

DRAWING, SOUND = "Draw", "Say"  # short, so that all tabs fit a telephone

_LACKING = (
    "**{title}** is left out: it needs a preset that {what}, and none is installed. "
    "`keras-ssm train {recipe} --data DIR` makes one; `KERAS_SSM_PRESETS` names its folder."
)
_SYSTEMS = ("S4D", "S5", "S4", "S4PTD", "S5PTD", "DSS")  # the first is shown first


class Choice(NamedTuple):
    """The presets of a tab, the best first.

    Fields:
        presets: tuple of names; empty where there is none.
        lacking: str. A sentence that says so, and what to do.
    """

    presets: tuple[str, ...]
    lacking: str


def choices() -> dict[str, Choice]:
    """Returns the presets of each tab that needs one, by the title of the tab.

    Returns:
        Dict from a title to its `Choice`. A preset of MNIST comes before one of 8 x 8 pixels.

    Example:
        ```python
        for title, choice in keras_ssm.web.choices().items():
            print(title, choice.presets or choice.lacking)
        ```
    """
    info_of = {
        name: info for name, info in presets.list_presets().items() if info["source"] != "hub"
    }
    drawing = {name: _suits_drawings(info) for name, info in info_of.items()}
    sound = {name: _recipe(info) == "spoken_digits" for name, info in info_of.items()}
    return {
        DRAWING: Choice(
            _ordered(info_of, drawing),
            _LACKING.format(title=DRAWING, what="reads digits", recipe="sequential_mnist"),
        ),
        SOUND: Choice(
            _ordered(info_of, sound),
            _LACKING.format(title=SOUND, what="hears spoken digits", recipe="spoken_digits"),
        ),
    }


def side(document: dict) -> int:
    """Pixels of a side of the images that a preset of digits reads, by its `preset.json`."""
    return 28 if _recipe(document) == "sequential_mnist" else 8


def _suits_drawings(info):
    """How well a preset suits the tab for drawings; 0 for not at all."""
    settings = info.get("recipe", {}).get("settings", {})
    if _recipe(info) == "sequential_mnist":
        return 0 if settings.get("permuted") or settings.get("bidirectional") else 2
    digits = info.get("data", {}).get("name") == "handwritten digits"
    return int(digits and info.get("task") == "SSMClassifier")


def _recipe(info):
    return info.get("recipe", {}).get("recipe")


def _ordered(info_of, suitability):
    def key(name):
        system = info_of[name].get("system")
        place = _SYSTEMS.index(system) if system in _SYSTEMS else len(_SYSTEMS)
        return -suitability[name], place, name

    return tuple(sorted((name for name, value in suitability.items() if value), key=key))
