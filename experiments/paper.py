"""What the experiments on Kingma & Welling 2013 share: model, optimisers, recorded weights.

One tanh layer each way, every parameter drawn from N(0, 0.01^2), minibatches of 100, one sample of
q(z|x), Adagrad with the step size chosen from 0.01, 0.02 and 0.1 on training performance in the
first iterations, and the prior N(0, I) on the weight matrices, so that training is maximum a
posteriori (Section 5). What the paper leaves out is as in its author's code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import vae
from experiments.precision import half_products

BATCH = 100
STEP_SIZES = (0.01, 0.02, 0.1)
WARM_UP = 100  # minibatches whose squared gradients Adagrad sums before its first update


def make_model(
    seed: int,
    latent_dim: int,
    hidden: int = 500,
    data_dim: int = 784,
    *,
    gaussian: bool = False,
    half: bool = False,
) -> vae.VAE:
    """The paper's model, every parameter from N(0, 0.01^2).

    `gaussian` gives the decoder of Frey Face, means in (0, 1) and variances; `half` computes the
    products with the pixels' weights in bfloat16 (`experiments.precision`).
    """
    rngs = nnx.Rngs(seed)
    small = {
        "kernel_init": nnx.initializers.normal(0.01),
        "bias_init": nnx.initializers.normal(0.01),
    }
    if half:
        small["dot_general"] = half_products
    encoder = vae.MLPEncoder(data_dim, hidden, latent_dim, rngs=rngs, **small)
    if not gaussian:
        return vae.VAE(encoder, vae.MLPDecoder(latent_dim, hidden, data_dim, rngs=rngs, **small))
    decoder = vae.GaussianMLPDecoder(latent_dim, hidden, data_dim, rngs=rngs, **small)
    return vae.VAE(encoder, decoder, likelihood=vae.PredictedGaussian())


def weight_prior(train_size: int) -> optax.GradientTransformation:
    """The gradient of the prior N(0, I) on the weight matrices, per example of the loss."""
    return optax.add_decayed_weights(
        1 / train_size, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )


def adagrad(step_size: float, train_size: int) -> optax.GradientTransformation:
    """Adagrad as in the author's code, on the mean of the loss over a minibatch.

    The author sums the gradients over the minibatch and adds 1e-8 to the sum of their squares;
    Adagrad does not change when gradients and the root of that number shrink by the same factor.
    """
    return optax.chain(
        weight_prior(train_size),
        optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-8 / BATCH**2),
        optax.scale_by_schedule(lambda step: -step_size * (step >= WARM_UP)),
    )


def adam(step_size: optax.ScalarOrSchedule, train_size: int) -> optax.GradientTransformation:
    """Adam with its usual settings, on the same objective."""
    return optax.chain(
        weight_prior(train_size), optax.scale_by_adam(), optax.scale_by_learning_rate(step_size)
    )


def score(model: vae.VAE, images, seed: int) -> tuple[float, float]:
    """(the mean bound on a set, its standard error), one sample per example, in nats."""
    bound = np.asarray(vae.evaluate(model, images, key=jax.random.key(seed)).bound, np.float64)
    return float(bound.mean()), float(bound.std(ddof=1) / np.sqrt(len(bound)))


def kept_weights(model: vae.VAE) -> dict:
    """The parameters in half precision, to be recorded; the model gets them too, rounded."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
    load_weights(model, flat(half, "weights/"))
    return half


def flat(tree: dict, prefix: str = "") -> dict:
    """A nested dictionary as one level: 'encoder/mean/kernel' -> array."""
    leaves = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        leaves |= flat(value, f"{path}/") if isinstance(value, dict) else {path: value}
    return leaves


def load_weights(model: vae.VAE, arrays: dict) -> vae.VAE:
    """Put recorded weights into a model of the same shape, in single precision; return it."""
    state = nnx.state(model, nnx.Param)
    params = nnx.to_pure_dict(state)

    def fill(tree: dict, prefix: str) -> dict:
        return {
            name: fill(value, f"{prefix}/{name}")
            if isinstance(value, dict)
            else jnp.asarray(arrays[f"{prefix}/{name}"], jnp.float32)
            for name, value in tree.items()
        }

    nnx.replace_by_pure_dict(state, fill(params, "weights"))
    nnx.update(model, state)
    return model
