"""Parts by name: registered by hand, found by what they are, refused with the name of what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import recbole_rlmrec
from recbole_rlmrec.cli import main
from recbole_rlmrec.encoder.base import ENCODERS, Encoder, EncoderSettings, make_encoder
from recbole_rlmrec.encoder.lsa import LSAEncoder
from recbole_rlmrec.errors import ContractError, SettingError
from recbole_rlmrec.extension import register
from recbole_rlmrec.parts import Registry, failures_named
from recbole_rlmrec.profile.writer import WRITERS, RuleWriter, Writer
from recbole_rlmrec.settings import SETTINGS, Range, Settings, completed, declare, setting
from recbole_rlmrec.sources.raw_dump import AMAZON, SOURCES
from recbole_rlmrec.verbs import VERBS


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take out what a test registers."""
    for each in (ENCODERS, WRITERS, SOURCES, VERBS):
        monkeypatch.setattr(each, "_loaded", dict(each._loaded))
    before = dict(SETTINGS)
    yield
    SETTINGS.clear()
    SETTINGS.update(before)


@dataclass(frozen=True)
class EvenSettings(Settings):
    even_columns: int = setting(2, Range(1, whole=True), "even: length of a vector")


class EvenEncoder(Encoder):
    known_as = "even"
    settings_class = EvenSettings
    name = "even"

    def encode(self, texts: Any) -> np.ndarray:
        return np.ones((len(texts), self.settings.even_columns), dtype=np.float32)


class Silent(RuleWriter):
    known_as = "silent"

    def profiles(self, task: Any, side: Any, item_profiles: Any) -> Any:
        return [], {}


def verb(name: str = "say_hello", **content: Any) -> ModuleType:
    module = ModuleType(f"theirs.{name}", "Say hello.")
    whole = {"add_arguments": lambda parser: None, "run": lambda arguments: 0, **content}
    vars(module).update({key: value for key, value in whole.items() if value is not None})
    return module


def test_each_part_goes_to_the_registry_of_its_type() -> None:
    assert recbole_rlmrec.register is register
    assert register(EvenEncoder) is EvenEncoder and ENCODERS["even"] is EvenEncoder
    assert make_encoder("even", EvenSettings(even_columns=3)).encode(["a"]).shape == (1, 3)
    assert SETTINGS["even_columns"].meaning == "even: length of a vector"
    assert register(Silent) is Silent and WRITERS.find("silent") is Silent
    toys = replace(AMAZON, name="toys")
    assert register(toys) is toys and SOURCES["toys"] is toys
    hello = verb()
    assert register(hello) is hello and VERBS["say-hello"] is hello
    assert [*ENCODERS][:3] == ["openai", "sentence-transformers", "lsa"] and "even" in [*ENCODERS][3:]


def test_a_part_may_be_defined_again() -> None:
    """As in a notebook's cell that is run once more."""
    register(EvenEncoder)
    again = type("EvenEncoder", (EvenEncoder,), {"__module__": __name__, "__qualname__": "EvenEncoder"})
    assert ENCODERS[register(again).known_as] is again
    register(LSAEncoder)
    assert ENCODERS["lsa"] is LSAEncoder


def test_our_parts_keep_to_their_contracts() -> None:
    """Each is found under its name, and a verb's first line fits the list of verbs."""
    for known in (ENCODERS, WRITERS, SOURCES, VERBS):
        assert len([known.find(name) for name in known]) >= 3
    assert {"train", "prepare", "import-release", "build-semantics", "check"} <= set(VERBS)
    assert all(VERBS[name].__doc__.splitlines()[0].endswith(".") for name in VERBS)


class NoEncode(Encoder):
    known_as = "none"


class NoWriter(Writer):
    known_as = "none"


class Nameless(EvenEncoder):
    known_as = None


class SpacedName(EvenEncoder):
    known_as = "Even Encoder"


class TakenName(EvenEncoder):
    known_as = "lsa"


class TakenWriter(Silent):
    known_as = "template"


class OddSettings(EvenEncoder):
    known_as = "odd"
    settings_class = dict


@dataclass(frozen=True)
class BareSettings(Settings):
    even_bare: float = 0.1


