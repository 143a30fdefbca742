"""What an encoding did, as text for the console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import examples


@dataclass(frozen=True)
class EncodeSummary:
    """What was encoded; ``str()`` gives it as text for the console.

    Attributes:
        dataset: RecBole's dataset name.
        folder: folder of the files.
        encoder: the encoder's name.
        dimension: length of a vector.
        dtype: ``float16`` or ``float32``.
        normalized: whether each vector has length 1.
        rows: vectors of each side.
        empty: tokens of each side without a text; holes, without an embedding.
        zero: tokens of each side whose text has an all-zero vector; holes as well.
        resumed: texts that an earlier, stopped run had done.
        taken: texts whose vectors this run took over: from embeddings that were there, or from a stopped run of others.
        encoded: texts that this run encoded.
        seconds: how long these took.
        up_to_date: whether the files were there already, so that nothing was done.
        notes: what the encoder has to say of the texts; one sentence each.
    """

    dataset: str
    folder: Path
    encoder: str
    dimension: int
    dtype: str
    normalized: bool
    rows: Mapping[Side, int]
    empty: Mapping[Side, tuple[str, ...]]
    zero: Mapping[Side, tuple[str, ...]]
    resumed: int = 0
    taken: int = 0
    encoded: int = 0
    seconds: float = 0.0
    up_to_date: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = f"{self.dtype}, {'normalized' if self.normalized else 'not normalized'}"
        found = " and ".join(f"{self.rows[side]:,} {side}s" for side in SIDES)
        lines = [f"{self.dataset}: embeddings of {found}, dimension {self.dimension:,}, {kind}, by {self.encoder}"]
        for holes, why in ((self.empty, "an empty profile"), (self.zero, "a vector of zeros only")):
            lines += [
                f"holes: {len(holes[side]):,} {side}s with {why}, such as {examples(holes[side])}"
                for side in SIDES
                if holes[side]
            ]
        lines += self.notes
        if self.up_to_date:
            lines.append(f"up to date in {self.folder}; nothing was done")
        else:
            went_on = f"; {self.resumed:,} were done before" if self.resumed else ""
            went_on += f"; {self.taken:,} are unchanged and keep their vectors" if self.taken else ""
            lines.append(f"written in {self.folder}; {self.encoded:,} texts in {self.seconds:.1f} s{went_on}")
        return "\n".join(lines)
