"""Why so simple? One, two and three hidden layers, tanh and ReLU, on MNIST in 20 dimensions.

The paper has one tanh layer of 500 units each way. Here are six networks of layers of 500, each
trained by Adam at its usual 0.001, from Flax's usual initial weights (from N(0, 0.01^2) three
layers hardly start), without a prior on the weights, on 3 x 10^6 examples, three seeds. Two
comparisons: after as many examples, and after as many seconds. The machine is shared, so seconds
come from a study of its own, `timing`, in which the six take turns.

    python -m experiments.why_simple                       a short run, to see that it works
    python -m experiments.why_simple --full                all of it, resumed where stopped
    python -m experiments.why_simple --full --only NAME    one run, such as tanh2-seed0, or timing
"""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import vae
from experiments import paper, runs
from experiments.precision import half_products
from vae.evaluation import active_units, as_intensities

NAME = "why_simple"
COST = "about 1.5 hours of one core"
ACTIVATIONS = {"tanh": jnp.tanh, "relu": nnx.relu}
DEPTHS = (1, 2, 3)
SEEDS = (0, 1, 2)
WIDTH, LATENT = 500, 20
ADAM = optax.adam(1e-3)
EPOCHS = 60  # 3 x 10^6 examples
ROUNDS = 9  # of the timing, whose median is kept
NETWORKS = tuple(f"{activation}{depth}" for activation in ACTIVATIONS for depth in DEPTHS)


def make_model(network: str, seed: int) -> vae.VAE:
    """A VAE whose networks have as many layers as the name says, such as relu2."""
    rngs, layers = nnx.Rngs(seed), [WIDTH] * int(network[-1])
    init = {"activation": ACTIVATIONS[network[:-1]], "dot_general": half_products}
    return vae.VAE(
        vae.MLPEncoder(784, layers, LATENT, rngs=rngs, **init),
        vae.MLPDecoder(LATENT, layers, 784, rngs=rngs, **init),
    )


def train(network: str, seed: int, data: vae.datasets.MNIST, epochs: int):
    """One run: (the model, its History), resumed where an earlier process was stopped."""
    model = make_model(network, seed)
    runs.say(f"{network}, seed {seed}: {epochs} epochs")
    history = vae.fit(
        model,
        data.train.images,
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=paper.BATCH,
        optimizer=ADAM,
        validation=data.validation.images,
        checkpoint=runs.STATE / NAME / f"{network}-seed{seed}.npz",
        checkpoint_every=5,
    )
    return model, history


def record(name: str) -> None:
    """Train one network to the end and keep its curve and scores; or take its time."""
    data = vae.datasets.mnist()
    if name == "timing":
        record_timing(data)
        return
    network, seed = name.split("-seed")
    seed = int(seed)
    model, history = train(network, seed, data, EPOCHS)
    splits = ("train", "validation", "test")
    scores = {
        s: paper.score(model, getattr(data, s).images, 1000 + i) for i, s in enumerate(splits)
    }
    curve = {name: getattr(history, name) for name in ("examples", "bound", "validation_bound")}
    means = model.encode(as_intensities(jnp.asarray(data.validation.images)))[0]
    vae.checkpoints.save(
        runs.result_path(f"{NAME}-{name}"),
        {"curve": curve},
        {
            **runs.provenance(),
            "command": runs.command(NAME, "--full", "--only", name),
            "network": network,
            "seed": seed,
            "seconds": float(history.seconds[-1]),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
            "active": int(active_units(means).sum()),  # on the validation images
            "scores": {split: pair[0] for split, pair in scores.items()},
            "standard_errors": {split: pair[1] for split, pair in scores.items()},
        },
    )
    runs.say(f"{name}: {scores}")


