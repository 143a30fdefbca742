"""RecBole's own functions with one line on top: our models give our runner's numbers, RecBole's models RecBole's.

The line changes RecBole for its process, so each script runs in one of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import World, fitting
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.registry import get_model

LINE = "import recbole_rlmrec; recbole_rlmrec.register_with_recbole()"

#: RecBole splits at random here, so that a step that begins with other random numbers gives others.
SETTINGS = {
    "embedding_size": 8,
    "train_batch_size": 64,
    "epochs": 3,
    "learning_rate": 0.05,
    "show_progress": False,
    "use_gpu": False,
}


@pytest.fixture
def settings(world: World) -> dict[str, Any]:
    """Settings on a dataset without a ready-made split, also in ``settings.yaml``."""
    parts = [(world.folder / f"tiny.{part}.inter").read_text().splitlines() for part in ("train", "valid", "test")]
    (world.folder / "tiny.inter").write_text("\n".join([*parts[0], *parts[1][1:], *parts[2][1:]]) + "\n")
    for part in ("train", "valid", "test"):
        (world.folder / f"tiny.{part}.inter").unlink()
    content = {**SETTINGS, "data_path": str(world.root)}
    Path("settings.yaml").write_text(yaml.safe_dump(content))
    return content


def ran(script: str, *arguments: str, settings: dict[str, Any] | None = None) -> Any:
    """Run a script as RecBole's are run, and return what it prints last, as JSON."""
    Path("script.py").write_text(f"import json\nSETTINGS = {settings!r}\n{script}")
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


#: Our runner, before the line; with checkpoints of its own, so that no base is taken over.
OURS = """
import recbole_rlmrec
def ours(model, **more):
    return recbole_rlmrec.run(model, "tiny", config_dict={**SETTINGS, "checkpoint_dir": "ours", **more})
"""


@pytest.mark.parametrize("is_imported_first", [True, False])
def test_run_recbole(settings: dict[str, Any], is_imported_first: bool) -> None:
    """The calls of run_recbole.py: ``run`` with the arguments of the command line."""
    imports = "from recbole_rlmrec import compat; compat.apply()\nfrom recbole.quick_start import run, run_recbole"
    top = f"{imports}\n{LINE}" if is_imported_first else f"{LINE}\n{imports}"
    found = ran(
        f"""
{OURS}
expected = ours("LightGCN_RLMRecCon", epochs=4)
{top}
recbole_rlmrec.register_with_recbole()
by_files = run("LightGCN_RLMRecCon", "tiny", config_file_list=["settings.yaml"], nproc=1, world_size=-1, port="5678")
by_dict = run_recbole(model="LightGCN_RLMRecCon", dataset="tiny", config_dict=SETTINGS, saved=True)
print(json.dumps([expected.__dict__, by_files, by_dict]))
""",
        *("--model=LightGCN_RLMRecCon", "--dataset=tiny", "--config_files=settings.yaml", "--nproc=1", "--epochs=4"),
        settings=settings,
    )
    expected, by_files, by_dict = found
    assert (
        by_files
        == by_dict
        == {
            "best_valid_score": expected["best_valid_score"],
            "valid_score_bigger": True,
            "best_valid_result": expected["best_valid_result"],
            "test_result": expected["test_result"],
        }
    )
    # The base is trained first, as by our runner.
    assert expected["base"]["source"] == "trained"


