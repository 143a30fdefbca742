"""`recbole-rlmrec update`: from new interactions to a checkpoint that knows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.cli import main
from recbole_rlmrec.files import only_one
from recbole_rlmrec.profile.record import read_profiles
from recbole_rlmrec.quick_start import load_model, run
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items
from recbole_rlmrec.training.checkpoint import load_checkpoint

WORDS = ("dark", "funny", "slow", "old", "loud", "green")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dataset" / "shop"
    folder.mkdir(parents=True)
    rows = [f"u{n % 20}\ti{n * 7 % 23}" for n in range(200)]
    (folder / "shop.inter").write_text("\n".join(["user_id:token\titem_id:token", *rows]) + "\n")
    write_items(folder / "items.jsonl", (text_of(n) for n in range(23)))
    new = ["new\ti1", "new\ti2", "new\ti3", "u1\ti23", "u2\ti23", "u0\ti0"]
    Path("new.inter").write_text("\n".join(["user_id:token\titem_id:token", *new]) + "\n")
    write_items("more.jsonl", [text_of(23)])
    return folder


def text_of(number: int) -> Item:
    return Item(f"i{number}", f"Film {number}", f"A {WORDS[number % 6]} and {WORDS[number % 5]} story.")


def trained(model: str, **more: Any) -> str:
    settings = {"epochs": 2, "embedding_size": 8, "base_first": False, "learning_rate": 0.01, **more}
    result = run(model, "shop", config_dict=settings, own_log=False)
    assert result is not None
    return result.checkpoint


def update(checkpoint: str, *more: str) -> int:
    return main(["update", f"--checkpoint={checkpoint}", "--interactions=new.inter", "--epochs=1", *more])


def test_dataset_texts_and_model_are_brought_up_to_date(shop: Path, capsys: Any) -> None:
    assert main(["build-semantics", "--dataset=shop", "--encoder=lsa", "--dimension=8"]) == 0
    checkpoint = trained("LightGCN_RLMRecCon")
    before = {side: read_profiles(shop / f"shop.{side}prf.jsonl") for side in ("user", "item")}
    content = Path(checkpoint).read_bytes()
    capsys.readouterr()
    assert update(checkpoint, "--items=more.jsonl") == 0
    output = capsys.readouterr().out
    assert "5 new interactions" in output and "there already: 1" in output
    assert "new users: 1, such as 'new'" in output and "new items: 1, such as 'i23'" in output
    line = output.splitlines()[-1]
    assert line.startswith("recall@20 on the same validation: ") and " before, " in line
    newer = line.rpartition(": ")[2]
    loaded = load_model(newer)
    assert {"new", "i23"} <= {*loaded.dataset.field2id_token["user_id"], *loaded.dataset.field2id_token["item_id"]}
    assert load_checkpoint(newer)["settings"]["init_from"] == checkpoint
    assert Path(checkpoint).read_bytes() == content
    after = {side: read_profiles(shop / f"shop.{side}prf.jsonl") for side in ("user", "item")}
    assert "new" in after["user"] and "i23" in after["item"]
    unchanged = {f"u{n}" for n in range(3, 20)}
    assert {after["user"][user].profile == before["user"][user].profile for user in unchanged} == {True}
    # Everything is there, and the new checkpoint knows it.
    assert update(newer) == 2
    assert "Nothing is new" in capsys.readouterr().err
    # The old one does not: as after an update that was stopped in its training.
    assert update(checkpoint) == 0
    assert "the training goes on" in capsys.readouterr().out


@pytest.mark.parametrize("name", [None, "small"])
def test_texts_alone_are_brought_up_to_date(shop: Path, capsys: Any, name: str | None) -> None:
    """The table that the model was trained with, whichever of several that is."""
    for each in {None, name}:
        words = [f"--semantic={each}"] if each else []
        assert main(["build-semantics", "--dataset=shop", "--encoder=lsa", "--dimension=8", *words]) == 0
    checkpoint = trained("LightGCN_RLMRecCon", semantic=name)
    tables = {path.name: path.read_bytes() for path in shop.glob("*emb.npy")}
    rows = (shop / "shop.inter").read_text()
    Path("new.inter").write_text("user_id:token\titem_id:token\nu0\ti0\n")
    write_items("more.jsonl", [replace(text_of(3), description="A loud story of green birds.")])
    capsys.readouterr()
    assert update(checkpoint, "--items=more.jsonl") == 0
    output = capsys.readouterr().out
    assert "0 new interactions" in output and "texts of items, new or others than before: 1" in output
    assert "verdict:" in output and "nearest" not in output
    assert "green birds" in read_profiles(shop / "shop.itemprf.jsonl")["i3"].profile
    assert (shop / "shop.inter").read_text() == rows
    prefix = "shop." if name is None else f"shop.{name}."
    changed = {file for file, content in tables.items() if (shop / file).read_bytes() != content}
    assert changed == {f"{prefix}useremb.npy", f"{prefix}itememb.npy"}
    newer = output.splitlines()[-1].rpartition(": ")[2]
    assert update(newer, "--items=more.jsonl") == 2
    assert "Nothing is new" in capsys.readouterr().err
    # The old one does not know the text: as after an update that was stopped before its training.
    assert update(checkpoint, "--items=more.jsonl") == 0
    assert "the training goes on" in capsys.readouterr().out


def test_two_updates_at_once(shop: Path, capsys: Any) -> None:
    checkpoint = trained("BPR")
    with only_one(shop / ".shop.update.lock", ""):
        assert update(checkpoint) == 2
    assert "Another process updates 'shop'" in capsys.readouterr().err


def test_a_model_without_texts_is_updated(shop: Path, capsys: Any) -> None:
    assert update(trained("BPR")) == 0
    assert "recall@20 on the same validation" in capsys.readouterr().out


def test_what_is_wrong_is_said(shop: Path, capsys: Any) -> None:
    checkpoint = trained("BPR")
    assert update("none.pth") == 2
    assert "There is no checkpoint 'none.pth'" in capsys.readouterr().err
    options = ["--float16", "--encoder-model=x"]
    tuned = {"writer": "template", "encoder": "tuned", "options": options, "encoder_train_sha256": "0"}
    (shop / "shop.semantic.json").write_text(json.dumps(tuned))
    assert update(checkpoint) == 2
    error = capsys.readouterr().err
    assert "are by tuned, which was tuned on the training interactions that there are" in error
    assert "build-semantics --dataset=shop --float16 --encoder-model=MODEL --overwrite`." in error
    (shop / "shop.semantic.json").unlink()
    rows = (shop / "shop.inter").read_text()
    (shop / "shop.inter").write_text(rows.replace("\ti", "\tx").replace("xtem", "item"))
    assert update(checkpoint) == 2
    error = capsys.readouterr().err
    assert "trained on another dataset: none of its 23 items, such as 'i0'" in error and "Traceback" not in error
