"""Finding the maps that draw an object, and leaving them out: boxes, positions and sums written out."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.images import data, rooms
from lib.internals import forgetting
from lib.nets import judges, models
from lib.study import chance, paths

NONE = [np.nan] * 4


@pytest.fixture(scope="module")
def G():
    return models.build("tutorial64", size=16, nc=3, ngf=4, ndf=4)[0].eval()


def test_masks_written_out():
    masks = forgetting.to_masks(np.array([[1, 0, 3, 2], NONE]), 4)
    assert masks.int().tolist()[0] == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not masks[1].any()


def test_masks_cover_what_a_window_changes():
    """The oracle is the drawing itself: pixels that differ with and without a window."""
    room = rooms.Room(window_x=0.45)
    box = rooms.window_box(room, 32)
    with_window = rooms.paint_room(rooms.Room(window_x=0.45, window=1)).astype(int)
    changed = torch.from_numpy((with_window != rooms.paint_room(room)).any(0))
    mask = forgetting.to_masks(np.array([box]), 32)[0]
    assert not (changed & ~mask).any()
    assert (changed & mask).sum() > 0.9 * mask.sum()


def test_the_segmenter_finds_windows_it_has_not_seen():
    x, traits = rooms.draw_rooms(700, 32)
    boxes = traits[["window_x0", "window_y0", "window_x1", "window_y1"]].to_numpy()
    net = forgetting.fit(torch.from_numpy(x[:600]), forgetting.to_masks(boxes[:600], 32), epochs=4, seed=0)
    found = forgetting.find_boxes(net, torch.from_numpy(x[600:]) / 127.5 - 1)
    there = traits.window.to_numpy()[600:] == 1
    assert (~np.isnan(found).any(1) == there).mean() > 0.95
    a, b = (forgetting.to_masks(side[there], 32) for side in (found, boxes[600:]))
    assert ((a & b).sum((1, 2)) / (a | b).sum((1, 2))).nanmedian() > 0.8


def test_boxes_by_hand(tmp_path):
    for name in ("b/1.png", "a/2.png", "a/1.png"):
        path = tmp_path / "photos" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(path)
    table = tmp_path / "boxes.csv"
    table.write_text("file,x0,y0,x1,y1\nb/1.png,0,0,16,16\nb/1.png,32,0,48,16\na/1.png,,,,\n")
    rows, masks = forgetting.read_boxes(table, f"folder:{tmp_path / 'photos'}", 4)
    assert rows.tolist() == [2, 0]
    assert masks.int().tolist() == [[[1, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4], [[0] * 4] * 4]
    table.write_text("file,x0,y0,x1,y1\nb/3.png,,,,\n")
    with pytest.raises(ValueError, match="has no training image b/3.png, which boxes.csv names"):
        forgetting.read_boxes(table, f"folder:{tmp_path / 'photos'}", 4)


@pytest.mark.shared
def test_the_rooms_boxes_fit_the_photographs():
    """Windows are brighter than the rest of a room: what was drawn by eye lies where the light is."""
    if not paths.find_source("rooms.tar.gz").exists():
        pytest.skip("rooms.tar.gz is not in STUDY_SOURCES")
    rows, masks = forgetting.read_boxes(paths.ROOT / "data" / "rooms_windows.csv", "tar:rooms.tar.gz", 32)
    x = data.load("tar:rooms.tar.gz", 32).x[rows].float().mean(1)
    there = masks.flatten(1).any(1)
    assert there.sum() > 30 and (~there).sum() > 30
    brighter = [
        bool(image[mask].mean() > image[~mask].mean()) for image, mask in zip(x[there], masks[there], strict=True)
    ]
    assert np.mean(brighter) > 0.75


def test_judges_of_drawn_rooms_and_of_photographs(tmp_path, monkeypatch):
    """Of drawn rooms columns tell boxes and things; of photographs a table and classes do; two nets share the boxes."""
    x, traits = rooms.draw_rooms(300, 32)
    drawn = data.ImageSet("drawn", torch.from_numpy(x), torch.zeros(300, dtype=torch.int64), ["room"], traits)
    known = forgetting.known(drawn, "window", ["bed", "lamp"], "", "")
    assert known.names == ["window", "bed", "lamp"] and not known.by_hand
    assert (known.masks.flatten(1).any(1).numpy() == traits.window.to_numpy(bool)).all()
    came = forgetting.fit_judges(known, 1, 1, seed=0)
    assert came.keys() == {"boxes", "rest"} and [*came["rest"].accuracy] == known.names
    told = forgetting.tell(came, data.to_float(drawn.x[:8]))
    assert told.tolist() == (judges.tell(came["rest"], drawn.x[:8]) > 0.5).long().tolist()

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    lines = ["file,x0,y0,x1,y1"]
    for i in range(40):
        path = tmp_path / "photos" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[i].transpose(1, 2, 0)).save(path)
        ends = ",".join(f"{2 * end:g}" if traits.window[i] else "" for end in rooms_box(traits, i))
        lines.append(f"{'ab'[i % 2]}/{i}.png,{ends}")
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(lines))
    photos = data.load(f"folder:{tmp_path / 'photos'}", 32)
    by_hand = forgetting.known(photos, "window", [], "boxes.csv", "")
    assert by_hand.by_hand and by_hand.names == ["a", "b"] and by_hand.truth.sum(1).tolist() == [1] * 40
    assert by_hand.masks.flatten(1).any(1).sum() == traits.window[:40].sum()
    came = forgetting.fit_judges(by_hand, 1, 2, seed=0)
    assert came.keys() == {"boxes", "counts", "rest"} and [*came["rest"].accuracy] == ["kind of room"]
    told = forgetting.tell(came, data.to_float(photos.x))
    assert told[:, 0].tolist() == forgetting.there(came["counts"], data.to_float(photos.x)).long().tolist()
    assert told[:, 1].tolist() == judges.tell(came["rest"], photos.x).argmax(1).tolist()
    one_kind = data.load(f"folder:{tmp_path / 'photos' / 'train' / 'a'}", 32)
    with pytest.raises(ValueError, match="has no labels: nothing tells what stays of a room"):
        forgetting.known(one_kind, "window", [], "boxes.csv", f"folder:{tmp_path / 'photos'}")


def rooms_box(traits, i):
    return [traits[f"window_{end}"][i] for end in ("x0", "y0", "x1", "y1")]


class _Fixed(torch.nn.Module):
    """A segmenter that says what it is given."""

    def forward(self, x):
        return x[:, :1]


def test_the_largest_object_is_boxed_and_specks_are_not():
    logits = torch.full((2, 1, 32, 32), -1.0)
    logits[0, 0, 4:10, 20:25] = 1
    logits[0, 0, 15:18, 2:5] = 1  # a smaller one
    logits[1, 0, 3, 3] = 1  # a speck
    boxes = forgetting.find_boxes(_Fixed(), logits)
    assert boxes[0].tolist() == [20, 4, 25, 10]
    assert np.isnan(boxes[1]).all()


@pytest.mark.parametrize(("side", "there"), [(2, False), (3, True)])
def test_nine_pixels_are_an_object_at_32_and_fewer_are_not(side, there):
    """8 are a speck, 9 an object; of twice the side four times as many."""
    for scale in (1, 2):
        logits = torch.full((1, 1, 32 * scale, 32 * scale), -1.0)
        logits[..., 4 : 4 + 3 * scale, 4 : 4 + side * scale] = 1
        logits[..., 4, 4] = 1 if there else -1
        assert np.isnan(forgetting.find_boxes(_Fixed(), logits)).any() != there


def test_a_position_is_inside_where_more_than_half_of_it_is_covered():
    """Cells of 4 x 4 pixels: 8 of 16 covered is outside, 12 of 16 inside."""
    h = torch.arange(4.0).view(1, 1, 2, 2)
    rows, inside = forgetting.positions(h, np.array([[0, 0, 4, 3]]), 8, seed=0, needed=1)
    assert rows[inside].ravel().tolist() == [0]
    wide = np.array([[0, 0, 6, 4]])  # the whole of the first cell, half of the second
    rows, inside = forgetting.positions(h, wide, 8, seed=0, needed=1)
    assert rows[inside].ravel().tolist() == [0]


def test_boxes_smaller_than_half_a_position_are_one_clear_line():
    small = np.array([[0, 0, 2, 2], NONE])
    with pytest.raises(ValueError, match="no box covers half a position of 2 x 2 maps: take a layer nearer"):
        forgetting.positions(torch.zeros(2, 1, 2, 2), small, 8, seed=0, needed=1)
    with pytest.raises(ValueError, match="no box covers half a position of 2 x 2 maps"):
        forgetting.covered(forgetting.to_masks(small, 8), 2)


def test_the_gap_counts_both_errors():
    """With draws that agree the error is that of the samples alone, with samples that agree that of the draws."""
    rng = np.random.default_rng(0)
    ours, lot = rng.integers(0, 2, 40).astype(float), rng.integers(0, 2, 40).astype(float)
    assert forgetting.gap(ours, np.tile(lot, (6, 1))) == pytest.approx(chance.interval_of_mean(lot - ours))
    draws = rng.random(6)
    flat = np.tile(draws[:, None], (1, 40))
    assert forgetting.gap(np.full(40, 0.25), flat) == pytest.approx(chance.interval_of_mean(draws - 0.25))
    both = forgetting.gap(ours, np.clip(lot * draws[:, None], 0, 1))
    assert (
        both.high - both.low
        > chance.interval_of_mean(draws * lot.mean()).high - chance.interval_of_mean(draws * lot.mean()).low
    )
    there = np.where(np.arange(40) < 30, ours, np.nan)
    assert forgetting.gap(there, np.tile(lot, (6, 1))) == pytest.approx(
        chance.interval_of_mean(lot[:30] - ours[:30])
    ), "what was not there is left out"


def test_95_of_100_gaps_hold_the_true_one():
    """Shares of 0.3 and 0.6 in populations of samples and of draws: the intervals keep their promise."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        ours = (rng.random(120) < 0.3).astype(float)
        share = np.clip(0.6 + 0.15 * rng.standard_normal((12, 1)), 0, 1)
        gap = forgetting.gap(ours, (rng.random((12, 120)) < share).astype(float))
        held += gap.low < 0.3 < gap.high
    assert 0.92 < held / 400 < 0.99


