"""From a model's name to its class."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import recbole
import recbole.model
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import get_model as get_recbole_model

from recbole_rlmrec import compat
from recbole_rlmrec.errors import ContractError, SettingError
from recbole_rlmrec.model import backbone as backbones
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.alignment.contrastive import ContrastiveAlignment
from recbole_rlmrec.model.alignment.generative import GenerativeAlignment
from recbole_rlmrec.model.alignment.promax import ProMaxAlignment
from recbole_rlmrec.model.backbone.autocf import AutoCF
from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.backbone.contract import Backbone, ModelFlags, settings_along, settings_classes_of
from recbole_rlmrec.model.backbone.dccf import DCCF
from recbole_rlmrec.model.backbone.gccf import GCCF
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.recbole_models import RECBOLE_MODELS
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.backbone.simgcl import SimGCL
from recbole_rlmrec.model.baseline.alpharec import AlphaRec
from recbole_rlmrec.model.baseline.dmrec import DMRec
from recbole_rlmrec.model.baseline.freedom import FREEDOM
from recbole_rlmrec.model.baseline.kar import SGL_KAR, LightGCN_KAR
from recbole_rlmrec.model.baseline.linear_items import L3AE, AdditiveEASE, CollectiveEASE, TextEASE
from recbole_rlmrec.model.baseline.semantic_only import SemanticOnly
from recbole_rlmrec.model.baseline.text_gcn import TextGCN, TextGCNMLP
from recbole_rlmrec.model.language.settings import GALRecSettings
from recbole_rlmrec.parts import register_entry_points
from recbole_rlmrec.run_settings import RUN_CLASSES
from recbole_rlmrec.settings import ALIGNMENT_WEIGHTS, declare


def _found_backbones() -> list[type[Backbone]]:
    """Return the paper's backbones, then whatever else lies beside them, by module."""
    found: list[type[Backbone]] = [LightGCN, SGL, SimGCL, GCCF, DCCF, AutoCF]
    for module in pkgutil.iter_modules(backbones.__path__, f"{backbones.__name__}."):
        content = vars(importlib.import_module(module.name)).values()
        classes = [each for each in content if isinstance(each, type) and each.__module__ == module.name]
        models = [each for each in classes if issubclass(each, GeneralRecommender) and issubclass(each, Backbone)]
        found += [each for each in models if each not in found]
    return found


#: Backbones that are no model of RecBole's as it is, by name; a RecBole model of the same name is the one ours extends.
BACKBONES: dict[str, type[Backbone]] = {model.__name__: model for model in _found_backbones()}

#: Alignments by the ending of a model's name.
ALIGNMENTS: dict[str, type[Alignment]] = {
    alignment.ending: alignment for alignment in (ContrastiveAlignment, GenerativeAlignment, ProMaxAlignment)
}

_OF_TEXTS: tuple[type, ...] = (SemanticOnly, LightGCN_KAR, SGL_KAR, AlphaRec, TextGCN, TextGCNMLP, FREEDOM, DMRec)
_IN_CLOSED_FORM: tuple[type, ...] = (TextEASE, AdditiveEASE, CollectiveEASE, L3AE)

#: Further models, which are not aligned.
BASELINES: dict[str, type] = {model.__name__: model for model in (*_OF_TEXTS, *_IN_CLOSED_FORM)}

#: Models that hold a language model, and the modules that have them, which are imported when one is asked for.
LANGUAGE_MODELS: dict[str, str] = {"GALRec": "recbole_rlmrec.model.language.galrec"}


def _declare_along(model: type) -> None:
    declare(*(settings for _, declared in settings_along(model) for settings in declared))


declare(*RUN_CLASSES, of_recbole=True)
for _known in (*ALIGNMENTS.values(), *BACKBONES.values(), *BASELINES.values()):
    _declare_along(_known)
declare(GALRecSettings)
ALIGNMENT_WEIGHTS.update(alignment.weight_setting for alignment in ALIGNMENTS.values())

#: Packages that RecBole's models import while they are built or trained and that have another name in the index.
_PACKAGES = {"faiss": "faiss-cpu", "community": "python-louvain", "kmeans_pytorch": "kmeans-pytorch"}

