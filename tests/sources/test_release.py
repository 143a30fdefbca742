"""The released files: read without running them, checked against each other, written once and always the same."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import killed_at_rename
from pickles import (
    ITEM_PROFILES,
    N_ITEMS,
    N_USERS,
    PROTOCOLS,
    TRAIN,
    USER_PROFILES,
    Attack,
    dump,
    edited,
    matrix,
    unit_rows,
)

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.atomic_file import MISSING_TOKENS
from recbole_rlmrec.data.preparation import create_dataset
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.data.table import Table
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources import release
from recbole_rlmrec.sources.release import ReleaseSummary, import_release
from recbole_rlmrec.verbs import import_release as verb

VALID = [(2, 2), (1, 0)]
TEST = [(0, 1)]
USER_IDS = ["A10", "b 2", "007", "ünï"]
ITEM_IDS = ["0373730489", "77", "Z"]
PICKLES = ["trn_mat.pkl", "usr_emb_np.pkl", "itm_emb_np.pkl", "usr_prf.pkl", "itm_prf.pkl"]


def write_map(path: Path, key: str, name: str, ids: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps({key: row, name: original}) for row, original in enumerate(ids)), "utf-8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A release folder with every file."""
    folder = tmp_path / "amazon"
    folder.mkdir()
    for name, pairs in (("trn", TRAIN), ("val", VALID), ("tst", TEST)):
        dump(folder / f"{name}_mat.pkl", matrix(pairs))
    dump(folder / "usr_emb_np.pkl", unit_rows(N_USERS))
    dump(folder / "itm_emb_np.pkl", unit_rows(N_ITEMS))
    dump(folder / "usr_prf.pkl", USER_PROFILES)
    dump(folder / "itm_prf.pkl", ITEM_PROFILES)
    write_map(folder / "mapper" / "amazon_user.json", "uid", "reviewerID", USER_IDS)
    write_map(folder / "mapper" / "amazon_item.json", "iid", "asin", ITEM_IDS)
    return folder


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Callable[..., ReleaseSummary]:
    """Import ``source`` as amazon-book into tmp_path/out."""

    def call(**arguments: Any) -> ReleaseSummary:
        return import_release(source, **{"dataset": "amazon-book", "output": tmp_path / "out", **arguments})

    return call


@pytest.fixture
def refused(run: Callable[..., ReleaseSummary], tmp_path: Path) -> Callable[..., str]:
    """Import, expect a DataError and nothing written, and return its message."""

    def call(**arguments: Any) -> str:
        with pytest.raises(DataError) as caught:
            run(**arguments)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    return call


def written(tmp_path: Path, dataset: str = "amazon-book") -> dict[str, bytes]:
    """Bytes of every file of the dataset, by the part of its name after the dataset's."""
    folder = tmp_path / "out" / dataset
    return {path.name[len(dataset) + 1 :]: path.read_bytes() for path in sorted(folder.iterdir())}


def inter(pairs: list[tuple[int, int]], users: list[str] = USER_IDS, items: list[str] = ITEM_IDS) -> bytes:
    """The atomic file of some pairs, by the slow way."""
    lines = ["user_id:token\titem_id:token", *(f"{users[row]}\t{items[column]}" for row, column in sorted(pairs))]
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


# ---------------------------------------------------------------------- what is written


def test_all_files(run: Callable[..., ReleaseSummary], tmp_path: Path) -> None:
    summary = run()
    files = written(tmp_path)
    assert files["train.inter"] == inter(TRAIN)
    assert files["train.inter"].startswith(b"user_id:token\titem_id:token\nA10\t0373730489\nA10\tZ\nb 2\tZ\n")
    assert files["valid.inter"] == inter(VALID)
    assert files["test.inter"] == inter(TEST)
    assert files["useremb.tokens"].decode("utf-8") == "A10\nb 2\n007\nünï\n"
    assert files["itememb.tokens"] == b"0373730489\n77\nZ\n"
    assert files["semantic.json"].endswith(b"}\n")
    assert list(json.loads(files["semantic.json"]).items()) == [
        ("dimension", 5),
        ("encoder", "text-embedding-ada-002 (RLMRec release)"),
        ("normalized", True),
        ("source", "RLMRec release"),
    ]
    assert [json.loads(line) for line in files["userprf.jsonl"].decode("utf-8").rstrip("\n").split("\n")] == [
        {"token": "A10", "profile": "Kéç \u2028", "reasoning": "", "writer": "RLMRec release"},
        {"token": "b 2", "profile": "Likes\nfantasy", "reasoning": "Titles", "writer": "RLMRec release"},
    ]
    assert files["itemprf.jsonl"] == (
        b'{"token": "Z", "profile": "A novel", "reasoning": "", "writer": "RLMRec release"}\n'
    )
    assert {path.name for path in summary.files} == {f"amazon-book.{ending}" for ending in files}
    assert all(path.parent == summary.folder == tmp_path / "out" / "amazon-book" for path in summary.files)


