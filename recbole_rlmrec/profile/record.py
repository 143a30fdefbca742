"""Profiles on disk: append-only JSON lines, one profile a line.

A file may hold several lines of one token, of several writers or prompts; the last one counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path, json_line, try_lock
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.shape import Count
from recbole_rlmrec.sides import Side
from recbole_rlmrec.wording import printable

#: How often what a writer goes by was changed: our prompts and our template. Records of a lower version are kept until
#: the user asks for others. Of writers that are not listed there is only version 1.
_VERSIONS = {"template": 2, "llm": 2}

# Two reasons of failures that begin with the same so many characters are one.
_ALIKE = 40


@dataclass(frozen=True)
class Profile:
    """A written profile.

    Attributes:
        token: original id of the user or item.
        profile: the text that is encoded.
        reasoning: why the writer says so; empty for a template.
        writer: who wrote it, such as ``template`` or ``llm:gpt-4o-mini``.
        prompt_sha256: hash of what the writer was given.
        train_sha256: hash of the training pairs that it was written from.
        interacted: other ends of the interactions that it was written from.
        version: of the prompt or the template that it was written by; see :func:`current_version`.
        sums: whether sums over many users' training interactions stand in it, so that nothing but ``train_sha256`` says
            what it was written from.
    """

    token: str
    profile: str
    reasoning: str
    writer: str
    prompt_sha256: str
    train_sha256: str
    interacted: tuple[str, ...] = ()
    version: Count = 1
    sums: bool = False

    @property
    def is_older(self) -> bool:
        """Whether it was written by an older prompt or template than there is now; it is no less valid."""
        return self.version < current_version(self.writer)


def current_version(writer: str) -> int:
    """Return the version of what a writer goes by now.

    >>> current_version("llm:gpt-4o-mini"), current_version("a writer of another package")
    (2, 1)
    """
    return _VERSIONS.get(writer.partition(":")[0], 1)


def note_of_older(n_profiles: int) -> list[str]:
    """Return what is said of profiles by an older prompt or template; nothing of none."""
    if not n_profiles:
        return []
    return [
        f"{n_profiles:,} by an older prompt or template; they stay valid, and build-semantics --rewrite-older "
        "--overwrite writes them and their embeddings again"
    ]


@dataclass(frozen=True)
class Failure:
    """A profile that was asked for and not written.

    Attributes:
        token: original id of the user or item.
        prompt_sha256: hash of what the writer was given.
        writer: who should have written it.
        error: why there is none.
        attempts: how often the writer asked, in all runs.
        refused: whether the reason lies in the prompt itself, so that asking again is of no use.
    """

    token: str
    prompt_sha256: str
    writer: str
    error: str
    attempts: Count
    refused: bool = False

    def is_of(self, prompt_sha256: str, writer: str) -> bool:
        """Whether this writer was asked this very prompt."""
        return (self.prompt_sha256, self.writer) == (prompt_sha256, writer)


_PROFILES = Format("profile", "Correct or remove the line.", allow_others=True)
_FAILURES = Format("failure", "The file only lists what was not written: remove it and run the same command again.")


def profiles_path(folder: Path, dataset: str, side: Side) -> Path:
    """Return the file of a side's profiles."""
    return Path(folder) / f"{dataset}.{side}prf.jsonl"


def failures_path(folder: Path, dataset: str, side: Side) -> Path:
    """Return the file of a side's failures."""
    return Path(folder) / f"{dataset}.{side}prf.failed.jsonl"


