"""The command line: settings as text, exit codes, and errors in plain words."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World
from scipy import sparse

from recbole_rlmrec import __version__
from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.cli import main, train_main
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.verbs import VERBS

REPOSITORY = Path(__file__).resolve().parents[1]

Entry = Callable[[list[str]], int]


def through_main(arguments: list[str]) -> int:
    """Run `recbole-rlmrec train`."""
    return main(["train", *arguments])


ENTRIES = [pytest.param(train_main, id="run_recbole_rlmrec.py"), pytest.param(through_main, id="recbole-rlmrec train")]


# ---------------------------------------------------------------------- parse_settings


def test_settings_are_parsed_values() -> None:
    arguments = [
        "--learning_rate=1e-4",
        "--topk=[5,10]",
        "--eval_args={'split':{'RS':[0.8,0.1,0.1]}}",
        "--tuned=False",
        "--split_field=",
        "--checkpoint_dir=a=b",
        "--user_inter_num_interval=[0,inf)",
    ]
    assert parse_settings(arguments) == {
        "learning_rate": 1e-4,
        "topk": [5, 10],
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}},
        "tuned": False,
        "split_field": None,
        "checkpoint_dir": "a=b",
        "user_inter_num_interval": "[0,inf)",
    }


def test_no_arguments_no_settings() -> None:
    assert parse_settings([]) == {}


@pytest.mark.parametrize(
    "argument", ["learning_rate=1", "-learning_rate=1", "--learning_rate", "--=3", "--", "ml-100k", "", "=", "-x"]
)
def test_argument_of_another_form(argument: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_settings(["--seed=1", argument])
    assert str(caught.value) == f"'{argument}' is not a setting; settings are written --name=value."


def test_a_name_twice() -> None:
    with pytest.raises(SettingError, match=r"^--seed is given twice: 1 and 2\.$"):
        parse_settings(["--seed=1", "--epochs=3", "--seed=2"])
    assert parse_settings(["--seed=1", "--seed=1"]) == {"seed": 1}


def test_a_name_twice_with_values_that_only_compare_equal() -> None:
    with pytest.raises(SettingError, match="given twice"):
        parse_settings(["--tuned=1", "--tuned=True"])


def test_nothing_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expression = "__import__('os').system('touch canary')"
    assert parse_settings([f"--checkpoint_dir={expression}"]) == {"checkpoint_dir": expression}
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- errors


@pytest.fixture
def fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Entry, list[str]], str]:
    """Run, expect exit code 2 and one paragraph on stderr, and return it."""
    monkeypatch.chdir(tmp_path)

    def call(entry: Entry, arguments: list[str]) -> str:
        assert entry(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.endswith("\n")
        message = captured.err[len("error: ") : -1]
        assert "Traceback" not in message and "\n\n" not in message and message == message.strip()
        return message

    return call


@pytest.mark.parametrize("entry", ENTRIES)
def test_unknown_model_of_another_case(fails: Callable[..., str], entry: Entry, tmp_path: Path) -> None:
    message = fails(entry, ["--model=lightgcn", "--dataset=ml-100k"])
    assert message.startswith("There is no model 'lightgcn'. Did you mean LightGCN?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_unknown_model(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, entry: Entry, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    message = fails(entry, ["--model=LightGCN_RLMRecCan", "--dataset=ml-100k"])
    assert message.startswith("There is no model 'LightGCN_RLMRecCan'. Did you mean LightGCN_RLMRecCon?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_misspelt_setting(fails: Callable[..., str], entry: Entry, tmp_path: Path) -> None:
    arguments = ["--model=LightGCN_RLMRecCon", "--dataset=ml-100k", "--alignmnet_weight=0.1"]
    assert fails(entry, arguments) == (
        "There is no setting 'alignmnet_weight' (from the command line). Did you mean 'alignment_weight'?"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("model", "argument", "shown"),
    [
        ("LightGCN_RLMRecGen", "--mask_ratio=2", "mask_ratio=2 (from the command line) is out of range"),
        ("LightGCN_RLMRecCon", "--alignment_temperature=0", "alignment_temperature=0 (from the command line)"),
        ("LightGCN", "--layer_combination=max", "layer_combination='max' (from the command line): expected one of"),
    ],
)
def test_out_of_range(
    fails: Callable[..., str], entry: Entry, tmp_path: Path, model: str, argument: str, shown: str
) -> None:
    assert fails(entry, [f"--model={model}", "--dataset=ml-100k", argument]).startswith(shown)
    assert list(tmp_path.iterdir()) == []


def test_setting_in_a_file(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("epochs: 1\n")
    (tmp_path / "b.yaml").write_text("mask_ratoi: 0.1\n")
    arguments = ["-m", "LightGCN_RLMRecGen", "-d", "ml-100k", "--config_files", "a.yaml b.yaml"]
    assert (
        fails(train_main, arguments) == "There is no setting 'mask_ratoi' (from 'b.yaml'). Did you mean 'mask_ratio'?"
    )


def test_missing_file(fails: Callable[..., str]) -> None:
    message = fails(train_main, ["--model=LightGCN", "--dataset=ml-100k", "--config_files=nosuch.yaml"])
    assert message == "There is no property file 'nosuch.yaml'. Check the path given with --config_files."


@pytest.mark.parametrize("argument", ["extra", "-seed=3"])
def test_argument_that_is_no_setting(fails: Callable[..., str], argument: str) -> None:
    message = fails(train_main, ["--model=LightGCN", "--dataset=ml-100k", argument])
    assert message == f"'{argument}' is not a setting; settings are written --name=value."


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_such_dataset(fails: Callable[..., str], entry: Entry) -> None:
    message = fails(entry, ["--model=LightGCN", "--dataset=nosuch"])
    assert message.startswith("There is no dataset 'nosuch': no folder 'dataset/nosuch', and RecBole does")


def test_released_dataset_that_is_not_there(fails: Callable[..., str]) -> None:
    message = fails(train_main, ["--model=LightGCN_RLMRecCon", "--dataset=amazon-book"])
    assert "https://archive.org/download/rlmrec_data/data.zip" in message
    assert message.endswith("recbole-rlmrec import-release --source <unpacked>/data/amazon --dataset amazon-book")


@pytest.mark.parametrize("entry", ENTRIES)
def test_missing_embeddings(fails: Callable[..., str], entry: Entry, world: World) -> None:
    for path in world.folder.glob("tiny.*emb*"):
        path.unlink()
    arguments = ["--model=LightGCN_RLMRecCon", "--dataset=tiny", "--benchmark_filename=[train,valid,test]"]
    message = fails(entry, arguments)
    assert message.startswith("No user embeddings of dataset 'tiny': looked for tiny.useremb.npy with")
    assert "\n  dataset/tiny\n" in message
    build = '`recbole-rlmrec build-semantics --dataset=tiny \'--benchmark_filename=["train", "valid", "test"]\'`'
    assert f"To make them from texts: {build}." in message
    assert not list(Path().glob("saved/*.pth"))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("arguments", [[], ["--model=LightGCN"], ["--dataset=ml-100k"]])
def test_model_and_dataset_are_required(entry: Entry, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry(arguments)
    assert caught.value.code == 2
    assert "the following arguments are required: " in capsys.readouterr().err


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_rlmrec.quick_start.run", interrupt)
    assert train_main(["--model=LightGCN", "--dataset=ml-100k"]) == 130
    assert capsys.readouterr().err == ""


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the program keeps its traceback; only what a user can fix becomes one message."""

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("recbole_rlmrec.quick_start.run", fail)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        train_main(["--model=LightGCN", "--dataset=ml-100k"])


