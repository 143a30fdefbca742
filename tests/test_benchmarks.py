"""The reference of the benchmarks computes our numbers, and every benchmark runs."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import World, batch_of, built
from recbole.data.interaction import Interaction
from trainings import train

from recbole_rlmrec import Recommender
from recbole_rlmrec.cli import main
from recbole_rlmrec.encoder.base import EncoderSettings, make_encoder
from recbole_rlmrec.encoder.encode import encode_texts as encode_texts_of
from recbole_rlmrec.experiment.lists import RankedLists
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.ops.graph import Adjacency
from recbole_rlmrec.quick_start import load_model, run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, no package

cold_items = importlib.import_module("cold_items")
compiled = importlib.import_module("compiled")
encode_texts = importlib.import_module("encode_texts")
epochs = importlib.import_module("epochs")
free_text = importlib.import_module("free_text")
growth = importlib.import_module("growth")
large_table = importlib.import_module("large_table")
limits = importlib.import_module("limits")
operations = importlib.import_module("operations")
paired = importlib.import_module("paired")
groups = importlib.import_module("groups")
own_data = importlib.import_module("own_data")
peers = importlib.import_module("peers")
popularity = importlib.import_module("popularity")
prepare_dump = importlib.import_module("prepare_dump")
profile_step = importlib.import_module("profile_step")
recommend = importlib.import_module("recommend")
redraw = importlib.import_module("redraw")
reduced = importlib.import_module("reduced")
reference = importlib.import_module("reference")
searches = importlib.import_module("searches")
seed_pairs = importlib.import_module("seed_pairs")
serve_load = importlib.import_module("serve_load")
supported_models = importlib.import_module("supported_models")
timing = importlib.import_module("timing")
update = importlib.import_module("update")
workload = importlib.import_module("workload")

SMALL = "--users 40 --items 30 --interactions 200 --semantic_dim 12 --batch 64 --rounds 1 --no-memory"


# ---------------------------------------------------------------------- the reference


class Draws:
    """Keeps the edges and the noise that our model draws and gives them to the reference, in the same order.

    Ours have rows for ``[PAD]`` and lie in CSR order where they belong to edges, the reference's in COO order.
    """

    def __init__(self, model: Any, our_row: torch.Tensor, adjacency: torch.Tensor) -> None:
        graph = model.adjacency
        self.our_row = our_row
        our_entries = torch.repeat_interleave(torch.arange(graph.n_nodes), graph.row_start.long().diff())
        entry = torch.full((graph.n_nodes, graph.n_nodes), -1)
        entry[our_entries, graph.column.long()] = torch.arange(len(graph.column))
        self.our_entry = entry[tuple(our_row[adjacency.indices()])]
        assert (self.our_entry >= 0).all()
        self.kept: list[torch.Tensor] = []
        self.rand_like, self.drop_edges = torch.rand_like, Adjacency.drop_edges

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        drawn = self.rand_like(like)
        if like.dim() == 1:  # of edges, which `edges` keeps
            return drawn
        self.kept.append(drawn[self.our_row])
        return drawn

    def edges(self, graph: Adjacency, keep_rate: float) -> Adjacency:
        dropped = self.drop_edges(graph, keep_rate)
        if keep_rate < 1:
            is_kept = (dropped.value != 0)[self.our_entry]
            assert 0 < is_kept.sum() < len(is_kept)
            self.kept.append((~is_kept).float())  # below the keep rate where kept
        return dropped

    def replay(self, like: torch.Tensor) -> torch.Tensor:
        return self.kept.pop(0)


def official(world: World, name: str) -> tuple[Any, Any, dict[str, tuple[torch.Tensor, slice]]]:
    """Return our model with the paper's settings, the reference at its weights, and these by the reference's names."""
    settings = {**workload.official_settings(name), "embedding_size": 8, "reg_weight": 0.01}
    model, dataset = built(world, name, **settings)
    users, items, shape = workload.without_padding(dataset)
    semantic = None
    if "_RLMRec" in name:
        semantic = tuple(dataset.semantic_embedding(side).matrix()[1:] for side in ("user", "item"))
    theirs = reference.build(name, (users, items), shape, world.config(name, **settings), semantic)
    table, everything = slice(1, None), slice(None)
    weights = {
        "backbone.user_embedding": (model.user_embedding.weight, table),
        "backbone.item_embedding": (model.item_embedding.weight, table),
    }
    if semantic is not None:
        layers = model.projector.named_parameters()
        weights.update({f"projector.{key}": (parameter, everything) for key, parameter in layers})
    if hasattr(model, "node_mask"):
        weights["mask_token"] = (model.node_mask.token, everything)
    theirs.load_state_dict({key: parameter[rows] for key, (parameter, rows) in weights.items()})
    return model, theirs, weights


@pytest.mark.parametrize("name", epochs.MODELS)
def test_reference_computes_our_losses_and_gradients(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, theirs, weights = official(world, name)
    our_row = torch.cat([torch.arange(1, model.n_users), model.n_users + torch.arange(1, model.n_items)])
    rng = np.random.default_rng(3)
    users, positives, negatives = (rng.integers(1, n, 64) for n in (model.n_users, model.n_items, model.n_items))
    assert len(np.unique(users)) < 64
    if hasattr(model, "node_mask"):
        assert len(theirs.draw_masked()) == model.node_mask.n_masked
        masked = torch.from_numpy(rng.permutation(len(our_row))[: model.node_mask.n_masked])
        monkeypatch.setattr(model.node_mask, "draw", lambda: our_row[masked])
        monkeypatch.setattr(theirs, "draw_masked", lambda: masked)

    draws = Draws(model, our_row, theirs.backbone.adjacency)
    monkeypatch.setattr(Adjacency, "drop_edges", lambda graph, keep_rate: draws.edges(graph, keep_rate))
    monkeypatch.setattr(torch, "rand_like", draws.noise)
    losses = model.calculate_loss(batch_of(users, positives, negatives))
    monkeypatch.setattr(torch, "rand_like", draws.replay)
    their_losses = theirs.losses(tuple(torch.from_numpy(ids - 1) for ids in (users, positives, negatives)))

    assert not draws.kept  # each was used
    ours = dict(zip(model.loss_names, losses))
    assert set(ours) == set(their_losses)
    for term, value in their_losses.items():
        assert ours[term].item() == pytest.approx(value.item(), rel=1e-5), term
    sum(losses).backward()
    sum(their_losses.values()).backward()
    their_gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    assert set(their_gradients) == set(weights)
    for key, (parameter, rows) in weights.items():
        torch.testing.assert_close(their_gradients[key], parameter.grad[rows], rtol=1e-3, atol=1e-6)


def test_reference_draws_items_without_an_interaction() -> None:
    users, items = workload.zipf_interactions(30, 20, 300)
    rows = reference.PairwiseRows(users, items, (30, 20))
    rows.draw_negatives(range(len(rows)))
    known = set(zip(users.tolist(), items.tolist()))
    drawn = [rows[number] for number in range(len(rows))]
    assert {(int(user), int(item)) for user, item, _ in drawn} == known
    assert not known & {(int(user), int(negative)) for user, _, negative in drawn}


# ---------------------------------------------------------------------- generated data


def test_generated_interactions_are_distinct_and_skewed() -> None:
    users, items = workload.zipf_interactions(500, 300, 10_000, item_exponent=0.8)
    assert len(np.unique(users * 300 + items)) == len(users) == 10_000
    assert len(np.unique(users)) == 500 and len(np.unique(items)) == 300
    popularity = np.sort(np.bincount(items))[::-1]
    assert popularity[:30].sum() > 0.3 * 10_000
    again = workload.zipf_interactions(500, 300, 10_000, item_exponent=0.8)
    np.testing.assert_array_equal(again, (users, items))
    with pytest.raises(ValueError, match="expected 500 to 75000"):
        workload.zipf_interactions(500, 300, 499)


# ---------------------------------------------------------------------- timing


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    seconds = timing.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, warmup=1)
    assert "".join(calls) == "ababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_ratio_pairs_the_rounds() -> None:
    # A machine that is ten times slower in one round leaves the ratio of that round as it is.
    assert timing.ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2
    assert timing.spread([0.002, 0.001, 0.0125]) == "2.00 (1.00-12.5)"
    assert [timing.number(value) for value in (1234.5, 0.1234)] == ["1,234", "0.123"]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_peak_memory_is_that_of_the_work() -> None:
    peak = timing.peak_memory(partial(partial, torch.ones, 64 * 2**18)) / timing.MIB
    assert 63 <= peak < 70


def test_section_of_a_report_is_replaced_and_hides_paths(tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "results.md"
    given = ["--data_path", "/some/where", f"--output={output}", "--rounds=3", "--data_path=/else"]
    arguments = argparse.Namespace(given=given, output=output, device="cpu")
    for title, part in (("A", "first"), ("B", "second"), ("A", "third")):
        timing.report("epochs.py", title, [part], arguments)
    text = output.read_text()
    assert re.findall(r"(?m)^## (.*)$", text) == ["A", "B"]
    assert "first" not in text and text.index("third") < text.index("second")
    assert "`python benchmarks/epochs.py --data_path=DATA --rounds=3 --data_path=DATA`" in text
    assert "some/where" not in text and "torch" in text
    assert "third" in capsys.readouterr().out


# ---------------------------------------------------------------------- every script runs


@pytest.fixture
def fast_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPIED_BYTES", 2**16)
    limits.bandwidth.cache_clear()


def rows_of(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("| ")]


def test_operations_runs(fast_copy: None, capsys: Any) -> None:
    assert operations.main(f"{SMALL} --candidates 45 --widths 8 --masked 10 --square 16".split()) == 0
    printed = "\n".join(rows_of(capsys.readouterr().out))
    sections = ("GFLOP/s", "propagation", "distinct anchors", "of a batch", "reconstruction", "negatives", "full-sort")
    for what in sections:
        assert what in printed, what


@pytest.mark.parametrize("steps", ["0", "1"])
def test_epochs_runs(steps: str, fast_copy: None, capsys: Any) -> None:
    models = "LightGCN SGL LightGCN_RLMRecCon SimGCL_RLMRecGen"
    assert epochs.main(f"{SMALL} --amp --steps {steps} --models {models}".split()) == 0
    printed = "\n".join(rows_of(capsys.readouterr().out))
    for line in ("SGL: RecBole", "SGL: reference", "LightGCN_RLMRecCon: ours, alignment_negatives: batch"):
        assert line in printed, line


def test_compiled_runs(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(torch, "compile", lambda part, dynamic, mode: part)  # it takes half a minute
    assert compiled.main([word for word in SMALL.split() if word != "--no-memory"] + ["--steps", "1"]) == 0
    _, _, *rows = rows_of(capsys.readouterr().out)
    assert [row.split("`")[1] for row in rows] == ["noise", "projector", "calculate_loss"]


def test_growth_runs(capsys: Any) -> None:
    sizes = "--sizes 4000 --per_user 10 --per_item 20 --width 4 --semantic_dim 8 --batch 64 --rounds 1 --threads 1"
    assert growth.main(sizes.split()) == 0
    header, _, row = rows_of(capsys.readouterr().out)
    assert row.startswith("| 4,000 (400 x 200) |") and " - " not in row
    assert row.count("|") == header.count("|")


def test_growth_of_the_propagation_alone(capsys: Any) -> None:
    small = "--sizes 4000 8000 --width 4 --rounds 1 --threads 1"
    assert growth.main([*small.split(), "--only_propagation"]) == 0
    header, _, row, _, exponents = rows_of(capsys.readouterr().out)
    assert "propagation, s" in header and "loading" not in header and "GPU" not in header
    assert row.startswith("| 4,000 (200 x 100) |") and exponents.count("|") == header.count("|")


def test_where_a_step_goes(capsys: Any) -> None:
    small = [*SMALL.replace("--no-memory", "").split(), "--models", "LightGCN", "LightGCN_RLMRecCon", "--steps", "2"]
    assert profile_step.main(small) == 0
    rows = rows_of(capsys.readouterr().out)
    assert sum(row.startswith("| LightGCN_RLMRecCon |") for row in rows) == profile_step.N_SHOWN
    assert any("aten::" in row for row in rows)


def test_libraries_are_timed_beside_each_other(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """And who is not installed is said."""
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    small = [*SMALL.replace("--no-memory", "").split(), "--epochs", "1", "--target", "0.01", "--most", "2"]
    assert peers.main(small) == 0
    said = capsys.readouterr().out
    assert [row.split(" | ")[0] for row in rows_of(said)[2:]] == ["| recbole_rlmrec", "| RecBole"]
    assert "Cornac is not installed. LensKit is not installed." in said


def test_recall_of_the_peers_is_that_of_a_slow_count() -> None:
    train = pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"]})
    valid = pd.DataFrame({"user_id": ["a", "b", "b"], "item_id": ["z", "x", "y"]})
    data = peers.Data((Path(), ""), train, valid, np.array(["a", "b"]), np.array(["x", "y", "z"]))
    users, items = np.eye(2, dtype=np.float32), np.array([[9, 1], [8, 3], [1, 9]], dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "K", 1)
        assert data.recall(users, items) == (1 + 1 / 2) / 2  # a: z, the only one left; b: y before x


def test_a_service_stands_a_short_load(world: World, capsys: Any) -> None:
    """20 clients for 2 seconds, of the command as it is typed: no request fails."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    checkpoint = train(world, "LightGCN", epochs=1).checkpoint
    assert serve_load.main(["--checkpoint", checkpoint, "--clients", "20", "--seconds", "2"]) == 0
    _, row = rows_of(capsys.readouterr().out)
    cells = [cell.strip().replace(",", "") for cell in row.split("|")[1:-1]]
    assert cells[:2] == ["1", "20"] and int(cells[3]) > 20 and cells[4] == "0" and float(cells[8]) < 5000


