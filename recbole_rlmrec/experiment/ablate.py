"""Ablations: the same comparison where something is taken from the models, a level of it after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recbole_rlmrec.config import RLMRecConfig, parse_value
from recbole_rlmrec.data.embedding_files import has_embeddings, table_names
from recbole_rlmrec.errors import RLMRecError, SettingError
from recbole_rlmrec.experiment.compare import STAMP, Comparison, compare, settings_by_model
from recbole_rlmrec.experiment.folder import write_json
from recbole_rlmrec.experiment.table import LEVEL, Row, failures_of, markdown, mean_std
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.run_settings import OF_PROFILES
from recbole_rlmrec.settings import AUTO_WEIGHT, POSITIVE, UNNAMED, AutoOr, Range
from recbole_rlmrec.wording import listed

#: Of what is added or withheld; the comparison without any is the first level.
_SHARE = Range(0, 1, includes_low=False)
_SHARES = (0.25, 0.5, 0.75, 1.0)

#: What stands between two levels that are chosen.
_BETWEEN = "+"


@dataclass(frozen=True)
class Sweep:
    """An ablation whose levels are numbers, or that has one level.

    Attributes:
        meaning: what is done, for the heading.
        settings: those that are as a level says.
        allowed: what a level may be.
        usual: the levels where none is chosen; none for an ablation of one level.
        beside: further settings of every level.
    """

    meaning: str
    settings: tuple[str, ...] = ()
    allowed: Range | AutoOr = _SHARE
    usual: tuple[float, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """What one repeats a comparison with.

    Attributes:
        name: by which it is asked for.
        meaning: what is done, for the heading.
        levels: name of each level -> its settings; the comparison without any of them comes before.
    """

    name: str
    meaning: str
    levels: Mapping[str, Mapping[str, Any]]


def _withheld(side: str, meaning: str) -> Sweep:
    return Sweep(meaning, ("withheld_share",), _SHARE, _SHARES, {"withheld_side": side})


#: Ablations whose levels do not depend on the dataset, by the names that ``--ablate`` takes.
SWEEPS: Mapping[str, Sweep] = {
    "noise": Sweep(
        "pairs that nobody has added to the training interactions, the same for every model",
        ("noise_share",),
        usual=(0.05, 0.1, 0.15, 0.2, 0.25),
    ),
    "withheld": _withheld("both", "profiles of users and items withheld"),
    "withheld-users": _withheld("users", "profiles of users withheld"),
    "withheld-items": _withheld("items", "profiles of items withheld"),
    "shuffled": Sweep("each node has the profile of another one of its side", beside={"shuffled_profiles": True}),
    "weight": Sweep(
        "fixed weights of the alignment term",
        ("alignment_weight", "reconstruction_weight"),
        AUTO_WEIGHT,
        (0.001, 0.01, 0.1, 1.0),
    ),
    "temperature": Sweep(
        "temperatures of the alignment term",
        ("alignment_temperature", "reconstruction_temperature"),
        POSITIVE,
        (0.1, 0.2, 0.5, 1.0),
    ),
}
_ENCODERS, _PRETRAINED = "encoders", "pretrained"

#: All names.
NAMES: tuple[str, ...] = (*SWEEPS, _ENCODERS, _PRETRAINED)


def planned(
    asked: Sequence[str],
    models: Sequence[str],
    dataset: str,
    *,
    config_files: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> list[Ablation]:
    """Return the ablations that ``--ablate`` asks for, and check them, before anything is trained.

    Args:
        asked: a name each, of ``NAMES``; after a colon levels, with a plus between two: ``noise:0.1+0.25``,
            ``encoders:minilm+lsa``, ``pretrained:CHECKPOINT``.
        models: class names.
        dataset: its name.
        config_files: YAML files with settings.
        settings: for every training.

    Raises:
        SettingError: a name or a level is unknown, out of range or there twice, or no model reads what is changed.
    """
    found: list[Ablation] = []
    plain = _plain(models, dataset, config_files)
    for text in asked if models else ():  # a comparison of no model is refused by itself
        name, colon, levels = text.partition(":")
        if name not in NAMES:
            raise SettingError(f"There is no ablation {name!r}: choose among {', '.join(NAMES)}.")
        if name in [each.name for each in found]:
            raise SettingError(f"--ablate names {name} twice. Give it once, with all levels: {_example(name)}.")
        takes_none = name in SWEEPS and not SWEEPS[name].usual
        if (colon and (takes_none or not levels)) or (name == _PRETRAINED and not levels):
            raise SettingError(f"--ablate={text}: expected {_example(name)}.")
        if name == _ENCODERS:
            config = RLMRecConfig(models[0], dataset, list(config_files), dict(settings or {}))
            ablation = _of_encoders(config, levels)
        elif name == _PRETRAINED:
            ablation = _of_checkpoint(levels)
        else:
            ablation = _of_sweep(name, levels)
        if not any(_concerned(plain, changed) for changed in ablation.levels.values()):
            keys = {key for each in ablation.levels.values() for key in each}
            what = "texts" if keys <= OF_PROFILES else listed(sorted(keys))
            raise SettingError(f"The ablation '{name}' concerns {what}, and no model of {', '.join(models)} reads any.")
        found.append(ablation)
    return found


def require_possible(
    asked: Sequence[str],
    models: Sequence[str],
    dataset: str,
    *,
    config_files: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Check ablations as :func:`planned`, and that every model can begin as they say, which takes reading the data.

    Args:
        asked: see there.
        models: see there.
        dataset: see there.
        config_files: see there.
        settings: see there.

    Raises:
        SettingError: see there; or a model cannot start from the checkpoint of ``pretrained``.
        DataError: the dataset cannot be read.
    """
    from recbole_rlmrec.data.preparation import create_dataset
    from recbole_rlmrec.quick_start import require_start

    for ablation in planned(asked, models, dataset, config_files=config_files, settings=settings):
        for level in ablation.levels.values():
            if "init_from" not in level:
                continue
            given = {**(settings or {}), "use_gpu": False}  # this process trains nothing, and leaves the GPU to others
            for model, read in settings_by_model(models, dataset, config_files, given, level).items():
                config = RLMRecConfig(model, dataset, list(config_files), command_line=read)
                training = create_dataset(config).build()[0]
                try:
                    require_start(config, training)
                except RLMRecError as error:
                    raise SettingError(f"--ablate={ablation.name}: {model} cannot begin so. {error}") from error