def test_recboles_own_names_stay_recboles(settings: dict[str, Any]) -> None:
    found = ran(
        f"""
from recbole_rlmrec import compat; compat.apply()
import inspect
from recbole.config import Config
from recbole.data import create_dataset
from recbole.quick_start import run_recbole
from recbole.utils import get_model, get_trainer
def digits(model):
    result = run_recbole(model, "tiny", config_dict=dict(SETTINGS), saved=False)
    return {{name: float(value) for name, value in result["test_result"].items()}}
before = [digits("LightGCN"), digits("BPR"), str(inspect.signature(run_recbole))]
{LINE}
after = [digits("LightGCN"), digits("BPR"), str(inspect.signature(run_recbole))]
config = Config("LightGCN", "tiny", config_dict=SETTINGS)
kinds = [type(config), type(create_dataset(config)), get_model("LightGCN"), get_trainer(config["MODEL_TYPE"], "BPR")]
unread = config["alignment_weight"], config["topk"]
print(json.dumps([before, after, [f"{{kind.__module__}}.{{kind.__name__}}" for kind in kinds], unread]))
""",
        settings=settings,
    )
    before, after, kinds, unread = found
    assert before == after and set(before[0]) >= {"recall@10", "mrr@10"}
    assert kinds == [
        "recbole.config.configurator.Config",
        "recbole.data.dataset.dataset.Dataset",
        "recbole.model.general_recommender.lightgcn.LightGCN",
        "recbole.trainer.trainer.Trainer",
    ]
    assert unread == [None, [10]]


#: RecBole's documented steps for a model class, with random numbers drawn where a script may draw some.
STEPS = """
import torch
def steps(model_class, settings=None):
    config = Config(model=model_class, dataset="tiny", config_dict=settings)
    torch.rand(7)
    dataset = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    model = model_class(config, train_data.dataset).to(config["device"])
    trainer = Trainer(config, model)
    score, valid = trainer.fit(train_data, valid_data)
    test = trainer.evaluate(test_data)
    assert isinstance(config, Config) and isinstance(trainer, Trainer)
    return [{name: float(value) for name, value in metrics.items()} for metrics in (valid, test)]
"""


@pytest.mark.parametrize("is_imported_first", [True, False])
def test_documented_steps(settings: dict[str, Any], is_imported_first: bool) -> None:
    """The model alone, without its base: as our runner with ``base_first: False``; our LightGCN as well."""
    more = [] if is_imported_first else ["SGL_RLMRecGen", "SimGCL", "SemanticOnly", "BPR_RLMRecCon", "LightGCN"]
    imports = """
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
"""
    top = f"{imports}\n{LINE}" if is_imported_first else f"{LINE}\n{imports}"
    found = ran(
        f"""
{OURS}
models = {["LightGCN_RLMRecCon", *more]}
expected = [ours(model, base_first=False) for model in models]
{top}
{STEPS}
from recbole_rlmrec.model.registry import get_model
found = [steps(get_model(model), SETTINGS) for model in models]
print(json.dumps([[[each.best_valid_result, each.test_result] for each in expected], found]))
""",
        settings=settings,
    )
    assert found[0] == found[1]
    assert len({json.dumps(each) for each in found[0]}) == len(found[0])


def test_scores_that_are_no_numbers_are_not_ranked_by_recboles_trainer_either(settings: dict[str, Any]) -> None:
    found = ran(
        f"""
{LINE}
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model
found = []
for model, mode in [("BPR", "full"), ("BPR", "uni5"), ("LightGCN_RLMRecCon", "full")]:
    config = Config(model, "tiny", config_dict={{**SETTINGS, "eval_args": {{"mode": mode}}}})
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    model = get_model(model)(config, train_data.dataset)
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train_data)
    trainer.evaluate(test_data, load_best_model=False)
    model.user_embedding.weight.data.fill_(float("nan"))
    try:
        trainer.evaluate(test_data, load_best_model=False)
    except Exception as error:
        found.append([type(trainer).__module__, type(error).__name__, str(error)])
print(json.dumps(found))
""",
        settings=settings,
    )
    assert [module for module, *_ in found] == ["recbole.trainer.trainer"] * 2 + ["recbole_rlmrec.training.trainer"]
    for (_, kind, said), model in zip(found, ("BPR", "BPR", "LightGCN_RLMRecCon")):
        assert kind == "TrainingError" and said.startswith(f"The scores of {model} ") and "are not finite" in said