_RECBOLE_MODELS = Path(recbole.model.__file__).parent


def names() -> list[str]:
    """Return the names of our models: each backbone alone and with each alignment, then the baselines."""
    _load_entry_points()
    aligned = [backbone + ending for backbone in BACKBONES for ending in ALIGNMENTS]
    return [*BACKBONES, *aligned, *BASELINES, *LANGUAGE_MODELS]


def get_model(name: str) -> Any:
    """Return the model class of this name: a backbone, RecBole's included, with or without an alignment, or a baseline.

    Args:
        name: such as ``LightGCN``, ``LightGCN_RLMRecCon``, ``BPR`` or ``BPR_RLMRecCon``.

    Raises:
        SettingError: no such model, the message names the nearest; it cannot be aligned, the message says why; or a
            package that it needs is missing.

    >>> get_model("LightGCN_RLMRecCon").__name__
    'LightGCN_RLMRecCon'
    """
    # RecBole's own configuration can be given the class as well.
    compat.apply()
    _load_entry_points()
    for whole in (BACKBONES, BASELINES):
        if name in whole:
            return whole[name]
    if name in LANGUAGE_MODELS:
        return getattr(importlib.import_module(LANGUAGE_MODELS[name]), name)
    for ending in _endings():
        if name.endswith(ending):
            return _aligned_model(name.removesuffix(ending), ending)
    return _recbole_model(name)


def is_ours(model: Any) -> bool:
    """Return whether a model is to be had from this package and not from RecBole.

    Args:
        model: a name: ours are those that RecBole has not. Or a class: ours are those of this package, those that
            extend its contracts, and those that are registered with it.
    """
    if isinstance(model, str):
        return not _recbole_files(model)
    return isinstance(model, type) and (issubclass(model, ModelFlags) or model in BASELINES.values())


def _endings() -> list[str]:
    """Return the endings, the longest first: one may be the end of another."""
    return sorted(ALIGNMENTS, key=len, reverse=True)


def register(cls: type) -> type:
    """Make a class from outside known by its name: a backbone, an alignment or a model of its own.

    A backbone extends :class:`~recbole_rlmrec.model.backbone.base.GraphBackbone` and a model class of RecBole's; then
    ``<Backbone>`` and ``<Backbone><ending>`` for every alignment can be asked for. An alignment extends
    :class:`~recbole_rlmrec.model.alignment.base.Alignment`; then ``<Backbone><its ending>`` can. Another model extends
    RecBole's ``GeneralRecommender``. A package registers its classes by itself where it names them as entry points of
    the group ``recbole_rlmrec.models`` or ``recbole_rlmrec.alignments``; what is registered by hand is known to this
    process only.

    Args:
        cls: the class. Its settings are those of ``settings_classes``; over the defaults that these declare lies a
            ``<Class>.yaml`` beside its module, where there is one.

    Returns:
        The class, so that this can be its decorator.

    Raises:
        ContractError: the class is none of these, lacks something, or has a name, an ending or a setting that exists.
    """
    if not is_model_part(cls):
        found = cls.__name__ if isinstance(cls, type) else repr(cls)
        raise ContractError(f"{found} is no GraphBackbone, no Alignment and no GeneralRecommender of RecBole's.")
    known: dict[str, Any] = BASELINES
    name = cls.__name__
    if not issubclass(cls, GeneralRecommender) and issubclass(cls, Alignment):
        _check_alignment(cls)
        known, name = ALIGNMENTS, cls.ending
    elif issubclass(cls, Backbone) and not issubclass(cls, Alignment):
        _check_backbone(cls)
        known = BACKBONES
    _check_name(known, name, cls)
    _declare_along(cls)
    known[name] = cls
    for key in [key for key in _ALIGNED if name in key]:
        del _ALIGNED[key]
    if issubclass(cls, Alignment):
        ALIGNMENT_WEIGHTS.add(cls.weight_setting)
    return cls


def is_model_part(cls: object) -> bool:
    """Return whether something is a class of a backbone, an alignment or another model that can be registered."""
    return isinstance(cls, type) and issubclass(cls, (Backbone, GeneralRecommender))


