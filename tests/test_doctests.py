"""Examples in docstrings are there, and the README's test command runs them, whatever packages are installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import recbole_rlmrec

ROOT = Path(__file__).parents[1]

#: Packages that are optional, or that only tests need.
OPTIONAL = ("faiss", "hyperopt", "openai", "pyarrow", "ray", "sentence_transformers", "torch_scatter")
#: Modules that import an optional package at their top.
NEED_PACKAGES = {"recbole_rlmrec.tuning.ray_tool"}


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
    """A module that cannot be imported is left out with its examples: only that of Ray may be."""
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
