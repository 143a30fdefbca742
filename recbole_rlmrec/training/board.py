"""Weights & Biases: each training is a run there of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole_rlmrec.errors import SettingError, StoppedError


@contextmanager
def run_of_board(config: Any) -> Iterator[None]:
    """Begin a run of Weights & Biases where ``log_wandb`` asks for one, and end it with the context.

    RecBole's logger would begin it with the configuration object's attributes in place of the settings, and let it last
    as long as the process, so that a base, the aligned model and all trials of a search would be one run. One that the
    caller has begun is used and left open.

    Args:
        config: of the training.

    Raises:
        SettingError: a run cannot be begun.
    """
    if not config["log_wandb"]:
        yield
        return
    import wandb

    if wandb.run is not None:
        yield
        return
    try:
        wandb.init(
            project=config["wandb_project"],
            name=f"{config['model']}-{config['dataset']}",
            config=config.settings,
        )
    except Exception as error:  # whatever it is: the account, the network, the folder
        raise SettingError(
            f"log_wandb=True: Weights & Biases could not begin a run ({type(error).__name__}: {error}). Log in with "
            "`wandb login`, or set the environment variable WANDB_MODE=offline and send the run later."
        ) from error
    failed = 1
    try:
        yield
        failed = 0
    except StoppedError:
        failed = 0
        raise
    finally:
        wandb.finish(exit_code=failed)
