"""One picture as uint8 (3, size, size): a file's, as a viewer shows it, or one that is drawn with a pen.

A file's picture is turned as its camera was held, transparency laid on white, colours in sRGB, of several frames the
first.

Vector arithmetic, the turn vector and forgotten windows (paper, section 6) are judged by eye, because nobody knows
what a generated image "is". A drawn image has known traits: a classifier trained on them reads a generated image, and
the box of every window is exact. Image i depends on (seed, i) alone, so a longer set begins with the shorter one.
"""

import io
from collections.abc import Callable
from colorsys import hsv_to_rgb
from contextlib import suppress
from dataclasses import fields
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageCms, ImageDraw, ImageOps

# What Pillow may read a file as; others of its readers start programs (EPS) or take any bytes for an image (TGA).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "PPM", "TIFF", "JPEG2000", "QOI")

OVERSAMPLING = 4  # shapes are drawn this many times larger and averaged down: smooth edges
CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
COS, SIN = np.cos(CIRCLE), np.sin(CIRCLE)
BLACK, WHITE = np.array([25.0, 22, 28]), np.array([250.0, 250, 248])

Read = Callable[[], bytes]


@cache
def formats() -> tuple[tuple[str, ...], set[str]]:
    """Return the formats that this Pillow reads, and the suffixes of their files."""
    Image.init()
    known = tuple(name for name in FORMATS if name in Image.OPEN)
    return known, {suffix for suffix, name in Image.registered_extensions().items() if name in known}


def open_image(read: Read) -> Image.Image:
    """Open an image from its file's bytes, by what they are and not by its name."""
    return Image.open(io.BytesIO(read()), formats=formats()[0])


class Picture(NamedTuple):
    """A decoded image. In one of 16-bit grey, red and green hold each value's high and low byte: the set scales it."""

    pixels: np.ndarray  # uint8 (3, size, size)
    kind: str  # grey, colour, deep grey, deep colour
    largest: int = 0  # of a deep image's values
    traits: tuple[str, ...] = ()


def to_picture(image: Image.Image, size: int, crop: bool = False) -> Picture:
    """Return what a viewer shows of an image, its short side resized to `size` and its centre cut out.

    crop: its centre is cut out as it is, nothing resized. Raises ValueError for an image that is too small for that,
    and for values that have no stated scale: floats outside [0, 1], whole numbers over 16 bits.
    """
    raw = str(image.tile[0][3]) if getattr(image, "tile", None) else ""  # as it lies in the file; gone once it is read
    image.load()
    many = getattr(image, "is_animated", False) and image.format != "MPO"
    traits = (f"have several frames ({image.format}), of which the first is taken",) if many else ()
    profile = image.info.get("icc_profile")
    with suppress(Exception):  # EXIF that no viewer can read either
        image = ImageOps.exif_transpose(image)
    grey = image.mode[0] in "1LIF" and image.mode != "LAB"
    if image.mode[0] in "IF":
        return _deep_grey(image, size, crop, traits)
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        canvas = Image.new("L" if grey else "RGB", image.size, "white")
        canvas.paste(image, mask=image.getchannel("A"))
        image = canvas
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if grey else "RGB")
    image = _cut(image, size, crop)
    if profile and not grey and (transform := _to_srgb(profile, image.mode)):
        image = transform.apply(image)
    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
    if ";16" in raw:
        return Picture(pixels, "deep colour", int(pixels.max()), traits)
    return Picture(pixels, "grey" if grey else "colour", 0, traits)


def _deep_grey(image: Image.Image, size: int, crop: bool, traits: tuple[str, ...]) -> Picture:
    """Return an image of floats or of more than 8 bits: floats in [0, 1] as 8 bits, others as two bytes."""
    values = np.asarray(image).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    most = 1 if image.mode == "F" else 65535
    if not (low >= 0 and high <= most):  # nor where any value is no number
        raise ValueError(f"its values from {low:g} to {high:g} have no known scale; save it in 8 or 16 bits of grey")
    cropped = np.asarray(_cut(Image.fromarray(values), size, crop))
    if image.mode == "F":
        grey = (cropped * 255).round().clip(0, 255).astype(np.uint8)
        return Picture(np.stack([grey] * 3), "grey", 0, traits)
    value = cropped.round().clip(0, 65535).astype(np.uint16)
    return Picture(np.stack([value >> 8, value & 255, value & 0]).astype(np.uint8), "deep grey", int(high), traits)


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns colours of an embedded profile into sRGB; None for sRGB itself and for a profile of no use."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return None
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _cut(image: Image.Image, size: int, crop: bool) -> Image.Image:
    """Resize the short side to `size` and cut out the centre: the paper's min-resized centre crop; or only cut."""
    short = min(image.size)
    if crop:
        if short < size:
            raise ValueError(f"it has {image.width} x {image.height} pixels, too few to cut {size} x {size} out of")
        left, top = ((side - size) // 2 for side in image.size)
        return image.crop((left, top, left + size, top + size))
    left, top = ((side - short) / 2 for side in image.size)
    return image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + short, top + short))  # antialiases


# --- drawn ---------------------------------------------------------------------------------------------------------


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
