"""A pickle looked through before anything is made of it: what would end the process, or fill memory, is refused.

A few bytes of a pickle can ask for gigabytes (a text that is said to be longer than the file, a place in the memo that
is far out), and a megabyte of nested tuples under a dictionary's key lets Python overflow its stack, which no exception
reports. Here the opcodes are followed with sizes and depths only, in memory of the order of the file.
"""

from __future__ import annotations

import mmap
import os
import pickletools
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

#: Nested tuples and lists; arrays, matrices, profiles and checkpoints have fewer.
_DEEPEST = 100
#: Bytes of a whole number: 8, and one for the sign of an unsigned one.
_LONGEST_NUMBER = 9
#: Bytes of a line that is a name, and of one that is a number or a place in the memo.
_LONGEST_LINE, _LONGEST_NUMBER_LINE = 1000, 40
_TEXT_LINES, _NAME_LINES = ("STRING", "UNICODE"), ("GLOBAL", "INST", "PERSID")
#: Calls may be given so many times the bytes that the file has: a text is decoded once, not a thousand times.
_MOST_GIVEN = 4

_MARK = pickletools.markobject
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
#: What changes the object below the others on the stack, and leaves it there.
_IN_PLACE = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "ADDITEMS")
_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ")
_SETS = ("EMPTY_SET", "FROZENSET", "ADDITEMS")


class HostilePickleError(ValueError):
    """A pickle asks for more than it can need; the message is a clause."""


def scan_pickle(file: BinaryIO) -> None:
    """Follow the opcodes of a pickle up to its end, and make nothing of them.

    Args:
        file: a regular file with the pickle at its beginning; where it stands is left as it is.

    Raises:
        HostilePickleError: it is nested deeply, holds a set or a very large number, has a memo with gaps, or gives its
            calls more than it holds.
        ValueError: it is empty, cut short, says that something is longer than the file, or is no pickle.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _Scan(content).run()


def scan_archive(file: BinaryIO) -> None:
    """Look through a zip archive in which PyTorch saved something, and through the pickle in it.

    Args:
        file: the archive, a regular file.

    Raises:
        HostilePickleError: what is in it would be larger than the file, or the pickle is as ``scan_pickle`` refuses.
        ValueError: it is no such archive, or damaged.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            # PyTorch compresses nothing: more than the file can hold is a bomb, or one part under many names.
            if sum(member.file_size for member in members) > size:
                raise HostilePickleError("what is in it would be larger than the file")
            for member in members:
                if member.filename.rpartition("/")[2] == "data.pkl":
                    _Scan(archive.read(member)).run()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, zlib.error) as error:
        raise ValueError(f"it is no zip archive ({error})") from error


@dataclass(frozen=True)
class _Opcode:
    """What is known of an opcode.

    Attributes:
        name: as ``pickletools`` has it.
        argument: its bytes; or, negative, how ``pickletools`` says where they end; 0 without any.
        n_below: objects that it takes from the stack, those above a mark apart.
        takes_marked: whether it takes a mark and all above it.
        is_value: whether it takes nothing and puts a plain value on the stack.
        puts: whether it puts an object on the stack, or leaves one there.
    """

    name: str
    argument: int
    n_below: int
    takes_marked: bool
    is_value: bool
    puts: bool

    @classmethod
    def of(cls, opcode: pickletools.OpcodeInfo) -> _Opcode:
        """Return what the scan needs to know."""
        before, after = opcode.stack_before, opcode.stack_after
        takes_marked = _MARK in before
        is_value = not before and len(after) == 1 and after[0] is not _MARK and not opcode.name.endswith("GET")
        n_below = before.index(_MARK) if takes_marked else len(before)
        argument = 0 if opcode.arg is None else opcode.arg.n
        return cls(opcode.name, argument, n_below, takes_marked, is_value, bool(after))


_OPCODES = {ord(opcode.code): _Opcode.of(opcode) for opcode in pickletools.opcodes}


