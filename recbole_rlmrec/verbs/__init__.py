"""The verbs of ``recbole-rlmrec``: one module each, found where it lies.

A verb is a module whose docstring says what it does, its first line in the list of verbs. It has two functions:
``add_arguments(parser)`` and ``run(arguments)``, which returns the exit status. It is imported to list the verbs, so it
imports what it works with inside these. A module whose name begins with ``_`` is none. Another package adds verbs as
entry points of the group ``recbole_rlmrec.verbs``.
"""

from __future__ import annotations

import pkgutil
from types import ModuleType
from typing import Any

from recbole_rlmrec.errors import ContractError
from recbole_rlmrec.parts import Registry, checked_name


def _name(module: str) -> str:
    """Return the verb of a module: ``build-semantics`` of ``build_semantics``."""
    return module.rpartition(".")[2].replace("_", "-")


def _checked(part: Any) -> str:
    """Return the name of a verb.

    Raises:
        ContractError: it is no module, or lacks something.
    """
    if not isinstance(part, ModuleType):
        raise ContractError(f"{part!r} is no verb: expected a module with add_arguments() and run().")
    for name, what in (("add_arguments", "(parser)"), ("run", "(arguments)")):
        if not callable(getattr(part, name, None)):
            raise ContractError(f"{part.__name__} breaks the contract of verbs: it lacks {name}{what}.")
    if not (part.__doc__ or "").strip():
        raise ContractError(
            f"{part.__name__} breaks the contract of verbs: it lacks a docstring, which says what the verb does."
        )
    return checked_name(part.__name__, "__name__", _name(part.__name__), "verb")


#: Verbs by name.
VERBS: Registry[ModuleType] = Registry(
    "verb",
    "recbole_rlmrec.verbs",
    _checked,
    {
        _name(module.name): f"{__name__}.{module.name}"
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    },
)