def test_classes_by_name(settings: dict[str, Any]) -> None:
    """``get_model`` and ``get_trainer`` by name, as in RecBole's own functions; special trainers stay."""
    found = ran(
        f"""
{OURS}
expected = ours("LightGCN_RLMRecGen", base_first=False)
{LINE}
from recbole.utils import ModelType, get_model, get_trainer
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import NCLTrainer
config = Config("LightGCN_RLMRecGen", "tiny", config_dict=SETTINGS)
train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
model = get_model(config["model"])(config, train_data._dataset)
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
trainer.fit(train_data, valid_data)
test = {{name: float(value) for name, value in trainer.evaluate(test_data).items()}}
kinds = [get_trainer(ModelType.GENERAL, name) for name in ("NCL_RLMRecCon", "SemanticOnly")]
print(json.dumps([expected.test_result, test, issubclass(kinds[0], NCLTrainer), [kind.__module__ for kind in kinds]]))
""",
        settings=settings,
    )
    assert found[0] == found[1]
    assert found[2:] == [True, ["recbole_rlmrec.training.trainer"] * 2]


def test_hyper_tuning_without_ray(settings: dict[str, Any]) -> None:
    """The calls of run_hyper.py, which imports Ray at its top: every combination once, with our runner's numbers."""
    Path("space.hyper").write_text("learning_rate choice [0.01,0.05]\nalignment_weight choice [0.1,'auto']\n")
    found = ran(
        f"""
import importlib.util
find = importlib.util.find_spec
def without_ray(name, package=None):
    import sys
    return find(name, package) if name != "ray" or name in sys.modules else None
importlib.util.find_spec = without_ray
{OURS}
def expected(rate, weight):
    return ours("LightGCN_RLMRecCon", learning_rate=rate, alignment_weight=weight, base_first=False).test_result
expected = {{f"{{rate}} {{weight}}": expected(rate, weight) for rate in (0.01, 0.05) for weight in (0.1, "auto")}}
{LINE}
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from recbole.quick_start import objective_function
from recbole.trainer import HyperTuning
hp = HyperTuning(
    objective_function,
    algo="exhaustive",
    early_stop=10,
    max_evals=100,
    params_file="space.hyper",
    fixed_config_file_list=["settings.yaml"],
)
hp.run()
hp.export_result(output_file="hyper.result")
found = {{
    f"{{label.split('learning_rate:')[1].split(',')[0]}} {{label.split('alignment_weight:')[1].split(',')[0]}}":
    {{name: float(value) for name, value in result["test_result"].items()}}
    for label, result in hp.params2result.items()
}}
refused = []
for call in (ray.init, tune.choice, ASHAScheduler):
    try:
        call()
    except ImportError as error:
        refused.append(str(error))
from recbole_rlmrec.tuning.search import tune as search
try:
    search(["LightGCN"], "tiny", "auto", tool="ray")
except ValueError as error:
    refused.append(str(error))
print(json.dumps([expected, found, hp.best_score, len(hp.score_list), refused]))
""",
        *("--model=LightGCN_RLMRecCon", "--dataset=tiny", "--params_file=space.hyper"),
        settings=settings,
    )
    expected, results, best_score, n_trials, refused = found
    assert results == expected and n_trials == 4
    assert len({json.dumps(result) for result in results.values()}) > 1 and best_score > 0
    # Our own search with Ray knows a stand-in from Ray.
    asking = ["'init'", "'choice'", "'ASHAScheduler'", "A search with ray"]
    assert [text.split(" needs ")[0] for text in refused] == asking
    assert all("pip install 'recbole-rlmrec[ray]'" in text for text in refused)


