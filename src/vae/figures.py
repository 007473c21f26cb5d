"""The look of every picture: one style, and images laid out in grids.

Figures have no background of their own and grey text, so that they read on a light page and on a
dark one. Matplotlib is imported when the first figure is drawn, not before.
"""

import numpy as np

# Told apart by the colour-blind, and at least 3 : 1 against white and against near-black.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#2f7fc1", "#d9702b", "#2a9d6f", "#9b6fc7", "#7d838c"


def use_style() -> None:
    """Give every figure from now on the look of the book."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.2),
            "figure.dpi": 180,
            "figure.facecolor": "none",
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "none",
            "axes.facecolor": "none",
            "axes.edgecolor": GREY,
            "axes.labelcolor": GREY,
            "axes.titlecolor": GREY,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.labelsize": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY]),
            "grid.color": GREY,
            "grid.alpha": 0.22,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "legend.labelcolor": GREY,
            "legend.fontsize": 9,
            "text.color": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def mosaic(images, columns: int, image_shape=(28, 28), gap: int = 2) -> np.ndarray:
    """Tile images into one: (n, pixels) to (rows * height, columns * width) with gaps of NaN.

    uint8 levels become intensities in [0, 1]. Raises ValueError where an image does not have
    the pixels of image_shape.
    """
    images = np.asarray(images)
    height, width = image_shape
    if images.ndim < 2 or len(images) == 0 or images[0].size != height * width:
        raise ValueError(
            f"images must be a non-empty (n, {height * width}) for image_shape "
            f"{tuple(image_shape)}, got shape {images.shape}"
        )
    scale = 255 if images.dtype == np.uint8 else 1
    rows = -(-len(images) // columns)
    tiles = np.full((rows * columns, height + gap, width + gap), np.nan, np.float32)
    tiles[: len(images), :height, :width] = images.reshape(-1, height, width) / scale
    tiles = tiles.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    picture = tiles.reshape(rows * (height + gap), columns * (width + gap))
    return picture[: picture.shape[0] - gap, : picture.shape[1] - gap]


def show_images(images, *, columns: int, image_shape=(28, 28), title: str = "", ax=None):
    """Draw images in a grid, intensity 0 black and 1 white; return the axes."""
    import matplotlib.pyplot as plt

    picture = mosaic(images, columns, image_shape)
    if ax is None:
        width = plt.rcParams["figure.figsize"][0]
        height = width * picture.shape[0] / picture.shape[1] + (0.3 if title else 0)
        _, ax = plt.subplots(figsize=(width, height))
    ax.imshow(picture, vmin=0, vmax=1)
    ax.set_title(title)
    ax.axis("off")
    return ax


def show_rows(rows: dict, *, image_shape=(28, 28)):
    """Draw rows of images under each other, each with its name to the left; return the figure.

    `rows` maps a name to its images, (n, pixels), the same n in every row.
    """
    import matplotlib.pyplot as plt

    pictures = {name: mosaic(images, len(images), image_shape) for name, images in rows.items()}
    first = next(iter(pictures.values()))
    # The names take a fifth of the width.
    width = plt.rcParams["figure.figsize"][0]
    height = 0.8 * width * first.shape[0] / first.shape[1] * 1.12 * len(rows)
    figure, axes = plt.subplots(len(rows), 1, figsize=(width, height), squeeze=False)
    for ax, (name, picture) in zip(axes[:, 0], pictures.items(), strict=True):
        ax.imshow(picture, vmin=0, vmax=1)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return figure
