"""The importance-weighted autoencoder of Burda et al. 2015 on binarised MNIST, k = 1, 5 and 50.

Y. Burda, R. Grosse and R. Salakhutdinov, Importance Weighted Autoencoders, arXiv 1509.00519,
Section 5: two tanh layers of 200 units each way, 50 latents, every image binarised anew each time
that it is seen. Their learning rate is 0.001 * 10^(-i/7) for 3^i epochs, i = 0 to 7. Here the same
schedule stops sooner: after i = 3 (40 of the 3,280 epochs) or i = 4 (121). The model is scored
where the rate changes, from i = 2 on, so a run says what stopping theirs there would have given.
(The other way to shorten it, a fall by a factor of ten within the epochs that there are, leaves the
rate too low too soon: after 13 epochs that model was 4 nats behind.)

    python -m experiments.iwae                       a short run (a minute), to see that it works
    python -m experiments.iwae --list                the runs, and which are recorded
    python -m experiments.iwae --full                all of them, resumed where they stopped
    python -m experiments.iwae --full --only NAME    one run, for a second process

Where their text and their code (github.com/yburda/iwae) leave a choice: the VAE maximises the mean
of k log weights, as in the code, and no KL is integrated, so VAE and IWAE are one model at k = 1;
Adam's epsilon belongs to gradients summed over a minibatch, as in the code; its beta_1 is the
text's 0.9, not the code's 0.99, and its averages start at 0 with the usual correction, where the
code starts the second one at 1. An encoder gives log-variances, where theirs gives the logarithm
of standard deviations. The order of the images is drawn anew for each epoch, where theirs is fixed.
In training with k = 50, and in every score, the products with the pixels' weights are in bfloat16
(`experiments.precision`).
"""

import dataclasses
import functools
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import vae
from experiments import paper, runs
from experiments.precision import half_products
from vae import evaluation
from vae.evaluation import evidence

NAME = "iwae"
COST = "about 2.5 hours of one core"
SOURCE = "Burda et al. 2015, arXiv 1509.00519, Table 1"
DATA, HIDDEN, LATENT, BATCH = 784, (200, 200), 50, 20
RATE, DECADE = 1e-3, 7  # the rate is RATE * 10^(-i / DECADE) for 3^i epochs
FULL_SCHEDULE = 3280  # epochs, i = 0 to 7
EPSILON = 1e-4  # Adam's, for gradients summed over a minibatch
MEAN_CLIP = 0.001  # pixels that are always black, or white, count as such this often
COUNTS = evidence.COUNTS  # of samples: log p(x) is estimated after 1, 2, 5, ... 5,000 of them
BLOCK = 1000  # test images scored between two saves
HALF_FROM = 50  # samples from which rounded products pay: below, the optimiser takes the time
BINARISATION, SCORING, BOUND = 2015, 2016, 2017  # seeds of the test images and of their scores
TOLERANCE = {"nll": 1.0, "active": 3}  # nats, units: within which a number is called matched

# Test NLL = -L_5000 in nats and active units, of one stochastic layer.
TABLE_1 = {
    ("vae", 1): (86.76, 19),
    ("vae", 5): (86.47, 20),
    ("vae", 50): (86.35, 20),
    ("iwae", 5): (85.54, 22),
    ("iwae", 50): (84.78, 25),
}
# The same on one fixed binarisation of all images: Table 3.
TABLE_3 = {("vae", 1): 88.71, ("iwae", 5): 87.63, ("iwae", 50): 87.10}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: which objective, how many samples, how far into the schedule, which seed."""

    kind: str  # vae: the mean of the log weights; iwae: the log of their mean
    k: int
    last: int  # the last i of the schedule
    seed: int = 0

    @property
    def name(self) -> str:
        """Its results are `experiments/results/iwae-NAME-EPOCHSepochs.npz`."""
        return f"{self.kind}-k{self.k}-seed{self.seed}"

    @property
    def stages(self) -> list[int]:
        """The numbers of epochs after which it is scored."""
        return [epochs_after(i) for i in range(2, self.last + 1)]

    def keeps_weights(self, epochs: int) -> bool:
        """Whether the weights after these epochs are recorded: later pages use them."""
        return self.seed == 0 and epochs >= epochs_after(3)

    def result(self, epochs: int) -> str:
        """The name of what is recorded after these epochs."""
        return f"{NAME}-{self.name}-{epochs}epochs"


def epochs_after(i: int) -> int:
    """Epochs at the end of the schedule's part i: 1 + 3 + ... + 3^i."""
    return (3 ** (i + 1) - 1) // 2


