"""What a person reads of a training, as printed by one; and the pieces of it."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import World

from recbole_rlmrec import quick_start
from recbole_rlmrec.cli import main, train_main
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.run_settings import StoppingSettings
from recbole_rlmrec.training import screen
from recbole_rlmrec.training.folders import begin_log
from recbole_rlmrec.training.machine import peak_memory
from recbole_rlmrec.training.stopping import EarlyStopping, Margin
from recbole_rlmrec.training.trainer import Trainer

TINY = ["--dataset=tiny", "--benchmark_filename=[train,valid,test]", "--embedding_size=8", "--use_gpu=False"]


@pytest.fixture
def printed(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Train as from a terminal and return what it prints to its two streams."""

    def call(*arguments: str, also: Sequence[str] = TINY) -> tuple[str, str]:
        monkeypatch.setattr(logging.root, "handlers", [])
        assert train_main([*also, *arguments]) == 0
        captured = capsys.readouterr()
        return captured.out, captured.err

    level = logging.root.level
    yield call
    logging.root.setLevel(level)


def rows_of(text: str) -> dict[str, str]:
    """What a screen says under each label, on one line."""
    found = re.findall(r"^  (\w[\w ]{0,11}\S) {2,}((?:.|\n {16})*)", text, re.MULTILINE)
    return {label: " ".join(said.split()) for label, said in found}


def test_an_aligned_training(printed: Any, world: World) -> None:
    metadata = {"encoder": "lsa", "writer": "template", "dimension": 12}
    (world.folder / "tiny.semantic.json").write_text(json.dumps(metadata))
    end, beginning = printed("--model=LightGCN_RLMRecCon", "--epochs=2", "--stopping_step=3")
    assert "OrderedDict" not in beginning + end and "np.float" not in beginning + end and "it/s" not in beginning

    start, *after = beginning.splitlines()
    assert start == "LightGCN_RLMRecCon on tiny"
    at_start = rows_of(beginning)
    assert at_start["data"] == "40 users, 30 items; from dataset/tiny"
    n_of_parts = [len(part) for part in (world.train, world.valid, world.test)]
    assert at_start["interactions"].startswith("{} training, {} validation, {} test; split: ".format(*n_of_parts))
    assert at_start["texts"] == "encoder lsa, writer template; 40 of 40 users, 30 of 30 items covered"
    assert at_start["device"].startswith("cpu: use_gpu=False; ")
    assert at_start["settings"].endswith("epochs=2, stopping_step=3; others: defaults=recommended")
    assert "recbole-rlmrec 0." in at_start["versions"] and "torch " in at_start["versions"]

    assert "LightGCN, the base, is trained first (off with --base_first=False)." in after
    lines = [line for line in after if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 0", "epoch 1"] * 2
    number = r"-?[\d.e+-]+"
    form = (
        rf"epoch 0: loss {number} \(bpr {number}, reg {number}, alignment {number}\); Recall@20 ([\d.]+), best \1 in "
        rf"epoch 0; patience (left: 4 validations and 1,000 steps|does not count yet); {number} s an epoch, at most "
        rf"{number} s left"
    )
    assert re.fullmatch(form, lines[2]), lines[2]
    assert "left" not in lines[3].rpartition(";")[2]

    result = json.loads(Path(rows_of(end)["result"]).read_text())["result"]
    at_end = rows_of(end)
    assert (at_end["checkpoint"], at_end["log"]) == (result["checkpoint"], result["log"])
    names = {Path(at_end[label]).stem.removesuffix("-base") for label in ("checkpoint", "result", "log")}
    assert len(names) == 1 and names.pop().startswith("LightGCN_RLMRecCon-tiny-")
    assert result["command"] and result["versions"]["torch"] and result["semantic"]["writer"] == "template"
    assert {"training interactions", "user embeddings"} <= result["data"].keys()
    assert result["peak_memory"]["ram"] > 10**7 and re.fullmatch(r"\d.* [MG]B RAM", at_end["peak memory"])
    log = Path(at_end["log"]).read_text()
    assert "learning_rate = 0.001" in log and "learning_rate = 0.001" not in beginning
    assert "valid result" in log and end.strip() in log


@pytest.mark.parametrize(("state", "is_quiet"), [("ERROR", True), ("WARNING", True), ("DEBUG", False)])
def test_state_is_of_the_terminal_and_not_of_the_end(printed: Any, state: str, is_quiet: bool) -> None:
    end, beginning = printed("--model=BPR", "--epochs=1", f"--state={state}")
    assert "popularity ranking" in end and rows_of(end)["best epoch"] == "0 (counted from 0); there were no more epochs"
    assert ("BPR on tiny" not in beginning, "valid result" not in beginning) == (is_quiet, is_quiet)
    assert "General Hyper Parameters" in Path(rows_of(end)["log"]).read_text()


def test_each_run_of_a_process_has_its_log(printed: Any) -> None:
    logs = [Path(rows_of(printed("--model=Pop", "--state=ERROR")[0])["log"]) for _ in range(2)]
    assert logs[0] != logs[1] and all(path.read_text().count("General Hyper Parameters") == 1 for path in logs)


def test_without_validation_each_epoch_is_a_line(printed: Any) -> None:
    end, beginning = printed("--model=LightGCN", "--epochs=2", "--eval_step=0")
    lines = [line for line in beginning.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2 and all(
        re.match(r"epoch \d: loss \S+ \(bpr \S+, reg \S+\); \S+ s an", line) for line in lines
    )
    assert rows_of(beginning)["training"] == "at most 2 epochs, without validation"
    assert "test recall@20" in end and "valid recall@20" not in end


QUICK_END = "--stopping_step=0 --patience_steps=0 --plateau_steps=0 --learning_rate=0.9 --epochs=9"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (f"--model=LightGCN {QUICK_END}", "train {data} --model=LightGCN_RLMRecCon"),
        (
            f"--model=LightGCN_RLMRecGen {QUICK_END} --base_first=False",
            "train {data} --model=LightGCN_RLMRecGen --tune",
        ),
        ("--model=Pop", "models"),
    ],
)
def test_the_next_command(printed: Any, arguments: str, expected: str) -> None:
    end, _ = printed("--state=ERROR", *arguments.split())
    data = shlex.join(["--dataset=tiny", '--benchmark_filename=["train", "valid", "test"]'])
    assert rows_of(end)["or"] == f"recbole-rlmrec {expected.format(data=data)}"


