"""Several models with several seeds on one dataset: every cell is run once, and all of them give a table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.provenance import command, versions
from recbole_rlmrec.errors import RLMRecError, SettingError, TrainingError
from recbole_rlmrec.experiment.cell import Cell
from recbole_rlmrec.experiment.efficiency import efficiency_of, efficiency_table
from recbole_rlmrec.experiment.folder import (
    Conditions,
    drop_damaged,
    finished_of,
    join_added,
    kept_conditions,
    locked,
    read_added,
    write_json,
)
from recbole_rlmrec.experiment.genres import genre_divergence
from recbole_rlmrec.experiment.groups import recall_by_group, shape_of
from recbole_rlmrec.experiment.known_data import KnownData
from recbole_rlmrec.experiment.running import run_all
from recbole_rlmrec.experiment.table import (
    Finished,
    Row,
    cells_of,
    csv_text,
    groups_table,
    latex,
    lists_table,
    markdown,
    notes_of,
    rows_of,
)
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.registry import base_name_of
from recbole_rlmrec.reading.regular import file_sha256

_logger = logging.getLogger(__name__)

#: What ``quick`` makes of a comparison, and what it writes on all that comes out.
QUICK = {"epochs": 3}
QUICK_SEEDS = 2
STAMP = f"quick ({QUICK['epochs']} epochs, at most {QUICK_SEEDS} seeds): not a result"

#: What the further tables show.
_SAID = {
    "Who gains": "Recall of the lists. Users are in groups of about equal size by their training interactions, and so "
    "are items: a group of items counts the test interactions with these only. p is that of the star's test within the "
    "group, not corrected; with one seed, of the paired t-test over users.",
    "Lists": "Share of the places that the popularity ranking fills with the same items; share of all items in any "
    "list; mean of -log2 of an item's share of the training interactions; Gini of how often each item is in a list. "
    "Genres, where known: the Kullback-Leibler divergence of a list's genres from those of what its user had in "
    "training, a mean over the users (Steck 2018, alpha .01); 0 where they are the same.",
    "Efficiency": "Wall-clock time on the machine of each training, validations included, a mean over the seeds; with "
    "--jobs several trainings share its cores. Memory is the most that the training's process has had.",
}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        rows: one for each model.
        folder: where the tables are.
        failed: how many cells failed.
    """

    rows: list[Row]
    folder: Path
    failed: int


