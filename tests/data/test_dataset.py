"""The dataset of a run: exactly the intended split, embeddings by token, and clear words about what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole.data.dataset.dataset as recbole_dataset
import torch
from conftest import World, write_dataset

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import RLMRecDataset, fingerprint
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.data.provenance import embeddings_used
from recbole_rlmrec.data.split import write_packed_split
from recbole_rlmrec.errors import DataError, SettingError

Pairs = Counter[tuple[str, str]]
Rows = list[tuple[str, str, float, str]]

PARTS = ("train", "valid", "test")


def configure(root: Path, name: str, model: Any = "LightGCN", **settings: Any) -> RLMRecConfig:
    settings = {"data_path": str(root), "checkpoint_dir": str(root / "saved"), "embedding_size": 8, **settings}
    return RLMRecConfig(model, name, config_dict=settings)


def pairs_of(part: Any) -> Pairs:
    """Count the (user, item) token pairs of a built part."""
    columns = (part.id2token(field, part.inter_feat[field].numpy()) for field in ("user_id", "item_id"))
    return Counter((str(user), str(item)) for user, item in zip(*columns))


def built(root: Path, name: str, **settings: Any) -> list[Pairs]:
    """Return the pairs of training, validation and test."""
    return [pairs_of(part) for part in create_dataset(configure(root, name, **settings)).build()]


def refused(root: Path, name: str, **settings: Any) -> str:
    """Build and return the message of the DataError."""
    with pytest.raises(DataError) as caught:
        create_dataset(configure(root, name, **settings)).build()
    return str(caught.value)


def write_inter(root: Path, name: str, lines: list[str], header: str = "user_id:token\titem_id:token") -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.inter").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def rows(world: World) -> Rows:
    """The world's interactions with ratings and splits, shuffled; the first training pair stands twice."""
    rng = np.random.default_rng(7)
    listed = [(user, item, part) for part in PARTS for user, item in getattr(world, part).tolist()]
    listed.append(listed[0])
    return [(u, i, float(rng.integers(1, 6)), part) for u, i, part in (listed[k] for k in rng.permutation(len(listed)))]


@pytest.fixture
def whole(world: World, rows: Rows) -> Path:
    """The dataset `whole`: one .inter file with ratings, its split as a table and packed, and embeddings."""
    lines = [f"{user}\t{item}\t{rating}" for user, item, rating, _ in rows]
    folder = write_inter(world.root, "whole", lines, "user_id:token\titem_id:token\trating:float")
    table = [f"{part}\t{item}\t{user}" for user, item, _, part in reversed(rows)]
    (folder / "whole.split.tsv").write_text("\n".join(["split:token\titem_id:token\tuser_id:token", *table]) + "\n")
    users, items, _, parts = zip(*rows)
    write_packed_split(folder / "whole.split.json", users, items, [PARTS.index(part) for part in parts])
    with_column = [f"{part}\t{user}\t{item}\t{rating}" for user, item, rating, part in rows]
    write_inter(world.root, "column", with_column, "split:token\tuser_id:token\titem_id:token\trating:float")
    for side in ("user", "item"):
        for ending in ("npy", "tokens"):
            content = (world.folder / f"tiny.{side}emb.{ending}").read_bytes()
            for name in ("whole", "column"):
                (world.root / name / f"{name}.{side}emb.{ending}").write_bytes(content)
    return world.root


def intended(rows: Rows, kept: Callable[[str, str, float], bool] = lambda *_: True) -> list[Pairs]:
    return [Counter((u, i) for u, i, rating, p in rows if p == part and kept(u, i, rating)) for part in PARTS]


LOAD = {"load_col": {"inter": ["user_id", "item_id", "rating"]}}
#: The dataset and the settings of every way to bring a split.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "packed": ("whole", {"split_file": "whole.split.json"}),
    "table": ("whole", {"split_file": "whole.split.tsv"}),
    "column": ("column", {}),
}


# ---------------------------------------------------------------------- splits


@pytest.mark.parametrize("way", WAYS)
def test_split_is_exactly_the_intended_one(whole: Path, rows: Rows, way: str) -> None:
    name, settings = WAYS[way]
    parts = built(whole, name, **settings)
    assert parts == intended(rows)
    assert [sum(part.values()) for part in parts] == [218, 58, 58]
    assert sorted(parts[0].values())[-2:] == [1, 2]  # the pair that stands twice


@pytest.mark.parametrize("way", WAYS)
def test_split_leaves_no_trace(whole: Path, way: str) -> None:
    name, settings = WAYS[way]
    for part in create_dataset(configure(whole, name, **settings)).build():
        assert list(part.inter_feat.interaction) == ["user_id", "item_id"]
        assert {"rlmrec_split", "split"}.isdisjoint(part.field2type)
        assert (part.user_num, part.item_num) == (41, 31)


def test_benchmark_files_are_exactly_the_intended_split(world: World) -> None:
    parts = built(world.root, "tiny", benchmark_filename=list(PARTS))
    assert parts == [Counter(map(tuple, getattr(world, part).tolist())) for part in PARTS]
    assert [sum(part.values()) for part in parts] == [217, 58, 58]


def test_split_file_beside_the_dataset_or_at_a_path(whole: Path, rows: Rows, tmp_path: Path) -> None:
    outside = tmp_path / "outside.tsv"
    outside.write_bytes((whole / "whole" / "whole.split.tsv").read_bytes())
    assert built(whole, "whole", split_file=str(outside)) == intended(rows)
    assert built(whole, "whole", split_file="outside.tsv") == intended(rows)  # in the working folder


