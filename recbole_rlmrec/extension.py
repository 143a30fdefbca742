"""Parts from outside this package: one way to make any of them known by its name."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeVar

from recbole_rlmrec.errors import ContractError

_T = TypeVar("_T")


def register(part: _T) -> _T:
    """Make a part from outside known by its name; what it is follows from its type.

    What is registered is known to this process only. A package registers its parts by itself where it names them as
    entry points, of the groups in brackets.

    Args:
        part: a backbone, an alignment or another model (``recbole_rlmrec.models``, ``recbole_rlmrec.alignments``), see
            :func:`recbole_rlmrec.model.registry.register`; a class that extends
            :class:`~recbole_rlmrec.encoder.base.Encoder` (``recbole_rlmrec.encoders``) or
            :class:`~recbole_rlmrec.profile.writer.Writer` (``recbole_rlmrec.writers``); an object of
            :class:`~recbole_rlmrec.sources.raw_dump.Source` (``recbole_rlmrec.sources``); or a verb, a module with
            ``add_arguments`` and ``run`` (``recbole_rlmrec.verbs``).

    Returns:
        The part, so that this can be a class's decorator.

    Raises:
        ContractError: it is none of these, breaks the contract of its kind, or has a name that exists.
    """
    _register(part)
    return part


def _register(part: Any) -> None:
    """Hand a part to the registry of its kind; each is imported only when its turn has come."""
    if isinstance(part, ModuleType):
        from recbole_rlmrec.verbs import VERBS

        VERBS.register(part)
        return
    from recbole_rlmrec.encoder.base import ENCODERS, Encoder
    from recbole_rlmrec.profile.writer import WRITERS, Writer
    from recbole_rlmrec.sources.raw_dump import SOURCES, Source

    if isinstance(part, Source):
        SOURCES.register(part)
    elif isinstance(part, type) and issubclass(part, Encoder):
        ENCODERS.register(part)
    elif isinstance(part, type) and issubclass(part, Writer):
        WRITERS.register(part)
    else:
        _register_model(part)


def _register_model(part: Any) -> None:
    from recbole_rlmrec.model import registry

    if not registry.is_model_part(part):
        shown = part.__name__ if isinstance(part, type) else repr(part)
        raise ContractError(
            f"{shown} is no part that can be registered: a backbone extends GraphBackbone, an alignment Alignment, "
            "another model RecBole's GeneralRecommender, an encoder Encoder, a writer Writer; a source is an object of "
            "Source, a verb a module."
        )
    registry.register(part)
