"""Search spaces: what a ``.hyper`` file lets vary, read without running any of it."""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.utils import ModelType

from recbole_rlmrec.config import OUTPUT_SETTINGS, parse_value
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.reading.bounded_yaml import LARGEST_TEXT
from recbole_rlmrec.reading.regular import read_bounded
from recbole_rlmrec.reading.shape import described
from recbole_rlmrec.resources import class_file, resource_folder
from recbole_rlmrec.run_settings import RUN_SETTINGS
from recbole_rlmrec.settings import SETTINGS, check_value

_EXPECTED = (
    "expected a line such as `ssl_tau choice [0.1, 0.2]`, `drop_ratio uniform 0.1,0.5` (low, high), "
    "`learning_rate loguniform -8,-3` (logarithms of low and high), `n_layers quniform 1,4,1` (low, high, step), "
    "`include OTHER.hyper`, or a comment after #"
)

#: Characters of a line that a message shows.
_LONGEST_SHOWN = 200
#: Of a file that includes a file that includes a file.
_MOST_INCLUDED = 20
#: Values of a choice, each of which hyperopt makes an object of; and of quniform, beyond which steps are not exact.
_MOST_OPTIONS, _MOST_STEPS = 1000, 10**12
#: Relative: a logarithm and back.
_ROUNDING = 1e-9

_NAME = re.compile(r"[A-Za-z_]\w*")

#: Scores of different evaluations do not compare.
_EVALUATION_SETTINGS = frozenset(
    {"eval_args", "eval_protocol", "eval_step", "metric_decimal_place", "metrics", "topk", "valid_metric"}
)


@dataclass(frozen=True)
class Dimension(ABC):
    """What one setting may be.

    Attributes:
        name: the setting.
        origin: file and line, for messages.
        text: kind and values as the file has them, without spaces.
    """

    name: str
    origin: str
    text: str

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Number of values; None where they are without end."""

    @property
    @abstractmethod
    def samples(self) -> Sequence[Any]:
        """Values that show whether all of them are allowed."""

    def value_at(self, position: int) -> Any:
        """Return one of the values by its position, from 0; they are not made all at once.

        Raises:
            SettingError: they are without end.
        """
        raise SettingError(
            f"An exhaustive search tries every value, but those of {self.name} ({self.text}, from {self.origin}) are "
            "without end. Write them as a choice or quniform, or give --tune_algo=random."
        )

    def position_of(self, value: Any) -> int:
        """Return the position of a value, as :meth:`value_at` counts; only where they have an end."""
        raise NotImplementedError

    @abstractmethod
    def expression(self) -> Any:
        """Return hyperopt's expression of this dimension."""

    def decode(self, drawn: Any) -> Any:
        """Return the value that hyperopt's draw stands for."""
        return drawn

    def encode(self, value: Any) -> Any:
        """Return the draw that stands for a value."""
        return value

    @abstractmethod
    def __contains__(self, value: object) -> bool:
        """Whether a setting may have a value."""


@dataclass(frozen=True)
class Options(Dimension):
    """Values of a list; hyperopt draws their indices."""

    options: tuple[Any, ...]

    @property
    def count(self) -> int:
        """Length of the list."""
        return len(self.options)

    @property
    def samples(self) -> Sequence[Any]:
        """The list."""
        return self.options

    def value_at(self, position: int) -> Any:
        """Return an option."""
        return self.options[position]

    def position_of(self, value: Any) -> int:
        """Return the index of an option."""
        return [_key(option) for option in self.options].index(_key(value))

    def expression(self) -> Any:
        """Return ``hp.choice`` of the indices."""
        from hyperopt import hp

        return hp.choice(self.name, list(range(len(self.options))))

    def decode(self, drawn: Any) -> Any:
        """Return the option of an index."""
        return self.options[int(drawn)]

    def encode(self, value: Any) -> int:
        """Return the index of an option."""
        return self.position_of(value)

    def __contains__(self, value: object) -> bool:
        return any(_key(option) == _key(value) for option in self.options)


