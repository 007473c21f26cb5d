"""The pendulum's angle in one and two latents, over sixteen seeds of each way to train.

Codes of 2,000 test pictures are recorded for every seed, and all scores are computed from them.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

import vae
from experiments import runs, seeds
from experiments.recipes import Recipe
from vae import evaluation

NAME = "pendulum"
COST = "about 20 minutes of one core: sixteen seeds of each of fourteen studies"
TRAIN, TEST = 5_000, 2_000
NOISE = 0.5  # of the noisy pictures, in intensities
THIN = {"length": 10.0, "bob_radius": 2.0, "rod_width": 1.5}

# The rate falls from the start, so that little is learned once beta is 1: a long time there makes
# the ring of codes wavy.
PLAIN = Recipe(20, 50, 4e-3)
HOT = dataclasses.replace(PLAIN, beta=20.0, hold=0.5, cool=0.75)
# Chosen on seeds 0 to 15, of thick and thin pendulums and Gymnasium's: none of those seeds folds
# (of the sixteen recorded on Gymnasium's pictures, one does).
FOCUSED = dataclasses.replace(PLAIN, beta=3.0, hold=0.4, cool=0.6, blur=6.0, focus=(0.4, 0.7))
LONG_FOCUSED = dataclasses.replace(FOCUSED, epochs=40, hold=0.2, cool=0.3, focus=(0.2, 0.35))


def bernoulli():
    """A Bernoulli likelihood, for grey intensities."""
    return vae.Bernoulli()


def learned():
    """A Gaussian likelihood whose one sigma is learned, from 0.5 on."""
    return vae.LearnedGaussian(1, std=0.5)


@dataclasses.dataclass(frozen=True)
class Study:
    """Sixteen seeds: which pictures, how many latents, which likelihood, trained how."""

    what: str
    recipe: Recipe
    shape: dict = dataclasses.field(default_factory=dict)
    latents: int = 2
    likelihood: Callable = bernoulli
    gymnasium: bool = False

    def data(self, key: jax.Array, n: int) -> vae.datasets.Pendulum:
        """Pictures and the states behind them, drawn with this key."""
        made = vae.datasets.pendulum(key, n, **self.shape)
        if not self.gymnasium:
            return made
        images = vae.datasets.gymnasium_pendulum(made.angles)
        return dataclasses.replace(made, images=images)


STUDIES = {
    "focused": Study("thick pendulum, out of focus and warm at first", FOCUSED),
    "hot": Study("thick pendulum, beta 20 cooled to 1", HOT),
    "beta1": Study("thick pendulum, beta 1 throughout", PLAIN),
    "thin-focused": Study("thin pendulum, out of focus and warm at first", FOCUSED, THIN),
    "thin-sharper": Study(
        "thin pendulum, less out of focus and less warm at first",
        dataclasses.replace(FOCUSED, beta=2.0, blur=4.0),
        THIN,
    ),
    # The same pictures, steps and rate, long at beta 1 at the end: only the way there differs.
    "thin-long-focused": Study(
        "thin pendulum, out of focus and warm at first, then long at beta 1", LONG_FOCUSED, THIN
    ),
    "thin-long-beta1": Study(
        "thin pendulum, beta 1 throughout, twice as long",
        dataclasses.replace(PLAIN, epochs=40),
        THIN,
    ),
    "thin-hot": Study("thin pendulum, beta 20 cooled to 1", HOT, THIN),
    "thin-beta1": Study("thin pendulum, beta 1 throughout", PLAIN, THIN),
    "gymnasium-focused": Study(
        "Gymnasium's pictures, out of focus and warm at first", FOCUSED, gymnasium=True
    ),
    "gymnasium-beta1": Study("Gymnasium's pictures, beta 1 throughout", PLAIN, gymnasium=True),
    "one-latent": Study("thick pendulum, one latent, beta 20 cooled to 1", HOT, latents=1),
    "noise-free": Study(
        "thick pendulum, noise-free, learned sigma", PLAIN, {"noise": 0.0}, likelihood=learned
    ),
    "noisy": Study(
        "thick pendulum, noise 0.5, learned sigma", PLAIN, {"noise": NOISE}, likelihood=learned
    ),
}


def record(name: str) -> None:
    """Train the sixteen seeds of a study and record their codes, unless that is done already."""
    study = STUDIES[name]
    models = [
        seeds.networks(seed, latents=study.latents, likelihood=study.likelihood())
        for seed in seeds.SEEDS
    ]
    test = test_data(name)
    seeds.record(
        f"{NAME}-{name}",
        study.what,
        runs.command(NAME, "--full", "--only", name),
        models,
        study.recipe,
        study.data(jax.random.key(seeds.SEEDS[0]), TRAIN).images,
        test.images,
        test.sin_cos,
    )


def test_data(name: str) -> vae.datasets.Pendulum:
    """A study's test pictures and their states: those of the recorded codes."""
    return STUDIES[name].data(jax.random.key(seeds.SEEDS[-1]), TEST)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What was recorded of a study, one entry per seed.

    `r2` (seeds, 3) is the affine R^2 of sin, cos and the angular velocity, fitted on the first half
    of the test codes and scored on the second. `std` (seeds,) is the mean of sigma_q, `active`
    (seeds,) counts active units; `bound`, `log_likelihood`, `kl`, `error` are means over pictures.
    """

    r2: np.ndarray
    std: np.ndarray
    active: np.ndarray
    bound: np.ndarray
    log_likelihood: np.ndarray
    kl: np.ndarray
    error: np.ndarray


def recorded(name: str) -> tuple[dict, Scores, dict]:
    """A recorded study: (its arrays, the scores of the seeds, its provenance)."""
    arrays, metadata = runs.read_result(f"{NAME}-{name}")
    # The states of a key do not depend on how they are drawn.
    states = vae.datasets.pendulum(jax.random.key(seeds.SEEDS[-1]), TEST)
    factors, half = np.c_[states.sin_cos, states.velocities], TEST // 2
    codes = arrays["codes"].astype(float)
    scores = Scores(
        r2=np.array(
            [
                evaluation.affine_r2(
                    code[:half], factors[:half], test=(code[half:], factors[half:])
                )
                for code in codes
            ]
        ),
        std=arrays["std"].mean(axis=(1, 2), dtype=float),
        active=np.array([evaluation.active_units(code).sum() for code in codes]),
        **{term: arrays[term] for term in ("bound", "log_likelihood", "kl", "error")},
    )
    return arrays, scores, metadata


MEASURES = {
    "r2.sin": ("test R^2 of sin from the posterior means, median", lambda s: s.r2[:, 0]),
    "r2.cos": ("test R^2 of cos from the posterior means, median", lambda s: s.r2[:, 1]),
    "r2.velocity": ("test R^2 of the angular velocity, median", lambda s: s.r2[:, 2]),
    "sigma_q": ("mean posterior standard deviation, median", lambda s: s.std),
    "bound": ("bound of the test pictures, median", lambda s: s.bound),
    "kl": ("KL of the test pictures, median", lambda s: s.kl),
    "active_units": ("active units, median", lambda s: s.active),
}
ROWS = {
    "pendulum": ("focused", ("r2.sin", "r2.cos", "r2.velocity")),
    "pendulum.hot": ("hot", ("r2.sin", "r2.cos")),
    "pendulum.beta1": ("beta1", ("r2.sin", "r2.cos")),
    "pendulum.thin_focused": ("thin-focused", ("r2.sin", "r2.cos")),
    "pendulum.thin_sharper": ("thin-sharper", ("r2.sin", "r2.cos")),
    "pendulum.thin_long_focused": ("thin-long-focused", ("r2.sin", "r2.cos", "bound")),
    "pendulum.thin_long_beta1": ("thin-long-beta1", ("r2.sin", "r2.cos", "bound")),
    "pendulum.thin_hot": ("thin-hot", ("r2.sin", "r2.cos")),
    "pendulum.thin_beta1": ("thin-beta1", ("r2.sin", "r2.cos")),
    "pendulum.gymnasium": ("gymnasium-focused", ("r2.sin", "r2.cos")),
    "pendulum.gymnasium_beta1": ("gymnasium-beta1", ("r2.sin", "r2.cos")),
    "pendulum.noise_free": ("noise-free", ("sigma_q", "kl", "active_units")),
    "pendulum.noisy": ("noisy", ("sigma_q", "kl", "active_units", "r2.sin", "r2.cos")),
}


def measured(name: str, measure: str) -> np.ndarray:
    """A measure of each seed of a study."""
    return np.asarray(MEASURES[measure][1](recorded(name)[1]), float)


def ledger_rows() -> list[dict]:
    """A row for each number that the chapter reports, from what was recorded."""
    rows = []
    for label, (name, measures) in ROWS.items():
        metadata = recorded(name)[2]
        for measure in measures:
            values = measured(name, measure)
            rows.append(
                seeds.ledger_row(
                    f"{label}.{measure}",
                    f"{STUDIES[name].what}: {MEASURES[measure][0]} over seeds",
                    {"bound": "nats", "kl": "nats", "active_units": "units"}.get(measure, "1"),
                    round(float(np.median(values)), 4),
                    values,
                    metadata,
                    TEST,
                )
            )
    return rows


def check(row: dict) -> float:
    """Recompute a row of the ledger from the recorded codes, in seconds."""
    label = max((label for label in ROWS if row["id"].startswith(f"{label}.")), key=len)
    return float(np.median(measured(ROWS[label][0], row["id"].removeprefix(f"{label}."))))


def quick() -> None:
    """One seed for a few epochs, and its scores: half a minute."""
    data = STUDIES["focused"].data(jax.random.key(0), TRAIN)
    models = [seeds.networks(0)]
    dataclasses.replace(FOCUSED, epochs=5).train(models, data.images, jax.random.key(0))
    code = evaluation.code_of(models[0], data.images)
    runs.say(f"affine R^2 of sin and cos: {evaluation.affine_r2(code, data.sin_cos)}")


EXPERIMENT = runs.Experiment(
    NAME,
    __doc__,
    COST,
    tuple(STUDIES),
    record=record,
    quick=quick,
    rows=ledger_rows,
)

if __name__ == "__main__":
    EXPERIMENT.main()