def test_significance(settings: dict[str, Any]) -> None:
    """The calls of significance_test.py: two models, several seeds, a paired t-test; the second model is RecBole's."""
    found = ran(
        f"""
{OURS}
seeds = [3, 2**32 - 1]
expected = [ours("LightGCN_RLMRecCon", seed=seed).test_result for seed in seeds]
{LINE}
from collections import defaultdict
from scipy import stats
from recbole.quick_start import run_recbole, run_recboles
results = {{}}
for model in ("LightGCN_RLMRecCon", "LightGCN"):
    results[model] = defaultdict(list)
    for seed in seeds:
        res = run_recbole(model=model, dataset="tiny", config_file_list=["settings.yaml"], config_dict={{"seed": seed}})
        for key, value in res["test_result"].items():
            results[model][key].append(float(value))
ours, baseline = results.values()
shared = [key for key in ours if key in baseline]
tests = {{key: stats.ttest_rel(ours[key], baseline[key], alternative="less").pvalue for key in shared}}
print(json.dumps([expected, ours, tests]))
""",
        settings=settings,
    )
    expected, ours, tests = found
    assert ours == {name: [result[name] for result in expected] for name in expected[0]}
    assert expected[0] != expected[1]
    assert set(tests) == {"recall@10", "ndcg@10"} and all(0 < value < 1 for value in tests.values())


#: What a pickle runs when it is read by an unpickler that runs things.
EVIL = """
class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)
"""


def test_load_data_and_model(settings: dict[str, Any]) -> None:
    """Ours by our reader, RecBole's by RecBole's, which reads them with any torch and runs nothing in them."""
    found = ran(
        f"""
{LINE}
import glob, os, torch
from recbole.data.interaction import Interaction
from recbole.quick_start import load_data_and_model, run_recbole
def scores(model):
    return model.full_sort_predict(Interaction({{"user_id": torch.arange(1, 5)}})).flatten().tolist()
{OURS}
mine = ours("LightGCN_RLMRecCon")
config, model, dataset, train_data, valid_data, test_data = load_data_and_model(mine.checkpoint)
kinds = [type(config).__name__, type(dataset).__name__, type(model).__name__]
same = scores(model) == scores(recbole_rlmrec.load_model(mine.checkpoint).model)
run_recbole("BPR", "tiny", config_dict=dict(SETTINGS))
[path] = glob.glob("saved/BPR-*.pth")
config, model, *_ = load_data_and_model(path)
kinds += [type(config).__name__, type(model).__module__]
table = torch.load(path, weights_only=False)["state_dict"]["user_embedding.weight"]
{EVIL}
state = torch.load(path, weights_only=False)
torch.save({{**state, "other_parameter": Evil()}}, "evil.pth")
try:
    load_data_and_model("evil.pth")
except Exception as error:
    kinds.append(type(error).__name__)
try:
    load_data_and_model("none.pth")
except FileNotFoundError:
    kinds.append("missing")
open("junk.pth", "w").write("junk")
try:
    load_data_and_model("junk.pth")
except Exception as error:
    kinds.append(type(error).__name__)
print(json.dumps([kinds, same, torch.equal(table, model.user_embedding.weight), os.path.exists("evil")]))
""",
        settings=settings,
    )
    kinds, same, is_equal, was_run = found
    assert kinds[:5] == [
        "RLMRecConfig",
        "RLMRecDataset",
        "LightGCN_RLMRecCon",
        "Config",
        "recbole.model.general_recommender.bpr",
    ]
    assert same and is_equal
    if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        assert kinds[5:] == ["UnpicklingError", "missing", "CheckpointError"] and not was_run


