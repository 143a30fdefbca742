"""How options, settings and verbs may be written, and what is said where one cannot be meant."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.cli import main
from recbole_rlmrec.config import RLMRecConfig, is_setting
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.profile.writer import WRITERS
from recbole_rlmrec.settings import SETTINGS
from recbole_rlmrec.verbs import VERBS
from recbole_rlmrec.verbs._command import OF_VERBS, filled, with_output
from recbole_rlmrec.verbs._options import canonical
from recbole_rlmrec.verbs.build_semantics import _refuse_unused

ROOT = Path(__file__).parents[2]


def parser_of(verb: str) -> argparse.ArgumentParser:
    return filled(argparse.ArgumentParser(**OF_VERBS), VERBS[verb])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--epochs 5", "--epochs=5"),
        ("--learning-rate 0.01", "--learning_rate=0.01"),
        ("--learning_rate -0.1", "--learning_rate=-0.1"),
        ("--checkpoint-dir=a=b", "--checkpoint_dir=a=b"),
        ("--split_field=", "--split_field="),
        ("–epochs=5 —epochs 5 –‐epochs=5", "--epochs=5 --epochs=5 --epochs=5"),
        ("--learning‑rate=1 –m BPR", "--learning_rate=1 --model=BPR"),
        ("-m BPR -d=x", "--model=BPR --dataset=x"),
        ("-mBPR", "--model=BPR"),
        ("--tuned", "--tuned=True"),
        ("--tuned False --epochs 5", "--tuned=False --epochs=5"),
        ("--no-tuned --epochs 5", "--tuned=False --epochs=5"),
        ("--show-progress --no-enable-amp", "--show_progress=True --enable_amp=False"),
        ("--world-size 4 --nproc=2", "--world_size=4 --nproc=2"),
        ("--tune --max-evals 3", "--tune --max_evals=3"),
        ("--tune mine.hyper", "--tune=mine.hyper"),
        ("extra --epochs 5", "extra --epochs=5"),
        ("--gpu_id= --load_col=", "--gpu_id= --load_col="),
        ("-seed=3", "-seed=3"),
        ("-- --epochs 5", "-- --epochs 5"),
        ("--of_another_package 5", "--of_another_package=5"),
    ],
)
def test_a_training_s_words_in_one_spelling(words: str, expected: str) -> None:
    assert canonical(parser_of("train"), words.split()) == expected.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--float16", "--float16"),
        ("--float16=true", "--float16"),
        ("--float16 false --dry_run", "--dry-run"),
        ("--no-float16", ""),
        ("--normalize=no-such", None),
        ("--normalize=false", "--no-normalize"),
        ("--normalize", ""),
        ("--token_budget 5", "--token-budget=5"),
        ("--encoder-prompt -x", "--encoder-prompt=-x"),
        ("--encoder-prompt=--x", "--encoder-prompt=--x"),
        ("--encoder-prompt=", "--encoder-prompt="),
    ],
)
def test_options_of_a_verb_in_one_spelling(words: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(SettingError, match="expected true or false, or --no-normalize alone"):
            canonical(parser_of("build-semantics"), words.split())
    else:
        assert canonical(parser_of("build-semantics"), words.split()) == expected.split()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs", "--epochs has no value: write --epochs=VALUE"),
        ("--epochs --tuned", "--epochs has no value: write --epochs=VALUE"),
        ("--epochs -d x", "--epochs has no value"),
        ("--epochs=", "--epochs has no value"),
        ("--data_path=", "--data_path has no value"),
        ("--nproc=", "--nproc has no value"),
        ("--nproc --epochs=5", "--nproc has no value"),
        ("--model", "--model has no value"),
        ("--nproc=2 --nproc 3", "--nproc is given twice: 2 and 3."),
        ("-d x --dataset=y", "--dataset is given twice: x and y."),
        ("-dataset=x", "-dataset has one dash: write --dataset."),
        ("-data_path=x", "-data_path has one dash: write --data_path."),
    ],
)
def test_refused_words(words: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        canonical(parser_of("train"), words.split())
    assert str(caught.value).startswith(message)


def test_options_of_a_verb_from_outside_may_be_of_any_kind() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cold-start", action=argparse.BooleanOptionalAction)
    parser.add_argument("--several", nargs="+")
    parser.add_argument("--each", action="append")
    parser.add_argument("files", nargs="*")
    words = ["a.txt", "--cold_start", "--each=1", "--each", "2", "--several", "x", "y"]
    known = parser.parse_args(canonical(parser, words))
    assert (known.cold_start, known.several, known.each, known.files) == (True, ["x", "y"], ["1", "2"], ["a.txt"])
    assert parser.parse_args(canonical(parser, ["--no_cold_start"])).cold_start is False


def test_a_setting_twice_in_two_spellings() -> None:
    words = canonical(parser_of("train"), ["--learning-rate", "1", "--learning_rate=2"])
    with pytest.raises(SettingError, match="--learning_rate is given twice: 1 and 2"):
        parse_settings(words)


def test_a_value_with_blanks_and_no_quotation_marks() -> None:
    words = canonical(parser_of("train"), ["--topk=[5,", "10]"])
    with pytest.raises(SettingError, match=r"^'10\]' is not a setting.*needs quotation marks: --topk='\[5, 10\]'\.$"):
        parse_settings(words)


@pytest.mark.parametrize("verb", VERBS)
def test_each_option_in_each_spelling(verb: str) -> None:
    """Dashes or underscores, blanks or ``=``; the same thing has the same name in every verb."""
    parser = parser_of(verb)
    for action in parser._actions:
        for name in [name for name in action.option_strings if action.nargs is None and name.startswith("--")]:
            for spelt in (f"--{name[2:].replace('-', '_')}", f"--{name[2:].replace('_', '-')}"):
                assert canonical(parser, [spelt, "7"]) == canonical(parser, [f"{spelt}=7"]) == [f"{name}=7"]
    by_name = {name: action.dest for action in parser._actions for name in action.option_strings}
    if "--dataset" in by_name:
        assert by_name["-d"] == "dataset" and (by_name.get("--data_path") or parser.get_default("settings") is not None)


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_works(verb: str) -> None:
    parser = parser_of(verb)
    text, _, example = (parser.description or "").partition("\n\nExample:\n")
    assert len(re.findall(r"[.](?:\s|$)", text)) >= 2
    command, *words = shlex.split(example)[:2], *shlex.split(example)[2:]
    assert command == ["recbole-rlmrec", verb]
    _, rest = parser.parse_known_args(canonical(parser, words))
    assert rest == [] or all(is_setting(name) for name in parse_settings(rest))
    assert f"recbole-rlmrec {verb}" in parser.format_help()


# ---------------------------------------------------------------------- what is said


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that fails, and return the last line of what it says."""
    monkeypatch.chdir(tmp_path)

    def call(words: str) -> str:
        try:
            status = main(words.split())
        except SystemExit as error:
            status = int(str(error.code))
        assert status == 2
        return capsys.readouterr().err.splitlines()[-1]

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian --model=BPR", "'trian' is no verb; expected one of "),
        ("trian", " Did you mean 'train'?"),
        ("build_semantic", " Did you mean 'build-semantics'?"),
        ("--model=BPR", "The verb comes first: recbole-rlmrec train "),
        ("qqqq", "train, tune-encoder, update."),
        ("train --model=BPR --dataset=x --nprocs=2", "'nprocs' (from the command line). Did you mean '--nproc'?"),
        ("train --model=BPR --dataset=x --lr 1", "'lr' (from the command line). Did you mean 'learning_rate'?"),
        ("train --model=BPR --dataset=x --wrker 1", "'wrker' (from the command line). Did you mean 'worker'?"),
        ("train --model=BPR --dataset=x --data-pth=1", "'data_pth' (from the command line). Did you mean 'data_path'?"),
        ("train --model=BPR --dataset=x --qqqq=1", "'qqqq' (from the command line). The README lists all settings."),
        ("build-semantics -d x --writter=llm --llm=m", "'writter' (from the command line). Did you mean '--writer'?"),
        ("build-semantics -d x --llm-model=m", "'llm_model' (from the command line). Did you mean '--llm'?"),
        (
            "build-semantics -d x --token-budgte 1",
            "'token_budgte' (from the command line). Did you mean '--token-budget'",
        ),
        ("import-release --sorce=x --dataset=y", "arguments: --sorce=x. Did you mean '--source'?"),
        ("import-release --source=x -d y --itemmap=z", "arguments: --itemmap=z. Did you mean '--item-map'?"),
    ],
)
def test_what_is_most_likely_meant(refused: Callable[[str], str], words: str, message: str) -> None:
    assert message in refused(words)