def _check_name(known: dict[str, Any], name: str, cls: type) -> None:
    taken = ALIGNMENTS.get(name) if known is ALIGNMENTS else BACKBONES.get(name) or BASELINES.get(name)
    if known is not ALIGNMENTS and name in LANGUAGE_MODELS:
        taken = get_model(name)
    if known is ALIGNMENTS:
        taken = taken or next((model for title, model in BASELINES.items() if title.endswith(name)), None)
    elif taken is None and _recbole_files(name):
        raise ContractError(f"{cls.__module__}.{cls.__name__}: RecBole has a model '{name}'. Choose another name.")
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ContractError(
            f"{cls.__module__}.{cls.__name__}: '{name}' is taken by {taken.__module__}.{taken.__name__}. Choose "
            "another name."
        )


def _check_backbone(cls: type[Backbone]) -> None:
    if not issubclass(cls, GeneralRecommender):
        raise ContractError(
            f"{cls.__name__} is a backbone, but no model: put a model class of RecBole's, such as "
            "recbole_rlmrec.model.backbone.tables.EmbeddingTables, behind GraphBackbone in its bases."
        )
    if "_" in cls.__name__:
        raise ContractError(f"{cls.__name__}: what follows a '_' in a model's name is an alignment. Leave it out.")
    if cls.__mro__.index(Backbone) > cls.__mro__.index(GeneralRecommender):
        raise ContractError(
            f"{cls.__name__}: GraphBackbone must stand before the model class of RecBole's in its bases."
        )
    if cls.step is Backbone.step:
        raise ContractError(f"{cls.__name__} breaks the backbone contract: it lacks step(). Extend GraphBackbone.")
    if issubclass(cls, GraphBackbone) and cls.calculate_loss is not GraphBackbone.calculate_loss:
        raise ContractError(
            f"{cls.__name__} breaks the backbone contract: it overrides calculate_loss(), which an alignment does not "
            "call. Supply loss_terms(), or step()."
        )


def _check_alignment(cls: type[Alignment]) -> None:
    asked = {"ending": "such as _Cosine", "term_name": "that of the log", "weight_setting": "the setting's name"}
    for name, what in asked.items():
        if not isinstance(getattr(cls, name, None), str):
            raise ContractError(f"{cls.__name__} breaks the contract of alignments: it lacks {name}, {what}.")
    if not cls.ending.startswith("_") or not cls.ending[1:].isidentifier():
        raise ContractError(f"{cls.__name__}.ending = {cls.ending!r}: expected '_' and a name, such as _Cosine.")
    if cls.formula is Alignment.formula:
        raise ContractError(f"{cls.__name__} breaks the contract of alignments: it lacks formula().")
    first = next(iter(settings_classes_of(cls)), None)
    if cls.weight_setting not in getattr(first, "__dataclass_fields__", {}):
        raise ContractError(
            f"{cls.__name__}: its weight '{cls.weight_setting}' is no field of the first of its settings_classes."
        )


#: Groups of entry points by which other packages name their classes; one group's classes may stand in the other.
_GROUPS = ("recbole_rlmrec.models", "recbole_rlmrec.alignments")

#: What is to be said of entry points that could not be loaded.
_FAILURES: list[str] = []

_is_loaded = False


def _load_entry_points() -> None:
    """Register the classes that installed packages name as entry points; one that fails leaves the others alone."""
    global _is_loaded
    if _is_loaded:
        return
    _is_loaded = True  # first: a package may ask for models of ours while it is imported
    for group in _GROUPS:
        _FAILURES.extend(register_entry_points(group, register))


def __getattr__(name: str) -> Any:
    """Return a class that :func:`get_model` makes, so that it is reachable by its name in this module."""
    if name.endswith(tuple(ALIGNMENTS)):
        try:
            return get_model(name)
        except SettingError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def base_of(model: type) -> type | None:
    """Return the backbone that an aligned class aligns, as a model of its own; None for a class without alignment.

    Args:
        model: any model class.

    >>> base_of(get_model("SGL_RLMRecGen")).__name__, base_of(get_model("SGL"))
    ('SGL', None)
    """
    if not issubclass(model, Alignment):
        return None
    name = next((model.__name__.removesuffix(end) for end in _endings() if model.__name__.endswith(end)), "")
    support = RECBOLE_MODELS.get(name)
    if support is not None and support.adapter is not None and issubclass(model, support.adapter):
        # RecBole's model with what its adapter repairs, such as the errors of NCL's clustering; its numbers are
        # RecBole's.
        content = {"__module__": __name__, "__qualname__": name, "__doc__": f"RecBole's {name}."}
        return type(name, (support.adapter, _recbole_model(name)), content)
    return next((base for base in model.__mro__[1:] if _is_whole(base)), None)