@dataclass(frozen=True)
class Interval(Dimension):
    """Numbers between two others, even or even in the logarithm, of which ``low`` and ``high`` are given then."""

    low: float
    high: float
    is_log: bool

    @property
    def count(self) -> None:
        """None: they are without end."""
        return None

    @property
    def samples(self) -> Sequence[float]:
        """The two ends."""
        return [math.exp(self.low), math.exp(self.high)] if self.is_log else [self.low, self.high]

    def expression(self) -> Any:
        """Return ``hp.uniform`` or ``hp.loguniform``."""
        from hyperopt import hp

        return (hp.loguniform if self.is_log else hp.uniform)(self.name, self.low, self.high)

    def decode(self, drawn: Any) -> float:
        """Return the draw as a plain number."""
        return float(drawn)

    def __contains__(self, value: object) -> bool:
        low, high = self.samples
        slack = _ROUNDING * max(abs(low), abs(high))
        return isinstance(value, float) and low - slack <= value <= high + slack


@dataclass(frozen=True)
class Steps(Dimension):
    """Multiples of ``step`` between two numbers; whole numbers where all three are.

    hyperopt rounds draws to the nearest multiple, which may lie outside the two; here it does not.
    """

    low: float
    high: float
    step: float

    @property
    def count(self) -> int:
        """Number of multiples."""
        return max(0, self._last - self._first + 1)

    @property
    def samples(self) -> Sequence[Any]:
        """The first and the last multiple."""
        return [self._multiple(self._first), self._multiple(self._last)]

    def value_at(self, position: int) -> Any:
        """Return a multiple; they ascend."""
        return self._multiple(self._first + position)

    def position_of(self, value: Any) -> int:
        """Return which multiple a value is, from 0."""
        return round(value / self.step) - self._first

    def expression(self) -> Any:
        """Return ``hp.quniform``."""
        from hyperopt import hp

        return hp.quniform(self.name, self.low, self.high, self.step)

    def decode(self, drawn: Any) -> Any:
        """Return the multiple of a draw."""
        return self._multiple(min(max(round(float(drawn) / self.step), self._first), self._last))

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        factor = round(value / self.step)
        return self._first <= factor <= self._last and _key(self._multiple(factor)) == _key(value)

    @property
    def _first(self) -> int:
        return math.ceil(self.low / self.step - 1e-9)

    @property
    def _last(self) -> int:
        return math.floor(self.high / self.step + 1e-9)

    def _multiple(self, factor: int) -> Any:
        if all(float(number).is_integer() for number in (self.low, self.high, self.step)):
            return factor * int(self.step)
        return float(f"{factor * self.step:.12g}")  # 3 * 0.1 is not 0.3


