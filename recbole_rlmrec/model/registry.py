"""From a model's name to its class."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import recbole.model
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


_RECBOLE_MODELS = Path(recbole.model.__file__).parent


def get_model(name: str) -> Any:
    """Return the model class of this name: one of ours, else one of RecBole's.

    Args:
        name: such as ``LightGCN_RLMRecCon`` or ``BPR``.

    Raises:
        SettingError: no such model, the message names the nearest; or a package that it needs is missing.
    """
    if name in MODELS:
        return MODELS[name]
    # RecBole searches the package of its XGBoost and LightGBM models too, which fails without those libraries.
    if not name.isidentifier() or not any(_RECBOLE_MODELS.glob(f"*_recommender/{name.lower()}.py")):
        raise SettingError(_unknown_model_message(name))
    try:
        return get_recbole_model(name)
    except AttributeError:
        # RecBole finds the module by the lower-case name, so a wrong case fails one step later.
        raise SettingError(_unknown_model_message(name)) from None
    except ImportError as error:
        raise SettingError(f"{name} needs the package '{error.name}', which is not installed.") from error


def _unknown_model_message(name: str) -> str:
    theirs = [path.stem for path in (_RECBOLE_MODELS.parent / "properties/model").glob("*.yaml")]
    known = {candidate.lower(): candidate for candidate in [*theirs, *MODELS]}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    advice = f" Did you mean {known[near[0]]}?" if near else ""
    return f"There is no model '{name}'.{advice} RLMRec's models are {', '.join(MODELS)}; RecBole's own run as well."
