"""Monte Carlo EM: a decoder trained on samples of its own posterior, without an encoder."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from vae import checkpoints, checks, hmc
from vae.evaluation import as_intensities, check_bounded
from vae.progress import Progress
from vae.training import check_run, fingerprint, resume

# What p(x, z) is made of: every parameter but those of q(z|x).
GENERATIVE = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("encoder")))


@dataclasses.dataclass(frozen=True)
class MCEMHistory:
    """The training curve, one entry per epoch.

    `examples` counts weight updates times batch_size by the end of each epoch: each visit of a
    minibatch counts num_updates times, and the gradients that HMC takes to move its chains are not
    in it. `seconds` is the training time up to then. `log_joint` is the mean of log p(x, z) at the
    chains' samples, before each update, in nats (no bound on log p(x)). `acceptance` is the mean of
    the chains' acceptance, `step_size` the leapfrog's at the end of the epoch.
    Used in book/reproducing/evidence.md, equation `eq-mcem`.
    """

    examples: np.ndarray
    seconds: np.ndarray
    log_joint: np.ndarray
    acceptance: np.ndarray
    step_size: np.ndarray


def fit_mcem(
    model,
    images,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    num_leapfrog: int = 10,
    num_updates: int = 5,
    target_acceptance: float = 0.9,
    persistent: bool = True,
    progress: bool = True,
    callback=None,
    checkpoint=None,
    checkpoint_every: int = 1,
) -> MCEMHistory:
    """Train the decoder of `model` in place by Monte Carlo EM; return the curve.

    Each visit of a minibatch moves its chains, one per training image, by one HMC transition
    towards p(z|x) under the present weights (the E-step), then takes num_updates gradient steps on
    the mean of log p(x, z) at the positions reached (the M-step). The chains persist: an image's
    chain goes on where its last visit left it, and starts at a draw of the prior. (The paper does
    not say where its chains start, or whether they persist.) One step size serves all chains; it
    grows or shrinks after every visit towards target_acceptance, and each trajectory departs from
    it by some jitter. The encoder stays as it is.

    Args:
      optimizer: any Optax optimiser; it sees the gradient of the mean of -log p(x, z), in nats per
        example, and the parameters of decoder and likelihood alone.
      num_leapfrog, num_updates, target_acceptance: as in the paper.
      persistent: False starts every visit's chains at new draws of the prior. One transition does
        not lead from there to the posterior, so the weights then learn from poorer samples.
      callback: called as callback(epochs done, model) after each epoch.
      checkpoint: an `.npz` file that holds weights, optimiser, chains and step size. Where it
        exists, training continues from it and ends in the bits of an uninterrupted run.
      The others are those of `fit`, whose epochs these are: minibatches of a new random order,
        what is left over dropped (its chains wait), each epoch one compiled scan.

    Raises as `fit` does; FloatingPointError after the epoch in which log p(x, z) or a parameter
    became non-finite, the model keeping its parameters from before.
    Derived in book/reproducing/evidence.md, equation `eq-mcem`; Kingma & Welling 2013, Appendix E.
    """
    check_bounded(model)
    images, epochs, batch_size = check_run(model, images, key, epochs, batch_size, optimizer)
    num_leapfrog = checks.positive_int("num_leapfrog", num_leapfrog)
    num_updates = checks.positive_int("num_updates", num_updates)
    target_acceptance = checks.positive_float("target_acceptance", target_acceptance)
    if target_acceptance >= 1:
        raise ValueError(f"target_acceptance must be below 1, got {target_acceptance}")
    checks.positive_int("checkpoint_every", checkpoint_every)
    checks.function_or_none("callback", callback)

    start_key, train_key = jax.random.split(key)
    graphdef, params, rest = nnx.split(model, GENERATIVE, ...)
    # One chain per image, at the prior; its spread is 1, and so is the first step size.
    chains = jax.random.normal(start_key, (len(images), model.decoder.latent_dim))
    state = params, optimizer.init(params), chains, jnp.ones(())
    settings = {"num_leapfrog": num_leapfrog, "num_updates": num_updates}
    settings |= {"target_acceptance": target_acceptance, "persistent": bool(persistent)}
    run = fingerprint(images, key, batch_size) | settings
    state, curve = resume(checkpoint, state, run, epochs)
    nnx.update(model, state[0])

    bar = Progress(epochs, done=len(curve), enabled=progress)
    seconds, steps = curve[-1][1] if curve else 0.0, len(images) // batch_size
    static = graphdef, optimizer, batch_size, *settings.values()
    for epoch in range(len(curve), epochs):
        started = time.perf_counter()
        epoch_key = jax.random.fold_in(train_key, epoch)
        state, means, finite = _run_epoch(static, state, rest, images, epoch_key)
        log_joint, acceptance, step_size = (float(mean) for mean in means)
        seconds += time.perf_counter() - started
        if not (finite and np.isfinite(log_joint)):
            raise FloatingPointError(
                f"log p(x, z) or a parameter became non-finite in epoch {epoch + 1} (epochs count "
                "from 1). The model keeps its parameters from before it. A smaller learning rate "
                "usually helps."
            )
        nnx.update(model, state[0])
        examples = (epoch + 1) * steps * batch_size * num_updates
        curve.append([examples, seconds, log_joint, acceptance, step_size])
        if checkpoint is not None and (epoch + 1 == epochs or (epoch + 1) % checkpoint_every == 0):
            checkpoints.save(checkpoint, state, {"run": run, "curve": curve})
        bar.update(epoch + 1, f"log p(x, z) {log_joint:.2f} nats, {acceptance:.0%} accepted")
        if callback is not None:
            callback(epoch + 1, model)
    columns = np.array(curve, np.float64).T
    return MCEMHistory(columns[0].astype(np.int64), *columns[1:])


@functools.partial(jax.jit, static_argnums=0)
def _run_epoch(static, state, rest, images, key):
    """One pass over the images: (the state after it, its three means, is it all finite)."""
    graphdef, optimizer, batch_size, num_leapfrog, num_updates, target_acceptance, persistent = (
        static
    )
    order_key, steps_key = jax.random.split(key)
    steps = len(images) // batch_size
    order = jax.random.permutation(order_key, len(images))[: steps * batch_size]
    batches = order.reshape(steps, batch_size), jax.random.split(steps_key, steps)

    def log_joint(params, x, z):
        model = nnx.merge(graphdef, params, rest)
        return model.log_prior(z) + model.log_likelihood(x, z)

    def visit(state, batch):
        params, opt_state, chains, step_size = state
        rows, key = batch
        start_key, key = jax.random.split(key)
        x = as_intensities(images[rows])
        start = chains[rows]
        if not persistent:
            start = jax.random.normal(start_key, start.shape)

        # The weights have changed since these chains last moved, so the density is taken anew.
        density = functools.partial(log_joint, params, x)
        point = hmc.evaluate_at(density, start)
        point, acceptance = hmc.hmc_step(density, point, key, step_size, num_leapfrog, hmc.JITTER)
        acceptance = jnp.mean(acceptance)
        step_size = hmc.adapt_step_size(step_size, acceptance, target_acceptance)
        chains = chains.at[rows].set(point.position)

        def update(carry, _):
            params, opt_state = carry
            loss, grads = jax.value_and_grad(
                lambda params: -jnp.mean(log_joint(params, x, point.position))
            )(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), -loss

        (params, opt_state), values = jax.lax.scan(update, (params, opt_state), length=num_updates)
        return (params, opt_state, chains, step_size), (jnp.mean(values), acceptance)

    state, (values, acceptance) = jax.lax.scan(visit, state, batches)
    means = jnp.mean(values), jnp.mean(acceptance), state[3]
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state[0])]).all()
    return state, means, finite
