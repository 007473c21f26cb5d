"""The look of every picture: one style, images laid out in grids, and animations.

Figures have no background of their own and grey text, so that they read on a light page and on a
dark one. H.264 knows no transparency, so an animation is a screen: near-black wherever it stands,
with light text. Matplotlib is imported when the first figure is drawn, not before.
"""

import base64
import functools
import html
import io
import itertools
import math
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from vae import checks

# Told apart by the colour-blind, and at least 3 : 1 against white and against near-black.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#2f7fc1", "#d9702b", "#2a9d6f", "#9b6fc7", "#7d838c"


# The background of an animation and the text on it.
SCREEN, SCREEN_TEXT = "#0c0e12", "#d5d9e0"

_LOWEST = 36  # x264's "constant rate factor": 22 looks like the original, above 36 text frays


def _style() -> dict:
    import matplotlib as mpl

    return {
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


def use_style() -> None:
    """Give every figure from now on the look of the book."""
    import matplotlib as mpl

    mpl.rcParams.update(_style())


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


def screen(width: float, height: float, **subplots_kw):
    """Make a figure for `animate`: near-black, its text light; return it and its axes.

    `width` and `height` are in inches. On a phone the whole width fits the screen, so up to 5
    inches its labels can be read there. `subplots_kw` goes to `matplotlib.pyplot.subplots`, so
    the axes are one object or an array of them, as there. Text in Matplotlib's or the book's
    default colour is drawn light, whenever it was added; text in any other colour keeps it.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    size = checks.positive_float("width", width), checks.positive_float("height", height)
    style = _style()
    pane = (1.0, 1.0, 1.0, 0.04)  # of axes in three dimensions: light grey by default
    panes = {f"axes3d.{axis}axis.panecolor": pane for axis in "xyz"}
    margins = {f"figure.constrained_layout.{side}_pad": 0.1 for side in "hw"}
    with mpl.rc_context({**style, **panes, **margins}):
        figure, axes = plt.subplots(
            **{"figsize": size, "dpi": 130, "facecolor": SCREEN, "FigureClass": _screen_class()}
            | subplots_kw
        )
    for ax in figure.axes:  # ticks are made when first drawn, in the style of that moment
        ax.tick_params(color=GREY, grid_color=GREY)
        ax.tick_params(grid_alpha=style["grid.alpha"], grid_linewidth=style["grid.linewidth"])
    return figure, axes


@functools.cache
def _screen_class() -> type:
    import matplotlib as mpl
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class Screen(Figure):
        def draw(self, renderer):
            defaults = {to_rgba(c) for c in (GREY, mpl.rcParams["text.color"])}
            for text in self.findobj(Text):
                if to_rgba(text.get_color()) in defaults:
                    text.set_color(SCREEN_TEXT)
            super().draw(renderer)

        def savefig(self, *args, **kwargs):
            super().savefig(*args, **{"facecolor": self.get_facecolor()} | kwargs)

    return Screen


class Animation:
    """A moving picture: H.264 for pages and notebooks, GIF for Colab; shown as a cell's value.

    `mp4` holds the bytes of an MP4 file (None where there is no ffmpeg), `poster` those of a PNG of
    the frame that stands for the whole, `alt` what it shows in words, `fps` the frames per second.
    """

    def __init__(self, frames: np.ndarray, *, alt: str, fps: float, still: int, width: int):
        """Keep `frames`, uint8 of shape (n, height, width, 3); a page shows it `width` px wide."""
        self.alt, self.fps, self.width = alt, fps, width
        self.mp4: bytes | None = None
        self.poster = _png(frames[still])
        self._shape = frames.shape
        self._pixels = zlib.compress(
            np.ascontiguousarray(frames), 1
        )  # flat pictures: a tenth and less
        self._gif: bytes | None = None

    @property
    def gif(self) -> bytes:
        """The same frames as a GIF file, made when first asked for."""
        if self._gif is None:
            pixels = np.frombuffer(zlib.decompress(self._pixels), np.uint8)
            self._gif = _gif(pixels.reshape(self._shape), self.fps)
        return self._gif

    def save(self, path: str | os.PathLike) -> None:
        """Write the file at `path`, whole or not at all: H.264 for .mp4, GIF for .gif.

        Raises ValueError for another suffix, RuntimeError for .mp4 where there is no ffmpeg.
        """
        path = Path(path)
        if path.suffix not in (".mp4", ".gif"):
            raise ValueError(f"path must end in .mp4 or .gif, got {str(path)!r}")
        data = self.mp4 if path.suffix == ".mp4" else self.gif
        if data is None:
            raise RuntimeError(f"no ffmpeg to make {path.name}: pip install imageio-ffmpeg")
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def __repr__(self) -> str:
        size = f"{len(self.mp4) / 1000:.0f} KB of H.264" if self.mp4 else "no H.264"
        return (
            f"Animation({self.alt!r}, {self._shape[0]} frames at {self.fps:g} per second, {size})"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """What a notebook shows: a video with controls; in Colab and without ffmpeg, a GIF."""
        if self.mp4 is None or "google.colab" in sys.modules:
            return {"image/gif": _base64(self.gif), "text/plain": self.alt}
        return {"text/html": self._html(), "text/plain": self.alt}

    def _html(self) -> str:
        # No `autoplay`: on the book's pages a script starts it for readers who want motion.
        alt = html.escape(self.alt)
        poster = f"data:image/png;base64,{_base64(self.poster)}"
        height = round(self.width * self._shape[1] / self._shape[2])
        return (
            '<video controls muted loop playsinline preload="metadata" '
            f'width="{self.width}" height="{height}" style="max-width: 100%; height: auto" '
            f'aria-label="{alt}" poster="{poster}">\n'
            f'<source type="video/mp4" src="data:video/mp4;base64,{_base64(self.mp4)}">\n'
            f'<img alt="{alt}" src="{poster}">\n'
            "</video>"
        )


def animate(
    figure,
    draw: Callable[[int], object],
    frames: int,
    *,
    alt: str,
    fps: float = 15,
    still: int = 0,
    max_kilobytes: float = 150,
) -> Animation:
    """Make an animation of `figure`, usually one of `screen`: `draw(i)` changes it for frame i.

    `draw` is called once for each i in 0..frames-1, in order; where things stand (titles, labels,
    axes) is settled with frame 0. `alt` says in a sentence what moves, for those who do not see
    it. `still` is the frame that stands for the whole where nothing moves. The same pictures give
    the same bytes. The figure is closed, so that a notebook does not show it besides.

    Raises ValueError for fewer than one frame or six words of `alt`, `fps` not above 0, a `still`
    that is no frame, a figure without an opaque background (H.264 has no transparency), and where
    the H.264 exceeds `max_kilobytes` (of 1000 bytes) even at the lowest quality at which text
    is clean.
    """
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a figure of Matplotlib, got {type(figure).__name__}")
    try:
        count, fps = checks.positive_int("frames", frames), checks.positive_float("fps", fps)
        checks.positive_float("max_kilobytes", max_kilobytes)
        if not callable(draw):
            raise TypeError(f"draw must be a function of the frame's number, got {draw!r}")
        if not isinstance(alt, str):
            raise TypeError(f"alt must be a sentence, got {alt!r} ({type(alt).__name__})")
        alt = " ".join(alt.split())
        if len(alt.split()) < 6:
            raise ValueError(f"alt must say in six words or more what moves, got {alt!r}")
        if not -count <= still < count:
            raise ValueError(f"still must be one of the {count} frames, got {still}")
        if figure.get_facecolor()[3] < 1:
            raise ValueError(
                "figure must have an opaque background, for a video has no transparency; make "
                "it by vae.figures.screen(width, height)"
            )
        pixels = _render(figure, draw, count)
        width = round(100 * figure.get_figwidth())  # as a figure of 7 inches fills a page
        animation = Animation(pixels, alt=alt, fps=fps, still=still, width=width)
        animation.mp4 = _h264(pixels, fps, max_kilobytes)
        return animation
    finally:
        plt.close(figure)


def _render(figure, draw: Callable[[int], object], count: int) -> np.ndarray:
    """Every frame, uint8 of shape (count, height, width, 3), height and width even."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    frames = None
    for i in range(count):
        draw(i)
        if i == 0:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # else everything would shift with every label
        canvas.draw()
        frame = np.asarray(canvas.buffer_rgba())[..., :3]
        if frames is None:
            height, width = frame.shape[:2]
            even = (count, height + height % 2, width + width % 2, 3)  # as yuv420p must be
            frames = np.empty(even, np.uint8)
        elif frame.shape != (height, width, 3):
            raise ValueError(f"draw must not change the size of the figure, but draw({i}) does")
        frames[i] = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frames


def _h264(frames: np.ndarray, fps: float, max_kilobytes: float) -> bytes | None:
    """An MP4 file of at most `max_kilobytes`, or None where there is no ffmpeg."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        ffmpeg = get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None
    count, height, width, _ = frames.shape
    raw = memoryview(frames).cast("B")
    rate = Fraction(fps).limit_denominator(1000)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate)]
    # Said and meant: without the tags, players guess which matrix the colours went through.
    matrix = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"
    tags = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    colours = ["-vf", f"{matrix},format=yuv420p,{tags}"]
    # One thread and no names of versions: the same bytes on every machine with this ffmpeg.
    same = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "animation.mp4"
        crf = 22
        while True:
            codec = ["-an", "-c:v", "libx264", "-crf", str(crf)]
            command = [ffmpeg, "-y", "-loglevel", "error", *source, "-i", "-", *codec, *colours]
            command += [*same, "-movflags", "+faststart", str(target)]
            done = subprocess.run(command, input=raw, capture_output=True, check=False)
            if done.returncode:
                report = done.stderr.decode(errors="replace").strip()
                raise RuntimeError(f"ffmpeg could not make the animation: {report[-500:]}")
            data = target.read_bytes()
            excess = len(data) / (1000 * max_kilobytes)
            if excess <= 1:
                return data
            if crf == _LOWEST:
                break
            # Every 4 steps of quality take off about a third, so 9 divide the size by e.
            crf = min(crf + 1 + math.ceil(9 * math.log(excess)), _LOWEST)
    raise ValueError(
        f"the animation of {count} frames, {width} x {height} pixels, takes {len(data) / 1000:.0f} "
        f"KB of H.264, more than max_kilobytes={max_kilobytes:g}: make fewer frames, a smaller "
        "figure, or fewer things that move"
    )


def _gif(frames: np.ndarray, fps: float) -> bytes:
    from PIL import Image

    sample = np.linspace(0, len(frames) - 1, min(len(frames), 8)).astype(int)
    palette = Image.fromarray(np.concatenate(frames[sample])).quantize(64)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    # A GIF counts hundredths of a second, and players slow down what has fewer than two.
    ends = [round(100 * i / fps) for i in range(len(frames) + 1)]
    durations = [10 * max(2, end - start) for start, end in itertools.pairwise(ends)]
    data = io.BytesIO()
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return data.getvalue()


def _png(frame: np.ndarray) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    # 256 colours of its own: a third of the bytes, and no difference to be seen.
    Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
