"""The table of a comparison, and what is said below it, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recbole_rlmrec.experiment.efficiency import mean_efficiency
from recbole_rlmrec.experiment.groups import recall_by_group, shape_of
from recbole_rlmrec.experiment.lists import BY_USER, RankedLists
from recbole_rlmrec.experiment.significance import LEVEL, Difference, crossed_test, holm, seeds_test, users_test
from recbole_rlmrec.wording import count

#: What a star stands for.
STAR = (
    f"`*`: differs from its base (p < {LEVEL:g}) by a test that takes users and seeds as drawn by chance (two-way "
    "random effects, Satterthwaite's degrees of freedom), Holm-corrected over the table's tests of the metric."
)
ONE_SEED = "One seed: users alone can be tested, not seeds, so there are no stars; the last columns are of that test."


@dataclass(frozen=True)
class Finished:
    """A cell that is done.

    Attributes:
        model: class name.
        seed: of its training.
        result: as ``--result_file`` writes it.
        lists: of its test users; None for a result made elsewhere whose checkpoint is gone.
    """

    model: str
    seed: int
    result: Mapping[str, Any]
    lists: RankedLists | None


@dataclass(frozen=True)
class Tested:
    """What the tests of one metric say of a model beside its base.

    Attributes:
        seeds: those that both have.
        gain: of the means, relative to the base's.
        users: the paired test over users.
        over_seeds: that over seeds; None for one seed.
        crossed: that over both, of which the star is; None for one seed.
        corrected: its p-value after Holm's correction; None likewise.
    """

    seeds: tuple[int, ...]
    gain: float
    users: Difference
    over_seeds: Difference | None
    crossed: Difference | None
    corrected: float | None = None

    @property
    def star(self) -> str:
        """``*`` where the difference is significant."""
        return "*" if self.corrected is not None and self.corrected < LEVEL else ""


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        model: class name.
        base: what it is compared with; None for a base.
        values: metric -> its test values by seed.
        tests: metric -> what the tests say; empty where there is nothing to test.
        kept_base: in how many seeds the base was kept, because it validates at least as well.
        best_epochs: by seed.
        seconds: of training, by seed.
        efficiency: what a training took, see :func:`~recbole_rlmrec.experiment.efficiency.mean_efficiency`.
        failed: seed -> why it has no result.
    """

    model: str
    base: str | None
    values: Mapping[str, list[float]]
    tests: Mapping[str, Tested]
    kept_base: int
    best_epochs: list[int]
    seconds: list[float]
    efficiency: Mapping[str, float]
    failed: Mapping[int, str]


def rows_of(
    models: Sequence[str],
    base_of: Callable[[str], str | None],
    cells: Sequence[Finished],
    failed: Mapping[tuple[str, int], str],
) -> list[Row]:
    """Return the rows of a table, in the order of the models, with their tests.

    Args:
        models: class names.
        base_of: what a model is compared with, if it is in the table.
        cells: those that are done.
        failed: (model, seed) -> reason.
    """
    by_model = {model: {cell.seed: cell for cell in cells if cell.model == model} for model in models}
    metrics = _metrics(cells)
    tests: dict[tuple[str, str], Tested] = {}
    for model in models:
        base = base_of(model)
        if base not in by_model:
            continue
        for metric in metrics:
            tested = _tested(by_model[model], by_model[base], metric)
            if tested is not None:
                tests[model, metric] = tested
    rows = []
    for model in models:
        own = [cell.result for _, cell in sorted(by_model[model].items())]
        base = base_of(model)
        rows.append(
            Row(
                model,
                base if base in by_model else None,
                {metric: [result["test_result"][metric] for result in own] for metric in metrics},
                {metric: tests[model, metric] for metric in metrics if (model, metric) in tests},
                sum(result.get("kept") == "base" for result in own),
                [result["best_epoch"] for result in own],
                [result["seconds"] for result in own],
                mean_efficiency(own),
                {seed: reason for (name, seed), reason in failed.items() if name == model},
            )
        )
    return _corrected(rows)


def _metrics(cells: Sequence[Finished]) -> list[str]:
    """Return the metrics of the table: those tested by user, at the largest rank that all cells have."""
    common = set.intersection(*(set(cell.result["test_result"]) for cell in cells)) if cells else set()
    found = []
    for name in BY_USER:
        ranks = [int(metric.partition("@")[2]) for metric in common if metric.partition("@")[0] == name]
        if ranks:
            found.append(f"{name}@{max(ranks)}")
    return found