def test_lists_are_measured(capsys: Any) -> None:
    sizes = "--users 60 --items 300 --sample 20 --seen 3 --rounds 1 --memory 0.1"
    assert recommend.main(sizes.split()) == 0
    _, _, ours, plain = rows_of(capsys.readouterr().out)
    assert ours.startswith("| ours |") and plain.startswith("| torch.topk |") and " 1.00x " in plain


def test_large_table_runs(capsys: Any) -> None:
    sizes = "--users 300 --items 50 --interactions 900 --dimension 8 --batch 256 --rounds 2"
    assert large_table.main([*sizes.split(), "--storages", "memory_map", "memory"]) == 0
    _, _, mapped, held = rows_of(capsys.readouterr().out)
    assert mapped.startswith("| memory_map |") and held.startswith("| memory |") and mapped.count("|") == 7


def test_encode_texts_runs(tmp_path: Path, capsys: Any) -> None:
    texts = {"7": "red tea cup", "b": "red wine glass", "3": "green tea glass", "x": "wine cup"}
    lines = [json.dumps({"token": token, "text": text}) + "\n" for token, text in texts.items()]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    encoder = make_encoder("lsa", EncoderSettings(dimension=2))
    tokens = ["x", "3", "7"]
    encoder.fit([texts[token] for token in tokens])
    reference = 5 * encoder.encode([texts[token] for token in tokens])
    reference[1] += 0.5 * np.linalg.norm(reference[1]) * np.array([0, 1], dtype=np.float32)
    np.save(tmp_path / "reference.npy", reference)
    (tmp_path / "tokens.txt").write_text("x\n3\n7\n")
    files = f"--data_path {tmp_path} --texts texts.jsonl --tokens tokens.txt --reference reference.npy"
    options = [*files.split(), "--encoder", "lsa", "--dimension", "2"]
    assert encode_texts.main(options) == 0
    _, _, row = rows_of(capsys.readouterr().out)
    ours = encoder.encode([texts["3"]])[0].astype(np.float64)
    least = ours @ reference[1] / np.linalg.norm(ours) / np.linalg.norm(reference[1])
    cells = row.strip("| ").split(" | ")
    assert cells[:3] == ["texts.jsonl", "3", "2"]
    assert [float(cell) for cell in cells[3:5]] == pytest.approx([least, (2 + least) / 3], abs=2e-6)
    (tmp_path / "tokens.txt").write_text("x\n3\nunknown\n")
    with pytest.raises(SystemExit):
        encode_texts.main(options)
    assert "3 rows, 3 tokens, 1 of these without a text" in capsys.readouterr().err