def test_positions_written_out():
    h = torch.arange(2 * 1 * 4 * 4.0).view(2, 1, 4, 4)
    rows, inside = forgetting.positions(h, np.array([[0, 0, 4, 2], NONE]), 8, seed=0, needed=1)
    assert sorted(rows[inside].ravel()) == [0, 1]  # the first image's upper left two of 4 x 4
    outside = set(rows[~inside].ravel())
    assert len(outside) == 2 and outside <= set(range(2, 16)), "as many, and from the same image"


def test_too_few_boxes():
    with pytest.raises(ValueError, match="1 boxes found in 3 samples, 20 needed: draw more samples"):
        forgetting.positions(torch.zeros(3, 1, 4, 4), np.array([[0, 0, 4, 4], NONE, NONE]), 8, seed=0)


def test_the_maps_that_know_get_the_weight():
    rng = np.random.default_rng(0)
    inside = rng.random(500) < 0.5
    rows = rng.random((500, 3)).astype(np.float32)
    rows[:, 1] += inside
    rows[:, 2] -= inside
    weights = forgetting.rank_maps(rows, inside)
    assert weights.argmax() == 1 and weights.argmin() == 2 and weights[1] > 5 * abs(weights[0])


def test_dropping_nothing_is_G_and_dropping_all_forgets_z(G):
    z = G.sample_z(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in (0, 1):
            torch.testing.assert_close(forgetting.draw(G, z, layer), G(z))
    blank = forgetting.draw(G, z, 1, range(4))
    torch.testing.assert_close(blank[0], blank[1])


def test_a_dropped_map_is_one_whose_weights_are_gone(G):
    """The oracle: zero the next convolution's kernels that read the map."""
    z = G.sample_z(3, torch.Generator().manual_seed(0))
    dropped = forgetting.draw(G, z, 1, [2])
    blind = models.from_description(G.description)[0].eval()
    blind.load_state_dict(G.state_dict())
    with torch.no_grad():
        blind.layers[1][0].weight[2] = 0
        torch.testing.assert_close(dropped, blind(z))
        assert not torch.equal(dropped, G(z))


def test_layers_and_maps_that_do_not_exist(G):
    z = G.sample_z(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"layer 2: G has 0 \(its projection\) to 1 below the image"):
        forgetting.draw(G, z, 2)
    with pytest.raises(ValueError, match="maps 3 to 4: layer 1 has 0 to 3"):
        forgetting.draw(G, z, 1, [3, 4])