def _tested(own: Mapping[int, Finished], base: Mapping[int, Finished], metric: str) -> Tested | None:
    """Compare a model with its base by the seeds that both have; None where there is none."""
    pairs = [(own[seed], base[seed]) for seed in sorted(own.keys() & base.keys())]
    by_user = BY_USER[metric.partition("@")[0]]
    known = [(one, other) for one, other in pairs if one.lists is not None and other.lists is not None]
    if not known:
        return None
    tables = [[by_user(lists) for lists in (one.lists, other.lists) if lists is not None] for one, other in known]
    differences = np.array([one - other for one, other in tables])
    if differences.shape[1] < 2:
        return None
    several = len(differences) > 1
    return Tested(
        tuple(one.seed for one, _ in known),
        float(differences.mean() / np.mean([other for _, other in tables])) if np.any([o for _, o in tables]) else 0.0,
        users_test(differences),
        seeds_test(differences) if several else None,
        crossed_test(differences) if several else None,
    )


def _corrected(rows: list[Row]) -> list[Row]:
    """Return the rows with Holm's correction over the tests of each metric."""
    for metric in {metric for row in rows for metric in row.tests}:
        at = [number for number, row in enumerate(rows) if metric in row.tests and row.tests[metric].crossed]
        p_values = [rows[number].tests[metric].crossed.p_value for number in at]  # type: ignore[union-attr]
        for number, corrected in zip(at, holm(p_values)):
            tests = dict(rows[number].tests)
            tests[metric] = replace(tests[metric], corrected=corrected)
            rows[number] = replace(rows[number], tests=tests)
    return rows


def mean_std(values: Sequence[float]) -> str:
    """Return what a table says of some values; empty without any.

    >>> mean_std([0.1, 0.2]), mean_std([0.25])
    ('0.1500 ± 0.0707', '0.2500')
    """
    if len(values) < 2:
        return "".join(f"{value:.4f}" for value in values)
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def cells_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table as text, its header first."""
    metrics = list(rows[0].values) if rows else []
    several = any(test.crossed for row in rows for test in row.tests.values())
    header = ["model", "seeds", "base kept"]
    for metric in metrics:
        header += [_title(metric), "gain", *(["p", "p, users", "p, seeds"] if several else ["p, users"])]
    lines = [[*header, "best epoch", "seconds"]]
    for row in rows:
        line = _first_cells(row)
        for metric in metrics:
            line += [mean_std(row.values[metric]), *_test_cells(row.tests.get(metric), several=several)]
        epochs = "/".join(map(str, row.best_epochs))
        seconds = f"{statistics.mean(row.seconds):.0f}" if row.seconds else ""
        lines.append([*line, epochs, seconds])
    return lines


def short_cells_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return the part of the table that a terminal shows: means with standard deviations, gains and stars."""
    metrics = list(rows[0].values) if rows else []
    lines = [["model", "seeds", "base kept", *map(_title, metrics)]]
    for row in rows:
        tests = [row.tests.get(metric) for metric in metrics]
        gains = [f" ({tested.gain:+.1%}{tested.star})" if tested else "" for tested in tests]
        lines.append(
            [*_first_cells(row), *(mean_std(row.values[metric]) + gain for metric, gain in zip(metrics, gains))]
        )
    return lines


def _first_cells(row: Row) -> list[str]:
    n_seeds = len(row.seconds)
    failed = f" ({count(len(row.failed), 'seed')} failed)" if row.failed else ""
    return [row.model, f"{n_seeds}{failed}", f"{row.kept_base} of {n_seeds}" if row.base and n_seeds else ""]


def _title(metric: str) -> str:
    return {"recall": "Recall", "ndcg": "NDCG"}[metric.partition("@")[0]] + "@" + metric.partition("@")[2]


def _test_cells(tested: Tested | None, *, several: bool) -> list[str]:
    if tested is None:
        return [""] * (4 if several else 2)
    users = f"{tested.users.p_value:.2g}"
    if not several:
        return [f"{tested.gain:+.1%}", users]
    corrected = "" if tested.corrected is None else f"{tested.corrected:.2g}"
    over_seeds = "" if tested.over_seeds is None else f"{tested.over_seeds.p_value:.2g}"
    return [f"{tested.gain:+.1%}{tested.star}", corrected, users, over_seeds]


