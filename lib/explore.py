"""Pictures that follow sliders: what notebook 90 has under its hands.

A matplotlib figure takes a tenth of a second to draw and leaves a trail of old ones; an error in a slider's callback
vanishes. A panel holds one picture, sent as PNG bytes, and a line below it that tells the time or what went wrong.
"""

import io
import time
from base64 import b64encode
from collections.abc import Callable

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor

from lib.figures import to_picture

SIDE = 96  # pixels of one image on the screen, at least


class Panel(widgets.VBox):
    """Controls above one picture, drawn anew with their values whenever one of them changes."""

    def __init__(self, draw: Callable[..., Tensor], columns: int = 1, side: int = SIDE, **controls: widgets.Widget):
        """Show draw(**values), images (N, C, H, W), in a grid; `values` are the controls' by their names."""
        self.draw, self.columns, self.side, self.controls = draw, columns, side, controls
        self.picture, self.line = widgets.Image(format="png"), widgets.HTML()
        self.milliseconds: list[float] = []  # a step, from a control's change to the picture's bytes
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            control.observe(self.step, "value")
        super().__init__([*controls.values(), self.picture, self.line])
        self.step()

    def step(self, _: dict | None = None) -> None:
        """Draw the picture for the controls' values; tell what went wrong in the line below it."""
        began = time.perf_counter()
        try:
            with torch.no_grad():
                images = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.picture.value = to_png(images, self.columns, self.side)
        except ValueError as error:
            self.line.value = f"<b>{error}</b>"
            return
        self.milliseconds.append(1000 * (time.perf_counter() - began))
        self.line.value = f"<small>{self.milliseconds[-1]:.0f} ms</small>"

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        """Show the widget where there is a kernel, its picture on a page without one."""
        bundle = super()._repr_mimebundle_(**options)
        return bundle | {"image/png": b64encode(self.picture.value).decode()}


def to_png(images: Tensor, columns: int, side: int = SIDE) -> bytes:
    """Lay images (N, C, H, W) out as one PNG, each enlarged by a whole number to `side` pixels or just above."""
    picture = Image.fromarray(to_picture(images, columns))
    scale = -(-side // images.shape[-1])
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def buttons(labels: list[str], side: int = SIDE) -> widgets.ToggleButtons:
    """Return one button above each image of a row; its value is the image's place, from 0."""
    options = [(label, i) for i, label in enumerate(labels)]
    return widgets.ToggleButtons(
        options=options, style={"button_width": f"{side - 8}px", "description_width": "0"}, description=" "
    )


def player(slider: widgets.IntSlider, interval: int = 120) -> widgets.Play:
    """Return a play button that moves a slider, `interval` milliseconds a step, in the browser itself."""
    play = widgets.Play(min=slider.min, max=slider.max, interval=interval)
    widgets.jslink((play, "value"), (slider, "value"))
    return play


def nearest(x: Tensor, images: Tensor, k: int) -> Tensor:
    """Return the rows of uint8 images (N, C, H, W) nearest to one image x (C, H, W) in [-1, 1], by pixels: (k,)."""
    flat = images.flatten(1).float()
    distances = (flat - ((x + 1) * 127.5).flatten()).square().sum(1)  # (N,)
    return distances.topk(k, largest=False).indices
