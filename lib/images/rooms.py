"""Bedrooms that are drawn, with the exact box of every window.

Traits are drawn independently of each other: each is there in half of the rooms, but a bed in 75%, a window in 60%, and
the night outside in 40%. A room is a box in one-point perspective.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator

from lib.images.pictures import BLACK, COS, OVERSAMPLING, SIN, WHITE, Pen, draw, hue, mix, tabulate

VERSIONS = {"drawn rooms": 1}  # raise it when a pixel changes


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


def draw_rooms(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw n bedrooms and the traits they were drawn from.

    Returns images (n, 3, size, size) uint8 and a frame of n rows whose columns are the fields of `Room`, and
    `window_x0, window_y0, window_x1, window_y1`: the window's half-open box in pixels, NaN where there is none.
    Raises ValueError where n < 1 or size < 16.
    """
    images, rooms = draw(_sample_room, paint_room, n, size, seed)
    boxes = [window_box(room, size) if room.window else (np.nan,) * 4 for room in rooms]
    columns = ["window_x0", "window_y0", "window_x1", "window_y1"]
    return images, tabulate(rooms).join(pd.DataFrame(boxes, columns=columns, dtype=np.float32))


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
    wall = hue(room.wall_hue, 0.22, room.wall_value)
    pen, view = Pen(size, wall, wall), _View(room)
    _paint_shell(pen, room, view, wall)
    if room.window:
        _paint_window(pen, room, size)
    if room.picture:
        _paint_picture(pen, room, view)
    if room.rug:
        x, y = view(view.from_bed(0.66 + 0.2 * COS), 0, 0.42 + 0.3 * SIN)
        pen.fill(x, y, hue(room.decor_hue, 0.6, 0.72))
        x, y = view(view.from_bed(0.66 + 0.12 * COS), 0, 0.42 + 0.18 * SIN)
        pen.fill(x, y, hue(room.decor_hue, 0.35, 0.9))
    if room.lamp:
        _paint_lamp(pen, room, view)
    if room.bed:
        _paint_bed(pen, room, view)
    if room.plant:
        _paint_plant(pen, view)
    return pen.pixels()


def _paint_shell(pen: Pen, room: Room, view: _View, wall: np.ndarray) -> None:
    """Side walls, ceiling and floor boards around the back wall, which is the canvas."""
    for side, light in ((0, 0.84), (1, 0.74)):
        pen.fill(*view(np.full(4, side), [0, 1, 1, 0], [0, 0, 1, 1]), light * wall)
    pen.fill(*view([0, 1, 1, 0], 1, [0, 0, 1, 1]), mix(wall, WHITE, 0.75))
    wood = mix([214.0, 168, 112], [112.0, 74, 48], room.floor_shade)
    pen.fill(*view([0, 1, 1, 0], 0, [0, 0, 1, 1]), wood)
    for left in np.arange(0, 1, 0.25):
        pen.fill(*view(left + np.array([0, 0.125, 0.125, 0]), 0, [0, 0, 1, 1]), 0.88 * wood)


def _paint_window(pen: Pen, room: Room, size: int) -> None:
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


def _paint_picture(pen: Pen, room: Room, view: _View) -> None:
    """A framed picture on the wall above the bed's side, in perspective."""
    side = view.from_bed(np.zeros(4))
    for grow, colour in ((0.0, WHITE), (0.05, hue(room.decor_hue, 0.75, 0.8))):
        y = np.array([0.48 + grow, 0.82 - grow, 0.82 - grow, 0.48 + grow])
        z = np.array([0.42 + 1.5 * grow, 0.42 + 1.5 * grow, 0.88 - 1.5 * grow, 0.88 - 1.5 * grow])
        pen.fill(*view(side, y, z), colour)


def _paint_lamp(pen: Pen, room: Room, view: _View) -> None:
    """A standing lamp, lit, near the wall across from the bed."""
    x = view.from_bed(0.88)
    for half, low, high in ((0.012, 0.0, 0.5), (0.05, 0.0, 0.02)):
        pen.fill(*view(x + half * np.array([-1, 1, 1, -1]), [low, low, high, high], 0.9), 0.6 * BLACK)
    pen.fill(*view(x + np.array([-0.12, 0.12, 0.07, -0.07]), [0.42, 0.42, 0.62, 0.62], 0.9), np.array([255, 224, 112]))
    pen.fill(*view(x + np.array([-0.12, 0.12, 0.11, -0.11]), [0.42, 0.42, 0.46, 0.46], 0.9), np.array([255, 246, 200]))


def _paint_bed(pen: Pen, room: Room, view: _View) -> None:
    """A bed along the side wall: headboard at the back, pillow, white sheet and a coloured spread."""
    wood, spread = np.array([110.0, 70, 44]), hue(room.bed_hue, 0.68, 0.85)
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


def _paint_plant(pen: Pen, view: _View) -> None:
    """A pot with leaves, in front, at the wall across from the bed."""
    x, z = view.from_bed(0.88), 0.3
    for lean, tall in ((-0.13, 0.34), (0.1, 0.36), (-0.06, 0.46), (0.05, 0.42)):
        leaf_x = x + lean * np.array([0, 0.2, 1, 0.9]) + 0.05 * np.array([-0.5, -1, 0, 1])
        pen.fill(*view(leaf_x, [0.12, 0.8 * tall, tall, 0.5 * tall], z), np.array([38 + 240 * abs(lean), 128, 60]))
    pen.fill(*view(x + np.array([-0.05, 0.05, 0.075, -0.075]), [0, 0, 0.15, 0.15], z), np.array([196, 96, 60]))