def test_redraw_runs(capsys: Any) -> None:
    sizes = "--users 400 --items 300 --interactions 2000 --semantic_dim 12 --batch 64 --rounds 3"
    assert redraw.main(sizes.split()) == 0
    *_, base, con, gen = rows_of(capsys.readouterr().out)
    for row, model in ((base, "AutoCF"), (con, "AutoCF_RLMRecCon"), (gen, "AutoCF_RLMRecGen")):
        name, _, draw, choice = row.strip("| ").split(" | ")
        assert name == model and 0 < float(draw.split()[0]) < float(choice.split()[0])


def test_reduced_runs(capsys: Any) -> None:
    sizes = "--users 400 --items 300 --interactions 2000 --semantic_dim 48 --dimension 4 --batch 64 --rounds 1"
    assert reduced.main(sizes.split()) == 0
    _, _, *rows = rows_of(capsys.readouterr().out)
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        f"{model}{amp}" for model in reduced.MODELS for amp in ("", ", enable_amp")
    ]


def test_the_products_of_reduced_rows_shrink_with_them(world: World) -> None:
    """The work of the bare products is that of the dimension that is read; the hidden layers stay. Gen's are others."""
    for model in reduced.MODELS.keys() - {"LightGCN_RLMRecGen"}:
        flops = []
        for dimension in (12, 3):
            built, train_data = world.model(model, semantic_dimension=dimension)
            products = reduced.products_over_profiles(built, next(iter(train_data)))
            flops.append(sum(product.flops for product in products))
        assert flops[0] == 4 * flops[1] > 0, model


