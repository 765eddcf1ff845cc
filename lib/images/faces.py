"""Faces that are drawn, so that what a generator learnt can be scored and not only looked at.

Traits are drawn independently of each other, but for `beard`, which only men have (40% of them); each other one is
there in half of the faces. A face is drawn on a cylinder: a feature has an angle and a height on the head, and the turn
of the head is an angle added to it. So eyes foreshorten, the nose points and the hair follows without a rule for each.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.random import Generator

from lib.images.pictures import BLACK, CIRCLE, COS, SIN, WHITE, Pen, draw, hue, mix, tabulate

VERSIONS = {"drawn faces": 1}  # raise it when a pixel changes
TURN = 0.65  # the head's angle in radians at yaw = 1
HEAD_X, HEAD_Y = 0.6, 0.74  # half axes of the head in image units: the image is [-1, 1] both ways, y down
LINE = np.linspace(-1, 1, 17)
PALE, DEEP = np.array([255.0, 222, 194]), np.array([156.0, 102, 70])  # the ends of the range of skin tones
HAIR = {0: ([28.0, 22, 24], [104.0, 60, 34]), 1: ([250.0, 222, 128], [218.0, 168, 70])}  # dark and blond, two ends each


@dataclass(frozen=True)
class Face:
    """The traits of one face; whole numbers are 0 or 1, lengths are in half image sides, angles in radians."""

    smiling: int = 0
    glasses: int = 0
    male: int = 0
    beard: int = 0
    blond: int = 0
    yaw: float = 0.0  # -1 looks to the image's left, 1 to its right
    mouth_open: float = 0.0  # 0 closed, 1 open
    skin: float = 0.3  # 0 pale, 1 deep
    hair_shade: float = 0.5  # 0 to 1 within dark or blond
    eye_hue: float = 0.6
    nose: float = 1.0  # width, 1 is the mean
    light: float = 0.0  # -1 from the left, 1 from the right
    tilt: float = 0.0
    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    cloth_hue: float = 0.0
    back_hue: float = 0.5
    back_value: float = 0.8


def draw_faces(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw n faces and the traits they were drawn from.

    Returns images (n, 3, size, size) uint8 and a frame of n rows whose columns are the fields of `Face`: int8 for
    0 or 1, float32 else. Raises ValueError where n < 1 or size < 16.
    """
    images, faces = draw(_sample_face, paint_face, n, size, seed)
    return images, tabulate(faces)


def _sample_face(rng: Generator) -> Face:
    """Draw the traits of one face; each number is drawn whether it is used or not, so none shifts the next."""
    smiling, glasses, male, blond = (rng.random(4) < 0.5).astype(int).tolist()
    beard = int(rng.random() < 0.4 and male)
    yaw, light, tilt, scale, shift_x, shift_y, nose = rng.uniform(-1, 1, 7).tolist()
    mouth_open, skin, hair_shade, eye_hue, cloth_hue, back_hue, back_value = rng.random(7).tolist()
    return Face(
        smiling, glasses, male, beard, blond, yaw, mouth_open, skin, hair_shade, eye_hue=0.07 + 0.55 * eye_hue,
        nose=1 + 0.25 * nose, light=light, tilt=0.08 * tilt, scale=1 + 0.05 * scale, shift_x=0.05 * shift_x,
        shift_y=0.04 * shift_y, cloth_hue=cloth_hue, back_hue=back_hue, back_value=0.55 + 0.4 * back_value,
    )  # fmt: skip


def paint_face(face: Face, size: int = 32) -> np.ndarray:
    """Paint one face from explicit traits: (3, size, size) uint8. Raises ValueError where size < 16."""
    back = hue(face.back_hue, 0.42, face.back_value)
    pen = Pen(size, back, 0.72 * back)
    cos, sin = face.scale * np.cos(face.tilt), face.scale * np.sin(face.tilt)
    x0, y0 = face.shift_x, face.shift_y + 0.04
    pen.place = lambda x, y: (x0 + cos * x - sin * y, y0 + sin * x + cos * y)
    head = _Head(face)
    for part in (_paint_bust, _paint_skull, _paint_mouth, _paint_eyes, _paint_hair, _paint_nose):
        part(pen, face, head)
    return pen.pixels()


