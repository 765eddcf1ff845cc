"""The faster gradient against autograd's own."""

import pytest
import torch

from lib.gan import acceleration
from lib.gan.game import steepness
from lib.nets import models


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize("net", ["G", "D"])
def test_gradients_are_autograds(kernel, net):
    G, D = models.build("tutorial64", kernel=kernel, size=32, ngf=16, ndf=16, seed=1)
    G, D = G.to(memory_format=torch.channels_last), D.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    z, x = torch.randn(8, 100, generator=generator), torch.randn(8, 3, 32, 32, generator=generator)
    inputs, module = (z, G) if net == "G" else (x, D)
    found = []
    for context in (torch.enable_grad(), acceleration.MatrixGradients()):
        module.zero_grad()
        seen = inputs.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), context:
            out = module(seen)
        (out.float() ** 2).sum().backward()
        found.append([out.detach().float(), seen.grad, *(p.grad.clone() for p in module.parameters())])
    assert torch.equal(found[0][0], found[1][0]), "the forward pass is the same convolution"
    for own, fast in zip(*found, strict=True):
        assert own.dtype == fast.dtype and own.shape == fast.shape
        torch.testing.assert_close(fast, own, rtol=0.05, atol=0.01 * own.abs().max().item())


def test_second_derivatives_are_autograds():
    """R1 differentiates the gradient of D's answers once more."""
    D = models.build("tutorial64", size=32, ngf=16, ndf=16, seed=1)[1].to(memory_format=torch.channels_last)
    x, found = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), []
    for context in (torch.enable_grad(), acceleration.MatrixGradients()):
        D.zero_grad()
        seen = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), context:
            answers = D(seen).float()
        steepness(answers, seen).backward()
        found.append([p.grad.clone() for p in D.parameters() if p.grad is not None])
    for own, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, own, rtol=0.05, atol=0.02 * own.abs().max().item())


def test_it_is_taken_where_it_pays_and_only_there(monkeypatch):
    taken = []
    apply = acceleration._Convolution.apply
    monkeypatch.setattr(
        acceleration._Convolution, "apply", lambda x, w, *how: [taken.append(tuple(x.shape[1:])), apply(x, w, *how)][1]
    )
    G, D = models.build("tutorial64", size=32, ngf=8, ndf=8)
    with torch.autocast("cpu", torch.bfloat16), acceleration.MatrixGradients():
        D(G(torch.randn(2, 100)))
        D.requires_grad_(False)
        D(torch.randn(2, 3, 32, 32))
    assert taken == [(32, 4, 4), (16, 8, 8)], "G's first and D's last; none where no gradient of weights is needed"
