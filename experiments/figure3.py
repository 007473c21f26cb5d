"""Figure 3 of Kingma & Welling 2013: the marginal likelihood along training, three methods.

MNIST, 3 latents, 100 hidden units, 1,000 and 50,000 training images. AEVB, wake-sleep, and Monte
Carlo EM with Hamiltonian Monte Carlo (Appendix E), by the protocol of `experiments.paper`: Adagrad,
the step size chosen for each method and training set. At nine points along the way, log p(x) of
the first 1,000 training and the first 1,000 test images is estimated from posterior samples, as in
Appendix D: 50 samples to fit a density, 50 fresh ones, HMC with 4 leapfrog steps; each chain
starts at one of many draws of the prior, chosen in proportion to p(x|z). The products with the
pixels' weights are in bfloat16 while training (`experiments.precision`), never while scoring.

    python -m experiments.figure3                           a short run, to see that it works
    python -m experiments.figure3 --list                    the runs, and which are recorded
    python -m experiments.figure3 --full                    all of them, resumed where stopped
    python -m experiments.figure3 --full --only NAME        one run, for a second process
"""

import contextlib
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import vae
from experiments import paper, published, runs
from vae.baselines import wake_sleep
from vae.baselines.mcem import fit_mcem
from vae.evaluation import as_intensities
from vae.evaluation.evidence import posterior_starts, reciprocal_importance_sampling

NAME = "figure3"
COST = "about 2 hours of one core"
LATENT, HIDDEN = 3, 100  # Section 5
SCORED = 1000  # images of each split, from the first on: Appendix D
SAMPLES, LEAPFROG = 50, 4  # of each posterior, and of the chain that draws them: Appendix D
STARTS = 65_536  # draws of the prior, among which each chain finds its start
MCEM_LEAPFROG, MCEM_UPDATES, MCEM_ACCEPTANCE = 10, 5, 0.9  # Appendix E
EPOCH = 50_000  # examples in a compiled epoch of AEVB and wake-sleep
# Training examples at which log p(x) is estimated. At the first, the left end of the paper's
# figure, the step size is chosen. (At a quarter of it, one pass of MCEM over 50,000 images, it
# would be 0.1 for MCEM there, which was 9 nats behind 0.02 after twelve passes.)
POINTS = (
    1_000_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000, 20_000_000, 30_000_000, 45_000_000,
    60_000_000,
)  # fmt: skip
KEPT = (10_000_000, 30_000_000, 60_000_000)  # points in the ledger, whose decoders are kept
CURVES = {"aevb": "AEVB", "ws": "WS", "mcem": "MCEM"}  # the names of the digitised curves
OBJECTIVES = {"aevb": vae.elbo, "ws": wake_sleep}
TOLERANCE = 3.0  # nats within which a number of ours is said to match the paper's
WHY: dict[str, str] = {}  # ledger id: why ours falls short


@dataclasses.dataclass(frozen=True)
class Run:
    """One pair of curves: a method, a number of training images, a seed, and how far it goes.

    Where not `persistent`, Monte Carlo EM starts its chains anew at each visit of an image.
    """

    method: str
    train_size: int
    seed: int = 0
    examples: int = POINTS[-1]
    persistent: bool = True

    @property
    def name(self) -> str:
        """As in `experiments/results/figure3-NAME.npz`."""
        method = self.method if self.persistent else f"{self.method}-anew"
        return f"{method}-n{self.train_size}-seed{self.seed}"


# The second seeds end at 10^7 examples: they say how far seeds differ, at a sixth of the cost.
RUNS = [
    Run(method, train_size, seed, examples)
    for (seed, examples), train_size, method in itertools.product(
        ((0, POINTS[-1]), (1, 10_000_000)), (1000, 50_000), CURVES
    )
]
# Not in the figure: the paper does not say whether its chains go on where an image's last visit
# left them, as ours do.
ANEW = Run("mcem", 50_000, examples=30_000_000, persistent=False)
NAMED = {run.name: run for run in (*RUNS, ANEW)}


def make_model(seed: int, *, half: bool = False) -> vae.VAE:
    """The model of the figure, as it starts."""
    return paper.make_model(seed, LATENT, HIDDEN, half=half)


@functools.cache
def optimizer(step_size: float, train_size: int):
    """One object for each setting, so that the pieces of a run compile once."""
    return paper.adagrad(step_size, train_size)