@cache
def _profile(jaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Tabulate heights and half widths of a head; `jaw` is the lower half's exponent, where 2 is an ellipse."""
    y = -np.cos(np.linspace(0, np.pi, 65))
    p = np.where(y > 0, jaw, 2.0)
    return HEAD_Y * y, HEAD_X * (1 - np.abs(y) ** p) ** (1 / p)


class _Head:
    """The head's shape and colours: maps an angle and a height on it to image units."""

    def __init__(self, face: Face) -> None:
        self.angle = TURN * face.yaw
        self.lean = 0.12 * np.sin(self.angle)
        self.profile = _profile(2.7 if face.male else 1.9)  # men have the wider jaw
        self.skin = mix(PALE, DEEP, face.skin)
        self.shade = 0.8 * self.skin
        self.hair = mix(*HAIR[face.blond], face.hair_shade)

    def width(self, y: np.ndarray) -> np.ndarray:
        """Half the head's width at height y."""
        return np.interp(y, *self.profile)

    def x(self, u: np.ndarray, y: np.ndarray, out: float = 1.0) -> np.ndarray:
        """Where the point at angle u from the face's middle appears; `out` lifts it off the head."""
        angle = np.clip(u + self.angle, -np.pi / 2, np.pi / 2)
        return out * self.width(y) * np.sin(angle) + self.lean * np.maximum(y, -0.3)

    def patch(self, pen: Pen, u: float, y: float, ru: float, ry: float, colour: np.ndarray) -> None:
        """Fill an ellipse that lies on the head."""
        pen.fill(self.x(u + ru * COS, y), y + ry * SIN, colour)


def _paint_bust(pen: Pen, face: Face, head: _Head) -> None:
    """Hair behind the head, neck and shoulders."""
    cloth, behind = hue(face.cloth_hue, 0.6, 0.7), -0.9 * head.lean
    if not face.male:
        y = np.array([-0.3, 0.2, 0.7, 1.0, 1.0, 0.7, 0.2, -0.3])
        x = np.array([-0.66, -0.72, -0.77, -0.7, 0.7, 0.77, 0.72, 0.66])
        pen.fill(x + behind, y, 0.86 * head.hair)
    pen.oval(0, 1.25, 0.95 if face.male else 0.72, 0.42, cloth)
    neck = 0.3 if face.male else 0.2
    pen.fill(np.array([-neck, neck, neck, -neck]), np.array([0.4, 0.4, 0.92, 0.92]), 0.88 * head.shade)
    pen.oval(0, 0.92, neck, 0.09, 0.88 * head.shade)
    pen.oval(behind, -0.16, HEAD_X * 1.05, HEAD_Y * 0.82, 0.86 * head.hair)


def _paint_skull(pen: Pen, face: Face, head: _Head) -> None:
    """The bare head with its lit side, and the beard."""
    if face.male:
        _paint_ears(pen, head, near=False)
    y = HEAD_Y * np.cos(CIRCLE)
    x = np.sign(SIN) * head.width(y)
    lean = head.lean * np.maximum(y, -0.3)
    pen.fill(x + lean, y, head.shade)
    pen.fill(0.92 * x + lean + 0.045 * face.light, 0.94 * y - 0.02, head.skin)
    if face.beard:
        angle = np.pi / 2 * LINE
        u = angle - head.angle
        top = 0.34 - 0.3 * np.minimum(np.abs(u) / 1.3, 1) ** 3
        side = mix(top[0], top[-1], (LINE + 1) / 2)  # the jaw begins where the cheeks' line meets the head's edge
        jaw = side + (1.02 * HEAD_Y - side) * np.cos(angle)
        jaw_x = np.sin(angle) * head.width(np.minimum(jaw, 0.5)) + head.lean * jaw
        x = np.concatenate([head.x(u, top), jaw_x[::-1]])
        pen.fill(x, np.concatenate([top, jaw[::-1]]), 0.92 * head.hair)


def _paint_mouth(pen: Pen, face: Face, head: _Head) -> None:
    """A wide curved grin with teeth, or a short straight mouth."""
    lips = mix(head.skin, [188.0, 84, 80], 0.65) if face.male else np.array([196.0, 36, 58])
    bow = 1 - LINE**2
    if face.smiling:
        half, y, upper, lower = 0.62, 0.3, 0.05, 0.19 + 0.07 * face.mouth_open
    else:
        half, y, upper, lower = 0.32, 0.42, -0.015, 0.02 + 0.055 * face.mouth_open

    def lens(grow: float, above: float, below: float, colour: np.ndarray) -> None:
        u, top, bottom = (half + grow) * LINE, y + above * bow - 0.4 * grow, y + below * bow + 0.4 * grow
        v = np.concatenate([top, bottom[::-1]])
        pen.fill(head.x(np.concatenate([u, u[::-1]]), v), v, colour)

    edge = 0.045 if face.male else 0.075
    lens(edge, upper, lower + edge * 0.6, lips)
    lens(0, upper, lower, np.array([96.0, 24, 32]) if face.mouth_open > 0.3 or face.smiling else 0.7 * lips)
    if face.smiling:
        lens(-0.03, upper + 0.01, upper + 0.1, WHITE)


def _paint_eyes(pen: Pen, face: Face, head: _Head) -> None:
    """Eyes and brows, behind thick dark frames if there are glasses."""
    sides, y = (-0.45, 0.45), -0.08
    if face.glasses:
        bar = np.array([-0.075, -0.075, -0.01, -0.01]) + y
        pen.fill(head.x(np.array([-1.5, 1.5, 1.5, -1.5]), bar), bar, BLACK)
        for side in sides:
            head.patch(pen, side, y, 0.41, 0.215, BLACK)
            head.patch(pen, side, y, 0.29, 0.145, mix(head.skin, [205.0, 228, 245], 0.5))
    iris, lid = hue(face.eye_hue, 0.65, 0.5), 0.35 * head.skin
    for side in sides:
        if not face.male:
            head.patch(pen, side, y - 0.035, 0.26, 0.115, BLACK)  # lashes
        head.patch(pen, side, y, 0.23, 0.105, WHITE)
        head.patch(pen, side + 0.06 * face.yaw, y, 0.13, 0.1, iris)
        head.patch(pen, side + 0.06 * face.yaw, y, 0.07, 0.055, BLACK)
        thick = 0.085 if face.male else 0.04
        arch = y - 0.27 + 0.05 * LINE**2
        v = np.concatenate([arch, arch[::-1] + thick])
        pen.fill(head.x(side + 0.27 * np.concatenate([LINE, LINE[::-1]]), v), v, mix(lid, head.hair, 0.5))


def _paint_hair(pen: Pen, face: Face, head: _Head) -> None:
    """The hair over the head: short with sideburns, or long and parted; the hairline turns with the head."""
    low, top, power = (-0.02, -0.44, 5) if face.male else (0.62, -0.52, 3.2)
    angle = np.pi / 2 * LINE
    u = angle - head.angle
    line = np.minimum(low, top + 0.55 * (np.abs(u) / 1.12) ** power)
    line_x = 1.02 * np.sin(angle) * head.width(np.minimum(line, 0.3)) + head.lean * np.maximum(line, -0.3)
    over = np.pi / 2 * (LINE + 1)
    rx, ry = (1.04, 1.06) if face.male else (1.12, 1.1)
    x = np.concatenate([line_x, rx * HEAD_X * np.cos(over) - 0.3 * head.lean])
    pen.fill(x, np.concatenate([line, -ry * HEAD_Y * np.sin(over)]), head.hair)
    if face.male:
        _paint_ears(pen, head, near=True)


def _paint_ears(pen: Pen, head: _Head, near: bool) -> None:
    """The ears of short hair: the ones on the viewer's side of the head, or the ones behind it."""
    for side in (-1, 1):
        angle = 1.5 * side + head.angle
        if (abs(angle) < np.pi / 2) == near:
            x = 1.05 * head.width(0.0) * np.sin(angle)
            pen.oval(x, 0.02, 0.075, 0.14, head.shade)
            pen.oval(x, 0.02, 0.04, 0.09, 0.92 * head.skin)


def _paint_nose(pen: Pen, face: Face, head: _Head) -> None:
    """The nose stands off the head, so it points where the head turns."""
    tip = head.x(0, 0.15, out=1.3)
    half = 0.085 * face.nose
    root = head.x(0, -0.1)
    pen.fill(np.array([root, tip - half, tip + half]), np.array([-0.06, 0.16, 0.16]), 0.9 * head.skin)
    pen.oval(tip, 0.15, half, 0.06, 0.78 * head.skin)
