"""Estimates of log p(x) that check one another, and what the gap below it is made of.

Importance sampling leans on the encoder and is low on average. Annealed importance sampling and the
estimator of Kingma & Welling's Figure 3 need no encoder: they follow the posterior by Hamiltonian
Monte Carlo. The best Gaussian for each example splits the gap between log p(x) and the ELBO.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vae import checks, hmc
from vae.distributions import gaussian_kl, gaussian_log_prob, reparameterize
from vae.evaluation.bounds import check_bounded
from vae.model import Bernoulli

SHARPNESS = 4.0  # of the sigmoid that spaces the temperatures: most of them lie near 0 and 1
LEAST_VARIANCE = 1e-8  # keeps a covariance invertible where a chain accepted nothing
# Among 256, some chains on MNIST began at a wrong peak and stayed: book/reproducing/evidence.md.
MANY_STARTS, STARTS_AT_ONCE = 65_536, 8192
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Evidence(NamedTuple):
    """Estimates of log p(x) in nats, and their standard errors by the delta method.

    An estimate is the logarithm of a mean, so its error is the standard error of that mean divided
    by the mean. It is trustworthy where it is well below 1: a mean that hangs on a few rare large
    terms does not know how much it lacks. Both arrays are (batch,), or (len(num_samples), batch)
    from `importance_sampling`.
    Derived in book/reproducing/evidence.md, equation `eq-delta-error`.
    """

    log_evidence: jax.Array
    standard_error: jax.Array


class ChainEvidence(NamedTuple):
    """`Evidence`, with the mean acceptance of the chains behind it; each (batch,).

    Used in book/reproducing/evidence.md, equation `eq-hmc`.
    """

    log_evidence: jax.Array
    standard_error: jax.Array
    acceptance: jax.Array


def importance_sampling(
    model, x: jax.Array, key: jax.Array, num_samples: Sequence[int] = COUNTS
) -> Evidence:
    """log p(x) by importance sampling with q(z|x), after each of several numbers of samples.

    One sequence of weights p(x, z) / q(z|x) serves all: the estimate after k samples is the log of
    the mean of the first k, so its expectation climbs with k towards log p(x). Memory does not
    grow with the number of samples.
    Shapes: x (batch, data_dim) in floating point, num_samples increasing; returns arrays
    (len(num_samples), batch), the standard error after one sample being NaN. Raises TypeError or
    ValueError where x does not fit the model, or num_samples does not increase.
    Derived in book/foundations/elbo.md, equation `eq-iwae`; Burda et al. 2015, Section 5.
    """
    _check(model, x, key)
    counts = [checks.positive_int("num_samples", count) for count in num_samples]
    if not counts or any(a >= b for a, b in itertools.pairwise(counts)):
        raise ValueError(f"num_samples must be increasing numbers, got {list(num_samples)}")
    return _importance_sampling(*nnx.split(model), x, key, jnp.array([0, *counts]))


@functools.partial(jax.jit, static_argnums=0)
def _importance_sampling(graphdef, state, x, key, counts):
    model = nnx.merge(graphdef, state)
    mean, log_var = model.encode(x)

    def add_weight(i, sums):
        """Sums of weights and of their squares, in units of the largest weight yet."""
        largest, total, squares = sums
        z = reparameterize(jax.random.fold_in(key, i), mean, log_var)
        log_weight = model.log_likelihood(x, z) + model.log_prior(z)
        log_weight -= gaussian_log_prob(z, mean, log_var)
        new = jnp.maximum(largest, log_weight)
        old, weight = jnp.exp(largest - new), jnp.exp(log_weight - new)
        return new, total * old + weight, squares * old**2 + weight**2

    def up_to(sums, interval):
        first, n = interval
        sums = jax.lax.fori_loop(first, n, add_weight, sums)
        largest, total, squares = sums
        # The squared standard error of the mean over the squared mean, (E w^2 / E^2 w - 1)/(n - 1).
        relative = (squares * n / total**2 - 1) / (n - 1)
        return sums, Evidence(largest + jnp.log(total / n), jnp.sqrt(relative))

    start = jnp.full(len(x), -jnp.inf, mean.dtype), *jnp.zeros((2, len(x)), mean.dtype)
    return jax.lax.scan(up_to, start, (counts[:-1], counts[1:]))[1]


def annealed_importance_sampling(
    model,
    x: jax.Array,
    key: jax.Array,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    step_size: float = 1.0,
    target_acceptance: float = 0.65,
) -> ChainEvidence:
    """log p(x) by annealed importance sampling, from the prior to the posterior; no encoder.

    Each chain starts at a draw of the prior and takes one HMC transition at each of the densities
    p(z) p(x|z)^beta, beta rising from 0 to 1; the mean of the chains' weights has the expectation
    p(x), so the estimate is low on average, less so with more temperatures. The step sizes, one
    for each example and temperature, come from a first pass with one chain each, whose weights are
    not used: chains that adapted themselves would spoil the expectation.
    Shapes: x (batch, data_dim) in floating point; returns (batch,) each, in nats. num_chains *
    batch decoder outputs are held at a time. Raises TypeError or ValueError where x does not fit
    the model or a number is below 1.
    Derived in book/reproducing/evidence.md, equation `eq-ais`; Neal 2001; Wu et al. 2017.
    """
    _check(model, x, key)
    settings = (
        checks.positive_int("num_temperatures", num_temperatures),
        checks.positive_int("num_chains", num_chains),
        checks.positive_int("num_leapfrog", num_leapfrog),
        checks.positive_float("step_size", step_size),
        checks.positive_float("target_acceptance", target_acceptance),
    )
    graphdef, state = nnx.split(model)
    return _annealed_importance_sampling((graphdef, *settings), state, x, key)


@functools.partial(jax.jit, static_argnums=0)
def _annealed_importance_sampling(static, state, x, key):
    graphdef, num_temperatures, num_chains, num_leapfrog, step_size, target_acceptance = static
    model = nnx.merge(graphdef, state)
    betas = temperatures(num_temperatures)

    def prior_draws(key, num_chains):
        return jax.random.normal(key, (num_chains, len(x), model.decoder.latent_dim), x.dtype)

    def move(z, beta, key, step_size):
        def log_density(z):
            return model.log_prior(z) + beta * model.log_likelihood(x, z)

        point = hmc.evaluate_at(log_density, z)
        point, accept = hmc.hmc_step(log_density, point, key, step_size, num_leapfrog, hmc.JITTER)
        return point.position, accept

    def tune(state, now):
        (z, step_size), (beta, key) = state, now
        z, accept = move(z, beta, key, step_size)
        return (z, hmc.adapt_step_size(step_size, accept[0], target_acceptance)), step_size

    def anneal(state, now):
        (z, log_weight), (before, beta, key, step_size) = state, now
        log_weight += (beta - before) * model.log_likelihood(x, z)
        z, accept = move(z, beta, key, step_size)
        return (z, log_weight), jnp.mean(accept, axis=0)

    keys = jax.random.split(key, 4)
    start = prior_draws(keys[0], 1), jnp.full(len(x), step_size, x.dtype)
    rungs = betas[1:], jax.random.split(keys[1], num_temperatures)
    step_sizes = jax.lax.scan(tune, start, rungs)[1]

    start = prior_draws(keys[2], num_chains), jnp.zeros((num_chains, len(x)), x.dtype)
    rungs = betas[:-1], betas[1:], jax.random.split(keys[3], num_temperatures), step_sizes
    (_, log_weights), accept = jax.lax.scan(anneal, start, rungs)
    return ChainEvidence(*log_mean(log_weights), jnp.mean(accept, axis=0))


def temperatures(num_temperatures: int) -> jax.Array:
    """num_temperatures + 1 inverse temperatures from 0 to 1, on a sigmoid: dense at both ends.

    Stated in book/reproducing/evidence.md, equation `eq-ais`; Wu et al. 2017, Section 4.
    """
    ends = jnp.linspace(-SHARPNESS, SHARPNESS, num_temperatures + 1)
    curve = jax.nn.sigmoid(ends)
    return (curve - curve[0]) / (curve[-1] - curve[0])


def reciprocal_importance_sampling(
    model,
    x: jax.Array,
    key: jax.Array,
    num_samples: int = 50,
    *,
    num_leapfrog: int = 4,
    num_warm_up: int = 50,
    num_starts: int = MANY_STARTS,
    starts: jax.Array | None = None,
    step_size: float = 1.0,
    target_acceptance: float = 0.9,
) -> ChainEvidence:
    """log p(x) from samples of the posterior, the estimator of Kingma & Welling's Figure 3.

    Draw z from p(z|x) by HMC, fit a density q to them, and draw z from p(z|x) anew: then 1 / p(x)
    is the expectation of q(z) / p(x, z). Good below some five latents; beyond, q no longer fits.
    The encoder is not used. What the paper leaves open is settled thus: q is a Gaussian with a full
    covariance, one for each example; each example has one chain, which starts at one of
    num_starts draws of the prior, chosen in proportion to p(x|z), or at its row of `starts`, and
    adapts its step size to target_acceptance in num_warm_up transitions that are then dropped.
    A chain that starts at the wrong peak of a sharp posterior stays there, and the estimate is then
    too low by what the right one holds: give such a model more starts.
    Shapes: x (batch, data_dim) in floating point, starts (batch, latent_dim); returns (batch,)
    each, in nats. The standard error takes the samples of a chain as independent, so it is somewhat
    low. Raises TypeError or ValueError where x or `starts` does not fit the model, or num_samples
    does not exceed the latents.
    Derived in book/reproducing/evidence.md, equation `eq-reciprocal`; Kingma & Welling 2013,
    Appendix D; Gelfand & Dey 1994.
    """
    _check(model, x, key)
    latent_dim = model.decoder.latent_dim
    if checks.positive_int("num_samples", num_samples) <= latent_dim:
        raise ValueError(
            f"num_samples must exceed the {latent_dim} latents, or a covariance has no inverse, "
            f"got {num_samples}"
        )
    settings = (
        num_samples,
        checks.positive_int("num_leapfrog", num_leapfrog),
        checks.positive_int("num_warm_up", num_warm_up),
        checks.positive_int("num_starts", num_starts),
        checks.positive_float("step_size", step_size),
        checks.positive_float("target_acceptance", target_acceptance),
    )
    if starts is not None:
        if jnp.shape(starts) != (len(x), latent_dim):
            raise ValueError(
                f"starts must hold a position for each example, shape {(len(x), latent_dim)}, got "
                f"{jnp.shape(starts)}"
            )
        checks.finite("starts", starts)
    graphdef, state = nnx.split(model)
    return _reciprocal_importance_sampling((graphdef, *settings), state, x, key, starts)


@functools.partial(jax.jit, static_argnums=0)
def _reciprocal_importance_sampling(static, state, x, key, starts):
    graphdef, num_samples, num_leapfrog, num_warm_up, num_starts, step_size, target = static
    model = nnx.merge(graphdef, state)
    start_key, warm_up_key, chain_key = jax.random.split(key, 3)

    def log_joint(z):
        return model.log_prior(z) + model.log_likelihood(x, z)

    if starts is None:
        starts = _posterior_starts((graphdef, num_starts), state, x, start_key)
    z, step_sizes = hmc.hmc_warm_up(
        log_joint,
        starts,
        warm_up_key,
        num_warm_up,
        num_leapfrog=num_leapfrog,
        step_size=step_size,
        target_acceptance=target,
        jitter=hmc.JITTER,
    )
    chains = hmc.hmc_chains(
        log_joint,
        z,
        chain_key,
        2 * num_samples,
        num_leapfrog=num_leapfrog,
        step_size=step_sizes,
        jitter=hmc.JITTER,
    )
    fitted, fresh = jnp.split(chains.position, 2)
    log_q = fitted_gaussian_log_prob(fitted, fresh)
    log_reciprocal, error = log_mean(log_q - chains.log_density[num_samples:])
    return ChainEvidence(-log_reciprocal, error, jnp.mean(chains.acceptance, axis=0))


def posterior_starts(
    model, x: jax.Array, key: jax.Array, num_starts: int = MANY_STARTS
) -> jax.Array:
    """One position per example, (batch, latent_dim): rough draws of the posterior, by resampling.

    Of num_starts draws of the prior, which all examples share, each takes one with probability in
    proportion to p(x|z): so a chain rarely starts in a mode that holds little of the posterior.
    Memory does not grow with the number of draws, which is rounded up to whole blocks of them.
    Used in book/reproducing/evidence.md, equation `eq-reciprocal`; Rubin 1987.
    """
    _check(model, x, key)
    num_starts = checks.positive_int("num_starts", num_starts)
    graphdef, state = nnx.split(model)
    return _posterior_starts((graphdef, num_starts), state, x, key)


@functools.partial(jax.jit, static_argnums=0)
def _posterior_starts(static, state, x, key):
    graphdef, num_starts = static
    model = nnx.merge(graphdef, state)
    num_blocks = math.ceil(num_starts / STARTS_AT_ONCE)
    block = math.ceil(num_starts / num_blocks)

    def add_block(best, key):
        """The draw of the largest log p(x|z) plus Gumbel noise is one in proportion to p(x|z)."""
        best_score, chosen = best
        draw_key, choice_key = jax.random.split(key)
        z = jax.random.normal(draw_key, (block, model.decoder.latent_dim), x.dtype)
        score = log_likelihood_of_pairs(model, x, z)
        score += jax.random.gumbel(choice_key, score.shape, x.dtype)
        winner, highest = jnp.argmax(score, axis=1), jnp.max(score, axis=1)
        chosen = jnp.where((highest > best_score)[:, None], z[winner], chosen)
        return (jnp.maximum(best_score, highest), chosen), None

    nowhere = jnp.zeros((len(x), model.decoder.latent_dim), x.dtype)
    best = jnp.full(len(x), -jnp.inf, x.dtype), nowhere
    return jax.lax.scan(add_block, best, jax.random.split(key, num_blocks))[0][1]


def log_likelihood_of_pairs(model, x: jax.Array, z: jax.Array) -> jax.Array:
    """log p(x|z) of every example with every z; x (batch, data_dim), z (n, latent_dim).

    Returns (batch, n), in nats. The Bernoulli's is linear in x, so that all pairs meet in one
    product of matrices; other likelihoods take the examples in turn.
    Derived in book/foundations/cross-entropy-and-mse.md, equation `eq-bernoulli`.
    """
    decoded = model.decoder(z)
    if isinstance(model.likelihood, Bernoulli):
        return x @ decoded.T - jnp.sum(jax.nn.softplus(decoded), axis=1)
    return jax.lax.map(lambda one: model.likelihood.log_prob(one, decoded), x)


def fitted_gaussian_log_prob(samples: jax.Array, z: jax.Array) -> jax.Array:
    """Log-density at z of the Gaussian that has the mean and the full covariance of `samples`.

    Shapes: samples (n, batch, dim), z (m, batch, dim), a Gaussian for each of the batch; returns
    (m, batch), in nats.
    Used in book/reproducing/evidence.md, equation `eq-reciprocal`.
    """
    n, _, dim = samples.shape
    mean = jnp.mean(samples, axis=0)
    centred = samples - mean
    covariance = jnp.einsum("nbi,nbj->bij", centred, centred) / (n - 1)
    factor = jnp.linalg.cholesky(covariance + LEAST_VARIANCE * jnp.eye(dim))
    columns = jnp.moveaxis(z - mean, 0, -1)  # (batch, dim, m)
    scaled = jax.lax.linalg.triangular_solve(factor, columns, left_side=True, lower=True)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    log_prob = -0.5 * (jnp.sum(scaled**2, axis=1) + dim * jnp.log(2 * jnp.pi))
    return (log_prob - half_log_det[:, None]).T


def elbo_at(
    model, x: jax.Array, mean: jax.Array, log_var: jax.Array, key: jax.Array, num_samples: int
) -> jax.Array:
    """The ELBO at any diagonal Gaussian N(mean, diag exp(log_var)) in place of the encoder's.

    Averages log p(x|z) over num_samples draws and takes the KL exactly; at `model.encode(x)` it is
    the ELBO itself, with less noise. Shapes: x (batch, data_dim), mean and log_var (batch,
    latent_dim); returns (batch,), in nats.
    Derived in book/foundations/elbo.md, equation `eq-elbo-terms`.
    """
    num_samples = checks.positive_int("num_samples", num_samples)
    checks.random_key("key", key)
    graphdef, state = nnx.split(model)
    return _elbo_at(graphdef, num_samples, state, x, mean, log_var, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _elbo_at(graphdef, num_samples, state, x, mean, log_var, key):
    model = nnx.merge(graphdef, state)

    def add_draw(total, key):
        return total + model.log_likelihood(x, reparameterize(key, mean, log_var)), None

    keys = jax.random.split(key, num_samples)
    total = jax.lax.scan(add_draw, jnp.zeros(len(x), mean.dtype), keys)[0]
    return total / num_samples - gaussian_kl(mean, log_var)


def optimal_posterior(
    model,
    x: jax.Array,
    key: jax.Array,
    num_steps: int = 1000,
    *,
    num_samples: int = 8,
    learning_rate: float = 0.02,
) -> tuple[jax.Array, jax.Array]:
    """The diagonal Gaussian with the highest ELBO for each example: (mean, log_var).

    Gradient ascent on each example's own bound from the encoder's answer on: Adam with a rate that
    falls to 0 along a cosine, num_samples draws a step. With `elbo_at` it splits the gap: log p(x)
    less the bound found here is lost to the family of Gaussians, the approximation gap; that bound
    less the encoder's is lost to sharing one network, the amortisation gap.
    Shapes: x (batch, data_dim) in floating point; returns (batch, latent_dim) each. Raises
    TypeError or ValueError where x does not fit the model or a number is below 1.
    Derived in book/foundations/elbo.md, equation `eq-gap-split`; Cremer et al. 2018, Section 3.
    """
    _check(model, x, key)
    settings = (
        checks.positive_int("num_steps", num_steps),
        checks.positive_int("num_samples", num_samples),
        checks.positive_float("learning_rate", learning_rate),
    )
    graphdef, state = nnx.split(model)
    return _optimal_posterior((graphdef, *settings), state, x, key)


@functools.partial(jax.jit, static_argnums=0)
def _optimal_posterior(static, state, x, key):
    graphdef, num_steps, num_samples, learning_rate = static
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def loss(posterior, key):
        # The sum, so that no example's gradient depends on how many others there are.
        return -jnp.sum(_elbo_at(graphdef, num_samples, state, x, *posterior, key))

    def step(carry, key):
        posterior, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(posterior, key), opt_state)
        return (optax.apply_updates(posterior, updates), opt_state), None

    start = nnx.merge(graphdef, state).encode(x)
    carry = start, optimizer.init(start)
    return jax.lax.scan(step, carry, jax.random.split(key, num_steps))[0][0]


def log_mean(log_values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log of the mean over the first axis, and its standard error by the delta method.

    Shapes: log_values (n, batch); returns (batch,) each; with n = 1 the error is NaN.
    Derived in book/reproducing/evidence.md, equation `eq-delta-error`.
    """
    n = len(log_values)
    largest = jnp.max(log_values, axis=0)
    values = jnp.exp(log_values - largest)
    mean = jnp.mean(values, axis=0)
    error = jnp.std(values, axis=0, ddof=1) / (jnp.sqrt(n) * mean)
    return largest + jnp.log(mean), error


def _check(model, x, key) -> None:
    check_bounded(model)
    checks.float_array("x", x)
    checks.batch("x", x)
    checks.last_dimension("x", x, model.encoder.data_dim)
    checks.random_key("key", key)
    model.likelihood.check("x", x)