def test_split_column_not_listed_in_load_col(whole: Path, rows: Rows) -> None:
    for columns in (["user_id", "item_id"], ["user_id", "item_id", "split"], "*"):
        assert built(whole, "column", load_col={"inter": columns}) == intended(rows)
    assert built(whole, "column", load_col=None) == intended(rows)


def test_split_column_of_another_name(whole: Path, rows: Rows) -> None:
    path = whole / "column" / "column.inter"
    path.write_text(path.read_text().replace("split:token", "phase:token"))
    assert built(whole, "column", split_field="phase") == intended(rows)
    assert built(whole, "column") != intended(rows)  # RecBole's own split


def test_split_field_off_ignores_the_column(whole: Path, rows: Rows) -> None:
    parts = built(whole, "column", split_field=None, eval_args={"split": {"RS": [8, 1, 1]}, "group_by": None})
    assert [sum(part.values()) for part in parts] == [268, 33, 33]
    assert sum(parts, Counter()) == sum(intended(rows), Counter())
    assert parts != intended(rows)


def test_split_file_wins_over_the_column(whole: Path, rows: Rows) -> None:
    """Two sources that agree are no error; the file is the one the user named."""
    swapped = {"train": "train", "valid": "test", "test": "valid"}
    lines = [f"{user}\t{item}\t{swapped[part]}" for user, item, _, part in rows]
    header = "user_id:token\titem_id:token\tsplit:token"
    (whole / "column" / "swapped.tsv").write_text("\n".join([header, *lines]) + "\n")
    train, valid, test = intended(rows)
    assert built(whole, "column", split_file="swapped.tsv") == [train, test, valid]


def test_left_out_interactions_are_in_no_part(world: World, rows: Rows) -> None:
    users, items, _, parts = zip(*rows)
    left_out = [number for number, part in enumerate(parts) if part == "test"][:10]
    codes = [3 if number in left_out else PARTS.index(part) for number, part in enumerate(parts)]
    folder = write_inter(world.root, "some", [f"{user}\t{item}" for user, item in zip(users, items)])
    write_packed_split(folder / "some.split.json", users, items, codes)
    train, valid, test = intended(rows)
    gone = Counter((users[number], items[number]) for number in left_out)
    assert built(world.root, "some", split_file="some.split.json") == [train, valid, test - gone]


@pytest.mark.parametrize("way", WAYS)
def test_normalize_all_disturbs_neither_split_nor_embeddings(world: World, whole: Path, rows: Rows, way: str) -> None:
    name, settings = WAYS[way]
    config = configure(whole, name, normalize_all=True, **LOAD, **settings)
    parts = create_dataset(config).build()
    assert [pairs_of(part) for part in parts] == intended(rows)
    ratings = torch.cat([part.inter_feat["rating"] for part in parts]).unique().tolist()
    assert ratings == [0.0, 0.25, 0.5, 0.75, 1.0]  # normalised, from 1 to 5
    for side, table in zip(("user", "item"), world.semantic):
        assert np.array_equal(parts[0].semantic_embedding(side).matrix(), oracle(parts[0], side, table))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "chosen", ["user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter"]
)
def test_filters(whole: Path, rows: Rows, way: str, chosen: str) -> None:
    per_user, per_item = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
    value, kept = {
        "user_inter_num_interval": ("[8,inf)", lambda user, item, rating: per_user[user] >= 8),
        "item_inter_num_interval": ("[9,12]", lambda user, item, rating: 9 <= per_item[item] <= 12),
        "val_interval": ({"rating": "[3,inf)"}, lambda user, item, rating: rating >= 3),
        "rm_dup_inter": ("first", lambda user, item, rating: True),
    }[chosen]
    expected = intended(rows, kept)
    if chosen == "rm_dup_inter":
        expected = [Counter(set(part)) for part in expected]
    assert expected != intended(rows)  # the filter removes something ...
    assert all(sum(part.values()) > 5 for part in expected)  # ... and leaves something
    name, settings = WAYS[way]
    assert built(whole, name, **LOAD, **settings, **{chosen: value}) == expected


def test_filters_of_user_and_item_files(world: World, whole: Path, rows: Rows) -> None:
    """`filter_inter_by_user_or_item` is on by default: users without a row in .user go."""
    known = sorted({row[0] for row in rows})[:30]
    (whole / "whole" / "whole.user").write_text("user_id:token\tage:float\n" + "".join(f"{u}\t30\n" for u in known))
    load = {"load_col": {"inter": ["user_id", "item_id"], "user": ["user_id", "age"]}}
    parts = built(whole, "whole", split_file="whole.split.json", **load)
    assert parts == intended(rows, lambda user, item, rating: user in known)


def test_split_file_and_benchmark_filename_contradict(world: World) -> None:
    message = refused(world.root, "tiny", benchmark_filename=list(PARTS), split_file="tiny.split.json")
    assert message == (
        "split_file='tiny.split.json' and benchmark_filename=['train', 'valid', 'test'] both say what is for training; "
        "set one of them to nothing (~)."
    )


def test_missing_split_file(whole: Path) -> None:
    message = refused(whole, "whole", split_file="whole.spilt.json")
    assert message.startswith("There is no split file 'whole.spilt.json'; looked in")
    assert f"'{whole / 'whole'}'" in message and "at the path itself" in message


def test_split_of_other_data(whole: Path) -> None:
    path = whole / "whole" / "whole.inter"
    path.write_text(path.read_text().replace("u7\t", "u777\t"))
    assert "belongs to other data" in refused(whole, "whole", split_file="whole.split.json")
    assert "(u777, " in refused(whole, "whole", split_file="whole.split.tsv")


