"""Searches: what is tried, what is recorded, how a stopped one goes on, and what its best settings are worth."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import World
from trainings import all_scores

from recbole_rlmrec.cli import main, train_main
from recbole_rlmrec.errors import DataError, MachineError, SettingError, TrainingError
from recbole_rlmrec.quick_start import Result, load_model, run
from recbole_rlmrec.training.stopping import Validation
from recbole_rlmrec.tuning.journal import Journal, Trial
from recbole_rlmrec.tuning.optuna_tool import OptunaProposals
from recbole_rlmrec.tuning.proposal import Proposals
from recbole_rlmrec.tuning.search import Outcome, table, tune
from recbole_rlmrec.tuning.space import key_of, read_space

REPOSITORY = Path(__file__).resolve().parents[2]

QUICK = {
    "benchmark_filename": ["train", "valid", "test"],
    "embedding_size": 8,
    "train_batch_size": 64,
    "epochs": 2,
    "use_gpu": False,
}


def search(world: World, space: str, models: Any = "LightGCN", **arguments: Any) -> list[Outcome]:
    """Search in the space of some lines."""
    Path("space.hyper").write_text(space)
    settings = {**QUICK, **arguments.pop("settings", {})}
    return tune(models, world.name, arguments.pop("where", "space.hyper"), config_dict=settings, **arguments)


def recorded(model: str = "LightGCN", output: str = "saved/tune") -> list[dict[str, Any]]:
    """Return what a search has recorded, less what differs from one time to another."""
    lines = (Path(output) / "tiny" / model / "trials.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


class Trainings:
    """Stands in for training: a trial's score is a function of its settings."""

    def __init__(self, score: Callable[[dict[str, Any]], float | None]) -> None:
        self.score = score
        self.tried: list[dict[str, Any]] = []
        self.watch: Callable[[Validation], None] = lambda validation: None

    def run(
        self, model: str, dataset: str, files: Any, fixed: Any, command_line: dict[str, Any], own_log: bool, watch: Any
    ) -> Result:
        assert not own_log
        self.watch = watch
        self.tried.append(command_line)
        score = self.score(command_line)
        checkpoint = Path(command_line["checkpoint_dir"]) / "weights.pth"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text(str(score))
        # Whoever chose by the test's results would choose the worst.
        test = {"recall@20": 1 - (score or 0), "ndcg@20": 0.5, "recall@5": 0.1}
        valid = {"recall@20": score or 0}
        return Result(model, dataset, 1, {"epochs": 2}, 3, 0.1, score, valid, test, str(checkpoint))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainings]:
    def make(score: Callable[[dict[str, Any]], float | None]) -> Trainings:
        made = Trainings(score)
        monkeypatch.setattr("recbole_rlmrec.tuning.trial.run", made.run)
        return made

    return make


LAYERS = "n_layers quniform 1,6,1\n"


# ---------------------------------------------------------------------- with real trainings


def test_the_best_settings_train_to_the_same_result(world: World) -> None:
    space = "n_layers choice [1, 2]\nalignment_weight loguniform -6,0\nlearning_rate choice [0.01, 0.05]\n"
    settings = {"epochs": 4, "seed": 5}
    [found] = search(world, space, "LightGCN_RLMRecCon", settings=settings, max_evals=4)
    trials = recorded("LightGCN_RLMRecCon")
    assert [trial["number"] for trial in trials] == [1, 2, 3, 4]
    assert len({key_of(trial["parameters"]) for trial in trials}) == 4
    assert found.best.score == max(trial["score"] for trial in trials)
    assert (found.n_trials, found.n_failed, found.metric) == (4, 0, "Recall@20")

    again = run(found.model, found.dataset, [found.settings_file], {"use_gpu": False})
    assert again is not None
    assert again.best_valid_score == found.best.score
    assert again.best_valid_result == found.best.valid_result
    assert again.test_result == found.best.test_result
    assert again.best_epoch == found.best.best_epoch
    written = yaml.safe_load(found.settings_file.read_text())
    assert {name: written[name] for name in found.best.parameters} == pytest.approx(found.best.parameters)
    assert written["seed"] == 5 and written["epochs"] == 4

    config, *_ = load_model(found.checkpoint)
    assert {name: config[name] for name in found.best.parameters} == found.best.parameters
    # One checkpoint of the search; nobody logs to RecBole's folder, since here the caller has set up logging.
    assert sorted(path.name for path in Path("saved/tune").rglob("*.pth")) == ["best.pth"]
    assert not list(Path("log").rglob("*.log"))
    logs = sorted(path.name for path in found.settings_file.parent.glob("log/*"))
    assert logs == [f"LightGCN_RLMRecCon-tiny-trial-{number}.log" for number in (1, 2, 3, 4)]
    assert "alignment" in (found.settings_file.parent / "log" / logs[0]).read_text()