@dataclass(frozen=True)
class Space:
    """The settings of a search by name, in the order of the file."""

    dimensions: Mapping[str, Dimension]

    @property
    def size(self) -> int | None:
        """Number of different settings; None where it is without end."""
        counts = [dimension.count for dimension in self.dimensions.values()]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    @property
    def texts(self) -> dict[str, str]:
        """What each setting may be, as the files have it."""
        return {name: dimension.text for name, dimension in self.dimensions.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield all settings, the last dimension fastest.

        Raises:
            SettingError: a dimension's values are without end.
        """
        number = 0
        while self.size is None or number < self.size:
            yield self._settings_at(number)
            number += 1

    def _settings_at(self, number: int) -> dict[str, Any]:
        """Return the settings of a place in the grid."""
        found: dict[str, Any] = {}
        for name, dimension in reversed(list(self.dimensions.items())):
            number, position = divmod(number, dimension.count or 1)
            found[name] = dimension.value_at(position)
        return {name: found[name] for name in self.dimensions}

    def expressions(self) -> dict[str, Any]:
        """Return hyperopt's expression of each dimension."""
        return {name: dimension.expression() for name, dimension in self.dimensions.items()}

    def decode(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that hyperopt's draws stand for."""
        return {name: dimension.decode(drawn[name]) for name, dimension in self.dimensions.items()}

    def encode(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the draws that stand for settings."""
        return {name: dimension.encode(settings[name]) for name, dimension in self.dimensions.items()}

    def check_choice(self, settings: Mapping[str, Any]) -> None:
        """Check settings that are said to be chosen from the space.

        Raises:
            ValueError: they cannot be; the message is a clause.
        """
        if settings.keys() != self.dimensions.keys():
            raise ValueError(f"its parameters are {', '.join(settings)}, expected {', '.join(self.dimensions)}")
        for name, value in settings.items():
            if value not in self.dimensions[name]:
                raise ValueError(f"its {name} is {described(value)}, expected one of {self.dimensions[name].text}")

    def without(self, names: Iterable[str]) -> Space:
        """Return the space less some of its dimensions."""
        gone = set(names)
        return Space({name: dimension for name, dimension in self.dimensions.items() if name not in gone})

    def check(self, config: Any) -> None:
        """Check the space against the model it is searched for.

        Args:
            config: the configuration of a run of the model.

        Raises:
            SettingError: the model does not read a setting, a value is out of range, or the setting is none to search.
        """
        is_own = config.model_class.__module__.startswith("recbole_rlmrec.")
        ranges = SETTINGS if is_own else RUN_SETTINGS
        for name, dimension in self.dimensions.items():
            if name in OUTPUT_SETTINGS or name in _EVALUATION_SETTINGS:
                raise SettingError(
                    f"{name} (from {dimension.origin}) cannot be searched: it says where a run reads and writes or how "
                    "it is evaluated, and scores compare only where that is the same."
                )
            if name not in config.internal_config_dict:
                near = difflib.get_close_matches(name, sorted(config.internal_config_dict), n=1, cutoff=0.6)
                advice = f" Did you mean '{near[0]}'?" if near else ""
                raise SettingError(
                    f"{config['model']} does not read the setting '{name}' (from {dimension.origin}).{advice} Several "
                    "models have each its own space with --tune=auto."
                )
            for value in dimension.samples if name in ranges else ():
                check_value(name, value, dimension.origin)


def key_of(settings: Mapping[str, Any]) -> str:
    """Return a text that two settings share only where they are the same.

    >>> key_of({"n_layers": 2, "eps": 1}) == key_of({"eps": 1, "n_layers": 2})
    True
    >>> key_of({"eps": 1}) == key_of({"eps": 1.0})
    False
    """
    return _key(dict(settings))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # unlike ==, distinguishes 1 from 1.0 and True


def find_space(where: str, model_class: type) -> Space:
    """Return the space that ``--tune`` names.

    Args:
        where: a ``.hyper`` file, a folder with one file per class, or ``auto`` for the folder of this package.
        model_class: the model's class.

    Raises:
        SettingError: there is no such file, a line does not parse, the space is empty, or the model trains nothing.
    """
    path = resource_folder("properties") / "tune" if where == "auto" else Path(where)
    own_file = path / f"{model_class.__name__}.hyper"
    if path.is_dir() and flags_of(model_class).nothing_to_train and not own_file.is_file():
        raise SettingError(f"{model_class.__name__} trains nothing: there is no setting to search.")
    if path.is_dir() and getattr(model_class, "type", None) == ModelType.TRADITIONAL and not own_file.is_file():
        raise SettingError(
            f"{model_class.__name__} is computed, not trained by steps, and '{path}' holds no {own_file.name}. Write "
            "one with settings that the model reads."
        )
    if path.is_dir():
        space = _space_of_class(model_class, path)
        advice = f"'{path}' holds no {model_class.__name__}.hyper and none of a base of the class. Write one"
    else:
        space = read_space(path)
        advice = f"'{path}' sets nothing free. Write a line such as `learning_rate choice [0.001, 0.01]`"
    if not space.dimensions:
        raise SettingError(f"There is nothing to search for {model_class.__name__}: {advice}.")
    return space


def _space_of_class(model_class: type, folder: Path) -> Space:
    """Read the file of a class, or compose those of its bases, the first of which win."""
    for path in (folder / f"{model_class.__name__}.hyper", class_file(model_class, folder, ".hyper")):
        if path.is_file():
            return read_space(path)
    merged: dict[str, Dimension] = {}
    for base in reversed(model_class.__bases__):
        merged.update(_space_of_class(base, folder).dimensions)
    return Space(merged)


def read_space(path: Path, included_from: tuple[Path, ...] = ()) -> Space:
    """Read a ``.hyper`` file: RecBole's format, with comments, and includes that later lines override.

    No value is evaluated as Python.

    Args:
        path: the file.
        included_from: the files that are being read.

    Raises:
        SettingError: the file is missing or unreadable, includes itself, or a line does not parse.
    """
    return _read(path, included_from, {})


def _read(path: Path, included_from: tuple[Path, ...], known: dict[Path, Space]) -> Space:
    """Read a file; ``known`` are those read before, so that none is read as often as it is included."""
    place = path.resolve()
    if place in known:
        return known[place]
    try:
        lines = read_bounded(path, LARGEST_TEXT).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        where = f", included from '{included_from[-1]}'" if included_from else ""
        raise SettingError(
            f"There is no search space '{path}'{where}. --tune takes a .hyper file, a folder with one per class, or "
            "auto."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"'{path}' cannot be read as a search space: {error}") from error
    found: dict[str, Dimension] = {}
    own: set[str] = set()
    for number, line in enumerate(lines, start=1):
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        origin = f"'{path}', line {number}"
        if words[0] == "include" and len(words) == 2:
            other = path.parent / words[1]
            if other.resolve() in [file.resolve() for file in (*included_from, path)]:
                raise SettingError(f"{origin}: '{other}' includes itself.")
            if len(included_from) >= _MOST_INCLUDED:
                raise SettingError(f"{origin}: '{other}' is included through more than {_MOST_INCLUDED} files.")
            found.update(_read(other, (*included_from, path), known).dimensions)
            continue
        try:
            dimension = _parse(words, origin)
        except _MALFORMED as error:
            shown = line.strip() if len(line) <= _LONGEST_SHOWN else f"{line.strip()[:_LONGEST_SHOWN]}..."
            raise SettingError(f"{origin}: `{shown}`: {error}; {_EXPECTED}.") from error
        if dimension.name in own:
            raise SettingError(f"{origin}: {dimension.name} stands in this file twice.")
        own.add(dimension.name)
        found[dimension.name] = dimension
    known[place] = Space(found)
    return known[place]


#: What reading a literal raises on bad input.
_MALFORMED = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError)


def _parse(words: Sequence[str], origin: str) -> Dimension:
    """Read ``name kind values``.

    Raises:
        ValueError: or another of ``_MALFORMED``; the message says what is wrong.
    """
    if len(words) < 3 or not _NAME.fullmatch(words[0]):
        raise ValueError("this is no `name kind values`")
    name, kind, text = words
    head = (name, origin, f"{kind} {''.join(text.split())}")
    if kind == "choice":
        return Options(*head, _options(text))
    if kind in ("uniform", "loguniform"):
        low, high = _numbers(text, "low,high")
        interval = Interval(*head, low, high, kind == "loguniform")
        if not low < high or not all(math.isfinite(end) for end in (*interval.samples, high - low)):
            raise ValueError(f"{low:g} must be below {high:g}, and both finite")
        return interval
    if kind == "quniform":
        steps = Steps(*head, *_numbers(text, "low,high,step"))
        if not steps.step > 0 or steps.count == 0:
            raise ValueError("no multiple of the step lies between the two numbers")
        if steps.count > _MOST_STEPS:
            raise ValueError(f"more than {_MOST_STEPS:,} multiples of the step lie between the two numbers")
        return steps
    raise ValueError(f"there is no kind '{kind}'")


def _options(text: str) -> tuple[Any, ...]:
    listed = ast.literal_eval(text)
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ValueError("a choice needs a list in brackets, with something in it")
    if len(listed) > _MOST_OPTIONS:
        raise ValueError(f"a choice has {len(listed):,} values, more than {_MOST_OPTIONS:,}")
    # RecBole's files have lists as text, "[64,32]"; a command line has them so, too.
    values = [parse_value(value) if isinstance(value, str) else value for value in listed]
    # By way of JSON, which a record of the search holds: tuples become lists, and what it cannot hold is refused.
    values = json.loads(json.dumps(values, allow_nan=False))
    if len({_key(value) for value in values}) < len(values):
        raise ValueError("a value stands twice in the list")
    return tuple(values)


def _numbers(text: str, expected: str) -> tuple[float, ...]:
    parts = text.split(",")
    if len(parts) != expected.count(",") + 1:
        raise ValueError(f"there must be {expected.count(',') + 1} numbers: {expected}")
    numbers = tuple(float(part) for part in parts)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("the numbers must be finite")
    return numbers
