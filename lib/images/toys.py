"""Faces and bedrooms that are drawn, so that what a generator learnt can be scored and not only looked at.

Vector arithmetic, the turn vector and forgotten windows (paper, section 6) are judged by eye, because nobody knows
what a generated image "is". Here every image is drawn from known traits: a classifier trained on them reads a generated
face, and the box of every window is exact. Traits are drawn independently of each other, but for `beard`, which only
men have (40% of them). Each is there in half of the images; a bed is in 75%, a window in 60%, the night outside in
40%. Image i depends on (seed, i) alone, so a longer set begins with the shorter one.

A face is drawn on a cylinder: a feature has an angle and a height on the head, and the turn of the head is an angle
added to it. So eyes foreshorten, the nose points and the hair follows without a rule for each. A room is a box in
one-point perspective.
"""

from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import pandas as pd
from numpy.random import Generator
from PIL import Image, ImageDraw

OVERSAMPLING = 4  # shapes are drawn this many times larger and averaged down: smooth edges
TURN = 0.65  # the head's angle in radians at yaw = 1
HEAD_X, HEAD_Y = 0.6, 0.74  # half axes of the head in image units: the image is [-1, 1] both ways, y down
CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
COS, SIN = np.cos(CIRCLE), np.sin(CIRCLE)
LINE = np.linspace(-1, 1, 17)
BLACK, WHITE = np.array([25.0, 22, 28]), np.array([250.0, 250, 248])
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


@dataclass(frozen=True)
class Room:
    """The traits of one bedroom; whole numbers are 0 or 1, lengths and heights are parts of the room's."""

    bed: int = 1
    lamp: int = 0
    window: int = 0
    picture: int = 0
    plant: int = 0
    rug: int = 0
    bed_right: int = 0  # which side wall the bed stands at, if there is one
    night: int = 0  # what the window shows
    window_x: float = 0.5  # centre of the window on the back wall, from the left
    window_y: float = 0.66  # the same from the floor
    window_w: float = 0.45
    window_h: float = 0.4
    view_x: float = 0.0  # where the eye stands
    depth: float = 1.2
    wall_hue: float = 0.1
    wall_value: float = 0.85
    floor_shade: float = 0.5
    bed_hue: float = 0.6
    decor_hue: float = 0.0  # rug and picture