class ProfileLog:
    """The profiles of one side, open for appending by one process at a time.

    Opening cuts off the rest of a line that a power cut tore. What is kept in memory for each line is where it starts,
    not its text.

    Args:
        path: the file; made if missing.
        read_only: neither lock nor change anything; a missing file counts as empty.

    Raises:
        DataError: a line is malformed, or another process holds the file.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._starts: dict[bytes, int] = {}
        self._latest: dict[str, int] = {}
        self._latest_of_writer: dict[bytes, int] = {}
        self._descriptor: int | None = None
        if read_only:
            self._index()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise DataError(
                f"'{self.path}' cannot be written: {error.strerror}. Profiles are written to the dataset's folder in "
                "data_path; give one that is writable."
            ) from error
        try:
            if not try_lock(self._descriptor):
                raise DataError(
                    f"Another process is writing '{self.path}'. Wait until it ends, or stop it, and run this again."
                )
            whole = self._index()
            if whole < os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, whole)
            elif not self._ends_with_line_break():
                self._write(b"\n", sync=True)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ProfileLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __contains__(self, key: tuple[str, str, str]) -> bool:
        """Whether a (token, writer, prompt_sha256) is recorded."""
        return _digest(*key) in self._starts

    def find(self, token: str, writer: str, prompt_sha256: str) -> Profile | None:
        """Return the profile that a writer wrote for a prompt, superseded or not; None if there is none."""
        start = self._starts.get(_digest(token, writer, prompt_sha256))
        return None if start is None else self._profile_at(start)

    def current(self) -> dict[str, Profile]:
        """Return the last profile of each token."""
        return {token: self._profile_at(start) for token, start in self._latest.items()}

    def older(self, token: str, writer: str, train_sha256: str) -> Profile | None:
        """Return a writer's last profile of a token if it is by an older prompt and of this training split."""
        found = self.latest(token, writer)
        return found if found is not None and found.is_older and found.train_sha256 == train_sha256 else None

    def latest(self, token: str, writer: str) -> Profile | None:
        """Return a writer's last profile of a token; None if there is none."""
        start = self._latest_of_writer.get(_digest(token, writer))
        return None if start is None else self._profile_at(start)

    def make_last(self, profile: Profile) -> None:
        """Make a recorded profile its token's last again, which is the one that counts; its split may be another."""
        start = self._starts[_digest(profile.token, profile.writer, profile.prompt_sha256)]
        if self._latest[profile.token] != start or self._profile_at(start) != profile:
            self.append(profile, sync=False)  # if a power cut takes it, it is done again

    def recall(self, wanted: Profile) -> bool:
        """Make an earlier profile the token's last again, if it is recorded under the wanted key.

        Args:
            wanted: its token, writer and prompt_sha256 are looked for; its train_sha256 and interacted replace the
                recorded ones, because the same prompt may come from other training data. Its texts are not used.

        Returns:
            Whether it is recorded, so that nobody has to be asked.
        """
        start = self._starts.get(_digest(wanted.token, wanted.writer, wanted.prompt_sha256))
        if start is None:
            return False
        found = self._profile_at(start)
        renewed = replace(wanted, profile=found.profile, reasoning=found.reasoning)
        if renewed != found or self._latest[wanted.token] != start:
            self.append(renewed, sync=False)  # if a power cut takes it, it is recalled again
        return True

    def append(self, profile: Profile, *, sync: bool = True) -> None:
        """Record a profile as one whole line.

        Args:
            profile: what to record.
            sync: return only when the line would survive a power cut. It survives the end of this process either way.

        Raises:
            DataError: the line could not be written, as when the disk is full; the file is as it was before.
        """
        start = self._write(profile_line(profile), sync=sync)
        self._note(profile, start)

    def _note(self, profile: Profile, start: int) -> None:
        self._starts[_digest(profile.token, profile.writer, profile.prompt_sha256)] = start
        self._latest_of_writer[_digest(profile.token, profile.writer)] = start
        self._latest[profile.token] = start

    def _write(self, line: bytes, *, sync: bool) -> int:
        """Append bytes, all or none, and return where they start."""
        assert self._descriptor is not None, "the log is open for writing"
        start = os.fstat(self._descriptor).st_size
        try:
            n_written = os.write(self._descriptor, line)
            if n_written < len(line):
                raise OSError(errno.ENOSPC, f"{n_written} of {len(line)} bytes written")
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
            raise DataError(
                f"'{self.path}' cannot be written: {error}. What was recorded before is whole. Make room on the disk "
                "and run the same command again: it goes on from there."
            ) from error
        return start

    def _ends_with_line_break(self) -> bool:
        with self.path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def _index(self) -> int:
        """Note where each line starts; return where the last whole line ends."""
        end = 0
        for start, length, profile in _read(self.path):
            self._note(profile, start)
            end = start + length
        return end

    def _profile_at(self, start: int) -> Profile:
        with self.path.open("rb") as file:
            file.seek(start)
            return _parse(file.readline())


