"""Ablations: the same comparison where something is taken from the models, a level of it after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.experiment.compare import STAMP, Comparison, compare
from recbole_rlmrec.experiment.folder import write_json
from recbole_rlmrec.experiment.table import LEVEL, Row, markdown, mean_std
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.model.registry import get_model

_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Sweep:
    """An ablation.

    Attributes:
        meaning: what is done, for the heading.
        levels: name of each level -> its settings; the comparison without any of them comes before.
        of_texts: whether it concerns texts alone, which bases do not read: these are not trained again.
    """

    meaning: str
    levels: Mapping[str, Mapping[str, Any]]
    of_texts: bool = True


def _withheld(side: str) -> dict[str, dict[str, Any]]:
    return {f"{share:.0%}": {"withheld_share": share, "withheld_side": side} for share in _SHARES}


#: Ablations by the names that ``--ablate`` takes.
SWEEPS: Mapping[str, Sweep] = {
    "noise": Sweep(
        "pairs that nobody has added to the training interactions, the same for every model",
        {f"{share:.0%}": {"noise_share": share} for share in (0.05, 0.1, 0.15, 0.2, 0.25)},
        of_texts=False,
    ),
    "withheld": Sweep("profiles of users and items withheld", _withheld("both")),
    "withheld-users": Sweep("profiles of users withheld", _withheld("users")),
    "withheld-items": Sweep("profiles of items withheld", _withheld("items")),
    "shuffled": Sweep(
        "each node has the profile of another one of its side", {"shuffled": {"shuffled_profiles": True}}
    ),
    "weight": Sweep(
        "fixed weights of the alignment term",
        {
            f"{weight:g}": {"alignment_weight": weight, "reconstruction_weight": weight}
            for weight in (0.001, 0.01, 0.1, 1.0)
        },
    ),
    "temperature": Sweep(
        "temperatures of the alignment term",
        {
            f"{value:g}": {"alignment_temperature": value, "reconstruction_temperature": value}
            for value in (0.1, 0.2, 0.5, 1.0)
        },
    ),
}


def ablate(
    names: Sequence[str],
    main: Comparison,
    models: Sequence[str],
    dataset: str,
    seeds: Sequence[int],
    *,
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    report: Callable[[str], None],
    **options: Any,
) -> tuple[Path, int]:
    """Repeat a comparison at each level of some ablations, and write ``ablations.md`` beside its table.

    Each level has a folder of its own, ``ablations/<name>/<level>``, and goes on as a comparison does.

    Args:
        names: of ``SWEEPS``.
        main: the comparison without any of them, the first level of each.
        models: class names.
        dataset: its name.
        seeds: of the trainings.
        settings: for every training; those of a level stand over them.
        quick: the last level of each only.
        report: is called with what is said on the way.
        options: of :func:`~recbole_rlmrec.experiment.compare.compare`.

    Returns:
        The file, and how many cells failed.

    Raises:
        SettingError: a name is unknown, or there is nothing to take texts from.
        RLMRecError: as :func:`~recbole_rlmrec.experiment.compare.compare`.
    """
    require_known(names, models)
    texts: list[str] = []
    records: dict[str, Any] = {}
    failed = 0
    for name in names:
        sweep = SWEEPS[name]
        chosen = list(sweep.levels.items())[-1:] if quick else list(sweep.levels.items())
        aligned = [model for model in models if _reads_texts(model)]
        found = {"none": list(main.rows)}
        for level, asked in chosen:
            report(f"{name} {level}")
            comparison = compare(
                aligned if sweep.of_texts else models,
                dataset,
                seeds,
                main.folder / "ablations" / name / level,
                settings=settings,
                where_read=asked,  # models name the weight and the temperature of their term differently
                quick=quick,
                report=report,
                added=sorted(_results_of(main, set(models) - set(aligned), seeds)) if sweep.of_texts else (),
                checkpoints=main.folder / "saved",
                **options,
            )
            failed += comparison.failed
            found[level] = comparison.rows
        texts += [f"## {name}: {sweep.meaning}", _table(models, found)]
        levels = {level: [asdict(row) for row in rows] for level, rows in found.items()}
        records[name] = {"meaning": sweep.meaning, "levels": levels}
    note = (
        f"Test results, mean ± standard deviation over the seeds; gain over the base at the same level. `*`: differs "
        f"from its base (p < {LEVEL:g}) by the test of the comparison's table, Holm-corrected within the level."
    )
    stamp = [f"**{STAMP}**"] if quick else []
    path = main.folder / "ablations.md"
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join([f"# {dataset}: ablations", *stamp, note, *texts]) + "\n", encoding="utf-8")
    write_json(main.folder / "ablations.json", records)
    return path, failed


def require_known(names: Sequence[str], models: Sequence[str]) -> None:
    """Check the names of ablations, before anything is trained.

    Raises:
        SettingError: one is unknown, or takes from texts where no model reads any.
    """
    unknown = [name for name in names if name not in SWEEPS]
    if unknown:
        raise SettingError(f"There is no ablation {unknown[0]!r}: choose among {', '.join(SWEEPS)}.")
    of_texts = [name for name in names if SWEEPS[name].of_texts]
    if of_texts and not any(map(_reads_texts, models)):
        raise SettingError(
            f"The ablation '{of_texts[0]}' concerns texts, and no model of {', '.join(models)} reads any."
        )


def _reads_texts(model: str) -> bool:
    return flags_of(get_model(model)).reads_semantic_embeddings


def _results_of(main: Comparison, models: set[str], seeds: Sequence[int]) -> list[Path]:
    """Return the results of some models' cells in a comparison, those that came to their end."""
    paths = [main.folder / "cells" / f"{model}-{seed}.json" for model in models for seed in seeds]
    return [path for path in paths if path.is_file()]


def _table(models: Sequence[str], found: Mapping[str, Sequence[Row]]) -> str:
    """Return the tables of an ablation, one for each metric: a level a line, a model a column."""
    parts = []
    metrics = list(next(iter(found.values()))[0].values)
    for metric in metrics:
        lines = [[metric, *models]]
        for level, rows in found.items():
            by_model = {row.model: row for row in rows}
            lines.append([level, *(_cell(by_model.get(model), metric) for model in models)])
        parts.append(markdown(lines))
    return "\n\n".join(parts)


def _cell(row: Row | None, metric: str) -> str:
    if row is None or not row.values.get(metric):
        return "failed" if row is not None and row.failed else ""
    tested = row.tests.get(metric)
    gain = f" ({tested.gain:+.1%}{tested.star})" if tested else ""
    return mean_std(row.values[metric]) + gain
