"""Values checked against type hints: the attributes of a dataclass say what a file's object may hold.

Understood are ``str``, ``int``, ``float``, ``bool``, ``None``, ``Any``, ``Literal``, ``X | None``, ``dict``, ``list``,
``tuple[X, ...]``, dataclasses of these, classes of other packages, and ``Annotated`` with :class:`AtLeast`,
:class:`Plain`, :class:`MaybeInfinite` or :class:`AnyFloat`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from reprlib import repr as short_repr
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from recbole_rlmrec.reading.tree import check_tree, plain_parts

_Record = TypeVar("_Record", bound=Hashable)
#: Whole numbers that NumPy, PyTorch and other languages' JSON readers can hold.
_LARGEST = 2**63


class MisfitError(ValueError):
    """A value has another shape than it should; the message is a clause, ``'score' is a list ([1, 2]), expected ...``.

    Args:
        value: what was found.
        expected: what it should be, with an article.
    """

    def __init__(self, value: Any, expected: str) -> None:
        super().__init__()
        self._found, self._expected = described(value), expected
        self._place = ""

    def within(self, key: Any) -> MisfitError:
        """Return the error as one of a value under a key, or at a position, of another."""
        name = key if isinstance(key, str) else f"[{key}]"
        joint = "." if self._place and not self._place.startswith("[") else ""
        self._place = f"{_cut(name)}{joint}{self._place}"
        return self

    def __str__(self) -> str:
        return f"{repr(self._place) if self._place else 'it'} is {self._found}, expected {self._expected}"


@dataclass(frozen=True)
class AtLeast:
    """Marks a number that has a least value."""

    least: int


@dataclass(frozen=True)
class Plain:
    """Marks a value of texts, numbers, booleans, null, lists and objects in each other, and nothing else."""


@dataclass(frozen=True)
class MaybeInfinite:
    """Marks a ``float`` that need not be finite, but is a number."""


@dataclass(frozen=True)
class AnyFloat:
    """Marks a ``float`` that may be infinite or no number; JSON has the name of such a one, which becomes it."""


Count = Annotated[int, AtLeast(0)]
PlainValue = Annotated[Any, Plain()]
#: Some metrics are no number where nothing can be measured.
Metric = Annotated[float, AnyFloat()]
_MOST_PARTS, _DEEPEST = 10**6, 64


class _Missing:
    """Stands for a key that is not there."""


def record_of(kind: type[_Record], value: Any, *, allow_others: bool = False) -> _Record:
    """Return a dataclass made of the object that a file holds.

    Args:
        kind: the dataclass; its fields without a default have to be there.
        value: what was read.
        allow_others: whether further keys are passed over; else they are a fault.

    Raises:
        MisfitError: the value has another shape.

    >>> @dataclass
    ... class Point:
    ...     x: int
    ...     name: str | None = None
    >>> record_of(Point, {"x": 3})
    Point(x=3, name=None)
    >>> record_of(Point, {"x": "3"})
    Traceback (most recent call last):
    recbole_rlmrec.reading.shape.MisfitError: 'x' is the text '3', expected a whole number
    """
    if not isinstance(value, Mapping):
        raise MisfitError(value, "an object such as {...}")
    checks = _field_checks(kind)
    if not allow_others:
        for key in value:
            if key not in checks:
                known = ", ".join(checks)
                raise MisfitError(value[key], f"no such key, as the keys are {known}").within(key)
    found = {}
    for key, (check, is_needed) in checks.items():
        if key in value:
            found[key] = _inside(key, check, value[key])
        elif is_needed:
            raise MisfitError(_Missing, f"one of the keys {', '.join(checks)}").within(key)
    return kind(**found)


def value_of(hint: Any, value: Any) -> Any:
    """Return a value that has the type of a hint; lists become tuples where the hint says so.

    Raises:
        MisfitError: it has another.
    """
    return _check_for(hint)(value)


def described(value: Any) -> str:
    """Say of what kind a value is, and how it begins.

    >>> described([1, 2]), described("abc"), described(10**5000), described(None)
    ('a list ([1, 2])', "the text 'abc'", 'a number of more than 20 digits', 'null')
    """
    if value is _Missing:
        return "missing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {_cut(short_repr(value))}"
    if isinstance(value, int):
        return f"the number {value}" if abs(value) < 2**64 else "a number of more than 20 digits"
    if isinstance(value, float):
        return f"the number {value}"
    if isinstance(value, (list, tuple, dict)):
        kind = "an object" if isinstance(value, dict) else "a list"
        try:
            return f"{kind} ({_cut(short_repr(value))})"
        except ValueError:  # a number in it has more digits than Python writes out
            return kind
    return f"a value of type {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _inside(key: Any, check: Callable[[Any], Any], value: Any) -> Any:
    try:
        return check(value)
    except MisfitError as error:
        raise error.within(key) from None


@cache
def _field_checks(kind: type) -> dict[str, tuple[Callable[[Any], Any], bool]]:
    """Return, for each field of a dataclass, what checks its value, and whether it has to be there."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: (_check_for(hints[field.name]), field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
    }


