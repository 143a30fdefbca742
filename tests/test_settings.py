"""Settings are declared once, in the class that reads them, and known whichever model is run."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from recbole.model.general_recommender import BPR

from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import ContractError, SettingError
from recbole_rlmrec.model.backbone.contract import settings_along
from recbole_rlmrec.model.registry import get_model, names
from recbole_rlmrec.run_settings import RUN_CLASSES
from recbole_rlmrec.settings import (
    OPTIONS_OF_TRAIN,
    SETTINGS,
    AutoOr,
    Choice,
    OfType,
    Range,
    Settings,
    Weight,
    declare,
    defaults_of,
    known,
    published_of,
    require,
    setting,
)
from recbole_rlmrec.verbs import train

_OF_MODELS = {each for name in names() for _, declared in settings_along(get_model(name)) for each in declared}
CLASSES = sorted({*RUN_CLASSES, *_OF_MODELS}, key=lambda settings: settings.__name__)


def test_every_setting_is_declared_by_a_class() -> None:
    assert {field.name for settings in CLASSES for field in fields(settings)} == set(SETTINGS)


@pytest.mark.parametrize("settings", CLASSES)
def test_the_type_of_a_field_is_that_of_its_values(settings: type[Settings]) -> None:
    for name, hint in get_type_hints(settings).items():
        allowed: Any = SETTINGS[name].allowed
        if isinstance(allowed, Choice):
            assert get_args(hint) == allowed.words, name
        elif isinstance(allowed, AutoOr) and allowed.optional:
            assert hint == (int if allowed.range.whole else float) | Literal["auto"] | None, name
        elif isinstance(allowed, AutoOr):
            assert hint in (Weight, float), name  # AutoCF, DCCF take a number only
        elif isinstance(allowed, Range):
            assert hint is (int if allowed.whole else float), name
        elif allowed.optional:
            kind, nothing = get_args(hint)
            assert nothing is type(None) and (get_origin(kind) or kind) is allowed.type, name
        else:
            assert hint is allowed.type, name


def test_settings_of_other_models_are_known_before_any_model_is_built(tmp_path: Path) -> None:
    """In a process that imports the configuration only; no setting may be a mapping."""
    script = """
import json, sys
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError
answers = {}
for name in json.loads(sys.argv[1]):
    for given, value in ((name, {}), (name + "x", 1)):
        try:
            RLMRecConfig("LightGCN", "tiny", config_dict={given: value})
        except SettingError as error:
            answers[given] = str(error)
