"""A source: dumps whose reviews are lines such as {"who": "u1", "what": "i1", "stars": 4, "said": "Good."}."""

from collections.abc import Mapping
from typing import Any

from recbole_rlmrec.sources.raw_dump import Interaction, Source
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.json_lines import optional_number, require_text


def interaction(line: Mapping[str, Any]) -> Interaction:
    return require_text(line, "who"), require_text(line, "what"), optional_number(line, "stars"), None


def item(line: Mapping[str, Any]) -> Item:
    return Item(require_text(line, "what"), title=str(line.get("name", "")))


RATINGS = Source(
    name="ratings",
    review_files=r"ratings\.jsonl(\.gz)?",
    item_files=r"things\.jsonl(\.gz)?",
    usual="ratings.jsonl and things.jsonl, gzipped or not",
    min_rating=3.0,
    interaction=interaction,
    text=lambda line: str(line.get("said", "")),
    item=item,
)
