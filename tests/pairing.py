"""Networks of plain layers with convolution pairs in them."""

import torch
from conftest import assert_near, noise
from torch import nn


def pair(bins=7, frames=3, **options):
    """Convolutions of 2 channels to 4; options are of the first."""
    torch.manual_seed(0)
    return [nn.Conv2d(2, 6, (1, bins), **options), nn.Conv2d(6, 4, (frames, 1))]


def twin(bins=7, frames=3, **options):
    """Deconvolutions of 4 channels to 2; options are of the first."""
    torch.manual_seed(0)
    return [nn.ConvTranspose2d(4, 6, (frames, 1), **options), nn.ConvTranspose2d(6, 2, (1, bins))]


def gradients(model, x):
    """The result, and the gradient of the input and all parameters."""
    x = x.clone().requires_grad_()
    out = model(x)
    objective = (out * noise(*out.shape, seed=1).to(out)).sum()
    return [out.detach(), *torch.autograd.grad(objective, [x, *model.parameters()])]


def assert_same(fused, plain, x, bound=1e-5):
    for one, other in zip(gradients(fused, x), gradients(plain, x), strict=True):
        assert_near(one, other, bound)
