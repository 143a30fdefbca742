"""What this package uses of RecBole beyond its public interface, in one place: another version fails here, with names.

RecBole is read as source, for what is installed has been changed by compat.py.
"""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import recbole

ROOT = Path(__file__).parents[1] / "recbole_rlmrec"
RECBOLE = Path(recbole.__file__).parent

#: A name that is no function: the class sets it on its instances.
ATTRIBUTE = "attribute"

#: Private names by owner, with the signature that is overridden or called. The same in RecBole 1.2.0 and 1.2.1.
PRIVATE = {
    "recbole.config.configurator.Config": {
        "_build_yaml_loader": "(self)",
        "_get_model_and_dataset": "(self, model, dataset)",
        "_init_device": "(self)",
        "_load_cmd_line": "(self)",
        "_load_config_files": "(self, file_list)",
        "_load_internal_config_dict": "(self, model, model_class, dataset)",
        "_load_variable_config_dict": "(self, config_dict)",
        "_set_default_parameters": "(self)",
        "_set_train_neg_sample_args": "(self)",
    },
    "recbole.data.dataloader.abstract_dataloader.AbstractDataLoader": {
        "_batch_size": ATTRIBUTE,
        "_dataset": ATTRIBUTE,
        "_init_batch_size_and_step": "(self)",
        "_sampler": ATTRIBUTE,
    },
    "recbole.data.dataloader.abstract_dataloader.NegSampleDataLoader": {
        "_neg_sampling": "(self, inter_feat)",
    },
    "recbole.data.dataset.dataset.Dataset": {
        "_change_feat_format": "(self)",
        "_del_col": "(self, feat, field)",
        "_download": "(self)",
        "_drop_unused_col": "(self)",
        "_from_scratch": "(self)",
        "_get_download_url": "(self, url_file, allow_none=False)",
        "_get_load_and_unload_col": "(self, source)",
        "_get_preset": "(self)",
        "_load_data": "(self, token, dataset_path)",
        "_load_feat": "(self, filepath, source)",
        "_load_inter_feat": "(self, token, dataset_path)",
        "_preloaded_weight": ATTRIBUTE,
        "_remap": "(self, remap_list)",
        "_reset_index": "(self)",
    },
    "recbole.evaluator.collector.DataStruct": {
        "_data_dict": ATTRIBUTE,
    },
    "recbole.sampler.sampler.AbstractSampler": {
        "_build_alias_table": "(self)",
        "_pop_sampling": "(self, sample_num)",
    },
    "recbole.trainer.trainer.Trainer": {
        "_add_train_loss_to_tensorboard": "(self, epoch_idx, losses, tag='Loss/Train')",
        "_build_optimizer": "(self, **kwargs)",
        "_full_sort_batch_eval": "(self, batched_data)",
        "_generate_train_loss_output": "(self, epoch_idx, s_time, e_time, losses)",
        "_neg_sample_batch_eval": "(self, batched_data)",
        "_save_checkpoint": "(self, epoch, verbose=True, **kwargs)",
        "_train_epoch": "(self, train_data, epoch_idx, loss_func=None, show_progress=False)",
        "_valid_epoch": "(self, valid_data, show_progress=False)",
    },
}

#: Public names that are replaced or rerouted (compat.py, recbole_entry.py), so that their signatures matter as well.
REPLACED = {
    "recbole.config.configurator.Config": {
        "__init__": "(self, model=None, dataset=None, config_file_list=None, config_dict=None)",
        "compatibility_settings": "(self)",
    },
    "recbole.data.utils": {
        "create_dataset": "(config)",
        "data_preparation": "(config, dataset)",
    },
    "recbole.model.general_recommender.diffrec.DiffRec": {"predict": "(self, interaction)"},
    "recbole.model.general_recommender.ldiffrec.LDiffRec": {"predict": "(self, interaction)"},
    "recbole.quick_start.quick_start": {
        "load_data_and_model": "(model_file)",
        "run": "(model, dataset, config_file_list=None, config_dict=None, saved=True, nproc=1, world_size=-1, "
        "ip='localhost', port='5678', group_offset=0)",
        "run_recbole": "(model=None, dataset=None, config_file_list=None, config_dict=None, saved=True, queue=None)",
    },
    "recbole.trainer.hyper_tuning": {
        "exhaustive_search": "(new_ids, domain, trials, seed, nbMaxSucessiveFailures=1000)",
    },
    "recbole.trainer.trainer.Trainer": {
        "__init__": "(self, config, model)",
        "evaluate": "(self, eval_data, load_best_model=True, model_file=None, show_progress=False)",
        "resume_checkpoint": "(self, resume_file)",
    },
    "recbole.utils.utils": {
        "get_model": "(model_name)",
        "get_trainer": "(model_type, model_name)",
    },
}


