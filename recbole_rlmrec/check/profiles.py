"""What there is of the profiles of a side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from recbole_rlmrec.check.lines import found_line, share
from recbole_rlmrec.profile.record import (
    Profile,
    note_of_older,
    read_failures,
)
from recbole_rlmrec.sides import Side
from recbole_rlmrec.wording import N_EXAMPLES


@dataclass(frozen=True)
class ProfileReport:
    """What there is of one side's profiles.

    Attributes:
        side: "user" or "item".
        path: the file; None where there is none, and then nothing but the failures is known.
        ids: users or items of the dataset.
        holes: tokens of the dataset without a profile, or with an empty one, in order.
        strangers: tokens with a profile that the dataset does not have.
        failures: token -> why its profile could not be written.
        writers: writer -> number of profiles.
        words: number of words of each profile that is not empty.
        empty: tokens whose profile is empty.
        identical: number of profiles whose text another one has too.
        older: number of profiles by an older prompt or template than there is now.
    """

    side: Side
    path: Path | None
    ids: int
    holes: tuple[str, ...]
    strangers: tuple[str, ...]
    failures: Mapping[str, str]
    writers: Mapping[str, int]
    words: tuple[int, ...]
    empty: tuple[str, ...]
    identical: int
    older: int = 0

    def __str__(self) -> str:
        if self.path is None:
            return "\n".join([f"{self.side} profiles: none", *self._failures()])
        lines = [
            f"{self.side} profiles: {self.path}",
            f"  coverage: {share(self.ids - len(self.holes), self.ids)}",
            *found_line("  without a profile", self.holes),
            *self._failures(),
            *found_line("  empty profiles", self.empty),
            *found_line("  profiles of ids that the dataset does not have", self.strangers),
            f"  writers: {', '.join(f'{name} ({count:,})' for name, count in sorted(self.writers.items()))}",
            *(f"  {note}" for note in note_of_older(self.older)),
        ]
        if self.words:
            middle = f"{median(self.words):g}"
            lines.append(f"  length in words: {min(self.words)} to {max(self.words)}, median {middle}")
        if self.identical:
            lines.append(f"  identical texts: {self.identical:,} profiles have the text of another")
        return "\n".join(lines)

    def _failures(self) -> list[str]:
        """Say how many could not be written and why, the most frequent reasons first."""
        if not self.failures:
            return []
        reasons = Counter(self.failures.values()).most_common(N_EXAMPLES)
        lines = [f"  failed: {len(self.failures):,}; the next run of build-semantics tries them again"]
        return lines + [f"    {count:,}: {reason}" for reason, count in reasons]


def check_profiles(
    side: Side, path: Path | None, profiles: Mapping[str, Profile], failed: Path | None, tokens: Sequence[str]
) -> ProfileReport:
    """Report on the profiles of one side.

    Args:
        side: "user" or "item".
        path: the file of the profiles; None where there is none.
        profiles: token -> profile.
        failed: the file of those that could not be written; None where there is none.
        tokens: the users or items of the dataset.
    """
    texts = {token: profile.profile.strip() for token, profile in profiles.items()}
    filled = [text for text in texts.values() if text]
    known = set(tokens)
    failures = read_failures(failed) if failed is not None else {}
    return ProfileReport(
        side=side,
        path=path,
        ids=len(tokens),
        holes=tuple(token for token in tokens if not texts.get(token)),
        strangers=tuple(sorted(token for token in texts if token not in known)),
        failures={token: failure.error for token, failure in failures.items()},
        writers=Counter(profile.writer for profile in profiles.values()),
        words=tuple(len(text.split()) for text in filled),
        empty=tuple(sorted(token for token, text in texts.items() if not text)),
        identical=sum(count for count in Counter(filled).values() if count > 1),
        older=sum(profile.is_older for profile in profiles.values()),
    )
