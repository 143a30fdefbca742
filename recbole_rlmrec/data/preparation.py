"""From a configuration to a dataset and its three data loaders."""

from __future__ import annotations

import logging
from collections import ChainMap
from typing import Any

import recbole.data.dataset as recbole_datasets
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import ModelType

from recbole_rlmrec import compat
from recbole_rlmrec.data.dataset import RLMRecDataset, reading
from recbole_rlmrec.data.frozen import frozen_path
from recbole_rlmrec.data.loader import EmptyLoader, FullSortLoader, TrainLoader
from recbole_rlmrec.data.recbole_reader import RecBoleReader
from recbole_rlmrec.data.sampler import PairSampler
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.recbole_names import recbole_name

_logger = logging.getLogger(__name__)

_PHASES = ["train", "valid", "test"]


class _KnowledgeDataset(RLMRecDataset, recbole_datasets.KnowledgeBasedDataset):
    """RecBole's dataset with a knowledge graph, split as ours."""


class _DecisionTreeDataset(RLMRecDataset, recbole_datasets.DecisionTreeDataset):
    """RecBole's dataset for decision trees, split as ours."""


#: Where a file fixes the split. A sequential model's dataset makes sequences of rows, which no such file knows.
_SPLIT_BY_FILE = {
    ModelType.CONTEXT: RLMRecDataset,
    ModelType.KNOWLEDGE: _KnowledgeDataset,
    ModelType.DECISIONTREE: _DecisionTreeDataset,
}

_OTHER_DATASETS = {
    ModelType.SEQUENTIAL: recbole_datasets.SequentialDataset,
    ModelType.CONTEXT: recbole_datasets.Dataset,
    ModelType.KNOWLEDGE: recbole_datasets.KnowledgeBasedDataset,
    ModelType.DECISIONTREE: recbole_datasets.DecisionTreeDataset,
}


def create_dataset(config: Any) -> Any:
    """Build the dataset of a run: ours for general recommenders, RecBole's for its other kinds of model.

    Where a file fixes the split, those other kinds follow it as well, but for models that read sequences.

    RecBole's function of this name would also unpickle a dataset it finds in ``checkpoint_dir``.

    Raises:
        DataError: a file is missing or malformed.
    """
    own = getattr(recbole_datasets, f"{config['model']}Dataset", None)
    kind = config["MODEL_TYPE"]
    dataset_class = own or _OTHER_DATASETS.get(kind, RLMRecDataset)
    frozen = frozen_path(config)
    if frozen is not None or config["split_file"] is not None:
        if own is None and kind in _SPLIT_BY_FILE:
            dataset_class = _SPLIT_BY_FILE[kind]
        elif frozen is not None and not issubclass(dataset_class, RLMRecDataset):
            _logger.warning(
                f"{config['model']} reads sequences and splits them itself: the frozen split of {frozen.name} is not "
                "used, and its results do not compare with those of models that use it."
            )
    with config.foreign_errors_said(f"The dataset '{config['dataset']}' could not be read"):
        if issubclass(dataset_class, RLMRecDataset):
            return dataset_class(config)
        with reading(config), compat.tables_read_by(RecBoleReader(config)):
            return dataset_class(config)


