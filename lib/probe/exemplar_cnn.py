"""The Exemplar CNN (Dosovitskiy et al. 2014), an opponent of Table 1 that learns features without labels."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.images import data
from lib.nets import supervised
from lib.probe.features import max_pool_to_grid
from lib.probe.kmeans import QUADRANTS
from lib.study import chance


class ExemplarNet(nn.Module):
    """Dosovitskiy et al.'s net: 5 x 5 convolutions with max-pooling, one dense layer, one logit per surrogate class.

    maps: of each convolution, the dense layer's units last; (64, 64, 128) is their smallest net, (64, 128, 256, 512)
    their largest.
    """

    def __init__(self, maps: tuple[int, ...], nc: int, size: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(chance.stream(seed, "weights", "exemplar"))
        *convs, units = maps
        pools = [nn.MaxPool2d(2)] * 2 + [nn.Identity()] * len(convs)  # two poolings, as theirs
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(m_in, m_out, 5, padding=2), nn.ReLU(), pool)
            for (m_in, m_out), pool in zip(pairwise([nc, *convs]), pools, strict=False)
        )
        side = size // 2 ** min(2, len(convs))
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(convs[-1] * side**2, units), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(units, classes))

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return every layer's output: [(N, C_l, H_l, W_l), ..., (N, units, 1, 1)]."""
        hs = []
        for layer in self.layers:
            x = layer(x)
            hs.append(x)
        return [*hs, self.dense(x)[:, :, None, None]]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activations(x)[-1].flatten(1))  # (N, classes)


def fit_exemplar_net(
    x: Tensor, classes: int, views: float, maps: tuple[int, ...] = (64, 64, 128), seed: int = 0, **options
) -> ExemplarNet:
    """Train an ExemplarNet to tell `classes` images of x (N, C, H, W), uint8, apart, however they are transformed.

    views: of each image; shifted, scaled, rotated and recoloured anew, in groups of eight. options: of
    `supervised.fit`. The authors take 150 views of each of 16,000 patches of STL-10, and no hue for grey images.
    """
    from torchvision.transforms import v2  # two seconds of import that most sessions do without

    check_surrogates(classes, len(x))
    generator = torch.Generator().manual_seed(chance.stream(seed, "surrogates"))
    chosen = x[torch.randperm(len(x), generator=generator)[:classes]]
    colours = (0.4, 0.6, 0.6, 0.1) if x.shape[1] == 3 else (0.4, 0.6)
    transform = v2.Compose([v2.RandomAffine(20, (0.2, 0.2), (0.7, 1.4)), v2.ColorJitter(*colours)])

    def augment(batch: Tensor) -> Tensor:
        return torch.cat([transform(group) for group in batch.split(8)])

    net = ExemplarNet(maps, x.shape[1], x.shape[-1], classes, seed)
    options["seed"] = chance.stream(seed, "exemplar")
    return supervised.fit(net, chosen, torch.arange(classes), views, augment=augment, **options)


def check_surrogates(classes: int, images: int) -> None:
    """Raise ValueError, before any work, where there are not as many images as classes, or not two."""
    if not 2 <= classes <= images:
        raise ValueError(f"{classes} surrogate classes of {images} images: each class is one image, two at least")


@torch.no_grad()
def exemplar_features(net: ExemplarNet, x: Tensor, batch_size: int = 32) -> Tensor:
    """Return all layers, the convolutions max-pooled over quadrants: (N, C, H, W) uint8 -> (N, F), on the CPU."""
    device, parts = next(net.parameters()).device, []
    for batch in x.split(batch_size):
        *convs, dense = net.activations(data.to_float(batch.to(device)))
        pooled = [max_pool_to_grid(h, QUADRANTS).flatten(1) for h in convs]
        parts.append(torch.cat([*pooled, dense.flatten(1)], 1).cpu())
    return torch.cat(parts)