def test_the_command_that_recommends_works_as_typed(
    printed: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.train[world.train == world.train[0, 0]] = "a,b"  # which the list of ids would cut
    world.write()
    end, _ = printed("--model=LightGCN", "--epochs=1", "--state=ERROR")
    program, *words = shlex.split(rows_of(end)["next"])
    assert (program, words[:2]) == ("recbole-rlmrec", ["recommend", f"--checkpoint={rows_of(end)['checkpoint']}"])
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_the_command_to_go_on_works_as_typed(printed: Any) -> None:
    end, _ = printed("--model=LightGCN", "--epochs=1", "--state=ERROR", "--learning_rate=0.01")
    program, verb, *arguments = shlex.split(rows_of(end)["or"])
    assert (program, verb) == ("recbole-rlmrec", "train")
    end, said = printed(*arguments, also=())
    assert "Training goes on from epoch 1 with saved/LightGCN-tiny-" in said and rows_of(said)["settings"]
    assert "result" not in rows_of(end)  # one that goes on has no record


def test_texts_are_the_next_step_where_there_are_none(printed: Any, world: World) -> None:
    for path in world.folder.glob("*emb*"):
        path.unlink()
    end, _ = printed(*f"--model=LightGCN {QUICK_END} --state=ERROR".split())
    assert rows_of(end)["or"].startswith("recbole-rlmrec build-semantics --dataset=tiny ")


def test_only_models_of_pairs_recommend(world: World) -> None:
    training, lists = world.loaders(world.config("BPR"))[1]._dataset, quick_start._use_command
    assert lists(world.config("BPR"), "a.pth", training) == [
        f"recbole-rlmrec recommend --checkpoint=a.pth --users={training.field2id_token['user_id'][1]}"
    ]
    assert (
        lists(world.config("BPR"), "", training)
        == lists(SimpleNamespace(model_class=get_model("GRU4Rec")), "a.pth", training)
        == []
    )


def test_a_log_that_the_caller_set_up_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = [logging.NullHandler()]
    monkeypatch.setattr(logging.root, "handlers", handlers)
    assert begin_log(world.config("BPR")) is None
    assert logging.root.handlers == handlers and not Path("log").exists()


def test_the_printed_settings_are_those_of_the_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model=LightGCN_RLMRecCon", *TINY, "--learning-rate=0.005"]
    assert train_main([*arguments, "--print-config"]) == 0
    printed = capsys.readouterr().out
    Path("all.yaml").write_text(printed)
    again = RLMRecConfig("LightGCN_RLMRecCon", "tiny", ["all.yaml"])
    assert again.settings == yaml.safe_load(printed)
    assert again.settings["learning_rate"] == 0.005 and again.settings["embedding_size"] == 8
    assert not Path("saved").exists() and not Path("log").exists()


def test_bars_need_a_terminal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_rlmrec import quick_start

    asked: list[bool] = []
    fit = Trainer.fit

    def noting(self: Any, *arguments: Any, show_progress: bool, **named: Any) -> Any:
        asked.append(show_progress)
        return fit(self, *arguments, show_progress=False, **named)

    monkeypatch.setattr(Trainer, "fit", noting)
    for is_terminal, wanted in ((False, True), (True, True), (True, False)):
        monkeypatch.setattr(quick_start.sys.stderr, "isatty", lambda answer=is_terminal: answer)
        settings = world.config("BPR", epochs=1, show_progress=wanted).external_config_dict
        quick_start.run("BPR", "tiny", config_dict=settings)
    assert asked == [False, True, False]


def test_patience_that_is_left() -> None:
    stopping = EarlyStopping(StoppingSettings(stopping_step=1, patience_steps=30), steps_per_epoch=10)
    said = []
    for epoch, score in enumerate((0.5, 0.4, 0.3, 0.2), start=1):
        must_end = stopping.observe(epoch, score)
        said.append(screen.patience_in_words(stopping))
        assert must_end == said[-1].endswith("none")
    assert said == [
        "patience left: 2 validations and 30 steps",
        "patience left: 1 validation and 20 steps",
        "patience left: 10 steps",
        "patience left: none",
    ]
    recboles = EarlyStopping(StoppingSettings(early_stopping="recbole", stopping_step=1), steps_per_epoch=10)
    recboles.observe(1, 0.5)
    assert screen.patience_in_words(recboles) == "patience left: 2 validations"
    waiting = EarlyStopping(StoppingSettings(), steps_per_epoch=10)
    waiting.observe(1, 0.1, Margin(0.1, 0.0, 0.01))
    assert screen.patience_in_words(waiting) == "patience does not count yet"


@pytest.mark.parametrize(
    ("device", "use_gpu", "expected"),
    [
        ("cpu", True, "cpu: no GPU found; 3 threads"),
        ("cpu", False, "cpu: use_gpu=False; 3 threads"),
        ("cuda", True, "cuda: H"),
    ],
)
def test_the_device_and_why(monkeypatch: pytest.MonkeyPatch, device: str, use_gpu: bool, expected: str) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H")
    assert screen._device({"device": torch.device(device), "use_gpu": use_gpu}) == expected


def test_memory_of_a_gpu_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 7)
    assert peak_memory(torch.device("cuda"))["gpu"] == 7 and "gpu" not in peak_memory(torch.device("cpu"))


def test_a_base_in_the_last_screen() -> None:
    result = SimpleNamespace(
        model="A_B", dataset="d", best_epoch=3, kept="base", base={"model": "A", "source": "trained", "seconds": 5.0},
        stopped="patience", seconds=61.0,
        peak_memory={}, checkpoint="", log="",
    )  # fmt: skip
    text = screen.end_screen(result, table="t", record="", commands=["do this"])
    assert rows_of(text) == {
        "best epoch": "3 (counted from 0) of the base, A, which is kept; then patience ended",
        "time": "1 min 1 s of training, and 5.0 s of its base",
        "next": "do this",
    }
