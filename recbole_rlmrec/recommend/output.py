"""Lists as files, CSV, TSV, JSON lines or Parquet, and as lines for the screen; ids from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import pandas as pd

from recbole_rlmrec.data.embedding_files import read_tokens
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.files import atomic_path, require_writable
from recbole_rlmrec.recommend.explain import EXPLAINING
from recbole_rlmrec.wording import printable


class IdsOfFile(NamedTuple):
    """The ids in a file.

    Attributes:
        ids: in the order of the file.
        where: says of the n-th of them where it stands.
    """

    ids: list[str]
    where: Callable[[int], str]


def _write_delimited(file: IO[bytes], frames: Iterable[pd.DataFrame], separator: str) -> None:
    for number, frame in enumerate(frames):
        text = frame.to_csv(None, sep=separator, header=number == 0, index=False, lineterminator="\n")
        file.write(text.encode("utf-8"))


def _write_json_lines(file: IO[bytes], frames: Iterable[pd.DataFrame]) -> None:
    for frame in frames:
        text = frame.to_json(None, orient="records", lines=True, force_ascii=False)
        file.write("".join(f"{line}\n" for line in text.split("\n") if line).encode("utf-8"))


def _write_parquet(file: IO[bytes], frames: Iterable[pd.DataFrame]) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    frames = iter(frames)
    first = next(frames)
    # Of a block without any title the type of the column is not to be seen.
    kinds = {"rank": arrow.int64(), "score": arrow.float32()}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in first.columns])
    with ParquetWriter(file, schema) as writer:
        for frame in chain([first], frames):
            writer.write_table(arrow.Table.from_pandas(frame, schema, preserve_index=False))


_WRITERS: dict[str, Callable[[IO[bytes], Iterable[pd.DataFrame]], None]] = {
    ".csv": partial(_write_delimited, separator=","),
    ".tsv": partial(_write_delimited, separator="\t"),
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}


def check_output(path: str | Path) -> None:
    """Check that lists can be written to a file, before they are made.

    Raises:
        SettingError: its ending stands for no format, or what the format needs is not installed.
        OSError: it cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        raise SettingError(f"--output='{path}': expected a name that ends with one of {', '.join(_WRITERS)}.")
    if ending == ".parquet":
        require_package("pyarrow", f"--output='{path}'", "pyarrow", "write .csv")
    require_writable(path)


def write_lists(path: str | Path, frames: Iterable[pd.DataFrame]) -> int:
    """Write lists as they come, in the format of the file's ending; an interrupted file is none.

    Args:
        path: a file that :func:`check_output` accepts; one that is there is replaced when all is written.
        frames: at least one, all of the same columns; see
            :meth:`~recbole_rlmrec.recommend.recommender.Recommender.recommend_blocks`.

    Returns:
        The number of rows.
    """
    n_rows = 0

    def counted() -> Iterator[pd.DataFrame]:
        nonlocal n_rows
        for frame in frames:
            n_rows += len(frame)
            yield frame

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        _WRITERS[Path(path).suffix.lower()](file, counted())
    return n_rows


def screen_lines(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a frame as lines for the screen, the explanations of a row below it.

    >>> frame = pd.DataFrame({"user": ["7"], "rank": [1], "item": ["50"], "title": ["Star Wars"], "score": [0.5]})
    >>> list(screen_lines(frame))
    ['user  rank  item  title      score', '7     1     50    Star Wars  0.5']
    """
    columns = [name for name in frame.columns if name not in EXPLAINING]
    cells = [[name, *map(_cell, frame[name].tolist())] for name in columns]
    widths = [max(map(len, column)) for column in cells]
    notes = [(name.replace("_", " "), frame[name].tolist()) for name in frame.columns if name in EXPLAINING]
    for row, texts in enumerate(zip(*cells)):
        yield "  ".join(text.ljust(width) for text, width in zip(texts, widths)).rstrip()
        for label, values in notes if row else ():
            if _cell(values[row - 1]):
                yield f"    {label}: {_cell(values[row - 1])}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else printable(str(value)).replace("\n", " ")


def read_ids(path: str | Path) -> IdsOfFile:
    """Read a file with one id a line; empty lines are passed over.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or holds no id.
    """
    lines = read_tokens(Path(path)).tolist()
    kept = [(number, token) for number, token in enumerate(lines, start=1) if token]
    if not kept:
        raise DataError(f"'{path}' holds no id; expected one on each line.")
    numbers = [number for number, _ in kept]
    return IdsOfFile([token for _, token in kept], lambda place: f"'{path}', line {numbers[place]}")