def test_what_is_typed(settings: dict[str, Any]) -> None:
    """Settings of the command line count, as in RecBole, and are not evaluated; those of the script do not."""
    found = ran(
        f"""
import logging, sys
{LINE}
messages = []
class Handler(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())
logging.getLogger().addHandler(Handler())
from recbole.config import Config
given = {{"topk": "[1, 3]", "valid_metric": "Recall@3", "epochs": 5}}
config = Config("LightGCN_RLMRecCon", "tiny", ["settings.yaml"], given)
typed = [config[name] for name in ("alignment_weight", "epochs", "topk", "learning_rate")]
sys.argv[0] = "ipykernel_launcher.py"
in_notebook = Config("LightGCN_RLMRecCon", "tiny", ["settings.yaml"])["alignment_weight"]
sys.argv = ["script.py", "--model=SimGCL", "--dataset=tiny"]
named = Config(config_file_list="settings.yaml")
sys.argv = ["script.py", "--alignment_weight=__import__('os').mkdir('evil')"]
try:
    Config("LightGCN_RLMRecCon", "tiny", ["settings.yaml"])
except ValueError as error:
    refused = str(error)
print(json.dumps([typed, in_notebook, named["model"], messages, refused]))
""",
        *("--alignment_weight=0.25", "--epochs=7", "--run_times=10", "--port=1", "--lerning_rate=2", "positional"),
        settings=settings,
    )
    typed, in_notebook, named, messages, refused = found
    assert typed == [0.25, 7, [1, 3], 0.05]
    assert in_notebook == "auto" and named == "SimGCL"
    assert [text for text in messages if "script" in text] == [
        "--lerning_rate is no setting and is left to the script. Did you mean 'learning_rate'?"
    ]
    assert refused.startswith("alignment_weight=\"__import__('os').mkdir('evil')\" (from the command line)")
    assert not Path("evil").exists()


def test_names_that_do_not_exist_and_processes(settings: dict[str, Any]) -> None:
    found = ran(
        f"""
{LINE}
from recbole.quick_start import run, run_recbole
if __name__ == "__main__":
    errors = []
    for model, more in (("LightGCN_RLMRecKon", {{}}), ("LightGCN_RLMRecCon", {{"local_rank": 0}})):
        try:
            run_recbole(model, "tiny", config_dict={{**SETTINGS, **more}})
        except ValueError as error:
            errors.append(str(error))
    one = run_recbole("LightGCN_RLMRecCon", "tiny", config_dict={{**SETTINGS, "checkpoint_dir": "one"}})
    two = run("LightGCN_RLMRecCon", "tiny", config_dict=SETTINGS, nproc=2)
    print(json.dumps([errors, one, two]))
""",
        settings=settings,
    )
    (unknown, rank), one, two = found
    assert "Did you mean LightGCN_RLMRecCon?" in unknown
    assert "recbole.quick_start.run(..., nproc=2)" in rank
    assert two == one


def test_listings_of_the_page(settings: dict[str, Any]) -> None:
    """As they stand, one after the other, on another dataset and with fewer epochs."""
    text = (Path(__file__).parents[1] / "docs/how-to/recbole-scripts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text.replace("ml-100k", "tiny"), flags=re.MULTILINE | re.DOTALL)
    listings = "".join(blocks).splitlines()
    assert listings[0] == LINE
    Path("run.yaml").write_text("model: LightGCN_RLMRecCon\ndataset: tiny\n")
    found = ran(
        "\n".join([*listings, "print(json.dumps([sorted(result), len(search.score_list), trainer.best_epoch]))"]),
        *(f"--{name}={value}" for name, value in {**settings, "epochs": 2}.items() if name != "learning_rate"),
    )
    assert found[0] == ["best_valid_result", "best_valid_score", "test_result", "valid_score_bigger"]
    assert found[1] == 4 and found[2] in (0, 1)


@pytest.mark.parametrize("model", ["LightGCN_RLMRecCon", "SGL_RLMRecGen", "BPR_RLMRecCon", "GCCF", "SemanticOnly"])
def test_without_the_line_one_sentence_says_what_to_import(
    settings: dict[str, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py"])
    model_class = get_model(model)
    config = Config(model=model_class, dataset="tiny", config_dict={**settings, **fitting(model)})
    train_data, _, _ = data_preparation(config, create_dataset(config))
    sentence = (
        rf"was given RecBole's own Config \(model: {model}\), .* put `{LINE[:21]}; .*register_with_recbole\(\)` on"
    )
    with pytest.raises(SettingError, match=sentence):
        model_class(config, train_data.dataset)
