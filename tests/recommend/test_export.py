"""What is exported is what the model scores by, in every format; it is whole or not there; faults are said."""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from trainings import train

from recbole_rlmrec import Recommender, SemanticEmbedding, load_model
from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError, TrainingError
from recbole_rlmrec.model.arrays import tables_of
from recbole_rlmrec.model.scores import evaluating, scores_are_products
from recbole_rlmrec.recommend import export as exporting
from recbole_rlmrec.recommend.item_index import recall_of
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items


def recommender_of(world: World, name: str, **settings: Any) -> Recommender:
    """Return a recommender by a model with its first weights."""
    config = world.config(name, **settings)
    dataset, train_data, valid_data, _ = world.loaders(config)
    return Recommender(config.model_class(config, train_data._dataset), dataset, (train_data, valid_data))


def read(folder: Path, format: str, side: Any) -> tuple[list[str], np.ndarray]:
    """Return ids and vectors of a side as other programs read them."""
    if format == "npy":
        embedding = SemanticEmbedding.load([folder], "tiny", side)
        return embedding.tokens.tolist(), embedding.vectors
    if format == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(folder / f"tiny.{side}s.parquet").to_pydict()
        return table["id"], np.array(table["vector"], dtype=np.float32)
    tensors = pytest.importorskip("safetensors.torch").load_file(folder / "tiny.safetensors")
    return (folder / f"tiny.{side}s.tokens").read_text(encoding="utf-8").split("\n")[:-1], tensors[f"{side}s"].numpy()


