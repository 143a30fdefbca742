"""Lines of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_rlmrec.wording import N_EXAMPLES


def share(part: int, whole: int) -> str:
    """Return a part of a whole, also in percent.

    >>> share(1, 3000)
    '1 of 3,000 (0.0 %)'
    """
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"


def found_line(label: str, found: Sequence[Any]) -> list[str]:
    """Return the line that counts what was found and gives examples, or no line.

    >>> found_line("without a vector", ["12", "77"])
    ['without a vector: 2, such as 12, 77']
    """
    if not found:
        return []
    shown = ", ".join(str(example) for example in found[:N_EXAMPLES])
    return [f"{label}: {len(found):,}, such as {shown}"]
