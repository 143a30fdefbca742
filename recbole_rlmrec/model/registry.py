"""From a model's name to its class."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any, Optional

import recbole
import recbole.model
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import get_model as get_recbole_model

from recbole_rlmrec import compat
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model import rlmrec
from recbole_rlmrec.model.backbone.autocf import AutoCF
from recbole_rlmrec.model.backbone.dccf import DCCF
from recbole_rlmrec.model.backbone.gccf import GCCF
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.recbole_models import RECBOLE_MODELS
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.backbone.simgcl import SimGCL
from recbole_rlmrec.model.baseline.alpharec import AlphaRec
from recbole_rlmrec.model.baseline.kar import SGL_KAR, KnowledgeAugmentation, LightGCN_KAR
from recbole_rlmrec.model.baseline.semantic_only import SemanticOnly

BACKBONES: tuple[type, ...] = (LightGCN, SGL, SimGCL, GCCF, DCCF, AutoCF)

BASELINES: tuple[type, ...] = (SemanticOnly, LightGCN_KAR, SGL_KAR, AlphaRec)

#: Our classes by name; a RecBole model of the same name is the one ours extends.
MODELS: dict[str, type] = {
    model.__name__: model
    for model in (
        *BACKBONES,
        rlmrec.LightGCN_RLMRecCon,
        rlmrec.LightGCN_RLMRecGen,
        rlmrec.SGL_RLMRecCon,
        rlmrec.SGL_RLMRecGen,
        rlmrec.SimGCL_RLMRecCon,
        rlmrec.SimGCL_RLMRecGen,
        rlmrec.GCCF_RLMRecCon,
        rlmrec.GCCF_RLMRecGen,
        rlmrec.DCCF_RLMRecCon,
        rlmrec.DCCF_RLMRecGen,
        rlmrec.AutoCF_RLMRecCon,
        rlmrec.AutoCF_RLMRecGen,
        *BASELINES,
    )
}


#: What RLMRec adds, by the ending of a model's name.
ALIGNMENTS: dict[str, type] = {
    "_RLMRecCon": rlmrec.ContrastiveAlignment,
    "_RLMRecGen": rlmrec.GenerativeAlignment,
}

#: What reads semantic embeddings: these classes and all that extend them.
SEMANTIC_CLASSES: tuple[type, ...] = (*ALIGNMENTS.values(), KnowledgeAugmentation, SemanticOnly, AlphaRec)

#: Packages that RecBole's models import while they are built or trained and that have another name in the index.
_PACKAGES = {"faiss": "faiss-cpu", "community": "python-louvain", "kmeans_pytorch": "kmeans-pytorch"}

_RECBOLE_MODELS = Path(recbole.model.__file__).parent


def get_model(name: str) -> Any:
    """Return the model class of this name: one of ours, one of RecBole's, or one of RecBole's with RLMRec's alignment.

    Args:
        name: such as ``LightGCN_RLMRecCon``, ``BPR`` or ``BPR_RLMRecCon``.

    Raises:
        SettingError: no such model, the message names the nearest; it cannot be aligned, the message says why; or a
            package that it needs is missing.
    """
    if name in MODELS:
        return MODELS[name]
    for ending in ALIGNMENTS:
        if name.endswith(ending):
            return _aligned_model(name.removesuffix(ending), ending)
    return _recbole_model(name)


def __getattr__(name: str) -> Any:
    """Return a class that :func:`get_model` makes, so that it is reachable by its name in this module."""
    if name.endswith(tuple(ALIGNMENTS)):
        try:
            return get_model(name)
        except SettingError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def recbole_name(model: type) -> str:
    """Return the name by which RecBole knows a model: that of the class of RecBole's that it is or extends.

    RecBole looks trainers, data loaders and property files up by name.

    Args:
        model: any model class. One that extends no model of RecBole's keeps its name.
    """
    return next((base.__name__ for base in model.__mro__ if _is_recbole_model(base)), model.__name__)


def base_of(model: type) -> Optional[type]:
    """Return the backbone that an aligned class aligns, as a model of its own; None for a class without alignment.

    Args:
        model: any model class.
    """
    if not issubclass(model, tuple(ALIGNMENTS.values())):
        return None
    for ending in ALIGNMENTS:
        if not model.__name__.endswith(ending):
            continue
        name = model.__name__.removesuffix(ending)
        support = RECBOLE_MODELS.get(name)
        if support is not None and support.adapter is not None and issubclass(model, support.adapter):
            # RecBole's model with what its adapter repairs, such as the errors of NCL's clustering; its numbers are
            # RecBole's.
            content = {"__module__": __name__, "__qualname__": name, "__doc__": f"RecBole's {name}."}
            return type(name, (support.adapter, _recbole_model(name)), content)
        if name in MODELS and issubclass(model, MODELS[name]):
            return MODELS[name]
    return next((base for base in model.__mro__[1:] if base not in ALIGNMENTS.values() and _is_whole(base)), None)


def _is_whole(model: type) -> bool:
    """Return whether a class is a model by itself and no mixin."""
    return issubclass(model, GeneralRecommender) and not issubclass(model, tuple(ALIGNMENTS.values()))


def _is_recbole_model(model: type) -> bool:
    package, _, module = model.__module__.rpartition(".")
    return package.startswith("recbole.model.") and module == model.__name__.lower()


@cache
def _aligned_model(backbone: str, ending: str) -> type:
    """Make the class of one of RecBole's models with an alignment.

    Raises:
        SettingError: there is no such model, or it cannot be aligned.
    """
    name = backbone + ending
    support = RECBOLE_MODELS.get(backbone)
    if support is None:
        kinds = [path.parent.name for path in _recbole_files(backbone) if path.parent.name != "general_recommender"]
        if not kinds:
            raise SettingError(_unknown_model_message(name))
        kind = kinds[0].replace("_", "-").replace("-recommender", " recommender")
        raise SettingError(f"{backbone} is one of RecBole's {kind}s; RLMRec aligns general recommenders. {_ADVICE}")
    if support.adapter is None:
        raise SettingError(f"{backbone} {support.note}. {_ADVICE}")
    mixin = ALIGNMENTS[ending]
    if mixin is rlmrec.GenerativeAlignment and support.no_gen:
        raise SettingError(f"{backbone} {support.no_gen}. Con masks nothing: choose {backbone}_RLMRecCon.")
    content = {"__module__": __name__, "__qualname__": name, "__doc__": f"RecBole's {backbone} with {mixin.__name__}."}
    return type(name, (mixin, support.adapter, _recbole_model(backbone)), content)


_ADVICE = (
    "RLMRec aligns representations of users and items; choose a model that has them and is trained by them, such as "
    "BPR_RLMRecCon."
)


def _recbole_files(name: str) -> list[Path]:
    """Return the files of RecBole that may hold a model of this name."""
    return list(_RECBOLE_MODELS.glob(f"*_recommender/{name.lower()}.py")) if name.isidentifier() else []


def _recbole_model(name: str) -> Any:
    # RecBole searches the package of its XGBoost and LightGBM models too, which fails without those libraries.
    if not _recbole_files(name):
        if name in RECBOLE_MODELS:
            raise SettingError(f"RecBole {recbole.__version__} has no {name}; RecBole 1.2.1 has it.")
        raise SettingError(_unknown_model_message(name))
    try:
        with compat.anomaly_detection_as_it_is():
            return get_recbole_model(name)
    except AttributeError:
        # RecBole finds the module by the lower-case name, so a wrong case fails one step later.
        raise SettingError(_unknown_model_message(name)) from None
    except ImportError as error:
        raise SettingError(missing_package(name, error)) from error


def missing_package(name: str, error: ImportError) -> str:
    """Return what to tell someone whose model ``name`` needs a package that is not installed."""
    package = _PACKAGES.get(error.name or "", error.name)
    return f"{name} needs the package '{error.name}', which is not installed: pip install {package}"


def _unknown_model_message(name: str) -> str:
    theirs = [path.stem for path in (_RECBOLE_MODELS.parent / "properties/model").glob("*.yaml")]
    aligned = [backbone + ending for backbone, support in RECBOLE_MODELS.items() for ending in support.endings]
    known = {candidate.lower(): candidate for candidate in [*theirs, *aligned, *MODELS]}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    advice = f" Did you mean {known[near[0]]}?" if near else ""
    return (
        f"There is no model '{name}'.{advice} RLMRec's models are {', '.join(MODELS)}; RecBole's own run as well, "
        "many of them also as <Model>_RLMRecCon and <Model>_RLMRecGen."
    )
