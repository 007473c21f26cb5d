"""Many seeds of one toy experiment, trained together, and what is kept of each."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import vae
from experiments import runs
from experiments.recipes import Recipe
from vae import evaluation

SEEDS = tuple(range(1000, 1016))  # none of them was looked at while the recipes were chosen
PATH = ("affine_r2", "angle", "std", "sigma")
FOLLOWED = 1000  # test pictures whose code is scored after every epoch


def networks(seed: int, *, latents: int = 2, kind=vae.VAE, likelihood="bernoulli"):
    """A model with two hidden layers of 128 ReLUs each way, for pictures of 28 x 28."""
    rngs = nnx.Rngs(seed)
    encoder = vae.MLPEncoder(784, (128, 128), latents, rngs=rngs, activation=jax.nn.relu)
    decoder = vae.MLPDecoder(latents, (128, 128), 784, rngs=rngs, activation=jax.nn.relu)
    return kind(encoder, decoder, likelihood=likelihood)


def record(
    name: str, what: str, command: str, models: list, recipe: Recipe, train, test, factors
) -> None:
    """Train the models of all seeds together, and record their codes of the test pictures.

    Kept for each seed: codes (n, d) and std (n, d) of q(z|x) in half precision, the test bound and
    its terms, and the squared reconstruction error; and as path/..., after each epoch, the affine
    R^2, the angle (NaN where there are not two latents for two factors), the mean std and sigma. A
    result that is recorded already is left as it is.
    """
    if runs.result_path(name).exists():
        runs.say(f"{name}: recorded")
        return
    runs.say(f"{name}: {what}; {len(models)} seeds, {recipe.epochs} epochs")
    followed, paths = (test[:FOLLOWED], factors[:FOLLOWED]), []

    def follow(_, models) -> None:
        paths.append([path_point(model, *followed) for model in models])

    started = time.perf_counter()
    recipe.train(models, train, jax.random.key(SEEDS[0]), callback=follow)
    seconds = time.perf_counter() - started
    paths = np.array(paths, np.float32).swapaxes(0, 1)  # (seeds, epochs, len(PATH))
    arrays = {
        "codes": np.stack([evaluation.code_of(model, test) for model in models]).astype(np.float16),
        "error": np.array([evaluation.reconstruction_error(m, test).mean() for m in models]),
        **{f"path/{what}": paths[..., i] for i, what in enumerate(PATH)},
    }
    if hasattr(models[0], "log_prior"):
        key = jax.random.key(SEEDS[-1])
        terms = [vae.evaluate(model, test, key=key) for model in models]
        for term in ("bound", "log_likelihood", "kl"):
            arrays[term] = np.array([float(getattr(each, term).mean()) for each in terms])
        arrays["std"] = np.stack([posterior_std(model, test) for model in models])
    metadata = {
        **runs.provenance(),
        "command": command,
        "what": what,
        "recipe": dataclasses.asdict(recipe),
        "seeds": list(SEEDS[: len(models)]),
        "training images": len(train),
        "seconds": seconds,
    }
    vae.checkpoints.save(runs.result_path(name), arrays, metadata)
    runs.say(f"{name}: affine R^2 {np.round(np.sort(paths[:, -1, 0]), 3)}, {seconds:.0f} s")


def posterior_std(model, images) -> np.ndarray:
    """The standard deviations of q(z|x), (n, d), in half precision."""
    x = evaluation.as_intensities(jnp.asarray(images))
    return np.asarray(jnp.exp(model.encode(x)[1] / 2), np.float16)


def path_point(model, images, factors) -> tuple[float, ...]:
    """The quantities of PATH of a model under way, NaN for one that it does not have."""
    codes = evaluation.code_of(model, images)
    square = codes.shape[1] == factors.shape[1] == 2
    learned = isinstance(model.likelihood, vae.LearnedGaussian)
    return (
        float(evaluation.affine_r2(codes, factors).min()),
        evaluation.rotation_angle(codes, factors) if square else np.nan,
        posterior_std(model, images).mean(dtype=float) if hasattr(model, "log_prior") else np.nan,
        float(jnp.exp(model.likelihood.log_var[0] / 2)) if learned else np.nan,
    )


def ledger_row(id: str, what: str, unit: str, ours, values, metadata: dict, tested: int) -> dict:
    """A row of the ledger: `ours` of all seeds, and the range of the seeds' `values` behind it."""
    return {
        "id": id,
        "what": what,
        "unit": unit,
        "theirs": "",
        "source": "",
        "ours": ours,
        "low": round(float(np.nanmin(values)), 4),
        "high": round(float(np.nanmax(values)), 4),
        "seeds": len(metadata["seeds"]),
        "examples": metadata["recipe"]["epochs"] * metadata["training images"],
        "seconds": round(metadata["seconds"]),
        "machine": metadata["machine"],
        "commit": metadata["commit"],
        "command": metadata["command"],
        "note": f"{tested} test pictures; seconds for all seeds together, on a machine busy with "
        "other work",
    }
