"""Break the package on purpose, in the ways of the appendix on pitfalls, and see who notices.

`python -m tools.breakages` makes each breakage in a copy of `src/`, runs the unit tests against it
until one fails, and prints which one did. It fails if a breakage goes unnoticed, or if a test that
noticed one fails without it too. With numbers, as in `python -m tools.breakages 4 13`, those
pitfalls alone; 0 stands for breakages of a part of the package that no pitfall is about. The tree
itself is never touched.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.places import ROOT, SOURCES


@dataclass(frozen=True)
class Breakage:
    """A pitfall's number, what is done, and the text to replace in one file of the package.

    `tests` are those that should notice.
    """

    pitfall: int
    what: str
    file: str
    old: str
    new: str
    tests: str = "tests/unit"


_KL = "return 0.5 * jnp.sum(mean**2 + jnp.expm1(log_var) - log_var, axis=-1)"
_SUM_OF_PIXELS = "return jnp.sum(x * logits - softplus, axis=-1)"
_LOG_PROB = "return -0.5 * jnp.sum(squared_distance + log_var + jnp.log(2 * jnp.pi), axis=-1)"
_CHARGED = "jnp.where(jnp.mean(latent_kl, axis=0) > free_bits, latent_kl, free_bits)"
_EPS = "eps = jax.random.normal(key, shape, dtype=jnp.result_type(mean, log_var))"
_BATCHES = "order.reshape(steps, batch_size), jax.random.split(steps_key, steps), numbers"

BREAKAGES = [
    Breakage(
        1,
        "mean over the pixels, Bernoulli",
        "distributions.py",
        _SUM_OF_PIXELS,
        _SUM_OF_PIXELS.replace("jnp.sum", "jnp.mean"),
    ),
    Breakage(
        1,
        "mean over the pixels, Gaussian",
        "distributions.py",
        _LOG_PROB,
        _LOG_PROB.replace("jnp.sum", "jnp.mean"),
    ),
    Breakage(
        2, "mean over the latents", "distributions.py", _KL, _KL.replace("jnp.sum", "jnp.mean")
    ),
    Breakage(
        2,
        "KL divided by batch x pixels",
        "objectives.py",
        "    kl = gaussian_kl(mean, log_var)\n    return ELBO",
        "    kl = gaussian_kl(mean, log_var) / x.size\n    return ELBO",
    ),
    Breakage(
        3,
        "a hidden weight on the KL",
        "objectives.py",
        "ELBO(log_likelihood - kl,",
        "ELBO(log_likelihood - 0.8 * kl,",
    ),
    Breakage(
        3,
        "a hidden weight, in the reported KL too",
        "objectives.py",
        "    kl = gaussian_kl(mean, log_var)\n    return ELBO",
        "    kl = 0.1 * gaussian_kl(mean, log_var)\n    return ELBO",
    ),
    Breakage(
        4,
        "sigma for sigma^2 in the draw",
        "distributions.py",
        "mean + jnp.exp(0.5 * log_var) * eps",
        "mean + jnp.exp(log_var) * eps",
    ),
    Breakage(
        4,
        "the head taken for sigma in the draw",
        "distributions.py",
        "mean + jnp.exp(0.5 * log_var) * eps",
        "mean + log_var * eps",
    ),
    Breakage(
        4,
        "no square on the mean in the KL",
        "distributions.py",
        _KL,
        _KL.replace("mean**2", "mean"),
    ),
    Breakage(
        4,
        "log sigma for log sigma^2 in the KL",
        "distributions.py",
        _KL,
        _KL.replace("expm1(log_var) - log_var", "expm1(2 * log_var) - log_var"),
    ),
    Breakage(4, "no one-half in the KL", "distributions.py", _KL, _KL.replace("0.5 * ", "")),
    Breakage(
        4,
        "sigma for sigma^2 in the density",
        "distributions.py",
        "jnp.exp(-log_var)",
        "jnp.exp(-0.5 * log_var)",
    ),
    Breakage(
        5,
        "free bits for each example",
        "objectives.py",
        _CHARGED,
        "jnp.maximum(latent_kl, free_bits)",
    ),
    Breakage(
        5,
        "free bits on the sum over the latents",
        "objectives.py",
        _CHARGED,
        "jnp.maximum(jnp.sum(latent_kl, axis=-1, keepdims=True), free_bits)",
    ),
    Breakage(
        5,
        "the floored KL reported",
        "objectives.py",
        "BetaObjective(objective, log_likelihood, jnp.sum(latent_kl, axis=-1))",
        "BetaObjective(objective, log_likelihood, jnp.sum(charged, axis=-1))",
    ),
    Breakage(
        6,
        "intensities outside [0, 1] accepted",
        "distributions.py",
        '    checks.unit_interval("x", x)\n',
        "",
    ),
    Breakage(
        7,
        "grey levels binarised on the way",
        "evaluation/bounds.py",
        "images.astype(jnp.float32) / 255",
        "(images > 127).astype(jnp.float32)",
    ),
    Breakage(
        8, "the missing sigmoid", "model.py", "return jax.nn.sigmoid(logits)", "return logits"
    ),
    Breakage(
        9,
        "the score of one minibatch for that of the set",
        "evaluation/bounds.py",
        "keys = jax.random.split(key, len(images))",
        "images = images[:batch_size]\n    keys = jax.random.split(key, len(images))",
    ),
    Breakage(
        9,
        "training images that are in the test set too",
        "datasets/handwritten.py",
        "train=Split(train_images[:50_000], train_labels[:50_000])",
        "train=Split(test_images, test_labels)",
    ),
    Breakage(
        9,
        "the bound called a likelihood",
        "objectives.py",
        "jax.nn.logsumexp(log_weights, axis=0) - jnp.log(num_samples)",
        "jnp.mean(log_weights, axis=0)",
    ),
    Breakage(
        10,
        "a draw that no gradient passes",
        "distributions.py",
        "return mean + jnp.exp(0.5 * log_var) * eps",
        "return jax.lax.stop_gradient(mean + jnp.exp(0.5 * log_var) * eps)",
    ),
    Breakage(
        10,
        "a variance that is never above one half",
        "networks.py",
        "return self.mean(h), self.log_var(h)",
        "return self.mean(h), jnp.minimum(self.log_var(h), -0.7)",
    ),
    Breakage(
        10,
        "active units by the standard deviation",
        "evaluation/codes.py",
        "means.var(axis=0)",
        "means.std(axis=0)",
    ),
    Breakage(
        11,
        "the first batch for ever",
        "training.py",
        _BATCHES,
        _BATCHES.replace(
            "order.reshape(steps, batch_size)", "jnp.tile(order[:batch_size], (steps, 1))"
        ),
    ),
    Breakage(
        11,
        "one key for all steps",
        "training.py",
        _BATCHES,
        _BATCHES.replace(
            "jax.random.split(steps_key, steps)",
            "jnp.broadcast_to(steps_key, (steps, *steps_key.shape))",
        ),
    ),
    Breakage(
        11,
        "one key for all epochs",
        "training.py",
        "jax.random.fold_in(train_key, epoch)",
        "train_key",
    ),
    Breakage(
        11,
        "one eps for the whole batch",
        "distributions.py",
        _EPS,
        _EPS.replace("shape,", "shape[-1:],"),
    ),
    Breakage(
        11,
        "one key for all models trained together",
        "training.py",
        "jax.vmap(lambda key: jax.random.split(key)[0])(jax.random.split(key, len(models)))",
        "jnp.stack([jax.random.split(key)[0]] * len(models))",
    ),
    Breakage(
        11,
        "the parameters of one model for all",
        "training.py",
        "lambda leaf, i=i: leaf[i]",
        "lambda leaf, i=i: leaf[0]",
    ),
    Breakage(
        12,
        "no constant in the affine fit",
        "evaluation/codes.py",
        "np.ones(len(codes))",
        "np.zeros(len(codes))",
    ),
    Breakage(
        12,
        "the spread of the residual, without its mean",
        "evaluation/codes.py",
        "np.sum(residual**2, axis=0)",
        "len(residual) * residual.var(axis=0)",
    ),
    Breakage(
        12,
        "the gap over the latent's entropy",
        "evaluation/codes.py",
        "gaps.append((best - second) / _entropy(label))",
        "gaps.append((best - second) / max(_entropy(latent) for latent in latents))",
    ),
    Breakage(
        12,
        "bins of equal count",
        "evaluation/codes.py",
        "edges = np.linspace(values.min(), values.max(), bins + 1)",
        "edges = np.quantile(values, np.linspace(0, 1, bins + 1))",
    ),
    Breakage(
        12,
        "the gap of correlations that are not squared",
        "evaluation/codes.py",
        "np.sort(_pearson(codes, factors) ** 2, axis=0)",
        "np.sort(abs(_pearson(codes, factors)), axis=0)",
    ),
    Breakage(
        12,
        "the mean of the other correlations for the largest",
        "evaluation/codes.py",
        "np.max(rho[~pairs], initial=0.0)",
        "np.mean(rho[~pairs])",
    ),
    Breakage(
        12,
        "each factor's best latent, one latent for two factors",
        "evaluation/codes.py",
        "linear_sum_assignment(rho.T, maximize=True)[1]",
        "rho.argmax(axis=0)",
    ),
    Breakage(
        12,
        "a dead latent that correlates by its rounding",
        "evaluation/codes.py",
        "return np.where(moving, codes, 0.0), factors",
        "return codes, factors",
    ),
    Breakage(
        12,
        "the angle turned the other way",
        "evaluation/codes.py",
        "np.arctan2(-minus_sin, cos)",
        "np.arctan2(minus_sin, cos)",
    ),
    Breakage(
        12,
        "the angle in radians",
        "evaluation/codes.py",
        "np.degrees(np.arctan2(-minus_sin, cos))",
        "np.arctan2(-minus_sin, cos)",
    ),
    Breakage(
        12,
        "the map to the factors for the map from them",
        "evaluation/codes.py",
        "np.linalg.lstsq(_standardised(factors), _standardised(codes))[0].T",
        "np.linalg.lstsq(_standardised(codes), _standardised(factors))[0].T",
    ),
    Breakage(
        13,
        "the wrong sign on log sigma",
        "distributions.py",
        _LOG_PROB,
        _LOG_PROB.replace("squared_distance + log_var", "squared_distance - log_var"),
    ),
    *(
        Breakage(0, what, "baselines/wake_sleep.py", old, new, "tests/unit/test_wake_sleep.py")
        for what, old, new in (
            (
                "wake-sleep: the encoder learns in the wake phase too",
                "z = jax.lax.stop_gradient(reparameterize(wake_key, mean, log_var))",
                "z = reparameterize(wake_key, mean, log_var)",
            ),
            (
                "wake-sleep: one key for both latents",
                "jax.random.normal(latent_key, z.shape",
                "jax.random.normal(wake_key, z.shape",
            ),
            (
                "wake-sleep: the encoder learns on the data",
                "*model.encode(dreamed_x)",
                "*model.encode(x)",
            ),
            (
                "wake-sleep: the prior's mean image for a dream",
                "model.likelihood.sample(dream_key, model.decoder(dreamed_z))",
                "model.decode(dreamed_z)",
            ),
            (
                "wake-sleep: a wrong sign on the sleep phase",
                "log_likelihood + recognition",
                "log_likelihood - recognition",
            ),
        )
    ),
    Breakage(
        0,
        "a dream of twice the deviation",
        "model.py",
        "jnp.full_like(mean, 2 * math.log(self.std))",
        "jnp.full_like(mean, math.log(self.std))",
        "tests/unit/test_wake_sleep.py",
    ),
    Breakage(
        0,
        "the variances of the Gaussian decoder squashed with its means",
        "networks.py",
        "return jax.nn.sigmoid(self.mean(h)), self.log_var(h)",
        "return jax.nn.sigmoid(self.mean(h)), jax.nn.sigmoid(self.log_var(h))",
        "tests/unit/test_wake_sleep.py",
    ),
    Breakage(
        0,
        "one key for the binary image and for the objective",
        "objectives.py",
        "image_key, key = jax.random.split(key)",
        "image_key = key",
        "tests/unit/test_wake_sleep.py",
    ),
]


def broken_sources(breakage: Breakage, folder: Path) -> Path:
    """A copy of `src/` with the breakage in it; LookupError where that has no place."""
    copy = folder / "src"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    file = copy / "vae" / breakage.file
    text = file.read_text(encoding="utf-8")
    if breakage.old not in text:
        raise LookupError(f"{breakage.file} has no {breakage.old!r}: {breakage.what}")
    file.write_text(text.replace(breakage.old, breakage.new), encoding="utf-8")
    return copy


def first_failure(sources: Path, tests: Iterable[str] = ("tests/unit",)) -> str | None:
    """The test that fails first with the package in `sources`, or None if all pass."""
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode and not found:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return found[1] if found else None


def noticed_by(breakage: Breakage) -> str | None:
    """The unit test that fails first under the breakage, or None if all pass."""
    with tempfile.TemporaryDirectory() as name:
        return first_failure(broken_sources(breakage, Path(name)), [breakage.tests])


def main() -> int:
    """Try every breakage, or those of the pitfalls named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pitfalls", nargs="*", type=int, help="numbers of pitfalls; all if none")
    chosen = parser.parse_args().pitfalls
    tests = []
    for breakage in BREAKAGES:
        if chosen and breakage.pitfall not in chosen:
            continue
        tests.append(noticed_by(breakage))
        print(f"{breakage.pitfall:2}  {breakage.what}: {tests[-1] or 'NOBODY NOTICED'}", flush=True)
    # A test that fails without a breakage, too, has noticed nothing.
    noticed = {test for test in tests if test}
    failing = first_failure(SOURCES, sorted(noticed)) if noticed else None
    if failing:
        print(f"{failing} fails with the package as it is")
    return int(failing is not None or None in tests)


if __name__ == "__main__":
    sys.exit(main())