print(json.dumps(answers))
"""
    # One of each class: a class is known as a whole.
    asked = sorted({fields(settings)[-1].name for settings in CLASSES})
    command = [sys.executable, "-c", script, json.dumps(asked)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    answers = json.loads(done.stdout or "{}")
    for name in asked:
        described = SETTINGS[name]
        assert answers[name].startswith(f"{name}={{}} (from config_dict)"), done.stderr
        assert f"expected {described.allowed}, e.g. --{name}={described.example}." in answers[name]
        misspelt = f"There is no setting '{name}x' (from config_dict). Did you mean '"
        assert answers[f"{name}x"].startswith(misspelt)


@pytest.fixture
def undeclared() -> Any:
    """Take out what a test declares."""
    before = dict(SETTINGS)
    yield
    SETTINGS.clear()
    SETTINGS.update(before)


@dataclass(frozen=True)
class OddSettings(Settings):
    odd_word: str = setting("a", Choice(("a", "b")), "Odd: a word", published="b")
    odd_number: float = setting(MISSING, Range(0, 1), "Odd: a number", "0.5")
    n_layers: int = known("n_layers", 4, published=5)
    reg_weight: float


@dataclass(frozen=True)
class OddSonSettings(OddSettings):
    odd_number: float = known("odd_number", 0.25)


def test_what_a_class_declares(undeclared: None) -> None:
    """Those of its bases with it; a default is where the class, a base or RecBole has one."""
    declare(OddSonSettings)
    assert str(SETTINGS["odd_word"].allowed) == "one of a, b" and SETTINGS["odd_word"].example == "a"
    assert SETTINGS["odd_number"].example == "0.5"
    assert defaults_of(OddSettings) == {"odd_word": "a", "n_layers": 4}
    assert defaults_of(OddSonSettings) == {"odd_word": "a", "odd_number": 0.25, "n_layers": 4}
    assert published_of(OddSettings) == published_of(OddSonSettings) == {"odd_word": "b", "n_layers": 5}
    declare(OddSettings)


class Odd(BPR):
    """Reads a setting without a default, and one that nobody declares."""

    settings_classes = (OddSettings,)


def test_what_is_asked_for_can_be_given_as_the_message_says(
    undeclared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    declare(OddSettings)
    with pytest.raises(SettingError) as caught:
        require(RLMRecConfig(Odd, "tiny"), "odd_number")
    [typed] = re.findall(r"give (--\S+) on the command line", str(caught.value))
    given = parse_settings([typed])
    assert require(RLMRecConfig(Odd, "tiny", command_line=given), "odd_number") == 0.5
    (tmp_path / "a.yaml").write_text("odd_number: 0.25\n")
    assert require(RLMRecConfig(Odd, "tiny", ["a.yaml"]), "odd_number") == 0.25


def test_what_cannot_be_given_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="There is no setting 'layer_cl'"):
        RLMRecConfig("LightGCN", "tiny", command_line={"layer_cl": 1})
    with pytest.raises(SettingError) as caught:
        require(RLMRecConfig("LightGCN", "tiny"), "layer_cl")
    message = str(caught.value)
    assert "--layer_cl" not in message and "layer_cl: TYPE = setting(default, allowed, meaning)" in message


def test_the_words_of_a_choice_are_those_of_its_literal() -> None:
    from typing import Literal

    assert Choice.of(Literal["one", "two"]) == Choice(("one", "two"))


def class_of(bases: tuple[type, ...] = (Settings,), **declared: Any) -> type[Settings]:
    content = {"__annotations__": dict.fromkeys(declared, float), "__module__": __name__, **declared}
    return dataclass(frozen=True)(type("Faulty", bases, content))


def test_of_several_classes_all_are_declared_or_none(undeclared: None) -> None:
    before = dict(SETTINGS)
    with pytest.raises(ContractError, match=r"Faulty\.odd = known"):
        declare(OddSettings, class_of(odd=known("odd", 0.1)))
    assert before == SETTINGS
    declare(OddSettings, class_of(odd_number=known("odd_number", 0.1)))
    assert set(SETTINGS) == {*before, "odd_word", "odd_number"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (class_of(ssl_tau=known("eps", 0.1)), "Faulty.ssl_tau = known('eps', ...): expected the field's name, and a"),
        (class_of(odd=known("odd", 0.1)), "Faulty.odd = known('odd', ...): expected the field's name, and a setting"),
        (class_of(eps=known("eps", -1)), "Faulty.eps: the default -1 is not a number at least 0"),
        (class_of(eps=known("eps", 0, published=-1)), "Faulty.eps: the published value -1 is not a number at least 0"),
        (class_of(odd=setting(1, Range(0), "Odd", published="x")), "Faulty.odd: the published value 'x' is not"),
        # The same once more is a second home as well, also under a class that has it.
        (class_of(eps=setting(0.1, SETTINGS["eps"].allowed, SETTINGS["eps"].meaning)), "there is a setting of this"),
        (class_of((OddSettings,), odd_word=setting("a", Choice(("a",)), "Odd")), "Faulty.odd_word: there is a setting"),
    ],
)
def test_refused_declarations(undeclared: None, settings: type[Settings], message: str) -> None:
    before = dict(SETTINGS)
    with pytest.raises(ContractError) as refusal:
        declare(settings)
    assert message in str(refusal.value)
    assert before == SETTINGS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            class_of(nproc=setting(1, Range(0), "Odd: a number")),
            "Faulty.nproc: --nproc is an option of the command line",
        ),
        (class_of(tune=setting(1, Range(0), "Odd: a number")), "Faulty.tune: --tune is an option of the command line"),
        (class_of(odd=setting(1, Range(0), None)), "Faulty.odd: the meaning is None; expected half a sentence"),
        (class_of(odd=setting(1, Range(0), " ")), "Faulty.odd: the meaning is ' '; expected half a sentence"),
        (class_of(odd=setting("a", Choice("abc"), "Odd")), "Faulty.odd: the words of Choice('abc') are no tuple of"),
        (class_of(odd=setting("a", Choice(()), "Odd")), "Faulty.odd: the words of Choice(()) are no tuple of words"),
        (class_of(odd=setting(1, Range(2, 1), "Odd")), "Faulty.odd: Range(2, 1) holds no number"),
        (class_of(odd=setting(1, Range(float("nan")), "Odd")), "Faulty.odd: Range(nan, inf) holds no number"),
        (class_of(odd=setting(1, AutoOr(Choice(("a",))), "Odd")), "has no range of numbers"),
        (class_of(odd=setting(1, OfType("int", "int"), "Odd")), "Faulty.odd: OfType('int', ...) has no type"),
    ],
)
def test_declarations_that_say_nothing(undeclared: None, settings: type[Settings], message: str) -> None:
    before = dict(SETTINGS)
    with pytest.raises(ContractError) as refusal:
        declare(settings)
    assert message in str(refusal.value)
    assert before == SETTINGS


def test_options_of_train_are_those_of_its_parser() -> None:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    options = {name[2:] for action in parser._actions for name in action.option_strings if name.startswith("--")}
    assert {name.replace("-", "_") for name in options} - {"model", "dataset", "config_files"} == OPTIONS_OF_TRAIN
