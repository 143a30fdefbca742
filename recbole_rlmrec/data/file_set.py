"""Files of a dataset that are replaced together.

Each file is replaced as a whole, but several are not replaced at one moment. So a marker is written first and removed
last: ``.<dataset>.<kind>.unfinished.json``, with the names of the files. A process that is killed in between leaves it,
and whoever reads one of the files then is refused until the set is written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path, sync, temporary_path
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.wording import listed

#: What writes a set: a verb, or ``SemanticEmbedding.save`` for one side.
Kind = Literal["import-release", "import-csv", "prepare", "build-semantics", "export", "update", "useremb", "itememb"]
_SAVED = ("useremb", "itememb")
#: The option that says the folder, where it is not that of datasets.
_OPTIONS: Mapping[Kind, str] = {"export": "--output"}


_MARKERS = Format("marker of a stopped replacement", "Remove it.", largest=2**20, allow_others=True)


@dataclass(frozen=True)
class _Marker:
    """What a marker says: the files that are replaced or removed."""

    files: tuple[str, ...]


@dataclass(frozen=True)
class FileSet:
    """Files of a dataset that belong together.

    Attributes:
        folder: of the files.
        dataset: RecBole's dataset name.
        kind: what writes them.
        names: of the files.
        removed: names of files that may not lie beside them; :meth:`replaced` removes them.
    """

    folder: Path
    dataset: str
    kind: Kind
    names: tuple[str, ...]
    removed: tuple[str, ...] = ()

    @property
    def is_unfinished(self) -> bool:
        """Whether a process was stopped while the files took their names."""
        return _marker(self.folder, self.dataset, self.kind).exists()

    @property
    def _changed(self) -> tuple[str, ...]:
        """Names of all files that are another after that, or none."""
        return (*self.names, *self.removed)

    @contextmanager
    def replaced(self) -> Iterator[Mapping[str, Path]]:
        """Yield an empty temporary file for each name; when all are written, give them their names.

        Raises:
            DataError: something cannot be written, or :meth:`overtaken` says so.
        """
        was_there = self.folder.exists()
        self.overtaken()
        try:
            with ExitStack() as stack:
                paths = {name: stack.enter_context(temporary_path(self.folder / name)) for name in self.names}
                yield paths
                for path in paths.values():
                    sync(path)
                with self.unfinished():
                    for name, path in paths.items():
                        os.replace(path, self.folder / name)
                    for name in self.removed:
                        (self.folder / name).unlink(missing_ok=True)
        except BaseException as error:
            if not was_there:
                with suppress(OSError):
                    self.folder.rmdir()
            if not isinstance(error, OSError):
                raise
            left = _advice(self.folder, self.dataset, self.kind) if self.is_unfinished else "Nothing there was changed."
            option = "" if self.kind in _SAVED else f" with {_OPTIONS.get(self.kind, '--data_path')} DIR"
            raise DataError(
                f"Cannot write in {self.folder}: {error}. {left} Free some space, allow writing there, or choose "
                f"another folder{option}."
            ) from error

    @contextmanager
    def unfinished(self) -> Iterator[None]:
        """Keep the marker while the files take their names; it stays where that fails.

        Raises:
            DataError: see :meth:`overtaken`.
            OSError: something cannot be written.
        """
        done = {*self.overtaken(), _marker(self.folder, self.dataset, self.kind)}
        with atomic_path(_marker(self.folder, self.dataset, self.kind)) as temporary:
            temporary.write_text(json.dumps({"files": self._changed}) + "\n", encoding="utf-8")
            sync(temporary)
        sync(self.folder)
        yield
        sync(self.folder)
        for marker in done:
            marker.unlink(missing_ok=True)
        sync(self.folder)

    def overtaken(self) -> list[Path]:
        """Return the markers of other stopped sets, all of whose files this one replaces.

        Raises:
            DataError: another set was stopped, of whose files this one replaces some: the others would be left.
        """
        markers = []
        for kind, names in _stopped(self.folder, self.dataset):
            if names is None or not set(names).isdisjoint(self._changed):
                if names is None or not set(names) <= set(self._changed):
                    raise _error(self.folder, self.dataset, kind, names)
                markers.append(_marker(self.folder, self.dataset, kind))
        return markers


def require_whole(folder: Path, dataset: str, names: Iterable[str]) -> None:
    """Check, before files of a dataset are read, that no process was stopped while it replaced them.

    Args:
        folder: of the files.
        dataset: RecBole's dataset name.
        names: of the files that are read.

    Raises:
        DataError: one was; some of the files may be old and some new.
    """
    for kind, replaced in _stopped(folder, dataset):
        if replaced is None or not set(replaced).isdisjoint(names):
            raise _error(folder, dataset, kind, replaced)


def _marker(folder: Path, dataset: str, kind: Kind) -> Path:
    return folder / f".{dataset}.{kind}.unfinished.json"


def _stopped(folder: Path, dataset: str) -> Iterator[tuple[Kind, Sequence[str] | None]]:
    """Yield what was stopped while it replaced files, and their names; None where the marker does not say which."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        marker = _marker(folder, dataset, kind)
        if not os.path.lexists(marker):
            continue
        try:
            names = _MARKERS.read(marker, _Marker).files
        except DataError:
            names = None
        yield kind, names


def _error(folder: Path, dataset: str, kind: Kind, names: Sequence[str] | None) -> DataError:
    files = listed(list(names)) if names else f"files of '{dataset}'"
    return DataError(
        f"'{folder}' may hold old files beside new ones: what replaced {files} was stopped in between. "
        f"{_advice(folder, dataset, kind)} If you have put whole files there yourself, remove "
        f"'{_marker(folder, dataset, kind)}'."
    )


def _advice(folder: Path, dataset: str, kind: Kind) -> str:
    if kind in _SAVED:
        return f"Write the {kind.removesuffix('emb')} embeddings again with SemanticEmbedding.save."
    if kind == "update":
        return "Run the same `recbole-rlmrec update --checkpoint=FILE ...` again, which replaces them all."
    # The folder has the dataset's name, which that of some embeddings may follow.
    name = dataset.removeprefix(f"{folder.name}.")
    of_dataset = dataset if name == dataset else f"{folder.name} --semantic={name}"
    return f"Run the same `recbole-rlmrec {kind} --dataset {of_dataset} ...` again, which replaces them all."
