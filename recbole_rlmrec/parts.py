"""Parts by name: those of this package, and those that other packages name as entry points or register by hand."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from traceback import walk_tb
from types import ModuleType
from typing import Any, Generic, TypeVar

from recbole_rlmrec.errors import ContractError, RLMRecError, SettingError
from recbole_rlmrec.settings import Settings, declare

_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9]+([-.][a-z0-9]+)*")

#: Frames of a call that fails before any code of the part runs: this file's, and the caller's, decorated or not.
_OF_A_CALL = 2

_logger = logging.getLogger(__name__)


def register_entry_points(group: str, register: Callable[[Any], object]) -> list[str]:
    """Import and register everything that installed packages name in a group; what fails leaves the others alone.

    Args:
        group: of the entry points, such as ``recbole_rlmrec.models``.
        register: raises where what it is given cannot be used.

    Returns:
        A sentence for each entry point that failed, which the log has as a warning.
    """
    failures = []
    for point in entry_points(group=group):
        try:
            register(point.load())
        except (Exception, SystemExit) as error:  # whatever the package does
            failures.append(_failure(point, error))
            _logger.warning(failures[-1])
    return failures


def _failure(point: EntryPoint, error: BaseException) -> str:
    reason = f"{type(error).__name__}: {error}".rstrip(".")
    return f"The entry point {point.name} = {point.value} could not be loaded ({reason})."


class Registry(Mapping[str, _T], Generic[_T]):
    """Parts of one kind by name, each imported when it is first asked for.

    Args:
        kind: what such a part is called in messages, such as "encoder".
        group: of the entry points by which other packages add some; an entry point is called as its part is.
        check: raises ContractError unless a part keeps to the contract; returns its name.
        ours: name -> ``module:attribute``, or ``module``, of the parts of this package.
        origin: where a part was defined, as ``module:attribute``; a later definition from there replaces the earlier
            one. Classes and modules know it themselves.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        check: Callable[[Any], str],
        ours: Mapping[str, str] | None = None,
        origin: Callable[[Any], str] | None = None,
    ) -> None:
        self.kind, self.group = kind, group
        self._check, self._origin_of = check, origin or _origin
        self._loaded: dict[str, _T] = {}
        self._points = {name: EntryPoint(name, value, group) for name, value in (ours or {}).items()}
        self._has_looked = False

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(dict.fromkeys([*self._points, *self._loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def __getitem__(self, name: str) -> _T:
        """Return a part.

        Raises:
            KeyError: there is none of this name.
            SettingError: its entry point cannot be loaded.
            ContractError: it breaks the contract, or has another name than its entry point.
        """
        if name not in self._loaded:
            self._look()
            point = self._points[name]
            try:
                found = point.load()
            except (Exception, SystemExit) as error:  # whatever the package does
                raise SettingError(f"The {self.kind} '{name}' cannot be used. {_failure(point, error)}") from error
            known_as = self._check(found)
            if known_as != name:
                raise ContractError(
                    f"The entry point {point.name} = {point.value} of the group {self.group} leads to the {self.kind} "
                    f"'{known_as}'. Give both one name."
                )
            self._loaded[name] = found
        return self._loaded[name]

    def find(self, name: str) -> _T:
        """Return a part; as ``registry[name]``, with a message for users where there is none.

        Raises:
            SettingError: there is none of this name, or its entry point cannot be loaded.
            ContractError: it breaks the contract.
        """
        if name not in self:
            raise SettingError(f"There is no {self.kind} {name!r}. Expected one of {', '.join(self)}.")
        return self[name]

    def register(self, part: _T) -> _T:
        """Make a part known by its name in this process.

        Returns:
            The part, so that this can be a class's decorator.

        Raises:
            ContractError: it breaks the contract, or its name is that of another part.
        """
        name = self._check(part)
        if name in self:
            taken = self._origin(name)
            given = self._origin_of(part)
            if taken != given:
                raise ContractError(
                    f"{given}: the {self.kind} '{name}' is there already ({taken}). Choose another name."
                )
        self._loaded[name] = part
        return part

    def _origin(self, name: str) -> str:
        return self._origin_of(self._loaded[name]) if name in self._loaded else self._points[name].value

    def _look(self) -> None:
        """Find the entry points, once; none is imported."""
        if self._has_looked:
            return
        self._has_looked = True
        for point in entry_points(group=self.group):
            taken = self._points.setdefault(point.name, point).value
            if taken != point.value:
                _logger.warning(
                    f"The entry point {point.name} = {point.value} of the group {self.group} is left out: the "
                    f"{self.kind} '{point.name}' is there already ({taken})."
                )


def _origin(part: Any) -> str:
    """Return where a class or a module was defined, in the words of an entry point."""
    return part.__name__ if isinstance(part, ModuleType) else f"{part.__module__}:{part.__qualname__}"


def _package(origin: str) -> str:
    return origin.partition(":")[0].partition(".")[0]


@contextmanager
def failures_named(kind: str, part: Any) -> Iterator[None]:
    """Say of which part from outside an error is, while its code runs; parts of this package keep their tracebacks.

    Args:
        kind: what such a part is called in messages, such as "encoder".
        part: an object of it, its class or its module.

    Raises:
        ContractError: the part raised something that is no error of this package, of files or of memory.
    """
    owner = part if isinstance(part, (type, ModuleType)) else type(part)
    where = _origin(owner)
    try:
        yield
    except (RLMRecError, OSError, MemoryError):
        raise
    except Exception as error:
        modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
        is_theirs = any(module.partition(".")[0] == _package(where) for module in modules)
        # Without a frame of theirs the call itself failed, or what called them.
        if _package(where) == __package__ or not (is_theirs or len(modules) <= _OF_A_CALL):
            raise
        words = f"{type(error).__name__}: {error}".strip().rstrip(".")
        name = getattr(part, "known_as", None) or owner.__name__
        raise ContractError(
            f"The {kind} '{name}' ({where}) failed with {words}. The fault is in that package."
        ) from error


def checked_class(part: Any, base: type, kind: str) -> str:
    """Return the name of a class of parts, ``known_as``, and declare its settings.

    Args:
        part: what was registered.
        base: the class that it must extend; what is abstract in it must be there.
        kind: what such a part is called in messages.

    Raises:
        ContractError: the class lacks something, or its name or its settings cannot be used.
    """
    if not isinstance(part, type) or not issubclass(part, base):
        shown = part.__name__ if isinstance(part, type) else repr(part)
        raise ContractError(f"{shown} is no {kind}: it must extend {base.__module__}.{base.__name__}.")
    lacking = [f"{name}()" for name in sorted(getattr(part, "__abstractmethods__", ()))]
    if lacking:
        raise ContractError(f"{part.__name__} breaks the contract of {kind}s: it lacks {' and '.join(lacking)}.")
    settings = getattr(part, "settings_class", None)
    if not isinstance(settings, type) or not is_dataclass(settings):
        raise ContractError(
            f"{part.__name__}.settings_class = {settings!r}: expected a dataclass, such as a subclass of Settings."
        )
    name = checked_name(part.__name__, "known_as", getattr(part, "known_as", None), kind)
    if issubclass(settings, Settings) and settings is not Settings:
        declare(settings)
    return name


def checked_name(owner: str, attribute: str, name: Any, kind: str) -> str:
    """Return a name if it can be one on the command line.

    Raises:
        ContractError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ContractError(
            f"{owner}.{attribute} = {name!r}: expected the name by which the {kind} is asked for, of small letters, "
            f"digits and hyphens, such as my-{kind}."
        )
    return name