def base_name_of(name: str) -> str | None:
    """Return the class name of the base of a model; None for one without alignment, or that is not known here.

    >>> base_name_of("SGL_RLMRecGen"), base_name_of("SGL"), base_name_of("Theirs")
    ('SGL', None, None)
    """
    try:
        base = base_of(get_model(name))
    except SettingError:
        return None
    return None if base is None else base.__name__


def _is_whole(model: type) -> bool:
    """Return whether a class is a model by itself, without an alignment."""
    return issubclass(model, GeneralRecommender) and not issubclass(model, Alignment)


def endings_of(backbone: str) -> tuple[str, ...]:
    """Return the endings of the alignments that a backbone can have.

    Args:
        backbone: its name, ours or RecBole's.

    >>> "_RLMRecCon" in endings_of("BPR"), endings_of("Pop")
    (True, ())
    """
    if backbone in BACKBONES:
        return tuple(ALIGNMENTS)
    support = RECBOLE_MODELS.get(backbone)
    if support is None or support.adapter is None:
        return ()
    return tuple(ending for ending, alignment in ALIGNMENTS.items() if not (alignment.masks and support.no_gen))


#: Classes made of backbone and ending.
_ALIGNED: dict[tuple[str, str], type] = {}


def _aligned_model(backbone: str, ending: str) -> type:
    """Return the class of a backbone with an alignment, always the same."""
    if (backbone, ending) not in _ALIGNED:
        _ALIGNED[backbone, ending] = _made(backbone, ending)
    return _ALIGNED[backbone, ending]


def _made(backbone: str, ending: str) -> type:
    """Make the class of a backbone with an alignment.

    Raises:
        SettingError: there is no such model, or it cannot be aligned.
    """
    name, mixin = backbone + ending, ALIGNMENTS[ending]
    if backbone in BACKBONES:
        content = {"__module__": __name__, "__qualname__": name, "__doc__": f"{backbone} with {mixin.__name__}."}
        return type(name, (mixin, BACKBONES[backbone]), content)
    support = RECBOLE_MODELS.get(backbone)
    if support is None:
        kinds = [path.parent.name for path in _recbole_files(backbone) if path.parent.name != "general_recommender"]
        if not kinds:
            raise SettingError(_unknown_model_message(name))
        kind = kinds[0].replace("_", "-").replace("-recommender", " recommender")
        raise SettingError(f"{backbone} is one of RecBole's {kind}s; RLMRec aligns general recommenders. {_ADVICE}")
    if support.adapter is None:
        raise SettingError(f"{backbone} {support.note}. {_ADVICE}")
    if mixin.masks and support.no_gen:
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
    """Return the advice for someone whose model ``name`` needs a package that is not installed."""
    package = _PACKAGES.get(error.name or "", error.name)
    return f"{name} needs the package '{error.name}', which is not installed: pip install {package}"


def _unknown_model_message(name: str) -> str:
    theirs = [path.stem for path in (_RECBOLE_MODELS.parent / "properties/model").glob("*.yaml")]
    aligned = [backbone + ending for backbone in RECBOLE_MODELS for ending in endings_of(backbone)]
    ours = names()
    known = {candidate.lower(): candidate for candidate in [*theirs, *aligned, *ours]}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    advice = f" Did you mean {known[near[0]]}?" if near else ""
    return (
        f"There is no model '{name}'.{advice} RLMRec's models are {', '.join(ours)}; RecBole's own run as well, "
        f"many of them also as {', '.join(f'<Model>{ending}' for ending in ALIGNMENTS)}. A class from another "
        "package has to be registered: by recbole_rlmrec.register, or by an entry point."
        + "".join(f" {failure}" for failure in _FAILURES)
    )
