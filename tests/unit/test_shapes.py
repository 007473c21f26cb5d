"""vae.datasets.circles: the pictures are what their centers say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae import datasets

KEY = jax.random.key(0)


def middle_of_mass(images, size):
    """The mean position of the light, (n, 2), as (x, y)."""
    images = np.asarray(images, np.float64).reshape(-1, size, size)
    light = images.sum(axis=(1, 2))
    x = (images.sum(axis=1) @ np.arange(size)) / light
    y = (images.sum(axis=2) @ np.arange(size)) / light
    return np.stack([x, y], axis=-1)


@pytest.mark.parametrize("options", [{}, {"radius": 3.0}, {"width": 1.5}, {"image_size": 20}])
def test_the_light_is_around_the_center(options):
    made = datasets.circles(KEY, 200, **options)
    size = options.get("image_size", 28)
    assert made.images.shape == (200, size**2) and made.images.dtype == np.uint8
    assert made.centers.shape == (200, 2) and len(made) == 200
    np.testing.assert_allclose(middle_of_mass(made.images, size), made.centers, atol=0.1)


def test_the_area_is_that_of_a_disc_and_of_a_ring():
    disc, ring = datasets.circles(KEY, 100), datasets.circles(KEY, 100, width=1.5)
    np.testing.assert_allclose(disc.images.sum(axis=1) / 255, np.pi * 6**2, rtol=0.02)
    np.testing.assert_allclose(ring.images.sum(axis=1) / 255, 2 * np.pi * 6 * 1.5, rtol=0.03)


def test_inside_is_white_outside_is_black_and_the_edge_is_grey():
    (image,) = datasets.draw_circles(jnp.array([[10.0, 14.0]]), radius=4.0)
    image = image.reshape(28, 28)  # rows are y
    assert image[14, 10] == 1 and image[14, 13] == 1 and image[14, 15] == 0 and image[19, 10] == 0
    np.testing.assert_allclose(image[14, 14], 0.5, atol=1e-6)
    assert image[10, 20] == 0


def test_centers_are_uniform_where_the_whole_circle_fits():
    made = datasets.circles(KEY, 20_000, radius=6.0)
    low, high = 5.5, 21.5
    assert made.centers.min() >= low and made.centers.max() <= high
    assert made.centers.min() < low + 0.01 and made.centers.max() > high - 0.01
    counts = np.histogram2d(*made.centers.T, bins=4)[0]
    assert abs(counts - 1250).max() < 5 * np.sqrt(1250)  # five standard deviations
    frames = made.images.reshape(-1, 28, 28)
    # No light on the outermost line: nothing was cut off.
    areas = frames.sum(axis=(1, 2)) / 255
    np.testing.assert_allclose(areas, np.pi * 36, rtol=0.02)


def test_the_same_key_gives_the_same_circles_and_another_key_others():
    a, b, c = (datasets.circles(jax.random.key(k), 5) for k in (1, 1, 2))
    np.testing.assert_array_equal(a.images, b.images)
    assert not np.array_equal(a.centers, c.centers)


def test_drawing_has_the_slope_of_its_differences():
    def light_right(x):
        picture = datasets.draw_circles(jnp.stack([x, jnp.float32(13.3)]))
        return jnp.sum(picture.reshape(28, 28)[:, 14:])

    slope = jax.grad(light_right)(jnp.float32(13.2))
    difference = (light_right(jnp.float32(13.3)) - light_right(jnp.float32(13.1))) / 0.2
    np.testing.assert_allclose(slope, difference, rtol=0.05)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: datasets.circles(0, 5), TypeError, "key must be one JAX random key"),
        (lambda: datasets.circles(KEY, 0), ValueError, "n must be at least 1"),
        (lambda: datasets.circles(KEY, 5, radius=-1.0), ValueError, "radius must be finite"),
        (lambda: datasets.circles(KEY, 5, radius=15.0), ValueError, "does not fit 28 x 28"),
        (lambda: datasets.circles(KEY, 5, radius=13.5, width=2.0), ValueError, "reaches 14.5"),
        (lambda: datasets.circles(KEY, 5, width=0.0), ValueError, "width must be finite"),
        (lambda: datasets.draw_circles(jnp.zeros((4, 3))), ValueError, "last dimension of 2"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
