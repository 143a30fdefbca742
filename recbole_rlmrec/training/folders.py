"""Where a run writes logs and checkpoints: whether it can is found out before the training."""

from __future__ import annotations

import logging
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from recbole_rlmrec.errors import FolderError


def check_folders(config: Any, *, is_first: bool, own_log: bool) -> None:
    """Make the folders that a run writes to, and find out before the training that one cannot be written to.

    RecBole makes folders that are not there a moment before; of runs that begin together all but one would fail.

    Args:
        config: of the run.
        is_first: whether this process has rank 0, which alone writes logs.
        own_log: whether it writes a log of its own.

    Raises:
        FolderError: naming the folder, and what moves it.
    """
    folders = {Path(config["checkpoint_dir"]): "give another folder with --checkpoint_dir=FOLDER"}
    logs = [Path("log_tensorboard"), *([Path("log", config["model"])] if own_log else [])] if is_first else []
    folders.update(dict.fromkeys(logs, "it lies in the working directory: begin in another one (cd)"))
    for folder, remedy in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise FolderError(f"The folder '{folder}' cannot be written to ({error}): {remedy}.") from error


def write_log_in_utf8() -> None:
    """Let the log's file hold every character, also where the locale has few; RecBole opens it as the locale says."""
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, TextIOWrapper):
            handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
