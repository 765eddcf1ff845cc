"""The explore notebook: its panels, how long a step takes, and a browser that moves a slider in JupyterLab."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from contextlib import contextmanager
from pathlib import Path

import ipywidgets as widgets
import nbformat
import psutil
import pytest
import torch
from PIL import Image

from lib.look import explore
from lib.nets import weights
from lib.study import paths

SCREENSHOTS = paths.ROOT / "tests" / "screenshots"  # what the browser saw; not in git
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
           "--disable-component-update", "--no-first-run"]  # fmt: skip


def flat(level: float, n: int = 1) -> torch.Tensor:
    return torch.full((n, 3, 8, 8), level * 2 - 1)


def levels(png: bytes) -> set[int]:
    return set(Image.open(io.BytesIO(png)).convert("L").tobytes())


def test_a_panel_draws_with_its_controls_values():
    slider, word = widgets.FloatSlider(value=0, max=1), widgets.Dropdown(options=["a", "b"])
    seen = []

    def draw(level, word):
        seen.append((level, word))
        return flat(level)

    panel = explore.Panel(draw, level=slider, word=word)
    assert levels(panel.picture.value) == {0}
    slider.value = 1
    assert levels(panel.picture.value) == {255}
    word.value = "b"
    assert seen == [(0, "a"), (1, "a"), (1, "b")]
    assert len(panel.milliseconds) == 3


def test_a_panel_tells_what_went_wrong_and_goes_on():
    slider = widgets.IntSlider(max=2)

    def draw(level):
        if level == 1:
            raise ValueError("no such level")
        return flat(level / 2)

    panel = explore.Panel(draw, level=slider)
    before = panel.picture.value
    slider.value = 1
    assert "no such level" in panel.line.value
    assert panel.picture.value == before
    slider.value = 2
    assert "ms" in panel.line.value
    assert panel.picture.value != before


def test_a_panel_is_a_picture_where_there_is_no_kernel():
    panel = explore.Panel(lambda: flat(0.5))
    bundle, about = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert b64decode(bundle["image/png"]) == panel.picture.value
    assert about == {"image/png": {"width": explore.SIDE}}


def test_a_panel_that_has_nothing_to_draw_says_why():
    panel = explore.Panel(lambda word: 1 / 0, missing="photos has no labels", word=widgets.Dropdown(options=[]))
    assert panel.line.value == "<b>photos has no labels</b>" and panel.children == (panel.line,)
    bundle, about = panel._repr_mimebundle_()
    assert "image/png" not in bundle and "photos has no labels" in bundle["text/html"] and about == {}


def test_a_panel_whose_first_picture_fails_is_shown_all_the_same():
    def draw():
        raise ValueError("no such layer")

    assert "no such layer" in explore.Panel(draw)._repr_mimebundle_()[0]["text/html"]


def test_a_row_of_buttons_fits_its_row_of_images():
    row = explore.buttons(["1", "2", "3"])
    assert (row.value, row.options[2]) == (0, ("3", 2))
    panel = explore.Panel(lambda: flat(0, 3), columns=3)
    assert panel.picture.width == "336", "three images of 8 pixels and four lines between, twelve times as large"


@pytest.mark.parametrize(("net", "images"), [("toy-faces", 8), ("faces", 6)])
def test_a_step_takes_well_under_a_tenth_of_a_second(net, images):
    """Processor time, which other programs do not stretch."""
    G, _, _ = weights.load_net(weights.find_net(net))
    z = G.sample_z(images, torch.Generator().manual_seed(0))
    slider = widgets.IntSlider(max=100)
    explore.Panel(lambda step: G(z + step / 100), images, step=slider)
    began = time.process_time()
    for step in range(1, 21):
        slider.value = step
    assert (time.process_time() - began) / 20 < 0.1


# --- in a browser


def wait_for(found, seconds=240):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := found():
            return result
        time.sleep(0.5)
    raise TimeoutError


@contextmanager
def lab(folder: Path, tied: list[str]):
    """JupyterLab as `make lab` starts it, where its port is in use: it takes another. Yields the address."""
    said = subprocess.run(["make", "-n", "lab"], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    given = re.search(r"jupyter lab (.*) notebooks$", said, re.MULTILINE)[1].split()
    runtime = folder / "runtime"
    with socket.socket() as taken, (folder / "server.log").open("w") as log:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = subprocess.Popen(
            [*tied, sys.executable, "-m", "jupyter", "lab", *given, "--no-browser", f"--port={port}", str(folder)],
            stdout=log, stderr=log, cwd=folder, start_new_session=True,
            env=os.environ | {"JUPYTER_RUNTIME_DIR": str(runtime), "STUDY_RUNS": str(folder / "runs"),
                              "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTERLAB_SETTINGS_DIR": str(folder)},
        )  # fmt: skip
        try:
            there = json.loads(wait_for(lambda: list(runtime.glob("jpserver-*.json")))[0].read_text())
            assert there["port"] != port
            assert there["hostname"] == "127.0.0.1"
            assert there["token"]
            yield f"{there['url']}lab/tree/90_explore.ipynb?token={there['token']}"
        finally:
            below = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGTERM)
            server.wait(30)
            for process in psutil.wait_procs(below, 10)[1]:
                process.kill()


def test_what_tests_start_ends_when_they_are_killed(tied):
    if not tied:
        pytest.skip("no setpriv, which Linux has")
    code = f"import subprocess as s, sys; print(s.Popen({[*tied, 'sleep', '600']}).pid, flush=True); sys.stdin.read()"
    killed = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with killed:
        left = psutil.Process(int(killed.stdout.readline()))
        wait_for(lambda: left.name() == "sleep")
        killed.kill()
    left.wait(20)


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
def test_a_slider_moves_the_picture_in_jupyterlab(tmp_path, tied):
    playwright = pytest.importorskip("playwright.sync_api")
    notebook = nbformat.read(paths.NOTEBOOKS / "90_explore.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in {"limit": 300, "samples": 300, "epochs": 1}.items():
        cell.source = re.sub(rf"(?m)^{name}: int = \d+", f"{name}: int = {value}", cell.source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, tmp_path / "90_explore.ipynb")
    SCREENSHOTS.mkdir(exist_ok=True)
    with lab(tmp_path, tied) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(180_000)
        page.goto(address)
        page.locator(".jp-NotebookPanel").wait_for()
        page.get_by_text(re.compile(r"Python 3.*\| Idle")).wait_for()  # before that, it asks which kernel to take
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        try:
            wait_for(lambda: list(tmp_path.glob("runs/*/metrics.json")), 400)  # the last cell was run
        except TimeoutError:
            page.screenshot(path=SCREENSHOTS / "stuck.png")
            prompts = page.locator(".jp-InputPrompt").all_inner_texts()
            pytest.fail(f"not run to its end: {prompts}; {(tmp_path / 'server.log').read_text()[-2000:]}")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        page.screenshot(path=SCREENSHOTS / "ran.png")
        slider, picture = page.locator(".noUi-handle").first, page.locator("img.widget-image").first
        picture.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        page.screenshot(path=SCREENSHOTS / "before.png")
        before, position = picture.screenshot(), slider.get_attribute("aria-valuenow")
        slider.focus()
        for _ in range(20):
            page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(3000)
        page.screenshot(path=SCREENSHOTS / "moved.png")
        assert slider.get_attribute("aria-valuenow") != position
        assert picture.screenshot() != before
        assert picture.bounding_box()["width"] < 800, "as large as its six faces are, not as wide as the page"
        for i, panel in enumerate(page.locator(".jp-OutputArea-output:has(img.widget-image)").all()):
            panel.scroll_into_view_if_needed()
            page.screenshot(path=SCREENSHOTS / f"panel-{i}.png")
        browser.close()
