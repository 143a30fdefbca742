"""How a setting is declared, with its default, kind, range and meaning, and how what is declared is checked.

A setting is declared once, by :func:`setting`, in the settings class of what reads it: the run's in
:mod:`recbole_rlmrec.run_settings`, a model's beside the model. :func:`declare` puts it into :data:`SETTINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from recbole_rlmrec.errors import ContractError, SettingError

_SettingsT = TypeVar("_SettingsT", bound="Settings")

#: Characters of a value that a message shows.
_SHOWN = 200

#: Options of ``train`` that are no settings, which would never reach a model.
OPTIONS_OF_TRAIN = frozenset(
    {"nproc", "world_size", "ip", "port", "group_offset", "help", "print_config"}
    | {"tune", "tune_algo", "max_evals", "tool", "jobs", "no_prune", "tune_output"}
)

#: Weight of a term: a number, or ``auto`` for one that a bound on the term's gradient decides at each step.
Weight = float | Literal["auto"]


def number_of(weight: Weight) -> float:
    """Return what a term is multiplied by; with ``auto`` 1, the largest weight that its bound leaves it."""
    return 1.0 if weight == "auto" else weight


def bound_of(weight: Weight, share: float) -> float | None:
    """Return the bound on a term's gradient, ``share`` with the weight ``auto``; a fixed weight has none."""
    return share if weight == "auto" else None


@dataclass(frozen=True)
class Range:
    """An interval of numbers; ``whole`` admits integers only.

    >>> 0.5 in Range(0, 1), 2 in Range(0, 1), str(Range(0, 1)), str(Range(1, whole=True))
    (True, False, 'a number in [0, 1]', 'a whole number at least 1')
    """

    low: float
    high: float = float("inf")
    includes_low: bool = True
    includes_high: bool = True
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.whole and not isinstance(value, int):
            return False
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= self.high if self.includes_high and self.high != float("inf") else value < self.high
        return above and below

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.low == -float("inf") and self.high == float("inf"):
            return kind
        if self.high == float("inf"):
            return f"{kind} {'at least' if self.includes_low else 'above'} {self.low:.10g}"
        left, right = "[" if self.includes_low else "(", "]" if self.includes_high else ")"
        return f"{kind} in {left}{self.low:.10g}, {self.high:.10g}{right}"


