"""What RecBole, pandas and PyTorch raise of settings and data that they cannot use, as one sentence."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from recbole_rlmrec.errors import RLMRecError, SettingError
from recbole_rlmrec.settings import given

_PACKAGE = Path(__file__).resolve().parents[1]

#: Faults of the machine, which say nothing of the settings; what is missing is another thing again.
_NOT_OF_SETTINGS = (RLMRecError, OSError, MemoryError, ImportError, RecursionError)
#: How PyTorch begins to say that memory ran out, which is a RuntimeError on a CPU.
_OUT_OF_MEMORY = re.compile("enforce fail|out of memory|can't allocate", re.IGNORECASE)
#: How RecBole's models read a setting.
_READ = re.compile(r"""\bconfig\[["']([a-z]\w*)["']\]""")
#: Settings that a file may read for them to say what is wrong.
_FEW = 15
#: Texts of so many characters are not looked for in a message.
_SHORT = 2
#: Characters of a foreign message that are shown.
_SHOWN = 500


@contextmanager
def said_in_a_sentence(failure: str, external: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[None]:
    """Turn what others raise while a step is done into a SettingError; errors of this package's code stay.

    Args:
        failure: what to say of it, such as "LightGCN could not be built".
        external: the settings that the user gave; one that the failing lines or the message name is named.
        origins: where they come from.

    Raises:
        SettingError: something outside of this package failed; the message has its words.
    """
    try:
        yield
    except _NOT_OF_SETTINGS:
        raise
    except Exception as error:
        if _is_ours(error.__traceback__) or _OUT_OF_MEMORY.search(str(error)):
            raise
        raise SettingError(f"{failure}: {explained(error, external, origins)}") from error


def explained(error: BaseException, external: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """Return the words of a foreign error, and the settings that they or the failing lines name.

    Args:
        error: with its traceback.
        external: the settings that the user gave; what is wrong is likeliest among them.
        origins: where they come from.
    """
    frames, file, read = _from_reader(error)
    named = [given(name, external[name], origins.get(name, "")) for name in _settings_in(error, frames, external)]
    words = re.sub(r"\s+", " ", str(error)).strip()[:_SHOWN] or "without a word"
    if named:
        cause = f"Look at {', '.join(named)}."
    elif read:
        cause = f"Look at the settings that {Path(file).name} reads: {', '.join(read)}."
    else:
        cause = "Look at the settings and the data that this step reads."
    return f"{type(error).__name__}: {words.rstrip('.')}. {cause}"


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_ours(traceback: TracebackType | None) -> bool:
    """Return whether the innermost frame is one of this package's."""
    *_, (innermost, _) = _frames(traceback)
    return _is_of_package(innermost)


def _is_of_package(file: str) -> bool:
    return _PACKAGE in Path(file).resolve().parents


def _from_reader(error: BaseException) -> tuple[list[tuple[str, int]], str, list[str]]:
    """Return the frames from the outermost file of others on that reads a few settings, that file, and the settings.

    That is a model's file in most cases. This package, and RecBole's reader of data and trainer, read too many to say
    anything. Without such a file all frames are returned.
    """
    frames = list(_frames(error.__traceback__))
    for at, (file, _) in enumerate(frames):
        read = [] if _is_of_package(file) else _READ.findall("".join(linecache.getlines(file)))
        read = list(dict.fromkeys(read))
        if 0 < len(read) <= _FEW:
            return frames[at:], file, read
    return frames, "", []


def _settings_in(error: BaseException, frames: Sequence[tuple[str, int]], external: Mapping[str, Any]) -> list[str]:
    """Return the given settings that the message or the lines of a traceback name, the likeliest first."""
    lines = [linecache.getline(file, number) for file, number in frames]
    by_message = [name for name in external if re.search(rf"\b{re.escape(name)}\b", str(error))]
    quoted = set(re.findall(r"[\w.-]+", str(error)))
    by_value = [name for name in external if not quoted.isdisjoint(_texts(external[name]))]
    by_line = [name for line in reversed(lines) for name in external if re.search(rf"\b{re.escape(name)}\b", line)]
    return list(dict.fromkeys([*by_message, *by_value, *by_line]))[:3]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value, short ones apart, which a message may hold by chance."""
    if isinstance(value, str):
        yield from [value] if len(value) > _SHORT else []
    elif isinstance(value, Mapping):
        yield from (text for entry in (*value, *value.values()) for text in _texts(entry))
    elif isinstance(value, (list, tuple)):
        yield from (text for entry in value for text in _texts(entry))
