"""vae.datasets.circles: the pictures are what their factors say; blur: a Gaussian, up to none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from vae import datasets

KEY = jax.random.key(0)


RECORDED_CENTERS = [
    [20.662672, 21.157278],
    [10.816664, 12.998695],
    [14.618219, 8.148048],
    [10.463114, 16.531689],
]
RECORDED_LIGHT = [28927, 28866, 28955, 28784]
SHARP = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 784)), jnp.float32)


def drawn(**options):
    return datasets.draw_circles(jnp.full((4, 2), 9.0), **options)


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


def test_one_radius_is_no_factor():
    made = datasets.circles(KEY, 5, radius=3)
    np.testing.assert_array_equal(made.radii, np.full(5, 3.0))
    assert made.radii.dtype == np.float32 and not made.radius_varies
    np.testing.assert_array_equal(made.factors, made.centers)


def test_the_plain_circles_stay_those_that_were_recorded():
    # Recorded before radii could vary; the chapters that train on circles rest on these.
    made = datasets.circles(jax.random.key(0), 4)
    np.testing.assert_allclose(made.centers, RECORDED_CENTERS, atol=1e-5)
    np.testing.assert_array_equal(made.images.sum(axis=1, dtype=int), RECORDED_LIGHT)


def test_radii_between_two_are_a_third_factor_independent_of_the_place():
    made = datasets.circles(KEY, 20_000, radius=(2.0, 6.0))
    assert made.radius_varies and made.radii.dtype == np.float32
    assert stats.kstest(made.radii, stats.uniform(2, 4).cdf).pvalue > 1e-3
    # The centers keep to the square of the largest circle, whatever their own radius.
    assert made.centers.min() >= 5.5 and made.centers.max() <= 21.5
    for radii in (made.radii < 3, made.radii > 5):
        for place in made.centers[radii].T:
            assert stats.kstest(place, stats.uniform(5.5, 16).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(made.factors[:, :2], made.centers)
    np.testing.assert_array_equal(made.factors[:, 2], made.radii)
    assert made.factors.shape == (20_000, 3)
    assert abs(np.corrcoef(made.factors.T) - np.eye(3)).max() < 5 / np.sqrt(20_000)
    # Nor do the radii use the random numbers of the centers once more, in whatever order.
    shares = (np.sort(made.radii) - 2) / 4, (np.sort(made.centers.ravel()[:20_000]) - 5.5) / 16
    assert abs(shares[0] - shares[1]).max() > 1e-4
    # Each picture has its own radius.
    areas = made.images.sum(axis=1) / 255
    np.testing.assert_allclose(areas, np.pi * made.radii**2, rtol=0.08)
    assert datasets.circles(KEY, 1, radius=(2.0, 6.0)).factors.shape == (1, 3)


def test_a_ring_may_have_a_radius_of_its_own_too():
    made = datasets.circles(KEY, 100, radius=(3.0, 6.0), width=1.5)
    light = made.images.sum(axis=1) / 255
    np.testing.assert_allclose(light, 2 * np.pi * made.radii * 1.5, rtol=0.05)


def test_radii_broadcast_against_the_batch():
    centers = jnp.asarray(np.random.default_rng(0).uniform(6, 20, (4, 3, 2)), jnp.float32)
    radii = jnp.array([2.0, 3.0, 4.0])
    made = datasets.draw_circles(centers, radius=radii)
    assert made.shape == (4, 3, 784)
    for i, radius in enumerate((2.0, 3.0, 4.0)):
        one_by_one = datasets.draw_circles(centers[:, i], radius=radius)
        np.testing.assert_allclose(made[:, i], one_by_one, atol=1e-6)
    growing = datasets.draw_circles(centers[0, 0], radius=radii)
    np.testing.assert_allclose(growing[1], datasets.draw_circles(centers[0, 0], radius=3.0))


def test_drawing_has_the_slope_of_its_differences():
    def light_right(x):
        picture = datasets.draw_circles(jnp.stack([x, jnp.float32(13.3)]))
        return jnp.sum(picture.reshape(28, 28)[:, 14:])

    slope = jax.grad(light_right)(jnp.float32(13.2))
    difference = (light_right(jnp.float32(13.3)) - light_right(jnp.float32(13.1))) / 0.2
    np.testing.assert_allclose(slope, difference, rtol=0.05)


def test_drawing_has_a_slope_in_its_radius():
    # The area of a disc grows by its edge, on average over places between the pixels.
    centers = jnp.asarray(np.random.default_rng(0).uniform(9, 18, (500, 2)), jnp.float32)
    slopes = jax.grad(lambda radii: datasets.draw_circles(centers, radius=radii).sum())(
        jnp.full(500, 5.0)
    )
    assert slopes.shape == (500,)
    np.testing.assert_allclose(slopes.mean(), 2 * np.pi * 5, rtol=0.01)


@pytest.mark.parametrize("std", [1.0, 1.7, 4.0, 15.0])
def test_blur_is_scipys_gaussian_filter(std):
    ours = datasets.blur(SHARP, std).reshape(3, 28, 28)
    for image, blurred in zip(np.asarray(SHARP, np.float64), ours, strict=True):
        theirs = ndimage.gaussian_filter(
            image.reshape(28, 28), std, mode="constant", truncate=40 / std + 6
        )
        np.testing.assert_allclose(blurred, theirs, atol=1e-6)


@pytest.mark.parametrize("std", [0.3, 0.6, 0.95, 1.0, 1.05])
def test_blur_is_scipys_gaussian_filter_where_it_is_narrow(std):
    # Not square in content, so that rows and columns cannot be swapped unseen.
    image = np.zeros((12, 12), np.float32)
    image[3, 5:9] = 1
    theirs = ndimage.gaussian_filter(image.astype(float), std, mode="constant", truncate=20)
    ours = datasets.blur(image.reshape(-1), std, image_size=12)
    assert ours.shape == (144,) and ours.dtype == jnp.float32
    np.testing.assert_allclose(ours.reshape(12, 12), theirs, atol=1e-6)


def test_without_blur_images_come_back_as_they_are():
    np.testing.assert_array_equal(datasets.blur(SHARP, 0.0), SHARP)
    np.testing.assert_array_equal(datasets.blur(SHARP, 0), SHARP)
    np.testing.assert_allclose(datasets.blur(SHARP, 0.1), SHARP, atol=1e-6)


def test_blur_keeps_light_away_from_the_border_and_loses_it_there():
    dot = jnp.zeros((2, 28, 28)).at[0, 13, 14].set(1.0).at[1, 0, 14].set(1.0).reshape(2, 784)
    middle, border = datasets.blur(dot, 2.0).sum(axis=-1)
    np.testing.assert_allclose(middle, 1, atol=1e-5)
    # What is left of a dot on the border: its own row, and one half of all others.
    own_row = 1 / np.sqrt(2 * np.pi * 4)
    np.testing.assert_allclose(border, (1 + own_row) / 2, atol=1e-5)


def test_blur_may_change_within_compiled_code_and_has_a_slope_everywhere():
    def light(std, images=SHARP):
        return jnp.sum(jnp.square(datasets.blur(images, std)))

    compiled, slope = jax.jit(light), jax.jit(jax.grad(light))
    for std in (0.0, 0.5, 0.9, 1.0, 1.1, 3.0):
        np.testing.assert_allclose(compiled(std), light(std), rtol=1e-5)
        assert np.isfinite(slope(std)), std
    assert slope(0.0) == 0
    # From below and from above 1, where the sum over the weights is computed another way.
    for std in (0.6, 0.99, 1.01, 2.5):
        difference = (light(std + 0.005) - light(std - 0.005)) / 0.01
        np.testing.assert_allclose(slope(std), difference, rtol=0.02)
    to_images = jax.grad(lambda images: light(0.0, images))(SHARP)
    np.testing.assert_allclose(to_images, 2 * SHARP, rtol=1e-6)


def test_blur_takes_any_leading_axes():
    both = datasets.blur(SHARP.reshape(3, 1, 784), 1.5)
    assert both.shape == (3, 1, 784)
    np.testing.assert_allclose(both[1, 0], datasets.blur(SHARP[1], 1.5), atol=1e-6)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: datasets.circles(0, 5), TypeError, "key must be one JAX random key"),
        (lambda: datasets.circles(KEY, 0), ValueError, "n must be at least 1"),
        (lambda: datasets.circles(KEY, 5, radius=-1.0), ValueError, "radius must be finite"),
        (lambda: datasets.circles(KEY, 5, radius=15.0), ValueError, "does not fit 28 x 28"),
        (lambda: datasets.circles(KEY, 5, radius=13.5, width=2.0), ValueError, "reaches 14.5"),
        (lambda: datasets.circles(KEY, 5, width=0.0), ValueError, "width must be finite"),
        (lambda: datasets.circles(KEY, 5, radius=(2, 15)), ValueError, "reaches 15 pixels"),
        (lambda: datasets.circles(KEY, 5, radius=(4, 2)), ValueError, "with low below high"),
        (lambda: datasets.circles(KEY, 5, radius=(0, 2)), ValueError, "radius must be finite and"),
        (lambda: datasets.circles(KEY, 5, radius=(2, 3, 4)), ValueError, "number or a pair"),
        (lambda: datasets.circles(KEY, 5, radius="6"), ValueError, "number or a pair"),
        (lambda: datasets.circles(KEY, 5, radius=("2", "x")), TypeError, "radius must be a number"),
        (lambda: datasets.circles(KEY, 5, radius=1, image_size=5), ValueError, "at least 8, got 5"),
        (lambda: datasets.draw_circles(jnp.zeros(2), image_size=7), ValueError, "at least 8"),
        (lambda: drawn(radius=jnp.ones(3)), ValueError, r"\(3,\) does not broadcast .* \(4,\)"),
        (lambda: drawn(radius=jnp.zeros(4)), ValueError, "radius must be finite and above 0"),
        (lambda: drawn(radius=jnp.full(4, jnp.nan)), ValueError, "radius must be finite and"),
        (lambda: drawn(radius="6"), TypeError, "radius must be a number or an array"),
        (lambda: drawn(radius=jnp.ones(4), width=-1.0), ValueError, "width must be finite"),
        (lambda: datasets.blur(SHARP[:, :9], 1.0), ValueError, "images must have a last dim.* 784"),
        (lambda: datasets.blur(SHARP, 1.0, image_size=0), ValueError, "image_size must be at"),
        (lambda: datasets.blur(SHARP, -1.0), ValueError, "std must be finite and at least 0"),
        (lambda: datasets.blur(SHARP, "1"), TypeError, "std must be a number"),
        (lambda: datasets.blur(jnp.ones((1, 784), jnp.uint8), 1.0), TypeError, "divide intens"),
        (lambda: datasets.draw_circles(jnp.zeros((4, 3))), ValueError, "last dimension of 2"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