def test_the_best_checkpoint_is_the_best_trial_s(world: World) -> None:
    [found] = search(world, "n_layers choice [1, 2, 3]\n", settings={"epochs": 3, "learning_rate": 0.02})
    again = run(found.model, found.dataset, [found.settings_file], {"use_gpu": False})
    assert again is not None
    scores = []
    for path in (found.checkpoint, again.checkpoint):
        config, model, *_ = load_model(path)
        scores.append(all_scores(model, config))
    assert (scores[0] == scores[1]).all()


def test_several_models_with_one_budget(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["LightGCN", "LightGCN_RLMRecCon", "LightGCN_RLMRecGen"]
    found = search(world, "", models, where="auto", max_evals=3)
    assert [outcome.model for outcome in found] == models
    assert [outcome.n_trials for outcome in found] == [3, 3, 3]
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(table(found))
    for outcome in found:
        test = outcome.best.test_result
        assert test is not None
        row = next(line for line in printed.splitlines() if line.startswith(f"| {outcome.model} "))
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert cells[1:6] == [
            f"{outcome.best.score:.4f}",
            f"{test['recall@20']:.4f}",
            f"{test['ndcg@20']:.4f}",
            "3",
            "0",
        ]


def test_a_diverging_trial_is_recorded_and_the_search_goes_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    [found] = search(world, "learning_rate choice [0.01, 1e30, 0.02]\n")
    assert (found.n_trials, found.n_failed) == (3, 1)
    [failed] = [trial for trial in recorded() if trial["error"]]
    assert failed["parameters"] == {"learning_rate": 1e30} and failed["score"] is None
    assert failed["error"].startswith("The training loss of epoch ")
    assert "failed (The training loss of epoch" in capsys.readouterr().out


def test_killed_and_begun_again(world: World, one_thread: None) -> None:
    """A search that is killed in the middle ends with the trials of one that is not."""
    space = "n_layers choice [1, 2, 3]\nlearning_rate loguniform -6,-3\n"
    long = {"epochs": 20, "stopping_step": 20}
    search(world, space, settings=long, max_evals=6, output="whole")
    command = [sys.executable, str(REPOSITORY / "run_recbole_rlmrec.py"), "--model=LightGCN", "--dataset=tiny"]
    command += ["--tune=space.hyper", "--max_evals=6"]
    command += [f"--{name}={json.dumps(value)}" for name, value in {**QUICK, **long}.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    journal = Path("saved/tune/tiny/LightGCN/trials.jsonl")
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while killed.poll() is None and not (journal.is_file() and journal.read_text().count("\n") >= 2):
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.wait()
    assert killed.returncode == -signal.SIGKILL
    n_before = len(recorded())
    assert 2 <= n_before < 6
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert f"6 trials (random), {n_before} of them done." in finished.stdout
    assert not Path("saved/tune/tiny/LightGCN/.checkpoints-of-trials").exists()
    assert recorded() == recorded(output="whole")
    assert len({key_of(trial["parameters"]) for trial in recorded()}) == len(recorded()) == 6


# ---------------------------------------------------------------------- what is tried


@pytest.mark.parametrize(
    ("tool", "algorithm"), [("hyperopt", "random"), ("hyperopt", "bayes"), ("optuna", "random"), ("optuna", "tpe")]
)
def test_no_settings_twice_and_all_where_the_budget_suffices(
    world: World, trainings: Callable[..., Trainings], tool: Any, algorithm: Any
) -> None:
    made = trainings(lambda settings: settings["n_layers"] / 10)
    [found] = search(world, LAYERS, tool=tool, algorithm=algorithm, max_evals=50)
    assert sorted(settings["n_layers"] for settings in made.tried) == [1, 2, 3, 4, 5, 6]
    assert found.best.parameters == {"n_layers": 6} and found.n_trials == 6


def test_exhaustive_goes_through_the_space(world: World, trainings: Callable[..., Trainings]) -> None:
    made = trainings(lambda settings: settings["n_layers"] / 10)
    space = "n_layers choice [3, 1]\nreg_weight choice [0, 0.1]\n"
    search(world, space, algorithm="exhaustive")
    tried = [(settings["n_layers"], settings["reg_weight"]) for settings in made.tried]
    assert tried == [(3, 0), (3, 0.1), (1, 0), (1, 0.1)]
    with pytest.raises(SettingError, match="takes 4 trials, more than max_evals=3"):
        search(world, space, algorithm="exhaustive", max_evals=3, output="other")
    with pytest.raises(SettingError, match=r"those of reg_weight \(uniform 0,1, from .* are without end"):
        search(world, "reg_weight uniform 0,1\n", algorithm="exhaustive", output="other")


@pytest.mark.parametrize("tool", ["hyperopt", "optuna"])
def test_another_seed_tries_others(world: World, trainings: Callable[..., Trainings], tool: Any) -> None:
    made = trainings(lambda settings: 0.5)
    for seed, output in ((1, "a"), (1, "b"), (2, "c")):
        search(world, "reg_weight uniform 0,1\n", settings={"seed": seed}, max_evals=5, output=output, tool=tool)
    first, again, other = (
        [settings["reg_weight"] for settings in made.tried[start : start + 5]] for start in (0, 5, 10)
    )
    assert first == again and not set(first) & set(other)


@pytest.mark.parametrize("tool", ["hyperopt", "optuna"])
def test_bayes_learns_from_its_trials(world: World, trainings: Callable[..., Trainings], tool: Any) -> None:
    made = trainings(lambda settings: 1 - (settings["reg_weight"] - 0.3) ** 2)
    for algorithm in ("random", "bayes"):
        search(world, "reg_weight uniform 0,1\n", algorithm=algorithm, max_evals=60, output=algorithm, tool=tool)
    by_chance, estimated = ([settings["reg_weight"] for settings in made.tried[start:][:60]] for start in (0, 60))
    assert by_chance[:5] == estimated[:5]  # before there is something to learn from
    distances = [statistics.mean(abs(value - 0.3) for value in values[30:]) for values in (by_chance, estimated)]
    assert distances[1] < 0.8 * distances[0]


def trial(number: int, score: float | None, **parameters: Any) -> Trial:
    return Trial(number, parameters, 1.0, {}, score, error=None if score is not None else "failed")


@pytest.mark.parametrize("kind", [Proposals, OptunaProposals])
def test_small_scores_can_be_the_better_ones(tmp_path: Path, kind: Any) -> None:
    Path(tmp_path / "a.hyper").write_text("x uniform 0,1\n")
    space = read_space(tmp_path / "a.hyper")
    trials = [trial(number, number / 20, x=number / 20) for number in range(1, 20)]
    low, high = (
        statistics.mean(
            kind(space, "bayes", seed, is_bigger_better=bigger).propose(20, trials)["x"] for seed in range(10)
        )
        for bigger in (False, True)
    )
    assert low < 0.4 < 0.6 < high
    journals = [Journal(tmp_path / str(bigger), {}, is_bigger_better=bigger) for bigger in (False, True)]
    for journal in journals:
        journal.folder.mkdir()
        for one in [trial(1, None, x=0.5), *trials[::-1]]:
            journal.add(one)
    assert [journal.best.score for journal in journals if journal.best] == [0.05, 0.95]


@pytest.mark.parametrize("kind", [Proposals, OptunaProposals])
def test_what_is_left_is_found_however_rarely_it_is_drawn(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "a.hyper").write_text("x quniform 0,199,1\n")
    space = read_space(tmp_path / "a.hyper")
    trials = [trial(number, 0.5, x=number) for number in range(200) if number not in (17, 160)]
    for algorithm in ("random", "bayes", "exhaustive"):
        proposals = kind(space, algorithm, 1)
        first = proposals.propose(199, trials)
        assert first in ({"x": 17}, {"x": 160})
        second = proposals.propose(199, trials, [first])
        assert first != second and second in ({"x": 17}, {"x": 160})
        assert proposals.propose(200, trials, [first, second]) is None


# ---------------------------------------------------------------------- what is recorded


def test_the_best_is_chosen_by_validation(world: World, trainings: Callable[..., Trainings]) -> None:
    trainings(lambda settings: {1: 0.2, 2: 0.4, 3: 0.1, 4: 0.4, 5: 0.3, 6: 0.0}[settings["n_layers"]])
    [found] = search(world, LAYERS)
    trials = recorded()
    first = next(trial["number"] for trial in trials if trial["score"] == 0.4)
    assert found.best.score == 0.4 and found.best.number == first  # the first of two
    assert found.checkpoint.read_text() == "0.4"
    assert found.best.test_result == {"recall@20": 0.6, "ndcg@20": 0.5, "recall@5": 0.1}
    lines = found.settings_file.read_text().splitlines()
    assert lines[0] == (
        f"# LightGCN on tiny: trial {first}, the best of 6 on the validation split: Recall@20 0.4 (random, hyperopt)."
    )
    assert lines[2] == (
        "# Train with --model=LightGCN --dataset=tiny --config_files=saved/tune/tiny/LightGCN/best.yaml --use_gpu=False"
    )


@pytest.mark.parametrize("how", ["interrupt", "kill"])
@pytest.mark.parametrize(
    ("tool", "algorithm"),
    [("hyperopt", "random"), ("hyperopt", "bayes"), ("hyperopt", "exhaustive"), ("optuna", "tpe")],
)
def test_a_stopped_search_goes_on(
    world: World,
    trainings: Callable[..., Trainings],
    how: str,
    tool: Any,
    algorithm: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def score(settings: dict[str, Any]) -> float:
        return 1 / (settings["n_layers"] + settings["reg_weight"])

    space = f"{LAYERS}reg_weight choice [0, 0.1, 0.2]\n"
    budget: dict[str, Any] = {"tool": tool, "max_evals": None if algorithm == "exhaustive" else 12}
    trainings(score)
    search(world, space, algorithm=algorithm, output="whole", **budget)
    whole = recorded(output="whole")

    def stop(settings: dict[str, Any]) -> float:
        if len(made.tried) == 8:
            Path(settings["checkpoint_dir"]).mkdir(parents=True)
            (Path(settings["checkpoint_dir"]) / "left.pth").touch()
            raise KeyboardInterrupt
        return score(settings)

    made = trainings(stop)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        search(world, space, algorithm=algorithm, **budget)
    assert f"Interrupted after 7 of {len(whole)} trials; the same command goes on." in capsys.readouterr().out
    assert recorded() == whole[:7]
    if how == "kill":
        with Path("saved/tune/tiny/LightGCN/trials.jsonl").open("a") as file:
            file.write('{"number": 8, "param')  # killed while it wrote
    made = trainings(score)
    [found] = search(world, space, algorithm=algorithm, **budget)
    assert len(made.tried) == len(whole) - 7
    assert recorded() == whole
    assert found.n_trials == len(whole)
    assert not list(Path("saved").rglob("left.pth"))

    [again] = search(world, space, algorithm=algorithm, **budget)
    assert len(made.tried) == len(whole) - 7 and again.best == found.best  # nothing was left to do


def test_gaps_of_a_search_are_filled(world: World, trainings: Callable[..., Trainings]) -> None:
    """Trials that ran side by side may have been stopped in any order; the same ones are tried in the end."""
    made = trainings(lambda settings: settings["reg_weight"])
    space = "reg_weight uniform 0,1\n"
    search(world, space, max_evals=5)
    whole, journal = recorded(), Path("saved/tune/tiny/LightGCN/trials.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[3] + lines[1])
    [found] = search(world, space, max_evals=5)
    assert len(made.tried) == 8
    assert sorted(recorded(), key=lambda trial: trial["number"]) == whole
    assert found.best.parameters == max(whole, key=lambda trial: trial["score"])["parameters"]


def test_a_larger_budget_goes_on(world: World, trainings: Callable[..., Trainings]) -> None:
    made = trainings(lambda settings: settings["reg_weight"])
    space = "reg_weight uniform 0,1\n"
    search(world, space, max_evals=3)
    [found] = search(world, space, max_evals=8)
    assert len(made.tried) == found.n_trials == 8
    search(world, space, max_evals=8, output="other")
    assert recorded() == recorded(output="other")
    with pytest.raises(SettingError, match="holds 8 trials of this search, more than max_evals=5"):
        search(world, space, max_evals=5)


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"algorithm": "bayes"}, "tune_algo was 'random' and is 'bayes'"),
        ({"settings": {"epochs": 3}}, "settings.epochs was 2 and is 3"),
        ({"settings": {"seed": 1}}, "settings.seed was 2020 and is 1"),
        ({"command_line": {"reg_weight": 0.5}}, "settings.reg_weight was 1e-05 and is 0.5"),
        ({"space": "n_layers quniform 1,5,1\n"}, "space.n_layers was 'quniform 1,6,1' and is 'quniform 1,5,1'"),
        ({"space": f"{LAYERS}reg_weight choice [1]\n"}, "space.reg_weight was None and is 'choice [1]'"),
    ],
)
def test_other_conditions_are_refused(
    world: World, trainings: Callable[..., Trainings], changed: dict[str, Any], shown: str
) -> None:
    trainings(lambda settings: 0.5)
    search(world, LAYERS, max_evals=2)
    before = recorded()
    with pytest.raises(SettingError) as caught:
        search(world, changed.pop("space", LAYERS), max_evals=2, **changed)
    assert str(caught.value).startswith("'saved/tune/tiny/LightGCN' holds a search under other conditions: ")
    assert shown in str(caught.value)
    assert recorded() == before


