"""What alignment changes, illustrated: from what a comparison leaves, kept; what is said where that is gone."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import World

from recbole_rlmrec.experiment import illustrations
from recbole_rlmrec.experiment.compare import compare
from recbole_rlmrec.experiment.illustrations import illustrations_of
from recbole_rlmrec.experiment.known_data import warned_before
from recbole_rlmrec.experiment.report_text import write_text_report
from recbole_rlmrec.profile.record import Profile, profiles_path, write_profiles
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items

MODELS = ["LightGCN", "LightGCN_RLMRecCon"]
PARTS = ("case_study", "map", "side_by_side")
GENRES = ("Crime", "Drama", "War")


def write_texts(world: World) -> None:
    items = [Item(f"i{n}", f"*Title* {n} <b>", attributes={"genre": (GENRES[n % 3],)}) for n in range(29)]
    write_items(world.folder / "items.jsonl", items)
    users = [Profile(f"u{n}", f"Likes {n}.", "", "template", "0", "0") for n in range(40)]
    write_profiles(profiles_path(world.folder, world.name, "user"), users)


@pytest.fixture
def folder(world: World, cells_here: list[str], small: dict[str, Any]) -> Path:
    write_texts(world)
    options: dict[str, Any] = {"settings": small, "report": lambda text: None}
    return compare(MODELS, world.name, (1,), world.root / "out", **options).folder


def test_illustrations_are_made_of_what_is_there_and_kept(
    folder: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    [illustration] = illustrations_of(folder)
    assert (illustration["model"], illustration["base"], illustration["seed"]) == ("LightGCN_RLMRecCon", "LightGCN", 1)
    study, places, users = (illustration[name] for name in PARTS)
    assert (
        json.loads((folder / "case_study.json").read_text())["models"]["LightGCN_RLMRecCon"]["pairs"] == study["pairs"]
    )
    for pair in study["pairs"]:
        assert pair["rank"]["aligned"] < pair["rank"]["base"] <= pair["of"] == 39
        assert pair["profiles"] == [f"Likes {user[1:]}." for user in pair["users"]]
        first, second = (world.semantic[0][user] for user in pair["users"])
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert pair["text similarity"] == pytest.approx(cosine, abs=1e-5)
    assert len(places["items"]) == 30 and {len(each) for each in places["places"].values()} == {30}
    of_item = dict(zip(places["items"], zip(places["titles"], places["genres"])))
    assert of_item["i4"] == ("*Title* 4 <b>", "Drama") and of_item["i29"] == ("i29", None)
    assert places["agreement"]["chance"] == pytest.approx(10 / 29)
    held_out = {(user, item) for user, item in world.test.tolist()}
    for user in users["users"]:
        for each in user["lists"]["aligned"]:
            assert each["hit"] == ((user["user"], each["item"]) in held_out)
    monkeypatch.setattr(illustrations, "load_model", None)
    assert illustrations_of(folder) == [illustration]
    text = write_text_report(folder).read_text()
    assert "Likes" in text and "## Case study" in text and r"\*Title\* 4 \<b\>" in text and "<b>" not in text


def test_similarities_and_agreement_are_those_of_the_models(folder: Path) -> None:
    [illustration] = illustrations_of(folder)
    pair = illustration["case_study"]["pairs"][0]
    for name, model in (("base", "LightGCN"), ("aligned", "LightGCN_RLMRecCon")):
        result = json.loads((folder / f"cells/{model}-1.json").read_text())
        users = load_model(result["checkpoint"]).representations("user")
        tokens = [str(token) for token in users.tokens]
        table = users.vectors / np.linalg.norm(users.vectors, axis=1, keepdims=True)
        cosines = table @ table[tokens.index(pair["users"][0])]
        of_pair = cosines[tokens.index(pair["users"][1])]
        assert pair["similarity"][name] == pytest.approx(float(of_pair), abs=1e-5)
        assert pair["rank"][name] == (cosines > of_pair + 1e-7).sum()  # with the user himself, who is the nearest


def test_where_checkpoints_are_gone_it_is_said(folder: Path) -> None:
    """Lists need none."""
    shutil.rmtree(folder / "saved")
    [illustration] = illustrations_of(folder)
    for part in ("case_study", "map"):
        assert (
            illustration[part].keys() == {"missing"}
            and "The checkpoint of LightGCN with seed 1 is gone" in illustration[part]["missing"]
        )
    assert illustration["side_by_side"]["users"]
    assert "Not there: The checkpoint of LightGCN" in write_text_report(folder).read_text()


def test_what_trainings_have_warned_of_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("recbole_rlmrec.data")
    with warned_before():
        logger.warning("Some items have no interaction.")
    logger.warning("Something else.")
    assert caplog.messages == ["Something else."]


def test_other_data_than_those_of_the_comparison(folder: Path, world: World) -> None:
    """Which would give the internal ids of the lists to other items."""
    path = world.folder / f"{world.name}.train.inter"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:1], *lines[:0:-1]]))
    [illustration] = illustrations_of(folder)
    assert "have changed since the comparison was made (" in illustration["side_by_side"]["missing"]
    assert all("the files it was trained on" in illustration[part]["missing"] for part in ("case_study", "map"))


def test_what_has_changed_is_made_again(folder: Path, world: World) -> None:
    """Texts, and a damaged file."""
    first = illustrations_of(folder)
    path = folder / "illustrations/LightGCN_RLMRecCon.json"
    path.write_text(path.read_text()[:100])
    assert illustrations_of(folder) == first
    write_items(world.folder / "items.jsonl", [Item("i4", "Other")])
    [illustration] = illustrations_of(folder)
    assert (
        dict(zip(illustration["map"]["items"], illustration["map"]["titles"]))["i4"] == "Other"
        and illustration["map"]["genres"] is None
    )


def test_a_base_that_was_kept_with_every_seed(folder: Path) -> None:
    path = folder / "cells/LightGCN_RLMRecCon-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kept": "base"}))
    [illustration] = illustrations_of(folder)
    assert illustration["seed"] is None
    assert all("There is no seed with which both were trained" in illustration[part]["missing"] for part in PARTS)


def test_genres_are_beside_the_lists(folder: Path) -> None:
    content = json.loads((folder / "comparison.json").read_text())
    value = content["cells"]["LightGCN-1"]["lists"]["genres"]
    lines = content["tables"]["Lists"]["lines"]
    assert value > 0 and lines[0][-1] == "genres (nats)" and lines[1][-1] == f"{value:.3f}"
    assert "genres (nats)" in (folder / "table.md").read_text()
