"""What the suite is made of: examples in docstrings, quick tests, golden files from elsewhere, and what CI runs."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import QUICK, SLOW, TESTS

import recbole_rlmrec

ROOT = Path(__file__).parents[1]
CI = (ROOT / ".ci/run").read_text(encoding="utf-8")

#: Packages that are optional, or that only tests need.
OPTIONAL = (
    "faiss",
    "fastapi",
    "hyperopt",
    "onnx",
    "openai",
    "optuna",
    "pyarrow",
    "ray",
    "safetensors",
    "sentence_transformers",
    "torch_scatter",
    "usearch",
    "uvicorn",
    "wandb",
)
#: Modules that import an optional package at their top.
NEED_PACKAGES = {
    "recbole_rlmrec.recommend.service.app",
    "recbole_rlmrec.recommend.service.running",
    "recbole_rlmrec.tuning.optuna_tool",
    "recbole_rlmrec.tuning.ray_tool",
}


def modules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(recbole_rlmrec.__path__, "recbole_rlmrec.")]


def test_rooms_have_examples() -> None:
    """An example that is deleted, or not found any more, is missed here."""
    found: Counter[str] = Counter()
    for name in set(modules()) - NEED_PACKAGES:
        examples = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name)
        found[name.split(".")[1]] += sum(bool(each.examples) for each in examples)
    least = {"ops": 19, "data": 5, "text": 5, "sources": 2, "profile": 10, "settings": 4, "config": 2, "model": 3}
    assert {room: found[room] for room, number in least.items() if found[room] < number} == {}
    assert found.total() >= 60


def test_the_test_command_runs_them(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("testpaths") == ["tests", "recbole_rlmrec"]
    assert pytestconfig.getoption("doctestmodules")


def test_modules_need_no_optional_package() -> None:
    """A module that cannot be imported is left out with its examples: only these may be."""
    script = f"""
import importlib, sys
for package in {OPTIONAL}:
    sys.modules[package] = None  # importing it is an ImportError
for name in {modules()}:
    try:
        importlib.import_module(name)
    except ImportError:
        print(name)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == NEED_PACKAGES


def test_quick_tests_are_there(pytestconfig: pytest.Config) -> None:
    """A file or test that gets another name would leave the quick ones, or join them, without a word."""
    assert [chosen for chosen in QUICK if not (TESTS / chosen).exists()] == []
    for slow in SLOW:
        file, _, test = slow.partition("::")
        assert f"def {test}" in (TESTS / file).read_text(encoding="utf-8"), slow
    assert any(line.startswith("quick:") for line in pytestconfig.getini("markers"))


def test_this_test_is_quick(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("quick") is not None


GOLDEN = TESTS / "golden"


def test_golden_files_are_those_of_their_readme() -> None:
    table = runpy.run_path(str(GOLDEN / "describe.py"))["summary"](GOLDEN)
    assert table in (GOLDEN / "README.md").read_text(encoding="utf-8"), table
    assert table.count("\n") == 2 + 18


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_golden_files_hold_what_their_readme_lists(path: Path) -> None:
    readme = (GOLDEN / "README.md").read_text(encoding="utf-8")
    listed = {
        re.sub("<.*>", "", key) for row in re.findall(r"^\| (`.*?) \|", readme, re.M) for key in row.split("`")[1::2]
    }
    with np.load(path) as golden, np.load(GOLDEN / "lightgcn.npz") as other:
        assert {re.sub("/.*", "/", key) for key in golden.files} <= listed
        for key in ("user", "item", "user_semantic", "item_semantic", "batch_user", "batch_pos", "batch_neg"):
            np.testing.assert_array_equal(golden[key], other[key])
        shapes = {key: golden[key].shape for key in ("user_semantic", "item_semantic", "batch_user", "scores")}
        assert shapes == {"user_semantic": (24, 20), "item_semantic": (18, 20), "batch_user": (32,), "scores": (24, 18)}
        parts = [golden[key] for key in golden.files if key.startswith("part/")]
        assert sum(parts) == pytest.approx(float(golden["loss"]), rel=1e-6)
        hyper = json.loads(str(golden["hyper"]))
        assert hyper["name"] == path.stem and hyper["embedding_size"] == 8 and hyper.get("eps", 0) == 0
        assert (hyper["keep_rate"] == 1) == (not path.stem.startswith("autocf"))


def commands_of_ci() -> list[str]:
    """The commands of `.ci/run` that the newest environment's programs are called with, without their paths."""
    return re.findall(r'^"\$environments/newest/bin/([^"]+"[^\n]*)$', CI, re.M)


def test_hooks_are_what_ci_checks() -> None:
    """Ruff and mypy, in the order of `.ci/run`, without a download: the tools are those that are installed."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [repository] = config["repos"]
    assert repository["repo"] == "local"
    checks = [command.replace('"', "") for command in commands_of_ci() if not command.startswith("python")]
    assert [hook["entry"] for hook in repository["hooks"]] == checks and len(checks) == 3
    for hook in repository["hooks"]:
        assert hook["language"] == "system" and hook["pass_filenames"] is False


def test_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    jobs = {
        name: ([step["run"] for step in job["steps"] if "run" in step], job["steps"][1]["with"]["python-version"])
        for name, job in workflow["jobs"].items()
    }
    assert jobs["all"] == ([".ci/run"], "3.11")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    install, test = jobs["quick"][0]
    assert install == "python -m pip install --editable '.[test]'" and "--editable '.[test]'" in CI
    assert test == "python -m pytest -q -n 2 -m quick" and 'python" -m pytest -q -n 2' in CI
    versions = workflow["jobs"]["quick"]["strategy"]["matrix"]["python"]
    classifiers = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert versions == ["3.12", "3.13"]
    assert all(f"Programming Language :: Python :: {version}\n" in classifiers for version in versions)


def test_no_two_files_of_tests_have_one_name() -> None:
    """Without packages in ``tests/``, pytest imports a file by its name alone."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, number in names.items() if number > 1] == []