@cache
def _check_for(hint: Any) -> Callable[[Any], Any]:
    """Return a function that returns a value of the hint's type, and raises a MisfitError for another."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin is Annotated:
        return _annotated(*arguments)
    if origin is Literal:
        return lambda value: _literal(arguments, value)
    if origin in (Union, types.UnionType):
        [wanted] = [argument for argument in arguments if argument is not types.NoneType]
        check = _check_for(wanted)
        return lambda value: None if value is None else check(value)
    if origin is dict:
        return lambda value: _object(_check_for(arguments[0]), _check_for(arguments[1]), value)
    if origin in (list, tuple):
        return lambda value: origin(_list(_check_for(arguments[0]), value))
    if hint in _NUMBERS:
        return _NUMBERS[hint]
    if is_dataclass(hint):
        kind: Any = hint
        return lambda value: record_of(kind, value)
    return lambda value: _instance(hint, value)


def _annotated(hint: Any, mark: AtLeast | Plain | MaybeInfinite | AnyFloat) -> Callable[[Any], Any]:
    if isinstance(mark, Plain):
        return _plain
    if isinstance(mark, MaybeInfinite):
        return _number
    if isinstance(mark, AnyFloat):
        return _any_float
    check = _check_for(hint)

    def at_least(value: Any) -> Any:
        if check(value) < mark.least:
            raise MisfitError(value, f"a number of at least {mark.least}")
        return value

    return at_least


def _whole(value: Any) -> int:
    if type(value) is not int or not -_LARGEST <= value < _LARGEST:
        raise MisfitError(value, "a whole number")
    return value


def _number(value: Any) -> float:
    if type(value) is int:
        return _whole(value)
    if not isinstance(value, float) or value != value:
        raise MisfitError(value, "a number")
    return value


def _any_float(value: Any) -> float:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    return value if isinstance(value, float) else _number(value)


def _finite(value: Any) -> float:
    if abs(_number(value)) == float("inf"):
        raise MisfitError(value, "a finite number")
    return value


_NUMBERS: dict[Any, Callable[[Any], Any]] = {int: _whole, float: _finite}


def _literal(allowed: tuple[Any, ...], value: Any) -> Any:
    if not any(type(value) is type(each) and value == each for each in allowed):
        raise MisfitError(value, " or ".join(repr(each) for each in allowed))
    return value


def _instance(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        words = {str: "text", bool: "true or false", dict: "an object", list: "a list"}
        raise MisfitError(value, words.get(kind, f"a {getattr(kind, '__name__', kind)}"))
    return value


def _object(check_key: Callable[[Any], Any], check: Callable[[Any], Any], value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise MisfitError(value, "an object such as {...}")
    return {_inside(key, check_key, key): _inside(key, check, each) for key, each in value.items()}


def _list(check: Callable[[Any], Any], value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise MisfitError(value, "a list")
    return [_inside(position, check, each) for position, each in enumerate(value)]


def _plain(value: Any) -> Any:
    try:
        check_tree(value, plain_parts, most=_MOST_PARTS, deepest=_DEEPEST)
    except ValueError as error:
        raise MisfitError(value, f"plain values ({error})") from None
    _require_plain(value)
    return value


def _require_plain(value: Any) -> None:
    if isinstance(value, (str, bool, types.NoneType)):
        return
    if isinstance(value, (int, float)):
        _number(value)
    elif isinstance(value, dict):
        for key, each in value.items():
            _inside(key, _check_for(str), key)
            _inside(key, _require_plain, each)
    elif isinstance(value, (list, tuple)):
        for position, each in enumerate(value):
            _inside(position, _require_plain, each)
    else:
        raise MisfitError(value, "text, a number, true, false, null, a list or an object")