def ablate(
    asked: Sequence[str],
    main: Comparison,
    models: Sequence[str],
    dataset: str,
    seeds: Sequence[int],
    *,
    config_files: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    report: Callable[[str], None],
    **options: Any,
) -> tuple[Path, int]:
    """Repeat a comparison at each level of some ablations, and write ``ablations.md`` beside its table.

    Each level has a folder of its own, ``ablations/<name>/<level>``, and goes on as a comparison does. Models that do
    not read what it changes are not trained again.

    Args:
        asked: see :func:`planned`.
        main: the comparison without any of them, the first level of each.
        models: class names.
        dataset: its name.
        seeds: of the trainings.
        config_files: YAML files with settings.
        settings: for every training; those of a level stand over them.
        quick: the last level of each only.
        report: is called with what is said on the way.
        options: of :func:`~recbole_rlmrec.experiment.compare.compare`.

    Returns:
        The file, and how many cells failed.

    Raises:
        SettingError: see :func:`planned`.
        RLMRecError: as :func:`~recbole_rlmrec.experiment.compare.compare`.
    """
    texts: list[str] = []
    records: dict[str, Any] = {}
    failed = 0
    plain = _plain(models, dataset, config_files)
    for ablation in planned(asked, models, dataset, config_files=config_files, settings=settings):
        name, levels = ablation.name, list(ablation.levels.items())
        found = {"none": list(main.rows)}
        for level, changed in levels[-1:] if quick else levels:
            report(f"{name} {level}")
            concerned = _concerned(plain, changed)
            comparison = compare(
                concerned,
                dataset,
                seeds,
                main.folder / "ablations" / name / level,
                config_files=config_files,
                settings=_for(concerned, plain, settings or {}),
                where_read=changed,  # models name the weight and the temperature of their term differently
                quick=quick,
                report=report,
                added=sorted(_results_of(main, set(models) - set(concerned), seeds)),
                checkpoints=main.folder / "saved",
                may_fail=True,
                **options,
            )
            failed += comparison.failed
            found[level] = comparison.rows
        texts += [f"## {name}: {ablation.meaning}", _table(models, found), *_failures(found)]
        records[name] = {
            "meaning": ablation.meaning,
            "levels": {level: [asdict(row) for row in rows] for level, rows in found.items()},
        }
    star = (
        f"`*`: differs from its base (p < {LEVEL:g}) by the test of the comparison's table, Holm-corrected within the "
        "level."
    )
    one_seed = "One seed: nothing is tested, so there are no stars."
    note = (
        "Test results, mean ± standard deviation over the seeds; gain over the base at the same level. "
        f"{star if len(seeds) > 1 else one_seed}"
    )
    stamp = [f"**{STAMP}**"] if quick else []
    path = main.folder / "ablations.md"
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join([f"# {dataset}: ablations", *stamp, note, *texts]) + "\n", encoding="utf-8")
    write_json(main.folder / "ablations.json", records)
    return path, failed


# ---------------------------------------------------------------------- levels


def _of_sweep(name: str, chosen: str) -> Ablation:
    """Return a sweep with its usual levels, or with those that are chosen.

    Raises:
        SettingError: a level is out of range, or there twice.
    """
    sweep = SWEEPS[name]
    if not sweep.usual:
        return Ablation(name, sweep.meaning, {name: dict(sweep.beside)})
    values = [parse_value(text) for text in _parts(name, chosen)] if chosen else list(sweep.usual)
    wrong = next((value for value in values if value not in sweep.allowed), None)
    if wrong is not None:
        raise SettingError(f"--ablate={name}:{chosen}: {wrong!r} is not {sweep.allowed}. Expected {_example(name)}.")
    levels = {_level_name(sweep, value): {**dict.fromkeys(sweep.settings, value), **sweep.beside} for value in values}
    if len(levels) < len(values):
        raise SettingError(f"--ablate={name}:{chosen} has a level twice. Give each once.")
    return Ablation(name, sweep.meaning, levels)