def test_prepare_dump_runs(capsys: Any) -> None:
    assert prepare_dump.main(["--bytes", "1e5", "--k_core", "3"]) == 0
    printed = capsys.readouterr().out
    assert "10,000 reviews in" in printed
    _, _, row = rows_of(printed)
    assert row.startswith("| 3 |") and int(row.split(" | ")[1].replace(",", "")) > 500


@pytest.mark.parametrize("part", ["bases", "aligned", "runs"])
def test_the_commands_of_the_results_are_ours(part: str) -> None:
    """Every file that a command of ``results/steam-tuned`` reads is there, every model is known, none is missing."""
    script = ["bash", "results/steam-tuned/commands.sh", part, "--data_path=elsewhere"]
    printed = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    folder, models = ROOT / "results/steam-tuned", set()
    for line in printed:
        program, script_name, *arguments = shlex.split(line)
        assert (program, script_name) == ("python", "run_recbole_rlmrec.py") and "--data_path=elsewhere" in arguments
        values = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
        get_model(values["model"])
        models.add(values["model"])
        files = [*values.get("config_files", "").split(), *([values["tune"]] if "tune" in values else [])]
        assert files and all((ROOT / name).is_file() for name in files)
        assert not (ROOT / values.get("result_file", "no file")).exists()
    searched = {path.name for path in (folder / "steam-text").iterdir()}
    if part == "runs":
        results = {name: [folder / f"runs/{name}-{seed}.json" for seed in (2023, 2024, 2025)] for name in searched}
        assert models == {name for name in searched if not all(path.exists() for path in results[name])}
    else:
        assert models == {name for name in searched if ("RLMRec" in name) == (part == "aligned")}


