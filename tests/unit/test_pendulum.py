"""vae.datasets.pendulum: pictures drawn from an angle, and Gymnasium's of the same angle."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae import datasets

KEY = jax.random.key(0)
ANGLES = np.linspace(-np.pi, np.pi, 60, endpoint=False).astype(np.float32)
AS_GYMNASIUM = {"length": 0.45 * 28, "rod_width": 0.09 * 28, "bob_radius": 0.045 * 28}


def angle_of_light(images, size=28):
    """The direction of the middle of mass from the middle of the picture, and its distance."""
    images = np.asarray(images, np.float64).reshape(-1, size, size)
    light = images.sum(axis=(1, 2))
    right = images.sum(axis=1) @ np.arange(size) / light - (size - 1) / 2
    down = images.sum(axis=2) @ np.arange(size) / light - (size - 1) / 2
    return np.arctan2(-right, -down), np.hypot(right, down)


def apart(a, b):
    """The angle between two directions."""
    return abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def test_upright_is_up_and_a_quarter_turn_is_to_the_left():
    up, left, down, right = datasets.draw_pendulum([0, np.pi / 2, np.pi, -np.pi / 2]).reshape(
        4, 28, 28
    )
    # Row 3 is near the top, column 3 near the left end.
    assert up[3, 13] == 1 and up[3, 14] == 1 and up[24].max() == 0
    assert left[13, 3] == 1 and left[14, 3] == 1 and left[:, 24].max() == 0
    np.testing.assert_allclose(up[::-1], down, atol=1e-5)
    np.testing.assert_allclose(left[:, ::-1], right, atol=1e-5)
    np.testing.assert_allclose(up.T, left, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"image_size": 16}, {"image_size": 9}, AS_GYMNASIUM])
def test_the_light_is_where_the_angle_says(options):
    size = options.get("image_size", 28)
    images = datasets.draw_pendulum(ANGLES, **options)
    assert images.shape == (60, size**2) and images.dtype == jnp.float32
    angles, _ = angle_of_light(images, size)
    assert apart(angles, ANGLES).max() < 0.03


def test_the_area_is_that_of_rod_and_bob():
    # With a bob as wide as the rod: a rectangle, and half a disc at each end.
    rod = datasets.draw_pendulum(ANGLES, length=9.0, bob_radius=1.0, rod_width=2.0)
    np.testing.assert_allclose(rod.sum(axis=-1), 9 * 2 + np.pi * 1**2, rtol=0.02)
    # Without much of a rod, the bob alone, its middle `length` from the pivot.
    bob = datasets.draw_pendulum(ANGLES, length=4.0, bob_radius=6.0, rod_width=1.0)
    np.testing.assert_allclose(bob.sum(axis=-1), np.pi * 6**2, rtol=0.02)
    np.testing.assert_allclose(angle_of_light(bob)[1], 4.0, atol=0.05)


def test_the_default_is_thick_and_grows_with_the_picture():
    explicit = datasets.draw_pendulum(ANGLES, length=7.0, bob_radius=5.0, rod_width=4.0)
    np.testing.assert_allclose(datasets.draw_pendulum(ANGLES), explicit, atol=1e-5)
    twice = datasets.draw_pendulum(ANGLES, image_size=56).reshape(60, 28, 2, 28, 2)
    assert abs(twice.mean(axis=(2, 4)).reshape(60, 784) - explicit).max() < 0.2


def test_inside_is_white_outside_is_black_and_the_edge_is_grey():
    image = datasets.draw_pendulum(0.0, image_size=29, length=8.0, bob_radius=3.0, rod_width=4.0)
    image = image.reshape(29, 29)  # the pivot is the middle of pixel [14, 14]
    np.testing.assert_allclose(image[10, 10:19], [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0], atol=1e-5)
    np.testing.assert_allclose(image[6, 10:19], [0, 0.5, 1, 1, 1, 1, 1, 0.5, 0], atol=1e-5)
    np.testing.assert_allclose(image[1:6, 14], [0, 0, 0.5, 1, 1], atol=1e-5)
    np.testing.assert_allclose(image[13:19, 14], [1, 1, 1, 0.5, 0, 0], atol=1e-5)


def test_frames_of_many_films_at_once():
    films = np.random.default_rng(0).uniform(-4, 4, (3, 5)).astype(np.float32)
    images = datasets.draw_pendulum(films, image_size=16)
    assert images.shape == (3, 5, 256)
    alone = datasets.draw_pendulum(films[2, 4], image_size=16)
    assert alone.shape == (256,)
    np.testing.assert_allclose(images[2, 4], alone, atol=1e-6)
    # A whole turn changes nothing.
    turned = datasets.draw_pendulum(films + 2 * np.pi, image_size=16)
    np.testing.assert_allclose(images, turned, atol=1e-4)


@pytest.mark.parametrize("size", [16, 29])  # 29: the pivot is the middle of a pixel
def test_drawing_has_the_slope_of_its_differences(size):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=size**2), jnp.float32)

    def weighted(angle):
        return jnp.sum(weights * datasets.draw_pendulum(angle, image_size=size))

    slope = jax.jit(jax.vmap(jax.grad(weighted)))
    assert np.isfinite(slope(jnp.arange(-4, 5) * jnp.pi / 4)).all()
    # Where a pixel's edge begins there is a kink, so over three arcs the slope is summed up, and
    # compared with the rise from end to end.
    ends = np.array([0.3, 0.6, 0.9, 1.2], np.float32)
    rise = np.diff(jax.vmap(weighted)(ends))
    arcs = jnp.linspace(ends[:-1], ends[1:], 601)
    summed = np.trapezoid(slope(arcs.ravel()).reshape(arcs.shape), arcs, axis=0)
    assert abs(rise).max() > 0.5
    np.testing.assert_allclose(summed, rise, atol=0.01 * abs(rise).max())


def test_states_are_uniform_and_independent():
    made = datasets.pendulum(KEY, 20_000, image_size=8)
    assert len(made) == 20_000 and made.images.shape == (20_000, 64)
    for value in (made.images, made.angles, made.velocities):
        assert isinstance(value, np.ndarray) and value.dtype == np.float32
    assert made.angles.shape == made.velocities.shape == (20_000,)
    assert stats.kstest(made.angles, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    assert stats.kstest(made.velocities, stats.uniform(-8, 16).cdf).pvalue > 1e-3
    assert made.angles.max() < np.pi
    # Also not dependent in a way that a correlation misses: each quarter of angles has all speeds.
    counts = np.histogram2d(made.angles, made.velocities, bins=4)[0]
    assert abs(counts - 1250).max() < 5 * np.sqrt(1250)


def test_a_picture_shows_its_angle():
    made = datasets.pendulum(KEY, 300)
    assert made.images.min() == 0 and made.images.max() == 1
    np.testing.assert_allclose(made.images, datasets.draw_pendulum(made.angles), atol=1e-5)
    assert apart(angle_of_light(made.images)[0], made.angles).max() < 0.03
    np.testing.assert_allclose(np.arctan2(*made.sin_cos.T), made.angles, atol=1e-5)
    assert made.sin_cos.shape == (300, 2)


def test_the_shape_is_passed_on():
    shape = {"image_size": 20, "length": 6.0, "bob_radius": 3.0, "rod_width": 1.5}
    made = datasets.pendulum(KEY, 5, **shape)
    drawn = datasets.draw_pendulum(made.angles, **shape)
    np.testing.assert_allclose(made.images, drawn, atol=1e-5)


def test_noise_is_gaussian_of_that_deviation_on_every_pixel():
    clean, noisy = datasets.pendulum(KEY, 500), datasets.pendulum(KEY, 500, noise=0.1)
    # The states stay the same, whatever the noise.
    np.testing.assert_array_equal(noisy.angles, clean.angles)
    np.testing.assert_array_equal(noisy.velocities, clean.velocities)
    assert noisy.images.dtype == np.float32
    noise = noisy.images - clean.images
    number = noise.size
    assert abs(noise.mean()) < 5 * 0.1 / np.sqrt(number)
    assert abs(noise.std() / 0.1 - 1) < 5 / np.sqrt(2 * number)
    assert stats.kstest(noise.ravel()[::10], stats.norm(0, 0.1).cdf).pvalue > 1e-3
    # Not clipped: below black and above white as often as not.
    assert abs((noisy.images < 0)[clean.images == 0].mean() - 0.5) < 0.01
    assert abs((noisy.images > 1)[clean.images == 1].mean() - 0.5) < 0.01
    # Each pixel and each picture has its own.
    assert abs(np.corrcoef(noise[:, 300:306].T) - np.eye(6)).max() < 5 / np.sqrt(500)
    assert abs(np.corrcoef(noise[:6]) - np.eye(6)).max() < 5 / np.sqrt(784)
    # With the key of the angles, the first 500 numbers would be in the order of the angles.
    for state in (clean.angles, clean.velocities):
        assert abs(stats.spearmanr(noise.ravel()[:500], state).statistic) < 5 / np.sqrt(500)


def test_the_same_key_gives_the_same_pendulums_and_another_key_others():
    a, b, c = (datasets.pendulum(jax.random.key(k), 5, noise=0.2) for k in (1, 1, 2))
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.velocities, b.velocities)
    assert not np.array_equal(a.angles, c.angles)
    assert not np.array_equal(a.velocities, c.velocities)


def test_gymnasiums_pendulum_points_where_ours_does():
    theirs = datasets.gymnasium_pendulum(ANGLES)
    assert theirs.shape == (60, 784) and theirs.dtype == np.float32
    assert theirs.min() == 0 and theirs.max() == 1
    angles, distance = angle_of_light(theirs)
    assert apart(angles, ANGLES).max() < 0.03
    # The middle of a rod that is 0.45 of the picture long, and all of it in the picture.
    np.testing.assert_allclose(distance, 0.45 * 28 / 2, rtol=0.02)
    # Its outlines are painted too, half a pixel of 500 beyond the edge: some four per cent more.
    area = 784 * (0.45 * 0.09 + np.pi * 0.045**2)
    np.testing.assert_allclose(theirs.sum(axis=1), 1.04 * area, rtol=0.05)


def test_gymnasiums_pendulum_is_ours_of_the_same_shape():
    theirs = datasets.gymnasium_pendulum(ANGLES)
    ours = np.asarray(datasets.draw_pendulum(ANGLES, **AS_GYMNASIUM))
    # It places corners on whole pixels of 500, ours does not; both have edges of one pixel.
    assert abs(theirs - ours).mean() < 0.005 and abs(theirs - ours).max() < 0.2


def test_gymnasiums_pendulum_at_other_sizes():
    films = ANGLES[:6].reshape(2, 3)
    small = datasets.gymnasium_pendulum(films, image_size=14)
    assert small.shape == (2, 3, 196)
    # The mean over an area is the mean of the means over its quarters.
    large = datasets.gymnasium_pendulum(films).reshape(2, 3, 14, 2, 14, 2)
    np.testing.assert_allclose(small, large.mean(axis=(3, 5)).reshape(2, 3, 196), atol=1e-5)


def test_gymnasiums_renderer_leaves_everything_as_it_was(monkeypatch):
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "mine")
    monkeypatch.delenv("PYGAME_HIDE_SUPPORT_PROMPT", raising=False)
    before = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datasets.gymnasium_pendulum([0.0])
    assert dict(os.environ) == before
    assert not pygame.get_init() and not pygame.display.get_init()
    # A caller's own display stays open.
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    try:
        datasets.gymnasium_pendulum([0.0])
        assert pygame.display.get_init()
        # So does all else that a caller has started, without a display.
        monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
        pygame.init()
        pygame.display.quit()
        datasets.gymnasium_pendulum([0.0])
        assert pygame.get_init() and not pygame.display.get_init()
    finally:
        pygame.quit()


def test_gymnasiums_renderer_says_nothing():
    code = "from vae import datasets; datasets.gymnasium_pendulum([0.0, 1.0])"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYGAME", "SDL"))}
    run = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"JAX_PLATFORMS": "cpu"},
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", ["gymnasium", "pygame"])
def test_without_gymnasium_the_error_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs {missing}.*gymnasium.classic-control"):
        datasets.gymnasium_pendulum([0.0])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: datasets.pendulum(0, 5), TypeError, "key must be one JAX random key"),
        (lambda: datasets.pendulum(KEY, 0), ValueError, "n must be at least 1"),
        (lambda: datasets.pendulum(KEY, 5, noise=-0.1), ValueError, "noise must be .* got -0.1"),
        (lambda: datasets.pendulum(KEY, 5, noise="0"), TypeError, "noise must be a number"),
        (lambda: datasets.pendulum(KEY, 5, length=10), ValueError, "length 10 .* reaches 15 .* 14"),
        (lambda: datasets.pendulum(KEY, 5, image_size=7), ValueError, "at least 8, got 7"),
        (lambda: drawn(image_size=2.5), TypeError, "image_size must be a whole number"),
        (lambda: drawn(length=0), ValueError, "length must be finite and above 0"),
        (lambda: drawn(bob_radius=0.4), ValueError, "bob_radius at least 0.5, got 0.4"),
        (lambda: drawn(rod_width=0.9), ValueError, "rod_width must be at least 1, got 0.9"),
        (lambda: drawn(length=13.0, bob_radius=1, rod_width=2.5), ValueError, "reaches 14.25"),
        (lambda: drawn(image_size=16, length=5, bob_radius=4), ValueError, "image_size 16: at mo"),
        (lambda: datasets.gymnasium_pendulum([0], image_size=4), ValueError, "at least 8, got 4"),
        (lambda: datasets.gymnasium_pendulum([np.nan]), ValueError, "angles must be finite"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def drawn(**options):
    return datasets.draw_pendulum(ANGLES, **options)
