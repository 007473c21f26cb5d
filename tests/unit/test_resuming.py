"""Training that is interrupted, at any moment, ends in the bits of a run that was not."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from unit_helpers import assert_same_curve, assert_same_params, params_of, small_vae, stripes

import vae
from vae import checkpoints, training

KEY = jax.random.key(5)
IMAGES, HELD_OUT = stripes(22), stripes(6, seed=1)
ADAM = optax.adam(1e-2)


def train(model, path, **options):
    settings = {
        "key": KEY,
        "epochs": 6,
        "batch_size": 5,
        "optimizer": ADAM,
        "validation": HELD_OUT,
        "progress": False,
        "checkpoint": path,
    }
    return vae.fit(model, options.pop("images", IMAGES), **(settings | options))


@pytest.fixture(scope="module")
def whole():
    """The uninterrupted run."""
    model = small_vae()
    return train(model, None), params_of(model)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deeper" / "run.npz"


def interrupt(monkeypatch, name, at):
    """Let the `at`-th call of a function that training uses die."""
    original, calls = getattr(training, name), []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(training, name, dying)


def resumed(path, whole, **options):
    history, params = whole
    # Where there is a checkpoint, what the model held before does not matter.
    model = small_vae(seed=7 if path.exists() else 0)
    assert_same_curve(train(model, path, **options), history)
    assert_same_params(model, params)


@pytest.mark.parametrize("name", ["evaluate", "_run_epoch"])
@pytest.mark.parametrize("at, every", [(1, 1), (3, 1), (6, 1), (4, 2)])
def test_an_interrupted_run_resumes_to_the_same_bits(monkeypatch, path, whole, name, at, every):
    with monkeypatch.context() as patch:
        interrupt(patch, name, at)
        with pytest.raises(KeyboardInterrupt):
            train(small_vae(), path, checkpoint_every=every)
    done = (at - 1) // every * every
    assert path.exists() == (done > 0)
    if done:
        assert len(checkpoints.read(path)[1]["curve"]) == done
    resumed(path, whole, checkpoint_every=every)


def test_interrupted_twice_and_once_more(monkeypatch, path, whole):
    for at in (2, 3, 1):
        with monkeypatch.context() as patch:
            interrupt(patch, "evaluate", at)
            with pytest.raises(KeyboardInterrupt):
                train(small_vae(), path)
    resumed(path, whole)


def test_a_finished_run_is_read_back_and_a_longer_one_goes_on(path, whole):
    train(small_vae(), path, epochs=4)
    before = path.read_bytes()
    model = small_vae(seed=7)
    again = train(model, path, epochs=4)
    assert len(again.bound) == 4 and path.read_bytes() == before
    resumed(path, whole)


def test_the_last_epoch_is_always_kept(path):
    train(small_vae(), path, epochs=3, checkpoint_every=100)
    assert len(checkpoints.read(path)[1]["curve"]) == 3


def test_a_run_that_stopped_at_a_non_finite_number_keeps_its_checkpoint(path):
    at_seven = optax.sgd(lambda count: jax.numpy.where(count == 6, np.nan, 0.01))
    with pytest.raises(FloatingPointError, match="step 8 "):
        train(small_vae(), path, optimizer=at_seven)  # four steps an epoch
    arrays, metadata = checkpoints.read(path)
    assert len(metadata["curve"]) == 1
    assert all(np.isfinite(array).all() for array in arrays.values())
    # Steps keep their numbers in the run that resumes.
    with pytest.raises(FloatingPointError, match="step 8 "):
        train(small_vae(), path, optimizer=at_seven)


# Twenty runs, each killed at a moment that nobody chose and then resumed. The script imports JAX
# once and forks before it has started anything, and the runs share JAX's cache of compiled
# programs: a run costs little more than its steps, so the moments fall among them.
KILLED = """
import os, signal, sys, time
sys.path[:0] = sys.argv[2:]
import jax, numpy, optax, vae
from unit_helpers import small_vae, stripes

def run(path):
    child = os.fork()
    if child:
        return child
    beta = {"beta": lambda step: jax.numpy.minimum(1.0, step / 500)}
    vae.fit(small_vae(), stripes(22), key=jax.random.key(5), epochs=150, batch_size=5,
            optimizer=optax.adam(1e-2), objective=vae.beta_objective, schedules=beta,
            checkpoint=path, checkpoint_every=2, progress=False)
    os._exit(0)