def test_what_is_written_for_a_device(refused: Callable[[str], str]) -> None:
    message = refused("train --model=BPR --dataset=x --device=cpu")
    assert message.endswith("Give --use_gpu=False for the CPU, or --gpu_id=1 for the second GPU.")
    typed = re.findall(r"--\w+=\w+", message)
    assert parse_settings(typed) == {"use_gpu": False, "gpu_id": 1}
    assert RLMRecConfig("BPR", "x", command_line=parse_settings(typed[:1]))["device"].type == "cpu"


def test_encoders_settings_are_named_as_its_options_are() -> None:
    @dataclass(frozen=True)
    class OthersSettings:
        model: str = "small"
        batch_size: int = 8

    encoder: Any = SimpleNamespace(known_as="others", settings_class=OthersSettings)
    arguments = parser_of("build-semantics").parse_args(["--dataset=x", "--device=cpu"])
    with pytest.raises(SettingError) as caught:
        _refuse_unused(arguments, WRITERS.find("template"), encoder)
    assert str(caught.value) == (
        "The encoder others cannot use --device. Leave it out; its settings are: --batch-size=..., --encoder-model=...."
    )


def test_what_messages_and_pages_advise_to_type_exists() -> None:
    known = {"version", "name", "no", "x", "option"}  # and what stands for any option or setting
    for verb in VERBS:
        known |= {name for action in parser_of(verb)._actions for name in map(plain, action.option_strings)}
    texts = {path: strings_of(path) for path in (ROOT / "recbole_rlmrec").rglob("*.py")}
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        texts[path] = re.sub(r"pip install.*|`(?:python )?benchmarks/[^`]*`", "", path.read_text(encoding="utf-8"))
    advised = {
        (plain(name), path.name)
        for path, text in texts.items()
        for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
    }
    assert len(advised) > 60
    bare = {(name.removeprefix("no_") if name not in known else name, path) for name, path in advised}
    assert {(name, path) for name, path in bare if name not in known and not is_setting(name)} == set()


