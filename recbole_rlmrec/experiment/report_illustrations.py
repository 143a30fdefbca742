"""What alignment changes, as parts of a comparison's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from recbole_rlmrec.experiment import case_study, side_by_side, space_map
from recbole_rlmrec.experiment.charts import COLOURS, beside, chart, html_table
from recbole_rlmrec.wording import count

Illustration = Mapping[str, Any]

#: What is neither of the commonest genres nor known, and where no genres are known.
OTHER, ALL = "other or unknown", "all items"


def heading_of(illustration: Illustration) -> str:
    """Return what is illustrated."""
    seed = "" if illustration["seed"] is None else f", seed {illustration['seed']}"
    return f"{illustration['model']} beside {illustration['base']}{seed}"


def _parts(
    illustrations: Sequence[Illustration], name: str, said: str
) -> Iterator[tuple[str, Illustration | None, Illustration]]:
    """Yield the beginning of each part, the illustration and the part; None where it is missing, which is said then."""
    for number, illustration in enumerate(illustrations):
        begin = f"<p class='note'>{escape(said)}</p>" if number == 0 else ""
        begin += f"<h3>{escape(heading_of(illustration))}</h3>"
        missing = illustration[name].get("missing")
        if missing is not None:
            begin += f"<p class='note'>Not there: {escape(missing)}</p>"
        yield begin, illustration if missing is None else None, illustration[name]


# ---------------------------------------------------------------------- maps


def agreement_of(illustration: Illustration) -> str:
    """Return how far the models' neighbours are the texts'."""
    found = illustration["map"]["agreement"]
    return (
        f"Agreement with the texts: {illustration['base']} {found['base']:.1%}, {illustration['model']} "
        f"{found['aligned']:.1%}; by chance {found['chance']:.1%}."
    )


def maps(illustrations: Sequence[Illustration]) -> Iterator[str]:
    """Yield the maps of items by their texts, by the base and by the aligned model."""
    for begin, illustration, part in _parts(illustrations, "map", space_map.SAID):
        if illustration is None:
            yield begin
            continue
        labels, colours = _labels(part["genres"], len(part["items"]))
        titles = {
            "text": "By their texts",
            "base": f"By {illustration['base']}",
            "aligned": f"By {illustration['model']}",
        }
        charts = [
            chart(_points(part, name, labels, colours), title, *space_map.AXES, with_legend=False)
            for name, title in titles.items()
        ]
        legend = "".join(
            f"<li><span style='background:{colour}'></span>{escape(label)}</li>" for label, colour in colours.items()
        )
        yield (f"{begin}<p>{escape(agreement_of(illustration))}</p><ul class='legend'>{legend}</ul>{beside(charts)}")


def _labels(genres: Sequence[str | None] | None, n_items: int) -> tuple[list[str], dict[str, str]]:
    """Return the label of each item, and label -> colour: the commonest genres, then all else."""
    if genres is None:
        return [ALL] * n_items, {ALL: COLOURS[0]}
    times = Counter(genre for genre in genres if genre is not None)
    common = [genre for genre, _ in times.most_common(len(COLOURS) - 1)]
    labels = [genre if genre is not None and genre in common else OTHER for genre in genres]
    colours = dict(zip([*common, OTHER], [*COLOURS[: len(common)], COLOURS[-1]]))
    return labels, {label: colour for label, colour in colours.items() if label in labels}


def _points(part: Illustration, name: str, labels: Sequence[str], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the items of one map, a trace a label."""
    traces = []
    for label, colour in colours.items():
        rows = [row for row, own in enumerate(labels) if own == label]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [part["places"][name][row][0] for row in rows],
                "y": [part["places"][name][row][1] for row in rows],
                "text": [escape(part["titles"][row]) for row in rows],
                "name": label,
                "marker": {"color": colour, "size": 5, "opacity": 0.75},
                "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
            }
        )
    return traces


# ---------------------------------------------------------------------- users who come together


def pair_table(illustration: Illustration, pair: Illustration) -> list[list[str]]:
    """Return similarity and rank of a pair of users with both models, its header first."""
    names = {"base": illustration["base"], "aligned": illustration["model"]}
    return [
        ["model", "cosine", f"rank among {pair['of']:,} users"],
        *([model, f"{pair['similarity'][name]:.3f}", f"{pair['rank'][name]:,}"] for name, model in names.items()),
    ]


def pair_title(pair: Illustration) -> str:
    """Return who the two are and how far from each other."""
    far = "without any way between them" if pair["hops"] is None else f"{pair['hops']} hops apart"
    texts = pair["text similarity"]
    near = "" if texts is None else f"; cosine of their profiles' embeddings {texts:.3f}"
    return f"Users {pair['users'][0]} and {pair['users'][1]}, {far}{near}"


def items_of(titles: Sequence[str], n_items: int) -> str:
    """Return some titles in a line, and how many more there are."""
    more = n_items - len(titles)
    return "; ".join(titles) + (f"; and {count(more, 'other')}" if more else "")


def case_studies(illustrations: Sequence[Illustration]) -> Iterator[str]:
    """Yield the pairs of users whom alignment brings together."""
    for begin, illustration, part in _parts(illustrations, "case_study", case_study.RULE):
        yield begin
        if illustration is None:
            continue
        if not part["pairs"]:
            yield "<p class='note'>No pair gains a rank.</p>"
        for pair in part["pairs"]:
            users = "".join(
                f"<div><h5>User {escape(user)}</h5><p>{escape(profile or 'No profile is there.')}</p>"
                f"<p class='note'>{count(n_items, 'training item')}: {escape(items_of(titles, n_items))}</p></div>"
                for user, profile, titles, n_items in zip(
                    pair["users"], pair["profiles"], pair["items"], pair["n_items"]
                )
            )
            table = html_table(pair_table(illustration, pair))
            yield f"<article><h4>{escape(pair_title(pair))}</h4>{table}<div class='two'>{users}</div></article>"


# ---------------------------------------------------------------------- lists side by side


def user_title(user: Illustration, k: int) -> str:
    """Return whose lists these are, and what they are worth."""
    ndcg = user["ndcg"]
    return f"User {user['user']}, who {user['why']}: NDCG@{k} {ndcg['base']:.3f} and {ndcg['aligned']:.3f}"


def lists_side_by_side(illustrations: Sequence[Illustration]) -> Iterator[str]:
    """Yield the lists of some users by the base and by the aligned model, hits marked."""
    said = f"{side_by_side.RULE} A tick marks what the user chose in the test."
    for begin, illustration, part in _parts(illustrations, "side_by_side", said):
        yield begin
        if illustration is None:
            continue
        for user in part["users"]:
            columns = "".join(
                f"<div><h5>{escape(model)}</h5><ol>{_entries(user['lists'][name])}</ol></div>"
                for name, model in (("base", illustration["base"]), ("aligned", illustration["model"]))
            )
            had = f"{count(user['n_items'], 'training item')}: {items_of(user['items'], user['n_items'])}"
            yield (
                f"<article><h4>{escape(user_title(user, part['k']))}</h4><p class='note'>{escape(had)}</p>"
                f"<div class='two'>{columns}</div></article>"
            )


def _entries(items: Sequence[Illustration]) -> str:
    return "".join(
        f"<li class='hit'>{escape(item['title'])} ✓</li>" if item["hit"] else f"<li>{escape(item['title'])}</li>"
        for item in items
    )
