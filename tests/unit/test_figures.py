"""vae.figures: images laid out in grids."""

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
