"""A result says which embeddings a model read, and what made them."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import World
from trainings import train

from recbole_rlmrec.version import __version__


def test_two_encoders_can_be_told_apart(world: World) -> None:
    results = []
    for encoder in ("one", "two"):
        (world.folder / "tiny.semantic.json").write_text(json.dumps({"encoder": encoder, "writer": "template"}))
        results.append(train(world, "LightGCN_RLMRecCon", epochs=1, result_file=f"{encoder}.json"))
        world.semantic = tuple({token: -vector for token, vector in table.items()} for table in world.semantic)
        world.write()
    first, second = (result.semantic for result in results)
    assert (first["encoder"], second["encoder"], first["writer"]) == ("one", "two", "template")
    assert first["file"] == second["file"] and first["file"]["user"].endswith("tiny.useremb.npy")
    assert first["sha256"]["item"] != second["sha256"]["item"] == results[1].data["item embeddings"]
    assert results[0].versions["recbole_rlmrec"] == __version__ and results[0].command
    assert json.loads(Path("one.json").read_text())["semantic"] == first


def test_a_model_without_embeddings_names_none(world: World) -> None:
    assert train(world, "LightGCN", epochs=1).semantic is None
