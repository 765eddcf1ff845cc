"""The study's few kinds of picture: images in rows, grids over training, curves, a walk that plays."""

import base64
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython import get_ipython
from IPython.display import HTML, display
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.images import data

INCH = 0.75  # side of one image in a row
COLOURS = 96  # of a picture that a notebook stores
T = TypeVar("T")


def to_picture(images: Tensor, columns: int) -> np.ndarray:
    """Lay images (N, C, H, W), uint8 or float in [-1, 1], out as one picture, uint8 (.., .., 3)."""
    images = images.detach().cpu()
    images = images if images.dtype == torch.uint8 else data.to_uint8(images)
    return data.tile(images, columns)


def show_grid(images: Tensor, columns: int = 8, title: str = "", ax: Axes | None = None) -> Figure:
    """Draw images (N, C, H, W) as one grid."""
    if ax is None:
        rows = -(-len(images) // columns)
        _, ax = plt.subplots(figsize=(columns * INCH, rows * INCH + 0.3 * bool(title)))
    ax.imshow(to_picture(images, columns), interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    plt.close(ax.figure)
    return ax.figure


def show_rows(rows: Mapping[str, Tensor], titles: Sequence[str] = ()) -> Figure:
    """Draw one row of images (N, C, H, W) per name, the name at its left; titles stand above the columns."""
    count = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(count * INCH + 1.6, len(rows) * (INCH + 0.06) + 0.3), squeeze=False
    )
    for ax, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        picture = to_picture(images, count)
        ax.imshow(picture, interpolation="nearest")
        ax.set_yticks([picture.shape[0] / 2], [name], fontsize=9)
        ax.set_xticks([])
        ax.tick_params(length=0)
        sns.despine(ax=ax, left=True, bottom=True)
    side = axes[0, 0].get_images()[0].get_array().shape[0]
    if titles:
        axes[0, 0].set_xticks([side * (i + 0.5) for i in range(len(titles))], titles, fontsize=8)
        axes[0, 0].xaxis.tick_top()
    figure.subplots_adjust(hspace=0.04)
    plt.close(figure)
    return figure


def show_board(exhibits: Mapping[str, Tensor], board: Tensor, pixels: Tensor, columns: int = 3) -> Figure:
    """Draw a sum as the paper's Fig. 7 does: each concept's exemplars (n, C, H, W), G's board, the sum of pixels.

    The first concept minus the second plus the third; board (9, C, H, W) has the sum itself in its middle; pixels
    (C, H, W) is the same sum in pixel space.
    """
    figure = plt.figure(figsize=(9, 3.9))
    layout = figure.add_gridspec(len(exhibits), 3, width_ratios=(1.6, 2.2, 0.9), hspace=0.35, wspace=0.08)
    for i, (sign, (name, images)) in enumerate(zip(("", "\u2212 ", "+ "), exhibits.items(), strict=True)):
        show_grid(images, len(images), sign + name, figure.add_subplot(layout[i, 0]))
    show_grid(board, columns, "G(sum) and eight neighbours", figure.add_subplot(layout[:, 1]))
    show_grid(pixels[None], 1, "sum of pixels", figure.add_subplot(layout[:, 2]))
    return figure


def show_intervals(frame: pd.DataFrame, x: str, y: str, hue: str) -> Figure:
    """Draw a frame's column x over its columns low and high, one line per value of y, one colour per value of hue."""
    figure, ax = plt.subplots(figsize=(7, 0.55 * frame[y].nunique() + 1))
    for i, (name, group) in enumerate(frame.groupby(hue, sort=False)):
        height = pd.factorize(frame[y])[0][group.index] + 0.16 * (i - (frame[hue].nunique() - 1) / 2)
        reach = [group[x] - group["low"], group["high"] - group[x]]
        ax.errorbar(group[x], height, xerr=reach, fmt="o", capsize=3, label=name)
    ax.set_yticks(range(frame[y].nunique()), frame[y].unique())
    ax.set(xlabel=x, xlim=(-0.02, 1.02))
    ax.invert_yaxis()
    ax.legend(title=hue, fontsize=8)
    return _end(figure)


def show_course(samples: Mapping[int, Tensor], columns: int = 4, count: int = 16) -> Figure:
    """Draw what the same z gave over a training: one grid of `count` images per step."""
    across = min(4, len(samples))
    down = -(-len(samples) // across)
    figure, axes = plt.subplots(down, across, figsize=(2.7 * across, 2.9 * down), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (step, images) in zip(axes.flat, sorted(samples.items()), strict=False):
        show_grid(images[:count], columns, f"after {step:,} minibatches", ax)
    figure.tight_layout(pad=0.3)
    return figure


def show_curves(log: pd.DataFrame) -> Figure:
    """Draw the losses, and D's mean answers, over a training's log; to images held out where it has them."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.2))
    answers = {
        "D_x": "D(x)",
        "D_G_z": "D(G(z))",
        "D_known": "D(x), training images",
        "D_unseen": "D(x), held-out images",
    }
    panels = [({"loss_D": "D", "loss_G": "G"}, "loss"), (answers, "mean answer of D")]
    for ax, (columns, label) in zip(axes, panels, strict=True):
        named = log.set_index("step").filter(list(columns)).rename(columns=columns)
        smooth = named.ewm(span=max(1, len(named) // 40)).mean().where(named.notna())  # minibatches are noisy
        sns.lineplot(smooth, ax=ax, dashes=False)
        ax.set(xlabel="minibatches", ylabel=label)
    axes[1].axhline(0.5, color="0.7", zorder=0, linewidth=1)
    axes[1].legend(fontsize=8)
    axes[1].set_ylim(0, 1)
    sns.despine(figure)
    figure.tight_layout()
    return _end(figure)


def show_spreads(spreads: pd.DataFrame, published: Mapping[str, float]) -> Figure:
    """Draw how far a net's layers have come: columns minibatches, layer, weights; published figures as dashed lines."""
    figure, ax = plt.subplots(figsize=(7, 3.2))
    sns.lineplot(spreads, x="minibatches", y="weights", hue="layer", marker="o", ax=ax)
    for name, value in published.items():
        ax.axhline(value, color="0.4", linestyle="--", linewidth=1)
        ax.text(ax.get_xlim()[0], value, f" {name}", fontsize=8, va="bottom")
    ax.axhline(1, color="0.7", zorder=0, linewidth=1)
    ax.set_ylabel("spread over the start's")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return _end(figure)


def play(images: Tensor, seconds: float = 0.12) -> HTML:
    """Return a player for a walk's images (T, C, H, W) that works without a kernel, on an exported page too."""
    figure, ax = plt.subplots(figsize=(2.6, 2.6), dpi=60)
    ax.set_axis_off()
    frames = [to_picture(image[None], 1) for image in images]
    shown = ax.imshow(frames[0], interpolation="nearest")
    figure.subplots_adjust(0, 0, 1, 1)
    film = FuncAnimation(figure, lambda i: [shown.set_data(frames[i])], len(frames), interval=1000 * seconds)
    page = film.to_jshtml(default_mode="reflect")
    plt.close(figure)
    return HTML(re.sub(r"(?<=base64,)[\w+/=\\\n]+", lambda found: _smaller(found[0]), page))


def _smaller(frame: str) -> str:
    """Return a player's frame, PNG as text in lines, with few colours."""
    with Image.open(io.BytesIO(base64.b64decode(frame.replace("\\\n", "")))) as image:
        return base64.b64encode(_to_png(image)).decode()


def _to_png(image: Image.Image) -> bytes:
    image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(buffer := io.BytesIO(), "PNG", optimize=True)
    return buffer.getvalue()


def store_few_colours() -> None:
    """Let this notebook show figures with few colours: with photographs in all of theirs it would take megabytes."""

    def draw(figure: Figure) -> bytes:
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=figure.dpi, bbox_inches="tight")
        with Image.open(buffer) as image:
            return _to_png(image)

    plt.close(plt.figure())  # or the inline backend, which comes with the first figure, brings its own way to draw
    get_ipython().display_formatter.formatters["image/png"].for_type(Figure, draw)


def show_draws(frame: pd.DataFrame, x: str, y: str, mark: Mapping[str, float]) -> Figure:
    """Draw every value of column x as a dot, one line per value of column y, and one cross on each line at `mark`."""
    figure, ax = plt.subplots(figsize=(7, 0.5 * len(mark) + 1))
    sns.stripplot(frame, x=x, y=y, ax=ax, alpha=0.6, jitter=0.1, order=list(mark))
    ax.scatter(list(mark.values()), range(len(mark)), marker="x", color="black", zorder=3)
    ax.set_ylabel("")
    return _end(figure)


def to_heat(maps: Tensor) -> Tensor:
    """Colour maps (N, 1, H, W) of any positive range, each on its own scale: (N, 3, H, W) in [-1, 1]."""
    scaled = maps / maps.amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    heat = torch.from_numpy(plt.get_cmap("magma")(scaled[:, 0].detach().cpu().numpy())[..., :3])
    return heat.permute(0, 3, 1, 2).float() * 2 - 1


def show_choice(distances: pd.Series, chosen: int) -> Figure:
    """Draw the Fréchet distance of a training's snapshots, named, over its steps, the chosen one marked."""
    figure, ax = plt.subplots(figsize=(7, 3))
    sns.lineplot(distances, marker="o", ax=ax)
    ax.plot(chosen, distances[chosen], "o", markersize=12, markerfacecolor="none", color="black", label="chosen")
    ax.set(xlabel="minibatches", ylabel=distances.name, ylim=(0, None))
    ax.legend()
    return _end(figure)


def _end(figure: Figure) -> Figure:
    """Leave out the frame's upper and right sides, and show nothing yet."""
    sns.despine(figure)
    plt.close(figure)
    return figure


def live(draw: Callable[[T], Figure]) -> Callable[[T], None] | None:
    """Return a function that shows draw(...) in one output and updates it in place; None where nobody watches.

    JupyterLab tells its kernels the name of their session; papermill and nbconvert do not.
    """
    if "JPY_SESSION_NAME" not in os.environ:
        return None
    output = display(display_id=True)
    return lambda state: output.update(draw(state))
