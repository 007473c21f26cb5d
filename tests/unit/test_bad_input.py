"""Wrong arguments: each error names the argument, what was given and what is expected."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from unit_helpers import DATA_DIM, LATENT_DIM, params_of, small_vae, stripes

import vae

KEY = jax.random.key(0)
MODEL, GAUSSIAN = small_vae(), small_vae(likelihood=vae.Gaussian(0.5))
X = jnp.asarray(stripes(4) / 255, jnp.float32)
NAN = X.at[1, 2].set(jnp.nan)

encoder = functools.partial(vae.MLPEncoder, rngs=nnx.Rngs(0))
decoder = functools.partial(vae.MLPDecoder, rngs=nnx.Rngs(0))


def fit(images=X, model=MODEL, **options):
    settings = {
        "key": KEY,
        "epochs": 1,
        "batch_size": 2,
        "optimizer": optax.sgd(0.1),
        "progress": False,
    }
    return vae.fit(model, images, **(settings | options))


def evaluate(images, model=MODEL, **options):
    return vae.evaluate(model, images, **({"key": KEY} | options))


def bound(x, model=MODEL):
    return vae.elbo(model, x, KEY)


def importance(x, num_samples=2, model=MODEL):
    return vae.iwae_bound(model, x, KEY, num_samples)


def likelihood(x, num_samples=2, model=MODEL):
    return vae.log_marginal_likelihood(model, x, KEY, num_samples)


def weighted(beta):
    return vae.beta_objective(MODEL, X, KEY, beta)


# (call, exception, what the message must say: the argument, the given, the expected)
CASES = {
    # The wrong last dimension
    "encode": (lambda: MODEL.encode(X[:, :5]), ValueError, ["x", "(4, 5)", "6"]),
    "encode scalar": (lambda: MODEL.encode(jnp.float32(1)), ValueError, ["x", "()", "6"]),
    "decode": (lambda: MODEL.decode(jnp.zeros((4, 3))), ValueError, ["z", "(4, 3)", "2"]),
    "reconstruct": (lambda: MODEL.reconstruct(X.T, KEY), ValueError, ["x", "(6, 4)", "6"]),
    "elbo": (lambda: bound(X[:, :5]), ValueError, ["x", "(4, 5)", "6"]),
    "compiled": (lambda: jax.jit(bound)(X[:, :5]), ValueError, ["x", "(4, 5)", "6"]),
    "iwae": (lambda: importance(X[:, :5]), ValueError, ["x", "(4, 5)", "6"]),
    "likelihood": (lambda: likelihood(X[:, :5]), ValueError, ["x", "(4, 5)", "6"]),
    "fit": (lambda: fit(X[:, :5]), ValueError, ["images", "(4, 5)", "6"]),
    "fit on squares": (lambda: fit(np.zeros((4, 2, 3))), ValueError, ["images", "(4, 2, 3)", "6"]),
    "validation": (lambda: fit(validation=X[:, :5]), ValueError, ["validation", "(4, 5)", "6"]),
    "evaluate": (lambda: evaluate(X[:, :5]), ValueError, ["images", "(4, 5)", "6"]),
    "one image": (lambda: evaluate(X[0]), ValueError, ["images", "(6,)", "(n, data_dim)"]),
    # The wrong dtype
    "encode levels": (lambda: MODEL.encode(stripes(2)), TypeError, ["x", "uint8", "255"]),
    "encode ints": (lambda: MODEL.encode(X.astype(int)), TypeError, ["x", "int32", "floating"]),
    "encode list": (lambda: MODEL.encode([0.0] * 6), TypeError, ["x", "list", "array"]),
    "decode ints": (lambda: MODEL.decode(jnp.zeros((1, 2), int)), TypeError, ["z", "int32"]),
    "elbo levels": (lambda: bound(stripes(2)), TypeError, ["x", "uint8", "floating"]),
    "compiled levels": (lambda: jax.jit(bound)(stripes(2)), TypeError, ["x", "uint8"]),
    "likelihood levels": (lambda: likelihood(stripes(2)), TypeError, ["x", "uint8", "255"]),
    "likelihood list": (lambda: likelihood([[0.0] * 6]), TypeError, ["x", "list", "array"]),
    "fit ints": (lambda: fit(X.astype(int)), TypeError, ["images", "int32", "uint8", "floating"]),
    "fit bools": (lambda: fit(X > 0.5), TypeError, ["images", "bool", "uint8"]),
    "fit complex": (lambda: fit(X.astype(complex)), TypeError, ["images", "complex", "floating"]),
    "validation ints": (lambda: fit(validation=X.astype(int)), TypeError, ["validation", "int32"]),
    "evaluate words": (lambda: evaluate([["a"] * 6]), TypeError, ["images", "floating"]),
    # Intensities outside [0, 1] under a Bernoulli likelihood
    "elbo beyond 1": (lambda: bound(X + 1), ValueError, ["x", "[0, 1]", "Bernoulli", "255"]),
    "elbo negative": (lambda: bound(X - 1), ValueError, ["x", "[0, 1]", "-0.8"]),
    "iwae beyond 1": (lambda: importance(X * 255), ValueError, ["x", "[0, 1]"]),
    "likelihood beyond 1": (lambda: likelihood(X * 255), ValueError, ["x", "[0, 1]"]),
    "fit beyond 1": (lambda: fit(X * 2), ValueError, ["images", "[0, 1]", "Bernoulli"]),
    "validation beyond 1": (lambda: fit(validation=X * 2), ValueError, ["validation", "[0, 1]"]),
    "evaluate beyond 1": (lambda: evaluate(X * 2), ValueError, ["images", "[0, 1]"]),
    # NaN and infinity
    "elbo NaN": (lambda: bound(NAN), ValueError, ["x", "nan", "[0, 1]"]),
    "likelihood NaN": (lambda: likelihood(NAN), ValueError, ["x", "nan"]),
    "Gaussian likelihood NaN": (
        lambda: likelihood(NAN, model=GAUSSIAN),
        ValueError,
        ["x", "finite", "1 NaN"],
    ),
    "fit NaN": (lambda: fit(NAN), ValueError, ["images", "finite", "1 NaN", "24"]),
    "Gaussian fit NaN": (lambda: fit(NAN, GAUSSIAN), ValueError, ["images", "finite", "1 NaN"]),
    "Gaussian fit infinity": (lambda: fit(X / 0, GAUSSIAN), ValueError, ["images", "finite"]),
    "validation NaN": (lambda: fit(validation=NAN), ValueError, ["validation", "finite"]),
    "evaluate NaN": (lambda: evaluate(NAN), ValueError, ["images", "finite"]),
    # Empty sets, and batches larger than the set
    "fit nothing": (lambda: fit(X[:0]), ValueError, ["images", "non-empty", "(0, 6)"]),
    "fit empty list": (lambda: fit([]), ValueError, ["images", "non-empty", "(0,)"]),
    "no validation": (lambda: fit(validation=X[:0]), ValueError, ["validation", "non-empty"]),
    "evaluate nothing": (lambda: evaluate(X[:0]), ValueError, ["images", "non-empty", "(0, 6)"]),
    "batch too large": (lambda: fit(batch_size=5), ValueError, ["batch_size", "5", "4 images"]),
    # Whole numbers
    "latent_dim 0": (lambda: encoder(6, 8, 0), ValueError, ["latent_dim", "0", "at least 1"]),
    "latent_dim -1": (lambda: decoder(-1, 8, 6), ValueError, ["latent_dim", "-1", "at least 1"]),
    "latent_dim 2.0": (lambda: encoder(6, 8, 2.0), TypeError, ["latent_dim", "2.0", "float"]),
    "latent_dim True": (lambda: decoder(True, 8, 6), TypeError, ["latent_dim", "True", "bool"]),
    "data_dim 0": (lambda: encoder(0, 8, 2), ValueError, ["data_dim", "0", "at least 1"]),
    "data_dim None": (lambda: decoder(2, 8, None), TypeError, ["data_dim", "None", "whole"]),
    "hidden_dims 0": (lambda: encoder(6, (8, 0), 2), ValueError, ["hidden_dims", "0"]),
    "hidden_dims word": (lambda: decoder(2, "8", 6), TypeError, ["hidden_dims", "'8'"]),
    "epochs 0": (lambda: fit(epochs=0), ValueError, ["epochs", "0", "at least 1"]),
    "epochs 1.5": (lambda: fit(epochs=1.5), TypeError, ["epochs", "1.5", "whole"]),
    "batch_size 0": (lambda: fit(batch_size=0), ValueError, ["batch_size", "0", "at least 1"]),
    "batch_size 2.0": (lambda: fit(batch_size=2.0), TypeError, ["batch_size", "2.0"]),
    "validate_every": (lambda: fit(validate_every=0), ValueError, ["validate_every", "0"]),
    "checkpoint_every": (lambda: fit(checkpoint_every=-3), ValueError, ["checkpoint_every", "-3"]),
    "evaluate batch": (lambda: evaluate(X, batch_size=0), ValueError, ["batch_size", "0"]),
    "iwae 0": (lambda: importance(X, 0), ValueError, ["num_samples", "0", "at least 1"]),
    "iwae 2.5": (lambda: importance(X, 2.5), TypeError, ["num_samples", "2.5", "whole"]),
    "likelihood 0": (lambda: likelihood(X, 0), ValueError, ["num_samples", "0", "at least 1"]),
    "likelihood word": (lambda: likelihood(X, "9"), TypeError, ["num_samples", "'9'", "whole"]),
    "generate 0": (lambda: MODEL.generate(KEY, 0), ValueError, ["n ", "0", "at least 1"]),
    "generate 2.0": (lambda: MODEL.generate(KEY, 2.0), TypeError, ["n ", "2.0", "whole"]),
    # Other numbers
    "std 0": (lambda: vae.Gaussian(0.0), ValueError, ["std", "0.0", "above 0"]),
    "std NaN": (lambda: vae.Gaussian(float("nan")), ValueError, ["std", "nan", "finite"]),
    "std word": (lambda: vae.Gaussian("1"), TypeError, ["std", "'1'", "number"]),
    "beta -1": (lambda: weighted(-1.0), ValueError, ["beta", "-1.0", "at least 0"]),
    "beta NaN": (lambda: weighted(float("nan")), ValueError, ["beta", "nan", "finite"]),
    "beta inf": (lambda: weighted(float("inf")), ValueError, ["beta", "inf", "finite"]),
    # Keys, files, parts
    "fit key": (lambda: fit(key=0), TypeError, ["key", "0 (int)", "jax.random.key"]),
    "fit keys": (lambda: fit(key=jax.random.split(KEY)), TypeError, ["key", "(2,)", "one"]),
    "fit float key": (lambda: fit(key=jnp.zeros(2)), TypeError, ["key", "float32", "one"]),
    "evaluate key": (lambda: evaluate(X, key=None), TypeError, ["key", "None", "jax.random.key"]),
    "likelihood key": (
        lambda: vae.log_marginal_likelihood(MODEL, X, 3, 2),
        TypeError,
        ["key", "3 (int)"],
    ),
    "checkpoint": (
        lambda: fit(checkpoint="run.pkl"),
        ValueError,
        ["checkpoint", "run.pkl", ".npz"],
    ),
    "optimizer": (lambda: fit(optimizer=0.1), TypeError, ["optimizer", "0.1", "optax.adam"]),
    "objective of two": (
        lambda: fit(objective=lambda model, x, key: (x[:, 0], x[:, 0])),
        TypeError,
        ["objective", "a tuple of 2"],
    ),
    "likelihood name": (
        lambda: vae.VAE(MODEL.encoder, MODEL.decoder, "poisson"),
        ValueError,
        ["likelihood", "'poisson'", "'bernoulli'"],
    ),
    "latent_dim differs": (
        lambda: vae.VAE(encoder(6, 8, 3), decoder(2, 8, 6)),
        ValueError,
        ["latent_dim", "3", "2"],
    ),
    "data_dim differs": (
        lambda: vae.VAE(encoder(6, 8, 2), decoder(2, 8, 7)),
        ValueError,
        ["data_dim", "6", "7"],
    ),
    # Found by these tests, and mended
    "hidden_dims 2.5": (lambda: encoder(6, 2.5, 2), TypeError, ["hidden_dims", "2.5"]),
    "hidden_dims None": (lambda: decoder(2, None, 6), TypeError, ["hidden_dims", "None"]),
    "likelihood of one image": (lambda: likelihood(X[0]), ValueError, ["x", "(6,)"]),
    "elbo key": (lambda: vae.elbo(MODEL, X, 0), TypeError, ["key", "0 (int)", "jax.random.key"]),
    "beta word": (lambda: weighted("1"), TypeError, ["beta", "'1'", "number"]),
    "elbo Gaussian NaN": (lambda: bound(NAN, GAUSSIAN), ValueError, ["x", "finite", "1 NaN"]),
    "likelihood class": (
        lambda: vae.VAE(MODEL.encoder, MODEL.decoder, vae.Gaussian),
        ValueError,
        ["likelihood", "Gaussian(std=0.1)"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named_with_what_was_given_and_what_is_expected(case):
    call, exception, words = CASES[case]
    before = params_of(MODEL)
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert error.type is exception, error.value
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message
    assert message.startswith(words[0]) or case.endswith("differs"), message
    after = params_of(MODEL)
    assert all((before[name] == after[name]).all() for name in before)


def test_what_is_right_is_accepted():
    """The cases above fail for the reason they give: the same calls with good values pass."""
    assert len(fit(validation=X, epochs=np.int64(1)).bound) == 1
    assert evaluate(X, batch_size=4).bound.shape == bound(X).bound.shape == (4,)
    assert importance(X).shape == likelihood(X).shape == (4,)
    assert importance(X, np.int32(2)).shape == (4,)
    assert weighted(0).objective.shape == weighted(np.float32(2)).objective.shape == (4,)
    assert fit(X * 9 - 3, GAUSSIAN).bound.shape == (1,)
    assert (encoder(6, 8, LATENT_DIM).data_dim, decoder(1, 8, DATA_DIM).data_dim) == (6, 6)