RUNS = [
    Run("vae", 1, last=4),
    Run("iwae", 5, last=4),
    Run("iwae", 50, last=3),
    Run("vae", 5, last=4),
    Run("vae", 50, last=3),
    Run("vae", 1, last=3, seed=1),
    Run("iwae", 5, last=3, seed=1),
]
NAMED = {run.name: run for run in RUNS}


def make_model(seed: int, pixel_mean=None, *, half: bool = False) -> vae.VAE:
    """The model of Burda et al.: Glorot's uniform weights, zero biases.

    With `pixel_mean`, the mean intensity (784,) of the training images, the output biases are its
    logits, so that the decoder starts at the mean image. A pixel that is black in every image gets
    the logit of 0.001, as in the authors' code. `half` computes the products with the pixels'
    weights in bfloat16 (`experiments.precision`).
    """
    rngs = nnx.Rngs(seed)
    options = {"kernel_init": nnx.initializers.glorot_uniform()}
    if half:
        options["dot_general"] = half_products
    encoder = vae.MLPEncoder(DATA, HIDDEN, LATENT, rngs=rngs, **options)
    decoder = vae.MLPDecoder(LATENT, HIDDEN, DATA, rngs=rngs, **options)
    if pixel_mean is not None:
        mean = np.clip(pixel_mean, MEAN_CLIP, 1 - MEAN_CLIP)
        decoder.output.bias = nnx.Param(jnp.asarray(np.log(mean / (1 - mean)), jnp.float32))
    return vae.VAE(encoder, decoder)


def mean_log_weight(model, x: jax.Array, key: jax.Array, num_samples: int) -> jax.Array:
    """The VAE's objective with several samples: the mean of the log weights, (batch,), in nats.

    The ELBO for any number of samples; more of them take noise out of its gradient.
    """
    return jnp.mean(vae.log_importance_weights(model, x, key, num_samples), axis=0)


@functools.cache  # one object for all seeds, so that `fit` compiles it once
def objective(kind: str, k: int):
    """What a run maximises, on images binarised anew at every step."""
    bound = {"vae": mean_log_weight, "iwae": vae.iwae_bound}[kind]
    return vae.binarized(functools.partial(bound, num_samples=k))


@functools.cache
def optimizer(steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam on the whole schedule of Burda et al., of which a run does the first epochs."""
    falls = {steps_per_epoch * epochs_after(i): 10 ** (-1 / DECADE) for i in range(DECADE)}
    # `fit` averages gradients over the minibatch: with epsilon divided alike, steps are the same.
    return optax.adam(
        optax.piecewise_constant_schedule(RATE, falls), b1=0.9, b2=0.999, eps=EPSILON / BATCH
    )


@functools.cache
def train_images() -> np.ndarray:
    """All 60,000 training images as levels 0..255; the authors' code holds 400 of them out."""
    data = vae.datasets.mnist()
    return np.concatenate([data.train.images, data.validation.images])


@functools.cache
def test_images() -> np.ndarray:
    """The 10,000 test images, binarised once by a fixed key: 0 and 1 in float32."""
    intensities = evaluation.as_intensities(jnp.asarray(vae.datasets.mnist().test.images))
    drawn = jax.random.bernoulli(jax.random.key(BINARISATION), intensities)
    return np.asarray(drawn, np.float32)


def train(run: Run):
    """Train a run; after each stage, (epochs, its weights in half precision, its History).

    Resumes where an earlier process was stopped. A stage that is recorded is passed over.
    """
    images = train_images()
    model = make_model(run.seed, images.mean(axis=0) / 255, half=run.k >= HALF_FROM)
    maximised, adam = objective(run.kind, run.k), optimizer(len(images) // BATCH)
    for epochs in run.stages:
        if runs.result_path(run.result(epochs)).exists():
            runs.say(f"{run.result(epochs)}: recorded")
            continue
        runs.say(f"{run.name}: to {epochs} epochs of {len(images):,} images")
        history = vae.fit(
            model,
            images,
            key=jax.random.key(run.seed),
            epochs=epochs,
            batch_size=BATCH,
            optimizer=adam,
            objective=maximised,
            checkpoint=runs.STATE / NAME / f"{run.name}.npz",
            checkpoint_every=max(1, 10 // run.k),  # about a minute of work
        )
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        yield epochs, jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params), history


def log_evidence(model, images, counts, partial: Path | None = None) -> np.ndarray:
    """Estimates of log p(x) after growing numbers of samples, (len(counts), n), in nats.

    What is done is kept in the file `partial` after each block of images, so that a killed run
    goes on there to the same numbers. A file that belongs to other weights or images is not used.
    """
    whose = fingerprint(model, images, counts)
    done = np.zeros((len(counts), 0), np.float32)
    if partial and partial.exists():
        arrays, metadata = vae.checkpoints.read(partial)
        if metadata["whose"] == whose:
            done = arrays["done"]
    for start in range(done.shape[1], len(images), BLOCK):
        key = jax.random.fold_in(jax.random.key(SCORING), start)
        block = jnp.asarray(images[start : start + BLOCK])
        estimate = evidence.importance_sampling(model, block, key, counts).log_evidence
        done = np.concatenate([done, np.asarray(estimate)], axis=1)
        if partial:
            vae.checkpoints.save(partial, {"done": done}, {"whose": whose})
        nll = -done[-1].mean(dtype=float)
        runs.say(f"    {done.shape[1]:,} of {len(images):,} images: NLL {nll:.2f} nats")
    return done


def fingerprint(*parts) -> int:
    """A number that other weights, images or settings do not share."""
    digest = 0
    for part in parts:
        leaves = nnx.state(part, nnx.Param) if isinstance(part, nnx.Module) else part
        for leaf in jax.tree.leaves(leaves):
            digest = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), digest)
    return digest


