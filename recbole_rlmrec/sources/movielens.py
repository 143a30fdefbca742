"""MovieLens, in the three forms in which GroupLens publishes it.

Ratings and movies lie in ``u.data`` and ``u.item`` (100K), in ``ratings.dat`` and ``movies.dat`` (1M and 10M), or in
``ratings.csv`` and ``movies.csv`` (20M and later). Each dataset's README describes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_rlmrec.sources.raw_dump import Interaction, Source, required_rating
from recbole_rlmrec.sources.table_rows import find_layout, open_rows
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.json_lines import JsonLines, MalformedLineError, Records, optional_number, require_text

_RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
_MOVIE_COLUMNS = ("movieId", "title", "genres")
# fmt: off
#: In the order of u.item's last columns.
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
_NO_GENRE = ("unknown", "(no genres listed)")


@dataclass
class _PlainRows(Records[bytes]):
    """A table without header and quotes.

    Attributes:
        columns: names of its columns.
        separator: of its fields.
        encoding: of its text.
    """

    columns: tuple[str, ...] = ()
    separator: str = "\t"
    encoding: str = "latin-1"

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that are not blank, with their numbers."""
        return JsonLines(self.path, self.max_malformed, self.show_progress, self.remedy, self.limits).lines()

    def _object(self, line: bytes) -> Mapping[str, Any]:
        fields = line.decode(self.encoding).rstrip("\r").split(self.separator)
        if len(fields) != len(self.columns):
            raise MalformedLineError(f"has {len(fields)} fields, expected {len(self.columns)}")
        return dict(zip(self.columns, fields))

    def _excerpt(self, line: bytes) -> str:
        return line.decode(self.encoding)


def _open(path: Path, max_malformed: float, remedy: str, *, show_progress: bool) -> Records[Any]:
    """Open a file of ratings or movies by its name."""
    columns: tuple[str, ...] = _RATING_COLUMNS if path.name.startswith(("ratings", "u.data")) else _MOVIE_COLUMNS
    if path.suffix == ".csv":
        layout = find_layout(path, columns, "comma")
        return open_rows(path, layout, columns, max_malformed, remedy, show_progress=show_progress)
    separator, encoding = "::", "utf-8" if path.name == "movies.dat" and _is_utf8(path) else "latin-1"
    if path.name == "u.data":
        separator = "\t"
    elif path.name == "u.item":
        separator, columns = "|", ("movieId", "title", "date", "video", "url", *_GENRES_100K)
    return _PlainRows(
        path, max_malformed, show_progress, remedy, columns=columns, separator=separator, encoding=encoding
    )


def _is_utf8(path: Path) -> bool:
    """Return whether a file is UTF-8, as 10M's is and 1M's is not."""
    try:
        for _, line in JsonLines(path).lines():
            line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _interaction(record: Mapping[str, Any]) -> Interaction:
    return (
        require_text(record, "userId"),
        require_text(record, "movieId"),
        required_rating(record, "rating"),
        optional_number(record, "timestamp"),
    )


def _movie(record: Mapping[str, Any]) -> Item:
    if "genres" in record:
        genres = tuple(str(record["genres"]).split("|"))
    else:
        genres = tuple(name for name in _GENRES_100K if record[name] == "1")
    genres = tuple(genre for genre in genres if genre and genre not in _NO_GENRE)
    return Item(require_text(record, "movieId"), str(record["title"]).strip(), "", {"genres": genres} if genres else {})


MOVIELENS = Source(
    "movielens",
    r"u\.data|ratings\.(dat|csv)",
    r"u\.item|movies\.(dat|csv)",
    "u.data and u.item (100K), ratings.dat and movies.dat (1M, 10M), or ratings.csv and movies.csv (20M and later)",
    3.0,
    _interaction,
    None,
    _movie,
    open=_open,
)