def plain(name: str) -> str:
    return name.lstrip("-").rstrip("_-").replace("-", "_")


def strings_of(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(strings)


def test_examples_of_settings_can_be_typed() -> None:
    for name, described in SETTINGS.items():
        [(key, value)] = parse_settings(canonical(parser_of("train"), [f"--{name}", described.example])).items()
        assert key == name and value in described.allowed, name


# ---------------------------------------------------------------------- values


def configured(**settings: Any) -> RLMRecConfig:
    return RLMRecConfig("LightGCN", "x", command_line=settings)


@pytest.mark.parametrize(
    "name", ["data_path", "checkpoint_dir", "result_file", "resume_from", "init_from", "split_file"]
)
def test_home_is_expanded_in_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = configured(**{name: "~/there"})
    assert config.settings[name] == str(tmp_path / "there")
    assert str(config[name]).startswith(str(tmp_path / "there"))


@pytest.mark.parametrize("verb", VERBS)
def test_home_is_expanded_in_options(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever help says that a value is a folder or a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for action in parser_of(verb)._actions:
        if action.metavar in ("DIR", "FILE", "FILES") or "folder" in (action.help or ""):
            assert callable(action.type)
            assert str(tmp_path / "there") in action.type("~/there")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("item_attribute_fields", "genres", ["genres"]),
        ("item_attribute_fields", "genres, title", ["genres", "title"]),
        ("user_attribute_fields", "[age]", ["age"]),
        ("metrics", "Recall,NDCG", ["Recall", "NDCG"]),
        ("topk", "5,20", [5, 20]),
        ("benchmark_filename", "train,valid,test", ["train", "valid", "test"]),
        ("text_domain", "books", "books"),
    ],
)
def test_lists_without_brackets(name: str, text: str, value: Any) -> None:
    assert configured(**parse_settings([f"--{name}={text}"]))[name] == value


# ---------------------------------------------------------------------- output


def test_output_that_has_few_characters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert with_output(lambda: print("naïve – 日本") or 0) == 0
    assert (tmp_path / "out").read_text() == "na\\xefve \\u2013 \\u65e5\\u672c\n"