def draw_faces(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw n faces and the traits they were drawn from.

    Returns images (n, 3, size, size) uint8 and a frame of n rows whose columns are the fields of `Face`: int8 for
    0 or 1, float32 else. Raises ValueError where n < 1 or size < 16.
    """
    images, faces = _draw(_sample_face, paint_face, n, size, seed)
    return images, _frame(faces)


def draw_rooms(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw n bedrooms and the traits they were drawn from.

    Returns images (n, 3, size, size) uint8 and a frame of n rows whose columns are the fields of `Room`, and
    `window_x0, window_y0, window_x1, window_y1`: the window's half-open box in pixels, NaN where there is none.
    Raises ValueError where n < 1 or size < 16.
    """
    images, rooms = _draw(_sample_room, paint_room, n, size, seed)
    boxes = [window_box(room, size) if room.window else (np.nan,) * 4 for room in rooms]
    columns = ["window_x0", "window_y0", "window_x1", "window_y1"]
    return images, _frame(rooms).join(pd.DataFrame(boxes, columns=columns, dtype=np.float32))


def _draw(sample: Callable, paint: Callable, n: int, size: int, seed: int) -> tuple[np.ndarray, list]:
    """Sample the traits of n images and paint them: (n, 3, size, size) uint8, and the n traits."""
    if n < 1:
        raise ValueError(f"n = {n}: must be at least 1")
    traits = [sample(np.random.default_rng([seed, i])) for i in range(n)]
    return np.stack([paint(trait, size) for trait in traits]), traits


def _frame(traits: list) -> pd.DataFrame:
    """Tabulate traits, one row each: a whole number becomes int8, any other float32."""
    kinds = {field.name: np.int8 if field.type is int else np.float32 for field in fields(traits[0])}
    return pd.DataFrame({name: np.array([getattr(t, name) for t in traits], kind) for name, kind in kinds.items()})


class _Pen:
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
        """Fill a half-open box given in pixels of the final image."""
        a, b, c, d = (round(end * OVERSAMPLING) for end in (x0, y0, x1, y1))
        self.draw.rectangle((a, b, c - 1, d - 1), fill=tuple(int(v) for v in colour))

    def pixels(self) -> np.ndarray:
        """Average down to (3, size, size) uint8."""
        return np.asarray(self.image.reduce(OVERSAMPLING)).transpose(2, 0, 1).copy()


def _mix(a: np.ndarray, b: np.ndarray, part: float) -> np.ndarray:
    return np.add(np.multiply(a, 1 - part), np.multiply(b, part))


def _hue(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(hsv_to_rgb(hue, saturation, value))


# Faces


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
    back = _hue(face.back_hue, 0.42, face.back_value)
    pen = _Pen(size, back, 0.72 * back)
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
        self.skin = _mix(PALE, DEEP, face.skin)
        self.shade = 0.8 * self.skin
        self.hair = _mix(*HAIR[face.blond], face.hair_shade)

    def width(self, y: np.ndarray) -> np.ndarray:
        """Half the head's width at height y."""
        return np.interp(y, *self.profile)

    def x(self, u: np.ndarray, y: np.ndarray, out: float = 1.0) -> np.ndarray:
        """Where the point at angle u from the face's middle appears; `out` lifts it off the head."""
        angle = np.clip(u + self.angle, -np.pi / 2, np.pi / 2)
        return out * self.width(y) * np.sin(angle) + self.lean * np.maximum(y, -0.3)

    def patch(self, pen: _Pen, u: float, y: float, ru: float, ry: float, colour: np.ndarray) -> None:
        """Fill an ellipse that lies on the head."""
        pen.fill(self.x(u + ru * COS, y), y + ry * SIN, colour)


def _paint_bust(pen: _Pen, face: Face, head: _Head) -> None:
    """Hair behind the head, neck and shoulders."""
    cloth, behind = _hue(face.cloth_hue, 0.6, 0.7), -0.9 * head.lean
    if not face.male:
        y = np.array([-0.3, 0.2, 0.7, 1.0, 1.0, 0.7, 0.2, -0.3])
        x = np.array([-0.66, -0.72, -0.77, -0.7, 0.7, 0.77, 0.72, 0.66])
        pen.fill(x + behind, y, 0.86 * head.hair)
    pen.oval(0, 1.25, 0.95 if face.male else 0.72, 0.42, cloth)
    neck = 0.3 if face.male else 0.2
    pen.fill(np.array([-neck, neck, neck, -neck]), np.array([0.4, 0.4, 0.92, 0.92]), 0.88 * head.shade)
    pen.oval(0, 0.92, neck, 0.09, 0.88 * head.shade)
    pen.oval(behind, -0.16, HEAD_X * 1.05, HEAD_Y * 0.82, 0.86 * head.hair)


def _paint_skull(pen: _Pen, face: Face, head: _Head) -> None:
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
        side = _mix(top[0], top[-1], (LINE + 1) / 2)  # the jaw begins where the cheeks' line meets the head's edge
        jaw = side + (1.02 * HEAD_Y - side) * np.cos(angle)
        jaw_x = np.sin(angle) * head.width(np.minimum(jaw, 0.5)) + head.lean * jaw
        x = np.concatenate([head.x(u, top), jaw_x[::-1]])
        pen.fill(x, np.concatenate([top, jaw[::-1]]), 0.92 * head.hair)


def _paint_mouth(pen: _Pen, face: Face, head: _Head) -> None:
    """A wide curved grin with teeth, or a short straight mouth."""
    lips = _mix(head.skin, [188.0, 84, 80], 0.65) if face.male else np.array([196.0, 36, 58])
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


def _paint_eyes(pen: _Pen, face: Face, head: _Head) -> None:
    """Eyes and brows, behind thick dark frames if there are glasses."""
    sides, y = (-0.45, 0.45), -0.08
    if face.glasses:
        bar = np.array([-0.075, -0.075, -0.01, -0.01]) + y
        pen.fill(head.x(np.array([-1.5, 1.5, 1.5, -1.5]), bar), bar, BLACK)
        for side in sides:
            head.patch(pen, side, y, 0.41, 0.215, BLACK)
            head.patch(pen, side, y, 0.29, 0.145, _mix(head.skin, [205.0, 228, 245], 0.5))
    iris, lid = _hue(face.eye_hue, 0.65, 0.5), 0.35 * head.skin
    for side in sides:
        if not face.male:
            head.patch(pen, side, y - 0.035, 0.26, 0.115, BLACK)  # lashes
        head.patch(pen, side, y, 0.23, 0.105, WHITE)
        head.patch(pen, side + 0.06 * face.yaw, y, 0.13, 0.1, iris)
        head.patch(pen, side + 0.06 * face.yaw, y, 0.07, 0.055, BLACK)
        thick = 0.085 if face.male else 0.04
        arch = y - 0.27 + 0.05 * LINE**2
        v = np.concatenate([arch, arch[::-1] + thick])
        pen.fill(head.x(side + 0.27 * np.concatenate([LINE, LINE[::-1]]), v), v, _mix(lid, head.hair, 0.5))


def _paint_hair(pen: _Pen, face: Face, head: _Head) -> None:
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


def _paint_ears(pen: _Pen, head: _Head, near: bool) -> None:
    """The ears of short hair: the ones on the viewer's side of the head, or the ones behind it."""
    for side in (-1, 1):
        angle = 1.5 * side + head.angle
        if (abs(angle) < np.pi / 2) == near:
            x = 1.05 * head.width(0.0) * np.sin(angle)
            pen.oval(x, 0.02, 0.075, 0.14, head.shade)
            pen.oval(x, 0.02, 0.04, 0.09, 0.92 * head.skin)


def _paint_nose(pen: _Pen, face: Face, head: _Head) -> None:
    """The nose stands off the head, so it points where the head turns."""
    tip = head.x(0, 0.15, out=1.3)
    half = 0.085 * face.nose
    root = head.x(0, -0.1)
    pen.fill(np.array([root, tip - half, tip + half]), np.array([-0.06, 0.16, 0.16]), 0.9 * head.skin)
    pen.oval(tip, 0.15, half, 0.06, 0.78 * head.skin)


# Rooms


def _sample_room(rng: Generator) -> Room:
    """Draw the traits of one room; as with faces, every number is drawn whether it is used or not."""
    share = np.array([0.75, 0.5, 0.6, 0.5, 0.5, 0.5, 0.5, 0.4])  # in the order of Room's fields
    flags = (rng.random(len(share)) < share).astype(int).tolist()
    x, y, w, h, view, depth, wall_hue, wall_value, floor, bed_hue, decor_hue = rng.random(11).tolist()
    return Room(
        *flags, window_x=0.4 + 0.2 * x, window_y=0.64 + 0.06 * y, window_w=0.38 + 0.16 * w, window_h=0.36 + 0.1 * h,
        view_x=0.3 * view - 0.15, depth=1 + 0.4 * depth, wall_hue=wall_hue,
        wall_value=0.75 + 0.2 * wall_value, floor_shade=floor, bed_hue=bed_hue, decor_hue=decor_hue,
    )  # fmt: skip


class _View:
    """One-point perspective: room coordinates, each from 0 to 1 (left, floor and front first), to image units."""

    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = 1 / (1 + self.room.depth * np.asarray(z))
        eye_x, eye_y = self.room.view_x, -0.2
        return eye_x + (2.6 * np.asarray(x) - 1.3 - eye_x) * scale, eye_y + (1.2 - 2.75 * np.asarray(y) - eye_y) * scale

    def from_bed(self, x: np.ndarray) -> np.ndarray:
        """Turn a distance from the bed's side wall into x."""
        return 1 - np.asarray(x) if self.room.bed_right else np.asarray(x)


def window_box(room: Room, size: int) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 of the room's window in pixels, half-open, whether or not it is painted."""
    w, h = room.window_w / 2, room.window_h / 2
    x, y = _View(room)([room.window_x - w, room.window_x + w], [room.window_y + h, room.window_y - h], 1.0)
    (x0, x1), (y0, y1) = (((np.array(end) + 1) * size / 2).round().astype(int).tolist() for end in (x, y))
    return x0, y0, x1, y1


def paint_room(room: Room, size: int = 32) -> np.ndarray:
    """Paint one room from explicit traits: (3, size, size) uint8. Raises ValueError where size < 16."""
    wall = _hue(room.wall_hue, 0.22, room.wall_value)
    pen, view = _Pen(size, wall, wall), _View(room)
    _paint_shell(pen, room, view, wall)
    if room.window:
        _paint_window(pen, room, size)
    if room.picture:
        _paint_picture(pen, room, view)
    if room.rug:
        x, y = view(view.from_bed(0.66 + 0.2 * COS), 0, 0.42 + 0.3 * SIN)
        pen.fill(x, y, _hue(room.decor_hue, 0.6, 0.72))
        x, y = view(view.from_bed(0.66 + 0.12 * COS), 0, 0.42 + 0.18 * SIN)
        pen.fill(x, y, _hue(room.decor_hue, 0.35, 0.9))
    if room.lamp:
        _paint_lamp(pen, room, view)
    if room.bed:
        _paint_bed(pen, room, view)
    if room.plant:
        _paint_plant(pen, view)
    return pen.pixels()


def _paint_shell(pen: _Pen, room: Room, view: _View, wall: np.ndarray) -> None:
    """Side walls, ceiling and floor boards around the back wall, which is the canvas."""
    for side, light in ((0, 0.84), (1, 0.74)):
        pen.fill(*view(np.full(4, side), [0, 1, 1, 0], [0, 0, 1, 1]), light * wall)
    pen.fill(*view([0, 1, 1, 0], 1, [0, 0, 1, 1]), _mix(wall, WHITE, 0.75))
    wood = _mix([214.0, 168, 112], [112.0, 74, 48], room.floor_shade)
    pen.fill(*view([0, 1, 1, 0], 0, [0, 0, 1, 1]), wood)
    for left in np.arange(0, 1, 0.25):
        pen.fill(*view(left + np.array([0, 0.125, 0.125, 0]), 0, [0, 0, 1, 1]), 0.88 * wood)


def _paint_window(pen: _Pen, room: Room, size: int) -> None:
    """A dark frame around two panes, exactly in its box of final pixels."""
    x0, y0, x1, y1 = window_box(room, size)
    bar = max(1, round(0.11 * (x1 - x0) * OVERSAMPLING)) / OVERSAMPLING
    sky, ground = ((22, 28, 84), (58, 58, 128)) if room.night else ((96, 176, 246), (226, 242, 252))
    pen.rectangle(x0, y0, x1, y1, np.array([92, 58, 40]))
    top, bottom, left, right = y0 + bar, y1 - bar, x0 + bar, x1 - bar
    pen.rectangle(left, top, right, bottom, np.array(sky))
    pen.rectangle(left, (top + 2 * bottom) / 3, right, bottom, np.array(ground))
    if room.night:
        pen.rectangle(right - 2.2 * bar, top + 0.5 * bar, right - 0.6 * bar, top + 2.1 * bar, np.array([250, 240, 190]))
    middle = (x0 + x1 - bar * 0.8) / 2
    pen.rectangle(middle, top, middle + bar * 0.8, bottom, np.array([92, 58, 40]))


def _paint_picture(pen: _Pen, room: Room, view: _View) -> None:
    """A framed picture on the wall above the bed's side, in perspective."""
    side = view.from_bed(np.zeros(4))
    for grow, colour in ((0.0, WHITE), (0.05, _hue(room.decor_hue, 0.75, 0.8))):
        y = np.array([0.48 + grow, 0.82 - grow, 0.82 - grow, 0.48 + grow])
        z = np.array([0.42 + 1.5 * grow, 0.42 + 1.5 * grow, 0.88 - 1.5 * grow, 0.88 - 1.5 * grow])
        pen.fill(*view(side, y, z), colour)


def _paint_lamp(pen: _Pen, room: Room, view: _View) -> None:
    """A standing lamp, lit, near the wall across from the bed."""
    x = view.from_bed(0.88)
    for half, low, high in ((0.012, 0.0, 0.5), (0.05, 0.0, 0.02)):
        pen.fill(*view(x + half * np.array([-1, 1, 1, -1]), [low, low, high, high], 0.9), 0.6 * BLACK)
    pen.fill(*view(x + np.array([-0.12, 0.12, 0.07, -0.07]), [0.42, 0.42, 0.62, 0.62], 0.9), np.array([255, 224, 112]))
    pen.fill(*view(x + np.array([-0.12, 0.12, 0.11, -0.11]), [0.42, 0.42, 0.46, 0.46], 0.9), np.array([255, 246, 200]))


def _paint_bed(pen: _Pen, room: Room, view: _View) -> None:
    """A bed along the side wall: headboard at the back, pillow, white sheet and a coloured spread."""
    wood, spread = np.array([110.0, 70, 44]), _hue(room.bed_hue, 0.68, 0.85)
    left, right, front, high = 0.03, 0.55, 0.16, 0.21
    across = view.from_bed(np.array([left, right, right, left]))
    pen.fill(*view(across, [0, 0, 0.42, 0.42], 1), wood)
    inner = view.from_bed(np.full(4, right))
    pen.fill(*view(inner, [0.05, 0.05, high, high], [front, 1, 1, front]), 0.7 * spread)
    pen.fill(*view(across, [0.05, 0.05, high, high], front), 0.84 * spread)
    pen.fill(*view(across, high, [front, front, 1, 1]), WHITE)
    pen.fill(*view(across, high, [front, front, 0.62, 0.62]), spread)
    pillow = view.from_bed(np.array([left + 0.06, right - 0.06, right - 0.06, left + 0.06]))
    pen.fill(*view(pillow, high + 0.01 + np.array([0, 0, 0.09, 0.09]), [0.75, 0.75, 0.95, 0.95]), 0.87 * WHITE)


def _paint_plant(pen: _Pen, view: _View) -> None:
    """A pot with leaves, in front, at the wall across from the bed."""
    x, z = view.from_bed(0.88), 0.3
    for lean, tall in ((-0.13, 0.34), (0.1, 0.36), (-0.06, 0.46), (0.05, 0.42)):
        leaf_x = x + lean * np.array([0, 0.2, 1, 0.9]) + 0.05 * np.array([-0.5, -1, 0, 1])
        pen.fill(*view(leaf_x, [0.12, 0.8 * tall, tall, 0.5 * tall], z), np.array([38 + 240 * abs(lean), 128, 60]))
    pen.fill(*view(x + np.array([-0.05, 0.05, 0.075, -0.075]), [0, 0, 0.15, 0.15], z), np.array([196, 96, 60]))
