"""What RecBole calls things: the padding id, and the models by which it looks up everything else."""

from __future__ import annotations

#: RecBole's name of internal id 0, which is nobody's.
PAD_TOKEN = "[PAD]"


def recbole_name(model: type) -> str:
    """Return the name by which RecBole knows a model: that of the class of RecBole's that it is or extends.

    RecBole looks trainers, data loaders and property files up by name.

    Args:
        model: any model class. One that extends no model of RecBole's keeps its name.
    """
    return next((base.__name__ for base in model.__mro__ if _is_recbole_model(base)), model.__name__)


def _is_recbole_model(model: type) -> bool:
    package, _, module = model.__module__.rpartition(".")
    return package.startswith("recbole.model.") and module == model.__name__.lower()
