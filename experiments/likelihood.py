"""How likely binarised MNIST is under a VAE and an IWAE, by three estimators, and what the gap is.

The models are those of `experiments.iwae` after 40 epochs: the VAE with k = 1, and the
importance-weighted autoencoder with k = 50. On the first binarised test images, all in float32:

    climb    importance sampling with 1 to 5,000 samples of q(z|x), 1,000 images
    ais      annealed importance sampling with 1,000 and 3,000 temperatures, 100 images
    gap      the bound of the encoder, and of the best diagonal Gaussian for each of the 100

The gap is taken from the longer annealing: 5,000 samples of q(z|x) are up to a nat too low.

    python -m experiments.likelihood                       a short run, on a barely trained model
    python -m experiments.likelihood --full                all of it, resumed part by part
    python -m experiments.likelihood --full --only vae     one of the models
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import vae
from experiments import iwae, runs
from vae.evaluation import evidence

NAME = "likelihood"
COST = "about 8 minutes of one core, after `iwae`"
EPOCHS = 40
MODELS = {"vae": iwae.Run("vae", 1, last=4), "iwae": iwae.Run("iwae", 50, last=3)}
CLIMB_IMAGES, FEW_IMAGES = 1000, 100  # for the slower estimates, few
TEMPERATURES, CHAINS = (1000, 3000), 8
LEAPFROG = 3  # steps a transition: short ones at more temperatures beat long ones at the same cost
ASCENT_STEPS, BOUND_SAMPLES = 1000, 1000
KEY = 2018  # seed of every estimate


def climb(model, images: np.ndarray, key: jax.Array, counts=evidence.COUNTS) -> dict:
    """Importance sampling: the estimate and its standard error after each number of samples."""
    estimate = evidence.importance_sampling(model, jnp.asarray(images), key, counts)
    return estimate._asdict()


def anneal(model, images: np.ndarray, key: jax.Array, num_temperatures: int, chains: int) -> dict:
    """Annealed importance sampling of each image, its standard error and acceptance."""
    estimate = evidence.annealed_importance_sampling(
        model,
        jnp.asarray(images),
        key,
        num_temperatures=num_temperatures,
        num_chains=chains,
        num_leapfrog=LEAPFROG,
    )
    return estimate._asdict()


def split_gap(model, images: np.ndarray, key: jax.Array, steps: int, samples: int) -> dict:
    """The bound of the encoder's Gaussian, and of the best one for each image, (n,) each.

    Both are means over `samples` draws, other ones than those of the ascent. With log p(x), they
    make the two parts of the gap.
    """
    x = jnp.asarray(images)
    ascent_key, best_key, encoder_key = jax.random.split(key, 3)
    best = evidence.optimal_posterior(model, x, ascent_key, steps)
    return {
        "best": evidence.elbo_at(model, x, *best, best_key, samples),
        "encoder": evidence.elbo_at(model, x, *model.encode(x), encoder_key, samples),
    }


# What is computed of a model, part by part: (model, images, key) -> arrays.
PARTS: dict[str, Callable] = {
    "climb": lambda model, images, key: climb(model, images[:CLIMB_IMAGES], key),
    **{
        f"ais{n}": lambda model, images, key, n=n: anneal(
            model, images[:FEW_IMAGES], key, n, CHAINS
        )
        for n in TEMPERATURES
    },
    "gap": lambda model, images, key: split_gap(
        model, images[:FEW_IMAGES], key, ASCENT_STEPS, BOUND_SAMPLES
    ),
}


def compute_part(name: str, model, images: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a part. Each part has a key of its own, whatever else is computed."""
    key = jax.random.fold_in(jax.random.key(KEY), list(PARTS).index(name))
    return jax.tree.map(np.asarray, PARTS[name](model, images, key))


def compute(model, images: np.ndarray, state: Path) -> tuple[dict, dict]:
    """(the arrays of all parts as PART/ARRAY, the seconds of each part).

    A part that is in the folder `state` is read back, unless it belongs to other weights.
    """
    whose = iwae.fingerprint(model, images)
    arrays, seconds = {}, {}
    for name in PARTS:
        path = state / f"{name}.npz"
        done = vae.checkpoints.read(path) if path.exists() else None
        if done is None or done[1]["whose"] != whose:
            started = time.perf_counter()
            tree = compute_part(name, model, images)
            done = tree, {"whose": whose, "seconds": time.perf_counter() - started}
            vae.checkpoints.save(path, *done)
        arrays |= {f"{name}/{array}": value for array, value in done[0].items()}
        seconds[name] = done[1]["seconds"]
        runs.say(f"    {name}: {seconds[name]:.0f} s")
    return arrays, seconds


def result(name: str) -> str:
    """The name of what is recorded of a model."""
    return f"{NAME}-{name}"


def record(name: str) -> None:
    """Compute and record all parts for a model."""
    run = MODELS[name]
    runs.say(f"{result(name)}: {run.name} after {EPOCHS} epochs")
    model = iwae.trained(run, EPOCHS)
    arrays, seconds = compute(model, iwae.test_images(), runs.STATE / NAME / name)
    vae.checkpoints.save(
        runs.result_path(result(name)),
        arrays,
        {
            **runs.provenance(),
            "command": runs.command(NAME, "--full", "--only", name),
            "model": run.result(EPOCHS),
            "counts": list(evidence.COUNTS),
            "temperatures": list(TEMPERATURES),
            "chains": CHAINS,
            "leapfrog": LEAPFROG,
            "seconds": sum(seconds.values()),
            "seconds of parts": seconds,
        },
    )
    runs.say(f"{result(name)}: {summary(arrays)}")


