"""experiments.figure3: a run that is killed between any two writes records the same numbers."""

import types

import jax
import numpy as np
import pytest
from experiments import figure3, paper, published, runs
from flax import nnx

import vae

POINTS = (
    400,
    800,
    1200,
)  # examples; two passes over 200 images each, for MCEM five updates a visit


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The experiment on 200 made-up images, in a folder of its own."""
    rng = np.random.default_rng(0)
    half = rng.integers(2, size=(300, 1)) == (np.arange(784) < 392)
    made = np.where(half, 220, 20).astype(np.uint8) + rng.integers(30, size=half.shape).astype(
        np.uint8
    )
    split = types.SimpleNamespace
    data = split(train=split(images=made[:200]), test=split(images=made[200:]))
    monkeypatch.setattr(vae.datasets, "mnist", lambda: data)
    for name, value in {"EPOCH": 400, "SCORED": 30, "MCEM_UPDATES": 2, "POINTS": POINTS}.items():
        monkeypatch.setattr(figure3, name, value)
    monkeypatch.setattr(figure3, "KEPT", (800, 1200))
    monkeypatch.setattr(figure3, "STARTS", 512)
    monkeypatch.setattr(paper, "WARM_UP", 2)
    monkeypatch.setattr(runs, "STATE", tmp_path / "state")
    monkeypatch.setattr(runs, "RESULTS", tmp_path / "results")
    return tmp_path


def record(method):
    run = figure3.Run(method, 200, examples=1200)
    figure3.record(run)
    return run, *figure3.recorded(run)


def cheap_score(model, method):
    """Numbers that any change of a decoder's weight changes, in no time."""
    sums = [np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(decoder(model))]
    return {"train": float(np.sum(sums)), "test": float(np.prod(sums))}


def decoder(model):
    return nnx.state(model.decoder, nnx.Param)


@pytest.mark.parametrize("method", ["aevb", "mcem"])
def test_a_run_killed_between_any_two_writes_records_the_same_numbers(monkeypatch, small, method):
    monkeypatch.setattr(figure3, "score", cheap_score)
    run, arrays, metadata = record(method)
    np.testing.assert_array_equal(arrays["curve/examples"], POINTS)
    assert metadata["run"]["method"] == method and not metadata["command"].endswith("--full")
    assert np.isfinite(arrays["curve/test"]).all() and len(set(arrays["curve/test"])) == 3
    screening = {float(step): float(value) for step, value in metadata["screening"].items()}
    assert tuple(screening) == paper.STEP_SIZES
    assert metadata["step_size"] == max(screening, key=screening.get)
    assert arrays["curve/train"][0] == screening[metadata["step_size"]]

    # What a killed process leaves is what it wrote by then, and each write is whole or absent.
    monkeypatch.setattr(runs, "STATE", small / "again")
    monkeypatch.setattr(runs, "RESULTS", small / "results again")
    original, writes = vae.checkpoints.save, []

    def dying(path, *rest):
        original(path, *rest)
        writes.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vae.checkpoints, "save", dying)
        for _ in range(30):
            try:
                figure3.record(run)
            except KeyboardInterrupt:
                continue
            break
    assert len(writes) >= 11  # three step sizes at the first point, two points more, the result
    again, _ = figure3.recorded(run)
    assert again.keys() == arrays.keys()
    for name in arrays:
        if name != "curve/seconds":
            np.testing.assert_array_equal(again[name], arrays[name], err_msg=name)


def test_a_row_is_recomputed_from_the_decoder_that_was_kept(monkeypatch, small):
    run, arrays, metadata = record("aevb")
    assert np.isfinite(arrays["curve/test_bound"]).all()
    assert {name.split("/")[1] for name in arrays if name.startswith("weights/")} == {"800", "1200"}
    assert all(a.dtype == np.float16 for n, a in arrays.items() if n.startswith("weights/"))
    monkeypatch.setattr(figure3, "RUNS", [run])
    monkeypatch.setattr(published, "figure3_at", lambda *_: -550.0, raising=False)
    rows = figure3.ledger_rows()
    assert [row["examples"] for row in rows] == [800, 800, 1200, 1200]
    assert rows[0]["theirs"] == -550.0 and rows[0]["seeds"] == 1
    assert rows[3]["ours"] == round(arrays["curve/test"][-1], 2)
    # Ids count in millions, so these four share two; each split's first is that of 800.
    for row, split in zip(rows, ("train", "test"), strict=False):
        exact = figure3.value_at(run, split, 800)
        assert figure3.check(row) == pytest.approx(exact, abs=1e-3)
    with pytest.raises(ValueError, match="no point at 5 examples"):
        figure3.value_at(run, "test", 5)
    assert metadata["seconds"] == arrays["curve/seconds"][-1] > 0


def test_the_protocol_is_the_papers():
    """The points fit whole epochs of every method, and hold those of the ledger."""
    for run in figure3.RUNS:
        epoch = run.train_size * figure3.MCEM_UPDATES if run.method == "mcem" else figure3.EPOCH
        assert all(point % epoch == 0 for point in figure3.POINTS)
    assert set(figure3.KEPT) <= set(figure3.POINTS)
    assert {(run.method, run.train_size) for run in figure3.RUNS} == {
        (method, size) for method in ("aevb", "ws", "mcem") for size in (1000, 50_000)
    }
    assert len({run.name for run in figure3.RUNS}) == len(figure3.RUNS)
