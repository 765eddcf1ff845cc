"""Moves in the latent space: end points, lengths and identities, written out."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial import geometric_slerp

from lib.internals import latent
from lib.nets import models


@pytest.fixture
def stops():
    return torch.randn(4, 100, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("way", latent.WAYS)
def test_a_walk_passes_its_stops(stops, way):
    walk = latent.walk(stops, 5, way)
    assert walk.shape == (16, 100)
    torch.testing.assert_close(walk[::5], stops)


def test_linear_steps_are_even(stops):
    steps = latent.walk(stops[:2], 4).diff(dim=0)
    torch.testing.assert_close(steps, ((stops[1] - stops[0]) / 4).expand(4, -1))


def test_slerp_is_scipys_on_the_unit_sphere(stops):
    a, b = (stop / stop.norm() for stop in stops[:2].double())
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    np.testing.assert_allclose(latent.slerp(a, b, t), geometric_slerp(a.numpy(), b.numpy(), t.numpy()), atol=1e-12)


def test_slerp_keeps_the_length_that_lerp_loses(stops):
    a, b = stops[0], stops[1] * stops[0].norm() / stops[1].norm()
    half = torch.tensor([0.5])
    torch.testing.assert_close(latent.slerp(a, b, half).norm(), a.norm())
    assert latent.lerp(a, b, half).norm() < 0.8 * a.norm()


def test_slerp_of_parallel_and_opposite_vectors(stops):
    a = stops[0]
    torch.testing.assert_close(latent.slerp(a, 3 * a, torch.tensor([0.5]))[0], 2 * a)
    with pytest.raises(ValueError, match="opposite vectors"):
        latent.slerp(a, -a, torch.tensor([0.5]))


def test_slerp_goes_evenly_from_one_length_to_the_other():
    """A quarter of the way: a right angle turns by 22.5 degrees, and a length of 1 to 5 has grown to 2."""
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 5.0])
    quarter = latent.slerp(a, b, torch.tensor([0.25]))[0]
    expected = 2 * torch.tensor([math.cos(math.pi / 8), math.sin(math.pi / 8)])
    torch.testing.assert_close(quarter, expected)
    lengths = latent.slerp(a, b, torch.linspace(0, 1, 5)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 2, 3, 4, 5]))


def test_a_vector_of_zeros_has_no_direction(stops):
    for pair in ((stops[0], torch.zeros(100)), (torch.zeros(100), stops[0])):
        with pytest.raises(ValueError, match="zeros has no direction: interpolate linearly"):
            latent.slerp(*pair, torch.tensor([0.5]))


def test_a_walk_that_stands_still_has_no_median_step():
    still = torch.ones(1, 5, 2, 2)
    with pytest.raises(ValueError, match="1 of 2 walks stand still: G draws one image there"):
        latent.jumps(torch.cat([still, torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 2, 2)]))


def test_jumps_written_out():
    even = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 2, 2)
    leap = torch.tensor([0.0, 1, 2, 12, 13]).view(1, 5, 1, 1).expand(1, 5, 2, 2)
    assert latent.jumps(torch.cat([even, leap])).tolist() == [1, 10]


def test_arithmetic_written_out():
    a, b, c = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 1]]), torch.tensor([[0.0, 10]])
    assert latent.arithmetic(a, b, c).tolist() == [1, 12]
    assert torch.equal(latent.arithmetic(a, a, c), c[0])


def test_three_exemplars_restore_the_priors_variance():
    generator = torch.Generator().manual_seed(0)
    for n, variance in [(1, 3), (3, 1), (10, 0.3)]:
        concepts = torch.randn(3, 2000, n, 20, generator=generator)
        sums = torch.stack([latent.arithmetic(*concepts[:, i]) for i in range(2000)])
        assert abs(sums.var().item() / variance - 1) < 0.05


def test_neighbours_surround_the_sum(stops):
    board = latent.board(lambda z: z, stops[0], torch.Generator().manual_seed(0))
    assert board.shape == (9, 100) and torch.equal(board[4], stops[0])
    assert 0.2 < (board - stops[0]).abs().max() <= 0.25 + 1e-6


def test_errors(stops):
    with pytest.raises(ValueError, match="unknown way 'cubic': choose one of linear, spherical"):
        latent.walk(stops, 5, "cubic")
    with pytest.raises(ValueError, match="two stops and one step"):
        latent.walk(stops[:1], 5)


def test_every_purpose_and_seed_draws_points_of_its_own():
    G, _ = models.build("tutorial64", size=16, ngf=4, ndf=4)
    drawn = [latent.points(G, 50, *key) for key in ((0, "walk"), (0, "sum"), (1, "walk"), (0, "walk", 1))]
    assert torch.equal(drawn[0], latent.points(G, 50, 0, "walk"))
    rows = torch.cat(drawn)
    assert len(rows.unique(dim=0)) == 200
    assert (rows @ G.projection.weight.T).abs().max() < 1.5, "no unit of G knows one by heart: that answers with 2"


def test_sums_are_taken_over_the_first_exemplars_of_each_concept():
    values = torch.arange(8.0)[:, None] ** 2
    picked = [[torch.tensor([0, 1, 7]), torch.tensor([2, 3, 7]), torch.tensor([4, 6, 7])]] * 2
    assert latent.sums(values, picked, 2).tolist() == [[0.5 - 6.5 + 26.0]] * 2
    assert latent.sums(values, picked[:1], 1).tolist() == [[0.0 - 4 + 16]]
    with pytest.raises(ValueError, match="means of 4 exemplars, and 3 were drawn of a concept: raise most"):
        latent.sums(values, picked, 4)


def test_controls_are_as_long_as_the_sum_and_do_not_know_the_concept():
    """z of one coordinate per concept. What is added to the third is as long as the first minus the second."""
    z = torch.zeros(60, 20)
    for concept in range(3):
        z[20 * concept : 20 * (concept + 1), concept] = 1
    generator = torch.Generator().manual_seed(0)
    picked = [[20 * c + torch.randperm(20, generator=generator)[:6] for c in range(3)] for _ in range(200)]
    found = latent.controls(z, picked, 3, generator)
    third = torch.eye(20)[2]
    added = found["random direction"] - third
    torch.testing.assert_close(added.norm(dim=1), torch.full((200,), 2**0.5))
    assert added.mean(0).abs().max() < 0.15, "in no direction above others"
    shuffled = found["shuffled concept"] - third
    assert shuffled[:, 2:].abs().max() == 0, "made of the first two concepts alone"
    torch.testing.assert_close(shuffled[:, 0], -shuffled[:, 1])
    assert shuffled[:, 0].abs().max() <= 1 and shuffled[:, 0].mean().abs() < 0.1 < shuffled[:, 0].std()
    both = torch.eye(20)[0] + torch.eye(20)[1]
    torch.testing.assert_close(found["wrong signs"], both.expand(200, -1), msg="man with plus man without, no woman")


def test_a_board_shows_the_sum_in_its_middle(stops):
    G, _ = models.build("tutorial64", size=16, ngf=4, ndf=4)
    drawn = latent.board(G.eval(), stops[0], torch.Generator().manual_seed(0))
    assert drawn.shape == (9, 3, 16, 16) and not drawn.requires_grad
    torch.testing.assert_close(drawn[4], G(stops[:1])[0].detach())


def test_turns_written_out():
    left, right, start = torch.tensor([[0.0, 0]]), torch.tensor([[3.0, 4]]), torch.tensor([[10.0, 20]])
    ways = latent.turn(left, right, start, 3, torch.Generator().manual_seed(0))
    assert ways["turn"].tolist() == [[[0, 0], [1.5, 2], [3, 4]]]
    assert ways["turn added to samples"].tolist() == [[[7, 16], [10, 20], [13, 24]]]
    random = ways["random direction added to samples"]
    torch.testing.assert_close(random[:, 1], start)
    torch.testing.assert_close((random[0, 2] - random[0, 1]).norm(), torch.tensor(5.0))


def test_turns_go_from_each_group_of_four_to_another():
    G, _ = models.build("tutorial64", size=16, ngf=4, ndf=4)
    z, left, right = torch.randn(20, 100), torch.arange(9), torch.arange(9, 20)
    ways = latent.turns(G.eval(), z, left, right, 3, seed=0)
    assert {some.shape for some in ways.values()} == {(2, 3, 3, 16, 16)}
    with torch.no_grad():
        torch.testing.assert_close(ways["turn"][1, 0], G(z[4:8].mean(0, keepdim=True))[0])
        torch.testing.assert_close(ways["turn"][1, 2], G(z[13:17].mean(0, keepdim=True))[0])
        middle = G(latent.points(G, 2, 0, "turned"))
    torch.testing.assert_close(ways["turn added to samples"][:, 1], middle, atol=1e-4, rtol=0)
    assert len(latent.turns(G, z, left, right, 3, seed=0, most=1)["turn"]) == 1


def test_random_directions_of_turns_point_anywhere():
    left, right = torch.zeros(400, 10), torch.zeros(400, 10)
    right[:, 0] = 2
    added = latent.turn(left, right, left, 2, torch.Generator().manual_seed(0))
    added = added["random direction added to samples"][:, 1]
    torch.testing.assert_close(added.norm(dim=1), torch.full((400,), 2.0))
    assert added.mean(0).abs().max() < 0.15


def test_what_rises_is_told_by_scipys_rank_correlation():
    along = np.random.default_rng(0).integers(0, 4, (20, 9)).astype(float)
    expected = [stats.spearmanr(way, np.arange(9)).statistic for way in along]
    np.testing.assert_allclose(latent.rising(along), expected)
    assert latent.rising(np.array([[1.0, 2, 5], [0, 0, 0], [3, 2, 1]])).tolist() == pytest.approx([1, 0, -1])