def test_split_column_with_an_unknown_word(whole: Path) -> None:
    path = whole / "column" / "column.inter"
    path.write_text(path.read_text().replace("\nvalid\t", "\nvalidation\t", 1))
    message = refused(whole, "column")
    assert message.startswith("1 values of the 'split' column of the .inter file are no split: 'validation' (row ")


@pytest.mark.parametrize("absent", ["valid", "test"])
def test_empty_part(world: World, absent: str) -> None:
    other = {"valid": "test", "test": "valid"}[absent]
    lines = ["a\tx\ttrain", "b\ty\ttrain", f"a\ty\t{other}"]
    write_inter(world.root, "few", lines, "user_id:token\titem_id:token\tsplit:token")
    assert refused(world.root, "few") == (
        f"The {absent} split of 'few' has no interaction; training, validation and test all need some. Check "
        "split_file, the split column, benchmark_filename or eval_args."
    )


def test_empty_part_by_ratio(whole: Path) -> None:
    ratios = {"split": {"RS": [0.8, 0.0, 0.2]}, "group_by": None}
    (whole / "whole" / "whole.split.json").unlink()
    assert refused(whole, "whole", eval_args=ratios).startswith("The valid split of 'whole' has no interaction;")


def test_load_col_of_the_user_is_left_alone(whole: Path) -> None:
    load_col = {"inter": ["user_id", "item_id"]}
    built(whole, "column", load_col=load_col)
    assert load_col == {"inter": ["user_id", "item_id"]}


def test_split_column_in_unload_col_is_not_a_split(whole: Path, rows: Rows) -> None:
    parts = built(whole, "column", load_col=None, unload_col={"inter": ["split"]})
    assert sum(parts, Counter()) == sum(intended(rows), Counter())


# ---------------------------------------------------------------------- users and items without a training interaction