def test_other_data_are_refused(world: World, trainings: Callable[..., Trainings]) -> None:
    trainings(lambda settings: 0.5)
    search(world, LAYERS, max_evals=2)
    world.train = world.train[:-1]
    world.write()
    with pytest.raises(SettingError, match=r"data\.training interactions was "):
        search(world, LAYERS, max_evals=2)


def test_what_changes_no_score_may_change(world: World, trainings: Callable[..., Trainings]) -> None:
    trainings(lambda settings: 0.5)
    search(world, LAYERS, max_evals=2)
    search(world, LAYERS, max_evals=3, settings={"show_progress": True, "worker": 1, "state": "ERROR"})
    assert len(recorded()) == 3


def test_one_search_at_a_time_in_a_folder(world: World, trainings: Callable[..., Trainings]) -> None:
    def nested(settings: dict[str, Any]) -> float:
        with pytest.raises(SettingError, match="Another search is running in 'saved/tune/tiny/LightGCN'"):
            search(world, LAYERS, max_evals=2)
        return 0.5

    made = trainings(nested)
    search(world, LAYERS, max_evals=2)
    assert len(made.tried) == 2


def test_damaged_records_are_named(world: World, trainings: Callable[..., Trainings]) -> None:
    trainings(lambda settings: 0.5)
    search(world, LAYERS, max_evals=2)
    folder = Path("saved/tune/tiny/LightGCN")
    good = (folder / "trials.jsonl").read_text()
    for bad in ("{}\n", "nonsense\n", '{"number": 3}\n'):
        (folder / "trials.jsonl").write_text(good + bad + good)
        with pytest.raises(DataError, match=r"trials\.jsonl', line 3 is no record of a trial"):
            search(world, LAYERS, max_evals=4)
    (folder / "trials.jsonl").write_text(good)
    (folder / "conditions.json").write_text("{")
    with pytest.raises(DataError, match=r"conditions\.json' is no record of a search's conditions: it is not"):
        search(world, LAYERS, max_evals=4)
    (folder / "conditions.json").unlink()
    with pytest.raises(DataError, match="holds trials without conditions"):
        search(world, LAYERS, max_evals=4)


