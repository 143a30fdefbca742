"""Classes from another package: known by their entry points, with settings, YAML, searches and checkpoints.

The package lies in ``tests/outside`` with the metadata that pip would write; processes that are to know it have it on
their path. What is registered in this process instead is taken out again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from recbole.model.general_recommender import BPR
from worlds import World

from recbole_rlmrec.errors import ContractError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.model.registry import ALIGNMENTS, BACKBONES, BASELINES, get_model, register
from recbole_rlmrec.settings import SETTINGS, AutoOr, Choice, Range, Settings, Weight, inert, setting

OUTSIDE = Path(__file__).parent / "outside"
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "run_recbole_rlmrec.py"
COMMAND = "import sys; from recbole_rlmrec.cli import main; sys.exit(main())"


def outside(*command: Any, cwd: Path, beside: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that has the package installed, and what lies in a further folder."""
    folders = [OUTSIDE, Path(__file__).parent, ROOT, *([beside] if beside else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)


def train(world: World, model: str, *settings: str) -> subprocess.CompletedProcess[str]:
    arguments = [f"--model={model}", f"--dataset={world.name}", f"--data_path={world.root}", "--epochs=2"]
    arguments += ["--benchmark_filename=[train,valid,test]", "--show_progress=False", "--use_gpu=False"]
    return outside(SCRIPT, *arguments, *settings, cwd=world.root.parent)


def test_contract_of_the_classes_from_outside(tmp_path: Path) -> None:
    """One line each: with our alignments, with their own, and theirs over our backbones and RecBole's."""
    (tmp_path / "test_theirs.py").write_text(
        "from contract import ModelContract\n\n\n"
        "class TestTheirs(ModelContract):\n"
        '    names = ("TiltedGCN", "TiltedGCN_RLMRecCon", "TiltedGCN_RLMRecGen", "TiltedGCN_Cosine", "SGL_Cosine", '
        '"AutoCF_Cosine", "BPR_Cosine", "NGCF_Cosine")\n'
        '    settings = {"seed_num": 3, "node_dropout": 0.0, "message_dropout": 0.0}\n'
    )
    done = outside("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "69 passed" in done.stdout


@pytest.mark.parametrize("model", ["TiltedGCN_Cosine", "BPR_Cosine"])
def test_trained_by_the_command_line(world: World, model: str) -> None:
    done = train(world, model, "--cosine_weight=0.2", "--result_file=result.json")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((world.root.parent / "result.json").read_text())
    assert result["model"] == model and result["settings"]["cosine_weight"] == 0.2
    assert result["base"]["model"] == model.partition("_")[0]


def test_settings_are_checked_completed_and_listed(world: World) -> None:
    done = train(world, "TiltedGCN", "--tilt_weight=-1")
    assert "tilt_weight=-1 (from the command line) is out of range: expected a number at least 0" in done.stderr
    assert "TiltedGCN: weight of the penalty on the tilt" in done.stderr
    done = train(world, "TiltedGCN", "--tilt_wieght=1")
    assert "There is no setting 'tilt_wieght' (from the command line). Did you mean 'tilt_weight'?" in done.stderr
    script = f"""
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.model.registry import names
given = {{"data_path": {str(world.root)!r}, "benchmark_filename": ["train", "valid", "test"]}}
configs = [RLMRecConfig("TiltedGCN_Cosine", "tiny", config_dict={{**given, "defaults": which}})
           for which in ("recommended", "published")]
settings = ("learning_rate", "n_layers", "tilt_weight", "cosine_weight")
print([tuple(config[name] for name in settings) for config in configs])
print([name for name in names() if "Tilted" in name or name.endswith("Cosine")])
"""
    done = outside("-c", script, cwd=world.root.parent)
    values, models = done.stdout.splitlines()
    # The YAML's; what the class declares of a known setting and of its own; the alignment's.
    assert values == "[(0.002, 3, 0.5, 0.3), (0.002, 3, 0.125, 0.3)]", done.stderr
    assert "'TiltedGCN_RLMRecCon'" in models and "'TiltedGCN_Cosine'" in models and "'DCCF_Cosine'" in models


def test_searched_in_the_space_beside_the_class(world: World) -> None:
    done = train(world, "TiltedGCN", "--tune", "--max_evals=4", "--tune_output=found")
    assert done.returncode == 0, done.stderr[-2000:]
    trials = [json.loads(line) for line in next(world.root.parent.rglob("trials.jsonl")).read_text().splitlines()]
    tried = {(trial["parameters"]["learning_rate"], trial["parameters"]["tilt_weight"]) for trial in trials}
    assert tried == {(0.01, 0.1), (0.01, 1.0), (0.02, 0.1), (0.02, 1.0)}


def test_two_processes_train_what_one_trains(world: World) -> None:
    losses = []
    for several in ((), ("--nproc=2",)):
        done = train(world, "TiltedGCN_Cosine", "--base_first=False", "--learning_rate=0.01", *several)
        assert done.returncode == 0, done.stderr[-2000:]
        losses.append([float(found) for found in re.findall(r"epoch \d+: loss .*\bcosine ([-+.e\d]+)", done.stderr)])
    assert len(losses[0]) > 1 and losses[0] == pytest.approx(losses[1], rel=1e-3) and min(losses[0]) > 0


def test_from_a_dump_of_theirs_to_embeddings_of_theirs(tmp_path: Path) -> None:
    """Their source, writer, encoder and verb, by the options of our verbs."""
    raw = tmp_path / "raw"
    raw.mkdir()
    pairs = [(user, item) for user in range(6) for item in range(6)]
    reviews = [{"who": f"u{user}", "what": f"i{item}", "stars": 2 + (user + item) % 4} for user, item in pairs]
    things = [{"what": f"i{item}", "name": f"Gadget of kind {item}"} for item in range(6)]
    for name, lines in (("ratings", reviews), ("things", things)):
        (raw / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def call(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = outside("-c", COMMAND, *arguments, cwd=tmp_path)
        assert done.returncode == status, done.stderr
        return done

    prepared = call("prepare", "--source=ratings", "--raw=raw", "--dataset=shop", "--k-core=4", "--ratios=2:1:1")
    assert "shop, from a raw dump of ratings" in prepared.stdout
    assert "27 with a rating of at least 3" in prepared.stdout  # of 36; those with 2 stars are none
    described = call("describe", "--dataset=shop", "--titles").stdout
    assert described.startswith("6 users, 6 items, ") and "Gadget of kind 5\n" in described
    build = ["build-semantics", "--dataset=shop", "--writer=titles", "--encoder=hashing"]
    planned = call(*build, "--dry-run").stdout
    assert "items: 6 profiles by titles; nobody is asked, nothing is to be paid." in planned
    built = call(*build, "--hash_columns=8").stdout
    assert "users: 6 profiles by titles, 6 of them new." in built and "verdict: no leak found." in built
    folder = tmp_path / "dataset/shop"
    metadata = json.loads((folder / "shop.semantic.json").read_text())
    assert (metadata["encoder"], metadata["writer"], metadata["dimension"]) == ("hashing:8", "titles", 8)
    tokens = (folder / "shop.itememb.tokens").read_text().split()
    vectors = dict(zip(tokens, np.load(folder / "shop.itememb.npy")))
    counts = np.bincount([crc32(word.encode()) % 8 for word in ["gadget", "of", "kind", "5"]], minlength=8)
    np.testing.assert_allclose(vectors["i5"], counts / np.linalg.norm(counts), rtol=1e-6)
    assert "up to date" in call(*build, "--hash_columns=8").stdout

    wrong = call(*build, "--hash_columns=0", status=2).stderr
    assert "hash_columns=0 is out of range: expected a whole number at least 1" in wrong
    assert "hashing: length of a vector" in wrong
    assert "Did you mean 'hash_columns'?" in call(*build, "--hash_colums=8", status=2).stderr
    wrong = call(*build, "--dimension=8", status=2).stderr
    assert "The encoder hashing cannot use --dimension. Leave it out; its settings are: --hash_columns=..." in wrong
    wrong = call(*build, "--limit=3", status=2).stderr
    assert "--limit is for --writer llm; the writer 'titles' asks nobody." in wrong


BROKEN = """[recbole_rlmrec.encoders]
bad = broken:Encoder
other = rlmrec_outside.hashing:HashEncoder
lsa = rlmrec_outside.hashing:HashEncoder

[recbole_rlmrec.verbs]
bad = broken
quits = quits
"""


def test_parts_that_fail_leave_the_others_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(BROKEN)
    (site / "broken.py").write_text("raise RuntimeError('not today')\n")
    (site / "quits.py").write_text("raise SystemExit('closed')\n")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return outside("-c", COMMAND, *arguments, cwd=tmp_path, beside=site)

    why = "cannot be used. The entry point bad = broken{} could not be loaded (RuntimeError: not today)."
    listed = call("--help")
    assert listed.returncode == 0 and "Train and test one model." in listed.stdout
    assert f"The verb 'bad' {why.format('')}" in " ".join(listed.stdout.split())
    assert "The entry point quits = quits could not be loaded (SystemExit: closed)." in " ".join(listed.stdout.split())
    refused = call("bad")
    assert (refused.returncode, refused.stderr) == (2, f"error: The verb 'bad' {why.format('')}\n")
    refused = call("build-semantics", "--dataset=ml-100k", "--encoder=bad")
    assert refused.returncode == 2 and f"error: The encoder 'bad' {why.format(':Encoder')}\n" in refused.stderr
    refused = call("build-semantics", "--dataset=ml-100k", "--encoder=other")
    assert refused.returncode == 2 and "leads to the encoder 'hashing'. Give both one name." in refused.stderr
    done = call("build-semantics", "--dataset=ml-100k", "--encoder=lsa", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "lsa = rlmrec_outside.hashing:HashEncoder of the group recbole_rlmrec.encoders is left out" in done.stderr


# ---------------------------------------------------------------------- what breaks the contract


@pytest.fixture
def registry() -> Iterator[None]:
    """Take out what a test registers."""
    known = (BACKBONES, ALIGNMENTS, BASELINES, SETTINGS)
    before = [dict(each) for each in known]
    yield
    for each, content in zip(known, before):
        each.clear()
        each.update(content)


class Whole(GraphBackbone, EmbeddingTables):
    """A backbone that keeps to the contract."""


def test_registered_by_hand(registry: None, world: World) -> None:
    """What was made before keeps its class."""
    before = get_model("LightGCN_RLMRecCon")
    assert register(Whole) is Whole and register(Whole) is Whole
    assert get_model("LightGCN_RLMRecCon") is before
    model, _ = world.model("Whole_RLMRecCon", n_layers=2, reg_weight=0.0)
    assert type(model).__name__ == "Whole_RLMRecCon" and isinstance(model, Whole)


def test_the_bound_of_an_alignment_is_alignment_share(registry: None, world: World) -> None:
    """Also of one that does not name it; and the longest ending is meant."""
    register(alignment(ending="_Far_RLMRecCon", settings_classes=(AutoSettings,)))
    model, _ = world.model("BPR_Far_RLMRecCon")
    assert model.ending == "_Far_RLMRecCon" and model.alignment_share == 0.1
    model, _ = world.model("BPR_Far_RLMRecCon", alignment_share=0.7)
    assert model.alignment_share == 0.7
    settings = {"odd_weight": "auto", "alignment_share": 0.7}
    assert "alignment_share" not in inert(settings) and "alignment_share" in inert({**settings, "odd_weight": 0.1})


def test_a_model_of_its_own_has_its_settings(registry: None, world: World) -> None:
    register(type("Own", (BPR,), {"settings_classes": (OddSettings,), "__module__": __name__}))
    assert world.config("Own")["odd_weight"] == 0.1 and get_model("Own").__name__ == "Own"


def test_a_declaration_can_be_changed_by_its_class(registry: None) -> None:
    """As in a notebook's cell that is run once more; and a refused class leaves nothing behind."""
    with pytest.raises(ContractError, match="RecBole has a model"):
        register(backbone("BPR", settings_classes=(OddSettings,)))
    assert "odd_weight" not in SETTINGS
    register(backbone(settings_classes=(OddSettings,)))
    changed = dataclass(frozen=True)(
        type(
            "OddSettings",
            (Settings,),
            {
                "odd_weight": setting(0.3, Range(0, 9), "Odd: weight"),
                "__annotations__": {"odd_weight": float},
                "__module__": __name__,
            },
        )
    )
    register(backbone(settings_classes=(changed,)))
    assert SETTINGS["odd_weight"].allowed == Range(0, 9)


def test_a_yaml_beside_a_class_names_slips_and_spoils_no_table(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "from recbole_rlmrec.model.backbone.lightgcn import LightGCN\n\n\nclass Mine(LightGCN):\n    pass\n"
    )
    script = """
import recbole_rlmrec
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.verbs._settings_table import plain_list
from theirs import Mine
recbole_rlmrec.register(Mine)
print("epochs = " in plain_list())
print(*(note for _, note in RLMRecConfig("Mine", "tiny").notes))
"""
    (tmp_path / "Mine.yaml").write_text("learning_rat: 0.5\n")
    done = outside("-c", script, cwd=tmp_path, beside=tmp_path)
    assert "sets 'learning_rat', which no class declares. Did you mean 'learning_rate'?" in done.stdout, done.stderr
    (tmp_path / "Mine.yaml").write_text("[1, 2\n")
    done = outside("-c", script, cwd=tmp_path, beside=tmp_path)
    assert done.stdout == "True\n" and "Mine is left out: " in done.stderr


def test_settings_of_other_parts_are_listed(tmp_path: Path) -> None:
    """An encoder's, which no model reads, with its default."""
    done = outside("-c", COMMAND, "settings", cwd=tmp_path)
    assert "\nhash_columns = 16: a whole number at least 1\n" in done.stdout, done.stderr


def test_an_entry_point_that_fails_leaves_the_others_alone(world: World, tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[recbole_rlmrec.models]\nbad = broken:Model\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('not today')\n")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from recbole_rlmrec.model.registry import get_model
print(get_model("TiltedGCN_Cosine").__name__)
get_model("Model")
"""
    done = outside("-c", script, cwd=tmp_path)
    assert done.stdout == "TiltedGCN_Cosine\n"
    assert "The entry point bad = broken:Model could not be loaded (RuntimeError: not today)." in done.stderr


@dataclass(frozen=True)
class OddSettings(Settings):
    odd_weight: float = setting(0.1, Range(0), "Odd: weight")


@dataclass(frozen=True)
class AutoSettings(Settings):
    odd_weight: Weight = setting("auto", AutoOr(Range(0)), "Odd: weight")


@dataclass(frozen=True)
class TakenSettings(Settings):
    ssl_tau: float = setting(0.1, Range(0, 1), "something else than the temperature")


@dataclass(frozen=True)
class SilentSettings(Settings):
    odd_number: int


class BareSettings(OddSettings):
    odd_bare: float = 0.1


@dataclass(frozen=True)
class PlainSettings(Settings):
    n_layers: int = 4


@dataclass(frozen=True)
class FarSettings(Settings):
    odd_far: float = setting(2, Range(0, 1), "Odd: too far")


@dataclass(frozen=True)
class TypeSettings(Settings):
    odd_type: float = setting(0.1, float, "Odd: a type is no range")  # type: ignore[arg-type]


@dataclass(frozen=True)
class ModelSettings(Settings):
    model: str = setting("a", Choice(("a", "b")), "Odd: the model's name is taken")


@dataclass(frozen=True)
class RecBolesSettings(Settings):
    metrics: float = setting(0.5, Range(0, 1), "Odd: no metrics")


def alignment(**content: Any) -> type:
    whole = {"ending": "_Odd", "term_name": "odd", "weight_setting": "odd_weight", "settings_classes": (OddSettings,)}
    whole |= {"formula": lambda self, representation, interaction, drawn: representation.sum()}
    return type("OddAlignment", (Alignment,), {key: value for key, value in {**whole, **content}.items() if value})


def backbone(name: str = "Odd", bases: tuple[type, ...] = (GraphBackbone, EmbeddingTables), **content: Any) -> type:
    return type(name, bases, content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: type("Odd", (), {}), "Odd is no GraphBackbone, no Alignment and no GeneralRecommender"),
        (lambda: backbone(bases=(GraphBackbone,)), "Odd is a backbone, but no model"),
        (lambda: backbone("Odd_One"), "what follows a '_' in a model's name is an alignment"),
        (lambda: 3, "3 is no GraphBackbone, no Alignment and no GeneralRecommender"),
        (lambda: backbone("BPR"), "RecBole has a model 'BPR'"),
        (lambda: backbone(bases=(EmbeddingTables, GraphBackbone)), "GraphBackbone must stand before the model class"),
        (lambda: backbone(bases=(Backbone, EmbeddingTables)), "breaks the backbone contract: it lacks step()"),
        (lambda: backbone(calculate_loss=lambda self, batch: 0), "it overrides calculate_loss(), which an alignment"),
        (lambda: backbone(settings_classes=OddSettings), "expected a tuple of subclasses of Settings"),
        (lambda: backbone(settings_classes=(BareSettings,)), "BareSettings is no dataclass"),
        (lambda: backbone(settings_classes=(PlainSettings,)), "PlainSettings.n_layers does not say what it may be"),
        (lambda: backbone(settings_classes=(FarSettings,)), "FarSettings.odd_far: the default 2 is not a number in"),
        (lambda: backbone(settings_classes=(TypeSettings,)), "odd_type: <class 'float'> does not say what it may be"),
        (lambda: backbone(settings_classes=(ModelSettings,)), "ModelSettings.model is a setting of RecBole's"),
        (lambda: backbone(settings_classes=(RecBolesSettings,)), "RecBolesSettings.metrics is a setting of RecBole's"),
        (lambda: alignment(ending="_KAR"), "'_KAR' is taken by"),
        (lambda: backbone("SimGCL"), "'SimGCL' is taken by recbole_rlmrec.model.backbone.simgcl.SimGCL"),
        (lambda: backbone(settings_classes=(TakenSettings,)), "TakenSettings.ssl_tau: there is a setting of this name"),
        (lambda: backbone(settings_classes=(SilentSettings,)), "SilentSettings.odd_number does not say what it may"),
        (lambda: alignment(ending=None), "OddAlignment breaks the contract of alignments: it lacks ending"),
        (lambda: alignment(ending="Odd"), "OddAlignment.ending = 'Odd': expected '_' and a name"),
        (lambda: alignment(ending="_RLMRecCon"), "'_RLMRecCon' is taken by"),
        (lambda: alignment(formula=None), "it lacks formula()"),
        (lambda: alignment(settings_classes=()), "its weight 'odd_weight' is no field of the first of its settings"),
        (lambda: alignment(weight_setting="other"), "its weight 'other' is no field of the first of its settings"),
    ],
)
def test_refused_at_registration(registry: None, make: Any, message: str) -> None:
    with pytest.raises(ContractError) as refusal:
        register(make())
    assert message in str(refusal.value)


def no_dictionary(self: Any, ego: Any, representation: Any, interaction: Any) -> Any:
    return representation.sum()


def one_by_row(self: Any, ego: Any, representation: Any, interaction: Any) -> Any:
    return {"odd": representation.sum(dim=1)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"loss_terms": lambda *given: {}},
            "Odd.loss_terms() returned no term, expected a dictionary of terms by name",
        ),
        ({"loss_terms": no_dictionary}, "Odd.loss_terms() returned a Tensor, expected a dictionary of terms by name"),
        ({"loss_terms": one_by_row}, "Odd.loss_terms()['odd'] returned a tensor of shape (72,), expected a loss"),
        ({"encode": lambda self, ego: ego[1:]}, "Odd.encode() returned torch.Size([71, 8]), expected users and items"),
        ({"encode": lambda self, ego: self.split(ego)}, "Odd.encode() returned tuple, expected users and items"),
    ],
)
def test_refused_at_the_first_step(registry: None, world: World, content: dict[str, Any], message: str) -> None:
    register(backbone(**content))
    model, train_data = world.model("Odd", n_layers=2, reg_weight=0.0)
    with pytest.raises(ContractError) as refusal:
        model.calculate_loss(next(iter(train_data)))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"formula": lambda *given: 0.5}, "BPR_Odd.formula() returned a float, expected a loss"),
        ({"formula": lambda *given: torch.ones(3)}, "BPR_Odd.formula() returned a tensor of shape (3,)"),
        ({"term_name": "loss"}, "BPR_Odd: backbone and alignment both have a term 'loss'"),
    ],
)
def test_an_alignment_refused_at_the_first_step(
    registry: None, world: World, content: dict[str, Any], message: str
) -> None:
    register(alignment(**content))
    model, train_data = world.model("BPR_Odd")
    with pytest.raises(ContractError) as refusal:
        model.calculate_loss(next(iter(train_data)))
    assert message in str(refusal.value)
