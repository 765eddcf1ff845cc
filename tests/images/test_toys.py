"""Drawn faces and rooms: the same for the same seed, independent traits, and pixels that say what the traits say."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from lib.images.faces import Face, draw_faces, paint_face
from lib.images.rooms import Room, draw_rooms, paint_room, window_box

DRAW = [draw_faces, draw_rooms]
BOX = ["window_x0", "window_y0", "window_x1", "window_y1"]


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, pd.DataFrame]:
    return draw_faces(3000, 32, seed=5)


@pytest.fixture(scope="module")
def rooms() -> tuple[np.ndarray, pd.DataFrame]:
    return draw_rooms(2000, 32, seed=5)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean absolute difference over channels: (3, H, W) twice -> (H, W)."""
    return np.abs(a.astype(float) - b).mean(0)


def room_of(row: pd.Series) -> Room:
    return Room(**{field.name: field.type(row[field.name]) for field in fields(Room)})


@pytest.mark.parametrize(
    ("draw", "n", "size", "seed", "digest"),
    [
        (draw_faces, 300, 32, 0, "5048f47fa4fc484f"),
        (draw_faces, 50, 64, 3, "a635d6e34f2cc372"),
        (draw_rooms, 300, 32, 0, "e7bc798787f1e7cc"),
        (draw_rooms, 50, 64, 3, "4d6ca6a93cdb3b7f"),
    ],
)
def test_not_a_pixel_changes(draw, n, size, seed, digest):
    """Where one is meant to: raise VERSIONS beside the drawing, and write the new digest here."""
    assert hashlib.sha256(draw(n, size, seed)[0].tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("size", [16, 32, 50])
def test_shapes_and_types(draw, size):
    x, traits = draw(3, size)
    assert x.shape == (3, 3, size, size)
    assert x.dtype == np.uint8
    assert len(traits) == 3
    assert set(traits.dtypes) == {np.dtype(np.int8), np.dtype(np.float32)}


@pytest.mark.parametrize("draw", DRAW)
def test_same_seed_same_images_whatever_n_is(draw):
    x, traits = draw(12, 32, seed=3)
    y, shorter = draw(5, 32, seed=3)
    np.testing.assert_array_equal(x[:5], y)
    pd.testing.assert_frame_equal(traits[:5], shorter)
    assert not np.array_equal(draw(5, 32, seed=4)[0], y)


@pytest.mark.parametrize("draw", DRAW)
def test_images_differ_from_each_other(draw):
    assert len(np.unique(draw(50)[0].reshape(50, -1), axis=0)) == 50


def test_a_window_too_narrow_for_its_bar_is_drawn_without():
    room = Room(bed=0, window=1, window_w=0.38, depth=1.4)
    x0, y0, x1, y1 = window_box(room, 16)
    wall, pane = (paint_room(replace(room, window=there), 16)[:, y0:y1, x0:x1] for there in (0, 1))
    assert (difference(wall, pane) > 0).all()


@pytest.mark.parametrize("draw", DRAW)
def test_traits_do_not_depend_on_size(draw):
    traits = [draw(8, size, seed=1)[1].drop(columns=BOX, errors="ignore") for size in (16, 32)]
    pd.testing.assert_frame_equal(*traits)


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(("n", "size", "message"), [(0, 32, "n = 0: must be"), (1, 15, "size = 15: must be")])
def test_impossible_requests(draw, n, size, message):
    with pytest.raises(ValueError, match=message):
        draw(n, size)


@pytest.mark.parametrize("kind", ["faces", "rooms"])
def test_rates_and_independence(kind, request):
    traits = request.getfixturevalue(kind)[1].drop(columns=BOX, errors="ignore")
    rates = traits.select_dtypes(np.int8).mean()
    expected = {"beard": 0.2, "bed": 0.75, "window": 0.6, "night": 0.4}
    for name, rate in rates.items():
        assert rate == pytest.approx(expected.get(name, 0.5), abs=0.05), name
    correlation = traits.drop(columns="beard", errors="ignore").corr().to_numpy()
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.1  # 4.5 standard errors at 2,000


def test_only_men_have_beards(faces):
    traits = faces[1]
    assert traits.beard[traits.male == 0].sum() == 0
    assert traits.beard[traits.male == 1].mean() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("male", [0, 1])
@pytest.mark.parametrize("yaw", [-1.0, 0.0, 1.0])
def test_glasses_change_the_eye_band_only(male, yaw):
    face = Face(male=male, yaw=yaw)
    change = difference(paint_face(face), paint_face(replace(face, glasses=1)))
    assert change[12:19].max() > 40
    assert change[:11].max() == change[20:].max() == 0


@pytest.mark.parametrize("yaw", [-1.0, 0.0, 1.0])
def test_a_smile_changes_the_mouth_only(yaw):
    change = difference(paint_face(Face(yaw=yaw)), paint_face(Face(yaw=yaw, smiling=1)))
    assert change[20:26].max() > 40
    assert change[:19].max() == 0


@pytest.mark.parametrize("male", [0, 1])
def test_nose_follows_yaw(male):
    def nose_column(yaw: float) -> float:
        """Find the nose where a wide one differs from a narrow one."""
        face = Face(male=male, yaw=yaw)
        change = difference(*(paint_face(replace(face, nose=width)) for width in (0.8, 1.2)))
        return np.average(np.arange(32), weights=change.sum(0))

    columns = np.array([nose_column(yaw) for yaw in np.linspace(-1, 1, 9)])
    assert (np.diff(columns) > 0.5).all()
    assert columns[4] == pytest.approx(15.5, abs=0.1)


def test_a_face_looking_left_mirrors_one_looking_right():
    left, right = (paint_face(Face(yaw=yaw, glasses=1, smiling=1)) for yaw in (-0.7, 0.7))
    assert difference(left, right[..., ::-1]).mean() < 0.1
    assert difference(left, right).mean() > 20


@pytest.mark.parametrize("size", [32, 64])
def test_window_is_its_box_and_nothing_else(size):
    _, traits = draw_rooms(40, size, seed=2)
    for _, row in traits.iterrows():
        room = room_of(row)
        x0, y0, x1, y1 = window_box(room, size)
        if room.window:
            assert (x0, y0, x1, y1) == tuple(row[BOX])
        assert 0 <= x0 < x1 <= size
        assert 0 <= y0 < y1 <= size
        change = difference(*(paint_room(replace(room, window=there), size) for there in (0, 1)))
        assert change[y0:y1, x0:x1].mean() > 25
        change[y0:y1, x0:x1] = 0
        assert change.max() == 0


def test_no_box_without_a_window(rooms):
    traits = rooms[1]
    assert (traits[BOX].isna().all(axis=1) == (traits.window == 0)).all()
    assert (traits[BOX].notna().all(axis=1) == (traits.window == 1)).all()


@pytest.mark.parametrize("thing", ["bed", "lamp", "picture", "plant", "rug"])
def test_things_are_where_they_belong(thing):
    empty = Room(**dict.fromkeys(["bed", "lamp", "window", "picture", "plant", "rug"], 0))
    change = difference(paint_room(empty), paint_room(replace(empty, **{thing: 1})))
    column = np.average(np.arange(32), weights=change.sum(0))
    row = np.average(np.arange(32), weights=change.sum(1))
    assert (column < 16) == (thing in ("bed", "picture"))
    assert (row < 16) == (thing == "picture")
    mirrored = difference(paint_room(empty), paint_room(replace(empty, bed_right=1, **{thing: 1})))
    assert np.average(np.arange(32), weights=mirrored.sum(0)) == pytest.approx(
        31 - column, abs=1
    )  # leaves are not mirrored


@pytest.mark.parametrize("trait", ["smiling", "glasses", "male", "blond"])
def test_a_linear_classifier_sees_the_trait(faces, trait):
    x, traits = faces
    model = make_pipeline(PCA(200, random_state=0), LogisticRegression(C=1e-4, max_iter=500))
    model.fit(x[:2000].reshape(2000, -1).astype(np.float32), traits[trait][:2000])
    assert model.score(x[2000:].reshape(1000, -1).astype(np.float32), traits[trait][2000:]) > 0.9


def test_a_linear_regression_sees_the_turn(faces):
    x, traits = faces
    model = Ridge(alpha=1e6).fit(x[:2000].reshape(2000, -1).astype(np.float32), traits.yaw[:2000])
    assert model.score(x[2000:].reshape(1000, -1).astype(np.float32), traits.yaw[2000:]) > 0.8


def test_traits_can_be_read_back_from_the_frame(rooms):
    x, traits = rooms
    for i in range(3):
        assert difference(x[i], paint_room(room_of(traits.loc[i]))).max() <= 1  # float32 against float64


def test_columns_are_the_fields():
    assert list(draw_faces(1)[1]) == [field.name for field in fields(Face)]
    assert list(draw_rooms(1)[1]) == [field.name for field in fields(Room)] + BOX
