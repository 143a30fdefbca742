"""From a configuration to a dataset and its three data loaders."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import recbole.data.dataset as recbole_datasets
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler, Sampler
from recbole.utils import ModelType

from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.errors import DataError, SettingError

_OTHER_DATASETS = {
    ModelType.SEQUENTIAL: recbole_datasets.SequentialDataset,
    ModelType.CONTEXT: recbole_datasets.Dataset,
    ModelType.KNOWLEDGE: recbole_datasets.KnowledgeBasedDataset,
    ModelType.DECISIONTREE: recbole_datasets.DecisionTreeDataset,
}


def create_dataset(config: Any) -> Any:
    """Build the dataset of a run: ours for general recommenders, RecBole's for its other kinds of model.

    RecBole's function of this name would also unpickle a dataset it finds in ``checkpoint_dir``.
    """
    own = getattr(recbole_datasets, f"{config['model']}Dataset", None)
    dataset_class = own or _OTHER_DATASETS.get(config["MODEL_TYPE"], RLMRecDataset)
    return dataset_class(config)


def data_preparation(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Split the dataset and make its data loaders.

    RecBole masks training and validation items when it ranks the test items; under ``eval_protocol: paper`` only
    training items are masked, as in the official RLMRec code.

    Returns:
        The loaders of training, validation and test data.

    Raises:
        DataError: a part is empty, or a user has every item, so that nothing is left to sample.
        SettingError: ``topk`` asks for more items than there are.
    """
    parts = dataset.build()
    n_items, longest = dataset.num(config["ITEM_ID_FIELD"]) - 1, max(config["topk"])
    if longest > n_items:
        raise SettingError(f"topk={config['topk']}: '{config['dataset']}' has {n_items} items, fewer than {longest}.")
    try:
        samplers = create_samplers(config, dataset, parts)
    except ValueError as error:
        raise DataError(f"'{config['dataset']}' gives no negative samples: {error}") from error
    if config["eval_protocol"] == "paper" and samplers[2] is not None:
        # The loader masks what the sampler knows as used, less what is to be found.
        samplers[2].used_ids = Sampler(["train", "test"], [parts[0], parts[2]]).set_phase("test").used_ids
    knowledge: tuple[Any, ...] = ()
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        negatives = config["train_neg_sample_args"]
        knowledge = (KGSampler(dataset, negatives["distribution"], negatives["alpha"]),)
    train_data = get_dataloader(config, "train")(config, parts[0], samplers[0], *knowledge, shuffle=config["shuffle"])
    valid_data, test_data = (
        get_dataloader(config, phase)(config, part, sampler, shuffle=False)
        for phase, part, sampler in zip(("valid", "test"), parts[1:], samplers[1:])
    )
    getLogger().info(f"Batches: {len(train_data)} training, {len(valid_data)} validation, {len(test_data)} test.")
    return train_data, valid_data, test_data