def record_timing(data: vae.datasets.MNIST, images: int = 10_000) -> None:
    """Seconds per example of each network: they train an epoch each in turn, several times."""
    started = time.perf_counter()
    seconds = np.empty((ROUNDS, len(NETWORKS)))
    for i, (j, network) in itertools.product(range(ROUNDS), enumerate(NETWORKS)):
        history = train_once(network, data.train.images[:images], epochs=4)
        # The first epoch may compile; the fastest of the others was disturbed least.
        seconds[i, j] = np.diff(history.seconds).min() / images
    vae.checkpoints.save(
        runs.result_path(f"{NAME}-timing"),
        {"seconds_per_example": seconds},
        {
            **runs.provenance(),
            "command": runs.command(NAME, "--full", "--only", "timing"),
            "networks": NETWORKS,
            "seconds": time.perf_counter() - started,
        },
    )
    runs.say(f"timing: {dict(zip(NETWORKS, np.median(seconds, axis=0), strict=True))}")


def train_once(network: str, images, epochs: int) -> vae.History:
    """Train a new model of a network for the sake of the clock."""
    return vae.fit(
        make_model(network, 0),
        images,
        key=jax.random.key(0),
        epochs=epochs,
        batch_size=paper.BATCH,
        optimizer=ADAM,
        progress=False,
    )


def recorded(network: str, seed: int = 0) -> tuple[dict, dict]:
    """A recorded run: (its arrays, its provenance and scores)."""
    return runs.read_result(f"{NAME}-{network}-seed{seed}")


def seconds_per_example() -> dict[str, float]:
    """The median over the rounds of the timing, for each network."""
    arrays, metadata = runs.read_result(f"{NAME}-timing")
    medians = np.median(arrays["seconds_per_example"], axis=0)
    return dict(zip(metadata["networks"], map(float, medians), strict=True))


def ledger_rows() -> list[dict]:
    """One row for each network and split, from what was recorded."""
    rows = []
    cost = seconds_per_example()
    for network, split in itertools.product(NETWORKS, ("validation", "test")):
        metadata = [recorded(network, seed)[1] for seed in SEEDS]
        values = [run["scores"][split] for run in metadata]
        rows.append(
            {
                "id": f"mnist.nz20.{network}.3e6.{split}",
                "what": f"MNIST, N_z = 20, {network[-1]} hidden {network[:-1]} "
                f"layer{'s' * (network[-1] != '1')} each way, Adam, {split} bound after 3 x 10^6 "
                "examples, grey intensities under a Bernoulli likelihood, mean over seeds",
                "unit": "nats",
                "theirs": "",
                "source": "",
                "ours": round(float(np.mean(values)), 2),
                "low": round(min(values), 2),
                "high": round(max(values), 2),
                "seeds": len(values),
                "examples": EPOCHS * 50_000,
                "seconds": round(cost[network] * EPOCHS * 50_000),
                "machine": metadata[0]["machine"],
                "commit": metadata[0]["commit"],
                "command": runs.command(NAME, "--full"),
                "note": "active units on the validation images, by seed: "
                f"{', '.join(str(run['active']) for run in metadata)}; products with the pixels' "
                "weights in bfloat16; seconds from the timing study, one core; no weights kept",
            }
        )
    return rows


def check(row: dict) -> float:
    """No weights were kept. Raises SystemExit with the command that trains again."""
    raise SystemExit(f"{row['id']}: no weights were kept; {row['command']} trains again")


def quick() -> None:
    """A shallow and a deep network for three epochs of a fifth of the images."""
    for network in ("tanh1", "relu3"):
        history = train_once(network, vae.datasets.mnist().train.images[:10_000], epochs=3)
        runs.say(f"{network}: bound {history.bound[-1]:.1f} nats")


EXPERIMENT = runs.Experiment(
    NAME,
    __doc__,
    COST,
    [*(f"{network}-seed{seed}" for network in NETWORKS for seed in SEEDS), "timing"],
    record=record,
    quick=quick,
    rows=ledger_rows,
)

if __name__ == "__main__":
    EXPERIMENT.main()
