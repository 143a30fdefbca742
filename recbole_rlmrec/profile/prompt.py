"""What a language model is asked about an item or a user."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from recbole_rlmrec.data.semantic_embedding import Side


@dataclass(frozen=True)
class Prompt:
    """One request for a profile.

    Attributes:
        side: whose profile, a user's or an item's.
        token: the original id.
        system: the instruction.
        text: what is known; the user message.
        told: other ends of the interactions that the text tells of: items for a user, the reviews' users for an item.
    """

    side: Side
    token: str
    system: str
    text: str
    told: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, of the instruction and the text."""
        content = {"system": self.system, "text": self.text}
        canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
