"""Pictures that follow sliders: what notebook 90 has under its hands.

A matplotlib figure is slow to draw and leaves a trail of old ones; an error in a slider's callback
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

from lib.look.figures import to_picture

SIDE = 96  # pixels of one image on the screen, or just above: a whole multiple of its own


class Panel(widgets.VBox):
    """Controls above one picture, drawn anew with their values whenever one of them changes."""

    def __init__(
        self,
        draw: Callable[..., Tensor],
        columns: int = 1,
        side: int = SIDE,
        missing: str = "",
        **controls: widgets.Widget,
    ) -> None:
        """Show draw(**values), images (N, C, H, W), in a grid; `values` are the controls' by their names.

        missing: why there is nothing to draw, which stands in the place of the controls and the picture.
        """
        self.draw, self.columns, self.side, self.missing, self.controls = draw, columns, side, missing, controls
        self.picture, self.line = widgets.Image(format="png"), widgets.HTML()
        self.milliseconds: list[float] = []  # a step, from a control's change to the picture's bytes
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            control.observe(self.step, "value")
        shown = [self.line] if missing else [*controls.values(), self.picture, self.line]
        super().__init__(shown, layout={"align_items": "flex-start"})
        self.step()

    def step(self, _: dict | None = None) -> None:
        """Draw the picture for the controls' values; tell what went wrong in the line below it."""
        began = time.perf_counter()
        try:
            if self.missing:
                raise ValueError(self.missing)
            with torch.no_grad():
                images = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.picture.value, width = to_png(images, self.columns)
            self.picture.width = str(width * -(-self.side // images.shape[-1]))
        except ValueError as error:
            self.line.value = f"<b>{error}</b>"
            return
        self.milliseconds.append(1000 * (time.perf_counter() - began))
        self.line.value = f"<small>{self.milliseconds[-1]:.0f} ms</small>"

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """Show the widget where there is a kernel, on a page without one its picture, or why there is none."""
        bundle = super()._repr_mimebundle_(**options)
        if not self.picture.value:
            return bundle | {"text/html": self.line.value}, {}
        bundle |= {"image/png": b64encode(self.picture.value).decode()}
        return bundle, {"image/png": {"width": int(self.picture.width)}}


def to_png(images: Tensor, columns: int) -> tuple[bytes, int]:
    """Lay images (N, C, H, W) out as one PNG, pixel by pixel, for the browser to enlarge; return its width, too."""
    picture, buffer = Image.fromarray(to_picture(images, columns)), io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue(), picture.width


def buttons(labels: list[str], side: int = SIDE) -> widgets.ToggleButtons:
    """Return one button above each image of a row; its value is the image's place, from 0."""
    options = [(label, i) for i, label in enumerate(labels)]
    return widgets.ToggleButtons(options=options, description=" ", style={"button_width": f"{side - 1}px"})


def player(slider: widgets.IntSlider, interval: int = 120) -> widgets.Play:
    """Return a play button that moves a slider, `interval` milliseconds a step, in the browser itself."""
    play = widgets.Play(min=slider.min, max=slider.max, interval=interval)
    widgets.jslink((play, "value"), (slider, "value"))
    return play
