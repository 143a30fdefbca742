"""RLMRec as a RecBole plug-in: recommenders aligned with language-model profiles of users and items.

What is exported here is stable, see CHANGELOG.md; it is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_rlmrec.version import __version__

if TYPE_CHECKING:
    from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
    from recbole_rlmrec.extension import register
    from recbole_rlmrec.quick_start import load_model, run
    from recbole_rlmrec.recbole_entry import register_with_recbole

__all__ = ["SemanticEmbedding", "__version__", "load_model", "register", "register_with_recbole", "run"]

_MODULES = {
    "SemanticEmbedding": "recbole_rlmrec.data.semantic_embedding",
    "load_model": "recbole_rlmrec.quick_start",
    "register": "recbole_rlmrec.extension",
    "register_with_recbole": "recbole_rlmrec.recbole_entry",
    "run": "recbole_rlmrec.quick_start",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