def test_the_results_follow_from_the_searches_and_runs(capsys: Any) -> None:
    folder = ROOT / "results/steam-tuned"
    assert searches.main([str(folder / "steam-text"), "--runs", str(folder / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "left out" not in printed
    assert [row for row in rows_of(printed) if row not in (folder / "README.md").read_text(encoding="utf-8")] == []


def test_searches_are_compared_with_their_bases(capsys: Any, tmp_path: Path) -> None:
    scores = {
        "A": [(0.2, 0.1), (0.3, 0.2), (None, None)],
        "A_RLMRecCon": [(0.4, 0.25), (0.1, 0.9)],
        "A_RLMRecGen": [(None, None)],
    }
    for model, trials in scores.items():
        (tmp_path / model).mkdir()
        lines = [
            {
                "number": number + 1,
                "score": valid,
                "best_epoch": number,
                "parameters": {"x": number},
                "settings": {"seed": 1},
                "test_result": None if test is None else {"recall@20": test, "ndcg@20": test / 2},
            }
            for number, (valid, test) in enumerate(trials)
        ]
        (tmp_path / model / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert searches.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "left out: A_RLMRecGen." in printed
    _, _, *found = rows_of(printed)
    assert found == [
        "| A | 3 | 0.3000 | 0.2000 | 0.1000 | 1 | x 1 |",
        "| A_RLMRecCon | 2 | 0.4000 | 0.2500 (+25.0%) | 0.1250 (+25.0%) | 0 | x 0 |",
    ]
    searches.main([str(tmp_path), "--trials", "1"])
    _, _, *found = rows_of(capsys.readouterr().out)
    assert found == [
        "| A | 1 | 0.2000 | 0.1000 | 0.0500 | 0 | x 0 |",
        "| A_RLMRecCon | 1 | 0.4000 | 0.2500 (+150.0%) | 0.1250 (+150.0%) | 0 | x 0 |",
    ]
    for name, recall in {"A-1": 0.1, "A-2": 0.2, "A_RLMRecCon-2": 0.2, "A-2-patient-1": 0.9, "B-1": 0.9}.items():
        run = {"settings": {"seed": int(name[-1])}, "test_result": {"recall@20": recall, "ndcg@20": recall / 2}}
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    stale = {"settings": {"seed": 3, "n_layers": 9}, "test_result": {"recall@20": 0.9, "ndcg@20": 0.9}}
    (tmp_path / "A-3.json").write_text(json.dumps(stale))
    searches.main([str(tmp_path), "--runs", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "left out: A-3.json. Make them again." in printed
    assert rows_of(printed)[-2:] == [
        "| A | 1, 2 | 0.1500 ± 0.0707 | 0.0750 ± 0.0354 |",  # the run of seed 1 goes before the search's trial
        "| A_RLMRecCon | 1, 2 | 0.2250 ± 0.0354 (+50.0%) | 0.1125 ± 0.0177 (+50.0%) |",
    ]
    with pytest.raises(SystemExit):
        searches.main([str(tmp_path / "A")])
    assert "holds no" in capsys.readouterr().err


def test_supported_models_runs(capsys: Any, tmp_path: Path) -> None:
    output = tmp_path / "table.md"
    models = ["SimGCL", "BPR", "GCMC", "FISM", "Pop"]
    assert supported_models.main(["--models", *models, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert output.read_text() == printed
    _, *found = rows_of(printed)
    assert [row.split(" | ")[:3] for row in found] == [
        ["| `SimGCL`", "yes", "yes"],
        ["| `BPR`", "yes", "yes"],
        ["| `GCMC`", "yes", "yes"],
        ["| `FISM`", "yes", "no"],
        ["| `Pop`", "no", "no"],
    ]
    assert "by popularity" in found[-1] and "has no ego embedding of a user" in found[-2]


def test_supported_models_tells_what_the_registry_gets_wrong(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(supported_models.RECBOLE_MODELS, "BPR", supported_models.RECBOLE_MODELS["Pop"])
    monkeypatch.setattr(supported_models, "train_one_step", lambda name, root: None)
    assert supported_models.main(["--models", "BPR"]) == 1
    assert "BPR_RLMRecGen: trained, but is said not to" in capsys.readouterr().err


def test_growth_is_an_exponent() -> None:
    loads = [growth.Load(size, 10, 20, 4, 8, 1.0, 64, 1, 1) for size in (1000, 4000, 9000)]
    found = [{"graph": 0.001 * n, "peak": float(n**2)} for n in (1, 4, 9)]
    found[0]["LightGCN"], found[1]["LightGCN"] = 2.0, 4.0
    *_, last = rows_of(growth.growth_table(loads, found))
    assert last.split(" | ")[1:] == ["1.00", "0.50", "2.00 |"]  # columns without a value are left out


def test_popularity_is_that_of_the_slow_way(world: World, capsys: Any) -> None:
    settings = {"data_path": str(world.root), "benchmark_filename": ["train", "valid", "test"], "state": "ERROR"}
    result = run("LightGCN", world.name, config_dict={**settings, "epochs": 2, "show_progress": False})
    assert result is not None
    _, model, dataset, *_ = load_model(result.checkpoint)
    items = dataset.field2id_token["item_id"][1:].tolist()
    sold = [sum(item == other for _, other in world.train) for item in items]
    recalls, popular_recalls, shares = [], [], []
    for user in sorted({user for user, _ in world.test}):
        query = Interaction({"user_id": torch.tensor([dataset.token2id("user_id", user)])})
        seen = {item for other, item in [*world.train, *world.valid] if other == user}
        wanted = {item for other, item in world.test if other == user}
        tops = []
        for scores in (model.full_sort_predict(query).tolist()[1:], sold):
            ranked = sorted(zip(scores, items), key=lambda entry: -entry[0])
            tops.append({item for _, item in [entry for entry in ranked if entry[1] not in seen][:3]})
        recalls.append(len(tops[0] & wanted) / len(wanted))
        popular_recalls.append(len(tops[1] & wanted) / len(wanted))
        shares.append(len(tops[0] & tops[1]) / 3)
    assert popularity.main([result.checkpoint, "--k", "3"]) == 0
    [*_, row] = rows_of(capsys.readouterr().out)
    means = [np.mean(values) for values in (recalls, popular_recalls, shares)]
    assert row == f"| LightGCN | {means[0]:.4f} | {means[1]:.4f} | {means[2]:.1%} |"


def test_free_text_measures_what_queries_find(
    world: World, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_text, "K", 3)
    genres = dict(zip(world.semantic[1], [*free_text.SENTENCES] * 2))
    lines = [json.dumps({"item_id": item, "attributes": {"class": [genre]}}) for item, genre in genres.items()]
    (world.folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    texts = {"item": {item: free_text.SENTENCES[genre] for item, genre in genres.items()}}
    texts["user"] = dict(zip(world.semantic[0], free_text.SENTENCES.values()))
    encoder = make_encoder("lsa", EncoderSettings(dimension=6))
    encode_texts_of(world.folder, world.name, texts, encoder, overwrite=True, progress=False)
    settings = {"data_path": str(world.root), "benchmark_filename": ["train", "valid", "test"], "state": "ERROR"}
    result = run("LightGCN", world.name, config_dict={**settings, "epochs": 1, "show_progress": False})
    recommender = Recommender.load(result.checkpoint, device="cpu")
    shares, recalls = {}, []
    for genre, sentence in free_text.SENTENCES.items():
        found = recommender.query(sentence, 3)["item"]
        shares[genre] = np.mean([genres[item] == genre for item in found])
        wanted: dict[str, set[str]] = {}
        for user, item in world.test:
            if genres[item] == genre:
                wanted.setdefault(user, set()).add(item)
        for user, items in wanted.items():
            recalls.append(len(items & {*recommender.query(sentence, 3, user=user)["item"]}) / len(items))
    assert free_text.main([str(result.checkpoint), "--choosing", f"--output={tmp_path / 'found'}"]) == 0
    [recorded] = json.loads((tmp_path / "found" / "results.json").read_text())["results"]
    assert recorded["share"]["ours"] == pytest.approx(shares)
    assert recorded["recall"]["mixed"] == pytest.approx(np.mean(recalls))
    printed = capsys.readouterr().out
    assert f"| mean | {np.mean([*shares.values()]):.3f} |" in printed and str(tmp_path) not in printed


def test_seed_pairs_counts_pairs_that_differ(tmp_path: Path, capsys: Any) -> None:
    """Ten users and one item to be found: seed 3 finds it for nobody, seeds 1 and 2 for the same nine."""
    users, nothing = np.arange(10), np.zeros(0, dtype=int)
    (tmp_path / "cells").mkdir()
    for seed, n_hits in ((1, 9), (2, 9), (3, 0)):
        ranked = np.where(users < n_hits, 1, 2)[:, None]
        lists = RankedLists(users, ranked, ranked, users, np.ones(10, dtype=int), nothing, nothing)
        lists.write(tmp_path / f"cells/BPR-{seed}.npz")
    content = {"rows": [{"model": "BPR"}], "seeds": [1, 2, 3]}
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    assert seed_pairs.main([str(tmp_path)]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines[2:]] == [["BPR", f"{name}@1", "3", "2 of 3"] for name in ("recall", "ndcg")]
    assert 0 < float(lines[2][4]) < 1e-4


def test_paired_compares_the_users_of_two_runs(world: World, capsys: Any) -> None:
    settings = {"data_path": str(world.root), "benchmark_filename": ["train", "valid", "test"], "state": "ERROR"}
    settings.update(epochs=2, embedding_size=8, show_progress=False, metric_decimal_place=8)
    runs = [run(model, world.name, config_dict=settings) for model in ("LightGCN", "SGL")]
    assert all(runs)
    assert paired.main([each.checkpoint for each in runs if each]) == 0
    _, _, recall, ndcg = rows_of(capsys.readouterr().out)
    for row, metric in ((recall, "recall@20"), (ndcg, "ndcg@20")):
        shown = [float(cell) for cell in row.split(" | ")[1:3]]
        assert shown == pytest.approx([each.test_result[metric] for each in runs if each], abs=6e-5)
    other = run("LightGCN", world.name, config_dict={**settings, "eval_protocol": "paper"})
    assert other is not None
    with pytest.raises(SystemExit):
        paired.main([runs[0].checkpoint, other.checkpoint])
    assert "do not have the same: eval_protocol" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        paired.main([runs[0].checkpoint, runs[1].checkpoint, "--metrics", "hit@20"])
    assert "hit@20: expected recall, ndcg, map at some rank" in capsys.readouterr().err
    assert paired.main([runs[0].checkpoint, runs[0].checkpoint, "--metrics", "ndcg@5"]) == 0
    assert "no user differs" in capsys.readouterr().out


def test_paired_refuses_other_test_interactions(world: World, capsys: Any) -> None:
    pairs = [[token, item] for part in (world.train, world.valid, world.test) for token, item in part]
    lines = ["user_id:token\titem_id:token"] + ["\t".join(pair) for pair in pairs]
    (world.folder / f"{world.name}.inter").write_text("\n".join(lines) + "\n")
    settings = {"data_path": str(world.root), "state": "ERROR", "epochs": 1, "show_progress": False}
    first, second = (run("LightGCN", world.name, config_dict={**settings, "seed": seed}) for seed in (1, 2))
    assert first is not None and second is not None
    with pytest.raises(SystemExit):
        paired.main([first.checkpoint, second.checkpoint])
    assert "do not have the same: test interactions" in capsys.readouterr().err


def test_paired_columns_by_hand() -> None:
    first = np.array([0.0, 0.5, 0.25, 1.0, 0.0, 0.0])
    second = np.array([0.5, 0.5, 0.5, 0.5, 0.25, 0.0])
    difference = second - first
    error = difference.std(ddof=1) / np.sqrt(6)
    columns = paired.compared(first, second)
    assert columns[:2] == ["0.2917", "0.3750"]
    half = 2.570582 * error  # Student's t, 5 degrees of freedom
    assert (
        columns[2] == f"{difference.mean():+.4f} ({difference.mean() - half:+.4f} to {difference.mean() + half:+.4f})"
    )
    assert columns[3] == "+28.6%"
    assert columns[6] == "50.0% / 16.7%"
    assert columns[4] == "0.58"  # t = .08333 / .13944 = .5976, two-sided, 5 degrees of freedom: .576


# ---------------------------------------------------------------------- groups and the test bed


def test_groups_are_those_of_a_slow_count(world: World, capsys: Any) -> None:
    runs = [train_quickly(world, model) for model in ("LightGCN", "BPR")]
    assert groups.main([*(each.checkpoint for each in runs), "--groups", "2", "--k", "5"]) == 0
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows_of(capsys.readouterr().out)[-4:]]
    active = Counter(user for user, _ in world.train)
    known = Counter(item for _, item in world.train)
    tested = sorted({user for user, _ in world.test})
    median = np.quantile([active[user] for user in tested], 0.5)
    n_few = sum(active[user] < median for user in tested)
    assert [int(row[1]) for row in rows[:2]] == [n_few, len(tested) - n_few]
    _, model, dataset, *_ = load_model(runs[0].checkpoint)
    items = dataset.field2id_token["item_id"][1:].tolist()
    rare = np.quantile([known[item] for item in items], 0.5)
    recalls = []
    for user in tested:
        query = Interaction({"user_id": torch.tensor([dataset.token2id("user_id", user)])})
        seen = {item for other, item in [*world.train, *world.valid] if other == user}
        wanted = {item for other, item in world.test if other == user and known[item] < rare}
        ranked = sorted(zip(model.full_sort_predict(query).tolist()[1:], items), key=lambda entry: -entry[0])
        shown = {item for _, item in [entry for entry in ranked if entry[1] not in seen][:5]}
        if wanted:
            recalls.append(len(shown & wanted) / len(wanted))
    assert (int(rows[2][1]), rows[2][2]) == (len(recalls), f"{np.mean(recalls):.4f}")


def test_groups_refuse_other_test_interactions(world: World, capsys: Any) -> None:
    first = train_quickly(world, "LightGCN")
    world.name, world.test = "other", world.test[:-3]
    world.write()
    second = train_quickly(world, "LightGCN")
    with pytest.raises(SystemExit):
        groups.main([first.checkpoint, second.checkpoint])
    assert "were not tested on the same interactions" in capsys.readouterr().err


def train_quickly(world: World, model: str) -> Any:
    settings = {"data_path": str(world.root), "benchmark_filename": ["train", "valid", "test"], "state": "ERROR"}
    return run(model, world.name, config_dict={**settings, "epochs": 2, "show_progress": False, "embedding_size": 8})


@pytest.fixture
def tiny_steam(tmp_path: Path) -> Path:
    """A Steam of 30 users and 20 games in the files that the bed reads."""
    folder, rng = tmp_path / "steam", np.random.default_rng(1)
    folder.mkdir()
    rows = ["user,item,split"]
    for user in range(30):
        games = rng.permutation(20)[:9]
        parts = ["train"] * 5 + ["valid"] * 2 + ["test"] * 2
        rows += [f"{user},{100 + game},{part}" for game, part in zip(games, parts)]
    (folder / "inter.csv").write_text("\n".join(rows) + "\n")
    for side, first, n in (("user", 0, 30), ("item", 100, 20)):
        np.save(folder / f"{side}_emb.npy", rng.normal(size=(n, 384)).astype(np.float16))
        (folder / f"{side}_tokens.txt").write_text("".join(f"{first + row}\n" for row in range(n)))
    return folder


def test_texts_are_withheld_and_exchanged(tiny_steam: Path, tmp_path: Path) -> None:
    sources = own_data.Sources(tiny_steam, None, tmp_path / "data")
    tables = {}
    for name, settings in {
        "all": {},
        "half": {"withheld": 0.5},
        "none": {"withheld": 1.0},
        "exchanged": {"exchanged": 1.0},
        "some": {"exchanged": 0.5},
        "few": {"users": 10},
    }.items():
        own_data.make_steam(sources, name, **settings)
        for side in ("user", "item"):
            tokens = (tmp_path / "data" / name / f"{name}.{side}emb.tokens").read_text().split()
            vectors = np.load(tmp_path / "data" / name / f"{name}.{side}emb.npy")
            tables[name, side] = dict(zip(tokens, vectors))
    sizes = {key: len(table) for key, table in tables.items()}
    texts = {key: sum(bool(vector.any()) for vector in table.values()) for key, table in tables.items()}
    assert (texts["half", "item"], texts["half", "user"]) == (10, 23)
    assert (texts["none", "item"], texts["none", "user"]) == (0, 15)
    assert all(sizes[name, "item"] == 20 and sizes[name, "user"] == 30 for name in ("half", "none"))
    for token, vector in tables["half", "item"].items():
        assert not vector.any() or (vector == tables["all", "item"][token]).all()
    for name, share in (("exchanged", 1.0), ("some", 0.5)):
        for side, n in (("user", 30), ("item", 20)):
            own, others = tables["all", side], tables[name, side]
            moved = [token for token in own if not (own[token] == others[token]).all()]
            assert len(moved) == share * n
            assert sorted(vector.tobytes() for vector in own.values()) == sorted(
                each.tobytes() for each in others.values()
            )
    interactions = (tmp_path / "data/few/few.inter").read_text().splitlines()[1:]
    assert {line.split("\t")[0] for line in interactions} == set(tables["few", "user"]) and sizes["few", "user"] == 10


def test_a_cell_is_trained_tested_and_recorded_once(
    tiny_steam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    short = (("epochs", 2), ("embedding_size", 8))
    cell = own_data.Cell("steam-given", "LightGCN_RLMRecCon", 2020, settings=short)
    monkeypatch.setattr(own_data, "PARTS", {"defaults": lambda: iter([cell])})
    arguments = ["--steam", str(tiny_steam), "--work", str(tmp_path / "bed"), "--output", str(tmp_path / "out")]
    assert own_data.main([*arguments, "--part", "defaults"]) == 0
    record = json.loads((tmp_path / "out" / cell.path).read_text())
    assert record["kept"] in ("model", "base") and record["paired"]["users"] == 30
    gain = record["test_result"]["recall@20"] - record["base"]["test"]["recall@20"]
    assert record["paired"]["difference"] == pytest.approx(gain, abs=1e-3)
    table = (tmp_path / "out/README.md").read_text()
    assert f"| steam-given | LightGCN_RLMRecCon | 1 | {record['popularity']['test']['recall@20']:.4f} |" in table
    capsys.readouterr()
    assert own_data.main([*arguments, "--part", "defaults"]) == 0
    assert capsys.readouterr().out == ""


def test_losses_are_corrected_over_the_table() -> None:
    text = own_data.significant_losses([(0.02, "a"), (0.001, "b"), (1.0, "c")])
    assert text.endswith("(paired t-test, Holm over 3 cells): b (p 0.001), a (p 0.02).")
    assert own_data.significant_losses([(0.03, "a"), (0.04, "b")]).endswith("none.")
    assert own_data.p_below({"difference": 0.1, "error": 0.001, "users": 100}) == 1.0
    assert own_data.p_below({"difference": -0.1, "error": 0.05, "users": 10**6}) == pytest.approx(0.0455, abs=1e-4)


def test_every_cell_has_a_file_of_its_own() -> None:
    cells = [cell for part in own_data.PARTS.values() for cell in part()]
    assert len({cell.path for cell in cells}) == len(cells) > 150
    assert {cell.kind for cell in cells} == set(own_data.KINDS)


def test_withheld_items_are_ranked_in_every_way(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The recall of one way is that of the recommender's lists."""
    monkeypatch.setattr(cold_items, "K", 2)
    cold = [f"i{n}" for n in range(24, 30)]
    moved = world.train[np.isin(world.train[:, 1], cold)]
    world.train = world.train[~np.isin(world.train[:, 1], cold)]
    world.valid = world.valid[~np.isin(world.valid[:, 1], cold)]
    world.test = np.concatenate([world.test, moved])
    world.write()
    items = [{"item_id": f"i{n}", "attributes": {"genres": ["a" if n % 2 else "b"]}} for n in range(30)]
    (world.folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    paths = [train(world, name).checkpoint for name in ("LightGCN_RLMRecCon", "AlphaRec")]
    dataset = load_model(paths[0]).dataset
    ids = np.array([dataset.token2id("item_id", f"i{n}") for n in range(24)])
    vectors = np.stack([world.semantic[1][f"i{n}"] for n in range(24)]).astype(np.float32)
    order = np.argsort(ids)
    np.savez(tmp_path / "new.npz", ids=ids[order], vectors=vectors[order])
    output = tmp_path / "found" / "tiny.json"
    given = [*map(str, paths), f"--data-path={world.root}", f"--cache={tmp_path / 'new.npz'}", f"--output={output}"]
    cold_items.main(given)
    rows = {row["way"]: row for row in json.loads(output.read_text())["rows"]}
    con = {f"LightGCN_RLMRecCon, {way}" for way in ("map", "neighbours", "projection", "untrained vectors")}
    assert con | {"AlphaRec, as it is", "random", "popularity of the genre"} <= set(rows)
    wanted: dict[str, set[str]] = {}
    for user, item in world.test:
        if item in cold:
            wanted.setdefault(user, set()).add(item)
    lists = Recommender.load(paths[1]).recommend(wanted, 2, include_seen=True, only_items=cold)
    found = lists.groupby("user")["item"].agg(set)
    expected = np.mean([len(found[user] & items) / len(items) for user, items in wanted.items()])
    assert rows["AlphaRec, as it is"]["recall@2"] == pytest.approx(expected, abs=1e-4)
    assert "| random |" in capsys.readouterr().out


def test_an_update_is_compared_with_a_training_from_scratch(
    tiny_steam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tiny_steam / "inter.csv").open("a") as file:
        file.writelines(f"{user},{120 + user % 3},train\n" for user in range(30))
    tags = ["Fun", "Sad", "Odd"]
    items = [{"token": str(100 + n), "title": f"Game {n}", "tags": tags[: n % 3 + 1]} for n in range(23)]
    (tiny_steam / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    steps: list[str] = []

    def in_this_process(work: Path, log: str, *words: Any) -> float:
        monkeypatch.chdir(work)
        assert main([str(word) for word in words]) == 0
        steps.append(log)
        return 1.0

    monkeypatch.setattr(update, "command", in_this_process)
    monkeypatch.setattr(update, "NEW_ITEMS", 0.05)
    arguments = ["--steam", str(tiny_steam), "--work", str(tmp_path / "bed"), "--output", str(tmp_path / "out")]
    settings = "--settings=--epochs=2 --embedding_size=8 --base_first=False"
    assert update.main([*arguments, "--encoder=--encoder=lsa", settings]) == 0
    assert steps == ["split", "build", "old-2020", "update-2020", "scratch-2020"]
    record = json.loads((tmp_path / "out/2020.json").read_text())
    assert record["users"] > 20 and set(record["processor_seconds"]) == {"build", "old", "update", "scratch"}
    assert record["difference"] == pytest.approx(record["update"] - record["scratch"])
    assert f"| 2020 | {record['start']:.4f} | {record['update']:.4f} |" in (tmp_path / "out/README.md").read_text()
    grown, held_back = (
        tmp_path / "bed" / name for name in ("grown-2020/steam-update/steam-update.inter", "data/new.inter")
    )
    assert grown.read_text().endswith(held_back.read_text().partition("\n")[2])
