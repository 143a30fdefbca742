"""What the package exports: it is there, it is promised, and nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recbole_rlmrec

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", recbole_rlmrec.__all__)
def test_each_export_is_there_and_promised(name: str) -> None:
    exported = getattr(recbole_rlmrec, name)
    assert name in dir(recbole_rlmrec)
    if name != "__version__":
        assert exported.__module__.startswith("recbole_rlmrec.") and exported.__name__ == name
        promise = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("## 0.2.0")[0]
        assert f"`{name}`" in promise
        assert f":`{name}`" in recbole_rlmrec.__doc__


def test_what_is_not_exported_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'recbole_rlmrec' has no attribute 'runn'"):
        recbole_rlmrec.runn  # noqa: B018


@pytest.mark.parametrize("name", ["GraphBackbone", "Settings", "register", "load_model"])
def test_importing_the_package_imports_nothing_else(name: str) -> None:
    """And each export can be the first."""
    script = f"""
import sys, recbole_rlmrec
print({{"torch", "recbole", "numpy", "yaml"}} & set(sys.modules) or "nothing")
from recbole_rlmrec import {name}
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "nothing\n"), done.stderr
