"""Models by name, and what a wrong name is answered."""

from __future__ import annotations

import pytest
from recbole.model.general_recommender import BPR
from recbole.model.general_recommender import LightGCN as RecBoleLightGCN

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.alignment.contrastive import ContrastiveAlignment
from recbole_rlmrec.model.alignment.generative import GenerativeAlignment
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.recbole_models import NCLAdapter
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.registry import ALIGNMENTS, BACKBONES, base_of, get_model, names
from recbole_rlmrec.recbole_names import recbole_name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_model_of_the_paper_is_found_by_its_name(backbone: str) -> None:
    base, con, gen = (get_model(backbone + variant) for variant in ("", "_RLMRecCon", "_RLMRecGen"))
    assert (con.__name__, gen.__name__) == (f"{backbone}_RLMRecCon", f"{backbone}_RLMRecGen")
    assert issubclass(con, base) and issubclass(con, ContrastiveAlignment)
    assert issubclass(gen, base) and issubclass(gen, GenerativeAlignment)
    assert not issubclass(base, (ContrastiveAlignment, GenerativeAlignment))


def test_names_are_the_classes_own() -> None:
    assert all(get_model(name) is get_model(name) and get_model(name).__name__ == name for name in names())


def test_ours_goes_before_recboles_of_the_same_name() -> None:
    assert get_model("LightGCN") is not RecBoleLightGCN
    assert issubclass(get_model("LightGCN"), RecBoleLightGCN)


def test_recboles_models_are_found() -> None:
    assert get_model("BPR") is BPR


@pytest.mark.parametrize(("name", "near"), [("lightgcn", "LightGCN"), ("sgl", "SGL"), ("bpr", "BPR")])
def test_wrong_case_of_a_recbole_name_names_the_right_one(name: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"There is no model '{name}'\. Did you mean {near}\?"):
        get_model(name)


# RecBole's get_model looks into recbole.model.exlib_recommender last, whose import fails without lightgbm and xgboost.
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("LightGCN_RLMRecCan", "LightGCN_RLMRecCon"),
        ("lightgcn_rlmreccon", "LightGCN_RLMRecCon"),
        ("SimGLC", "SimGCL"),
    ],
)
def test_misspelt_name_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"There is no model '{name}'\. Did you mean {near}\?"):
        get_model(name)


@pytest.mark.parametrize("name", ["xq!!", "", "some.module", "../secret"])
def test_garbage_is_answered_with_the_known_names(name: str) -> None:
    with pytest.raises(SettingError) as refusal:
        get_model(name)
    message = str(refusal.value)
    assert message.startswith(f"There is no model '{name}'. RLMRec's models are ")
    assert "Did you mean" not in message
    assert all(known in message for known in ("LightGCN", "SGL_RLMRecCon", "SimGCL_RLMRecGen"))


def test_every_aligned_class_has_its_backbone_for_a_base() -> None:
    for name in names():
        backbone, _, ending = name.partition("_")
        assert base_of(get_model(name)) is (BACKBONES[backbone] if f"_{ending}" in ALIGNMENTS else None)


def test_the_base_of_a_recbole_model_has_its_name_and_what_its_adapter_repairs() -> None:
    base = base_of(get_model("NCL_RLMRecCon"))
    assert base is not None and base.__name__ == "NCL" == recbole_name(base)
    assert issubclass(base, NCLAdapter) and not issubclass(base, tuple(ALIGNMENTS.values()))


def test_the_base_of_a_class_from_outside_is_the_model_it_aligns() -> None:
    class Mine(get_model("LightGCN_RLMRecCon")):  # type: ignore[misc]
        pass

    class Another(ContrastiveAlignment, SGL):
        pass

    assert base_of(Mine) is LightGCN and base_of(Another) is SGL