def recorded(name: str) -> tuple[dict, dict]:
    """What is recorded of a model: (its arrays, its provenance)."""
    return runs.read_result(result(name))


# What a model scores: on how many of the images, by which parts.
MEASURES = {
    "nll": (CLIMB_IMAGES, ("climb",), "-log p(x) by importance sampling, 5,000 samples"),
    "nll.is_of_ais": (FEW_IMAGES, ("climb",), "the same where annealing was done"),
    "nll.ais": (FEW_IMAGES, ("ais3000",), "-log p(x) by annealing, 3,000 temperatures"),
    "nll.ais_short": (FEW_IMAGES, ("ais1000",), "-log p(x) by annealing, 1,000 temperatures"),
    "gap": (FEW_IMAGES, ("ais3000", "gap"), "log p(x) less the encoder's bound"),
    "gap.approximation": (
        FEW_IMAGES,
        ("ais3000", "gap"),
        "log p(x) less the bound of the best diagonal Gaussian",
    ),
    "gap.amortisation": (
        FEW_IMAGES,
        ("gap",),
        "the bound of the best diagonal Gaussian less the encoder's",
    ),
}


def measured(arrays: dict) -> dict[str, np.ndarray]:
    """The values behind each of MEASURES, one per image, in nats."""
    importance, annealed = arrays["climb/log_evidence"][-1], arrays["ais3000/log_evidence"]
    best, encoder = arrays["gap/best"], arrays["gap/encoder"]
    return {
        "nll": -importance,
        "nll.is_of_ais": -importance[:FEW_IMAGES],
        "nll.ais": -annealed,
        "nll.ais_short": -arrays["ais1000/log_evidence"],
        "gap": annealed - encoder,
        "gap.approximation": annealed - best,
        "gap.amortisation": best - encoder,
    }


def summary(arrays: dict) -> dict[str, float]:
    """The mean of each measure over its images, in nats."""
    return {what: round(float(v.mean(dtype=float)), 3) for what, v in measured(arrays).items()}


def ledger_rows() -> list[dict]:
    """A row for each model and measure, from what was recorded."""
    rows = []
    for name, run in MODELS.items():
        arrays, metadata = recorded(name)
        for what, values in measured(arrays).items():
            images, _, words = MEASURES[what]
            mean, error = iwae.mean_and_error(values)
            rows.append(
                {
                    "id": f"likelihood.{name}.k{run.k}.{what}",
                    "what": f"{run.kind.upper()}, k = {run.k}, after {EPOCHS} epochs: {words}, "
                    f"mean over {images:,} test images, resampled binarisation",
                    "unit": "nats",
                    "theirs": "",
                    "source": "",
                    "ours": round(mean, 3),
                    "low": round(mean, 3),
                    "high": round(mean, 3),
                    "seeds": 1,
                    "examples": images,
                    "seconds": round(metadata["seconds"]),
                    "machine": metadata["machine"],
                    "commit": metadata["commit"],
                    "command": metadata["command"],
                    "note": f"standard error over images {error:.3f} nats; examples are the test "
                    "images; seconds of all parts together, on a machine busy with other work",
                    "better": "",
                    "tolerance": "",
                    "why": "",
                }
            )
    return rows


def check(row: dict) -> float:
    """Recompute a row of the ledger from the recorded weights: seconds, and minutes for AIS."""
    _, name, _, what = row["id"].split(".", 3)
    model, arrays = iwae.trained(MODELS[name], EPOCHS), recorded(name)[0]
    for part in MEASURES[what][1]:
        again = compute_part(part, model, iwae.test_images())
        arrays |= {f"{part}/{array}": value for array, value in again.items()}
    return summary(arrays)[what]


def quick() -> None:
    """Three estimates for ten images, of a model that has seen 6,000 once: a minute."""
    images, test = iwae.train_images()[:6000], iwae.test_images()[:10]
    model = iwae.make_model(0, images.mean(axis=0) / 255)
    vae.fit(
        model,
        images,
        key=jax.random.key(0),
        epochs=2,
        batch_size=iwae.BATCH,
        optimizer=iwae.optimizer(len(images) // iwae.BATCH),
        objective=iwae.objective("vae", 1),
    )
    keys = jax.random.split(jax.random.key(KEY), 3)
    importance = climb(model, test, keys[0], (1, 10, 100, 1000))["log_evidence"]
    annealed = anneal(model, test, keys[1], 200, 4)["log_evidence"]
    gap = split_gap(model, test, keys[2], 200, 200)
    runs.say(f"log p(x) after 1, 10, 100, 1,000 samples: {importance.mean(axis=1)} nats")
    runs.say(f"by annealed importance sampling: {annealed.mean():.2f} nats")
    runs.say(f"bound: {gap['encoder'].mean():.2f}, best {gap['best'].mean():.2f} nats")


EXPERIMENT = runs.Experiment(
    NAME,
    __doc__,
    COST,
    tuple(MODELS),
    record=record,
    quick=quick,
    rows=ledger_rows,
)

if __name__ == "__main__":
    EXPERIMENT.main()
