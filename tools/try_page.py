"""Uses the page of `keras-ssm demo --web` in a headless browser, as a person would.

    pip install playwright && python tools/try_page.py --out out/page

It draws, drops WAV files and a CSV file, waits for the answers, and takes a screenshot of each tab
at two widths. Silence, a recording of a minute and a damaged file must be refused in words. It ends
with an error if an answer does not come, the page asks another server for something, or the browser
reports an error. Playwright needs a Chromium: its own, or the one that
`--browser` names. `--directory` runs the `app.py` of a folder that `keras_ssm.web.write_space`
wrote, in place of the page itself.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import expect, sync_playwright
from scipy.io import wavfile

WIDTHS = (1280, 390)
PATIENCE = 300_000  # milliseconds that an answer may take, on a busy machine
DIGIT = [(0.3, 0.2), (0.72, 0.2), (0.45, 0.85)]  # strokes of a seven


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/page"))
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--directory", type=Path, help="a Space; default: the page itself")
    parser.add_argument("--csv", type=Path, help="default: a made-up year of days")
    parser.add_argument("--wav", type=Path, nargs="+", help="default: a made-up tone")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    csv = arguments.csv or _table(arguments.out / "days.csv")
    wavs = arguments.wav or [_tone(arguments.out / "tone.wav")]
    bad = _no_digits(arguments.out)
    server, address = _started(arguments.directory)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=arguments.browser, args=["--no-sandbox"]
            )
            asked, errors = set(), []
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": 900})
                page.on("request", lambda request: asked.add(request.url))
                page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
                page.on("pageerror", lambda error: errors.append(str(error)))
                _use(page, address, arguments.out, width, (csv, wavs, bad))
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    others = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
    print(f"{len(asked)} addresses asked, {len(others)} of other servers")
    if others or errors:
        raise SystemExit(f"other servers: {sorted(others)}; errors of the browser: {errors}")


def _use(page, address, out, width, files):
    page.goto(address)
    tabs = page.get_by_role("tab")
    expect(tabs.first).to_be_visible(timeout=PATIENCE)
    titles = [title for title in tabs.all_inner_texts() if title]
    print(f"{width} pixels wide: {titles}")
    if len(titles) != 3:
        raise SystemExit(f"all three tabs must be seen. Received: {titles}")
    for title in titles:
        tabs.filter(has_text=title).first.click()
        {"Draw": _draw, "Say": _say, "Forecast": _forecast}[title.split()[0]](page, *files)
        page.screenshot(path=out / f"{title.split()[0].lower()}-{width}.png", full_page=True)
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if overflow > 0:
            raise SystemExit(f"the page is {overflow} pixels wider than a window of {width}")


def _draw(page, csv, wavs, bad):
    page.locator("#pad[data-ready]").wait_for(timeout=PATIENCE)
    place = page.locator("#pad").bounding_box()
    left, top, side = place["x"], place["y"], place["width"]
    points = [(left + x * side, top + y * side) for x, y in DIGIT]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=25)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Read it").click()
    print("  drawn", flush=True)
    label = page.locator("[data-testid=label-output-value]")
    seen = set()
    end = time.monotonic() + PATIENCE / 1000
    picture = page.locator(".matplotlib img")
    while time.monotonic() < end and not picture.locator("visible=true").count():
        if label.count() and label.first.is_visible():
            seen.add(label.first.inner_text())
        _refuse(page)
        page.wait_for_timeout(400)
    print(f"  answers while it was read: {sorted(seen)}; at the end: {label.first.inner_text()}")
    expect(picture.locator("visible=true").first).to_be_visible()
    expect(
        page.get_by_text("64 of 64 pixels read").or_(page.get_by_text("784 of 784"))
    ).to_be_visible()
    if len(seen) < 2:
        raise SystemExit("the probabilities must move while the pixels are read")


def _say(page, csv, wavs, bad):
    answer = page.locator("[data-testid=label-output-value]:visible")
    toast = page.locator(".toast-body.error")
    for path in (*bad, *wavs):
        clear = page.get_by_label("Clear").or_(page.get_by_label("Remove audio"))
        if clear.locator("visible=true").count():
            clear.locator("visible=true").first.click()
        before = answer.first.inner_text() if answer.count() else None
        page.locator("input[type=file]").nth(0).set_input_files(path)
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="Hear it").click()
        if path in bad:
            expect(toast.first).to_be_visible(timeout=PATIENCE)
            print(f"  {path.name} is refused: {' '.join(toast.first.inner_text().split())}")
            page.locator(".toast-close").first.click()
            expect(toast).to_have_count(0)
        else:
            _wait(page, answer)
            page.locator(".progress-text, .eta-bar").first.wait_for(state="hidden")
            page.wait_for_timeout(500)
            print(f"  {path.name}: {answer.first.inner_text()} (before: {before})", flush=True)


def _forecast(page, csv, wavs, bad):
    page.locator("input[type=file][accept*=csv]").set_input_files(csv)
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Forecast").click()
    words = page.get_by_text(re.compile("it did not learn from"))
    _wait(page, words)
    print(f"  {words.first.inner_text()}")
    page.wait_for_timeout(1000)
    if (place := words.first.bounding_box())["width"] < 200:
        raise SystemExit(f"the words must have room. Received: {place}")


def _wait(page, wanted):
    end = time.monotonic() + PATIENCE / 1000
    while not wanted.count() and time.monotonic() < end:
        _refuse(page)
        page.wait_for_timeout(200)
    expect(wanted.first).to_be_visible()


def _refuse(page):
    toast = page.locator(".toast-body.error")
    if toast.count():
        raise SystemExit(f"the page says: {toast.first.inner_text()}")


def _started(directory):
    """The process that serves, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "keras_ssm", "demo", "--web"] if directory is None else ["app.py"]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    server = subprocess.Popen([sys.executable, *command], cwd=directory, env=environment)
    address, end = f"http://127.0.0.1:{port}/", time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, address
        time.sleep(0.5)
    server.terminate()
    raise SystemExit(f"the page must be served at {address}. Received: nothing")


def _table(path):
    days = np.datetime64("2024-01-01") + np.arange(365)
    rng = np.random.default_rng(0)
    load = 50 + 10 * np.sin(np.arange(365) * 2 * np.pi / 7) + rng.normal(size=365)
    lines = [f"{day},{value:.2f}" for day, value in zip(days, load, strict=True)]
    path.write_text("\n".join(["day,load", *lines]), encoding="utf-8")
    return path


def _tone(path):
    tone = np.sin(2 * np.pi * 440 * np.arange(4000) / 8000) * np.hanning(4000)
    wavfile.write(path, 8000, (20_000 * tone).astype("int16"))
    return path


def _no_digits(folder):
    """Sounds in which no digit can be heard."""
    paths = [folder / name for name in ("silent.wav", "minute.wav", "broken.wav")]
    wavfile.write(paths[0], 8000, np.zeros(8000, "int16"))
    wavfile.write(paths[1], 8000, np.resize(np.arange(-9000, 9000, 500), 480_000).astype("int16"))
    paths[2].write_bytes(paths[1].read_bytes()[:1000])
    return paths


if __name__ == "__main__":
    main()