@pytest.mark.parametrize("format", exporting.EXPORT_FORMATS)
def test_products_are_the_scores(world: World, format: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In blocks of seven rows; with what meta.json says."""
    pytest.importorskip({"npy": "numpy"}.get(format, "pyarrow" if format == "parquet" else "safetensors"))
    write_items(world.folder / "items.jsonl", [Item(f"i{n}", f"Title {n} — ü") for n in range(20)])
    monkeypatch.setattr(exporting, "_BLOCK", 7 * 8)
    recommender = recommender_of(world, "LightGCN")
    recommender.model.train()
    folder = tmp_path / "new" / "folder"
    meta = recommender.export(folder, format)
    assert recommender.model.training
    (users, of_users), (items, of_items) = (read(folder, format, side) for side in ("user", "item"))
    assert "[PAD]" not in users + items and of_users.dtype == of_items.dtype == np.float32
    expected = recommender.scores(users)
    assert expected.columns.tolist() == items and len(users) == 40
    np.testing.assert_allclose(of_users @ of_items.T, expected, rtol=1e-4, atol=1e-7)
    assert sorted(meta["files"]) == sorted(path.name for path in folder.iterdir())
    assert json.loads((folder / "meta.json").read_text(encoding="utf-8")) == meta
    known = {"model": "LightGCN", "dataset": "tiny", "users": 40, "items": 30, "dimension": 8, "index": None}
    assert known.items() <= meta.items() and meta["checkpoint"] is None
    assert meta["score"].startswith("inner product") and "torch" in meta["versions"]


def test_parquet_has_titles_where_they_are_known(world: World, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_items(world.folder / "items.jsonl", [Item("i3", "Three")])
    recommender_of(world, "LightGCN").export(tmp_path / "p", "parquet")
    users, items = (parquet.read_table(tmp_path / f"p/tiny.{side}s.parquet") for side in ("user", "item"))
    assert users.column_names == ["id", "vector"] and items.column_names == ["id", "title", "vector"]
    assert str(items.schema.field("vector").type).startswith("list<") and "float" in str(items.schema)
    titles = dict(zip(items["id"].to_pylist(), items["title"].to_pylist()))
    assert titles.pop("i3") == "Three" and set(titles.values()) == {None}


@pytest.mark.parametrize(
    ("name", "is_product"),
    [
        ("LightGCN_RLMRecGen", True),
        ("AlphaRec", True),
        ("BPR_RLMRecCon", True),
        ("NGCF_RLMRecCon", True),
        ("NeuMF_RLMRecCon", False),
        ("GCMC_RLMRecCon", False),
    ],
)
def test_models_that_score_by_products(world: World, name: str, is_product: bool, tmp_path: Path) -> None:
    recommender = recommender_of(world, name)
    if is_product:
        recommender.export(tmp_path / "out")
        users, items = (SemanticEmbedding.load([tmp_path / "out"], "tiny", side).vectors for side in ("user", "item"))
        everyone = recommender.dataset.field2id_token["user_id"][1:]
        np.testing.assert_allclose(users @ items.T, recommender.scores(everyone), rtol=1e-3, atol=1e-5)
        return
    with pytest.raises(SettingError, match=rf"^{name} scores a user and an item by something else than the inner"):
        recommender.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bias_is_no_part_of_a_product(world: World) -> None:
    """Of an autoencoder, whose last layer has one: at first it is zero."""
    recommender = recommender_of(world, "MultiDAE_RLMRecCon", mlp_hidden_size=[8])
    seen = []
    for bias in (0.0, 0.01):
        torch.nn.init.normal_(recommender.model.output_layer().bias, std=bias)
        with evaluating(recommender.model):
            tables = tables_of(recommender.model)
            seen.append(scores_are_products(recommender.model, recommender.dataset, *tables))
    assert seen == [True, False]


# ---------------------------------------------------------------------- whole or not there


def test_what_is_there_is_replaced_only_where_that_is_asked_for(world: World, tmp_path: Path) -> None:
    recommender = recommender_of(world, "LightGCN")
    recommender.export(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with torch.no_grad():
        recommender.model.user_embedding.weight.mul_(2)
    with pytest.raises(DataError, match=r"has tiny\.useremb\.npy, .* already\. .*: --overwrite, in Python"):
        recommender.export(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    recommender.export(tmp_path, overwrite=True)
    assert (tmp_path / "tiny.useremb.npy").read_bytes() != before["tiny.useremb.npy"]


@pytest.mark.parametrize("format", exporting.EXPORT_FORMATS)
def test_an_interrupted_export_leaves_nothing(
    world: World, format: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    recommender = recommender_of(world, "LightGCN")

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "versions", interrupted)  # which is asked for last
    with pytest.raises(KeyboardInterrupt):
        recommender.export(tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_an_export_that_was_killed_is_refused_by_readers_and_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recommender = recommender_of(world, "LightGCN")
    with monkeypatch.context() as patched:
        replace = os.replace

        def users_only(source: Any, target: Any) -> None:
            if Path(target).name.startswith("tiny.item"):
                raise OSError("the disk is gone")
            replace(source, target)

        patched.setattr("os.replace", users_only)
        with pytest.raises(DataError, match=r"`recbole-rlmrec export --dataset tiny \.\.\.` again.*--output DIR"):
            recommender.export(tmp_path / "out")
    with pytest.raises(DataError, match="may hold old files beside new ones"):
        SemanticEmbedding.load([tmp_path / "out"], "tiny", "user")
    recommender.export(tmp_path / "out")
    assert len(SemanticEmbedding.load([tmp_path / "out"], "tiny", "user").tokens) == 40


@pytest.mark.parametrize("name", ["LightGCN", "BPR_RLMRecCon"])
def test_vectors_that_are_no_numbers(world: World, name: str, tmp_path: Path) -> None:
    recommender = recommender_of(world, name)
    with evaluating(recommender.model):
        users, items = (table.clone() for table in tables_of(recommender.model))
    items[5, 2] = torch.nan
    recommender.model.representation = lambda: (users, items)
    token = recommender.dataset.field2id_token["item_id"][5]
    with pytest.raises(TrainingError, match=f"representation of '{token}' holds NaN or infinity"):
        recommender.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- index


class Half:
    """An index that finds every second of the best items."""

    def __init__(self, users: torch.Tensor, items: torch.Tensor) -> None:
        self._items = items

    def search(self, vector: np.ndarray, k: int) -> Any:
        found = torch.argsort(self._items @ torch.from_numpy(vector), descending=True)[:k:2]
        return type("Matches", (), {"keys": found.numpy().astype(np.uint64)})


def test_recall_is_the_share_of_the_best_that_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_rlmrec.recommend.item_index.metadata.version", lambda name: "1")
    users, items = torch.randn(1501, 4), torch.randn(31, 4)
    found = recall_of(Half(users, items[1:]), users, items, memory=0.1)
    assert found["recall@10"] == 0.5 and found["users"] == 1000
    few = recall_of(Half(users[:8], items[1:5]), users[:8], items[:5], memory=0.1)
    assert few["recall@10"] == 0.5 and few["users"] == 7


def test_the_index_finds_the_best_items(world: World, tmp_path: Path) -> None:
    usearch = pytest.importorskip("usearch.index")
    recommender = recommender_of(world, "LightGCN")
    meta = recommender.export(tmp_path / "out", index="usearch")
    assert meta["index"]["recall@10"] > 0.95 and meta["index"]["users"] == 40
    assert "tiny.items.usearch" in meta["files"]
    users, items = (SemanticEmbedding.load([tmp_path / "out"], "tiny", side) for side in ("user", "item"))
    index = usearch.Index.restore(str(tmp_path / "out/tiny.items.usearch"))
    row = users.tokens.tolist().index("u7")
    [best] = recommender.recommend("u7", 1, include_seen=True)["item"]
    assert items.tokens[int(index.search(users.vectors[row], 1).keys[0])] == best


# ---------------------------------------------------------------------- projector


@pytest.mark.parametrize("ending", ["pt", "onnx"])
def test_the_projector_of_a_file_is_the_model_s(world: World, ending: str, tmp_path: Path) -> None:
    if ending == "onnx":
        evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    recommender = recommender_of(world, "LightGCN_RLMRecCon")
    path = tmp_path / f"projector.{ending}"
    state = torch.get_rng_state()
    recommender.export_projector(path)
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in recommender.model.projector.parameters())
    embeddings = torch.randn(5, 12)
    expected = recommender.model.projector(embeddings).detach()
    assert expected.shape == (5, 8)
    if ending == "pt":
        assert torch.equal(torch.jit.load(path)(embeddings), expected)
    else:
        [found] = evaluator(str(path)).run(None, {"embedding": embeddings.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match=rf"has projector\.{ending} already"):
        recommender.export_projector(path)
    recommender.export_projector(path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("LightGCN", {}), ("LightGCN_RLMRecGen", {}), ("LightGCN_RLMRecCon", {"alignment_weight": 0}), ("Pop", {})],
)
def test_models_without_a_projector_of_texts(world: World, name: str, settings: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"^{name} has no projector of texts: .* _RLMRecCon, with an alignment_weig"):
        recommender_of(world, name, **settings).export_projector(tmp_path / "p.pt")
    assert list(tmp_path.glob("p.pt")) == []


# ---------------------------------------------------------------------- the verb


@pytest.fixture
def checkpoint(world: World) -> Path:
    return Path(train(world, "LightGCN_RLMRecCon", epochs=1).checkpoint)


def test_the_verb_exports_what_the_class_does(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--model=LightGCN_RLMRecCon", "--dataset=tiny"]
    capsys.readouterr()
    assert main([*arguments, "--output=out", "--projector=p.pt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Projector: p.pt" and lines[1].startswith("40 users and 30 items, 8 numbers each, in 'out': ")
    meta = json.loads(Path("out/meta.json").read_text(encoding="utf-8"))
    assert meta["checkpoint"] == {"file": checkpoint.name, "sha256": sha256(checkpoint.read_bytes()).hexdigest()}
    loaded = load_model(checkpoint)
    found = SemanticEmbedding.load([Path("out")], "tiny", "item")
    tokens, vectors = loaded.representations("item")
    assert found.tokens.tolist() == tokens.tolist()
    np.testing.assert_array_equal(found.vectors, vectors)


WRONG = {
    "--output=out --model=LightGCN": r"Give --checkpoint=FILE, or both --model and --dataset",
    "": r"Give --output=DIR for the vectors, --projector=FILE for the projector, or both",
    "--projector=p.pt --index=usearch": r"--index is written beside the vectors: give --output=DIR as well",
    "--output=out --format=csv": r"format='csv': expected one of npy, parquet, safetensors",
    "--output=out --index=faiss": r"index='faiss': expected usearch, or no index",
    "--projector=p.bin": r"'p\.bin' for a projector: expected a name that ends with \.pt or \.onnx",
    "--projector=a-file/p.pt": r"a-file",
    "--output=a-file": r"Cannot write in a-file: .* choose another folder with --output DIR",
    "--output=saved --projector=there.pt": r"'\.' has there\.pt already",
}


def test_what_is_wrong_is_one_sentence(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a-file").write_text("")
    Path("there.pt").write_text("")
    for arguments, message in WRONG.items():
        capsys.readouterr()
        assert main(["export", f"--checkpoint={checkpoint}", *arguments.split()]) == 2, arguments
        said = capsys.readouterr()
        assert said.out == "" and len(said.err.splitlines()) == 1, said
        assert re.search(message, said.err), said.err


@pytest.mark.parametrize(
    ("package", "arguments", "remedy"),
    [
        (
            "pyarrow",
            "--output=out --format=parquet",
            r"needs the package 'pyarrow', .*: pip install pyarrow, or choose npy\.",
        ),
        (
            "usearch",
            "--output=out --index=usearch",
            r"needs the package 'usearch', .*: pip install 'recbole-rlmrec\[index\]'\.",
        ),
        ("onnx", "--projector=p.onnx", r"needs the package 'onnx', .*: pip install onnx, or write a \.pt file\."),
    ],
)
def test_what_is_not_installed_is_named_before_the_model_is_loaded(
    package: str, arguments: str, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recbole_rlmrec.extras.find_spec", lambda name: None)
    assert main(["export", "--checkpoint=nowhere.pth", *arguments.split()]) == 2
    assert re.search(remedy, capsys.readouterr().err)
