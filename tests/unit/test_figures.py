"""vae.figures: images laid out in grids, and animations."""

import base64
import importlib.util
import io
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vae import figures

IMAGES = np.arange(5 * 6, dtype=np.float32).reshape(5, 6) / 30


def test_a_mosaic_holds_every_image_in_its_place_and_nan_between_them():
    picture = figures.mosaic(IMAGES, 3, (2, 3), gap=1)
    assert picture.shape == (2 * 2 + 1, 3 * 3 + 2)
    for i, image in enumerate(IMAGES):
        row, column = divmod(i, 3)
        tile = picture[3 * row : 3 * row + 2, 4 * column : 4 * column + 3]
        np.testing.assert_array_equal(tile, image.reshape(2, 3))
    # Gaps, and the place of the sixth image, hold no number.
    assert np.isnan(picture).sum() == picture.size - IMAGES.size


def test_levels_become_intensities():
    levels = np.array([[0, 51, 204, 255]], np.uint8)
    np.testing.assert_allclose(figures.mosaic(levels, 1, (2, 2)), [[0, 0.2], [0.8, 1]], rtol=1e-6)


def test_a_mosaic_can_do_without_gaps():
    assert figures.mosaic(IMAGES, 3, (2, 3), gap=0).shape == (4, 9)


@pytest.mark.parametrize("images, shape", [(IMAGES, (2, 2)), (IMAGES[0], (2, 3))])
def test_images_of_another_size_are_refused(images, shape):
    with pytest.raises(ValueError, match=r"images must be .*\(n, \d\) .*got shape"):
        figures.mosaic(images, 2, shape)


@pytest.fixture
def plt(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context():
        yield plt
    plt.close("all")


def test_images_are_drawn_black_for_0_and_white_for_1(plt):
    figures.use_style()
    ax = figures.show_images(IMAGES, columns=3, image_shape=(2, 3), title="Five")
    assert ax.get_title(loc="left") == "Five"
    (drawn,) = ax.get_images()
    assert drawn.get_clim() == (0, 1) and drawn.get_cmap()(0.0)[:3] == (0, 0, 0)
    np.testing.assert_array_equal(
        np.ma.filled(drawn.get_array(), np.nan), figures.mosaic(IMAGES, 3, (2, 3))
    )


def test_rows_are_drawn_under_their_names(plt):
    figure = figures.show_rows({"x": IMAGES, "mean of p": 1 - IMAGES}, image_shape=(2, 3))
    assert [ax.get_ylabel() for ax in figure.axes] == ["x", "mean of p"]
    assert all(len(ax.get_images()) == 1 for ax in figure.axes)


# Animations

ALT = 'A grey level that rises <fast> & evenly, beside "orange".'
needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed"
)


def levels(count=6, size=(161 / 64, 115 / 64), **options):
    """An animation: on the left a grey of level 40 i, on the right orange; 161 x 115 pixels."""
    figure, ax = figures.screen(*size, dpi=64)
    ax.set_position([0, 0, 1, 1])
    ax.set_axis_off()
    picture = np.tile(np.array([0xD9, 0x70, 0x2B], np.uint8), (10, 20, 1))
    drawn = ax.imshow(picture, aspect="auto")

    def draw(i):
        picture[:, :10] = 40 * i
        drawn.set_data(picture)

    return figures.animate(figure, draw, count, **{"alt": ALT} | options)


def opened(data):
    from PIL import Image

    return Image.open(io.BytesIO(data))


def gif_frames(data):
    """(the frames, RGB; the milliseconds of each)"""
    image = opened(data)
    frames, milliseconds = [], []
    for i in range(image.n_frames):
        image.seek(i)
        frames.append(np.asarray(image.convert("RGB")))
        milliseconds.append(image.info["duration"])
    return np.array(frames), milliseconds