@dataclass(frozen=True)
class Choice:
    """A closed set of words.

    >>> "mean" in Choice(("mean", "sum")), str(Choice(("mean", "sum")))
    (True, 'one of mean, sum')
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, literal: Any) -> Choice:
        """Return the words of a ``Literal``, which is then the one place that lists them."""
        return cls(get_args(literal))

    def __contains__(self, value: object) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words) if len(self.words) > 1 else self.words[0]


@dataclass(frozen=True)
class AutoOr:
    """The word ``auto``, or a number of a range; ``None`` where ``optional``.

    >>> "auto" in AutoOr(Range(0)), -1 in AutoOr(Range(0)), str(AutoOr(Range(0)))
    (True, False, 'auto or a number at least 0')
    """

    range: Range
    optional: bool = False

    def __contains__(self, value: object) -> bool:
        return value == "auto" or value in self.range or (self.optional and value is None)

    def __str__(self) -> str:
        return f"auto, {self.range} or nothing (~)" if self.optional else f"auto or {self.range}"


@dataclass(frozen=True)
class OfType:
    """Any value of a type; ``None`` where ``optional``."""

    type: type
    label: str
    optional: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, self.type) or (self.optional and value is None)

    def __str__(self) -> str:
        return f"{self.label} or nothing (~)" if self.optional else self.label


#: What a comparison calls the embeddings that have no name.
UNNAMED = "unnamed"


@dataclass(frozen=True)
class NameInFiles(OfType):
    """A name that can stand between two dots of a file's name, or nothing.

    >>> [name in NameInFiles() for name in ("minilm", "a.b", "../a", "", UNNAMED)]
    [True, False, False, False, False]
    """

    type: type = str
    label: str = f"a name of letters, digits, _ and -, a letter first, other than {UNNAMED},"
    optional: bool = True

    def __contains__(self, value: object) -> bool:
        is_name = isinstance(value, str) and re.fullmatch(r"[^\W\d_][\w-]*", value) is not None
        return value is None or (is_name and value != UNNAMED)


Allowed = Range | AutoOr | Choice | OfType


@dataclass(frozen=True)
class Setting:
    """What a setting may be, an example for error messages, and what it does."""

    allowed: Allowed
    example: str
    meaning: str


POSITIVE = Range(0, includes_low=False)
WEIGHT = Range(0)
AUTO_WEIGHT = AutoOr(WEIGHT)
SHARE = Range(0, 1)
COUNT = Range(1, whole=True)
COUNT_OR_NONE = Range(0, whole=True)
#: Of what is done one after another, such as layers: a slip of a few digits would not end.
FEW = Range(1, 100, whole=True)
#: What NumPy's generator takes.
SEED = Range(0, 2**32 - 1, whole=True)
FLAG = OfType(bool, "True or False")
TEXT = OfType(str, "text", optional=True)
NAMES = OfType(list, "a list of names", optional=True)

#: Every declared setting by name: the run's and our models' from ``recbole_rlmrec.model.registry`` on, those of classes
#: from outside as they are registered.
SETTINGS: dict[str, Setting] = {}


#: Settings that do nothing where they are empty, 0 or False -> those that then do nothing either.
_OFF: Mapping[str, tuple[str, ...]] = {
    "encoder_model": (),
    "init_from": (),
    "noise_share": (),
    "semantic": (),
    "semantic_dimension": (),
    "shuffled_profiles": (),
    "withheld_share": ("withheld_side",),
}


def inert(settings: Mapping[str, Any], free: Container[str] = ()) -> set[str]:
    """Return the names of settings that have no effect beside the others.

    Args:
        settings: all settings of a run.
        free: those whose values are not decided yet.
    """
    without: set[str] = set()
    if settings.get("early_stopping") == "recbole":
        without |= {"early_stopping", "patience_steps", "plateau_steps", "plateau_epochs"}
    for name, depending in _OFF.items():
        if name not in free and not settings.get(name):
            without |= {name, *depending}
    for bound, weights in (("ssl_share", {"ssl_weight"}), ("alignment_share", ALIGNMENT_WEIGHTS)):
        if all(name in free or settings.get(name) != "auto" for name in weights):
            without.add(bound)
    return without


def setting(default: Any, allowed: Allowed, meaning: str, example: str | None = None, published: Any = MISSING) -> Any:
    """Return a field of a :class:`Settings` class that declares a setting: its default, what it may be, what it does.

    Args:
        default: of every class that reads the setting; a class below it, and a YAML of the class, stand above it.
            ``dataclasses.MISSING`` where RecBole's property file, or each class below, has the default.
        allowed: its kind and range.
        meaning: half a sentence, which the README's table and error messages quote.
        example: of a value, as typed; the default, if not given.
        published: its value under ``defaults: published``; the default, if not given.

    >>> @dataclass(frozen=True)
    ... class TiltSettings(Settings):
    ...     tilt_weight: float = setting(0.5, Range(0), "weight of the penalty on the tilt", published=0.125)
    >>> defaults_of(TiltSettings), published_of(TiltSettings)
    ({'tilt_weight': 0.5}, {'tilt_weight': 0.125})
    """
    described = Setting(allowed, str(default) if example is None else example, meaning)
    return field(default=default, kw_only=True, metadata={_DECLARED: _Declared(described, published)})


def known(name: str, default: Any, published: Any = MISSING) -> Any:
    """Return a field for a setting that another class declares, with a default of its own.

    Args:
        name: the setting, which is the field's name.
        default: of the classes that read the settings class.
        published: its value under ``defaults: published``; that of the classes above, or the default, if not given.
    """
    return field(default=default, kw_only=True, metadata={_DECLARED: _Declared(name, published)})


@dataclass(frozen=True)
class _Declared:
    """What a field says of its setting: what it is, or the name of one that exists; and its published value."""

    setting: Setting | str
    published: Any


#: Key of a field's metadata.
_DECLARED = "recbole_rlmrec"


#: Settings that are an alignment's weight, which ``alignment_share`` bounds where it is ``auto``.
ALIGNMENT_WEIGHTS: set[str] = set()

#: Which class declared a setting first, by module and name.
_DECLARED_BY: dict[str, tuple[str, str]] = {}


def declare(*classes: type[Settings], of_recbole: bool = False) -> None:
    """Make the settings of classes and their bases known: they are checked, listed and completed.

    Args:
        classes: the classes; a setting that one knows is declared before.
        of_recbole: whether they may say what settings of RecBole's are allowed to be.

    Raises:
        ContractError: a class is no dataclass; a field says nothing of itself and is no known setting, is one that is
            known otherwise or one of RecBole's, or has a value out of its own range. Nothing is known then.
    """
    found: dict[str, Setting] = {}
    owners = dict(_DECLARED_BY)
    for cls in [base for settings in classes for base in reversed(settings.__mro__) if issubclass(base, Settings)]:
        if "__dataclass_fields__" not in vars(cls):
            raise ContractError(f"{cls.__name__} is no dataclass: put @dataclass(frozen=True) above it.")
        owner = (cls.__module__, cls.__qualname__)
        for each in fields(cls):
            is_inherited = each.name not in vars(cls).get("__annotations__", {})
            described = None if is_inherited else _described(cls, each, {**SETTINGS, **found}, of_recbole=of_recbole)
            if described is None:
                continue
            there = found.get(each.name, SETTINGS.get(each.name))
            if there is not None and owners[each.name] != owner:
                raise ContractError(
                    f"{cls.__name__}.{each.name}: there is a setting of this name ({there.meaning}). Choose another "
                    f"one; or read that one, with a default of your own: known('{each.name}', default)."
                )
            found[each.name], owners[each.name] = described, owner
    SETTINGS.update(found)
    _DECLARED_BY.update({name: owners[name] for name in found})


def _described(
    settings: type[Settings], field: Field[Any], known_by_name: Mapping[str, Setting], *, of_recbole: bool
) -> Setting | None:
    """Return what a field declares; None where it is for a setting that another class declares.

    Raises:
        ContractError: see :func:`declare`.
    """
    where, there = f"{settings.__name__}.{field.name}", known_by_name.get(field.name)
    declared: _Declared | None = field.metadata.get(_DECLARED)
    if declared is None:
        if there is None or field.default is not MISSING:
            raise ContractError(
                f"{where} does not say what it may be: declare it as {field.name}: {field.type} = setting(default, "
                f"allowed, meaning), or, for a setting that exists, known('{field.name}', default)."
            )
        return None
    described = there if isinstance(declared.setting, str) else declared.setting
    if described is None or (isinstance(declared.setting, str) and declared.setting != field.name):
        raise ContractError(
            f"{where} = known('{declared.setting}', ...): expected the field's name, and a setting that exists. A new "
            "one is declared by setting(default, allowed, meaning)."
        )
    flaw = _flaw(described)
    if flaw:
        raise ContractError(f"{where}: {flaw}")
    for kind, value in (("default", field.default), ("published value", declared.published)):
        if value is not MISSING and value not in described.allowed:
            raise ContractError(f"{where}: the {kind} {value!r} is not {described.allowed}.")
    if there is None and field.name in _recboles_settings() and not of_recbole:
        raise ContractError(f"{where} is a setting of RecBole's. Choose another name.")
    if field.name in OPTIONS_OF_TRAIN:
        raise ContractError(
            f"{where}: --{field.name} is an option of the command line, so no value would reach the setting. Choose "
            "another name."
        )
    return None if isinstance(declared.setting, str) else described


def _flaw(described: Setting) -> str | None:
    """Return what is wrong with what a setting says of itself; None if nothing is."""
    allowed = described.allowed
    if not isinstance(allowed, Allowed):
        return (
            f"{allowed!r} does not say what it may be; expected a Range, an AutoOr, a Choice or an OfType, such as "
            "Range(0)."
        )
    if isinstance(allowed, Choice) and (
        not isinstance(allowed.words, tuple)
        or not allowed.words
        or not all(isinstance(word, str) and word for word in allowed.words)
    ):
        return f"the words of Choice({allowed.words!r}) are no tuple of words; expected e.g. Choice(('mean', 'sum'))."
    numbers = allowed.range if isinstance(allowed, AutoOr) else allowed
    if isinstance(allowed, AutoOr) and not isinstance(numbers, Range):
        return f"AutoOr({numbers!r}) has no range of numbers; expected e.g. AutoOr(Range(0))."
    if isinstance(numbers, Range) and not _is_interval(numbers):
        return f"Range({numbers.low!r}, {numbers.high!r}) holds no number; expected e.g. Range(0, 1)."
    if isinstance(allowed, OfType) and not isinstance(allowed.type, type):
        return f"OfType({allowed.type!r}, ...) has no type; expected e.g. OfType(str, 'text')."
    for part, text in (("meaning", described.meaning), ("example", described.example)):
        if not isinstance(text, str) or not text.strip():
            return f"the {part} is {text!r}; expected half a sentence, which messages and the list of settings show."
    return None


def _is_interval(numbers: Range) -> bool:
    ends = (numbers.low, numbers.high)
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        return False
    is_closed = numbers.includes_low and numbers.includes_high
    return numbers.low < numbers.high or (numbers.low == numbers.high and is_closed)


def _recboles_settings() -> set[str]:
    from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

    every_run = ("model", "dataset", "config_files")
    return {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments, *every_run}


def defaults_of(settings: type[Settings]) -> dict[str, Any]:
    """Return the defaults that the fields of a class declare, by name."""
    return {
        each.name: each.default
        for each in fields(settings)
        if _DECLARED in each.metadata and each.default is not MISSING
    }


def published_of(settings: type[Settings]) -> dict[str, Any]:
    """Return the values under ``defaults: published`` that the fields of a class declare, by name."""
    declared = {
        each.name: each.metadata[_DECLARED].published for each in fields(settings) if _DECLARED in each.metadata
    }
    return {name: value for name, value in declared.items() if value is not MISSING}


def completed(settings: type[_SettingsT], config: Any) -> _SettingsT:
    """Read a class's settings from a configuration whose model does not read them: what is not set has its default.

    Args:
        settings: the class.
        config: the run's configuration.

    Raises:
        SettingError: a value is out of range, or one without a default is not set.
    """
    values = {**dict.fromkeys(each.name for each in fields(settings)), **defaults_of(settings)}
    given = {name: config[name] for name in values if config[name] is not None}
    return settings.from_config({"model": settings.__name__, **values, **given})


def check_value(name: str, value: Any, origin: str = "") -> None:
    """Raise unless ``value`` is one that the setting may have; settings not of our own pass.

    Args:
        name: the setting.
        value: what it was set to.
        origin: where the value comes from, for the message.

    Raises:
        SettingError: naming the setting, the value, its origin, what is allowed and an example.
    """
    setting = SETTINGS.get(name)
    if setting is None or value in setting.allowed:
        return
    fault = " is out of range" if isinstance(setting.allowed, (Range, AutoOr)) else ""
    raise SettingError(
        f"{given(name, value, origin)}{fault}: expected {setting.allowed}, e.g. --{name}={setting.example}. "
        f"Meaning: {setting.meaning}."
    )


def given(name: str, value: Any, origin: str = "") -> str:
    """Return a setting, its value and where that comes from, as messages show them.

    >>> given("n_layers", 0, "'one.yaml'")
    "n_layers=0 (from 'one.yaml')"
    """
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return f"{name}={shown}" + (f" (from {origin})" if origin else "")


def require(config: Any, name: str) -> Any:
    """Return a setting that a model cannot do without.

    Args:
        config: the run's configuration.
        name: the setting.

    Raises:
        SettingError: it is missing or out of range, or the configuration is RecBole's own.
    """
    refuse_recboles_own(config)
    value = config[name]
    if value is None and name not in SETTINGS:
        raise SettingError(
            f"{config['model']} reads the setting '{name}', which no file sets and no class declares, so that it "
            "cannot be given. Declare it in one of the class's settings_classes: "
            f"{name}: TYPE = setting(default, allowed, meaning)."
        )
    if value is None and None not in SETTINGS[name].allowed:
        example = SETTINGS[name].example
        raise SettingError(
            f"{config['model']} needs the setting '{name}', which no file sets. Put `{name}: {example}` into "
            f"properties/model/{config['model']}.yaml or a file given with --config_files, "
            f"or give --{name}={example} on the command line."
        )
    check_value(name, value)
    return value


def refuse_recboles_own(config: Any) -> None:
    """Refuse RecBole's own ``Config``, which knows neither the settings nor the data of this package's models.

    Raises:
        SettingError: saying what to import.
    """
    from recbole.config import Config

    if isinstance(config, Config) and not hasattr(config, "settings"):
        raise SettingError(
            f"A model of recbole_rlmrec was given RecBole's own Config (model: {config['model']}), without its "
            "settings and its dataset; put `import recbole_rlmrec; recbole_rlmrec.register_with_recbole()` on top of "
            "the script, before Config(...), and give Config the class or the name of the same model."
        )


def require_number(config: Any, name: str, why: str) -> float:
    """Return a weight that a model can take as a number only.

    Args:
        config: the run's configuration.
        name: the setting.
        why: what keeps this model from ``auto``, for the message.

    Raises:
        SettingError: it is missing, out of range or ``auto``.
    """
    value = require(config, name)
    if value == "auto":
        raise SettingError(f"{name}=auto: {why}. Give a number, e.g. --{name}=0.01.")
    return float(value)


@dataclass(frozen=True)
class Settings:
    """Base of a component's settings: one field per setting, read and checked once."""

    @classmethod
    def from_config(cls: type[_SettingsT], config: Any) -> _SettingsT:
        """Read the fields from the configuration; see :func:`require` for what it raises."""
        return cls(**{field.name: require(config, field.name) for field in fields(cls)})
