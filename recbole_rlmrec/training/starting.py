"""Starting from something: tables of users and items that begin as a checkpoint's, or as the texts, and not at random.

Rows are joined by token. A row without a source begins, the first of these that there is, as

1. what the projector of the texts makes of its semantic embedding, where the checkpoint has that projector (RLMRec-Con)
   and it leads to vectors as wide as the table; with ``init_from: text`` its text has been looked for already;
2. the mean of its neighbours' rows in the training data;
3. it was drawn.

Rows by the first and the second rule are as long as the rows with a source are on average: the length of a projection
is free, since a contrast is of cosines, and a mean over many is short.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from recbole_rlmrec.data.semantic_basis import principal_directions
from recbole_rlmrec.errors import CheckpointError, SettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.arrays import tokens_of
from recbole_rlmrec.model.layers import Reduction
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.training.checkpoint import load_checkpoint, unpacked_ids
from recbole_rlmrec.wording import ON_SCREEN, examples, listed

_logger = logging.getLogger(__name__)

#: The value of ``init_from`` that is no path.
FROM_TEXT = "text"

#: Texts that are projected at a time.
_AT_ONCE = 65_536


def start_from(source: str, model: Any, training: Any) -> None:
    """Let a model that was just built begin as ``init_from`` says, and say so in one line of the log.

    Args:
        source: path of a checkpoint, or ``text``.
        model: any model; its parameters are changed in place.
        training: the dataset of the training data loader.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, has none of the model's tables, or shares no user and no
            item with the data.
        SettingError: a table has another width there, or the model has no table that could begin as texts.
        DataError: the semantic embeddings are missing or malformed.
    """
    tables = _tables_of(model, training)
    with torch.no_grad():
        if source == FROM_TEXT:
            note = _from_text(model, training, tables)
        else:
            note = _from_file(source, model, training, tables)
    _logger.info(f"init_from={source}: {note}", extra=ON_SCREEN)


@dataclass
class _Table:
    """A parameter with a row for each user or each item.

    Attributes:
        name: of the parameter.
        side: whose rows.
        weight: the parameter, ``[ids, d]``.
        has_source: rows that have got one so far, bool ``[ids]``; row 0, ``[PAD]``, never does.
        by: how many rows began by which rule, in words.
    """

    name: str
    side: Side
    weight: Tensor
    has_source: np.ndarray
    by: dict[str, int] = field(default_factory=dict)

    def put(self, ids: np.ndarray, rows: Tensor, rule: str) -> None:
        """Let the rows ``ids``, ``[n]``, begin as ``rows``, ``[n, d]``."""
        self.weight[torch.from_numpy(ids).to(self.weight.device)] = rows.to(self.weight)
        self.has_source[ids] = True
        self.by[rule] = self.by.get(rule, 0) + len(ids)

    def missing(self) -> np.ndarray:
        """Return the ids without a source, ``[PAD]`` apart, int64 ``[n]``."""
        return np.flatnonzero(~self.has_source[1:]) + 1


def _tables_of(model: Any, training: Any) -> list[_Table]:
    """Return a model's tables of users and of items: its embeddings with as many rows as there are of either."""
    sizes: dict[Side, int] = {}
    for side in SIDES:
        if (training.uid_field if side == "user" else training.iid_field) is not None:
            sizes[side] = len(tokens_of(training, side)) + 1
    tables = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding):
            continue
        fitting = [side for side, size in sizes.items() if size == module.num_embeddings]
        if len(fitting) > 1:  # as many users as items
            fitting = [side for side in fitting if side in name]
        if len(fitting) == 1:
            has_source = np.zeros(module.num_embeddings, dtype=bool)
            tables.append(_Table(f"{name}.weight", fitting[0], module.weight.data, has_source))
    return tables


# ---------------------------------------------------------------------- from a checkpoint


