"""Learning curves of a training: its loss terms and validation score by epoch, as TensorBoard's files have them."""

from __future__ import annotations

from pathlib import Path

#: What RecBole calls the validation score there.
_VALID = "Vaild_score"
_LOSS = "Loss/Train/"

Curves = dict[str, list[tuple[int, float]]]


def curves_of(log: str, metric: str) -> Curves:
    """Return the curves of a training by name: loss terms, and the validation score.

    Args:
        log: path of the training's log; its events lie in ``log_tensorboard/`` under the same name.
        metric: name of the validation score.

    Returns:
        (epoch, value) pairs of each; empty where no events are left.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path("log_tensorboard", Path(log).stem)
    if not log or not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found: Curves = {}
    for tag in events.Tags()["scalars"]:
        name = metric if tag == _VALID else f"loss: {tag.removeprefix(_LOSS)}" if tag.startswith(_LOSS) else ""
        if name:
            found[name] = [(event.step, event.value) for event in events.Scalars(tag)]
    return found