def test_summary(run: Callable[..., ReleaseSummary], source: Path) -> None:
    summary = run()
    assert (summary.dataset, summary.users, summary.items) == ("amazon-book", 4, 3)
    assert (summary.train, summary.valid, summary.test) == (4, 2, 1)
    assert (summary.users_without_training, summary.items_without_training) == (1, 1)
    assert (summary.users_without_interaction, summary.items_without_interaction) == (1, 0)
    assert (summary.user_embeddings, summary.item_embeddings, summary.dimension, summary.normalized) == (4, 3, 5, True)
    assert (summary.user_profiles, summary.item_profiles) == (2, 1)
    assert summary.warnings == ()
    assert summary.user_ids == str(source / "mapper" / "amazon_user.json")
    text = str(summary)
    assert "amazon-book: 4 users, 3 items; 4 training, 2 validation and 1 test interactions" in text
    assert "1 users, 1 items (in no split, and so unknown to RecBole: 1 users, 0 items)" in text
    assert "semantic embeddings: 4 of 4 users, 3 of 3 items; dimension 5, normalized" in text
    assert "profiles: 2 of 4 users, 1 of 3 items" in text
    assert "benchmark_filename: [train, valid, test]" in text
    assert "warning" not in text


def test_matrices_alone(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    for name in PICKLES[1:]:
        (source / name).unlink()
    summary = run()
    assert set(written(tmp_path)) == {"train.inter", "valid.inter", "test.inter"}
    assert (summary.user_embeddings, summary.dimension, summary.normalized, summary.item_profiles) == (0, None, None, 0)
    assert "semantic embeddings: 0 of 4 users, 0 of 3 items\n" in str(summary)


def test_importing_twice_gives_the_same_bytes(run: Callable[..., ReleaseSummary], tmp_path: Path) -> None:
    run()
    first = written(tmp_path)
    run()
    run(output=tmp_path / "elsewhere")
    assert written(tmp_path) == first
    elsewhere = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere" / "amazon-book").iterdir()}
    assert elsewhere == {f"amazon-book.{ending}": content for ending, content in first.items()}


def test_other_files_stay_and_own_are_replaced(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "amazon-book"
    folder.mkdir(parents=True)
    (folder / "amazon-book.item").write_text("mine")
    (folder / "amazon-book.train.inter").write_text("old")
    run()
    files = written(tmp_path)
    assert files["item"] == b"mine"
    assert files["train.inter"] == inter(TRAIN)

    (source / "usr_emb_np.pkl").unlink()
    (warning,) = run().warnings
    assert warning.startswith("amazon-book.useremb.npy, amazon-book.useremb.tokens in ")
    assert written(tmp_path) == files


def test_a_bad_file_leaves_the_earlier_import(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    run()
    before = written(tmp_path)
    dump(source / "trn_mat.pkl", matrix([(3, 1)]))
    dump(source / "itm_prf.pkl", {3: {"profile": "", "reasoning": ""}})
    with pytest.raises(DataError, match=r"itm_prf\.pkl"):
        run()
    assert written(tmp_path) == before


def test_a_failing_write_leaves_the_earlier_import(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    before = written(tmp_path)
    dump(source / "trn_mat.pkl", matrix([(3, 1)]))

    def full_disk(*_arguments: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(DataError, match="No space left on device"):
        run()
    assert written(tmp_path) == before


@pytest.mark.parametrize("rename", range(1, 12))
def test_an_import_that_is_killed_while_it_replaces_is_refused_until_it_is_repeated(
    run: Callable[..., ReleaseSummary], tmp_path: Path, rename: int
) -> None:
    assert len(run().files) == 10  # beside the marker, which takes its name first
    before = written(tmp_path)
    config = RLMRecConfig(
        "LightGCN",
        "amazon-book",
        config_dict={"data_path": str(tmp_path / "out"), "benchmark_filename": ["train", "valid", "test"]},
    )
    killed_at_rename(rename, run)
    if rename == 1:
        create_dataset(config)
    else:
        with pytest.raises(DataError, match="Run the same `recbole-rlmrec import-release --dataset amazon-book"):
            create_dataset(config)
        with pytest.raises(DataError, match="Run the same `recbole-rlmrec import-release --dataset amazon-book"):
            SemanticEmbedding.load([tmp_path / "out/amazon-book"], "amazon-book", "item")
    run()
    create_dataset(config)
    assert written(tmp_path) == before


def test_output_that_is_a_file(run: Callable[..., ReleaseSummary], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--data_path"):
        run(output=tmp_path / "file")


# ---------------------------------------------------------------------- matrices


def test_duplicates_are_summed_and_zeros_left_out(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path
) -> None:
    pairs = [(0, 0), (0, 0), (0, 0), (1, 1), (2, 1), (3, 0), (3, 0)]
    dump(source / "trn_mat.pkl", matrix(pairs, np.array([1.0, 1.0, 1.0, 0.0, -2.0, 1.0, -1.0])))
    summary = run()
    assert written(tmp_path)["train.inter"] == inter([(0, 0), (2, 1)])
    assert summary.train == 2
    assert summary.warnings == (
        "trn_mat.pkl: 3 duplicate entries were merged with the first of their kind.",
        "trn_mat.pkl: 2 entries with value 0 were left out.",
    )
    assert "warning: trn_mat.pkl: 3 duplicate" in str(summary)


def test_overlap_is_reported_and_kept(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    dump(source / "val_mat.pkl", matrix([*VALID, TRAIN[0], TRAIN[1]]))
    dump(source / "tst_mat.pkl", matrix([*TEST, TRAIN[1]]))
    assert run().warnings == (
        "2 interactions are in both train and valid; both keep them.",
        "1 interactions are in both train and test; both keep them.",
        "1 interactions are in both valid and test; both keep them.",
    )
    assert written(tmp_path)["train.inter"] == inter(TRAIN)
    assert written(tmp_path)["valid.inter"] == inter([*VALID, TRAIN[0], TRAIN[1]])


def test_missing_matrices(refused: Callable[..., str], source: Path) -> None:
    (source / "val_mat.pkl").unlink()
    (source / "tst_mat.pkl").unlink()
    message = refused()
    assert message.startswith(f"val_mat.pkl, tst_mat.pkl not found in {source}")
    assert "https://archive.org/download/rlmrec_data/data.zip" in message


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trn_mat\.pkl, val_mat\.pkl, tst_mat\.pkl not found in .*nowhere"):
        import_release(tmp_path / "nowhere", "amazon-book", tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (edited(_shape=(4, 4)), r"val_mat.pkl has shape (4, 3), expected (4, 4) as in"),
        (edited(data=np.zeros(4)), "holds no interaction"),
        (edited(_shape=(10**8, 10**8)), "val_mat.pkl has shape (4, 3), expected (100000000, 100000000)"),
    ],
)
def test_bad_matrices(refused: Callable[..., str], source: Path, value: Any, expected: str) -> None:
    dump(source / "trn_mat.pkl", value)
    message = refused()
    assert expected in message
    assert str(source / "trn_mat.pkl") in message
    assert release.RELEASE_URL in message


def test_a_shape_far_beyond_the_interactions(refused: Callable[..., str], source: Path) -> None:
    """Each row and column gets an id: 10^8 of them would fill memory, whatever the few bytes of the file say."""
    for name, pairs in (("trn", TRAIN), ("val", VALID), ("tst", TEST)):
        dump(source / f"{name}_mat.pkl", matrix(pairs, shape=(N_USERS, 10**8)))
    message = refused()
    n_pairs = len(TRAIN) + len(VALID) + len(TEST)
    assert f"has shape (4, 100000000), but the three matrices hold only {n_pairs} interactions" in message


def test_layouts_of_the_splits_may_differ(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    dump(source / "trn_mat.pkl", matrix(TRAIN).tocsr(), 2)
    dump(source / "val_mat.pkl", matrix(VALID).tocsc().astype(np.int8), 5)
    run()
    assert written(tmp_path)["train.inter"] == inter(TRAIN)
    assert written(tmp_path)["valid.inter"] == inter(VALID)


# ---------------------------------------------------------------------- semantic embeddings


@pytest.mark.parametrize(("given", "kept"), [("float16", "float16"), ("float32", "float32"), ("float64", "float32")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_embedding_dtypes(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, given: str, kept: str, protocol: int
) -> None:
    vectors = unit_rows(N_USERS, dtype=given)
    dump(source / "usr_emb_np.pkl", vectors, protocol)
    assert run().normalized
    saved = np.load(tmp_path / "out" / "amazon-book" / "amazon-book.useremb.npy")
    assert saved.dtype == kept
    np.testing.assert_array_equal(saved, vectors.astype(kept))


@pytest.mark.parametrize(("factor", "normalized"), [(1.0009, True), (1.0012, False), (0.9988, False), (0.0, False)])
def test_normalized_is_measured(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, factor: float, normalized: bool
) -> None:
    vectors = unit_rows(N_ITEMS)
    vectors[1] *= factor
    dump(source / "itm_emb_np.pkl", vectors)
    assert run().normalized is normalized
    assert json.loads(written(tmp_path)["semantic.json"])["normalized"] is normalized


def test_embeddings_in_fortran_order(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    vectors = unit_rows(N_USERS)
    dump(source / "usr_emb_np.pkl", np.asfortranarray(vectors.astype(">f4")))
    run()
    saved = np.load(tmp_path / "out" / "amazon-book" / "amazon-book.useremb.npy")
    assert saved.dtype == np.float32
    assert saved.flags.c_contiguous
    np.testing.assert_array_equal(saved, vectors)


def test_one_side_of_embeddings(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    (source / "usr_emb_np.pkl").unlink()
    summary = run()
    assert (summary.user_embeddings, summary.item_embeddings, summary.dimension) == (0, 3, 5)
    assert "useremb.npy" not in written(tmp_path)
    assert json.loads(written(tmp_path)["semantic.json"])["dimension"] == 5


def spoilt(row: int, value: float, dtype: str = "float32") -> np.ndarray:
    vectors = unit_rows(N_USERS, dtype=dtype)
    vectors[row, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (unit_rows(3), "has 3 rows, expected 4: one for each user of the matrices"),
        (unit_rows(4, dimension=6), "has dimension 6"),
        (spoilt(2, np.nan), "row 2 holds a value that is NaN, infinite or too large for float32"),
        (spoilt(1, -np.inf), "row 1 holds a value"),
        (spoilt(3, 1e39, "float64"), "row 3 holds a value that is NaN, infinite or too large for float32"),
        (np.zeros((4, 0), dtype=np.float32), "shape (4, 0)"),
        (np.zeros(4, dtype=np.float32), "shape (4,)"),
        (np.zeros((4, 2, 2), dtype=np.float32), "shape (4, 2, 2)"),
        (np.zeros((4, 5), dtype=int), "dtype int64, expected floats [n, D]"),
    ],
)
def test_bad_embeddings(refused: Callable[..., str], source: Path, value: Any, expected: str) -> None:
    dump(source / "usr_emb_np.pkl", value, protocol=4)
    message = refused()
    assert expected in message
    assert str(source / "usr_emb_np.pkl") in message
    assert release.RELEASE_URL in message


# ---------------------------------------------------------------------- profiles


@pytest.mark.parametrize("protocol", [0, 1, *PROTOCOLS])
def test_profile_protocols(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, protocol: int) -> None:
    dump(source / "itm_prf.pkl", {0: {"profile": "p", "reasoning": None, "tokens": 12}}, protocol)
    assert run().item_profiles == 1
    assert json.loads(written(tmp_path)["itemprf.jsonl"]) == {
        "token": "0373730489",
        "profile": "p",
        "reasoning": "",
        "writer": "RLMRec release",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"profile": "p"}], "holds a value of type list, expected a dictionary by item row"),
        ({3: {"profile": "p"}}, "has the key 3, expected the row of one item: 0 to 2"),
        ({-1: {"profile": "p"}}, "has the key -1"),
        ({"0": {"profile": "p"}}, "has the key '0'"),
        ({True: {"profile": "p"}}, "has the key True"),
        ({"x" * 200: {}}, "xxx..."),
        ({1: "p"}, "row 1 holds a value of type str, expected a dictionary with 'profile' and 'reasoning'"),
        ({1: {"reasoning": "r", 2: 0}}, "row 1 holds ['2', 'reasoning'], expected a dictionary with 'profile'"),
        ({1: {"profile": None}}, "the profile of row 1 is a value of type NoneType, expected text"),
        ({1: {"profile": "p", "reasoning": ["r"]}}, "the reasoning of row 1 is a value of type list, expected text"),
        ({1: {"profile": "\ud83c"}}, "the profile of row 1 is text with half a surrogate pair"),
        ({1: {"profile": np.str_("p")}}, "multiarray.scalar', which is not admitted and was not executed"),
        ({np.int64(1): {"profile": "p"}}, "Only dictionaries, lists, text and numbers are read there"),
    ],
)
def test_bad_profiles(refused: Callable[..., str], source: Path, value: Any, expected: str) -> None:
    dump(source / "itm_prf.pkl", value)
    message = refused()
    assert expected in message
    assert str(source / "itm_prf.pkl") in message


# ---------------------------------------------------------------------- the pickles' reader executes nothing


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"PK\x03\x04 a zip", b"<html>Not found</html>", b"version https"])
@pytest.mark.parametrize("file", PICKLES)
def test_garbage(refused: Callable[..., str], source: Path, file: str, content: bytes) -> None:
    (source / file).write_bytes(content)
    assert str(source / file) in refused()
    assert release.RELEASE_URL in refused()


@pytest.mark.parametrize("file", PICKLES)
def test_no_file_is_executed(refused: Callable[..., str], source: Path, tmp_path: Path, file: str) -> None:
    canary = tmp_path / "canary"
    dump(source / file, Attack(os.system, f"touch {canary}"))
    message = refused()
    assert not canary.exists()
    assert message.startswith(f"{source / file}: it names 'posix.system', which is not admitted and was not executed")
    assert message.endswith(f"Take a whole copy of the file from the release, {release.RELEASE_URL}.")


# ---------------------------------------------------------------------- id maps


def test_without_maps_tokens_are_row_numbers(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    for path in (source / "mapper").iterdir():
        path.unlink()
    summary = run()
    assert written(tmp_path)["train.inter"] == inter(TRAIN, list("0123"), list("012"))
    assert written(tmp_path)["useremb.tokens"] == b"0\n1\n2\n3\n"
    assert "user ids: row numbers" in str(summary)
    assert "item ids: row numbers" in str(summary)


@pytest.mark.parametrize("place", ["mapper", ".", "../mapper"])
def test_maps_are_found_in_three_places(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, place: str
) -> None:
    moved = [(path, path.read_bytes()) for path in (source / "mapper").iterdir()]
    (source / place).mkdir(exist_ok=True)
    for path, content in moved:
        path.unlink()
        (source / place / path.name).write_bytes(content)
    run()
    assert written(tmp_path)["train.inter"] == inter(TRAIN)


def test_maps_of_a_relative_folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "mapper").rename(tmp_path / "mapper")
    monkeypatch.chdir(source)
    import_release(".", "amazon-book", tmp_path / "out")
    assert written(tmp_path)["train.inter"] == inter(TRAIN)


@pytest.mark.parametrize(
    ("dataset", "release_name"),
    [("amazon-book", None), ("amazon", None), ("amazon-book", "amazon"), ("mine", "amazon"), ("yelp", "amazon")],
)
def test_a_map_is_picked_by_the_release_name(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, dataset: str, release_name: str | None
) -> None:
    for name in ("yelp", "steam"):
        write_map(source / "mapper" / f"{name}_user.json", "uid", "id", ["wrong"])
        write_map(source / "mapper" / f"{name}_item.json", "iid", "id", ["wrong"])
    run(dataset=dataset, release_name=release_name)
    assert written(tmp_path, dataset)["train.inter"] == inter(TRAIN)


@pytest.mark.parametrize("name", ["yelp", "steam"])
def test_yelp_and_steam_are_their_own_names(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path, name: str
) -> None:
    write_map(source / "mapper" / f"{name}_user.json", "uid", "id", ["q", "r", "s", "t"])
    write_map(source / "mapper" / f"{name}_item.json", "iid", "id", [30, 20, 10])
    run(dataset=name)
    assert written(tmp_path, name)["train.inter"] == inter(TRAIN, list("qrst"), ["30", "20", "10"])


def test_the_only_map_is_taken(run: Callable[..., ReleaseSummary], tmp_path: Path) -> None:
    run(dataset="mine")
    assert written(tmp_path, "mine")["train.inter"] == inter(TRAIN)


def test_several_maps_and_none_matches(refused: Callable[..., str], source: Path) -> None:
    write_map(source / "mapper" / "yelp_item.json", "iid", "id", ["a", "b", "c"])
    message = refused(dataset="mine")
    assert "mine_item.json" in message
    assert str(source / "mapper" / "amazon_item.json") in message
    assert str(source / "mapper" / "yelp_item.json") in message
    assert "--item-map" in message


def test_a_release_named_by_the_user_takes_no_other_map(refused: Callable[..., str]) -> None:
    assert "No id map yelp_user.json" in refused(release_name="yelp")


def test_given_maps_go_first(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    write_map(tmp_path / "u.jsonl", "uid", "name", ["u0", "u1", "u2", "u3"])
    write_map(tmp_path / "i.jsonl", "iid", "name", ["i0", "i1", "i2"])
    summary = run(user_map=tmp_path / "u.jsonl", item_map=str(tmp_path / "i.jsonl"))
    assert written(tmp_path)["train.inter"] == inter(TRAIN, ["u0", "u1", "u2", "u3"], ["i0", "i1", "i2"])
    assert summary.item_ids == str(tmp_path / "i.jsonl")


def test_given_map_that_does_not_exist(refused: Callable[..., str], tmp_path: Path) -> None:
    assert f"--user-map {tmp_path / 'none'} does not exist" in refused(user_map=tmp_path / "none")


def test_map_lines_may_be_in_any_order(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    path = source / "mapper" / "amazon_item.json"
    lines = path.read_text("utf-8").split("\n")
    path.write_bytes("\ufeff".encode() + "\r\n".join([*reversed(lines), "", ""]).encode())
    run()
    assert written(tmp_path)["train.inter"] == inter(TRAIN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"iid": 1, "asin": "x"', "is not valid JSON"),
        ("1", "holds 1, expected a JSON object"),
        ('["iid", 1]', "expected a JSON object"),
        ('{"iid": 1}', "and one id"),
        ('{"asin": "x", "id": 1}', "and one id"),
        ('{"iid": 1, "asin": "x", "title": "y"}', "'iid' and one id"),
        ('{"iid": "1", "asin": "x"}', "'iid' and one id"),
        ('{"iid": 1.0, "asin": "x"}', "'iid' and one id"),
        ('{"iid": true, "asin": "x"}', "'iid' and one id"),
        ('{"uid": 1, "asin": "x"}', "'iid' and one id"),
        ('{"iid": 1, "asin": null}', "the id is None, expected text or an integer"),
        ('{"iid": 1, "asin": 1.5}', "the id is 1.5"),
        ('{"iid": 1, "asin": true}', "the id is True"),
        ('{"iid": 3, "asin": "x"}', "row 3, expected 0 to 2, the items of the matrices"),
        ('{"iid": -1, "asin": "x"}', "row -1, expected 0 to 2"),
        ('{"iid": 0, "asin": "x"}', "row 0 occurs again"),
        ('{"iid": 1, "asin": "a"}', "the id 'a' stands in line 1 too"),
        ('{"iid": 1, "asin": ""}', "the id '' is empty"),
        ('{"iid": 1, "asin": "x\\ty"}', "holds a tab"),
        ('{"iid": 1, "asin": "x\\ny"}', "a line break"),
        ('{"iid": 1, "asin": "x\\r"}', "a line break"),
        ('{"iid": 1, "asin": "x\\u0000"}', "null character"),
        ('{"iid": 1, "asin": " x"}', "begins or ends with a space"),
        ('{"iid": 1, "asin": "x\\u00a0"}', "begins or ends with a space"),
        ('{"iid": 1, "asin": "\\ud83c"}', "half a surrogate pair"),
        ('{"iid": 1, "asin": "[PAD]"}', "is RecBole's own name of the padding id"),
        ('{"iid": 1, "asin": "\xff"}', "is not valid JSON"),
    ],
)
def test_bad_map_lines(refused: Callable[..., str], source: Path, line: str, expected: str) -> None:
    path = source / "mapper" / "amazon_item.json"
    path.write_bytes(b'{"iid": 0, "asin": "a"}\n' + line.encode("latin1") + b'\n{"iid": 2, "asin": "c"}\n')
    message = refused()
    assert expected in message
    assert message.startswith(f"{path}, line 2")


def test_a_map_that_misses_rows(refused: Callable[..., str], source: Path) -> None:
    path = source / "mapper" / "amazon_user.json"
    path.write_text('{"uid": 3, "reviewerID": "d"}\n{"uid": 0, "reviewerID": "a"}\n')
    message = refused()
    assert f"{path} has no id for row 1, expected all of 0 to 3; 2 such rows in all" in message


def test_an_integer_id_that_equals_a_text_id(refused: Callable[..., str], source: Path) -> None:
    write_map(source / "mapper" / "amazon_item.json", "iid", "asin", [7, "8", "7"])
    assert "the id '7' stands in line 1 too" in refused()


ODD_IDS = ['"Big" Joe', 'a "b" c', "#x", '"']
MISSING_IDS = ["null", "null_", "None", "NA"]


def test_quotes_survive_recbole_reading(run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path) -> None:
    write_map(source / "mapper" / "amazon_user.json", "uid", "username", ODD_IDS)
    run()
    assert written(tmp_path)["useremb.tokens"].decode() == "".join(f"{token}\n" for token in ODD_IDS)
    assert read_as_recbole(tmp_path) == [(ODD_IDS[row], ITEM_IDS[column]) for row, column in sorted(TRAIN)]


def test_ids_that_recbole_reads_as_missing_are_renamed_everywhere(
    run: Callable[..., ReleaseSummary], source: Path, tmp_path: Path
) -> None:
    write_map(source / "mapper" / "amazon_user.json", "uid", "username", MISSING_IDS)
    summary = run()
    tokens = ["null__", "null_", "None_", "NA_"]
    assert summary.warnings == (
        "amazon_user.json: RecBole reads some ids as a missing value; renamed 'null' to 'null__', 'None' to 'None_', "
        "'NA' to 'NA_'.",
    )
    assert written(tmp_path)["useremb.tokens"].decode().split() == tokens
    assert [json.loads(line)["token"] for line in written(tmp_path)["userprf.jsonl"].splitlines()] == tokens[:2]
    assert read_as_recbole(tmp_path) == [(tokens[row], ITEM_IDS[column]) for row, column in sorted(TRAIN)]


def test_no_other_id_is_read_as_missing() -> None:
    """The list of such ids is pandas' own."""
    from pandas._libs.parsers import STR_NA_VALUES

    assert STR_NA_VALUES - {""} == MISSING_TOKENS


def read_as_recbole(tmp_path: Path) -> list[tuple[str, str]]:
    """Read the training file as RecBole does through this package."""
    path = tmp_path / "out" / "amazon-book" / "amazon-book.train.inter"
    table = Table(path).read(["user_id", "item_id"], ["user_id", "item_id"])
    return list(table.itertuples(index=False, name=None))


# ---------------------------------------------------------------------- names and command line


@pytest.mark.parametrize("dataset", ["", ".", "..", "a/b", "../up", "a\\b", "a\0"])
def test_bad_dataset_names(source: Path, tmp_path: Path, dataset: str) -> None:
    with pytest.raises(SettingError, match="plain file name"):
        import_release(source, dataset, tmp_path / "out")


def test_unknown_release_name(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'books', expected one of amazon, yelp, steam"):
        import_release(source, "amazon-book", tmp_path / "out", release_name="books")


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    arguments = ["--source", str(source), "--dataset", "mine", "--output", str(tmp_path / "out")]
    args = parser.parse_args([*arguments, "--release-name", "amazon"])
    assert verb.run(args) == 0
    assert capsys.readouterr().out.startswith("mine: 4 users, 3 items; 4 training")
    assert written(tmp_path, "mine")["train.inter"] == inter(TRAIN)


def test_command_line_defaults(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    monkeypatch.chdir(tmp_path)
    verb.run(parser.parse_args(["--source", str(source), "--dataset", "amazon-book"]))
    assert (tmp_path / "dataset" / "amazon-book" / "amazon-book.train.inter").read_bytes() == inter(TRAIN)
