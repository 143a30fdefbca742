"""The wheel carries what a user outside a checkout needs, and nothing that must not be shipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # Built from a copy: setuptools leaves its build folder beside the sources, and takes old files from it.
    source = tmp_path_factory.mktemp("source") / "checkout"
    kept = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "recbole_rlmrec", "properties", "dataset/ml-100k")
    for name in kept:
        path = ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy(path, source / name)
    (source / "dataset/ml-100k/ml-100k.userprf.jsonl").write_text("{}\n")
    out = tmp_path_factory.mktemp("wheel")
    # The sdist, and the wheel from the sdist.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_wheel_carries_properties_and_the_embedded_dataset(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder in ("recbole_rlmrec", "properties", "dataset/ml-100k"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT).as_posix()
            if folder != "recbole_rlmrec":
                inside = f"recbole_rlmrec/{inside}"
            if path.suffix in (".yaml", ".hyper", ".npy", ".tokens", ".json") or (
                folder == "recbole_rlmrec" and path.suffix == ".py"
            ):
                assert inside in names
    for ending in (".yaml", ".hyper"):
        assert sum(name.endswith(ending) for name in names) == len(list((ROOT / "properties").rglob(f"*{ending}"))) > 0


def test_wheel_carries_the_page_of_the_service(wheel: zipfile.ZipFile) -> None:
    page = ROOT / "recbole_rlmrec/recommend/service/page"
    names = {path.relative_to(ROOT).as_posix() for path in page.iterdir()}
    assert len(names) >= 6 and names <= set(wheel.namelist())


def test_wheel_ships_no_profiles_tests_or_results(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        assert not name.endswith((".jsonl", ".pkl", ".pth", ".inter"))
        assert name.split("/")[0].startswith("recbole_rlmrec")


def test_wheel_names_its_command_and_bounds(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "recbole-rlmrec = recbole_rlmrec.cli:main" in wheel.read(info).decode()
    metadata = wheel.read(info.replace("entry_points.txt", "METADATA")).decode()
    required = [Requirement(line[15:]) for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    bounds = {requirement.name: requirement.specifier for requirement in required}
    for name, bound in {"recbole": "==1.2.0", "torch": ">=2.4", "numpy": ">=1.26.4", "pandas": ">=2"}.items():
        assert bounds[name] == SpecifierSet(bound)
    assert "Requires-Python: >=3.11" in metadata and "License: MIT" in metadata


def test_installed_files_are_found_outside_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import recbole_rlmrec
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
assert recbole_rlmrec.__file__.startswith(sys.argv[1])
config = RLMRecConfig("LightGCN_RLMRecCon", "ml-100k")
train_data, _, _ = data_preparation(config, create_dataset(config))
print(len(train_data._dataset), config["alignment_weight"], train_data._dataset.get_preload_weight("useremb").shape)
from recbole_rlmrec.tuning.space import find_space
print(find_space("auto", config.model_class).size)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["60000 auto (944, 256)", "96"], done.stderr
