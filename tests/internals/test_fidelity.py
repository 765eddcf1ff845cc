"""A photograph that matplotlib ships is a face; distances by hand, and against torchmetrics' own."""

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_image
from torchmetrics.image.fid import FrechetInceptionDistance

from lib.images import data
from lib.images.faces import Face, draw_faces, paint_face
from lib.internals import fidelity


@pytest.fixture(scope="module")
def hopper():
    """Grace Hopper's face, cut as CelebA's are: the eyes a little above the middle, 64 x 64."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as photograph:
        face = photograph.convert("RGB").crop((125, 75, 405, 355)).resize((64, 64), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(face)).permute(2, 0, 1)[None]


def test_a_face_is_found_in_bytes_floats_grey_and_other_sizes(hopper):
    assert fidelity.has_face(hopper).tolist() == [True]
    assert fidelity.has_face(data.to_float(hopper)).tolist() == [True]
    assert fidelity.has_face(hopper.float().mean(1, keepdim=True).to(torch.uint8)).tolist() == [True]
    assert fidelity.has_face(hopper[:, :, ::2, ::2]).tolist() == [True]


def test_no_face_is_found_upside_down_in_half_of_one_or_in_nothing(hopper):
    without = torch.cat([hopper.flip(2), hopper[:, :, 40:].repeat(1, 1, 3, 1)[:, :, :64], torch.zeros_like(hopper)])
    assert not fidelity.has_face(without).any()
    assert fidelity.has_face(torch.cat([without, hopper])).tolist() == [False, False, False, True]


def test_a_small_face_does_not_count(hopper):
    """A quarter of the image's width is less than half."""
    small = torch.full((1, 3, 256, 256), 128, dtype=torch.uint8)
    small[:, :, 96:160, 96:160] = hopper
    assert not fidelity.has_face(small).any()


def test_drawn_faces_are_told_to_look_where_they_were_drawn_to():
    """Yaw is positive to the image's right. Frontal faces are mirror images of themselves, but for the light."""
    x = torch.from_numpy(np.stack([paint_face(Face(yaw=yaw), 64) for yaw in (-1, -0.5, 0, 0.5, 1)]))
    told = fidelity.turned(x)
    assert told[0] < told[1] < -0.3 < abs(told[2]) < 0.1 and told[4] > told[3] > 0.3
    torch.testing.assert_close(fidelity.turned(x.flip(-1)), -told)
    torch.testing.assert_close(fidelity.turned(data.to_float(x)), told, atol=0.05, rtol=0)
    assert fidelity.turned(torch.zeros(1, 3, 64, 64)).tolist() == [0]


def test_what_few_finds_say_is_little(monkeypatch):
    """20 of 20 finds to one side are half an answer, 5 of 5 a fifth; 30 against 10 a third."""
    finds = iter([torch.tensor([0, 5, 10]), torch.tensor([20, 0, 30])])
    monkeypatch.setattr(fidelity, "looks_left", lambda images: next(finds))
    torch.testing.assert_close(fidelity.turned(torch.zeros(3, 3, 8, 8)), torch.tensor([0.5, -0.2, 1 / 3]))


def test_tiles_are_the_photographs_in_reading_order():
    cut = fidelity.tiles(64)
    assert cut.shape == (2 * 6 * 10, 3, 64, 64)  # of 427 x 640
    china = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    assert torch.equal(cut[0], china[:, :64, :64]) and torch.equal(cut[11], china[:, 64:128, 64:128])
    assert fidelity.has_face(cut).float().mean() < 0.05


@pytest.fixture(scope="module")
def faces():
    return data.ImageSet("drawn", torch.from_numpy(draw_faces(400, 16)[0]), torch.zeros(400))


def test_the_extractor_of_a_set_is_rebuilt_from_nothing_but_the_set(faces):
    one, other = (fidelity.features(fidelity.extractor(faces), faces.x[:50]) for _ in range(2))
    assert one.shape == (50, 2 * 16) and torch.equal(one, other)
    torch.testing.assert_close(one, fidelity.features(fidelity.extractor(faces), data.to_float(faces.x[:50])))


def test_distance_of_moved_and_stretched_features_is_written_out():
    """b = 2 a + 1 in two dimensions of variance v each: the means' square, and v + 4 v - 2 sqrt(4 v v) for each."""
    a = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    shift = (a.mean(0) + 1).square().sum().item()
    assert fidelity.frechet(a, 2 * a + 1) == pytest.approx(shift + a.var(0).sum().item())
    assert fidelity.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_two_halves_of_one_set_differ_by_what_few_images_err():
    """Of F independent normal features and n images a half: 2 F / n by the means, F (F + 1) / 2 n by the covariances.

    A mean that is known to be moved by d adds d times d for each feature, however many images there are.
    """
    draw = torch.Generator().manual_seed(0)
    for n in (500, 2000):
        found = [fidelity.between_halves(torch.randn(2 * n + 1, 6, generator=draw), seed) for seed in range(24)]
        assert {rows for _, rows in found} == {n}
        assert np.mean([d for d, _ in found]) == pytest.approx((2 * 6 + 6 * 7 / 2) / n, rel=0.1)
    still, moved = torch.randn(2, 2000, 6, generator=draw) + torch.tensor([0, 0.5])[:, None, None]
    assert fidelity.frechet(still, moved) == pytest.approx(6 * 0.25, rel=0.1)