def test_all_trials_fail(world: World, trainings: Callable[..., Trainings]) -> None:
    def fail(settings: dict[str, Any]) -> float:
        raise TrainingError("The loss is not finite.") if settings["n_layers"] != 3 else ZeroDivisionError("by chance")

    made = trainings(fail)
    with pytest.raises(TrainingError) as caught:
        search(world, LAYERS)
    first = made.tried[0]["n_layers"]
    error = "The loss is not finite." if first != 3 else "ZeroDivisionError: by chance"
    assert str(caught.value) == (
        "All 6 trials of LightGCN failed; logs and record are in 'saved/tune/tiny/LightGCN', which is to be removed "
        f"before they are tried again. The first, with n_layers {first}: {error}"
    )
    assert {trial["error"] for trial in recorded()} == {"The loss is not finite.", "ZeroDivisionError: by chance"}
    logs = [path.read_text() for path in Path("saved/tune/tiny/LightGCN/log").iterdir()]
    assert len(logs) == 6 and all("Traceback" in log for log in logs)
    assert not Path("saved/tune/tiny/LightGCN/best.yaml").exists()


@pytest.mark.parametrize("tool", ["hyperopt", "optuna"])
def test_a_failed_trial_is_learnt_from(world: World, trainings: Callable[..., Trainings], tool: Any) -> None:
    def score(settings: dict[str, Any]) -> float | None:
        if settings["reg_weight"] > 0.5:
            raise TrainingError("too large")
        return 1 - abs(settings["reg_weight"] - 0.2)

    made = trainings(score)
    [found] = search(world, "reg_weight uniform 0,1\n", algorithm="bayes", max_evals=40, tool=tool)
    later = [settings["reg_weight"] > 0.5 for settings in made.tried[10:]]
    assert statistics.mean(later) < 0.4
    assert found.n_failed == sum(settings["reg_weight"] > 0.5 for settings in made.tried)
    assert found.n_trials == 40


