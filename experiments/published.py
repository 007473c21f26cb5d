"""What others published, in one place: the numbers that the chapters and the ledger compare with.

`published/aevb_figures.csv` holds Figures 2 and 3 of D. P. Kingma and M. Welling, Auto-Encoding
Variational Bayes, arXiv 1312.6114v10, digitised from the paper's vector graphics: figure, dataset,
N_z (Figure 2) or N_train (Figure 3), curve, training samples evaluated, value in nats. The
calibration is good to 0.1 nats (MNIST) and 2 nats (Frey Face).
"""

import csv
import functools
from pathlib import Path

import numpy as np

SOURCE = "Kingma & Welling 2013, arXiv 1312.6114v10, digitised"
CALIBRATION = {"MNIST": 0.1, "FreyFace": 2.0}  # nats, either way


@functools.cache
def _points() -> list[dict]:
    with open(Path(__file__).parent / "published" / "aevb_figures.csv", newline="") as file:
        return list(csv.DictReader(file))


def figure2(curve: str, latent_dim: int, dataset: str = "MNIST") -> tuple[np.ndarray, np.ndarray]:
    """A curve of Figure 2: (training samples evaluated, lower bound in nats), both (points,).

    `curve` is AEVB_train, AEVB_test, WS_train or WS_test (WS is wake-sleep). Raises ValueError
    where the paper has no such curve.
    """
    return _curve("fig2", dataset, latent_dim, curve)


def figure2_at(curve: str, latent_dim: int, samples: float, dataset: str = "MNIST") -> float:
    """The lower bound that a curve of Figure 2 shows at a number of training samples, in nats.

    Between two digitised points it is interpolated on the figure's own logarithmic axis. Raises
    ValueError outside the curve.
    """
    return _at(*figure2(curve, latent_dim, dataset), samples)


def figure3(curve: str, train_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A curve of Figure 3: (training samples evaluated, marginal log-likelihood in nats).

    `curve` is AEVB, WS or MCEM with _train or _test. Raises ValueError where there is none such.
    """
    return _curve("fig3", "MNIST", train_size, curve)


def figure3_at(curve: str, train_size: int, samples: float) -> float:
    """The marginal log-likelihood that a curve of Figure 3 shows, in nats; as `figure2_at`."""
    return _at(*figure3(curve, train_size), samples)


def _curve(figure: str, dataset: str, size: int, curve: str) -> tuple[np.ndarray, np.ndarray]:
    points = sorted(
        (float(row["train_samples"]), float(row["value_nats"]))
        for row in _points()
        if (row["figure"], row["dataset"], row["Nz_or_Ntrain"], row["curve"])
        == (figure, dataset, str(size), curve)
    )
    if not points:
        number, name = figure[-1], {"fig2": "N_z", "fig3": "N_train"}[figure]
        raise ValueError(f"Figure {number} has no curve {curve!r} for {dataset}, {name} = {size}")
    samples, values = np.array(points).T
    return samples, values


def _at(xs: np.ndarray, ys: np.ndarray, samples: float) -> float:
    if not xs[0] <= samples <= xs[-1]:
        raise ValueError(f"the curve runs from {xs[0]:g} to {xs[-1]:g} samples, not {samples:g}")
    return float(np.interp(np.log(samples), np.log(xs), ys))