def score(model, partial: Path | None = None) -> tuple[dict, dict]:
    """(arrays of scores, the numbers of the table), of a model on the binarised test images."""
    images = test_images()
    climb = log_evidence(model, images, COUNTS, partial)
    bound = vae.evaluate(model, images, key=jax.random.key(BOUND)).bound
    means = evaluation.code_of(model, images)
    arrays = {
        "log_evidence": climb[-1],
        "climb": climb.mean(axis=1, dtype=float),
        "variance_of_means": means.var(axis=0),
    }
    numbers = {
        "nll": -mean_and_error(climb[-1])[0],
        "nll_error": mean_and_error(climb[-1])[1],
        "bound": mean_and_error(bound)[0],
        "bound_error": mean_and_error(bound)[1],
        "active": int(evaluation.active_units(means).sum()),
    }
    return arrays, numbers


def mean_and_error(values) -> tuple[float, float]:
    """(the mean over images, its standard error)."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def record(run: Run) -> None:
    """Train a run; score and keep it after each of its stages."""
    for epochs, half, history in train(run):
        # Scored as kept: in half precision. Rounded products changed the mean over 1,000 images by
        # less than 0.002 nats, in 60 % of the time.
        model = paper.load_weights(make_model(run.seed, half=True), paper.flat(half, "weights/"))
        arrays, numbers = score(model, runs.STATE / NAME / f"{run.name}-{epochs}epochs-scores.npz")
        vae.checkpoints.save(
            runs.result_path(run.result(epochs)),
            {
                **arrays,
                "curve": {"seconds": history.seconds, "objective": history.objective},
                **({"weights": half} if run.keeps_weights(epochs) else {}),
            },
            {
                **runs.provenance(),
                "command": runs.command(NAME, "--full", "--only", run.name),
                "run": dataclasses.asdict(run),
                "epochs": epochs,
                "examples": int(history.examples[-1]),
                "seconds": float(history.seconds[-1]),
                "counts": list(COUNTS),
                "scores": numbers,
            },
        )
        runs.say(f"{run.result(epochs)}: {numbers}")


def is_recorded(run: Run) -> bool:
    """Whether every stage of a run is recorded."""
    return all(runs.result_path(run.result(epochs)).exists() for epochs in run.stages)


def recorded(run: Run, epochs: int) -> tuple[dict, dict]:
    """What is recorded after a stage of a run: (its arrays, its provenance and scores)."""
    return runs.read_result(run.result(epochs))


def trained(run: Run, epochs: int, *, half: bool = False) -> vae.VAE:
    """The model after a stage of a run. Raises KeyError where its weights were not kept."""
    return paper.load_weights(make_model(run.seed, half=half), recorded(run, epochs)[0])


def find(kind: str, k: int, epochs: int) -> list[Run]:
    """The runs of an objective that were scored after these epochs, one per seed."""
    return [run for run in RUNS if (run.kind, run.k) == (kind, k) and epochs in run.stages]


def ledger_rows() -> list[dict]:
    """One row per model and number of epochs, from what was recorded.

    The longest training of a model stands beside Table 1, under the plain id.
    """
    rows = []
    for kind, k in TABLE_1:
        stages = max((run.stages for run in RUNS if (run.kind, run.k) == (kind, k)), key=len)
        rows += [_row(kind, k, epochs, "nll", epochs == stages[-1]) for epochs in stages]
        rows.append(_row(kind, k, stages[-1], "active", True))
    return rows


def _row(kind: str, k: int, epochs: int, score: str, longest: bool) -> dict:
    """A row of the ledger: the mean over the seeds that were trained for so long."""
    metadata = [recorded(run, epochs)[1] for run in find(kind, k, epochs)]
    values = [run["scores"][score] for run in metadata]
    ours, theirs = float(np.mean(values)), TABLE_1[kind, k][("nll", "active").index(score)]
    what = {
        "nll": f"-L_{COUNTS[-1]} on the test images, resampled binarisation",
        "active": "active units on the test images",
    }[score]
    behind = (ours - theirs) * {"nll": 1, "active": -1}[score]
    error = max(run["scores"]["nll_error"] for run in metadata)
    return {
        "id": f"{kind}.k{k}.{score}" + ("" if longest else f".{epochs}epochs"),
        "what": f"{kind.upper()}, k = {k}, after {epochs} epochs: {what}, mean over seeds",
        "unit": {"nll": "nats", "active": "units"}[score],
        "theirs": theirs if longest else "",
        "source": SOURCE if longest else "",
        "ours": round(ours, 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
        "seeds": len(values),
        "examples": metadata[0]["examples"],
        "seconds": round(float(np.mean([run["seconds"] for run in metadata]))),
        "machine": metadata[0]["machine"],
        "commit": metadata[0]["commit"],
        "command": runs.command(NAME, "--full"),
        "note": f"standard error over images {error:.2f} nats; weights kept in float16, scored as "
        "kept; products with the pixels' weights in bfloat16 in the scores, and in training with "
        f"k = {HALF_FROM}; seconds of training per seed, on a machine busy with other work",
        "better": {"nll": "lower", "active": "higher"}[score] if longest else "",
        "tolerance": TOLERANCE[score] if longest else "",
        "why": f"trained for {epochs} of the {FULL_SCHEDULE:,} epochs"
        if longest and behind > TOLERANCE[score]
        else "",
    }


def check(row: dict) -> float:
    """Recompute a row of the ledger from the recorded weights, in a few minutes."""
    kind, k = row["id"].split(".")[0], int(row["id"].split(".")[1].removeprefix("k"))
    epochs = int(row["what"].split("after ")[1].split(" epochs")[0])
    found = find(kind, k, epochs)
    if not all(run.keeps_weights(epochs) for run in found):
        raise SystemExit(
            f"{row['id']} rests on a seed or a stage whose weights were not kept; "
            f"{row['command']} redoes it"
        )
    scores = [score(trained(run, epochs, half=True))[1] for run in found]
    return float(np.mean([each[row["id"].split(".")[2]] for each in scores]))


def quick() -> None:
    """One epoch of a tenth of the images, and the score of 200 test images by 100 samples."""
    images, test = train_images()[:6000], jnp.asarray(test_images()[:200])
    for kind, k in (("vae", 1), ("iwae", 5)):
        model = make_model(0, images.mean(axis=0) / 255)
        vae.fit(
            model,
            images,
            key=jax.random.key(0),
            epochs=2,
            batch_size=BATCH,
            optimizer=optimizer(len(images) // BATCH),
            objective=objective(kind, k),
        )
        nll = -vae.log_marginal_likelihood(model, test, jax.random.key(SCORING), 100).mean()
        runs.say(f"{kind}, k = {k}: NLL {nll:.1f} nats")


EXPERIMENT = runs.Experiment(
    NAME,
    __doc__,
    COST,
    NAMED,
    record=lambda name: record(NAMED[name]),
    quick=quick,
    rows=ledger_rows,
    recorded=lambda name: is_recorded(NAMED[name]),
)

if __name__ == "__main__":
    EXPERIMENT.main()