def listed(table: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(owner, name, expected) for owner, names in table.items() for name, expected in names.items()]


@functools.cache
def recboles_sources() -> dict[str, ast.Module]:
    """RecBole's modules by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its strings have escapes that are none
        return {
            ".".join(["recbole", *path.relative_to(RECBOLE).with_suffix("").parts]): ast.parse(path.read_bytes())
            for path in RECBOLE.rglob("*.py")
        }


def content_of(owner: str) -> list[ast.stmt]:
    """What a module of RecBole's, or a class of one, holds."""
    sources = recboles_sources()
    if owner in sources:
        return sources[owner].body
    module, _, name = owner.rpartition(".")
    return next(node.body for node in sources[module].body if isinstance(node, ast.ClassDef) and node.name == name)


def signatures(content: list[ast.stmt]) -> dict[str, str]:
    return {node.name: f"({ast.unparse(node.args)})" for node in content if isinstance(node, ast.FunctionDef)}


def attributes(content: list[ast.stmt]) -> set[str]:
    """What the methods of a class set on its instances."""
    found = [part for node in content for part in ast.walk(node) if isinstance(part, ast.Attribute)]
    return {part.attr for part in found if isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self"}


@pytest.mark.parametrize(("owner", "name", "expected"), [*listed(PRIVATE), *listed(REPLACED)])
def test_recbole_has_what_is_used_of_it(owner: str, name: str, expected: str) -> None:
    content = content_of(owner)
    found = ATTRIBUTE if name in attributes(content) else signatures(content).get(name, "not there")
    assert found == expected, f"RecBole {recbole.__version__}: {owner}.{name} is {found}, and {expected} was expected"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@functools.cache
def private_names_of_recbole() -> frozenset[str]:
    """Private methods, functions, classes and attributes that RecBole's source defines."""
    nodes = [node for source in recboles_sources().values() for node in ast.walk(source)]
    names = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    return frozenset(filter(is_private, names))


def private_names_in(source: str) -> Iterator[tuple[str, int]]:
    """What a source defines in a class, reads or sets of an object, imports, or names in ``getattr`` and the like."""
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        if isinstance(node, ast.ClassDef):
            found = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
        elif isinstance(node, ast.Attribute):
            found = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr"):
            found = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        yield from ((name, node.lineno) for name in found if is_private(name))


def test_every_private_name_is_listed() -> None:
    """By name: a private name of ours that RecBole happens to have would be taken for RecBole's, or override it."""
    theirs = private_names_of_recbole()
    used: dict[str, str] = {}
    for path in ROOT.rglob("*.py"):
        for name, line in private_names_in(path.read_text(encoding="utf-8")):
            if name in theirs:
                used.setdefault(name, f"{path.relative_to(ROOT.parent)}:{line}")
    known = {name for names in PRIVATE.values() for name in names}
    assert {name: place for name, place in used.items() if name not in known} == {}
    assert sorted(known - used.keys()) == []


@pytest.mark.parametrize(
    "source",
    [
        "class Mine(Config):\n    def _load_cmd_line(self): ...",
        "loader._dataset",
        "loader._dataset = 1",
        "getattr(loader, '_sampler')",
        "from recbole.data.utils import _create_sampler",
        "class Mine(Trainer):\n    def fit(self):\n        return super()._train_epoch()",
    ],
)
def test_each_kind_of_use_is_found(source: str) -> None:
    assert [name for name, _ in private_names_in(source) if name in private_names_of_recbole()]


def test_ours_are_not_taken_for_recboles() -> None:
    source = "def _download(): ...\nclass Mine:\n    def _own_matter(self): self._other_matter = __name__"
    assert [name for name, _ in private_names_in(source) if name in private_names_of_recbole()] == []