def train(run: Run, step_size: float, examples: int) -> tuple[vae.VAE, float]:
    """A run up to a number of examples: (the model, seconds of training), resumed if stopped."""
    model = make_model(run.seed, half=True)
    images = vae.datasets.mnist().train.images[: run.train_size]
    settings = {
        "key": jax.random.key(run.seed),
        "batch_size": paper.BATCH,
        "optimizer": optimizer(step_size, run.train_size),
        "progress": False,
        "checkpoint": runs.STATE / NAME / f"{run.name}-{step_size}.npz",
    }
    if run.method == "mcem":
        # A visit of a minibatch counts once for each of its updates.
        epoch = run.train_size * MCEM_UPDATES
        history = fit_mcem(
            model,
            images,
            epochs=examples // epoch,
            num_leapfrog=MCEM_LEAPFROG,
            num_updates=MCEM_UPDATES,
            target_acceptance=MCEM_ACCEPTANCE,
            persistent=run.persistent,
            checkpoint_every=max(1, 1_000_000 // epoch),
            **settings,
        )
    else:
        # Ten minibatches are too few for a compiled epoch: it holds each image of a small set as
        # often as makes 50,000, shuffled. (MCEM has a chain for each image, so no copies.)
        history = vae.fit(
            model,
            np.concatenate([images] * (EPOCH // len(images))),
            epochs=examples // EPOCH,
            objective=OBJECTIVES[run.method],
            checkpoint_every=20,
            **settings,
        )
    return model, float(history.seconds[-1])


def score(model: vae.VAE, method: str) -> dict[str, float]:
    """Means over the first images of both splits, in nats: log p(x), its error, the bound."""
    data, values = vae.datasets.mnist(), {}
    for i, split in enumerate(("train", "test")):
        images = getattr(data, split).images[:SCORED]
        values |= log_evidence(model, images, 2000 + i, split)
        if method in OBJECTIVES:  # MCEM trains no encoder
            bound = vae.evaluate(model, images, key=jax.random.key(3000 + i)).bound
            values[f"{split}_bound"] = float(np.asarray(bound, np.float64).mean())
    return values


def log_evidence(model: vae.VAE, images, seed: int, split: str) -> dict[str, float]:
    """The mean of log p(x), its standard error over images, and the acceptance of the chains."""
    x = as_intensities(jnp.asarray(images))
    start_key, key = jax.random.split(jax.random.key(seed))
    estimate = reciprocal_importance_sampling(
        model,
        x,
        key,
        SAMPLES,
        num_leapfrog=LEAPFROG,
        starts=posterior_starts(model, x, start_key, STARTS),
    )
    values = np.asarray(estimate.log_evidence, np.float64)
    return {
        split: float(values.mean()),
        f"{split}_error": float(values.std(ddof=1) / np.sqrt(len(values))),
        f"{split}_acceptance": float(np.mean(estimate.acceptance)),
    }


def advance(run: Run, step_size: float, examples: int) -> tuple[list[dict], dict]:
    """(what was scored at each point up to `examples`, the decoders kept there in float16).

    Training stops at each point; what is scored there is written before it goes on. Killed at any
    moment, a run goes on from the last of both.
    """
    path = runs.STATE / NAME / f"{run.name}-{step_size}-scores.npz"
    kept, metadata = vae.checkpoints.read(path) if path.exists() else ({}, {"points": []})
    points = metadata["points"]
    for at in POINTS[len(points) :]:
        if at > examples:
            break
        model, seconds = train(run, step_size, at)
        # Scored as kept: weights rounded to float16, products in float32.
        scored = make_model(run.seed)
        nnx.update(scored, nnx.state(model, nnx.Param))
        half = paper.kept_weights(scored)
        points.append({"examples": at, "seconds": seconds, **score(scored, run.method)})
        if at in KEPT:
            kept |= paper.flat(half["decoder"], f"weights/{at}/decoder/")
        vae.checkpoints.save(path, kept, {"points": points})
        runs.say(
            f"{run.name}, step {step_size}: {at:,} of {run.examples:,} examples in {seconds:.0f} "
            f"s, about {seconds * (run.examples / at - 1):.0f} s left, log p(x) "
            f"{points[-1]['train']:.2f} train, {points[-1]['test']:.2f} test"
        )
    return points, kept


def choose_step_size(run: Run) -> tuple[float, list[float]]:
    """(the step size of the best log p(x) of training images at the first point, all of them)."""
    values = []
    for step_size in paper.STEP_SIZES:
        try:
            values.append(advance(run, step_size, POINTS[0])[0][0]["train"])
        except FloatingPointError as error:
            runs.say(f"{run.name}, step {step_size}: {error}")
            values.append(-np.inf)
    return paper.STEP_SIZES[int(np.argmax(values))], values


def record(run: Run) -> None:
    """Choose the step size, train and score to the end, and record the curves."""
    step_size, screening = choose_step_size(run)
    points, kept = advance(run, step_size, run.examples)
    curve = {f"curve/{name}": np.array([point[name] for point in points]) for name in points[0]}
    vae.checkpoints.save(
        runs.result_path(f"{NAME}-{run.name}"),
        curve | kept,
        {
            **runs.provenance(),
            "command": runs.command(NAME, "--full", "--only", run.name),
            "run": dataclasses.asdict(run),
            "step_size": step_size,
            "screening": dict(zip(map(str, paper.STEP_SIZES), map(str, screening), strict=True)),
            "seconds": points[-1]["seconds"],
        },
    )


def recorded(run: Run) -> tuple[dict, dict]:
    """A recorded run: (its arrays, its provenance)."""
    return runs.read_result(f"{NAME}-{run.name}")


def trained(run: Run, examples: int) -> vae.VAE:
    """The model of a recorded run at a point of `KEPT`: its decoder, and an untrained encoder."""
    model, prefix = make_model(run.seed), f"weights/{examples}/"
    arrays = paper.flat(nnx.to_pure_dict(nnx.state(model, nnx.Param)), "weights/")
    arrays |= {
        f"weights/{name.removeprefix(prefix)}": value
        for name, value in recorded(run)[0].items()
        if name.startswith(prefix)
    }
    return paper.load_weights(model, arrays)


def value_at(run: Run, split: str, examples: int) -> float:
    """The recorded mean of log p(x) at a point, in nats. Raises ValueError where there is none."""
    arrays, _ = recorded(run)
    at = np.flatnonzero(arrays["curve/examples"] == examples)
    if not len(at):
        raise ValueError(f"{run.name} has no point at {examples:,} examples")
    return float(arrays[f"curve/{split}"][at[0]])


def ledger_rows() -> list[dict]:
    """One row for each method, training set, kept point and split, from what was recorded."""
    groups: dict[tuple, list[Run]] = {}
    for run in (*RUNS, ANEW):
        if runs.result_path(f"{NAME}-{run.name}").exists():
            groups.setdefault((run.method, run.persistent, run.train_size), []).append(run)
    return [
        _row([run for run in members if run.examples >= examples], examples, split)
        for members in groups.values()
        for examples in KEPT
        if any(run.examples >= examples for run in members)
        for split in ("train", "test")
    ]


def _id(run: Run, examples: int, split: str) -> str:
    method = run.method if run.persistent else f"{run.method}_anew"
    return f"fig3.n{run.train_size}.{method}.{examples // 10**6}e6.{split}"


def _row(reached: list[Run], examples: int, split: str) -> dict:
    first, values = reached[0], [value_at(run, split, examples) for run in reached]
    theirs = None
    if first.persistent:  # ours that start anew are not in the paper's figure
        with contextlib.suppress(ValueError):  # below the paper's axis
            curve = f"{CURVES[first.method]}_{split}"
            theirs = published.figure3_at(curve, first.train_size, examples)
    metadata = [recorded(run)[1] for run in reached]
    curves = [recorded(run)[0] for run in reached]
    seconds = [np.interp(examples, c["curve/examples"], c["curve/seconds"]) for c in curves]
    steps = sorted({run["step_size"] for run in metadata})
    return {
        "id": _id(first, examples, split),
        "what": f"MNIST, 3 latents, {first.train_size:,} training images, {CURVES[first.method]}"
        f"{'' if first.persistent else ' with chains started anew at each visit'}: mean log p(x) "
        f"of the first 1,000 {split} images after {examples // 10**6} million examples, estimated "
        "from posterior samples, grey intensities under a Bernoulli likelihood, mean over seeds",
        "unit": "nats",
        "theirs": "" if theirs is None else round(theirs, 2),
        "source": "" if theirs is None else f"{published.SOURCE}, Figure 3",
        "better": "higher",
        "tolerance": TOLERANCE,
        "why": WHY.get(_id(first, examples, split), ""),
        "ours": round(float(np.mean(values)), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
        "seeds": len(values),
        "examples": examples,
        "seconds": round(float(np.mean(seconds))),
        "machine": metadata[0]["machine"],
        "commit": metadata[0]["commit"],
        "command": runs.command(NAME, "--full"),
        "note": f"Adagrad, step size {' or '.join(map(str, steps))}; products with the pixels' "
        "weights in bfloat16 while training; decoder kept in float16, scored as kept; seconds of "
        "training on one core, on a machine busy with other work",
    }


def check(row: dict) -> float:
    """Recompute a row of the ledger from the recorded decoders, in seconds."""
    data = vae.datasets.mnist()
    for examples, i in itertools.product(KEPT, (0, 1)):
        split = ("train", "test")[i]
        reached = [
            run
            for run in (*RUNS, ANEW)
            if _id(run, examples, split) == row["id"] and run.examples >= examples
        ][: int(row["seeds"])]
        if reached:
            images = getattr(data, split).images[:SCORED]
            values = [
                log_evidence(trained(run, examples), images, 2000 + i, split)[split]
                for run in reached
            ]
            return float(np.mean(values))
    raise SystemExit(f"{NAME} has no row {row['id']}")


def quick() -> None:
    """Each method to the first point of its curve."""
    for method in CURVES:
        advance(Run(method, 1000, seed=99, examples=POINTS[0]), 0.02, POINTS[0])


EXPERIMENT = runs.Experiment(
    NAME,
    __doc__,
    COST,
    NAMED,
    record=lambda name: record(NAMED[name]),
    quick=quick,
    rows=ledger_rows,
)

if __name__ == "__main__":
    EXPERIMENT.main()
