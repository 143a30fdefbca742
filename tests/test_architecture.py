"""The rooms of the package: imports go one way, there is no circle, and no room is large."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "recbole_rlmrec"

#: The floors of the house, from the top. What stands on one floor imports from floors below and from its own room.
FLOORS = (
    ("__init__", "cli"),
    ("extension",),
    ("verbs", "recbole_entry"),
    ("experiment",),
    ("tuning", "semantics", "arguments", "recommend"),
    ("check", "quick_start"),
    ("profile", "sources"),
    ("config", "training"),
    ("model",),
    ("text", "encoder"),
    ("data",),
    ("ops", "parts"),
    ("run_settings", "recbole_settings"),
    ("settings", "openai_client"),
    ("reading",),
    ("server",),
    ("sides", "recbole_names", "known_datasets", "resources", "compat", "wording", "files", "version"),
    ("extras",),
    ("errors",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; the package itself is ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, anywhere in it, also for type checking only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            module = node.module.partition(".")[2]
            for name in node.names:
                inside = f"{module}.{name.name}".lstrip(".")
                found.add(inside if inside in known else module or "__init__")
        elif isinstance(node, ast.Import):
            found.update(name.name.partition(".")[2] for name in node.names if name.name.startswith(f"{PACKAGE.name}."))
    return found


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imported(path, known) - {name} for name, path in known.items()}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_file_has_a_floor(graph: dict[str, set[str]]) -> None:
    assert {room_of(module) for module in graph} == set(FLOOR_OF)


def test_the_map_for_contributors_has_the_floors() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", text.partition("## What belongs where")[2].partition("\n## ")[0], re.MULTILINE)
    assert [tuple(row.split("`")[1::2]) for row in rows] == list(FLOORS)


def test_no_import_goes_up(graph: dict[str, set[str]]) -> None:
    """A file imports from its own room and from floors below."""
    upwards = [
        f"{module} -> {other}"
        for module, others in graph.items()
        for other in others
        if room_of(other) != room_of(module) and FLOOR_OF[room_of(other)] <= FLOOR_OF[room_of(module)]
    ]
    assert upwards == []


def test_there_is_no_circle(graph: dict[str, set[str]]) -> None:
    left = {module: set(others) for module, others in graph.items()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


def test_no_room_is_large() -> None:
    """No folder, nor the files at the top together, holds 15 % of the package's lines or more; no file holds 5 %."""
    lines: dict[str, int] = defaultdict(int)
    of_file = {}
    for name, path in modules().items():
        of_file[name] = len(path.read_text(encoding="utf-8").splitlines())
        lines[str(path.parent.relative_to(PACKAGE))] += of_file[name]
    total = sum(of_file.values())
    assert {room: count for room, count in lines.items() if count >= 0.15 * total} == {}
    assert {name: count for name, count in of_file.items() if count >= 0.05 * total} == {}


def test_what_trains_needs_neither_profiles_nor_encoders(graph: dict[str, set[str]]) -> None:
    reached, waiting = set(), ["quick_start"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph[module]
    assert {room_of(module) for module in reached}.isdisjoint({"profile", "encoder", "text", "sources"})


def calls_of(path: Path, name: str) -> list[ast.Call]:
    """Calls of a function by its name, also as a module's attribute."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [call for call in calls if name in (getattr(call.func, "id", None), getattr(call.func, "attr", None))]


def test_only_verbs_print() -> None:
    """What is below says what it has to say by its logger or by a ``report`` that it is given."""
    printing = {room_of(name) for name, path in modules().items() if calls_of(path, "print")}
    assert printing <= {"cli", "verbs"}


def test_each_module_has_one_logger_of_its_name() -> None:
    """RecBole's handlers are the root logger's, which only what silences a process or a trial touches."""
    roots = {name for name, path in modules().items() if any(not call.args for call in calls_of(path, "getLogger"))}
    assert roots == {"training.launch", "tuning.trial"}
    for name, path in modules().items():
        named = [call for call in calls_of(path, "getLogger") if call.args and ast.unparse(call.args[0]) == "__name__"]
        assert len(named) <= 1, name


#: Functions whose arguments RecBole, PyTorch or Ray dictate, and hence their order.
DICTATED = {
    "forward",
    "train",
    "fit",
    "evaluate",
    "create_adjust_matrix",
    "_valid_epoch",
    "_save_checkpoint",
    "_train_epoch",
    "on_trial_complete",
    "data.loader.__init__",
    "recbole_entry._evaluate",
    "recbole_entry._run",
    "recbole_entry._run_recbole",
}


def test_flags_are_given_by_name() -> None:
    """``f(x, True)`` says nothing: parameters of type bool stand behind a ``*``."""
    flags = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not {node.name, f"{module}.{node.name}"} & DICTATED:
                given = [*node.args.posonlyargs, *node.args.args]
                flags += [f"{module}.{node.name}({each.arg})" for each in given if is_flag(each)]
    assert flags == []


def is_flag(parameter: ast.arg) -> bool:
    return parameter.annotation is not None and ast.unparse(parameter.annotation) in ("bool", "bool | None")