class _Scan:
    """The state of a scan: for each object on the stack and in the memo its depth and the bytes of text in it."""

    def __init__(self, content: mmap.mmap | bytes) -> None:
        self._content, self._at, self._size = content, 0, len(content)
        self._stack: list[tuple[int, int]] = []
        self._marks: list[int] = []
        self._memo: dict[int, tuple[int, int]] = {}
        self._n_opcodes = 0
        self._given = 0

    def run(self) -> None:
        """Scan."""
        content, stack, memo = self._content, self._stack, self._memo
        name = ""
        while name != "STOP":
            if self._at >= self._size:
                raise ValueError("it is cut short")
            opcode = _OPCODES.get(content[self._at])
            if opcode is None:
                raise ValueError("it is no pickle")
            self._at += 1
            self._n_opcodes += 1
            name = opcode.name
            length = number = 0
            if opcode.argument:
                length, number = self._argument(opcode)
            if opcode.is_value:
                stack.append((0, length))
            elif name == "MEMOIZE":
                memo[len(memo)] = self._top()
            elif name.endswith("PUT"):
                if number > self._n_opcodes:
                    raise HostilePickleError(f"its memo has a place {number} after {self._n_opcodes} steps")
                memo[number] = self._top()
            elif name.endswith("GET"):
                if number not in memo:
                    raise ValueError(f"its memo has no place {number}")
                stack.append(memo[number])
            elif name == "MARK":
                self._marks.append(len(stack))
            elif name == "POP" and self._marks and self._marks[-1] == len(stack):
                self._marks.pop()
            else:
                self._follow(opcode)

    def _argument(self, opcode: _Opcode) -> tuple[int, int]:
        """Pass over an opcode's argument; return its length and, of one of a fixed size or a place, the number."""
        name, size = opcode.name, opcode.argument
        if size == pickletools.UP_TO_NEWLINE:
            start = self._at
            self._pass_line(name)
            length = self._at - start
            if name in ("GLOBAL", "INST"):
                self._pass_line(name)
            return length, int(self._content[start : self._at]) if name in ("PUT", "GET") else 0
        n_bytes = size if size > 0 else _LENGTH_BYTES[size]
        number = int.from_bytes(self._content[self._at : self._at + n_bytes], "little")
        self._pass(n_bytes)
        if size > 0:
            if name == "FRAME" and number > self._size - self._at:
                self._pass(number)
            return size, number
        if name in ("LONG1", "LONG4") and number > _LONGEST_NUMBER:
            raise HostilePickleError(f"it holds a number of {number:,} bytes")
        self._pass(number)
        return number, 0

    def _pass(self, n_bytes: int) -> None:
        left = self._size - self._at
        if n_bytes > left:
            raise ValueError(f"it says that something has {n_bytes:,} bytes, and has {left:,} left")
        self._at += n_bytes

    def _pass_line(self, name: str) -> None:
        most = self._size - self._at
        if name not in _TEXT_LINES:
            most = min(most, _LONGEST_LINE if name in _NAME_LINES else _LONGEST_NUMBER_LINE)
        end = self._content.find(b"\n", self._at, self._at + most)
        if end < 0:
            if self._at + most < self._size:
                raise HostilePickleError(f"it holds a number or a name of more than {most} characters")
            raise ValueError("it is cut short")
        self._at = end + 1

    def _top(self) -> tuple[int, int]:
        if not self._stack:
            raise ValueError("it is no pickle")
        return self._stack[-1]

    def _take(self, opcode: _Opcode) -> list[tuple[int, int]]:
        """Take from the stack what an opcode takes."""
        if opcode.takes_marked and not self._marks:
            raise ValueError("it is no pickle")
        start = (self._marks.pop() if opcode.takes_marked else len(self._stack)) - opcode.n_below
        if start < 0:
            raise ValueError("it is no pickle")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _follow(self, opcode: _Opcode) -> None:
        """Change the stack as an opcode that makes objects of others would."""
        name = opcode.name
        if name in _SETS:
            raise HostilePickleError("it holds a set")
        taken = self._take(opcode)
        if name == "DUP":
            self._stack += taken * 2
            return
        if not opcode.puts:
            return
        text = sum([each for _, each in taken])
        if name in _CALLS:
            self._given += text
            text = 0
            if self._given > _MOST_GIVEN * self._size:
                raise HostilePickleError("it gives its calls more text than it holds")
        # The object that is changed is as deep as before, or by one deeper than what is put into it.
        first, inside = (taken[0][0], taken[1:]) if name in _IN_PLACE else (0, taken)
        depth = max(first, 1 + max([each for each, _ in inside], default=-1))
        if depth > _DEEPEST:
            raise HostilePickleError(f"it is nested more than {_DEEPEST} levels deep")
        self._stack.append((depth, text))