# ---------------------------------------------------------------------- what is handed over


@pytest.mark.parametrize("entry", ENTRIES)
def test_arguments_reach_the_run(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("recbole_rlmrec.quick_start.run", lambda *args, **named: calls.append((args, named)))
    arguments = ["-m", "SGL_RLMRecGen", "--dataset", "mine", "--config_files=a.yaml b.yaml", "--topk=[5]", "--mod=x"]
    assert entry(arguments) == 0
    processes = {"nproc": 1, "world_size": -1, "ip": "localhost", "port": 5678, "group_offset": 0}
    settings = {"command_line": {"topk": [5], "mod": "x"}, **processes}  # --mod is no abbreviation of --model
    assert callable(calls[0][1].pop("report"))
    assert calls == [(("SGL_RLMRecGen", "mine", ["a.yaml", "b.yaml"]), settings)]


def test_training(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["--benchmark_filename=[train,valid,test]", "--epochs=1", "--embedding_size=8", "--show_progress=False"]
    settings += ["--result_file=out/result.json", "--use_gpu=False"]
    assert train_main(["--model=LightGCN_RLMRecCon", "--dataset=tiny", *settings]) == 0
    result = json.loads(Path("out/result.json").read_text())
    assert (result["model"], result["dataset"], result["seed"]) == ("LightGCN_RLMRecCon", "tiny", 2020)
    assert result["settings"] == {
        "benchmark_filename": ["train", "valid", "test"],
        "epochs": 1,
        "embedding_size": 8,
    }
    assert set(result["test_result"]) == {f"{metric}@{k}" for metric in ("recall", "ndcg") for k in (5, 10, 20)}


# ---------------------------------------------------------------------- the program itself


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"recbole-rlmrec {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["prepare"]])
def test_verb_is_required(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: recbole-rlmrec")


def test_script_at_the_top(tmp_path: Path) -> None:
    """As a user runs it: a fresh process in another folder."""
    command = [sys.executable, str(REPOSITORY / "run_recbole_rlmrec.py"), "--model=LightGCN_RLMRecGen"]
    finished = subprocess.run(
        [*command, "--dataset=ml-100k", "--mask_ratio=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr == (
        "error: mask_ratio=2 (from the command line) is out of range: expected a number in (0, 1], e.g. "
        "--mask_ratio=0.1. Meaning: Gen: share of the nodes masked at each step.\n"
    )
    assert finished.stdout == "" and list(tmp_path.iterdir()) == []


def test_the_list_of_verbs_needs_none_of_what_they_work_with(tmp_path: Path) -> None:
    """So it is there at once; and a verb imports no other."""
    script = "import sys; from recbole_rlmrec.cli import main\n"
    script += "try: main(sys.argv[1:])\nexcept SystemExit: print('modules:', *sys.modules)"
    for arguments, verbs in ((["--help"], len(VERBS)), (["import-release", "--help"], 1)):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={"PATH": "", "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)},
            check=True,
        )
        printed, _, modules = done.stdout.partition("modules: ")
        assert "Turn RLMRec's released files into a dataset" in printed
        assert {"numpy", "torch", "pandas", "recbole"}.isdisjoint(modules.split())
        imported = [name.rpartition(".")[2] for name in modules.split() if name.startswith("recbole_rlmrec.verbs.")]
        assert sum(not name.startswith("_") for name in imported) == verbs


# ---------------------------------------------------------------------- import-release

#: (user row, item row); user 3 is in no training pair, and nobody has all items.
SPLITS = {"trn": [(2, 0), (0, 2), (1, 2), (0, 0), (1, 3)], "val": [(2, 2), (1, 0)], "tst": [(0, 1), (3, 0)]}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A made release of 4 users and 4 items."""
    folder = tmp_path / "yelp"
    folder.mkdir()
    for name, pairs in SPLITS.items():
        rows, columns = zip(*pairs)
        matrix = sparse.coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(4, 4))
        (folder / f"{name}_mat.pkl").write_bytes(pickle.dumps(matrix))
    for seed, name in enumerate(("usr", "itm")):
        vectors = np.random.default_rng(seed).normal(size=(4, 5))
        (folder / f"{name}_emb_np.pkl").write_bytes(pickle.dumps(vectors))
    return folder


def import_to(output: Path, release: Path, dataset: str = "yelp") -> dict[str, bytes]:
    arguments = ["import-release", "--source", str(release), "--dataset", dataset, "--data_path", str(output)]
    assert main(arguments) == 0
    return {path.name: path.read_bytes() for path in (output / dataset).iterdir()}


def test_import_release(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = import_to(tmp_path / "one", release)
    for name, part in (("trn", "train"), ("val", "valid"), ("tst", "test")):
        lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in sorted(SPLITS[name]))]
        assert first[f"yelp.{part}.inter"].decode() == "".join(f"{line}\n" for line in lines)
    assert {"yelp.useremb.npy", "yelp.useremb.tokens", "yelp.itememb.npy", "yelp.itememb.tokens"} <= set(first)
    assert str(tmp_path / "one" / "yelp") in capsys.readouterr().out
    assert import_to(tmp_path / "two", release) == first
    assert import_to(tmp_path / "one", release) == first  # over what is there


def test_import_release_to_the_default_folder(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import-release", "--source", "yelp", "--dataset", "yelp"]) == 0
    assert (tmp_path / "dataset" / "yelp" / "yelp.train.inter").is_file()


def test_import_release_then_train(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import_to(tmp_path / "dataset", release)
    settings = ["--epochs=1", "--tuned=False", "--show_progress=False", "--result_file=result.json", "--topk=[1,2]"]
    settings.append("--valid_metric=NDCG@2")
    assert train_main(["--model=LightGCN_RLMRecGen", "--dataset=yelp", "--mask_ratio=0.5", *settings]) == 0
    assert json.loads(Path("result.json").read_text())["dataset"] == "yelp"


@pytest.mark.parametrize("content", [b"", b"cos\nsystem\n(S'touch canary'\ntR."])
def test_import_release_of_a_bad_pickle(
    fails: Callable[..., str], release: Path, tmp_path: Path, content: bytes
) -> None:
    (release / "val_mat.pkl").write_bytes(content)
    arguments = ["import-release", "--source", str(release), "--dataset", "yelp", "--output", "out"]
    assert str(release / "val_mat.pkl") in fails(main, arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["yelp"]  # no canary, nothing written


def test_import_release_of_no_folder(fails: Callable[..., str], tmp_path: Path) -> None:
    message = fails(main, ["import-release", "--source", "nosuch", "--dataset", "yelp"])
    assert "nosuch" in message
    assert list(tmp_path.iterdir()) == []


def test_import_release_takes_no_settings(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["import-release", "--source", str(release), "--dataset", "yelp", "--seed=1"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --seed=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LightGCN_RLMRecCon", "alignment_temperature = 0.2: a number above 0\n    Con: temperature"),
        ("n_layers", "n_layers = 2 (SGL 3, XSimGCL 3, TextGCN 3): a whole number in [1, 100]\n    propagation layers"),
        ("learning-rate", "learning_rate = 0.001"),
        ("topk", "topk = [5, 10, 20]: a setting of RecBole's"),
        ("NeuMF", "mlp_hidden_size = [128, 64]: a setting of RecBole's"),
    ],
)
def test_settings_of_one_name(name: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", name]) == 0
    printed = capsys.readouterr().out
    assert expected in printed and "patience_steps" not in printed
    assert (printed.count("\n") == 2) == name[0].islower()


def test_settings_of_no_name(fails: Callable[..., str]) -> None:
    message = fails(main, ["settings", "alignment_wieght"])
    assert message == "There is no model and no setting 'alignment_wieght'. Did you mean 'alignment_weight'?"
    assert fails(main, ["settings", "LightGCM"]).startswith("There is no model 'LightGCM'. Did you mean LightGCN?")


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["LightGCN"][:4] == ["LightGCN_RLMRecCon", "LightGCN_RLMRecGen", "LightGCN_ProMax", "Linear"]
    assert rows["MultiVAE"][:3] == ["MultiVAE_RLMRecCon", "-", "MultiVAE_ProMax"]
    assert rows["SemanticOnly"][:4] == ["-", "-", "-", "The"]
    assert "LightGCN_RLMRecCon" not in rows


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert "contrast_layer = 1: a whole number at least 1\n    XSimGCL: layer that" in capsys.readouterr().out
    assert main(["settings", "--markdown"]) == 0
    assert "| `text_domain` | general | one of general, books, businesses, games, movies |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["settings"], ["settings", "topk"]])
def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    """As `recbole-rlmrec settings | head -1`; little output is written only when the program ends."""
    command = [sys.executable, "-c", "import sys; from recbole_rlmrec.cli import main; sys.exit(main(sys.argv[1:]))"]
    command += arguments
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
