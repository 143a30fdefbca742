"""What is said of a join of embeddings with a dataset's ids: how far it reaches, and why it may not."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sides import Side
from recbole_rlmrec.wording import count, examples

_logger = logging.getLogger(__name__)

_LOW_COVERAGE = 0.5


@dataclass(frozen=True, eq=False)
class Join:
    """The table and the ids of a join, and which of them met.

    Attributes:
        source: path or description of the table.
        side: ``"user"`` or ``"item"``; None where it is not known.
        tokens: original ids of the table's rows, text as objects ``[n]``.
        unused: rows that belong to no id, bool ``[n]``.
        ids: original ids of the dataset, ``[PAD]`` first, text as objects ``[n_ids]``.
        matched: ids that have a row, bool ``[n_ids]``.
        zero: ids whose row is all zero, bool ``[n_ids]``.
    """

    source: str
    side: Side | None
    tokens: np.ndarray
    unused: np.ndarray
    ids: np.ndarray
    matched: np.ndarray
    zero: np.ndarray


def report_join(join: Join) -> None:
    """Log how far a join reaches.

    Raises:
        DataError: it reaches nobody.
    """
    who = join.side or "id"
    what = f"{join.side or 'semantic'} embeddings"
    ids, zero = join.ids, join.zero
    covered = join.matched & ~zero
    n_ids, n_covered, n_zero = len(ids) - 1, int(covered.sum()), int(zero.sum())
    if not join.matched.any():
        raise DataError(_no_match_message(what, who, join))
    holes = ids[1:][~covered[1:]]
    coverage = n_covered / n_ids
    summary = f"{what}: {n_covered:,} of {count(n_ids, who)} covered ({100 * coverage:.1f} %)"
    if holes.size:
        summary += f", {count(holes.size, 'hole')}, e.g. {examples(holes, 2)}"
    # One line in either case: a warning where so little is covered that the files are probably not the right ones.
    if not n_covered:
        _logger.warning(f"{nothing_covered(what, who, join.source)} What aligns with them goes without.")
    elif coverage < _LOW_COVERAGE:
        _logger.warning(f"{summary}. Less than half is covered: is {join.source} of this dataset, and complete?")
    else:
        _logger.info(summary)
    if n_zero and n_covered:
        _logger.warning(
            f"{what}: {count(n_zero, who)} with an all-zero vector in {join.source}, e.g. "
            f"{examples(ids[zero], 3)}: cosine cannot compare them, so they are treated as holes. Encode them again."
        )
    uncovered = ids[1:][~join.matched[1:]]
    if uncovered.size and join.unused.any():
        shift = _better_shift(ids[1:], join.tokens, uncovered.size)
        both = (
            f"{what}: {count(int(join.unused.sum()), 'row')} of {join.source} without {_article(who)}, e.g. "
            f"{examples(join.tokens[join.unused], 3)}, and {count(uncovered.size, who)} without a row, e.g. "
            f"{examples(uncovered, 3)}."
        )
        if shift:
            _logger.warning(
                f"{both} The ids are probably shifted by one: with {shift:+d} on every token, more would match. Check "
                "that the tokens are the original ids."
            )
        else:
            _logger.info(both)


def nothing_covered(what: str, who: str, source: str) -> str:
    """Say that all rows of a table are zero."""
    return f"{what}: every {who}'s row in {source} is zero, which cosine cannot compare. Encode the profiles again."


def _no_match_message(what: str, who: str, join: Join) -> str:
    """Say that no id has a row, show both sides and guess why."""
    ids, tokens = join.ids[1:], join.tokens
    guess = _guess_cause(ids, tokens)
    return (
        f"{what}: 0 of {count(len(ids), who)} match, and 0 of {count(len(tokens), 'row')} of {join.source}.\n"
        f"  original ids of the dataset: {examples(ids, 3)}\n"
        f"  tokens of the embeddings:    {examples(tokens, 3)}\n"
        + (f"  probable cause: {guess}\n" if guess else "")
        + "Expected the tokens to be the original ids, spelt as in the dataset's .inter file."
    )


# Each spelling that ids suffer from on their way through spreadsheets and data frames, and what undoes it.
_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("white space or quotes around the ids are left aside", lambda token: token.strip(" \t\r\n\"'")),
    ("upper and lower case are not distinguished", str.casefold),
    (
        "numbers written as floats are read as integers ('1.0' as '1')",
        lambda token: re.sub(r"^(\d+)\.0*$", r"\1", token),
    ),
    ("leading zeros are left out ('007' as '7')", lambda token: re.sub(r"^0+(?=\d)", "", token)),
)


def _guess_cause(ids: np.ndarray, tokens: np.ndarray) -> str | None:
    """Guess why no id equals a token, by trying what would make them equal; None if nothing fits."""
    trials = [(_n_common(map(undo, ids.tolist()), map(undo, tokens.tolist())), cause) for cause, undo in _SPELLINGS]
    id_numbers, token_numbers = _integers(ids), _integers(tokens)
    if id_numbers is not None and token_numbers is not None:
        trials += [
            (
                int(np.isin(id_numbers, token_numbers + shift).sum()),
                f"{shift:+d} is added to every token (shifted by one)",
            )
            for shift in (1, -1)
        ]
    n_common, cause = max(trials, key=lambda trial: trial[0])
    # A shift makes a few integers meet by chance, so a handful proves nothing.
    if n_common >= max(1, min(len(ids), len(tokens)) // 10):
        return f"{n_common} of {len(ids)} would match if {cause}."
    if token_numbers is not None and _are_row_numbers(token_numbers):
        first, last = token_numbers.min(), token_numbers.max()
        return f"the tokens are the numbers {first} to {last}, row numbers instead of original ids."
    if id_numbers is not None and _are_row_numbers(id_numbers):
        return "the dataset's ids are row numbers: it was renumbered, and the embeddings have the ids from before."
    return None


def _better_shift(ids: np.ndarray, tokens: np.ndarray, n_uncovered: int) -> int | None:
    """Find +1 or -1 that, added to integer tokens, leaves at most half as many ids without a row; else None.

    Where items are unsold and texts missing, as in every catalogue, a shift only exchanges which ids have none.
    """
    id_numbers, token_numbers = _integers(ids), _integers(tokens)
    if id_numbers is None or token_numbers is None:
        return None
    left = {shift: int((~np.isin(id_numbers, token_numbers + shift)).sum()) for shift in (1, -1)}
    shift = min(left, key=left.__getitem__)
    return shift if left[shift] <= n_uncovered // 2 else None


def _n_common(ids: Iterable[str], tokens: Iterable[str]) -> int:
    """Number of ids that are among the tokens."""
    among = set(tokens)
    return sum(each in among for each in ids)


def _integers(tokens: np.ndarray) -> np.ndarray | None:
    """Read all tokens as int64 ``[n]``; None where one is no integer."""
    try:
        return tokens.astype(np.int64)
    except (ValueError, OverflowError):
        return None


def _are_row_numbers(numbers: np.ndarray) -> bool:
    """Return whether the numbers are 0..n-1 or 1..n in any order."""
    start = int(numbers.min())
    return (
        len(numbers) > 1
        and start in (0, 1)
        and np.array_equal(np.sort(numbers), np.arange(start, start + len(numbers)))
    )


def _article(noun: str) -> str:
    """Put the indefinite article before one of our nouns (user, item, id)."""
    return f"an {noun}" if noun in ("item", "id") else f"a {noun}"