def _level_name(sweep: Sweep, value: float | str) -> str:
    """Return how a level and its folder are called.

    >>> _level_name(SWEEPS["noise"], 0.15), _level_name(SWEEPS["withheld"], 0.125), _level_name(SWEEPS["weight"], 1.0)
    ('15%', '12.5%', '1')
    """
    if isinstance(value, str):
        return value
    return f"{100 * value:g}%" if sweep.allowed is _SHARE else f"{value:g}"


def _of_encoders(config: Any, chosen: str) -> Ablation:
    """Return the tables of embeddings beside a dataset, those apart that the comparison itself reads.

    Raises:
        SettingError: there is no other one, or one that is chosen is not there or there twice.
    """
    folders, dataset = config.data_folders, config.dataset
    names: list[str | None] = [*table_names(folders, dataset)]
    if any(has_embeddings(folder, dataset) for folder in folders):
        names.append(None)
    there = {each or UNNAMED: {"semantic": each} for each in names if each != config["semantic"]}
    if not there:
        raise SettingError(
            f"The ablation '{_ENCODERS}' compares embeddings of '{dataset}', and there are none but those that the "
            f"comparison reads. Make others: `{config.command('build-semantics', without=('semantic',))} "
            "--semantic=NAME`, with another encoder."
        )
    wanted = _parts(_ENCODERS, chosen) if chosen else list(there)
    unknown = next((name for name in wanted if name not in there), None)
    if unknown is not None:
        raise SettingError(
            f"--ablate={_ENCODERS}:{chosen}: '{dataset}' has no other embeddings of the name {unknown!r}. There are "
            f"{listed(list(there))}; those of the comparison itself are its first level."
        )
    meaning = f"embeddings by their names; none: {config['semantic'] or UNNAMED}, as in the comparison"
    return Ablation(_ENCODERS, meaning, {name: there[name] for name in wanted})


def _of_checkpoint(path: str) -> Ablation:
    """Return a start of every model from a checkpoint."""
    meaning = f"tables of users and items start from '{path}'; none: as in the comparison"
    return Ablation(_PRETRAINED, meaning, {_PRETRAINED: {"init_from": path}})


def _parts(name: str, chosen: str) -> list[str]:
    """Return the levels that are chosen.

    Raises:
        SettingError: one is empty or there twice.
    """
    parts = chosen.split(_BETWEEN)
    if not all(parts) or len(set(parts)) < len(parts):
        raise SettingError(f"--ablate={name}:{chosen}: expected levels that differ, such as {_example(name)}.")
    return parts


def _example(name: str) -> str:
    """Return how an ablation is asked for.

    >>> [_example(name) for name in ("noise", "shuffled", "pretrained")]
    ['noise or noise:0.05+0.1', 'shuffled', 'pretrained:CHECKPOINT']
    """
    if name == _PRETRAINED:
        return f"{name}:CHECKPOINT"
    levels = ["minilm", "lsa"] if name == _ENCODERS else [f"{value:g}" for value in SWEEPS[name].usual[:2]]
    return f"{name} or {name}:{_BETWEEN.join(levels)}" if levels else name


# ---------------------------------------------------------------------- models


def _plain(models: Sequence[str], dataset: str, config_files: Sequence[str]) -> dict[str, RLMRecConfig]:
    """Return the configuration of each model without the settings of the command line."""
    return {model: RLMRecConfig(model, dataset, list(config_files)) for model in models}


def _concerned(plain: Mapping[str, RLMRecConfig], changed: Mapping[str, Any]) -> list[str]:
    """Return the models that read one of some settings; those of texts are read where texts are."""
    found = []
    for model, config in plain.items():
        reads_texts = flags_of(config.model_class).reads_semantic_embeddings
        if any(reads_texts if key in OF_PROFILES else config.reads(key) for key in changed):
            found.append(model)
    return found


def _for(concerned: Sequence[str], plain: Mapping[str, RLMRecConfig], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings less those that only the other models read."""
    others = [config for model, config in plain.items() if model not in concerned]
    return {
        key: value
        for key, value in settings.items()
        if any(plain[model].reads(key) for model in concerned) or not any(config.reads(key) for config in others)
    }


def _results_of(main: Comparison, models: set[str], seeds: Sequence[int]) -> list[Path]:
    """Return the results of some models' cells in a comparison, those that came to their end."""
    paths = [main.folder / "cells" / f"{model}-{seed}.json" for model in models for seed in seeds]
    return [path for path in paths if path.is_file()]


# ---------------------------------------------------------------------- tables


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


def _failures(found: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return a paragraph with what failed at which level and why; none where nothing did."""
    lines = [f"- {level}: {said}" for level, rows in found.items() for row in rows for said in failures_of(row)]
    return ["\n".join(lines)] if lines else []