class Bare(EvenEncoder):
    known_as = "bare"
    settings_class = BareSettings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoEncode, "NoEncode breaks the contract of encoders: it lacks encode()."),
        (lambda: NoWriter, "NoWriter breaks the contract of writers: it lacks plan() and write()."),
        (lambda: Nameless, "Nameless.known_as = None: expected the name by which the encoder is asked for"),
        (lambda: SpacedName, "SpacedName.known_as = 'Even Encoder': expected the name"),
        (
            lambda: TakenName,
            "the encoder 'lsa' is there already (recbole_rlmrec.encoder.lsa:LSAEncoder). Choose another",
        ),
        (lambda: TakenWriter, "the writer 'template' is there already"),
        (lambda: OddSettings, "OddSettings.settings_class = <class 'dict'>: expected a dataclass"),
        (lambda: Bare, "BareSettings.even_bare does not say what it may be"),
        (lambda: replace(AMAZON, item=None), "Source.item = None: expected a function of one line's object"),
        (lambda: replace(AMAZON, item_files="("), "Source.item_files = '(' is no regular expression"),
        (lambda: replace(AMAZON, min_rating="3"), "Source.min_rating = '3': expected a number, or None"),
        (lambda: replace(AMAZON, name="My Dump"), "Source.name = 'My Dump': expected the name by which the source"),
        (lambda: replace(AMAZON, interaction=print), "the source 'amazon' is there already"),
        (lambda: verb(run=None), "theirs.say_hello breaks the contract of verbs: it lacks run(arguments)."),
        (lambda: verb(add_arguments=3), "it lacks add_arguments(parser)."),
        (lambda: verb(__doc__=" "), "it lacks a docstring"),
        (lambda: verb("Say_Hello"), "theirs.Say_Hello.__name__ = 'Say-Hello': expected the name by which the verb"),
        (lambda: verb("train"), "theirs.train: the verb 'train' is there already (recbole_rlmrec.verbs.train)"),
        (lambda: 3, "3 is no part that can be registered: a backbone extends GraphBackbone"),
        (lambda: dict, "dict is no part that can be registered"),
    ],
)
def test_refused_at_registration(make: Any, message: str) -> None:
    with pytest.raises(ContractError) as refusal:
        register(make())
    assert message in str(refusal.value)


def test_an_encoder_without_a_name_is_refused_when_it_is_made() -> None:
    class Unnamed(Encoder):
        known_as = "unnamed"

        def encode(self, texts: Any) -> np.ndarray:
            return np.ones((len(texts), 1), dtype=np.float32)

    register(Unnamed)
    with pytest.raises(ContractError, match=r"Unnamed breaks the contract of encoders: it sets no name"):
        make_encoder("unnamed", EncoderSettings())


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    checked: list[Any] = []

    def check(part: Any) -> str:
        checked.append(part)
        return "deque"

    known: Registry[Any] = Registry("queue", "no.such.group", check, {"deque": "collections:deque", "bad": "nosuch:X"})
    assert list(known) == ["deque", "bad"] and "bad" in known and checked == []
    assert known["deque"].__name__ == "deque" and known["deque"] is known.find("deque") and len(checked) == 1
    with pytest.raises(SettingError, match=r"The queue 'bad' cannot be used.*No module named 'nosuch'"):
        known.find("bad")
    with pytest.raises(SettingError, match=r"There is no queue 'heap'. Expected one of deque, bad."):
        known.find("heap")
    with pytest.raises(KeyError):
        known["heap"]


@pytest.mark.parametrize("returned", [None, [], (["a profile"], {}), ([], ["no title"])])
def test_a_rule_writer_returns_profiles_and_reasons(returned: Any) -> None:
    writer = type("Wrong", (RuleWriter,), {"profiles": lambda *given: returned})()
    with pytest.raises(ContractError, match=r"Wrong.profiles\(\) returned .* expected a list of Profile and a dict"):
        writer.plan(None)


def test_a_setting_without_default_is_asked_for() -> None:
    @dataclass(frozen=True)
    class AskedSettings(Settings):
        even_asked: int = setting(MISSING, Range(1), "even: must be given", example="3")

    declare(AskedSettings)
    with pytest.raises(SettingError, match=r"needs the setting 'even_asked', .* give --even_asked="):
        completed(AskedSettings, {"even_asked": None})
    assert completed(AskedSettings, {"even_asked": 4}).even_asked == 4


def test_two_sources_of_lambdas_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is defined again in its place replaces itself; one of another place does not."""
    again = [replace(AMAZON, name="twice", interaction=lambda record: ("u", "i", 1.0, None)) for _ in range(2)]
    monkeypatch.setattr(SOURCES, "_loaded", dict(SOURCES._loaded))
    for each in again:
        assert SOURCES.register(each) is each
    with pytest.raises(ContractError, match="the source 'twice' is there already"):
        SOURCES.register(replace(AMAZON, name="twice", interaction=lambda record: ("v", "j", 2.0, None)))


class Failing(EvenEncoder):
    known_as = "failing"

    def encode(self, texts: Any) -> np.ndarray:
        return np.zeros(3) @ np.zeros(len(texts))


def test_whose_code_failed_is_said() -> None:
    """Of a stranger's part; an error of this package's, and what they say themselves, stay as they are."""
    failing = Failing(EvenSettings())
    with pytest.raises(ContractError) as caught:
        failures_named("encoder", failing)(failing.encode)(["a"])
    message = str(caught.value)
    assert message.startswith("The encoder 'failing' (test_parts:Failing) failed with ValueError: matmul")
    assert message.endswith("The fault is in that package.") and isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ContractError, match=r"failed with TypeError: .*encode\(\) takes"):
        failures_named("encoder", failing)(failing.encode)([], 1)
    for error in (SettingError("said"), OSError("disk")):
        with pytest.raises(type(error)) as passed, failures_named("encoder", failing):
            raise error
        assert passed.value is error
    ours = LSAEncoder(EncoderSettings())
    with pytest.raises(ValueError, match="needs fit"):
        failures_named("encoder", ours)(ours.encode)(["a"])


def test_a_verb_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    says = verb("says")
    exec("def run(arguments):\n    return {}['nothing']\n", vars(says))  # a function of that module
    register(says)
    assert main(["says"]) == 2
    assert "error: The verb 'theirs.says' (theirs.says) failed with KeyError: 'nothing'" in capsys.readouterr().err
