"""The shipped files of MovieLens 100K agree with the rules of the script that makes them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.data.split import _columns, _pair_order, _shuffled, pairs_sha256, read_split

FOLDER = Path(__file__).resolve().parents[2] / "dataset" / "ml-100k"
#: One of the 1,682 movies has no title, year or genre, so no text.
UNNAMED = "267"
SIZES = {"user": 943, "item": 1681}
TRAIN, VALID, TEST = 0, 1, 2


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ml100k_make", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while it is made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(make: ModuleType) -> Any:
    return SimpleNamespace(
        ratings=make.read_table("inter"), users=make.read_table("user"), items=make.read_table("item")
    )


@pytest.fixture(scope="module")
def codes(data: Any) -> np.ndarray:
    return read_split(FOLDER / "ml-100k.split.json", data.ratings["user_id"], data.ratings["item_id"])


@pytest.fixture(scope="module")
def made(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with profiles and embeddings as the script makes them."""
    return make.write_semantics(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return json.loads((FOLDER / "ml-100k.semantic.json").read_text())


def test_split_has_the_shares_and_leaves_nothing_out(codes: np.ndarray) -> None:
    assert np.bincount(codes).tolist() == [60_000, 20_000, 20_000]


def test_everyone_has_a_training_interaction(data: Any, codes: np.ndarray) -> None:
    train = data.ratings[codes == TRAIN]
    assert set(train["user_id"]) == set(data.users["user_id"])
    assert set(train["item_id"]) == set(data.items["item_id"])


def test_shipped_split_is_the_script_s(make: ModuleType, data: Any, codes: np.ndarray) -> None:
    np.testing.assert_array_equal(make.make_split(data.ratings["user_id"], data.ratings["item_id"]), codes)


def test_split_does_not_depend_on_the_order_of_the_rows(make: ModuleType, data: Any, codes: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(codes))
    shuffled = data.ratings.iloc[order]
    np.testing.assert_array_equal(make.make_split(shuffled["user_id"], shuffled["item_id"]), codes[order])


def test_split_differs_from_a_plain_draw_only_where_it_must(make: ModuleType, data: Any, codes: np.ndarray) -> None:
    """Everything moved to training is of a node with no other training interaction; as much was given back."""
    users, items = (data.ratings[field].to_numpy(dtype=str) for field in ("user_id", "item_id"))
    drawn = np.empty(len(codes), dtype=np.int8)
    drawn[_shuffled(_pair_order(*_columns(users, items)), make.SEED)] = np.repeat(
        [TRAIN, VALID, TEST], [60_000, 20_000, 20_000]
    )
    rescued, returned = (codes == TRAIN) & (drawn != TRAIN), (codes != TRAIN) & (drawn == TRAIN)
    drawn_train = drawn == TRAIN
    assert not np.any(np.isin(users[rescued], users[drawn_train]) & np.isin(items[rescued], items[drawn_train]))
    assert np.bincount(drawn[rescued], minlength=3).tolist() == np.bincount(codes[returned], minlength=3).tolist()
    for tokens in (users, items):
        names, counts = np.unique(tokens[codes == TRAIN], return_counts=True)
        assert np.all(counts[np.isin(names, tokens[returned])] >= 2)


@pytest.mark.parametrize(
    ("n_each", "expected_train"),
    [
        # Ten users with one interaction each, with ten items: all of them are needed for training.
        (1, 10),
        # Ten users with five interactions each on one item a user: six tenths suffice.
        (5, 30),
    ],
)
def test_small_splits(make: ModuleType, n_each: int, expected_train: int) -> None:
    users = np.repeat(np.char.mod("%d", np.arange(10)), n_each)
    made = make.make_split(users, users)
    assert np.count_nonzero(made == TRAIN) == expected_train
    assert set(users[made == TRAIN]) == set(users)


@pytest.mark.parametrize("kind", SIZES)
def test_tokens_are_the_dataset_s(kind: str, data: Any) -> None:
    tokens = (FOLDER / f"ml-100k.{kind}emb.tokens").read_bytes().decode().splitlines()
    expected = set((data.users["user_id"] if kind == "user" else data.items["item_id"]).tolist()) - {UNNAMED}
    assert len(tokens) == SIZES[kind] and set(tokens) == (expected | {UNNAMED} if kind == "user" else expected)


@pytest.mark.parametrize("kind", SIZES)
def test_embeddings_are_unit_vectors_in_half_precision(kind: str) -> None:
    vectors = np.load(FOLDER / f"ml-100k.{kind}emb.npy", allow_pickle=False)
    assert (vectors.dtype, vectors.shape) == (np.float16, (SIZES[kind], 256))
    # Rounding errs by at most 2^-11 of a value, so by as much of the norm.
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=2**-11)


def test_vectors_stand_in_the_order_of_their_tokens(data: Any) -> None:
    vectors = np.load(FOLDER / "ml-100k.itememb.npy", allow_pickle=False).astype(np.float32)
    tokens = (FOLDER / "ml-100k.itememb.tokens").read_text().splitlines()
    genres = dict(zip(data.items["item_id"], data.items["class"]))
    animated = np.array(["Animation" in genres[token] for token in tokens])
    similarity = vectors @ vectors[animated].mean(axis=0)
    assert similarity[animated].mean() > similarity[~animated].mean() + 0.05
    star_wars, return_of_the_jedi = tokens.index("50"), tokens.index("181")
    assert np.argsort(-(vectors @ vectors[star_wars]))[1] == return_of_the_jedi


def test_description_agrees_with_the_profiles_that_are_written_now(
    data: Any, codes: np.ndarray, description: dict[str, Any], made: Path
) -> None:
    train = data.ratings[codes == TRAIN]
    now = json.loads((made / "ml-100k.semantic.json").read_text())
    assert description == {
        "encoder": "lsa:256, seed 2023",
        "dimension": 256,
        "normalized": True,
        "writer": "template",
        "profiles_sha256": now["profiles_sha256"],
        "train_sha256": pairs_sha256(train["user_id"], train["item_id"]),
        "options": ["--encoder=lsa", "--float16"],
        "encoder_settings": now["encoder_settings"],
    }


@pytest.mark.parametrize("kind", SIZES)
def test_shipped_vectors_are_the_script_s(kind: str, made: Path) -> None:
    """Up to rotations among directions of nearly equal weight, which keep cosines."""
    name = f"ml-100k.{kind}emb.npy"
    shipped, now = (np.load(folder / name, allow_pickle=False)[::9].astype(np.float32) for folder in (FOLDER, made))
    np.testing.assert_allclose(now @ now.T, shipped @ shipped.T, atol=0.02)


def test_command_line_makes_the_shipped_split(make: ModuleType, tmp_path: Path) -> None:
    make.main(["--split", "--output", str(tmp_path)])
    assert (tmp_path / "ml-100k.split.json").read_bytes() == (FOLDER / "ml-100k.split.json").read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_command_line_makes_the_profiles(
    make: ModuleType, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "write_semantics", lambda root: made)
    make.main(["--profiles", "--output", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml-100k.itemprf.jsonl", "ml-100k.userprf.jsonl"]


def test_command_line_has_to_say_what_to_make(make: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make.main([])
    assert "say what to make" in capsys.readouterr().err


def test_no_movielens_rows_are_shipped() -> None:
    """Their licence does not allow to hand them on."""
    shipped = {path.name.split("ml-100k.")[-1] for path in FOLDER.glob("ml-100k.*")}
    assert not shipped & {"inter", "item", "user", "kg", "link"}