def _from_file(path: str, model: Any, training: Any, tables: Sequence[_Table]) -> str:
    """Take over what a checkpoint has; return what to say of it."""
    checkpoint = load_checkpoint(path)
    stored: dict[str, Tensor] = checkpoint["state_dict"]
    found = [table for table in tables if table.name in stored]
    if tables and not found:
        raise _other_family(path, checkpoint, model, tables)
    n_shared = 0
    for side in SIDES:
        of_side = [table for table in found if table.side == side]
        if of_side:
            ids, rows = _joined(checkpoint, path, training, side, len(stored[of_side[0].name]))
            n_shared += len(ids)
            for table in of_side:
                _check_width(path, table, stored[table.name])
                table.put(ids, stored[table.name][torch.from_numpy(rows)], "from it")
    if tables and not n_shared:
        raise CheckpointError(
            f"init_from='{path}' was trained on '{checkpoint['dataset']}', which shares no user and no item with "
            f"'{training.dataset_name}', whose items are such as {examples(tokens_of(training, 'item'))}. Ids are "
            "compared as the data files have them: give a checkpoint of data with the same ids."
        )
    left = _take_over_others(model, stored, tables)
    if not tables and len(left) == len(dict(model.named_parameters())):
        raise _other_family(path, checkpoint, model, tables)
    if not any(name.startswith("projector.") for name in left):
        _fill_by_projector(model, training, tables)
    _fill_by_neighbours(training, tables)
    said = f"{checkpoint['model']} on '{checkpoint['dataset']}'; {_described(tables)}"
    return f"{said}; not taken over: {listed(left)}" if left else said


def _other_family(path: str, checkpoint: dict[str, Any], model: Any, tables: Sequence[_Table]) -> CheckpointError:
    """Return the error of a checkpoint that has nothing of a model."""
    wanted = [table.name for table in tables] or [name for name, _ in model.named_parameters()]
    there = listed(list(checkpoint["state_dict"])) or "nothing that is trained"
    return CheckpointError(
        f"init_from='{path}' is a checkpoint of {checkpoint['model']}, which has none of the parameters that "
        f"{type(model).__name__} starts from ({listed(wanted) or 'it has none'}): it holds {there}. Give a checkpoint "
        "of the same model or of its base."
    )


def _check_width(path: str, table: _Table, stored: Tensor) -> None:
    """Refuse a table of another width.

    Raises:
        SettingError: it is.
    """
    widths = [weight.shape[-1] for weight in (stored, table.weight)]
    if widths[0] != widths[1]:
        raise SettingError(
            f"init_from='{path}': its {table.name} is {widths[0]} wide, and this model's {widths[1]}. Give "
            f"--embedding_size={widths[0]}, or what else sets that width."
        )