def first_checkpoint(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.001)
    return time.monotonic()

for name in ("compiled", "whole"):
    path = f"{sys.argv[1]}/{name}.npz"
    child = run(path)
    begun = first_checkpoint(path)
    assert os.waitpid(child, 0)[1] == 0
rest = time.monotonic() - begun
for number, moment in enumerate(numpy.random.default_rng().uniform(0, 1, size=20)):
    path = f"{sys.argv[1]}/killed{number}.npz"
    child = run(path)
    if number % 5:  # the others at any moment from the very start
        first_checkpoint(path)
    time.sleep(moment * rest)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    stood = os.path.exists(path) and len(vae.checkpoints.read(path)[1]["curve"])
    assert os.waitpid(run(path), 0)[1] == 0
    print(int(stood), flush=True)
"""


def test_a_run_killed_at_any_of_twenty_moments_resumes_to_the_same_bits(tmp_path):
    folders = [str(Path(vae.__file__).parents[1]), str(Path(__file__).parent)]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), *folders]
    cached = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    environment = {**os.environ, **cached}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr
    stood = [int(line) for line in done.stdout.split()]
    assert len(stood) == 20
    # The moments did fall inside of the training, not all before it or after it.
    assert sum(0 < epochs < 150 for epochs in stood) >= 3, stood
    arrays, metadata = checkpoints.read(tmp_path / "whole.npz")
    seconds = 1  # the column of the curve that no two runs share
    for number in range(20):
        others, theirs = checkpoints.read(tmp_path / f"killed{number}.npz")
        assert others.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(others[name], array, err_msg=f"{name}, run {number}")
        ours, resumed = (np.delete(m["curve"], seconds, axis=1) for m in (metadata, theirs))
        np.testing.assert_array_equal(ours, resumed)


# Files that belong to something else


@pytest.fixture
def kept(path):
    """A checkpoint after two epochs."""
    train(small_vae(), path, epochs=2)
    return path


@pytest.mark.parametrize(
    "options, message",
    [
        ({"key": jax.random.key(6)}, "another run.*key"),
        ({"images": IMAGES[::-1]}, "another run.*images.*crc32"),
        ({"images": IMAGES[:20]}, "another run.*images"),
        ({"batch_size": 4}, r"another run.*batch_size': \(5, 4\)"),
        ({"epochs": 1}, "stands at epoch 2, beyond epochs=1"),
        ({"optimizer": optax.sgd(0.1)}, "checkpoint of something else"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(kept, options, message):
    before, model = kept.read_bytes(), small_vae()
    with pytest.raises(ValueError, match=message) as error:
        train(model, kept, **options)
    assert str(kept) in str(error.value)
    assert kept.read_bytes() == before
    assert_same_params(model, small_vae())


def test_a_checkpoint_of_another_model_is_refused_and_left_alone(kept):
    before = kept.read_bytes()
    for hidden_dims, message in (((9,), r"shape \(8,\), expected.*\(9,\)"), ((8, 8), "lacks")):
        with pytest.raises(ValueError, match=message):
            train(small_vae(hidden_dims=hidden_dims), kept)
    assert kept.read_bytes() == before


def foreign_files(good: bytes, folder: Path) -> dict[str, bytes]:
    np.savez(folder / "other.npz", a=np.zeros(3))
    return {
        "empty": b"",
        "half": good[: len(good) // 2],
        "all but the last byte": good[:-1],
        "first kilobyte": good[:1024],
        "text": b"epoch,bound\n1,-3.0\n",
        "another npz": (folder / "other.npz").read_bytes(),
        "middle overwritten": good[:2000] + bytes(200) + good[2200:],
    }


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "half",
        "all but the last byte",
        "first kilobyte",
        "text",
        "another npz",
        "middle overwritten",
    ],
)
def test_a_file_that_is_no_whole_checkpoint_is_refused_and_left_alone(kept, tmp_path, kind):
    content = foreign_files(kept.read_bytes(), tmp_path)[kind]
    kept.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.npz (cannot be read|is an \.npz file but no)"):
        train(small_vae(), kept)
    assert kept.read_bytes() == content
    assert [file.name for file in kept.parent.iterdir()] == ["run.npz"]
