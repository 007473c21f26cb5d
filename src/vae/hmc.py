"""Hamiltonian Monte Carlo: samples of a density known up to a constant, many chains at once.

Pure functions of arrays. A `log_density` maps positions (..., dim) to log-values (...,) in nats;
every leading index is a chain of its own, which accepts or rejects for itself. Call them within
`jax.jit`: outside of it, every call compiles its loop anew.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae import checks

JITTER = 0.2  # by which step sizes vary, either way, where chains have to forget (`hmc_step`)

LogDensity = Callable[[jax.Array], jax.Array]


class Point(NamedTuple):
    """Positions (..., dim) with the log-density (...,) and its gradient (..., dim) there."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array


class Chains(NamedTuple):
    """What `hmc_chains` drew: positions (num_samples, ..., dim), the rest (num_samples, ...).

    `log_density` belongs to the positions; `acceptance` is the probability with which each was
    accepted, in [0, 1], whether or not it then was.
    """

    position: jax.Array
    log_density: jax.Array
    acceptance: jax.Array


def evaluate_at(log_density: LogDensity, position: jax.Array) -> Point:
    """The log-density of every chain, and its gradient, from one forward and one backward pass.

    Raises ValueError unless log_density maps (..., dim) to (...,).
    """
    checks.float_array("position", position)
    value, pullback = jax.vjp(log_density, position)
    if value.shape != position.shape[:-1]:
        raise ValueError(
            f"log_density must map shape {position.shape} to {position.shape[:-1]}, one value per "
            f"chain, got {value.shape}"
        )
    (gradient,) = pullback(jnp.ones_like(value))
    return Point(position, value, gradient)


def leapfrog(
    log_density: LogDensity, point: Point, momentum: jax.Array, step_size, num_steps: int
) -> tuple[Point, jax.Array]:
    """Follow Hamilton's equations for num_steps steps: (the point reached, the momentum there).

    Reversible (from the end with the momentum turned round it leads back) and volume-preserving;
    the energy -log_density + |momentum|^2 / 2 is kept up to O(step_size^2). Costs one gradient per
    step. Shapes: momentum (..., dim); step_size a number or (...,), one per chain.
    Derived in book/reproducing/evidence.md, equation `eq-leapfrog`; Neal 2011, Section 2.3.
    """
    step_size = jnp.asarray(step_size)[..., None]

    def step(state, _):
        point, momentum = state
        momentum = momentum + 0.5 * step_size * point.gradient
        point = evaluate_at(log_density, point.position + step_size * momentum)
        momentum = momentum + 0.5 * step_size * point.gradient
        return (point, momentum), None

    return jax.lax.scan(step, (point, momentum), length=num_steps)[0]


def hmc_step(
    log_density: LogDensity,
    point: Point,
    key: jax.Array,
    step_size,
    num_leapfrog: int,
    jitter: float = 0.0,
) -> tuple[Point, jax.Array]:
    """One transition of every chain: (the next points, the probability of acceptance (...,)).

    Draws a new momentum, follows it for num_leapfrog steps and accepts the end, each chain for
    itself, with probability min(1, exp(energy before - energy after)); the density is left
    invariant. An end where the density is no number is rejected, with acceptance 0.

    Args:
      point: from `evaluate_at` or an earlier step of the same density. Where the density has
        changed since, evaluate anew.
      step_size: a number, or (...,), one per chain.
      jitter: multiplies the step size of each chain by a draw of U(1 - jitter, 1 + jitter). On a
        near-Gaussian density a fixed one may lead every trajectory round, back to its start.

    Derived in book/reproducing/evidence.md, equation `eq-hmc`; Neal 2011, Sections 3.2 and 4.2.
    """
    momentum_key, jitter_key, accept_key = jax.random.split(key, 3)
    shape, dtype = point.log_density.shape, point.log_density.dtype
    momentum = jax.random.normal(momentum_key, point.position.shape, dtype)
    if jitter:
        step_size *= jax.random.uniform(jitter_key, shape, dtype, 1 - jitter, 1 + jitter)
    end, end_momentum = leapfrog(log_density, point, momentum, step_size, num_leapfrog)

    log_ratio = end.log_density - 0.5 * jnp.sum(end_momentum**2, axis=-1)
    log_ratio -= point.log_density - 0.5 * jnp.sum(momentum**2, axis=-1)
    acceptance = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    accepted = jax.random.uniform(accept_key, shape, dtype) < acceptance
    chosen = Point(
        jnp.where(accepted[..., None], end.position, point.position),
        jnp.where(accepted, end.log_density, point.log_density),
        jnp.where(accepted[..., None], end.gradient, point.gradient),
    )
    return chosen, acceptance


def adapt_step_size(step_size, acceptance, target: float, rate=0.1):
    """A larger step size where acceptance was above the target, a smaller one where below.

    Multiplies by exp(rate * (acceptance - target)). A chain that keeps adapting no longer leaves
    its density exactly invariant: adapt while warming up, or while the density changes anyway.
    Used in book/reproducing/evidence.md, equation `eq-adapt`; Andrieu & Thoms 2008, Section 4.2.
    """
    return step_size * jnp.exp(rate * (acceptance - target))


def hmc_warm_up(
    log_density: LogDensity,
    position: jax.Array,
    key: jax.Array,
    num_steps: int,
    *,
    num_leapfrog: int,
    step_size: float = 1.0,
    target_acceptance: float = 0.9,
    jitter: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Move every chain num_steps transitions on, adapting its step size: (positions, step sizes).

    Start from a step size that is too large rather than too small: one rejection shrinks it more
    than many acceptances let it grow. The rate of `adapt_step_size` falls as 1 / sqrt(transitions).
    Shapes: position (..., dim); the step sizes are (...,), one per chain, each the geometric mean
    over the second half.
    """
    num_steps = checks.positive_int("num_steps", num_steps)
    num_leapfrog = checks.positive_int("num_leapfrog", num_leapfrog)
    checks.positive_float("step_size", step_size)

    def step(state, now):
        (point, step_size), (number, key) = state, now
        point, acceptance = hmc_step(log_density, point, key, step_size, num_leapfrog, jitter)
        rate = jax.lax.rsqrt(number)
        step_size = adapt_step_size(step_size, acceptance, target_acceptance, rate)
        return (point, step_size), jnp.log(step_size)

    point = evaluate_at(log_density, position)
    start = point, jnp.full_like(point.log_density, step_size)
    numbers = jnp.arange(1, num_steps + 1, dtype=position.dtype)
    (point, _), logs = jax.lax.scan(step, start, (numbers, jax.random.split(key, num_steps)))
    return point.position, jnp.exp(jnp.mean(logs[num_steps // 2 :], axis=0))


def hmc_chains(
    log_density: LogDensity,
    position: jax.Array,
    key: jax.Array,
    num_samples: int,
    *,
    num_leapfrog: int,
    step_size,
    jitter: float = 0.0,
) -> Chains:
    """num_samples transitions of every chain from `position` (..., dim) on, at a fixed step size.

    The positions follow one another, so they are correlated; the first ones still remember the
    start. Raises ValueError if num_samples or num_leapfrog is below 1.
    """
    num_samples = checks.positive_int("num_samples", num_samples)
    num_leapfrog = checks.positive_int("num_leapfrog", num_leapfrog)

    def step(point, key):
        point, acceptance = hmc_step(log_density, point, key, step_size, num_leapfrog, jitter)
        return point, Chains(point.position, point.log_density, acceptance)

    start = evaluate_at(log_density, position)
    return jax.lax.scan(step, start, jax.random.split(key, num_samples))[1]