def _joined(
    checkpoint: dict[str, Any], path: str, training: Any, side: Side, n_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of one side that a checkpoint knows, int64 ``[n]``, and their rows there, ``[n]``.

    Args:
        checkpoint: the checkpoint.
        path: of it.
        training: the data at hand.
        side: whose ids.
        n_rows: rows of its table.

    Raises:
        CheckpointError: it does not say which row is whose.
    """
    here = tokens_of(training, side)
    if checkpoint.get("ids"):
        there = unpacked_ids(checkpoint, side)
    else:
        # Earlier versions kept a hash of the ids only. Data that have grown since begin with the same ids.
        there = [str(token) for token in here[: n_rows - 1]]
        field = training.uid_field if side == "user" else training.iid_field
        padding = str(training.field2id_token[field][0])
        if hashlib.sha256("\n".join([padding, *there]).encode()).hexdigest() != checkpoint["data"].get(f"{side} ids"):
            raise CheckpointError(
                f"init_from='{path}' is of an earlier version, which did not keep the ids of users and items, and the "
                f"{side}s of '{training.dataset_name}' are not those of its training. Train that model again."
            )
    rows = {token: row for row, token in enumerate(there, start=1)}
    found = np.array([rows.get(str(token), 0) for token in here], dtype=np.int64)
    ids = np.flatnonzero(found)
    return ids + 1, found[ids]


def _take_over_others(model: Any, stored: Mapping[str, Tensor], tables: Sequence[_Table]) -> list[str]:
    """Take over the parameters that are no tables, where name and shape fit; return the names of all that are not.

    What reduces semantic embeddings goes with the parameters that read them.
    """
    for name, module in model.named_modules():
        vectors = stored.get(f"{name}.vectors") if isinstance(module, Reduction) else None
        if vectors is not None and vectors.shape == module.vectors.shape:
            module.vectors.copy_(vectors)
            module.refresh()
    begun = {table.name for table in tables if table.has_source.any()}
    left = []
    for name, parameter in model.named_parameters():
        if name in begun:
            continue
        if name in stored and stored[name].shape == parameter.shape and all(name != table.name for table in tables):
            parameter.copy_(stored[name])
        else:
            left.append(name)
    return left


# ---------------------------------------------------------------------- from texts


def _from_text(model: Any, training: Any, tables: Sequence[_Table]) -> str:
    """Let tables begin as the leading components of the semantic embeddings; return what to say of it.

    Users and items have the same components, so that a user is near the items whose texts are alike. They are scaled
    to the standard deviation with which the tables were drawn. Of a table wider than the embeddings the further columns
    stay as drawn.
    """
    wide = [table for table in tables if table.weight.shape[1] > 1]  # one number a row is a bias
    if not wide or not hasattr(training, "semantic_embedding"):
        raise SettingError(
            f"init_from=text: {type(model).__name__} has no tables of users and items that could start from texts. "
            "Leave it out, or take a model that has them, such as LightGCN."
        )
    joined = {side: training.semantic_embedding(side) for side in SIDES}
    if not any(source.covered.any() for source in joined.values()):
        joined["item"].require_covered()
    components = principal_directions(list(joined.values()))[1].astype(np.float32)
    for table in wide:
        source = joined[table.side]
        if not source.covered.any():
            continue  # the other side's texts are propagated to it
        leading = components[:, : table.weight.shape[1]]
        ids = np.flatnonzero(source.covered)
        rows = table.weight[torch.from_numpy(ids).to(table.weight.device)].cpu()
        drawn = float(table.weight.std())
        found = np.concatenate([block @ leading for _, block in source.blocks()])
        rows[:, : leading.shape[1]] = torch.from_numpy(found * (drawn / found.std()))
        table.put(ids, rows, "from their texts")
    _fill_by_neighbours(training, wide)
    return _described(wide)


# ---------------------------------------------------------------------- rows without a source


def _fill_by_projector(model: Any, training: Any, tables: Sequence[_Table]) -> None:
    """Let rows without a source begin as what the model's projector makes of their texts, where it has one."""
    projector = model.text_projector if isinstance(model, Alignment) else None
    if projector is None:
        return
    for table in tables:
        if table.weight.shape[1] != projector.widths[1] or not table.has_source.any():
            continue
        texts = training.semantic_embedding(table.side)
        ids = table.missing()
        ids = ids[texts.covered[ids]]
        for first in range(0, len(ids), _AT_ONCE):
            some = ids[first : first + _AT_ONCE]
            rows = projector(torch.from_numpy(texts.take(some)).float().to(table.weight.device))
            table.put(some, _as_long_as(rows, table), "from their texts")


def _fill_by_neighbours(training: Any, tables: Sequence[_Table]) -> None:
    """Let rows without a source begin as the mean of their neighbours' rows, those with a source.

    A table's neighbours are in the table of the other side that has its name with the other side's word.
    """
    by_name = {table.name: table for table in tables}
    means = []
    for table in tables:
        of_other = _other(table.side)
        other = by_name.get(table.name.replace(table.side, of_other))
        ids = table.missing()
        if other is None or other.side != of_other or other.weight.shape != (len(other.weight), table.weight.shape[1]):
            continue
        if len(ids) and other.has_source.any():
            rows, has_any = _means(training, table, other)
            means.append((table, ids[has_any[ids]], rows))
    for table, ids, rows in means:  # after all are computed, so that the order of the tables does not matter
        table.put(ids, _as_long_as(rows[ids], table), "from their neighbours")


def _means(training: Any, table: _Table, other: _Table) -> tuple[Tensor, np.ndarray]:
    """Return the mean of the neighbours' rows with a source, ``[ids, d]``, and who has such, bool ``[ids]``."""
    columns = [training.inter_feat[name].numpy() for name in (training.uid_field, training.iid_field)]
    nodes, neighbours = columns if table.side == "user" else columns[::-1]
    counted = other.has_source[neighbours]
    shape = (len(table.weight), len(other.weight))
    edges = scipy.sparse.csr_matrix(
        (np.ones(counted.sum(), dtype=np.float32), (nodes[counted], neighbours[counted])), shape=shape
    )
    degree = np.asarray(edges.sum(axis=1)).ravel()
    total = edges @ other.weight.float().cpu().numpy()
    return torch.from_numpy(total / np.maximum(degree, 1)[:, None]), degree > 0


def _as_long_as(rows: Tensor, table: _Table) -> Tensor:
    """Return rows, ``[n, d]``, with the average length of a table's rows with a source, or of all where none has."""
    counted = table.has_source if table.has_source.any() else np.ones_like(table.has_source)
    lengths = table.weight[torch.from_numpy(counted).to(table.weight.device)].norm(dim=1)
    return nn.functional.normalize(rows, dim=1) * lengths.mean().to(rows.device)


def _other(side: Side) -> Side:
    return "item" if side == "user" else "user"


def _described(tables: Sequence[_Table]) -> str:
    """Say how the rows of each table began."""
    texts = []
    for table in tables:
        drawn = len(table.missing())
        parts = [f"{n_rows:,} {rule}" for rule, n_rows in {**table.by, "as drawn": drawn}.items() if n_rows]
        texts.append(f"{table.name}: {', '.join(parts)}")
    return "; ".join(texts)
