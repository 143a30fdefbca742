"""Profiles of items that a dataset does not have yet, and texts that an encoder learns from again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.newcomers import item_profiles_of, open_text_space
from recbole_rlmrec.profile.record import Profile, profiles_path, read_profiles
from recbole_rlmrec.profile.writer import Task, Writer
from recbole_rlmrec.semantics import BuildSettings, build_semantics
from recbole_rlmrec.sides import Side
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import read_items

#: In the tests' data only, so that nobody's training interaction is with it.
UNSEEN = "i7"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RLMRecConfig:
    """A dataset of games with texts, and embeddings by template and lsa."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dataset" / "shop"
    folder.mkdir(parents=True)
    rows = [(f"u{user}", f"i{item}", "train") for user in range(6) for item in range(7) if (user + item) % 2]
    rows += [(f"u{user}", UNSEEN, "test" if user else "valid") for user in range(6)]
    lines = ["user_id:token\titem_id:token\tsplit:token", *("\t".join(row) for row in rows)]
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    kinds = [["Action", "Indie", "Puzzle"], ["Action"], ["Puzzle", "Action"]]
    items = [
        {"item_id": f"i{item}", "title": f"Game number {item}", "attributes": {"genres": kinds[item % 3]}}
        for item in range(8)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    settings = {"data_path": "dataset", "split_field": "split", "text_domain": "games", "state": "ERROR"}
    config = RLMRecConfig("BPR", "shop", config_dict=settings)
    build_semantics(config, BuildSettings(), progress=False)
    return config


def folder_of(config: RLMRecConfig) -> Path:
    return Path(config.data_folders[0])


def test_sentences_are_those_of_an_item_without_interactions(config: RLMRecConfig) -> None:
    written = read_profiles(profiles_path(folder_of(config), "shop", "item"))[UNSEEN].profile
    item = read_items(folder_of(config) / "items.jsonl")[UNSEEN]
    assert item_profiles_of(config, [item, Item("silent")]) == {UNSEEN: written}


class Asked(Writer):
    """A writer that is asked, and notes of what."""

    known_as = "asked"

    def plan(self, task: Task) -> None: ...

    def write(self, task: Task, side: Side, item_profiles: Mapping[str, str]) -> dict[str, Profile]:
        return {
            token: Profile(token, f"{side} {item.title}", "", "asked", "", "")
            for token, item in task.corpus.items.items()
        }


def test_a_language_model_is_asked_of_new_items_only_where_it_is_given(
    config: RLMRecConfig, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder_of(config) / "shop.semantic.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "writer": "llm:m"}))
    new = Item("n1", "Tetris", attributes={"genres": ("Puzzle",)})
    with caplog.at_level(logging.WARNING):
        assert item_profiles_of(config, [new]) == {"n1": "Tetris. Genres: Puzzle."}
    assert "by llm:m; new items get profiles by the template" in caplog.text
    assert item_profiles_of(config, [new], Asked()) == {"n1": "item Tetris"}


@pytest.mark.parametrize("has_profiles", [True, False])
def test_lsa_learns_again_from_profiles_or_from_what_the_template_writes(
    config: RLMRecConfig, has_profiles: bool
) -> None:
    before = open_text_space(config).vectors(["puzzle game"])
    (folder_of(config) / "shop.lsa.npz").unlink()
    if not has_profiles:
        for side in ("user", "item"):
            profiles_path(folder_of(config), "shop", side).unlink()
    np.testing.assert_allclose(open_text_space(config).vectors(["puzzle game"]), before, atol=1e-4)


def test_other_profiles_are_not_learned_from(config: RLMRecConfig) -> None:
    (folder_of(config) / "shop.lsa.npz").unlink()
    path = profiles_path(folder_of(config), "shop", "item")
    path.write_text(path.read_text().replace("Indie", "Strategy"))
    with pytest.raises(DataError, match=r"nor the profiles that it learned from\. Run build-semantics --overwrite"):
        open_text_space(config).vectors(["puzzle"])
