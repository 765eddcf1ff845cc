"""A pen that paints images of known traits, and what drawn faces and rooms share.

Vector arithmetic, the turn vector and forgotten windows (paper, section 6) are judged by eye, because nobody knows
what a generated image "is". A drawn image has known traits: a classifier trained on them reads a generated image, and
the box of every window is exact. Image i depends on (seed, i) alone, so a longer set begins with the shorter one.
"""

from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import fields

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

OVERSAMPLING = 4  # shapes are drawn this many times larger and averaged down: smooth edges
CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
COS, SIN = np.cos(CIRCLE), np.sin(CIRCLE)
BLACK, WHITE = np.array([25.0, 22, 28]), np.array([250.0, 250, 248])


class Pen:
    """A canvas to fill polygons on, in image units: [-1, 1] both ways, y down; `place` maps points before that."""

    def __init__(self, size: int, top: np.ndarray, bottom: np.ndarray) -> None:
        if size < 16:
            raise ValueError(f"size = {size}: must be at least 16 pixels")
        self.side = size * OVERSAMPLING
        self.place = lambda x, y: (x, y)
        ramp = np.linspace(top, bottom, self.side).round().astype(np.uint8)  # (side, 3)
        self.image = Image.fromarray(ramp[:, None]).resize((self.side, self.side), Image.Resampling.NEAREST)
        self.draw = ImageDraw.Draw(self.image)

    def fill(self, x: np.ndarray, y: np.ndarray, colour: np.ndarray) -> None:
        """Fill the polygon with corners (x, y)."""
        corners = np.empty((len(x), 2))
        corners[:, 0], corners[:, 1] = self.place(x, y)
        corners = (corners + 1) * (self.side / 2)
        self.draw.polygon(corners.ravel().tolist(), fill=tuple(int(c) for c in colour))

    def oval(self, x: float, y: float, rx: float, ry: float, colour: np.ndarray) -> None:
        """Fill an ellipse."""
        self.fill(x + rx * COS, y + ry * SIN, colour)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: np.ndarray) -> None:
        """Fill a half-open box given in pixels of the final image; one that is too thin for it is not seen."""
        a, b, c, d = (round(end * OVERSAMPLING) for end in (x0, y0, x1, y1))
        if a < c and b < d:
            self.draw.rectangle((a, b, c - 1, d - 1), fill=tuple(int(v) for v in colour))

    def pixels(self) -> np.ndarray:
        """Average down to (3, size, size) uint8."""
        return np.asarray(self.image.reduce(OVERSAMPLING)).transpose(2, 0, 1).copy()


def mix(a: np.ndarray, b: np.ndarray, part: float) -> np.ndarray:
    return np.add(np.multiply(a, 1 - part), np.multiply(b, part))


def hue(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(hsv_to_rgb(hue, saturation, value))


def draw(sample: Callable, paint: Callable, n: int, size: int, seed: int) -> tuple[np.ndarray, list]:
    """Sample the traits of n images and paint them: (n, 3, size, size) uint8, and the n traits."""
    if n < 1:
        raise ValueError(f"n = {n}: must be at least 1")
    traits = [sample(np.random.default_rng([seed, i])) for i in range(n)]
    return np.stack([paint(trait, size) for trait in traits]), traits


def tabulate(traits: list) -> pd.DataFrame:
    """Tabulate traits, one row each: a whole number becomes int8, any other float32."""
    kinds = {field.name: np.int8 if field.type is int else np.float32 for field in fields(traits[0])}
    return pd.DataFrame({name: np.array([getattr(t, name) for t in traits], kind) for name, kind in kinds.items()})