def compare(
    models: Sequence[str],
    dataset: str,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    config_files: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    where_read: Mapping[str, Any] | None = None,
    jobs: int = 1,
    tune: int = 0,
    added: Sequence[str | Path] = (),
    quick: bool = False,
    checkpoints: Path | None = None,
    may_fail: bool = False,
    report: Callable[[str], None] = _logger.info,
) -> Comparison:
    """Train each model with each seed, and write the table of their tests.

    Every cell runs in a process of its own. Cells that are done are not run again, so a comparison that was stopped
    goes on. A model with a base in the comparison waits for the base's cell of the same seed and takes its training
    over. A cell that fails is reported, and tried again when the comparison is called again; the others go on.

    Args:
        models: class names.
        dataset: its name.
        seeds: of the trainings.
        folder: of everything that is written; it holds one comparison.
        config_files: YAML files with settings.
        settings: over the files, for the models that read them; what none reads is treated as in a training.
        where_read: over these, for the models that read them, if any.
        jobs: cells at a time, each with its share of the cores.
        tune: search each model's settings first, with so many trials; 0 for none.
        added: results made elsewhere on the same data, as ``--result_file`` writes them.
        quick: three epochs and at most two seeds, to see that all works.
        checkpoints: folder of the checkpoints, where bases that have been trained are found; in the folder, if not
            given.
        may_fail: return the table also where no cell came to its end.
        report: is called with what is said on the way.

    Returns:
        The table; it is written to the folder as ``table.md``, ``.csv`` and ``.tex``, and with all that belongs to it
        as ``comparison.json``.

    Raises:
        SettingError: a model or a setting is unknown, or a number cannot be used.
        DataError: the folder holds another comparison, another process works in it, or a result is of other data.
        TrainingError: no cell came to its end, and that is no ``may_fail``.
    """
    folder = Path(folder)
    if not models or len(set(models)) < len(models):
        raise SettingError(f"models={','.join(models)}: expected one or several, each named once.")
    for name, value, least in (("seeds", len(seeds), 1), ("jobs", jobs, 1), ("tune", tune, 0)):
        if value < least:
            raise SettingError(f"{name}={value}, expected {least} or more.")
    given = {**(settings or {}), **(QUICK if quick else {})}
    if quick:
        seeds = seeds[:QUICK_SEEDS]
    of_model = settings_by_model(models, dataset, config_files, given, where_read or {})
    for model in models:
        # A wrong setting is said before hours.
        _require_full_ranking(RLMRecConfig(model, dataset, list(config_files), command_line=of_model[model]))
    hashes = [file_sha256(file) for file in config_files]
    conditions = Conditions(
        dataset, list(config_files), {**given, **(where_read or {})}, quick, tune, versions(), hashes
    )
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    with locked(folder):
        conditions = kept_conditions(folder, conditions)
        for path in added:
            read_added(path, conditions)  # what is wrong with them is said before hours
        tuned = _tuned(folder, of_model, conditions, tune, jobs, report) if tune else {}
        cells = _planned(folder, of_model, seeds, conditions, tuned, checkpoints or folder / "saved")
        drop_damaged(folder, cells, report)
        failed = run_all(folder, cells, jobs, report)
        foreign = join_added(folder, added, conditions)  # now that it is known of which data the cells are
        finished = [finished_of(cell) for cell in cells if cell.path(".json").is_file()]
        finished += [each for each in foreign if (each.model, each.seed) not in {(f.model, f.seed) for f in finished}]
        if not finished and not may_fail:
            raise TrainingError(f"No cell came to its end. {next(iter(failed.values()), '')}")
        names = [*models, *dict.fromkeys(each.model for each in foreign if each.model not in models)]
        conditions = kept_conditions(folder, conditions)  # which know the hashes of the data now
        rows = rows_of(names, base_name_of, finished, failed)
        _write(folder, conditions, seeds, rows, finished, tuned, _divergences(cells[0], finished))
    return Comparison(rows, folder, len(failed))