def groups_table(rows: Sequence[Row], cells: Sequence[Finished]) -> list[list[str]]:
    """Return the recall of groups of users and of items, each model beside its base, its header first; empty if none.

    The p-value is that of the star's test over the users of the group, not corrected; with one seed, of the users'.

    Args:
        rows: of the table.
        cells: those that are done.
    """
    lists = {(cell.model, cell.seed): cell.lists for cell in cells if cell.lists is not None}
    lines = []
    for row in rows:
        if row.base is None or not row.tests:
            continue
        seeds = next(iter(row.tests.values())).seeds
        pairs = [[recall_by_group(lists[model, seed]) for model in (row.base, row.model)] for seed in seeds]
        for number, group in enumerate(pairs[0][0]):
            base, own = (np.array([pair[at][number].recall[group.has_any] for pair in pairs]) for at in (0, 1))
            lines.append([row.model, group.name, f"{base.shape[1]:,}", *_group_cells(base, own)])
    return [["model", "group", "users", "base", "model", "gain", "p"], *lines] if lines else []


def _group_cells(base: np.ndarray, own: np.ndarray) -> list[str]:
    """Return the last columns of a group; arguments ``[seeds, users]``."""
    n_users = base.shape[1]
    if not n_users:
        return ["no user", "", "", ""]
    gain = f"{own.mean() / base.mean() - 1:+.1%}" if base.mean() else ""
    test = crossed_test if len(base) > 1 else users_test
    p_value = f"{test(own - base).p_value:.2g}" if n_users > 1 else ""
    return [f"{base.mean():.4f}", f"{own.mean():.4f}", gain, p_value]


def lists_table(
    rows: Sequence[Row], cells: Sequence[Finished], divergences: Mapping[tuple[str, int], float] | None = None
) -> list[list[str]]:
    """Return what the lists of each model look like, as a mean over its seeds, its header first; empty if none.

    Args:
        rows: of the table.
        cells: those that are done.
        divergences: of the lists' genres by model and seed; None where no genres are known.
    """
    lines = []
    for row in rows:
        own = [cell for cell in cells if cell.model == row.model and cell.lists is not None]
        shapes = [shape_of(cell.lists) for cell in own if cell.lists is not None]
        if shapes:
            mean = {name: statistics.mean(shape[name] for shape in shapes) for name in shapes[0]}
            shares = [f"{mean['popular']:.1%}", f"{mean['coverage']:.1%}"]
            line = [row.model, *shares, f"{mean['novelty']:.2f}", f"{mean['gini']:.3f}"]
            if divergences:
                known = [divergences[cell.model, cell.seed] for cell in own if (cell.model, cell.seed) in divergences]
                line.append(f"{statistics.mean(known):.3f}" if known else "")
            lines.append(line)
    header = ["model", "as popularity", "coverage", "novelty (bits)", "Gini"]
    if divergences:
        header.append("genres (nats)")
    return [header, *lines] if lines else []


def notes_of(rows: Sequence[Row]) -> list[str]:
    """Return what has to be said below a table, a sentence or two each."""
    notes = []
    tests = [test for row in rows for test in row.tests.values()]
    if any(test.crossed for test in tests):
        notes.append(STAR)
        notes.append(
            "p is that p-value; 'p, users' is a paired t-test over users with each user's mean over the seeds, which "
            "takes the trainings for granted; 'p, seeds' a paired t-test over seeds. Neither is corrected."
        )
    elif tests:
        notes.append(ONE_SEED)
    for row in rows:
        if row.base and row.seconds and row.kept_base == len(row.seconds):
            notes.append(f"{row.model}: the base was kept with every seed, so the row is that of {row.base}.")
        notes += failures_of(row)
    return notes


def failures_of(row: Row) -> list[str]:
    """Return why seeds of a model have no result, a sentence each."""
    return [f"{row.model}, seed {seed}: failed: {reason}" for seed, reason in row.failed.items()]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown.

    >>> print(markdown([["model", "x"], ["BPR", "1"]]))
    | model | x |
    |---|---|
    | BPR | 1 |
    """
    rule = "|" + "---|" * len(lines[0])
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([body[0], rule, *body[1:]])


def csv_text(lines: Sequence[Sequence[str]]) -> str:
    """Return the table as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def latex(lines: Sequence[Sequence[str]]) -> str:
    r"""Return the table as a LaTeX ``tabular`` with the rules of ``booktabs``.

    >>> print(latex([["model", "x"], ["A_B", "1 ± 2"]]))
    \begin{tabular}{lr}
    \toprule
    model & x \\
    \midrule
    A\_B & 1 $\pm$ 2 \\
    \bottomrule
    \end{tabular}
    """
    body = [" & ".join(_escaped(cell) for cell in line) + r" \\" for line in lines]
    columns = "l" + "r" * (len(lines[0]) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _escaped(text: str) -> str:
    for mark in "_%&#$":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("±", r"$\pm$")
