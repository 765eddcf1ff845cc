"""The order of minibatches: each epoch everything once, whatever the rows, from any minibatch on."""

import pytest
import torch

from lib.images import data


def epochs(rows, batch_size, seed, n):
    per_epoch = len(rows) // batch_size
    return torch.stack(list(data.minibatches(rows, batch_size, seed, 0, n * per_epoch))).view(n, per_epoch, batch_size)


def test_each_epoch_has_every_row_once():
    rows = torch.arange(0, 400, 2)
    found = epochs(rows, 50, 0, 3)
    assert all(epoch.flatten().sort().values.equal(rows) for epoch in found)
    assert not found[0].equal(found[1]) and not found[1].equal(found[2])


def test_rows_of_a_minibatch_are_sorted_and_not_neighbours():
    (found,) = epochs(torch.arange(1000), 100, 0, 1)
    assert (found.diff(dim=1) > 0).all(), "a file is read from front to back"
    assert (found[:, -1] - found[:, 0] > 800).all(), "over all of it"


def test_a_last_smaller_minibatch_is_left_out():
    assert epochs(torch.arange(7), 3, 0, 2).shape == (2, 2, 3)
    assert [data.steps_of(*how) for how in ((1, 7, 3), (2.5, 7, 3), (0.01, 7, 3), (40, 60_000, 128))] == [
        2,
        5,
        1,
        18720,
    ]


def test_it_goes_on_from_any_minibatch():
    whole = list(data.minibatches(torch.arange(20), 3, 5, 0, 14))
    assert all(map(torch.equal, data.minibatches(torch.arange(20), 3, 5, 8, 14), whole[8:]))


@pytest.mark.parametrize("shared", [((0, 100_003), (1, 0)), ((0, 0), (1, 0)), ((0, 1), (1, 0)), ((0, 0), (0, 1))])
def test_seeds_and_epochs_share_nothing(shared):
    """Seed 1's first epoch was seed 0's epoch 100,003."""
    (a, b) = (next(data.minibatches(torch.arange(64), 32, seed, 2 * epoch, 2 * epoch + 1)) for seed, epoch in shared)
    assert not torch.equal(a, b)