def data_preparation(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Split the dataset and make its data loaders.

    RecBole masks training and validation items when it ranks the test items; under ``eval_protocol: paper`` only
    training items are masked, as in the official RLMRec code.

    Returns:
        The loaders of training, validation and test data; an :class:`EmptyLoader` for a part that the split leaves out.

    Raises:
        DataError: a part is empty, or a user has every item, so that nothing is left to sample.
        SettingError: ``topk`` or ``eval_args`` asks for more items than there are, or RecBole fails.
    """
    with config.foreign_errors_said(f"The dataset '{config['dataset']}' could not be split into batches"):
        return _loaders(config, dataset)


def _loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    parts = dataset.build()
    n_items, longest = dataset.num(config["ITEM_ID_FIELD"]) - 1, max(config["topk"])
    if longest > n_items:
        raise SettingError(f"topk={config['topk']}: '{config['dataset']}' has {n_items} items, fewer than {longest}.")
    for phase in _PHASES[1:]:
        wanted = config[f"{phase}_neg_sample_args"]["sample_num"]
        if isinstance(wanted, int) and wanted >= n_items:
            raise SettingError(
                f"eval_args={config['eval_args']} ranks among {wanted:,} sampled items; '{config['dataset']}' has "
                f"{n_items:,}. Ask for fewer, or for the mode full."
            )
    try:
        samplers = _create_samplers(config, dataset, parts)
    except ValueError as error:
        raise DataError(f"'{config['dataset']}' gives no negative samples: {error}") from error
    knowledge: tuple[Any, ...] = ()
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        negatives = config["train_neg_sample_args"]
        knowledge = (KGSampler(dataset, negatives["distribution"], negatives["alpha"]),)
    loader: Any = _recbole_loader(config, "train")
    if loader is TrainDataLoader:
        loader = TrainLoader
    train_data = loader(config, parts[0], samplers[0], *knowledge, shuffle=config["shuffle"])
    valid_data, test_data = (
        _evaluation_loader(config, phase, sampler)(config, part, sampler, shuffle=False)
        if len(part.inter_feat)
        else EmptyLoader(part)
        for phase, part, sampler in zip(("valid", "test"), parts[1:], samplers[1:])
    )
    for loader in (train_data, valid_data, test_data):
        _fork_workers(loader)
    _logger.info(f"Batches: {len(train_data)} training, {len(valid_data)} validation, {len(test_data)} test.")
    return train_data, valid_data, test_data


def _fork_workers(loader: Any) -> None:
    """Let a loader's workers begin as copies of this process.

    What they share is large, and holds generators that cannot be pickled. Python starts them otherwise from 3.14 on,
    and in each of several processes. RecBole's loader of a knowledge graph holds two others.
    """
    for part in (loader, *(getattr(loader, name, None) for name in ("general_dataloader", "kg_dataloader"))):
        if getattr(part, "num_workers", 0) > 0:
            part.multiprocessing_context = "fork"


def _recbole_loader(config: Any, phase: Any) -> Any:
    """Return RecBole's choice of loader, made by name, for the model of RecBole's that the run's is or extends."""
    return get_dataloader(ChainMap({"model": recbole_name(config.model_class)}, config), phase)


def _evaluation_loader(config: Any, phase: str, sampler: Any) -> Any:
    """Return RecBole's choice of loader for validation or test, or ours in its place where ours can take it."""
    loader = _recbole_loader(config, phase)
    is_ours = isinstance(sampler, PairSampler) and config["MODEL_TYPE"] != ModelType.SEQUENTIAL
    return FullSortLoader if loader is FullSortEvalDataLoader and is_ours else loader


def _create_samplers(config: Any, dataset: Any, parts: Any) -> list[Any]:
    """Make the samplers of training, validation and test as RecBole does, without its Python sets.

    A full-sort loader masks what the sampler knows as used, less what is to be found; under ``eval_protocol: paper``
    the validation items are not used for the test.

    Raises:
        ValueError: a user has every item.
    """
    is_paper = config["eval_protocol"] == "paper"
    if config["repeatable"]:
        samplers = list(create_samplers(config, dataset, parts))
        if is_paper and samplers[2] is not None:
            samplers[2].used_ids = PairSampler(["train", "test"], [parts[0], parts[2]]).set_phase("test").used_ids
        return samplers
    samplers = []
    shared: PairSampler | None = None
    for phase in _PHASES:
        arguments = config[f"{phase}_neg_sample_args"]
        distribution = arguments["distribution"]
        if distribution == "none":
            samplers.append(None)
            continue
        if shared is None:
            # RecBole passes on the exponent of the training's popularity only.
            shared = PairSampler(_PHASES, parts, distribution, arguments["alpha"] if phase == "train" else 1.0)
        elif shared.distribution != distribution:
            shared.set_distribution(distribution)
        samplers.append(shared.set_phase(phase, without=["valid"] if is_paper and phase == "test" else []))
    return samplers
