"""What the long runs recorded, the ledger made of it, and the published numbers beside it."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
from experiments import ledger, mnist_nz20, paper, published, runs
from experiments.__main__ import found

# Values of Figure 2, N_z = 20, from a second reading of the plots, rounded to 0.1 nats.
READ_OFF = {
    ("AEVB_train", 1e6): -126.3,
    ("AEVB_test", 1e6): -124.2,
    ("AEVB_train", 1e7): -104.2,
    ("AEVB_test", 1e7): -104.8,
    ("AEVB_test", 1e8): -100.2,
    ("WS_test", 1e8): -104.6,
}


@pytest.mark.parametrize(("curve", "samples"), READ_OFF)
def test_the_published_curves_hold_the_values_of_the_figure(curve, samples):
    # The digitised points are good to 0.1 nats, the values above are rounded to 0.1.
    assert published.figure2_at(curve, 20, samples) == pytest.approx(
        READ_OFF[curve, samples], abs=0.16
    )


def test_between_two_points_a_published_curve_is_interpolated_on_the_logarithmic_axis():
    xs, ys = published.figure2("AEVB_test", 20)
    middle = np.sqrt(xs[3] * xs[4])
    assert published.figure2_at("AEVB_test", 20, middle) == pytest.approx((ys[3] + ys[4]) / 2)


def test_a_curve_or_a_place_that_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="no curve 'AEVB_test' for MNIST, N_z = 7"):
        published.figure2("AEVB_test", 7)
    with pytest.raises(ValueError, match="not 1e"):
        published.figure2_at("AEVB_test", 20, 1e12)


def test_the_ledger_holds_what_the_recorded_runs_say():
    for row in mnist_nz20.ledger_rows():
        full = ledger.OPTIONAL | row
        assert ledger.row(row["id"]) == {name: str(value) for name, value in full.items()}


def test_every_recorded_run_says_where_it_comes_from():
    for optimizer, seeds in mnist_nz20.SEEDS.items():
        for seed in seeds:
            arrays, metadata = mnist_nz20.recorded(optimizer, seed)
            assert metadata["seed"] == seed and metadata["optimizer"] == optimizer
            assert metadata["commit"] and not metadata["commit"].endswith("+changes")
            assert set(metadata["versions"]) == set(runs.PACKAGES)
            assert metadata["seconds"] > 0 and metadata["command"].startswith("python -m ")
            assert arrays["curve/examples"][-1] == mnist_nz20.EPOCHS * mnist_nz20.TRAIN
            # The last point of the curve and the final score are two estimates of one bound.
            last = arrays["curve/validation_bound"][-1]
            assert abs(last - metadata["scores"]["test"]) < 0.2


def test_the_step_size_is_the_one_of_the_best_mean_training_bound():
    arrays, metadata = runs.read_result("mnist_nz20-step-sizes")
    means = arrays["train_bound"].mean(axis=1)
    assert metadata["chosen"] == max(zip(means, metadata["step_sizes"], strict=True))[1]
    assert mnist_nz20.recorded("adagrad")[1]["step_size"] == metadata["chosen"]


@pytest.fixture
def own_ledger(tmp_path, monkeypatch):
    path = tmp_path / "ledger.csv"
    shutil.copy(ledger.PATH, path)
    monkeypatch.setattr(ledger, "PATH", path)
    return path


def test_adding_a_row_replaces_the_row_of_its_id_and_keeps_the_others(own_ledger):
    before = ledger.read()
    new = {**before[0], "ours": "-1.5"}
    ledger.add([new])
    after = ledger.read()
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert after[0]["ours"] == "-1.5" and after[1:] == before[1:]


def test_a_row_that_lacks_a_column_is_refused_and_the_ledger_stays(own_ledger):
    text = own_ledger.read_text()
    with pytest.raises(ValueError, match="exactly the columns"):
        ledger.add([{"id": "x", "ours": 1}])
    assert own_ledger.read_text() == text


JUDGED = {"theirs": "-100.0", "better": "higher", "tolerance": "1.0", "why": "", "id": "x"}


@pytest.mark.parametrize(
    ("ours", "better", "verdict"),
    [
        ("-99.1", "higher", "matched"),
        ("-100.9", "higher", "matched"),
        ("-98.9", "higher", "better"),
        ("-101.1", "lower", "better"),
        ("-100.9", "lower", "matched"),
    ],
)
def test_a_verdict_compares_the_difference_with_the_tolerance(ours, better, verdict):
    assert ledger.verdict({**JUDGED, "ours": ours, "better": better}) == verdict


def test_a_shortfall_needs_a_reason():
    short = {**JUDGED, "ours": "-101.1"}
    with pytest.raises(ValueError, match=r"x falls short by 1\.10, and does not say why"):
        ledger.verdict(short)
    assert ledger.verdict({**short, "why": "fewer examples"}) == "short"


def test_anothers_number_needs_a_tolerance():
    with pytest.raises(ValueError, match="needs a tolerance"):
        ledger.verdict({**JUDGED, "ours": "-100", "tolerance": ""})
    assert ledger.verdict({**JUDGED, "theirs": ""}) == ""


def test_every_row_of_the_ledger_can_be_judged():
    verdicts = [ledger.verdict(row) for row in ledger.read()]
    assert "matched" in verdicts or "better" in verdicts


def test_an_unknown_id_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match=r"mnist\.nz20\.aevb\.adam\.1e7\.test"):
        ledger.row("mnist.nz21")


def test_the_ledger_is_a_plain_table_of_the_agreed_columns():
    with open(ledger.PATH, newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == ledger.COLUMNS
    assert {len(row) for row in rows} == {len(ledger.COLUMNS)}


def test_reproduce_lists_every_experiment_with_its_cost():
    done = subprocess.run(
        [sys.executable, "-m", "experiments"], capture_output=True, text=True, check=True
    )
    assert "mnist_nz20: " in done.stdout and mnist_nz20.COST in done.stdout


def test_reproduce_refuses_an_experiment_that_there_is_not():
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "mnist_nz21"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"there are: {', '.join(found())}" in done.stderr and "pendulum" in found()


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """An experiment of two runs whose records are names in a list; its rows are counted."""
    done, added = ["first"], []
    monkeypatch.setattr(runs.ledger, "add", added.append)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["trial", *words])
        runs.Experiment(
            "trial",
            "What it is.\n\nMore.",
            "nothing",
            ("first", "second"),
            record=done.append,
            quick=lambda: done.append("quick"),
            rows=lambda: ["row"],
            recorded=done.__contains__,
        ).main()
        return done, added

    return call


def test_an_experiment_records_what_is_missing_and_then_adds_its_rows(trial, capsys):
    assert trial("--list") == (["first"], [])
    assert capsys.readouterr().out == "first: recorded\nsecond\n"
    assert trial("--full", "--only", "first") == (["first"], [])  # one is missing: no rows yet
    assert trial("--full") == (["first", "second"], [["row"]])
    assert trial("--full") == (["first", "second"], [["row"], ["row"]])
    assert trial() == (["first", "second", "quick"], [["row"], ["row"]])


def test_a_run_is_recorded_when_its_result_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    experiment = runs.Experiment("trial", "", "", ("first", "second"), print, print, list)
    (tmp_path / "trial-first.npz").touch()
    assert experiment.missing() == ["second"]


@pytest.mark.parametrize("words", [("--full", "--only", "third"), ("--only", "second")])
def test_an_experiment_refuses_a_run_that_it_does_not_have_or_would_not_run(trial, capsys, words):
    with pytest.raises(SystemExit):
        trial(*words)
    assert "first, second" in capsys.readouterr().err or words[0] == "--only"


def test_every_file_that_was_recorded_belongs_to_a_run():
    names = {f"{name}-{run}" for name, experiment in found().items() for run in experiment.names}
    stages = {path.stem.rpartition("-")[0] for path in runs.RESULTS.glob("iwae-*.npz")}
    assert stages <= names
    assert {path.stem for path in runs.RESULTS.glob("*.npz") if path.stem[:5] != "iwae-"} <= names


def test_weights_are_put_where_they_were_taken_from():
    from flax import nnx

    model, other = mnist_nz20.make_model(3), mnist_nz20.make_model(4)
    params = paper.flat(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    paper.load_weights(other, {f"weights/{name}": leaf for name, leaf in params.items()})
    loaded = paper.flat(nnx.to_pure_dict(nnx.state(other, nnx.Param)))
    assert loaded.keys() == params.keys() and len(params) == 10
    for name in params:
        np.testing.assert_array_equal(loaded[name], params[name])