def mp4_frames(data, folder):
    """(the frames, RGB; what the file says of itself)"""
    import imageio_ffmpeg

    path = folder / "probe.mp4"
    path.write_bytes(data)
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    width, height = facts["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.array(frames), facts


def assert_levels(frames, tolerance):
    """The frames are those of `levels`, in order, in their colours."""
    frames = np.asarray(frames, np.float64)
    grey = frames[:, 20:-20, 20:60].mean(axis=(1, 2))
    orange = frames[:, 20:-20, -60:-20].mean(axis=(1, 2))
    rising = 40.0 * np.arange(len(frames))[:, None]
    np.testing.assert_allclose(grey, rising.repeat(3, axis=1), atol=tolerance)
    np.testing.assert_allclose(orange, [[0xD9, 0x70, 0x2B]] * len(frames), atol=tolerance)


class Tags(HTMLParser):
    """The start tags of some HTML: (name, attributes) in order."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@needs_ffmpeg
def test_an_animation_is_h264_with_every_frame_in_order_and_in_its_colours(plt, tmp_path):
    frames, facts = mp4_frames(levels(fps=12.5).mp4, tmp_path)
    assert facts["codec"] == "h264" and facts["pix_fmt"].startswith("yuv420p")
    assert facts["fps"] == 12.5 and len(frames) == 6
    assert frames.shape[1:] == (116, 162, 3)  # even, from 115 x 161
    assert_levels(frames, tolerance=4)  # an encoder may err by a few levels
    assert np.abs(frames[:, -1].astype(int) - frames[:, -3]).max() < 12  # no dark seam where padded


@needs_ffmpeg
def test_an_mp4_can_start_before_it_is_loaded_whole(plt):
    data = levels().mp4
    assert data[4:8] == b"ftyp" and b"avc1" in data
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_a_gif_has_the_same_frames_and_the_same_speed(plt):
    frames, milliseconds = gif_frames(levels(fps=15).gif)
    assert len(frames) == 6
    assert_levels(frames, tolerance=4)  # a palette of 64 colours
    assert sum(milliseconds) == 400 and set(milliseconds) == {60, 70}


def test_the_same_frames_give_the_same_bytes(plt):
    one, two, other = levels(), levels(), levels(5)
    assert one.gif == two.gif != other.gif and one.poster == two.poster
    assert one.mp4 == two.mp4 and (one.mp4 is None or one.mp4 != other.mp4)


@pytest.mark.parametrize("still, frame", [(0, 0), (3, 3), (-1, 5)])
def test_the_poster_is_the_frame_that_was_asked_for(plt, still, frame):
    poster = opened(levels(still=still).poster)
    assert poster.format == "PNG" and poster.size == (162, 116)
    shown = np.asarray(poster.convert("RGB"), np.float64)
    np.testing.assert_allclose(shown[20:-20, 20:60].mean(), 40 * frame, atol=3)


def test_every_frame_is_drawn_once_and_nothing_shifts_between_them(plt):
    figure, ax = figures.screen(3, 2)
    calls, places = [], []

    def draw(i):
        calls.append(i)
        places.append(ax.get_position().bounds)
        ax.set_ylabel("wider\n" * i)
        ax.set_ylim(0, 10.0**i)

    figures.animate(figure, draw, 5, alt=ALT)
    assert calls == [0, 1, 2, 3, 4]
    assert places[0] != places[1]  # the layout is made for the first frame
    assert len(set(places[1:])) == 1 and ax.get_position().bounds == places[1]


def test_the_figure_is_closed_so_that_no_notebook_shows_it_too(plt):
    levels()
    assert plt.get_fignums() == []
    with pytest.raises(ZeroDivisionError):
        figures.animate(figures.screen(2, 2)[0], lambda i: 1 / i, 3, alt=ALT)
    assert plt.get_fignums() == []


@needs_ffmpeg
def test_a_notebook_shows_a_video_that_starts_at_nobodys_wish_but_the_readers(plt):
    from IPython.core.formatters import DisplayFormatter

    animation = levels(still=2)
    shown, _ = DisplayFormatter().format(animation)
    assert shown["text/plain"] == ALT and set(shown) == {"text/html", "text/plain"}
    (video, source, image) = Tags(shown["text/html"]).found
    assert [tag for tag, _ in (video, source, image)] == ["video", "source", "img"]
    for attribute in ("controls", "muted", "loop", "playsinline"):
        assert attribute in video[1]
    assert "autoplay" not in video[1] and video[1]["preload"] == "metadata"
    assert video[1]["aria-label"] == image[1]["alt"] == ALT
    assert (video[1]["width"], video[1]["height"]) == ("252", "180")
    assert image[1]["src"] == video[1]["poster"]
    for address, kind, data in [
        (video[1]["poster"], "image/png", animation.poster),
        (source[1]["src"], "video/mp4", animation.mp4),
    ]:
        head, body = address.split(",")
        assert head == f"data:{kind};base64" and base64.b64decode(body) == data


def assert_shows_a_gif(animation):
    shown = animation._repr_mimebundle_()
    assert set(shown) == {"image/gif", "text/plain"} and shown["text/plain"] == ALT
    assert base64.b64decode(shown["image/gif"]) == animation.gif


def test_colab_gets_a_gif(plt, monkeypatch):
    animation = levels()
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert_shows_a_gif(animation)


def no_executable():
    raise RuntimeError("No ffmpeg exe could be found.")


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(get_ffmpeg_exe=no_executable)])
def test_without_ffmpeg_there_is_a_gif(plt, monkeypatch, tmp_path, module):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", module)
    animation = levels()
    assert animation.mp4 is None
    assert_shows_a_gif(animation)
    with pytest.raises(RuntimeError, match="pip install imageio-ffmpeg"):
        animation.save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def noise(count=8, **options):
    """What compresses badly: 60 x 60 random pixels, others in each frame."""
    figure, ax = figures.screen(1.5, 1.5, dpi=100)
    rng = np.random.default_rng(0)
    drawn = ax.imshow(np.zeros((60, 60)), vmin=0, vmax=1)
    draw = lambda i: drawn.set_data(rng.random((60, 60)))  # noqa: E731
    return figures.animate(figure, draw, count, alt=ALT, **options)


@needs_ffmpeg
def test_what_is_too_large_loses_quality_first_and_is_refused_then(plt):
    size = len(noise().mp4) / 1000
    for share in (0.9, 0.5):
        assert len(noise(max_kilobytes=share * size).mp4) <= 1000 * share * size
    with pytest.raises(ValueError, match=r"takes \d+ KB .*max_kilobytes=2: make fewer frames"):
        noise(max_kilobytes=2)


def test_files_are_written_whole_or_not_at_all(plt, tmp_path, monkeypatch):
    animation = levels()
    if animation.mp4:
        animation.save(tmp_path / "a.mp4")
        assert (tmp_path / "a.mp4").read_bytes() == animation.mp4
    animation.save(str(tmp_path / "a.gif"))
    assert (tmp_path / "a.gif").read_bytes() == animation.gif
    with pytest.raises(ValueError, match=r"path must end in \.mp4 or \.gif, got .*a\.avi"):
        animation.save(tmp_path / "a.avi")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError("no space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        levels(3).save(tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == animation.gif
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"count": 0}, ValueError, "frames must be at least 1, got 0"),
        ({"count": 2.5}, TypeError, "frames must be a whole number"),
        ({"fps": 0}, ValueError, "fps must be finite and above 0, got 0"),
        ({"alt": "Grey  that\n rises over time"}, ValueError, "alt must say in six words or more"),
        ({"alt": 7}, TypeError, "alt must be a sentence, got 7"),
        ({"still": 6}, ValueError, "still must be one of the 6 frames, got 6"),
        ({"still": -7}, ValueError, "still must be one of the 6 frames, got -7"),
        ({"max_kilobytes": 0}, ValueError, "max_kilobytes must be finite and above 0"),
        ({"size": (0, 2)}, ValueError, "width must be finite and above 0, got 0"),
        ({"size": (2, -1)}, ValueError, "height must be finite and above 0, got -1"),
    ],
)
def test_bad_arguments_are_named(plt, options, error, message):
    with pytest.raises(error, match=message):
        levels(**options)
    assert plt.get_fignums() == []


def test_a_figure_that_no_video_can_show_is_refused(plt):
    figures.use_style()
    with pytest.raises(ValueError, match=r"opaque background.*vae\.figures\.screen"):
        figures.animate(plt.figure(), lambda i: None, 2, alt=ALT)
    with pytest.raises(TypeError, match="figure must be a figure of Matplotlib, got Axes"):
        figures.animate(plt.subplots()[1], lambda i: None, 2, alt=ALT)
    with pytest.raises(TypeError, match="draw must be a function"):
        figures.animate(figures.screen(2, 2)[0], 5, 2, alt=ALT)
    figure, _ = figures.screen(2, 2)
    with pytest.raises(ValueError, match=r"the size of the figure, but draw\(1\) does"):
        figures.animate(figure, lambda i: figure.set_size_inches(2 + i, 2), 2, alt=ALT)


def luminance(color):
    """Relative luminance, as WCAG defines it."""
    from matplotlib.colors import to_rgb

    c = np.array(to_rgb(color))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_the_colours_read_on_a_screen(plt):
    np.testing.assert_allclose(contrast("white", "black"), 21)
    assert contrast(figures.SCREEN_TEXT, figures.SCREEN) >= 7
    for name in ("BLUE", "ORANGE", "GREEN", "PURPLE", "GREY"):
        assert contrast(getattr(figures, name), figures.SCREEN) >= 3, name


@pytest.mark.parametrize("styled", [True, False])
def test_text_on_a_screen_is_light_whenever_it_was_added(plt, styled, tmp_path):
    from matplotlib.colors import to_rgb
    from matplotlib.text import Text

    if styled:
        figures.use_style()
    figure, (left, right) = figures.screen(4, 2, ncols=2)
    assert to_rgb(figure.get_facecolor()) == to_rgb(figures.SCREEN)
    left.plot([0, 1], label="line")
    left.legend()
    left.set(title="before", xlabel="x", ylabel="y")
    figure.colorbar(right.imshow(IMAGES), label="scale")
    figure.suptitle("above")
    blue = right.text(0, 0, "kept", color=figures.BLUE)
    figures.animate(figure, lambda i: left.set(title=f"frame {i}"), 2, alt=ALT)
    texts = [text for text in figure.findobj(Text) if text.get_text() and text is not blue]
    assert {"line", "x", "y", "above", "scale", "frame 1"} <= {text.get_text() for text in texts}
    assert {to_rgb(text.get_color()) for text in texts} == {to_rgb(figures.SCREEN_TEXT)}
    assert blue.get_color() == figures.BLUE
    assert left.get_facecolor()[3] == 0  # the screen shows through
    # A still of it has its background too.
    figure.savefig(tmp_path / "still.png")
    corner = np.asarray(opened((tmp_path / "still.png").read_bytes()).convert("RGBA"))[0, 0]
    np.testing.assert_allclose(corner, [12, 14, 18, 255])
