"""The page itself, of Gradio, which the extra `web` brings."""

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_ssm import plotting, presets
from keras_ssm.models import SSMClassifier
from keras_ssm.web import drawing, pad, sound, table
from keras_ssm.web.choice import DRAWING, SOUND, choices, side
from keras_ssm.web.own_server import OWN_SERVER, without_telemetry
from keras_ssm.web.probabilities import named

if TYPE_CHECKING:
    import gradio

TABLE = "Forecast"
LEAST_SECONDS = 4.0  # for reading a drawing, so that a person can follow

_INTRODUCTION = """\
# keras_ssm

State-space models read a sequence sample by sample with a small state: they answer while it comes.
Everything here is computed by {backend} where this page was started. The page asks no other server
for anything, and files that you drop are deleted again within an hour.
"""


# On a telephone a picture is not made so small that nobody can read it: it is pushed aside.
_CSS = ".matplotlib {overflow-x: auto} .matplotlib img {max-width: none; min-width: 640px}"


def page() -> "gradio.Blocks":
    """Builds the page: a tab for drawings, one for sound, one for tables.

    Returns:
        `gradio.Blocks`. A tab whose preset is not installed is left out, with a sentence.

    Raises:
        ImportError: if Gradio is not installed.

    Example:
        ```python
        # keras_ssm.web.page().launch()
        ```
    """
    gr = without_telemetry()
    import keras

    choice_of = choices()
    file_ages = (1800, 1800)  # seconds between two searches for old files, and their greatest age
    with gr.Blocks(title="keras_ssm", analytics_enabled=False, delete_cache=file_ages) as blocks:
        gr.Markdown(_INTRODUCTION.format(backend=keras.config.backend()))
        for title, build in ((DRAWING, _drawing), (SOUND, _sound)):
            if choice_of[title].presets:
                with gr.Tab(title):
                    build(gr, choice_of[title].presets)
        with gr.Tab(TABLE):
            _table(gr)
        for choice in choice_of.values():
            if not choice.presets:
                gr.Markdown(choice.lacking)
        blocks.load(fn=None, js=pad.PREPARE)
    return blocks


def serve(port: int | None = None, block: bool = True) -> str:
    """Shows the page on this machine, until it is interrupted.

    Args:
        port: int or `None`. Defaults to `None`: 7860, or the next that is free.
        block: bool. Whether to wait until the page is closed. Defaults to `True`.

    Returns:
        Str. The address.

    Raises:
        ImportError: if Gradio is not installed.
        OSError: if the port is taken.

    Example:
        ```python
        # keras_ssm.web.serve(port=8000)
        ```
    """
    blocks = page()
    gr = without_telemetry()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    _, address, _ = blocks.queue().launch(
        server_port=port,
        share=False,
        ssr_mode=False,
        footer_links=[],
        css=_CSS,
        theme=gr.themes.Default(**fonts),
        app_kwargs={"middleware": [OWN_SERVER]},
        prevent_thread_lock=True,
        quiet=True,
    )
    print(f"The page is at {address}", flush=True)
    if block:
        blocks.block_thread()
    return address


# Tabs


def _drawing(gr, names):
    with gr.Row():
        with gr.Column(min_width=300):
            gr.HTML(pad.CANVAS)
            clear = gr.Button("Clear", size="sm")
            drawn = gr.Textbox(visible=False)
            preset = gr.Dropdown(list(names), value=names[0], label="Preset")
            button = gr.Button("Read it, pixel by pixel", variant="primary")
        with gr.Column(min_width=300):
            seen = gr.HTML("<p>What was read so far appears here.</p>", min_height=320)
            answer = gr.Label(label="Probabilities now", num_top_classes=4)
    curve = gr.Plot(show_label=False)
    clear.click(fn=None, js=pad.CLEAR)
    steps = _shown_errors(_read_drawing, gr)
    button.click(steps, [drawn, preset], [seen, answer, curve], js=pad.TAKE)


def _read_drawing(drawn, preset):
    length = side(presets.list_presets()[preset])
    pixels = drawing.to_pixels(pad.decoded(drawn), length)
    model = _model(preset)
    frames = 64
    for read, probabilities in drawing.watch(model, pixels, frames):
        start = time.monotonic()
        picture = pad.picture(drawing.shown(pixels, read), f"{read} of {pixels.size} pixels read")
        yield picture, named(model, probabilities[-1]), None
        time.sleep(max(0.0, LEAST_SECONDS / frames - (time.monotonic() - start)))
    answers = named(model, probabilities[-1])
    figure = plotting.plot_answers(
        [pixels.ravel()],
        [probabilities],
        [f"taken for a {max(answers, key=answers.get)}"],
        list(answers),
        shape=pixels.shape,
    )
    yield picture, answers, figure


def _sound(gr, names):
    gr.Markdown(
        "Say one English digit, or drop a WAV file of one. Silence at the ends is cut off, and "
        "other sampling rates are resampled."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            clip = gr.Audio(label="Recording", type="filepath", sources=["upload", "microphone"])
            preset = gr.Dropdown(list(names), value=names[0], label="Preset")
            button = gr.Button("Hear it", variant="primary")
        answer = gr.Label(label="Probabilities at the end", num_top_classes=4)
    curve = gr.Plot(show_label=False)
    button.click(_shown_errors(_hear, gr), [clip, preset], [answer, curve])


def _hear(path, preset):
    if path is None:
        raise ValueError("Record or drop a sound first. Received: none")
    model = _model(preset)
    rate = getattr(model.preprocessor, "sampling_rate", None) or 8000
    samples = sound.prepared(path, rate)
    probabilities = sound.hear(model, samples, rate)
    answers = named(model, probabilities[-1])
    best = max(answers, key=answers.get)
    figure = plotting.plot_answers(
        [samples], [probabilities], [f"taken for a {best}"], list(answers), sampling_rate=rate
    )
    yield answers, figure


def _table(gr):
    gr.Markdown(
        "Drop a CSV file: columns of numbers, and dates if there are any. No preset knows your "
        "data, so a small forecaster is fitted on the file itself, which takes some seconds. Its "
        "error on the last rows is measured beside that of repeating the last value."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            path = gr.File(label="CSV file", file_types=[".csv"], type="filepath", height=150)
            horizon = gr.Number(24, label="Rows to forecast", precision=0, minimum=1)
            button = gr.Button("Forecast", variant="primary")
        with gr.Column(min_width=300):
            words = gr.Markdown()
    curve = gr.Plot(show_label=False)
    button.click(_shown_errors(_forecast, gr), [path, horizon], [words, curve])


def _forecast(path, horizon):
    if path is None:
        raise ValueError("Drop a CSV file first. Received: none")
    result = table.forecast_table(path, int(horizon or 0))
    figure = plotting.plot_forecast(result.data, result.forecast)
    words = "\n\n".join([table.in_words(result.scores), *result.notes])
    yield words, figure


def _shown_errors(steps, gr):
    """The same generator, whose refusals the page shows as they are."""

    @functools.wraps(steps)
    def shown(*values: Any):
        try:
            yield from steps(*values)
        except (ImportError, ValueError) as error:
            message = _by_name(str(error), values)
            raise gr.Error(message, duration=None, print_exception=False) from error

    return shown


def _by_name(text, values):
    """A message that names dropped files as the person does, without the folders of the server."""
    for value in values:
        if isinstance(value, str) and Path(value).is_absolute():
            text = text.replace(value, Path(value).name)
    return text


@functools.lru_cache(maxsize=4)
def _model(preset):
    return SSMClassifier.from_preset(preset)