def read_profiles(path: str | Path) -> dict[str, Profile]:
    """Read the last profile of each token; a torn last line is passed over.

    Raises:
        DataError: the file is missing, or a line is malformed.
    """
    return {profile.token: profile for profile in iter_profiles(path)}


def iter_profiles(path: str | Path) -> Iterator[Profile]:
    """Read every line, also those that a later one supersedes; see ``read_profiles``."""
    if not Path(path).is_file():
        raise DataError(f"There is no file of profiles '{path}'. Write them first, or check the path.")
    for _, _, profile in _read(Path(path)):
        yield profile


def write_profiles(path: str | Path, profiles: Iterable[Profile]) -> None:
    """Write a file of profiles, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(map(profile_line, profiles))


def read_failures(path: str | Path) -> dict[str, Failure]:
    """Read the failures by token; none if the file is missing.

    Raises:
        DataError: a line is malformed.
    """
    if not Path(path).is_file():
        return {}
    return {failure.token: failure for failure in _FAILURES.records(path, Failure)}


def write_failures(path: str | Path, failures: Iterable[Failure]) -> None:
    """Write the failures, one a line; without any, remove the file.

    Raises:
        DataError: the file cannot be written.
    """
    lines = [json_line(asdict(failure)) for failure in failures]
    try:
        if not lines:
            Path(path).unlink(missing_ok=True)
            return
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join(lines))
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written: {error}. No profile is lost; the {len(lines)} that failed are tried again "
            "when the same command runs again."
        ) from error


def commonest_reason(failures: Iterable[Failure]) -> str:
    """Say why most of some failures failed, and how many those are; empty where nothing failed.

    Reasons that begin alike count as one: they may go on with a prompt's length, or with what the model wrote.

    >>> commonest_reason([Failure(token, "", "", "HTTP 400: no such thing", 1) for token in "ab"])
    'The commonest reason (2 of 2): HTTP 400: no such thing'
    """
    reasons = [failure.error for failure in failures]
    if not reasons:
        return ""
    kinds = Counter(map(_beginning, reasons))
    kind, number = kinds.most_common(1)[0]
    reason = next(reason for reason in reasons if _beginning(reason) == kind)
    return f"The commonest reason ({number} of {len(reasons)}): {printable(reason)}"


def _beginning(reason: str) -> str:
    return re.sub(r"\d+", "0", reason)[:_ALIKE]


def _digest(*parts: str) -> bytes:
    """Shorten a key: the index of millions of lines stays in memory."""
    key = json.dumps(parts)
    return hashlib.sha256(key.encode("ascii")).digest()[:16]


def profile_line(profile: Profile) -> bytes:
    """Return the line of a profile file, UTF-8 with its line break."""
    content = asdict(profile)
    further = {
        _INTERACTED: content.pop("interacted"),
        "version": content.pop("version"),
        "sums": content.pop("sums"),
    }
    usual = {_INTERACTED: (), "version": 1, "sums": False}
    return json_line({**content, **{key: value for key, value in further.items() if value != usual[key]}})


def _read(path: Path) -> Iterator[tuple[int, int, Profile]]:
    """Yield where each line starts, its length, and its profile; stop before a torn last line.

    A last line without its line break counts if it is whole: a torn one is no JSON.
    """
    if not path.is_file():
        return
    start = 0
    for number, line in enumerate(_PROFILES.lines(path), start=1):
        try:
            profile = _parse(line)
        except ValueError as error:
            if not line.endswith(b"\n"):
                return
            raise _PROFILES.fault(path, error, number) from error
        yield start, len(line), profile
        start += len(line)


@dataclass(frozen=True)
class _Line:
    """A line of a file of profiles; those that RLMRec released have no hashes."""

    token: str
    profile: str
    writer: str
    reasoning: str = ""
    prompt_sha256: str = ""
    train_sha256: str = ""
    told: tuple[str, ...] = ()
    version: Count = 1
    sums: bool = False


#: What the file calls ``interacted``.
_INTERACTED = "told"


def _parse(line: bytes) -> Profile:
    content = dict(vars(_PROFILES.parse(line, _Line)))
    return Profile(interacted=content.pop(_INTERACTED), **content)
