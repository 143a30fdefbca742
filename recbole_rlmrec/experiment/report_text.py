"""A comparison as one Markdown file: its tables, ablations, what alignment changes, and how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_rlmrec.experiment import case_study, side_by_side, space_map
from recbole_rlmrec.experiment.folder import read_comparison
from recbole_rlmrec.experiment.illustrations import illustrations_of
from recbole_rlmrec.experiment.report_illustrations import (
    Illustration,
    agreement_of,
    heading_of,
    items_of,
    pair_table,
    pair_title,
    user_title,
)
from recbole_rlmrec.experiment.table import markdown
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.profile.prompt import one_line
from recbole_rlmrec.wording import count


def made_of(found: Mapping[str, Any]) -> dict[str, str]:
    """Return how a comparison was made: settings, versions and hashes by name."""
    conditions = found["conditions"]
    known = {
        "command": found.get("command", ""),
        "dataset": conditions["dataset"],
        "seeds": ", ".join(map(str, found["seeds"])),
        "settings": ", ".join(f"{name}={value}" for name, value in conditions["settings"].items()) or "the defaults",
        "settings files": ", ".join(conditions["config_files"]),
        "trials of each search": str(conditions["tune"] or ""),
        "versions": ", ".join(f"{name} {version}" for name, version in conditions["versions"].items()),
        **{f"hash of {name}": value for name, value in (conditions["data"] or {}).items()},
    }
    return {name: value for name, value in known.items() if value}


def write_text_report(folder: str | Path) -> Path:
    """Write ``report.md`` in the folder of a comparison: ``table.md`` and all else that can be said without charts.

    Args:
        folder: of the comparison.

    Returns:
        The file's path.

    Raises:
        DataError: the folder holds no comparison, or a damaged file.
    """
    folder = Path(folder)
    found, illustrations = read_comparison(folder), illustrations_of(folder)
    parts = [(folder / "table.md").read_text(encoding="utf-8").rstrip()]
    if (folder / "ablations.md").is_file():
        # A heading of its own becomes one of this file's.
        parts.append(re.sub(r"^#", "##", (folder / "ablations.md").read_text(encoding="utf-8").rstrip(), flags=re.M))
    for heading, said, name, write in (
        ("Maps of the items", space_map.SAID, "map", _map),
        ("Case study: users whom alignment brings together", case_study.RULE, "case_study", _pairs),
        ("Lists side by side", f"{side_by_side.RULE} Hits are bold.", "side_by_side", _lists),
    ):
        if illustrations:
            parts += [f"## {heading}", said]
        for illustration in illustrations:
            missing = illustration[name].get("missing")
            parts += [
                f"### {heading_of(illustration)}",
                *(write(illustration) if missing is None else [f"Not there: {missing}"]),
            ]
    parts += ["## How it was made", *(f"- {name}: {_plain(value)}" for name, value in made_of(found).items())]
    path = folder / "report.md"
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _plain(text: str) -> str:
    r"""Return a text on one line in which nothing is a mark of Markdown.

    >>> print(_plain("*Alien*, <b>1979</b>"))
    \*Alien\*, \<b\>1979\</b\>
    """
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", one_line(text))


def _map(illustration: Illustration) -> Iterator[str]:
    yield agreement_of(illustration)


def _pairs(illustration: Illustration) -> Iterator[str]:
    for pair in illustration["case_study"]["pairs"]:
        yield f"#### {_plain(pair_title(pair))}"
        yield markdown(pair_table(illustration, pair))
        for user, profile, titles, n_items in zip(pair["users"], pair["profiles"], pair["items"], pair["n_items"]):
            said = f" {_plain(profile)}" if profile else ""
            yield f"User {_plain(user)}:{said} {_had(titles, n_items)}"
    if not illustration["case_study"]["pairs"]:
        yield "No pair gains a rank."


def _had(titles: Sequence[str], n_items: int) -> str:
    return f"{count(n_items, 'training item')}: {_plain(items_of(titles, n_items))}."


def _lists(illustration: Illustration) -> Iterator[str]:
    part = illustration["side_by_side"]
    for user in part["users"]:
        yield f"#### {_plain(user_title(user, part['k']))}"
        yield _had(user["items"], user["n_items"])
        columns = [
            [f"**{_plain(item['title'])}**" if item["hit"] else _plain(item["title"]) for item in user["lists"][name]]
            for name in ("base", "aligned")
        ]
        rows = [[str(rank), *pair] for rank, pair in enumerate(zip(*columns), start=1)]
        yield markdown([["rank", illustration["base"], illustration["model"]], *rows])