def settings_by_model(
    models: Sequence[str],
    dataset: str,
    config_files: Sequence[str],
    settings: Mapping[str, Any],
    where_read: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Return the settings of each model, those that it reads; arguments as of :func:`compare`.

    What no model reads is given to all of them, which treat it as a training does: ours refuse it.

    Raises:
        SettingError: a model is unknown.
    """
    plain = {model: RLMRecConfig(model, dataset, list(config_files)) for model in models}
    read = {key for key in settings if any(config.reads(key) for config in plain.values())}
    return {
        model: {
            **{key: value for key, value in settings.items() if config.reads(key) or key not in read},
            **{key: value for key, value in where_read.items() if config.reads(key)},
        }
        for model, config in plain.items()
    }


def _require_full_ranking(config: Any) -> None:
    """Check that the test ranks all items, as lists of them do.

    Raises:
        SettingError: it ranks some, or none.
    """
    mode = config["eval_args"]["mode"]
    of_test = mode["test"] if isinstance(mode, Mapping) else mode
    if of_test != "full":
        raise SettingError(
            f"The test's mode is '{of_test}' (eval_args): models are compared by lists of all items. Expected 'full'."
        )


# ---------------------------------------------------------------------- cells


def _planned(
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    conditions: Conditions,
    tuned: Mapping[str, list[str]],
    checkpoints: Path,
) -> list[Cell]:
    """Return the cells, bases first: what takes a base's training over waits for it."""
    ordered = sorted(models, key=lambda model: base_name_of(model) in models)
    return [
        Cell(
            model,
            conditions.dataset,
            seed,
            [*conditions.config_files, *tuned.get(model, ())],
            {"show_progress": False, **models[model], "checkpoint_dir": str(checkpoints)},
            str(folder / "cells"),
        )
        for seed in seeds
        for model in ordered
    ]


# ---------------------------------------------------------------------- searches before


def _tuned(
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
    conditions: Conditions,
    trials: int,
    jobs: int,
    report: Callable[[str], None],
) -> dict[str, list[str]]:
    """Search each model's settings with the same number of trials; return model -> YAML files for its cells.

    A model with a base starts from the best of the base's search.
    """
    from recbole_rlmrec.tuning.search import tune

    found: dict[str, list[str]] = {}
    for model in sorted(models, key=lambda model: base_name_of(model) in models):
        start = found.get(base_name_of(model) or "", [])
        [outcome] = tune(
            model,
            conditions.dataset,
            config_file_list=[*conditions.config_files, *start],
            config_dict={**models[model], "show_progress": False, "base_first": False},
            max_evals=trials,
            output=folder / "searches",
            report=report,
        )
        found[model] = [*start, str(outcome.settings_file)]
    return found


# ---------------------------------------------------------------------- what is written


def _divergences(cell: Cell, finished: Sequence[Finished]) -> dict[tuple[str, int], float]:
    """Return the divergence of the lists' genres by model and seed; empty where no genres are known.

    Args:
        cell: any of the comparison, whose data are those of all.
        finished: those that are done.
    """
    settings = {**cell.settings, "seed": cell.seed}
    config = RLMRecConfig(cell.model, cell.dataset, cell.config_files, command_line=settings)
    if not finished:
        return {}
    known = KnownData(config, finished[0].result["data"])
    try:
        if known.genres is None:
            return {}
        lists = {(each.model, each.seed): each.lists for each in finished if each.lists is not None}
        found = {name: genre_divergence(each, known.training, known.genres) for name, each in lists.items()}
    except RLMRecError as error:
        _logger.warning(f"Genres are left out: {error}")
        return {}
    return {name: value for name, value in found.items() if value is not None}


def _write(
    folder: Path,
    conditions: Conditions,
    seeds: Sequence[int],
    rows: Sequence[Row],
    finished: Sequence[Finished],
    tuned: Mapping[str, list[str]],
    divergences: Mapping[tuple[str, int], float],
) -> None:
    """Write the table in its forms, and all that belongs to it."""
    lines = cells_of(rows)
    title = f"{conditions.dataset}: test results, " + (
        f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    )
    stamp = [f"**{STAMP}**"] if conditions.quick else []
    said = "\n\n".join(notes_of(rows))
    parts = [markdown(lines), said]
    tables = {
        "Efficiency": efficiency_table({row.model: row.efficiency for row in rows}),
        "Who gains": groups_table(rows, finished),
        "Lists": lists_table(rows, finished, divergences),
    }
    for heading, more in tables.items():
        parts += [f"## {heading}", _SAID[heading], markdown(more)] if more else []
    used = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    texts = {
        "table.md": "\n\n".join([f"# {title}", *stamp, *parts, f"Seeds {', '.join(map(str, seeds))}; {used}."]) + "\n",
        "table.csv": (f"# {STAMP}\n" if conditions.quick else "") + csv_text(lines),
        "table.tex": f"% {title}{f'; {STAMP}' if conditions.quick else ''}\n{latex(lines)}\n",
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    of_cells = {f"{each.model}-{each.seed}": _cell_record(each, divergences) for each in finished}
    content = {
        "title": title,
        "quick": conditions.quick,
        "conditions": asdict(conditions),
        "seeds": list(seeds),
        "command": command(),
        "rows": [asdict(row) for row in rows],
        "cells": of_cells,
        "tables": {heading: {"said": _SAID[heading], "lines": lines} for heading, lines in tables.items() if lines},
        "tuned": dict(tuned),
    }
    write_json(folder / "comparison.json", content)


def _cell_record(cell: Finished, divergences: Mapping[tuple[str, int], float]) -> dict[str, Any]:
    """Return what there is to say of a cell beside its metrics, as plain values."""
    found: dict[str, Any] = {"efficiency": efficiency_of(cell.result)}
    if cell.lists is not None:
        genres = divergences.get((cell.model, cell.seed))
        shape = {**shape_of(cell.lists), **({} if genres is None else {"genres": genres})}
        found |= {"groups": [group.record() for group in recall_by_group(cell.lists)], "lists": shape}
    return found