def test_no_image_is_in_both_halves_and_another_seed_parts_them_otherwise(monkeypatch):
    monkeypatch.setattr(fidelity, "frechet", lambda a, b: (a[:, 0].tolist(), b[:, 0].tolist()))
    real = torch.arange(21.0)[:, None]
    (a, b), n = fidelity.between_halves(real, seed=0)
    assert n == len(a) == len(b) == 10 and len({*a, *b}) == 20
    assert fidelity.between_halves(real, seed=1)[0] != (a, b)


def test_distances_stand_beside_their_floor_with_how_many_were_compared(faces):
    """Samples that are real images lie as far from others as two halves of them do; inverted ones do not."""
    net, x = fidelity.extractor(faces), faces.x
    sets = {"samples": x[:150], "inverted": 255 - x[:150]}
    told = fidelity.distances(net, sets, x[150:250], x[100:], seed=0)
    assert list(told.index) == [
        "to held-out images: samples", "to held-out images: inverted", "between two halves of the real images",
    ]  # fmt: skip
    assert told.iloc[:, 1:].to_numpy().tolist() == [[150, 100], [150, 100], [150, 150]]
    samples, inverted, floor = told["Fréchet distance"]
    assert 0 < floor < 1.5 * samples < inverted / 10
    here, there = (fidelity.features(net, part) for part in (x[:150], x[150:250]))
    assert samples == pytest.approx(fidelity.frechet(here, there))
    assert floor == pytest.approx(fidelity.between_halves(fidelity.features(net, x[100:]), 0)[0])


def test_distance_is_torchmetrics_own(faces):
    net = fidelity.extractor(faces)
    metric = FrechetInceptionDistance(net, normalize=True, reset_real_features=False)
    parts = faces.x[:200], 255 - faces.x[200:]
    for part, real in zip(parts, (True, False), strict=True):
        metric.update(part.float() / 255, real=real)
    ours = fidelity.frechet(*(fidelity.features(net, part) for part in parts))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-3)


def test_what_features_cover():
    """On a line: 0 to 4, whose third neighbours lie 3, 2, 2, 2 and 3 away."""
    base = torch.tensor([[0.0], [1], [2], [3], [4]])
    x = torch.tensor([[-3.0], [-3.1], [7.0], [7.1], [2.5]])
    assert fidelity.covered(x, base).tolist() == [True, False, True, False, True]


def test_pairs_are_shown_blindly_and_marks_scored():
    first, second = torch.arange(40.0), 100 + torch.arange(40.0)
    board, at_left = fidelity.blind(first[:, None], second[:, None], 50, torch.Generator().manual_seed(0))
    left, right = board[:, 0].view(40, 2).T
    assert torch.equal(torch.where(at_left, left, right), first) and torch.equal(
        torch.where(at_left, right, left), second
    )
    assert 8 < at_left.sum() < 32
    board, order = fidelity.blind(first, second[:7], 5, torch.Generator().manual_seed(0))
    assert len(board) == 10 and torch.equal(order, at_left[:5]), "the same lot for each pair, however many there are"
    assert fidelity.hits_of("LRL", torch.tensor([True, True, False])) == [True, False, False]
    for marks in ("LR", "LRX"):
        with pytest.raises(ValueError, match=f"marks '{marks}' for 3 pairs: give one L or R for each"):
            fidelity.hits_of(marks, torch.tensor([True, True, False]))


def test_marks_belong_to_one_board_of_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(fidelity.paths, "ROOT", tmp_path)
    (tmp_path / "data").mkdir()
    lines = ["run,board,marks,looked", "a-1,sums,LLR,who", "a-1,turn,RRR,who", "a-2,sums,RL,who"]
    (tmp_path / "data" / "marks.csv").write_text("\n".join(lines))
    assert fidelity.marks_of("a-2", "sums") == "RL" and fidelity.marks_of("a-2", "turn") == ""
    order = torch.tensor([True, False, False])
    found = fidelity.agreed("a-1", {"sums": order, "turn": order, "other": order})
    assert {board: round(3 * share.mean) for board, share in found.items()} == {"sums": 2, "turn": 2}
    with pytest.raises(ValueError, match="2 marks 'RL' for 3 pairs"):
        fidelity.agreed("a-2", {"sums": order})


def test_boards_are_written_without_their_order_and_as_many_as_there_are_pairs(tmp_path):
    """One kind is black, the other white: the board shows the order that marks are held against."""
    black, white = torch.full((2, 30, 3, 16, 16), -1.0) * torch.tensor([1.0, -1.0])[:, None, None, None, None]
    sides = {"sums": (black, white[:7]), "Smiling > not Male": (black, white)}
    shown, orders = fidelity.boards(sides, 25, torch.Generator().manual_seed(0), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs-Smiling-not-Male.jpg", "pairs-sums.jpg"]
    assert [len(order) for order in orders.values()] == [7, 25]
    for name, order in orders.items():
        assert torch.equal(shown[name][::2, 0, 0, 0] < 0, order)
    with Image.open(tmp_path / "pairs-Smiling-not-Male.jpg") as picture:
        seen = np.asarray(picture.convert("L"))
    assert seen.shape == (3 * 17 + 1, 20 * 17 + 1), "ten pairs in a row"
    dark = [seen[9 + 17 * (i // 10), 9 + 34 * (i % 10)] < 128 for i in range(25)]
    assert dark == orders["Smiling > not Male"].tolist()
    alone = fidelity.boards({"sums": sides["sums"]}, 25, torch.Generator().manual_seed(0), tmp_path)[1]["sums"]
    assert torch.equal(alone, orders["sums"]), "a board added behind leaves marks of the others right"