def test_a_trial_without_a_score_is_a_failed_one(world: World, trainings: Callable[..., Trainings]) -> None:
    trainings(lambda settings: None if settings["n_layers"] == 2 else 0.1)
    [found] = search(world, LAYERS)
    assert found.n_failed == 1
    assert [trial["error"] for trial in recorded() if trial["parameters"] == {"n_layers": 2}] == [
        "nothing was validated"
    ]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FAULTS = (
    OSError("No space left on device"),
    OSError(24, "Too many open files"),
    MemoryError("No space"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/0"),
    caused(DataError("cannot be read"), OSError(5, "Input/output error")),
)


@pytest.mark.parametrize(("tool", "fault"), [*(("hyperopt", fault) for fault in FAULTS), ("optuna", FAULTS[0])])
def test_a_fault_of_the_machine_ends_the_search_and_its_trial_is_repeated(
    world: World, trainings: Callable[..., Trainings], tool: Any, fault: Exception
) -> None:
    def score(settings: dict[str, Any]) -> float:
        if len(made.tried) == 3:
            raise fault
        return settings["n_layers"] / 10

    made = trainings(score)
    with pytest.raises(MachineError, match="with 2 of 6 trials recorded: this is the machine's fault") as raised:
        search(world, LAYERS, tool=tool)
    assert str(fault) in str(raised.value)
    assert len(recorded()) == 2
    [found] = search(world, LAYERS, tool=tool)
    assert (found.n_trials, found.n_failed, found.best.parameters) == (6, 0, {"n_layers": 6})
    trainings(lambda settings: settings["n_layers"] / 10)
    search(world, LAYERS, tool=tool, output="whole")
    assert recorded() == recorded(output="whole")


def test_a_full_disk_while_trials_are_recorded_ends_the_search(
    world: World, trainings: Callable[..., Trainings], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings(lambda settings: 0.5)

    def full(self: Any, comments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write_best", full)
        with pytest.raises(MachineError, match=r"No space left on device.*1 of 6 trials recorded"):
            search(world, LAYERS)
    [found] = search(world, LAYERS)
    assert found.n_trials == 6


def test_too_large_for_a_gpu_is_the_trial_s_own_fault(world: World, trainings: Callable[..., Trainings]) -> None:
    def score(settings: dict[str, Any]) -> float:
        if settings["n_layers"] == 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return 0.5

    trainings(score)
    [found] = search(world, LAYERS)
    assert (found.n_trials, found.n_failed) == (6, 1)


def test_scores_that_are_no_numbers_fail_a_trial(world: World) -> None:
    """In one step: the loss is a number, and the weights that the step leaves rank nothing."""
    space = "learning_rate choice [0.01, 1e30]\n"
    [found] = search(world, space, settings={"train_batch_size": 10_000, "epochs": 1})
    assert (found.n_trials, found.n_failed, found.best.parameters) == (2, 1, {"learning_rate": 0.01})
    [failed] = [trial for trial in recorded() if trial["error"]]
    assert failed["parameters"] == {"learning_rate": 1e30}
    assert failed["error"].startswith("The scores of LightGCN after epoch 0 are not finite")


def test_a_metric_that_is_no_number(world: World, trainings: Callable[..., Trainings]) -> None:
    trainings(lambda settings: float("nan") if settings["n_layers"] == 6 else 0.5)
    [found] = search(world, LAYERS)
    assert (found.n_trials, found.n_failed) == (6, 1)
    assert [trial["error"] for trial in recorded() if trial["error"]] == ["the valid_metric is nan"]


def test_nothing_of_the_user_s_is_removed_or_emptied(world: World, trainings: Callable[..., Trainings]) -> None:
    folder = Path("saved/tune/tiny/LightGCN")
    (folder / "log").mkdir(parents=True)
    mine = [folder / name for name in ("checkpoints/mine.pth", "checkpoints/1/mine.pth", "ray/mine", "lock")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    Path("mine.txt").write_text("mine")
    (folder / "log/LightGCN-tiny-trial-1.log").symlink_to(Path("mine.txt").resolve())
    trainings(lambda settings: 0.5)
    search(world, LAYERS)
    assert {path.read_text() for path in [*mine, Path("mine.txt")]} == {"mine"}


def test_recbole_s_own_attributes_are_filled(world: World, trainings: Callable[..., Trainings]) -> None:
    """What a user of RecBole's HyperTuning looks at afterwards."""
    from recbole_rlmrec.tuning import search as module

    kept: list[Any] = []

    class Kept(module._Tuning):
        def __init__(self, search: Any) -> None:
            super().__init__(search)
            kept.append(self)

    trainings(lambda settings: settings["n_layers"] / 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Tuning", Kept)
        search(world, LAYERS)
    [tuning] = kept
    assert tuning.best_params == {"n_layers": 6} and tuning.best_score == 0.6
    assert tuning.best_test_result["recall@20"] == pytest.approx(0.4)
    assert sorted(tuning.score_list) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    tuning.export_result("exported.txt")
    assert "n_layers:6\nValid result:" in Path("exported.txt").read_text()


# ---------------------------------------------------------------------- settings


def test_settings_apply_to_every_trial(world: World, trainings: Callable[..., Trainings]) -> None:
    made = trainings(lambda settings: 0.5)
    search(world, LAYERS, command_line={"reg_weight": 0.25}, max_evals=3)
    assert [settings["reg_weight"] for settings in made.tried] == [0.25] * 3
    assert all(settings["show_progress"] is False for settings in made.tried)


def test_a_file_gives_way_to_the_search(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fixed.yaml").write_text("n_layers: 5\nlearning_rate: 0.02\nalignment_weight: 1\n")
    [found] = search(world, "n_layers choice [1, 2]\n", config_file_list=["fixed.yaml"])
    assert {trial["settings"].get("learning_rate") for trial in recorded()} == {0.02}
    written = yaml.safe_load(found.settings_file.read_text())
    assert written["n_layers"] in (1, 2) and written["learning_rate"] == 0.02
    assert "  LightGCN does not use the setting 'alignment_weight' ('fixed.yaml').\n" in capsys.readouterr().out


def test_the_command_line_fixes_what_would_be_searched(
    world: World, trainings: Callable[..., Trainings], capsys: pytest.CaptureFixture[str]
) -> None:
    made = trainings(lambda settings: 0.5)
    search(world, f"{LAYERS}reg_weight choice [0, 1]\n", command_line={"n_layers": 4})
    assert [settings["n_layers"] for settings in made.tried] == [4, 4]
    assert "LightGCN: n_layers is 4 by the command line and not searched." in capsys.readouterr().out
    with pytest.raises(SettingError, match="The command line fixes everything that was to be searched: n_layers"):
        search(world, LAYERS, command_line={"n_layers": 4})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tool": "optna"}, "tool='optna': expected one of hyperopt, ray, optuna. Did you mean optuna?"),
        ({"algorithm": "grid"}, "tune_algo='grid': expected one of exhaustive, random, bayes, tpe."),
        ({"max_evals": 0}, "max_evals=0: expected a whole number at least 1."),
        ({"jobs": 0, "tool": "optuna"}, "jobs=0: expected a whole number at least 1."),
        ({"jobs": 2}, "jobs=2: hyperopt takes one trial after the other; --tool=optuna and --tool=ray run several"),
        ({"prune": False}, "prune=False: hyperopt trains every trial to its end; --tool=optuna may end one early."),
        ({"models": ["LightGCN", "LightGCN"]}, "LightGCN is named twice"),
        ({"models": ["LightGCN", "LightGCM"]}, "There is no model 'LightGCM'. Did you mean LightGCN?"),
        ({"where": "nosuch.hyper"}, "There is no search space 'nosuch.hyper'."),
        ({"settings": {"result_file": "a.json"}}, "result_file='a.json' is for a single run"),
        ({"settings": {"resume_from": "a.pth"}}, "resume_from='a.pth' is for a single run"),
        ({"settings": {"eval_step": 0}}, "eval_step=0, epochs=2: nothing is validated"),
        ({"settings": {"epochs": 0}}, "eval_step=1, epochs=0: nothing is validated"),
        ({"settings": {"epoch": 0}}, "There is no setting 'epoch'"),
    ],
)
def test_bad_arguments(world: World, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        search(world, LAYERS, **{"models": "LightGCN", **arguments})
    assert message in str(caught.value)
    assert not Path("saved").exists()


@pytest.mark.parametrize(("tool", "package"), [("hyperopt", "hyperopt"), ("ray", "pyarrow"), ("optuna", "optuna")])
def test_missing_packages(world: World, monkeypatch: pytest.MonkeyPatch, tool: Any, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("recbole_rlmrec.extras.find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(SettingError) as caught:
        search(world, LAYERS, tool=tool)
    extra = {"hyperopt": "tune"}.get(tool, tool)
    assert str(caught.value) == (
        f"A search with {tool} needs the package '{package}', which is not installed: pip install "
        f"'recbole-rlmrec[{extra}]'."
    )


# ---------------------------------------------------------------------- the command line


@pytest.mark.parametrize("entry", [train_main, lambda arguments: main(["train", *arguments])])
def test_arguments_reach_the_search(
    entry: Callable[[Sequence[str]], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def tune(*args: Any, report: Callable[[str], None], **named: Any) -> None:
        report("searching")
        calls.append((args, named))

    monkeypatch.setattr("recbole_rlmrec.tuning.search.tune", tune)
    assert entry(["--model=A,B", "--dataset=d", "--tune", "--epochs=3", "--config_files=a.yaml b.yaml"]) == 0
    files = ["a.yaml", "b.yaml"]
    assert calls.pop() == ((["A", "B"], "d", "auto", files), {"command_line": {"epochs": 3}})
    more = ["--tune_algo=bayes", "--max_evals=7", "--tool=optuna", "--jobs=2", "--prune=False", "--tune_output=out"]
    assert entry(["--model=A", "--dataset=d", "--tune=x.hyper", *more]) == 0
    named = {"algorithm": "bayes", "max_evals": 7, "tool": "optuna", "jobs": 2, "prune": False, "output": "out"}
    named["command_line"] = {}
    assert calls == [((["A"], "d", "x.hyper", []), named)]
    assert capsys.readouterr().out == "searching\n" * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_evals=3"], "error: --max_evals is for a search: add --tune, or --tune=FILE.hyper.\n"),
        (["--tool=ray"], "error: --tool is for a search: add --tune, or --tune=FILE.hyper.\n"),
        (["--prune=False"], "error: --prune is for a search: add --tune, or --tune=FILE.hyper.\n"),
        (["--tune", "--nproc=2"], "error: --nproc=2: a trial of a search runs in one process;"),
        (["--tune=nosuch.hyper"], "error: There is no search space 'nosuch.hyper'. --tune takes a .hyper file"),
    ],
)
def test_bad_command_lines(
    world: World, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(["--model=LightGCN", "--dataset=tiny", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_other_semantic_embeddings_are_another_search(world: World) -> None:
    space = "learning_rate choice [0.01, 0.02]\n"
    search(world, space, "LightGCN_RLMRecCon", max_evals=1)
    world.semantic = tuple({token: -vector for token, vector in table.items()} for table in world.semantic)
    world.write()
    with pytest.raises(
        SettingError, match=r"under other conditions: data\.item embeddings was .*data\.user embeddings"
    ):
        search(world, space, "LightGCN_RLMRecCon", max_evals=2)


def test_a_model_that_is_computed_has_no_space_of_its_own(world: World) -> None:
    with pytest.raises(SettingError, match=r"Pop is computed, not trained by steps, and '.*tune' holds no Pop.hyper"):
        search(world, "", "Pop", where="auto")
