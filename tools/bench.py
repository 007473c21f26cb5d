"""`make bench`: how fast `vae.fit` is, as ratios within one process.

Two comparisons on the model of book/reproducing/mnist.md (784-500-20-500-784, minibatch 100,
Adam): against the usual Python loop over jitted steps, and against the matrix products of the
same steps alone, scanned, which no implementation can go below without other matrix products.
Each measurement alternates the contestants, so that a busy machine slows all of them.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import vae

DATA, HIDDEN, LATENT, BATCH = 784, 500, 20, 100


def make_model() -> vae.VAE:
    """A model of the paper's shape."""
    rngs = nnx.Rngs(0)
    return vae.VAE(
        vae.MLPEncoder(DATA, HIDDEN, LATENT, rngs=rngs),
        vae.MLPDecoder(LATENT, HIDDEN, DATA, rngs=rngs),
    )


def timed_fit(images) -> callable:
    """One epoch of `vae.fit`, as it reports its own training seconds, compilation left out."""
    model, optimizer = make_model(), optax.adam(1e-3)

    def run() -> float:
        history = vae.fit(
            model,
            images,
            key=jax.random.key(1),
            epochs=1,
            batch_size=BATCH,
            optimizer=optimizer,
            progress=False,
        )
        return float(history.seconds[-1])

    return run


def timed_loop(images) -> callable:
    """The same epoch as most tutorials write it: a Python loop that feeds a jitted step."""
    model = make_model()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    rng = np.random.default_rng(0)

    @nnx.jit
    def step(model, optimizer, x, key):
        def loss(model):
            return -jnp.mean(vae.elbo(model, x, key).bound)

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    def run() -> float:
        started, key = time.perf_counter(), jax.random.key(1)
        order = rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            key, step_key = jax.random.split(key)
            x = images[order[start : start + BATCH]].astype(np.float32) / 255
            value = step(model, optimizer, x, step_key)
        value.block_until_ready()
        return time.perf_counter() - started

    return run


def timed_functional_loop(images) -> callable:
    """The same epoch with the cheapest dispatch: a Python loop over a jitted function of arrays."""
    graphdef, params = nnx.split(make_model())
    optimizer = optax.adam(1e-3)
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(0)

    @jax.jit
    def step(params, opt_state, x, key):
        def loss(params):
            return -jnp.mean(vae.elbo(nnx.merge(graphdef, params), x, key).bound)

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    def run() -> float:
        nonlocal params, opt_state
        started, key = time.perf_counter(), jax.random.key(1)
        order = rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            key, step_key = jax.random.split(key)
            x = images[order[start : start + BATCH]].astype(np.float32) / 255
            params, opt_state, value = step(params, opt_state, x, step_key)
        value.block_until_ready()
        return time.perf_counter() - started

    return run


def timed_products(images) -> callable:
    """The matrix products of one epoch, forward and backward, and nothing else."""
    steps = len(images) // BATCH
    widths = [(DATA, HIDDEN), (HIDDEN, LATENT), (HIDDEN, LATENT), (LATENT, HIDDEN), (HIDDEN, DATA)]
    keys = jax.random.split(jax.random.key(0), len(widths))
    weights = [0.05 * jax.random.normal(k, shape) for k, shape in zip(keys, widths, strict=True)]
    x = jax.random.uniform(jax.random.key(2), (BATCH, DATA))

    @jax.jit
    def epoch(weights, x):
        def step(x, _):
            w1, w_mean, w_var, w3, w4 = weights
            h1 = x @ w1
            mean, log_var = h1 @ w_mean, h1 @ w_var
            h2 = (mean + log_var) @ w3
            out = h2 @ w4
            d_w4, d_h2 = h2.T @ out, out @ w4.T
            d_w3, d_z = (mean + log_var).T @ d_h2, d_h2 @ w3.T
            d_w_mean, d_w_var = h1.T @ d_z, h1.T @ (d_z + mean)
            d_h1 = d_z @ w_mean.T + (d_z + mean) @ w_var.T
            d_w1 = x.T @ d_h1
            # The barrier keeps every product whole; one number of each feeds the next step, so
            # that none can be dropped, or moved out of the loop.
            grads = jax.lax.optimization_barrier((d_w1, d_w_mean, d_w_var, d_w3, d_w4))
            return x + 1e-30 * sum(grad[0, 0] for grad in grads), None

        return jax.lax.scan(step, x, length=steps)[0]

    def run() -> float:
        started = time.perf_counter()
        jax.block_until_ready(epoch(weights, x))
        return time.perf_counter() - started

    return run


def main() -> None:
    """Print the medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs (at least 5)")
    parser.add_argument("--images", type=int, default=10_000, help="images per epoch")
    args = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (args.images, DATA), dtype=np.uint8)
    contestants = {
        "fit": timed_fit(images),
        "loop": timed_loop(images),
        "functional loop": timed_functional_loop(images),
        "products": timed_products(images),
    }
    for run in contestants.values():
        run()  # compiles
    seconds = {name: [] for name in contestants}
    for _ in range(max(5, args.rounds)):
        for name, run in contestants.items():
            seconds[name].append(run())
    for name, values in seconds.items():
        print(f"{name:16} {statistics.median(values):.3f} s per {args.images:,} examples (median)")

    def ratio(over: str, under: str) -> str:
        values = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
        return (
            f"median {statistics.median(values):.2f}, from {min(values):.2f} to {max(values):.2f}"
        )

    print(f"Python loop over nnx.jit steps / fit: {ratio('loop', 'fit')}")
    print(f"Python loop over jax.jit steps / fit: {ratio('functional loop', 'fit')}")
    print(f"fit / its matrix products alone:      {ratio('fit', 'products')}")
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, {len(seconds['fit'])} rounds")


if __name__ == "__main__":
    main()
