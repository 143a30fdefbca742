"""From a model's name to its class."""

from __future__ import annotations

import difflib
from typing import Any

from recbole.utils import get_model as get_recbole_model

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model import rlmrec
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.backbone.simgcl import SimGCL

BACKBONES: tuple[type, ...] = (LightGCN, SGL, SimGCL)

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
    )
}


def get_model(name: str) -> Any:
    """Return the model class of this name: one of ours, else one of RecBole's.

    Args:
        name: such as ``LightGCN_RLMRecCon`` or ``BPR``.

    Raises:
        SettingError: no such model; the message names the nearest.
    """
    if name in MODELS:
        return MODELS[name]
    try:
        return get_recbole_model(name)
    except (ValueError, AttributeError):
        # RecBole finds the module by the lower-case name, so a wrong case fails one step later.
        raise SettingError(_unknown_model_message(name)) from None


def _unknown_model_message(name: str) -> str:
    known = {candidate.lower(): candidate for candidate in [*MODELS, *_recbole_general_models()]}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    advice = f" Did you mean {known[near[0]]}?" if near else ""
    return f"There is no model '{name}'.{advice} RLMRec's models are {', '.join(MODELS)}; RecBole's own run as well."


def _recbole_general_models() -> list[str]:
    from recbole.model import general_recommender

    return [name for name, member in vars(general_recommender).items() if isinstance(member, type)]
