"""Files that are replaced together: a process that is killed in between leaves a marker, and nobody reads them then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World
from killed import killed_at_rename

from recbole_rlmrec.data.file_set import FileSet, require_whole
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sides import Side

STOPPED = "may hold old files beside new ones: what replaced .* was stopped in between"


def table(value: float) -> SemanticEmbedding:
    return SemanticEmbedding.from_arrays(["a", "b"], [[value, 1.0], [value, 2.0]])


def saved(folder: Path, value: float, side: Side = "user") -> None:
    table(value).save(folder, "shop", side)


def first_value(folder: Path, side: Side = "user") -> float:
    return float(SemanticEmbedding.load([folder], "shop", side).vectors[0, 0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("rename", [1, 2, 3])
def test_embeddings_that_were_half_replaced_are_refused_until_they_are_saved_again(tmp_path: Path, rename: int) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 1, "item")
    killed_at_rename(rename, lambda: saved(tmp_path, 2))
    if rename == 1:  # before there was a marker
        assert first_value(tmp_path) == 1
    else:
        with pytest.raises(DataError, match=f"{STOPPED}.*user embeddings again with SemanticEmbedding.save"):
            first_value(tmp_path)
    assert first_value(tmp_path, "item") == 1
    saved(tmp_path, 2)
    assert first_value(tmp_path) == 2
    assert names(tmp_path) == [f"shop.{side}emb.{kind}" for side in ("item", "user") for kind in ("npy", "tokens")]


def test_training_refuses_half_replaced_embeddings(world: World) -> None:
    table = SemanticEmbedding.load([world.folder], world.name, "user")
    killed_at_rename(3, lambda: table.save(world.folder, world.name, "user"))
    with pytest.raises(DataError, match=STOPPED):
        world.model("LightGCN_RLMRecCon")
    world.model("LightGCN")  # which reads none
    table.save(world.folder, world.name, "user")
    world.model("LightGCN_RLMRecCon")


def test_a_set_takes_over_what_it_replaces_whole_and_refuses_to_replace_some_of_it(tmp_path: Path) -> None:
    def write(kind: Any, *names: str) -> None:
        with FileSet(tmp_path, "shop", kind, names).replaced() as paths:
            for name in names:
                paths[name].write_text(kind)

    killed_at_rename(3, lambda: write("build-semantics", "a", "b"))
    with pytest.raises(DataError, match=rf"{STOPPED}.*Run the same `recbole-rlmrec build-semantics --dataset shop"):
        write("useremb", "b")
    require_whole(tmp_path, "shop", ["c"])
    require_whole(tmp_path, "other", ["a"])
    write("import-release", "a", "b", "c")
    require_whole(tmp_path, "shop", ["a", "b", "c"])
    assert names(tmp_path) == ["a", "b", "c"]


def test_how_embeddings_with_a_name_are_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), FileSet(folder, "shop.minilm", "build-semantics", ("a",)).unfinished():
        raise KeyboardInterrupt
    require_whole(folder, "shop", ["a"])
    with pytest.raises(DataError, match=r"build-semantics --dataset shop --semantic=minilm \.\.\.` again"):
        require_whole(folder, "shop.minilm", ["a"])


def test_what_may_not_lie_beside_a_set_is_gone_before_its_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_text("of another")
    files = FileSet(tmp_path, "shop", "import-csv", ("new",), removed=("old",))
    unlink, found = Path.unlink, []

    def noted(path: Path, missing_ok: bool = False) -> None:
        if path.name == "old":
            found.append(files.is_unfinished)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    with files.replaced() as paths:
        paths["new"].write_text("new")
    assert found == [True]
    assert names(tmp_path) == ["new"]


def test_what_a_stopped_set_was_to_remove_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("of another")

    def write() -> None:
        with FileSet(tmp_path, "shop", "import-csv", ("new",), removed=("old",)).replaced():
            pass

    killed_at_rename(2, write)
    with pytest.raises(DataError, match=STOPPED):
        require_whole(tmp_path, "shop", ["old"])
    write()
    assert names(tmp_path) == ["new"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": 1}', b'{"files": [1]}', b"\xff"])
def test_a_marker_that_cannot_be_read_stands_for_all_files(tmp_path: Path, content: bytes) -> None:
    marker = tmp_path / ".shop.prepare.unfinished.json"
    marker.write_bytes(content)
    with pytest.raises(DataError, match=rf"{STOPPED}.*remove '{marker}'"):
        require_whole(tmp_path, "shop", ["a"])


def fail_to_rename(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)


@pytest.mark.parametrize(
    ("rename", "said"), [(1, "Nothing there was changed."), (3, "Write the user embeddings again")]
)
def test_a_failure_says_whether_something_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int, said: str
) -> None:
    saved(tmp_path, 1)
    fail_to_rename(rename, monkeypatch)
    with pytest.raises(DataError, match=f"Cannot write in .*No space left on device. {said}"):
        saved(tmp_path, 2)
    left = [".shop.useremb.unfinished.json"] if rename == 3 else []
    assert names(tmp_path) == [*left, "shop.useremb.npy", "shop.useremb.tokens"]


def test_a_name_that_a_folder_has_changes_nothing(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "shop.useremb.tokens").unlink()
    (tmp_path / "shop.useremb.tokens").mkdir()
    with pytest.raises(DataError, match=r"shop\.useremb\.tokens'\. Nothing there was changed"):
        saved(tmp_path, 2)
    assert np.load(tmp_path / "shop.useremb.npy")[0, 0] == 1


def test_an_empty_folder_of_the_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    for folder in ("mine", "new"):
        with pytest.raises(DataError, match="Cannot write in"):
            table(1).save(tmp_path / folder, "shop", "user")
    assert names(tmp_path) == ["mine"]
