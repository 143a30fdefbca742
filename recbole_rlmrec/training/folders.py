"""Where a run writes logs and checkpoints: whether it can is found out before the training."""

from __future__ import annotations

import logging
import os
import secrets
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import recbole
from recbole.utils import get_local_time, init_logger

from recbole_rlmrec.errors import FolderError

#: Whose messages of the level INFO need the mark.
_FOLDERS = tuple(f"{folder}{os.sep}" for folder in (Path(recbole.__file__).parent, Path(__file__).parents[1]))

#: The handlers of the latest run of this process.
_handlers: list[logging.Handler] = []


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


def checkpoint_path(config: Any, log: Path | None = None) -> Path:
    """Return where the checkpoint of a run goes, under a name that no other run has.

    Args:
        config: of the run.
        log: the run's log, whose name the checkpoint takes; None for a name of the same form.
    """
    # Two runs that begin together share the second.
    name = f"{config['model']}-{config['dataset']}-{get_local_time()}-{secrets.token_hex(3)}"
    return Path(config["checkpoint_dir"], f"{log.stem if log else name}.pth")


class _Shown(dict[str, str]):
    """What RecBole names a log by; text that is no Unicode, as a file's name may be, is escaped."""

    def __init__(self, config: Any) -> None:
        texts = {name: str(value) for name, value in config.final_config_dict.items()}
        super().__init__({name: text.encode(errors="backslashreplace").decode() for name, text in texts.items()})
        # RecBole's name ends with a hash of all values; two runs of the same settings have two logs.
        self["run"] = secrets.token_hex(8)

    @property
    def final_config_dict(self) -> dict[str, str]:
        return self


class _ForTerminal(logging.Formatter):
    """Shows what is marked for the terminal as it is, and other messages as RecBole does."""

    def __init__(self, others: logging.Formatter) -> None:
        super().__init__()
        self._others = others

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if _is_marked(record) else self._others.format(record)


def _is_marked(record: logging.LogRecord) -> bool:
    return getattr(record, "on_screen", False)


def _is_for_terminal(record: logging.LogRecord) -> bool:
    return record.levelno != logging.INFO or _is_marked(record) or not record.pathname.startswith(_FOLDERS)


def begin_log(config: Any) -> Path | None:
    """Log to the terminal and to a file in ``log/<model>/``, instead of to those of an earlier run.

    The file holds everything, whatever ``state`` says, and every character, also where the locale, by which RecBole
    opens it, has few. The terminal shows what ``state`` lets through: warnings, messages of other packages, and of
    RecBole's and ours those marked with :data:`~recbole_rlmrec.wording.ON_SCREEN`; with ``state: DEBUG`` all of them.

    Args:
        config: of the run.

    Returns:
        The file; None where the caller has set up logging, which stays as it is.
    """
    for handler in _handlers:
        logging.root.removeHandler(handler)
        handler.close()
    _handlers.clear()
    if logging.root.handlers:
        return None
    shown = _Shown(config)
    init_logger(shown)
    _handlers.extend(logging.root.handlers)
    path = None
    for handler in _handlers:
        if isinstance(handler, logging.FileHandler):
            path = Path("log", shown["model"], Path(handler.baseFilename).name)
            handler.setLevel(min(handler.level, logging.INFO))
            if isinstance(handler.stream, TextIOWrapper):
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        elif handler.level > logging.DEBUG and handler.formatter is not None:
            handler.addFilter(_is_for_terminal)
            handler.setFormatter(_ForTerminal(handler.formatter))
    logging.root.setLevel(min(logging.root.level, logging.INFO))
    return path
