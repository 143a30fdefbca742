"""RLMRec as a RecBole plug-in: recommenders aligned with language-model profiles of users and items.

What is exported here is stable, see CHANGELOG.md; the rest of the package may change with any version. It is imported
when it is first used, so that importing the package itself takes no time and touches nothing.

To train and to use models: :func:`run`, :class:`Recommender` (what a trained model recommends), :func:`load_model`,
:func:`get_model` (a class by its name), :class:`RLMRecConfig`, :func:`tune`, and :func:`register_with_recbole` for
scripts of RecBole's own.

For data: :class:`SemanticEmbedding` brings vectors of your own.

For classes from outside: :func:`register`; what they extend, :class:`GraphBackbone`, :class:`Alignment`,
:class:`Encoder`, :class:`Writer` and :class:`RuleWriter`, or make an object of, :class:`Source`; and their settings,
:class:`Settings`, :func:`setting`, :func:`known`.

>>> from recbole_rlmrec import get_model
>>> get_model("LightGCN_RLMRecCon").__name__
'LightGCN_RLMRecCon'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_rlmrec.version import __version__

if TYPE_CHECKING:
    from recbole_rlmrec.config import RLMRecConfig
    from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
    from recbole_rlmrec.encoder.base import Encoder
    from recbole_rlmrec.extension import register
    from recbole_rlmrec.model.alignment.base import Alignment
    from recbole_rlmrec.model.backbone.base import GraphBackbone
    from recbole_rlmrec.model.registry import get_model
    from recbole_rlmrec.profile.writer import RuleWriter, Writer
    from recbole_rlmrec.quick_start import load_model, run
    from recbole_rlmrec.recbole_entry import register_with_recbole
    from recbole_rlmrec.recommend.recommender import Recommender
    from recbole_rlmrec.settings import Settings, known, setting
    from recbole_rlmrec.sources.raw_dump import Source
    from recbole_rlmrec.tuning.search import tune

__all__ = [
    "Alignment",
    "Encoder",
    "GraphBackbone",
    "RLMRecConfig",
    "Recommender",
    "RuleWriter",
    "SemanticEmbedding",
    "Settings",
    "Source",
    "Writer",
    "__version__",
    "get_model",
    "known",
    "load_model",
    "register",
    "register_with_recbole",
    "run",
    "setting",
    "tune",
]

_MODULES = {
    "Alignment": "recbole_rlmrec.model.alignment.base",
    "Encoder": "recbole_rlmrec.encoder.base",
    "GraphBackbone": "recbole_rlmrec.model.backbone.base",
    "RLMRecConfig": "recbole_rlmrec.config",
    "Recommender": "recbole_rlmrec.recommend.recommender",
    "RuleWriter": "recbole_rlmrec.profile.writer",
    "SemanticEmbedding": "recbole_rlmrec.data.semantic_embedding",
    "Settings": "recbole_rlmrec.settings",
    "Source": "recbole_rlmrec.sources.raw_dump",
    "Writer": "recbole_rlmrec.profile.writer",
    "get_model": "recbole_rlmrec.model.registry",
    "known": "recbole_rlmrec.settings",
    "load_model": "recbole_rlmrec.quick_start",
    "register": "recbole_rlmrec.extension",
    "register_with_recbole": "recbole_rlmrec.recbole_entry",
    "run": "recbole_rlmrec.quick_start",
    "setting": "recbole_rlmrec.settings",
    "tune": "recbole_rlmrec.tuning.search",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
