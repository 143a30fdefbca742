"""How options and settings may be written on a command line: in one spelling when argparse sees them.

``--learning-rate 0.01`` and ``--learning_rate=0.01`` are the same, and so is ``–learning-rate=0.01`` of a PDF file.
"""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Sequence

from recbole_rlmrec.arguments import note_once
from recbole_rlmrec.errors import SettingError

#: What looks like an option: hyphens, or what text processors and PDF files make of them, before a letter.
_OPTION = re.compile(r"([-\u2010-\u2015\u2212\ufe63\uff0d]+)([^\W\d_].*)", re.DOTALL)
_DASHES = re.compile(r"[-\u2010-\u2015\u2212\ufe63\uff0d]")

_TRUTH = {"true": True, "false": False}


def canonical(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the words of a command line with each option and each setting as one word, ``--name=value``.

    Words that are no option of the parser, and no setting where it takes settings, stay as they are.

    Args:
        parser: of the verb.
        words: those after the verb.

    Raises:
        SettingError: an option or a setting has no value, is given twice with different ones, or has one dash for two.
    """
    return _Reader(parser, words).read()


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a parser as they are declared, without their hyphens, for suggestions."""
    return [name[2:] for action in parser._actions for name in action.option_strings if name.startswith("--")]


class _Reader:
    """Reads the words of one command line; arguments as :func:`canonical`."""

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
        self._options = {_folded(name): action for action in parser._actions for name in action.option_strings}
        self._declared = {_folded(name): name for action in parser._actions for name in action.option_strings}
        self._takes_settings = parser.get_default("settings") is not None
        self._left = deque(words)
        self._found: list[str] = []
        self._given: dict[str, str] = {}

    def read(self) -> list[str]:
        while self._left:
            word = self._left.popleft()
            if word == "--":
                self._found += [word, *self._left]
                break
            head, equals, text = word.partition("=")
            self._read_word(word, _folded(head), text if equals else None)
        return self._found

    def _read_word(self, word: str, name: str, text: str | None) -> None:
        """Read a word and its value, which may be the next word.

        Args:
            word: as written.
            name: what stands before its ``=``, in one spelling.
            text: what stands behind it; None without one.
        """
        opposite = f"--{name[5:]}" if name.startswith("--no_") else f"--no_{name[2:]}"
        if name in self._options:
            self._read_option(name, text)
        elif name.startswith("--") and _is_switch(self._options.get(opposite)):
            self._read_option(opposite, text, is_opposite=True)
        elif name.startswith("--") and self._takes_settings:
            self._read_setting(name[2:], text)
        elif name[:1] == "-" and name[:2] in self._options and not name.startswith("--"):
            self._refuse_one_dash(name)
            self._read_option(name[:2], word[2:].removeprefix("="))
        else:
            self._found.append(word)

    def _read_option(self, name: str, text: str | None, *, is_opposite: bool = False) -> None:
        """Read a declared option.

        Args:
            name: in one spelling.
            text: its value, where it stands behind ``=``.
            is_opposite: whether ``--no-x`` is written of ``--x``, or ``--x`` of ``--no-x``.
        """
        action = self._options[name]
        shown = self._declared[name] if name.startswith("--") else max(action.option_strings, key=len)
        if _is_switch(action):
            is_on = self._switch(shown, text) is not is_opposite
            note_once(self._given, action.dest, str(is_on))
            self._found += [shown] if is_on else []
        elif action.nargs is None:
            value = self._value(shown, text)
            if not value and action.type is not None:
                raise SettingError(_no_value(shown))
            if isinstance(action, argparse._StoreAction):  # others may collect several values
                note_once(self._given, action.dest, value)
            self._found.append(f"{shown}={value}")
        else:
            if text is None and action.nargs == argparse.OPTIONAL and self._left and not self._begins(self._left[0]):
                text = self._left.popleft()
            self._found.append(shown if text is None else f"{shown}={text}")

    def _read_setting(self, name: str, text: str | None) -> None:
        """Read what is no option: a setting, or a slip, which the configuration finds out."""
        from recbole_rlmrec.config import is_setting

        if text is None and name.startswith("no_") and not is_setting(name) and _is_flag(name[3:]):
            name, text = name[3:], "False"
        elif text is None and not (self._left and not self._begins(self._left[0])) and _is_flag(name):
            text = "True"
        text = self._value(f"--{name}", text)
        if not text and not _may_be_nothing(name):
            raise SettingError(_no_value(f"--{name}"))
        self._found.append(f"--{name}={text}")

    def _value(self, shown: str, text: str | None) -> str:
        """Return the value that stands behind ``=``, or else the next word."""
        if text is not None:
            return text
        if not self._left or self._begins(self._left[0]):
            raise SettingError(_no_value(shown))
        return self._left.popleft()

    def _switch(self, shown: str, text: str | None) -> bool:
        """Return whether an option without a value is switched on; ``=true``, ``=false`` or the word may follow."""
        if text is None and self._left and self._left[0].lower() in _TRUTH:
            text = self._left.popleft()
        if text is None:
            return True
        if text.lower() not in _TRUTH:
            raise SettingError(f"{shown}={text}: expected true or false, or {shown} alone.")
        return _TRUTH[text.lower()]

    def _begins(self, word: str) -> bool:
        """Return whether a word begins another option, so that it is no value; a number with a sign is one."""
        name = _folded(word.partition("=")[0])
        return name.startswith("--") or name in self._options

    def _refuse_one_dash(self, name: str) -> None:
        """Raise for ``-dataset=x``, which would be the dataset 'ataset=x'."""
        long = f"-{name}"
        is_long = long in self._options
        if not is_long and self._takes_settings:
            from recbole_rlmrec.config import is_setting

            is_long = is_setting(name[1:])
        if is_long:
            raise SettingError(f"{name} has one dash: write {long}.")


def _is_switch(action: argparse.Action | None) -> bool:
    """Return whether an option is given or not, without a value."""
    return action is not None and action.nargs == 0 and isinstance(action.const, bool)


def _is_flag(name: str) -> bool:
    """Return whether a setting is True or False.

    >>> _is_flag("tuned"), _is_flag("show_progress"), _is_flag("epochs")
    (True, True, False)
    """
    from recbole_rlmrec.config import values_in_files
    from recbole_rlmrec.settings import FLAG, SETTINGS

    if name in SETTINGS:
        return SETTINGS[name].allowed is FLAG
    return any(isinstance(value, bool) for value in values_in_files(name))


def _may_be_nothing(name: str) -> bool:
    """Return whether a setting can be given without a value, as ``--split_field=``; so may one that is not known.

    >>> [_may_be_nothing(name) for name in ("split_field", "load_col", "gpu_id", "epochs")]
    [True, True, True, False]
    """
    from recbole_rlmrec.config import values_in_files
    from recbole_rlmrec.recbole_settings.declared import RECBOLE_SETTINGS
    from recbole_rlmrec.settings import SETTINGS

    if name in SETTINGS:
        return None in SETTINGS[name].allowed
    if name in RECBOLE_SETTINGS and None in RECBOLE_SETTINGS[name].kind:
        return True
    values = values_in_files(name)
    return not values or any(value is None or isinstance(value, dict) for value in values)


def _no_value(shown: str) -> str:
    return f"{shown} has no value: write {shown}=VALUE; a value that begins with two dashes needs the '='."


def _folded(head: str) -> str:
    """Return an option's name with hyphens before it and underscores in it; other words as they are.

    >>> [_folded(head) for head in ("--learning-rate", "–epochs", "-d", "-0.1", "ml-100k")]
    ['--learning_rate', '--epochs', '-d', '-0.1', 'ml-100k']
    """
    match = _OPTION.fullmatch(head)
    if match is None:
        return head
    dashes, name = match.groups()
    if not dashes.isascii():  # one long dash is often what two hyphens became
        dashes = "--" if len(name) > 1 else "-"
    return dashes + _DASHES.sub("_", name)
