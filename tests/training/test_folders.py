"""Folders that a run writes to, and its log's file."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_rlmrec.cli import train_main
from recbole_rlmrec.errors import FolderError
from recbole_rlmrec.training.folders import begin_log, check_folders


@pytest.mark.parametrize(
    ("folder", "remedy"),
    [
        ("saved", "give another folder with --checkpoint_dir=FOLDER"),
        ("log", "begin in another one (cd)"),
        ("log_tensorboard", "begin in another one (cd)"),
    ],
)
def test_a_folder_that_cannot_be_written_to(
    folder: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any data is read; the remedy works as typed."""
    monkeypatch.chdir(tmp_path)
    Path(folder).write_text("")
    assert train_main(["--model=BPR", "--dataset=ml-100k"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: The folder '{folder}") and error.endswith(f": {remedy}.\n")
    assert error.count("\n") == 1
    config = {"model": "BPR", "checkpoint_dir": "elsewhere" if folder == "saved" else "saved"}
    if folder != "saved":
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
    check_folders(config, is_first=True, own_log=True)
    assert list(Path(config["checkpoint_dir"]).iterdir()) == []


def test_other_ranks_need_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_text("")
    config = {"model": "BPR", "checkpoint_dir": "saved"}
    check_folders(config, is_first=False, own_log=True)
    with pytest.raises(FolderError):
        check_folders(config, is_first=True, own_log=True)


def test_a_log_of_a_locale_with_few_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log/BPR").mkdir(parents=True)

    class AsciiHandler(logging.FileHandler):
        def __init__(self, path: str) -> None:
            super().__init__(path, encoding="ascii")

    monkeypatch.setattr("logging.FileHandler", AsciiHandler)
    monkeypatch.setattr(logging.root, "handlers", [])
    # The name of a file in another encoding than the system's.
    config = SimpleNamespace(final_config_dict={"model": "BPR", "dataset": "x", "state": None, "data_path": "\udcff"})
    begin_log(config)
    logging.root.error("naïve \udcff")
    logging.root.handlers[1].close()
    [path] = Path("log/BPR").iterdir()
    assert path.read_bytes().endswith("naïve \\udcff\n".encode())
