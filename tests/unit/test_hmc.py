"""vae.hmc: the integrator, the acceptance, the densities that chains settle into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unit_helpers import standard_error

from vae import hmc

KEY = jax.random.key(11)
COVARIANCE = np.array([[1.0, 0.8], [0.8, 2.0]])
PRECISION = np.linalg.inv(COVARIANCE)


def gaussian(z):
    """N(0, COVARIANCE), up to a constant."""
    return -0.5 * jnp.einsum("...i,ij,...j->...", z, jnp.asarray(PRECISION, z.dtype), z)


def banana(z):
    """Bent and skewed: z1 is about z0^2."""
    return -0.5 * z[..., 0] ** 2 - 2 * (z[..., 1] - 0.5 * z[..., 0] ** 2) ** 2


def double_well(z):
    """Two unequal modes near -1 and 1, with enough between them for chains to cross."""
    z = z[..., 0]
    return -((z**2 - 1) ** 2) + 0.4 * z


def quadrature(function, log_density):
    """The mean of function(z) under a density of one dimension, by a fine sum."""
    grid = np.linspace(-4, 4, 20_001)
    weights = np.exp(np.asarray(log_density(jnp.asarray(grid[:, None])), np.float64))
    return np.sum(function(grid) * weights) / np.sum(weights)


def exact_double_well(n):
    """Draws of `double_well` by inverting its distribution function."""
    grid = np.linspace(-4, 4, 20_001)
    density = np.exp(np.asarray(double_well(jnp.asarray(grid[:, None])), np.float64))
    uniforms = np.random.default_rng(0).uniform(size=n)
    return np.interp(uniforms, np.cumsum(density) / density.sum(), grid)


def energy(point, momentum):
    return np.asarray(-point.log_density + 0.5 * jnp.sum(momentum**2, axis=-1), np.float64)


def start_of(log_density, n=64, dim=2):
    position, momentum = jax.random.normal(KEY, (2, n, dim))
    return hmc.evaluate_at(log_density, position), momentum


# The integrator


def test_a_point_knows_the_density_and_its_gradient():
    point, _ = start_of(gaussian)
    z = np.asarray(point.position, np.float64)
    np.testing.assert_allclose(
        point.log_density, -0.5 * np.sum(z @ PRECISION * z, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(point.gradient, -z @ PRECISION, rtol=1e-4, atol=1e-5)


def test_leapfrog_takes_the_steps_of_the_textbook():
    """Half a kick, then drifts and whole kicks in turn, and half a kick: in float64 by hand."""
    point, momentum = start_of(gaussian)
    end, end_momentum = hmc.leapfrog(gaussian, point, momentum, 0.3, 5)
    z, p = np.asarray(point.position, np.float64), np.asarray(momentum, np.float64)
    p = p - 0.15 * z @ PRECISION
    for i in range(5):
        z = z + 0.3 * p
        p = p - (0.15 if i == 4 else 0.3) * z @ PRECISION
    np.testing.assert_allclose(end.position, z, atol=1e-5)
    np.testing.assert_allclose(end_momentum, p, atol=1e-5)


@pytest.mark.parametrize("log_density", [gaussian, banana])
def test_leapfrog_leads_back_when_the_momentum_is_turned_round(log_density):
    point, momentum = start_of(log_density)
    end, end_momentum = hmc.leapfrog(log_density, point, momentum, 0.1, 20)
    assert np.abs(end.position - point.position).max() > 0.5
    back, back_momentum = hmc.leapfrog(log_density, end, -end_momentum, 0.1, 20)
    # Forty steps in float32, on a banana that stretches what it bends.
    np.testing.assert_allclose(back.position, point.position, atol=1e-3)
    np.testing.assert_allclose(-back_momentum, momentum, atol=1e-3)


def test_the_energy_error_falls_with_the_square_of_the_step():
    point, momentum = start_of(banana)
    errors = []
    for num_steps in (20, 40, 80):
        end = hmc.leapfrog(banana, point, momentum, 1 / num_steps, num_steps)
        errors.append(np.sqrt(np.mean((energy(*end) - energy(point, momentum)) ** 2)))
    ratios = np.divide(errors[:-1], errors[1:])
    # 4 in the limit; an integrator of first order halves its error.
    assert (ratios > 3.5).all() and (ratios < 4.6).all(), ratios


def test_every_chain_may_have_a_step_size_of_its_own():
    point, momentum = start_of(gaussian, n=3)
    sizes = jnp.array([0.1, 0.0, 0.4])
    end, end_momentum = hmc.leapfrog(gaussian, point, momentum, sizes, 3)
    for i, size in enumerate([0.1, 0.0, 0.4]):
        one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], (point, momentum))
        alone, alone_momentum = hmc.leapfrog(gaussian, *one, size, 3)
        np.testing.assert_allclose(end.position[i], alone.position[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(end_momentum[i], alone_momentum[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(end.position[1], point.position[1])


# One transition


@pytest.mark.parametrize(("jitter", "step_size"), [(0.0, 0.4), (0.3, 0.4)])
def test_a_transition_leaves_the_density_as_it_is(jitter, step_size):
    """From exact draws to exact draws, at a step size where rejections matter."""
    n = 40_000
    z = exact_double_well(n)
    point = hmc.evaluate_at(double_well, jnp.asarray(z[:, None], jnp.float32))
    moved, acceptance = hmc.hmc_step(double_well, point, KEY, step_size, 3, jitter)
    assert 0.6 < acceptance.mean() < 0.95
    after = np.asarray(moved.position[:, 0], np.float64)
    assert np.corrcoef(z, after)[0, 1] < 0.9  # it does move
    for function in (np.positive, np.square, lambda z: z**4, lambda z: z > 0.5):
        values = function(after).astype(np.float64)
        exact = quadrature(function, double_well)
        assert abs(values.mean() - exact) < 5 * standard_error(values)


def test_the_acceptance_is_the_probability_of_moving():
    n = 20_000
    point = hmc.evaluate_at(gaussian, jnp.ones((n, 2)))
    moved, acceptance = hmc.hmc_step(gaussian, point, KEY, 1.35, 2)
    stays = (moved.position == point.position).all(axis=1)
    assert 0.3 < acceptance.mean() < 0.9 and acceptance.min() > 0 and acceptance.max() == 1
    # A Bernoulli draw around each probability: a standard error of at most 0.5 / sqrt(n).
    assert abs((1 - stays).mean() - acceptance.mean()) < 5 * 0.5 / np.sqrt(n)
    assert stays[acceptance == 1].sum() == 0
    # Rarely accepted, rarely moved.
    low = acceptance < 0.3
    assert abs((1 - stays)[low].mean() - acceptance[low].mean()) < 5 * 0.5 / np.sqrt(low.sum())


def test_a_tiny_step_is_accepted_and_a_huge_one_is_not():
    point = hmc.evaluate_at(gaussian, jnp.ones((100, 2)))
    moved, acceptance = hmc.hmc_step(gaussian, point, KEY, 1e-3, 3)
    assert acceptance.min() > 0.999 and (moved.position != point.position).all()
    moved, acceptance = hmc.hmc_step(gaussian, point, KEY, 50.0, 3)
    assert acceptance.max() < 1e-6
    for a, b in zip(moved, point, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_moves_brings_its_density_and_gradient_along():
    point = hmc.evaluate_at(banana, jax.random.normal(KEY, (500, 2)))
    moved, acceptance = hmc.hmc_step(banana, point, jax.random.key(1), 0.6, 3)
    assert 0.2 < acceptance.mean() < 0.9  # some moved, some stayed
    again = hmc.evaluate_at(banana, moved.position)
    np.testing.assert_allclose(moved.log_density, again.log_density, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved.gradient, again.gradient, rtol=1e-4, atol=1e-4)


def test_an_end_where_the_density_is_no_number_is_rejected():
    def positive_only(z):
        return jnp.sum(jnp.log(z) - z, axis=-1)  # a Gamma density; NaN below 0

    point = hmc.evaluate_at(positive_only, jnp.full((1000, 1), 0.1))
    moved, acceptance = hmc.hmc_step(positive_only, point, KEY, 0.5, 3)
    assert (moved.position > 0).all() and np.isfinite(acceptance).all()
    stayed = (moved.position == point.position)[:, 0]
    assert (acceptance[stayed] < 1).all() and 0.1 < stayed.mean() < 0.9


def test_jitter_opens_trajectories_that_close_upon_themselves():
    def normal(z):
        return -0.5 * jnp.sum(z**2, axis=-1)

    # At a step of sqrt(2) standard deviations leapfrog turns by exactly a quarter: four lead home.
    point = hmc.evaluate_at(normal, jnp.full((2000, 1), 1.5))
    home, _ = hmc.hmc_step(normal, point, KEY, np.sqrt(2), 4)
    np.testing.assert_allclose(home.position, 1.5, atol=1e-4)
    away, _ = hmc.hmc_step(normal, point, KEY, np.sqrt(2), 4, 0.2)
    assert np.std(away.position) > 0.3


# Chains


def test_chains_reach_a_correlated_gaussian_from_afar():
    chains = hmc.hmc_chains(
        gaussian, jnp.full((400, 2), 5.0), KEY, 300, num_leapfrog=5, step_size=0.4
    )
    assert chains.position.shape == (300, 400, 2)
    assert chains.log_density.shape == chains.acceptance.shape == (300, 400)
    kept = np.asarray(chains.position[50:], np.float64)
    means, squares = kept.mean(axis=0), np.einsum("tci,tcj->cij", kept, kept) / len(kept)
    # Every chain is an independent estimate; five standard errors over the chains.
    for ours, exact in ((means, 0), (squares, COVARIANCE)):
        error = ours.std(axis=0, ddof=1) / np.sqrt(400)
        assert error.max() < 0.05
        assert (np.abs(ours.mean(axis=0) - exact) < 5 * error).all()
    # Each covers the whole plane for itself: its momentum is drawn anew every time.
    assert (means.std(axis=0) < 0.35).all()
    values = np.asarray(gaussian(chains.position))
    np.testing.assert_allclose(chains.log_density, values, rtol=1e-4, atol=1e-4)


def test_chains_reach_a_density_that_is_no_gaussian():
    chains = hmc.hmc_chains(
        double_well, jnp.full((500, 1), -1.0), KEY, 400, num_leapfrog=8, step_size=0.25
    )
    kept = np.asarray(chains.position[100:, :, 0], np.float64)
    for function in (np.positive, np.square, lambda z: z > 0):
        ours = function(kept).astype(np.float64).mean(axis=0)
        assert standard_error(ours) < 0.02
        assert abs(ours.mean() - quadrature(function, double_well)) < 5 * standard_error(ours)


def test_chains_from_one_start_part_and_a_key_repeats_them():
    @jax.jit
    def run(key):
        start = jnp.zeros((50, 2))
        return hmc.hmc_chains(gaussian, start, key, 3, num_leapfrog=2, step_size=0.5).position

    first = run(KEY)
    assert len(np.unique(first[-1], axis=0)) == 50
    steps = np.diff(np.asarray(first), axis=0)
    assert abs(np.corrcoef(steps[0].ravel(), steps[1].ravel())[0, 1]) < 0.9
    np.testing.assert_array_equal(run(KEY), first)
    assert (run(jax.random.key(12)) != first).any()


# Step sizes


def test_a_step_size_grows_where_more_was_accepted_than_wanted():
    sizes = hmc.adapt_step_size(jnp.array([0.5, 0.5, 0.5]), jnp.array([1.0, 0.9, 0.0]), 0.9, 0.5)
    np.testing.assert_allclose(sizes, 0.5 * np.exp([0.05, 0, -0.45]), rtol=1e-6)


@pytest.mark.parametrize("target", [0.65, 0.9])
def test_a_warm_up_finds_the_step_size_of_the_target_for_each_chain(target):
    scales = jnp.repeat(jnp.array([0.03, 0.3, 2.0]), 200)

    def scaled(z):
        return -0.5 * jnp.sum((z / scales[:, None]) ** 2, axis=-1)

    position, sizes = hmc.hmc_warm_up(
        scaled, 3 * scales[:, None] * jnp.ones(4), KEY, 200, num_leapfrog=4,
        target_acceptance=target, jitter=0.2,
    )  # fmt: skip
    chains = hmc.hmc_chains(
        scaled, position, jax.random.key(1), 50, num_leapfrog=4, step_size=sizes, jitter=0.2
    )
    accepted = np.asarray(chains.acceptance).mean(axis=0).reshape(3, 200).mean(axis=1)
    np.testing.assert_allclose(accepted, target, atol=0.04)
    ratios = np.median(np.reshape(sizes / scales, (3, 200)), axis=1)
    np.testing.assert_allclose(ratios, ratios[1], rtol=0.15)
    # The chains moved while they adapted: from three standard deviations out to within reach.
    spread = np.sqrt(np.mean((position / scales[:, None]) ** 2))
    assert 0.8 < spread < 1.2


# Bad input


def test_a_density_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"log_density must map shape \(3, 2\) to \(3,\)"):
        hmc.evaluate_at(lambda z: jnp.sum(z**2), jnp.ones((3, 2)))
    with pytest.raises(TypeError, match="position must hold floating-point"):
        hmc.evaluate_at(gaussian, jnp.ones((3, 2), int))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_samples", 0, ValueError),
        ("num_leapfrog", 0, ValueError),
        ("num_leapfrog", 2.5, TypeError),
    ],
)
def test_numbers_below_one_are_refused(name, value, error):
    options = {"num_samples": 2, "num_leapfrog": 2, "step_size": 0.1} | {name: value}
    with pytest.raises(error, match=f"{name} must be"):
        hmc.hmc_chains(gaussian, jnp.ones((3, 2)), KEY, **options)
    if name == "num_leapfrog":
        with pytest.raises(error, match=f"{name} must be"):
            hmc.hmc_warm_up(gaussian, jnp.ones((3, 2)), KEY, 2, num_leapfrog=value)
