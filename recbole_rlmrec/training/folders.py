"""Where a run writes logs and checkpoints: whether it can is found out before the training."""

from __future__ import annotations

import logging
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from recbole.utils import init_logger

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


class _Shown(dict[str, str]):
    """As much of a configuration as a log begins with; text that is no Unicode, as a file's name may be, is escaped."""

    def __init__(self, config: Any) -> None:
        texts = {name: str(value) for name, value in config.final_config_dict.items()}
        super().__init__({name: text.encode(errors="backslashreplace").decode() for name, text in texts.items()})

    @property
    def final_config_dict(self) -> dict[str, str]:
        return self


def begin_log(config: Any) -> None:
    """Log to the terminal and to a file in ``log/``, as RecBole does.

    The file holds every character, also where the locale, by which RecBole opens it, has few.

    Args:
        config: of the run.
    """
    init_logger(_Shown(config))
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, TextIOWrapper):
            handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