COLD = {
    "train": [("a", "x"), ("b", "y")],
    "valid": [("c", "x"), ("d", "y")],
    "test": [("e", "z"), ("f", "x"), ("a", "y")],
}
COLD_MESSAGE = (
    "No training interaction for 4 of 6 users (e.g. 'c', 'd', 'e') and 1 of 3 items (e.g. 'z'): their embeddings stay "
    "as initialised and their ranks are chance."
)


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    write_dataset(tmp_path, "cold", *(np.array(COLD[part]) for part in PARTS))
    return tmp_path


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_cold_nodes_are_one_warning(cold: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = built(cold, "cold", benchmark_filename=list(PARTS))
    assert parts == [Counter(COLD[part]) for part in PARTS]
    assert warnings_in(caplog) == [COLD_MESSAGE]


def test_cold_nodes_of_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = {**COLD, "train": [(user, "x") for user in "abcdef"] + [("a", "y")]}
    write_dataset(tmp_path, "cold", *(np.array(data[part]) for part in PARTS))
    built(tmp_path, "cold", benchmark_filename=list(PARTS))
    (message,) = warnings_in(caplog)
    assert message.startswith("No training interaction for 1 of 3 items (e.g. 'z'): ")


def test_no_cold_nodes_no_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    built(world.root, "tiny", benchmark_filename=list(PARTS), cold_nodes="error")
    assert warnings_in(caplog) == []


def test_cold_nodes_error(cold: Path) -> None:
    message = refused(cold, "cold", benchmark_filename=list(PARTS), cold_nodes="error")
    assert message == f"{COLD_MESSAGE} Filter them out, split otherwise, or set cold_nodes to warn."


# ---------------------------------------------------------------------- names of datasets


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("decide_download", "download_url", "extract_zip"):
        monkeypatch.setattr(recbole_dataset, name, lambda *_, name=name: pytest.fail(f"{name} was called"))


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("benchmark", [{}, {"benchmark_filename": None}])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(("name", "source"), [("amazon-book", "amazon"), ("yelp", "yelp"), ("steam", "steam")])
def test_released_datasets_are_never_downloaded(
    tmp_path: Path, name: str, source: str, there: bool, benchmark: dict[str, Any]
) -> None:
    if there:
        (tmp_path / name).mkdir()
    message = refused(tmp_path, name, **benchmark)
    assert f"The dataset '{name}' of the RLMRec paper is not in '{tmp_path / name}'." in message
    assert "https://archive.org/download/rlmrec_data/data.zip" in message
    assert f"recbole-rlmrec import-release --source <unpacked>/data/{source} --dataset {name}" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ([name] if there else [])


@pytest.mark.usefixtures("no_download")
def test_released_dataset_with_one_file_missing(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "yelp", *(np.array(COLD[part]) for part in PARTS))
    (folder / "yelp.valid.inter").unlink()
    assert "The dataset 'yelp' of the RLMRec paper is not in" in refused(tmp_path, "yelp")


@pytest.mark.usefixtures("no_download")
def test_released_dataset_that_is_there_loads(tmp_path: Path) -> None:
    write_dataset(tmp_path, "yelp", *(np.array(COLD[part]) for part in PARTS))
    assert built(tmp_path, "yelp") == [Counter(COLD[part]) for part in PARTS]


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("benchmark", [{}, {"benchmark_filename": list(PARTS)}])
def test_unknown_dataset(tmp_path: Path, benchmark: dict[str, Any]) -> None:
    assert refused(tmp_path, "nosuch", **benchmark) == (
        f"There is no dataset 'nosuch': no folder '{tmp_path / 'nosuch'}', and RecBole does not know the name. Check "
        "--dataset and --data_path (in load_model: {'data_path': ...}); the README shows how to bring your own data."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_download")
def test_folder_without_interactions(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    message = refused(tmp_path, "mine")
    assert message.startswith(f"The folder '{folder}' has no mine.inter. A RecBole dataset is <name>/<name>.inter")
    (folder / "mine.train.inter").write_text("user_id:token\titem_id:token\na\tx\n")
    message = refused(tmp_path, "mine", benchmark_filename=list(PARTS))
    assert message.startswith(f"The folder '{folder}' has no mine.valid.inter and no mine.test.inter.")


def test_ready_made_parts_are_found_without_a_setting(world: World) -> None:
    config = world.config("LightGCN", benchmark_filename=None)
    assert ("info", "Split from tiny.train.inter, .valid.inter and .test.inter.") in config.notes
    sizes = [len(loader._dataset) for loader in world.loaders(config)[1:]]
    assert sizes == [len(world.train), len(world.valid), len(world.test)]


ML_1M = [f"{user}\t{item}" for user in range(12) for item in range(10) if (user + item) % 3]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """RecBole's download, from a zip file made here; returns the addresses asked for."""
    asked: list[str] = []

    def download(url: str, folder: str) -> str:
        path = Path(folder) / url.rpartition("/")[2]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ml-1m.inter", "\n".join(["user_id:token\titem_id:token", *ML_1M]) + "\n")
        asked.append(url)
        return str(path)

    monkeypatch.setattr(recbole_dataset, "decide_download", lambda url: True)
    monkeypatch.setattr(recbole_dataset, "download_url", download)
    return asked


def test_recboles_own_dataset_is_downloaded_once(tmp_path: Path, offline: list[str]) -> None:
    first = built(tmp_path, "ml-1m")
    assert sum(first, Counter()) == Counter(tuple(line.split("\t")) for line in ML_1M)
    assert offline == ["https://recbole.s3-accelerate.amazonaws.com/ProcessedDatasets/MovieLens/ml-1m.zip"]
    assert os.listdir(tmp_path / "ml-1m") == ["ml-1m.inter"]
    assert [sum(part.values()) for part in built(tmp_path, "ml-1m")] == [sum(part.values()) for part in first]
    assert len(offline) == 1


def test_interrupted_download_is_said(tmp_path: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(url: str, folder: str) -> str:
        raise RuntimeError("Stopped downloading due to interruption.")

    monkeypatch.setattr(recbole_dataset, "download_url", interrupted)
    assert "ml-1m" in refused(tmp_path, "ml-1m")
    assert not (tmp_path / "ml-1m").exists()  # or the next run would not try again


def test_download_without_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str) -> bool:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(recbole_dataset, "decide_download", unreachable)
    assert "recbole.s3-accelerate.amazonaws.com" in refused(tmp_path, "ml-1m")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "user_id,item_id\n1,2\n",
        "user_id\titem_id\n1\t2\n",
        "user_id:token\trating:float\n1\t2\n",
        "user_id:token\titem_id:token\n",
        "user_id:float\titem_id:token\nanna\tx\n",
        "user_id:token\titem_id:token\nann\udce9\tx\n",
        None,
    ],
)
def test_malformed_interactions_are_named(tmp_path: Path, content: str | None) -> None:
    if content is None:
        (tmp_path / "bad").write_text("a file where the folder is expected")
    else:
        (tmp_path / "bad").mkdir()
        # The surrogate becomes a byte that is no UTF-8.
        (tmp_path / "bad" / "bad.inter").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "bad" in refused(tmp_path, "bad")


# ---------------------------------------------------------------------- semantic embeddings


def oracle(dataset: Any, side: str, table: dict[str, np.ndarray], dtype: str = "float32") -> np.ndarray:
    """The vectors by internal id, `[ids, D]`, the slow way: one dictionary look-up an id, zeros where it fails."""
    tokens = dataset.field2id_token[f"{side}_id"]
    nothing = np.zeros(len(next(iter(table.values()))))
    return np.stack([np.asarray(table.get(str(token), nothing), dtype=dtype) for token in tokens]).astype("float32")


def training(world: World, model: str = "LightGCN_RLMRecCon", **settings: Any) -> Any:
    return world.loaders(world.config(model, **settings))[1]._dataset


def write_side(world: World, side: str, table: dict[str, np.ndarray], dtype: str = "float32") -> None:
    np.save(world.folder / f"tiny.{side}emb.npy", np.stack(list(table.values())).astype(dtype))
    (world.folder / f"tiny.{side}emb.tokens").write_text("".join(f"{token}\n" for token in table))


def missing_embeddings(world: World, model: str = "LightGCN_RLMRecCon") -> str:
    with pytest.raises(DataError) as caught:
        world.model(model)
    return str(caught.value)


def permuted(table: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    tokens = list(table)
    return {tokens[row]: table[tokens[row]] for row in np.random.default_rng(seed).permutation(len(tokens))}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embeddings_are_joined_by_token(world: World, dtype: str) -> None:
    for seed, side in enumerate(("user", "item")):
        write_side(world, side, permuted(world.semantic[seed], seed), dtype)
    model, train_data = world.model("LightGCN_RLMRecCon")
    held, masks = model.split(model.semantic.vectors), model.split(model.semantic.covered)
    for side, table, rows, covered in zip(("user", "item"), world.semantic, held, masks):
        expected = oracle(train_data._dataset, side, table, dtype)
        assert expected.shape == ((41, 12) if side == "user" else (31, 12))
        for found in (train_data._dataset.get_preload_weight(f"{side}emb"), rows.numpy()):
            assert found.dtype == np.float32 and np.array_equal(found, expected)
        assert covered.tolist() == [False] + [True] * (len(expected) - 1)


def test_the_row_order_of_the_files_changes_nothing(world: World) -> None:
    before = training(world).get_preload_weight("itememb")
    write_side(world, "item", permuted(world.semantic[1], 5))
    assert np.array_equal(training(world).get_preload_weight("itememb"), before)


def test_preload_weight_needs_no_split(world: World) -> None:
    dataset = create_dataset(world.config("LightGCN_RLMRecCon"))
    assert np.array_equal(dataset.get_preload_weight("useremb"), oracle(dataset, "user", world.semantic[0]))
    with pytest.raises(ValueError, match="not in preload_weight"):
        dataset.get_preload_weight("nosuch")


def test_holes_are_masked_and_zero(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    users = {token: vector for token, vector in world.semantic[0].items() if token not in ("u3", "u11")}
    users["u20"] = np.zeros(12)  # no direction, so a hole too
    write_side(world, "user", users)
    dataset = training(world)
    joined = dataset.semantic_embedding("user")
    holes = {str(token) for token, covered in zip(dataset.field2id_token["user_id"], joined.covered) if not covered}
    assert holes == {"[PAD]", "u3", "u11", "u20"}
    assert np.array_equal(dataset.get_preload_weight("useremb"), oracle(dataset, "user", users))
    assert (joined.n_covered, joined.n_zero) == (37, 1)
    assert any(
        message.startswith("user embeddings: 37 of 40 users covered (92.5 %), 3 holes") for message in caplog.messages
    )
    model, _ = world.model("LightGCN_RLMRecCon")
    assert model.semantic.has_holes and model.semantic.covered[: model.n_users].sum() == 37


def write_atomic(world: World, side: str, table: dict[str, np.ndarray], columns: str) -> None:
    for path in world.folder.glob(f"tiny.{side}emb.*"):
        path.unlink()
    lines = [f"{token}\t{' '.join(map(repr, vector.astype('float32').tolist()))}" for token, vector in table.items()]
    (world.folder / f"tiny.{side}emb").write_text("\n".join([columns, *lines]) + "\n")


ATOMIC_COLUMNS = {"user": "uid:token\tuser_emb:float_seq", "item": "iid:token\titem_emb:float_seq"}


def test_atomic_files(world: World) -> None:
    tables = {"user": permuted(world.semantic[0], 1), "item": permuted(world.semantic[1], 2)}
    del tables["item"]["i4"]
    for side, table in tables.items():
        write_atomic(world, side, table, ATOMIC_COLUMNS[side])
    dataset = training(world)
    for side, table in tables.items():
        assert np.array_equal(dataset.get_preload_weight(f"{side}emb"), oracle(dataset, side, table))


@pytest.mark.parametrize("normalize", [{}, {"normalize_all": True}, {"normalize_field": ["user_emb", "item_emb"]}])
def test_atomic_files_together_with_recboles_settings(world: World, normalize: dict[str, Any]) -> None:
    for side, table in zip(("user", "item"), world.semantic):
        write_atomic(world, side, permuted(table, 3), ATOMIC_COLUMNS[side])
    dataset = training(
        world,
        **normalize,
        additional_feat_suffix=["useremb", "itememb"],
        load_col={
            "inter": ["user_id", "item_id"],
            "useremb": ["uid", "user_emb"],
            "itememb": ["iid", "item_emb"],
        },
        alias_of_user_id=["uid"],
        alias_of_item_id=["iid"],
        preload_weight={"uid": "user_emb", "iid": "item_emb"},
    )
    for side, recboles, table in zip(("user", "item"), ("uid", "iid"), world.semantic):
        expected = oracle(dataset, side, table)
        assert np.array_equal(dataset.get_preload_weight(f"{side}emb"), expected)
        # RecBole's own table is the same, unless the user has it rescaled; ours never is.
        theirs = dataset.get_preload_weight(recboles)
        if "normalize_field" in normalize:
            assert theirs.min() == 0 and theirs.max() == 1
        else:
            assert np.allclose(theirs, expected, atol=1e-6)
    assert pairs_of(dataset) == Counter(map(tuple, world.train.tolist()))


def test_one_of_several_tables(world: World) -> None:
    world.write_table("minilm", 5)
    for name, dimension in ((None, 12), ("minilm", 5)):
        training = world.loaders(world.config("LightGCN_RLMRecCon", semantic=name))[1]._dataset
        assert training.semantic_embedding("item").embedding.dimension == dimension
        (world.folder / "tiny.minilm.semantic.json").write_text('{"encoder": "small"}')
        used = embeddings_used(training, fingerprint(training, with_embeddings=True))
        assert used["encoder"] == (name and "small") and used["file"]["user"] == str(
            world.folder / f"tiny.{'minilm.' if name else ''}useremb.npy"
        )


def test_what_describes_the_chosen_table_is_checked(world: World) -> None:
    world.write_table("minilm", 5)
    (world.folder / "tiny.minilm.semantic.json").write_text('{"train_sha256": "0"}')
    world.model("LightGCN_RLMRecCon")
    with pytest.raises(DataError, match=r"tiny\.minilm\.semantic\.json: the profiles were written from another"):
        world.model("LightGCN_RLMRecCon", semantic="minilm")


def test_a_table_that_is_not_there(world: World) -> None:
    world.write_table("minilm", 5)
    with pytest.raises(DataError) as caught:
        world.model("LightGCN_RLMRecCon", semantic="lsa")
    message = str(caught.value)
    assert message.startswith("semantic=lsa: 'tiny' has no embeddings of this name. There are those without a name")
    assert "(leave the setting out), 'minilm'." in message and " --semantic=lsa" in message
    world.model("LightGCN", semantic="lsa")  # which reads none
    for path in world.folder.glob("tiny.*emb.*"):
        path.unlink()
    world.write_table("minilm", 5)
    assert "with a name, minilm: --semantic=minilm takes these" in missing_embeddings(world)


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "..", "a\\b", "7", "unnamed", 7])
def test_what_is_no_name_of_a_table(world: World, name: Any) -> None:
    with pytest.raises(SettingError, match=r"semantic=.*a name of letters, digits"):
        world.config("LightGCN_RLMRecCon", semantic=name)


@pytest.mark.parametrize("ending", ["npy", "tokens"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_half_a_pair(world: World, side: str, ending: str) -> None:
    (world.folder / f"tiny.{side}emb.{ending}").unlink()
    other = {"npy": "tokens", "tokens": "npy"}[ending]
    message = missing_embeddings(world)
    assert message.startswith(f"{world.folder} holds tiny.{side}emb.{other} but not tiny.{side}emb.{ending}")


@pytest.mark.parametrize("side", ["user", "item"])
def test_missing_embeddings(world: World, side: str) -> None:
    for path in world.folder.glob(f"tiny.{side}emb*"):
        path.unlink()
    message = missing_embeddings(world)
    assert message.startswith(f"No {side} embeddings of dataset 'tiny': looked for tiny.{side}emb.npy with")
    assert str(world.folder) in message and "import-release" in message


def test_misnamed_embeddings(world: World) -> None:
    (world.folder / "tiny.useremb.npy").rename(world.folder / "user_embeddings.npy")
    (world.folder / "tiny.useremb.tokens").rename(world.folder / "user_embeddings.tokens")
    message = missing_embeddings(world)
    assert "found user_embeddings.npy: rename to tiny.useremb.npy" in message
    assert "found user_embeddings.tokens: rename to tiny.useremb.tokens" in message


def test_dimensions_that_differ(world: World) -> None:
    write_side(world, "item", {token: vector[:5] for token, vector in world.semantic[1].items()})
    message = missing_embeddings(world)
    assert "User embeddings have dimension 12" in message and "item embeddings 5" in message
    assert "tiny.useremb.npy" in message and "tiny.itememb.npy" in message


@pytest.mark.parametrize(
    ("spell", "shown"),
    [(lambda token: token.upper(), "'U0'"), (lambda token: f"x{token}", "'xu0'"), (lambda token: token[1:], "'0'")],
)
def test_coverage_of_nobody(world: World, spell: Callable[[str], str], shown: str) -> None:
    write_side(world, "user", {spell(token): vector for token, vector in world.semantic[0].items()})
    message = missing_embeddings(world)
    assert "user embeddings: 0 of 40 users match" in message
    assert shown in message and "'u0'" in message  # both sides


def test_metadata_of_another_dimension(world: World) -> None:
    (world.folder / "tiny.semantic.json").write_text('{"dimension": 384}')
    assert f"{world.folder / 'tiny.semantic.json'} says dimension 384" in missing_embeddings(world)


@pytest.mark.parametrize("model", ["LightGCN", "SGL", "SimGCL", "BPR"])
def test_base_models_never_read_the_embeddings(world: World, model: str) -> None:
    for name in ("useremb.npy", "useremb.tokens", "itememb.npy", "semantic.json"):
        (world.folder / f"tiny.{name}").write_bytes(b"broken")
    (world.folder / "tiny.itememb.tokens").unlink()
    built_model, train_data = world.model(model)
    built_model.train()
    with torch.no_grad():
        loss = built_model.calculate_loss(next(iter(train_data)))
    assert np.isfinite(float(sum(loss) if isinstance(loss, tuple) else loss))


@pytest.mark.parametrize("model", ["LightGCN_RLMRecCon", "SGL_RLMRecGen"])
def test_rlmrec_reads_them_unless_its_weight_is_0(world: World, model: str) -> None:
    (world.folder / "tiny.useremb.npy").write_bytes(b"broken")
    assert "tiny.useremb.npy cannot be read as a .npy array" in missing_embeddings(world, model)
    world.model(model, alignment_weight=0, reconstruction_weight=0)


def test_own_embeddings_go_before_the_embedded_ones(tmp_path: Path) -> None:
    """ml-100k's files travel with the package; what lies in the user's folder of that name wins."""
    embedded = create_dataset(configure(tmp_path, "ml-100k", "LightGCN_RLMRecCon"))
    shape = embedded.get_preload_weight("useremb").shape
    assert shape == (944, 256)
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for side, n_rows in (("user", 943), ("item", 1682)):
        np.save(folder / f"ml-100k.{side}emb.npy", np.full((n_rows, 256), 2, dtype="float16"))
        (folder / f"ml-100k.{side}emb.tokens").write_text("".join(f"{row}\n" for row in range(1, n_rows + 1)))
    own = create_dataset(configure(tmp_path, "ml-100k", "LightGCN_RLMRecCon"))
    assert np.array_equal(own.get_preload_weight("useremb")[1:], np.full((943, 256), 2))


def test_own_embeddings_of_another_dimension(tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for side, n_rows in (("user", 943), ("item", 1682)):
        np.save(folder / f"ml-100k.{side}emb.npy", np.ones((n_rows, 6), dtype="float32"))
        (folder / f"ml-100k.{side}emb.tokens").write_text("".join(f"{row}\n" for row in range(1, n_rows + 1)))
    own = create_dataset(configure(tmp_path, "ml-100k", "LightGCN_RLMRecCon"))
    assert own.get_preload_weight("useremb").shape == (944, 6)


# ---------------------------------------------------------------------- leakage


def training_sha256(world: World) -> str:
    """The hash of the training split as the format says: sorted `user TAB item` lines."""
    lines = sorted(map(tuple, world.train.tolist()))
    return hashlib.sha256("".join(f"{user}\t{item}\n" for user, item in lines).encode()).hexdigest()


@pytest.mark.parametrize(
    ("writer", "remedy"),
    [
        ({}, "Make them again from this split's training interactions. "),
        (
            {"writer": "template"},
            "Write what is stale again, and freeze the split, with `recbole-rlmrec build-semantics --dataset=tiny "
            '--data_path={root} \'--benchmark_filename=["train", "valid", "test"]\' --overwrite`; give it the text '
            "columns, the writer and the encoder that it had before, if you chose any. ",
        ),
    ],
)
def test_profiles_of_another_split_are_an_error(
    world: World, caplog: pytest.LogCaptureFixture, writer: dict[str, str], remedy: str
) -> None:
    path = world.folder / "tiny.semantic.json"
    path.write_text(json.dumps({"dimension": 12, "train_sha256": "0123456789abcdef" * 4, **writer}))
    found = (
        f"{path}: the profiles were written from another training split (0123456789ab...) than this run's "
        f"({training_sha256(world)[:12]}...); they may hold validation or test interactions."
    )
    with pytest.raises(DataError) as error:
        world.model("LightGCN_RLMRecGen")
    assert str(error.value) == f"{found} {remedy.format(root=world.root)}`--leakage=warn` trains all the same."
    world.model("LightGCN_RLMRecGen", leakage="warn")
    assert warnings_in(caplog) == [found]


@pytest.mark.parametrize(
    ("options", "encode"),
    [
        ({"options": ["--encoder=sentence-transformers", "--encoder-model=old"]}, "FOLDER --overwrite`. "),
        (
            {},
            "--overwrite`; give it the text columns, the writer and the encoder that it had before, if you chose any. ",
        ),
    ],
)
def test_an_encoder_tuned_on_another_split_is_an_error(
    world: World, caplog: pytest.LogCaptureFixture, options: dict[str, Any], encode: str
) -> None:
    """Whether the profiles have a hash or not."""
    path = world.folder / "tiny.semantic.json"
    path.write_text(json.dumps({"encoder_train_sha256": "0123456789abcdef" * 4, **options}))
    found = (
        f"{path}: the encoder of the embeddings was tuned on another training split (0123456789ab...) than this run's "
        f"({training_sha256(world)[:12]}...); they may hold validation or test interactions."
    )
    with pytest.raises(DataError) as error:
        world.model("LightGCN_RLMRecCon")
    message = str(error.value)
    assert message.startswith(f"{found} Tune it again on this split, with `recbole-rlmrec tune-encoder --dataset=tiny ")
    assert message.endswith(f"{encode}`--leakage=warn` trains all the same.") and "--encoder-model=old" not in message
    world.model("LightGCN_RLMRecCon", leakage="warn")
    assert warnings_in(caplog) == [found]
    path.write_text(json.dumps({"encoder_train_sha256": training_sha256(world)}))
    world.model("LightGCN_RLMRecCon")
    assert warnings_in(caplog) == [found]


@pytest.mark.parametrize("with_hash", [True, False])
def test_profiles_of_this_split_are_none(world: World, caplog: pytest.LogCaptureFixture, with_hash: bool) -> None:
    content = {"train_sha256": training_sha256(world)} if with_hash else {"encoder": "some"}
    (world.folder / "tiny.semantic.json").write_text(json.dumps(content))
    world.model("LightGCN_RLMRecCon")
    assert warnings_in(caplog) == []


def test_a_base_model_does_not_warn_of_leakage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    (world.folder / "tiny.semantic.json").write_text(json.dumps({"train_sha256": "0" * 64}))
    world.model("LightGCN")
    assert warnings_in(caplog) == []


def test_leakage_is_said_also_where_embeddings_were_read_before(world: World, caplog: pytest.LogCaptureFixture) -> None:
    (world.folder / "tiny.semantic.json").write_text(json.dumps({"train_sha256": "0" * 64}))
    dataset = create_dataset(world.config("LightGCN_RLMRecCon", leakage="warn"))
    dataset.get_preload_weight("useremb")
    dataset.build()[0].semantic_embedding("user")
    assert any("another training split" in message for message in warnings_in(caplog))


def test_a_hash_that_is_no_text_is_refused(world: World) -> None:
    (world.folder / "tiny.semantic.json").write_text('{"train_sha256": 5}')
    assert "tiny.semantic.json" in missing_embeddings(world)


# ---------------------------------------------------------------------- pickles


class Malicious:
    """Makes the file `canary` in the working folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return open, ("canary", "w")


def test_nothing_is_unpickled(world: World, tmp_path: Path) -> None:
    config = world.config("LightGCN")
    saved = Path(config["checkpoint_dir"])
    saved.mkdir()
    paths = [
        saved / name
        for name in ("tiny-RLMRecDataset.pth", "tiny-Dataset.pth", "tiny-for-LightGCN-dataloader.pth", "tiny.pth")
    ]
    for path in paths:
        path.write_bytes(pickle.dumps(Malicious()))
    pickle.loads(paths[0].read_bytes()).close()
    assert (tmp_path / "canary").exists()  # these bytes would do it
    (tmp_path / "canary").unlink()

    dataset = create_dataset(config)
    assert type(dataset) is RLMRecDataset
    data_preparation(config, dataset)
    assert not (tmp_path / "canary").exists()
    assert sorted(saved.iterdir()) == sorted(paths)  # and nothing is written there


# ---------------------------------------------------------------------- loaders and protocols


def by_user(pairs: np.ndarray) -> dict[str, set[str]]:
    sets: dict[str, set[str]] = {}
    for user, item in pairs.tolist():
        sets.setdefault(user, set()).add(item)
    return sets


def masked(loader: Any) -> dict[str, set[str]]:
    """Return the items that a loader masks, by user, as tokens."""
    dataset = loader._dataset
    return {
        str(dataset.id2token("user_id", user)): {
            str(token) for token in dataset.id2token("item_id", loader.uid2history_item[user].numpy())
        }
        for user in loader.uid_list.tolist()
    }


def sought(loader: Any) -> dict[str, set[str]]:
    dataset = loader._dataset
    return {
        str(dataset.id2token("user_id", user)): {
            str(token) for token in dataset.id2token("item_id", loader.uid2positive_item[user].numpy())
        }
        for user in loader.uid_list.tolist()
    }


@pytest.mark.parametrize("model", ["LightGCN", "BPR"])
@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_what_is_masked(world: World, protocol: str, model: str) -> None:
    _, train_data, valid_data, test_data = world.loaders(world.config(model, eval_protocol=protocol))
    train, valid, test = (by_user(getattr(world, part)) for part in PARTS)
    assert sought(valid_data) == valid and sought(test_data) == test
    assert masked(valid_data) == {user: train[user] for user in valid}
    also = valid if protocol == "recbole" else {}
    assert masked(test_data) == {user: train[user] | also.get(user, set()) for user in test}
    assert any(valid.get(user) for user in test)  # the protocols differ on this data
    assert pairs_of(train_data._dataset) == Counter(map(tuple, world.train.tolist()))


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_negatives_are_no_training_items_of_the_user(world: World, protocol: str) -> None:
    """The protocol concerns the test loader; training draws any item but the user's training items."""
    _, train_data, _, _ = world.loaders(world.config("LightGCN", eval_protocol=protocol))
    dataset = train_data._dataset
    train, held_out = by_user(world.train), by_user(np.concatenate([world.valid, world.test]))
    seen_held_out = 0
    for _ in range(5):
        for batch in train_data:
            users = dataset.id2token("user_id", batch["user_id"].numpy())
            for user, item in zip(users, dataset.id2token("item_id", batch["neg_item_id"].numpy())):
                assert str(item) not in train[str(user)] and str(item) != "[PAD]"
                seen_held_out += str(item) in held_out.get(str(user), set())
    assert seen_held_out > 0


def test_batches_are_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.loaders(world.config("LightGCN", train_batch_size=100, eval_batch_size=31 * 10))
    n_valid, n_test = (-(-len(by_user(part)) // 10) for part in (world.valid, world.test))
    assert f"Batches: 3 training, {n_valid} validation, {n_test} test." in caplog.messages


def test_other_kinds_of_model_get_recboles_datasets(world: World) -> None:
    assert type(create_dataset(world.config("BPR"))) is RLMRecDataset
    assert type(create_dataset(world.config("ItemKNN"))) is RLMRecDataset
    context = create_dataset(world.config("FM"))
    assert type(context) is recbole_dataset.Dataset


# ---------------------------------------------------------------------- columns that are kept as text


def test_what_is_kept_as_text_changes_nothing_that_is_loaded(tmp_path: Path) -> None:
    """One reading serves both; RecBole's columns are what its own reading makes of them, to the last bit."""
    columns = ("user_id:token", "item_id:token", "rating:float", "timestamp:float", "words:token_seq", "note:token")
    lines = [
        "u1\ti1\t3.1\t1234567890123456789\tgood  book\tNA",
        'u1\ti2\t\t0.1\t"a ""quote""\tnone',
        "u2\ti1\t1e-7\t1.7976931348623157e308\t\t 7",
        "u2\ti3\tNA\t.1000000000000000055511\tnull\tüber",
        "u4\ti3\t2\t3\tof another\tx",
        "u3\ti2\t4.35\t5\t #NA \tNone",
    ]
    write_inter(tmp_path, "notes", lines, "\t".join(columns))
    settings = {"load_col": {"inter": [column.partition(":")[0] for column in columns]}, "seq_len": {"words": 3}}
    config = configure(tmp_path, "notes", **settings)
    plain, keeping = RLMRecDataset(config), RLMRecDataset(config, ["note", "rating", "absent"])
    assert plain.kept_texts == [] and plain.field2type == keeping.field2type
    for field in plain.inter_feat.columns:
        for one, other in zip(plain.inter_feat[field], keeping.inter_feat[field], strict=True):
            assert np.array_equal(one, other), field
        assert plain.inter_feat[field].dtype == keeping.inter_feat[field].dtype
        if field in plain.field2id_token:
            assert np.array_equal(plain.field2id_token[field], keeping.field2id_token[field])
    (kept,) = keeping.kept_texts
    assert kept["note"].tolist() == ["NA", "none", " 7", "über", "x", "None"]
    assert kept["rating"].tolist() == ["3.1", "", "1e-7", "NA", "2", "4.35"]
    assert list(kept.columns) == ["user_id", "item_id", "rating", "note"]
    assert plain.inter_feat["words"].map(len).tolist() == [2, 2, 0, 0, 2, 1]


def test_a_number_that_is_none_is_an_error_either_way(tmp_path: Path) -> None:
    write_inter(tmp_path, "odd", ["u\ti\tfive"], "user_id:token\titem_id:token\trating:float")
    config = configure(tmp_path, "odd", load_col={"inter": ["user_id", "item_id", "rating"]})
    for kept in ((), ("rating",)):
        with pytest.raises(DataError, match=r"odd.inter', line 2: the column 'rating' is 'five', expected a number"):
            RLMRecDataset(config, kept)


def test_filters_that_leave_nothing_are_named(tmp_path: Path) -> None:
    write_inter(tmp_path, "few", [f"u{number % 5}\ti{number}" for number in range(20)])
    message = refused(tmp_path, "few", user_inter_num_interval="[1000,inf)")
    assert "Nothing is left of it after user_inter_num_interval" in message and "Set them lower" in message
