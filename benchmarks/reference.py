"""A plain PyTorch implementation of RLMRec's formulas, to be measured against and to be tested with.

It computes what the official code computes (HKUDS/RLMRec @2241375), in the way it does: one pass of Python over the
interactions for the negatives of an epoch, one dataset item per interaction, a graph in COO form that is built again
where edges are dropped, every profile projected at each step, every row of a batch its own anchor, and each contrast a
dense ``[B, N]`` matrix of exponentials. It is written from the formulas, without that code. There is no ``[PAD]`` row.

Settings go by this package's names, so that one configuration describes both sides of a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor, Tensor]

# ---------------------------------------------------------------------- graph


def normalized_adjacency(users: Tensor, items: Tensor, n_users: int, n_items: int) -> Tensor:
    """Return ``D^-1/2 A D^-1/2`` over the stacked nodes ``[users; items]``, sparse COO ``[n, n]``.

    Args:
        users: ``[E]`` user of each interaction, which are distinct.
        items: ``[E]`` item of each interaction.
        n_users: number of users.
        n_items: number of items.
    """
    n = n_users + n_items
    row, column = torch.cat([users, items + n_users]), torch.cat([items + n_users, users])
    degree = torch.bincount(row, minlength=n).float()
    value = 1 / torch.sqrt(degree[row] * degree[column])
    return torch.sparse_coo_tensor(torch.stack([row, column]), value, (n, n), check_invariants=False).coalesce()


def drop_edges(adjacency: Tensor, keep_rate: float) -> Tensor:
    """Keep each directed entry with probability ``keep_rate``, without rescaling, in a new COO matrix."""
    if keep_rate == 1:
        return adjacency
    kept = torch.rand_like(adjacency.values()) < keep_rate
    indices, values = adjacency.indices()[:, kept], adjacency.values()[kept]
    return torch.sparse_coo_tensor(indices, values, adjacency.shape, check_invariants=False)


def propagate(
    adjacency: Tensor, ego: Tensor, n_layers: int, perturb: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the sum of ``ego``, ``[n, d]``, and of its ``n_layers`` propagated layers, each perturbed if asked to."""
    layers = [ego]
    for _ in range(n_layers):
        layer = torch.sparse.mm(adjacency, layers[-1])
        layers.append(layer if perturb is None else perturb(layer))
    return torch.stack(layers).sum(dim=0)


# ---------------------------------------------------------------------- losses


def info_nce(anchor: Tensor, positive: Tensor, candidate: Tensor, temperature: float) -> Tensor:
    """Return ``-log(exp(cos(a, p) / t) / sum_c exp(cos(a, c) / t))`` of each anchor, ``[A]``.

    Args:
        anchor: ``[A, d]``.
        positive: ``[A, d]``.
        candidate: ``[N, d]``.
        temperature: t.
    """
    anchor, positive, candidate = (F.normalize(rows, dim=1) for rows in (anchor, positive, candidate))
    numerator = torch.exp((anchor * positive).sum(dim=1) / temperature)
    denominator = torch.exp(anchor @ candidate.T / temperature).sum(dim=1)
    return -torch.log(numerator / denominator)


def reconstruction_loss(rebuilt: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return Gen's mean over the masked nodes, with the official code's two guards against zero.

    Args:
        rebuilt: ``[M, D]``.
        target: ``[M, D]``; every row is a candidate of every node.
        temperature: t.
    """
    rebuilt, target = F.normalize(rebuilt, dim=1), F.normalize(target, dim=1)
    numerator = torch.exp((rebuilt * target).sum(dim=1) / temperature)
    denominator = torch.exp(rebuilt @ target.T / temperature).sum(dim=1) + 1e-8
    return -torch.log(numerator / denominator + 1e-8).mean()


def alignment_loss(
    users: Tensor, items: Tensor, user_profiles: Tensor, item_profiles: Tensor, batch: Batch, temperature: float
) -> Tensor:
    """Return Con's alignment: three sums of InfoNCE, divided by the batch's size.

    A user is contrasted with the profiles of all users, a positive item with those of the batch's positive items and a
    negative item with those of its negative items, duplicates included.

    Args:
        users: ``[U, d]`` representations.
        items: ``[I, d]`` representations.
        user_profiles: ``[U, d]`` projected profiles.
        item_profiles: ``[I, d]`` projected profiles.
        batch: users, positive and negative items, ``[B]`` each.
        temperature: t.
    """
    user, positive, negative = batch
    total = info_nce(users[user], user_profiles[user], user_profiles, temperature).sum()
    for rows in (positive, negative):
        total = total + info_nce(items[rows], item_profiles[rows], item_profiles[rows], temperature).sum()
    return total / len(user)


def projector(in_features: int, out_features: int) -> nn.Sequential:
    """Return the perceptron between the semantic and the collaborative space."""
    hidden = (in_features + out_features) // 2
    first, last = nn.Linear(in_features, hidden), nn.Linear(hidden, out_features)
    for layer in (first, last):
        nn.init.xavier_uniform_(layer.weight)
    return nn.Sequential(first, nn.LeakyReLU(), last)


# ---------------------------------------------------------------------- backbones


class LightGCN(nn.Module):
    """LightGCN with dropped edges on its main path; also what the other backbones are made of.

    Args:
        adjacency: the whole graph's, sparse ``[U + I, U + I]``.
        n_users: U.
        n_items: I.
        settings: of this package's names.
    """

    def __init__(self, adjacency: Tensor, n_users: int, n_items: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.adjacency = adjacency
        self.settings = settings
        size = settings["embedding_size"]
        self.user_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_users, size)))
        self.item_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, size)))

    @property
    def width(self) -> int:
        """Width of a representation."""
        return self.user_embedding.shape[1]

    def ego(self) -> Tensor:
        """Return both tables stacked, ``[U + I, d]``."""
        return torch.cat([self.user_embedding, self.item_embedding])

    def split(self, stacked: Tensor) -> tuple[Tensor, Tensor]:
        """Split ``[U + I, d]`` into users and items."""
        return stacked[: len(self.user_embedding)], stacked[len(self.user_embedding) :]

    def encode(self, ego: Tensor) -> Tensor:
        """Return the representation that ranks and is aligned, ``[U + I, d]``."""
        graph = drop_edges(self.adjacency, self.settings["edge_keep_rate"])
        return propagate(graph, ego, self.settings["n_layers"])

    def losses(self, ego: Tensor, representation: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the backbone's weighted loss terms by name.

        Args:
            ego: ``[U + I, d]``, possibly masked.
            representation: ``encode(ego)``.
            batch: users, positive and negative items, ``[B]`` each.
        """
        user, positive, negative = batch
        users, items = self.split(representation)
        difference = (users[user] * items[negative]).sum(dim=1) - (users[user] * items[positive]).sum(dim=1)
        return {"bpr": F.softplus(difference).sum() / len(user)}

    def view_contrast(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor:
        """Return the weighted contrast of the batch's nodes in one view with whole tables of the other."""
        (first_users, first_items), (second_users, second_items) = self.split(first), self.split(second)
        user, *item_rows = batch if self.settings["ssl_negative_items"] else batch[:2]
        temperature = self.settings["ssl_tau"]
        total = info_nce(first_users[user], second_users[user], second_users, temperature).sum()
        for rows in item_rows:
            total = total + info_nce(first_items[rows], second_items[rows], second_items, temperature).sum()
        return self.settings["ssl_weight"] * total / len(user)


class SGL(LightGCN):
    """SGL: two views with dropped edges, the main path over the whole graph."""

    def encode(self, ego: Tensor) -> Tensor:
        """Return the representation over the whole graph."""
        return propagate(self.adjacency, ego, self.settings["n_layers"])

    def losses(self, ego: Tensor, representation: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Add the contrast of the two views."""
        keep_rate, n_layers = self.settings["edge_keep_rate"], self.settings["n_layers"]
        first, second = (propagate(drop_edges(self.adjacency, keep_rate), ego, n_layers) for _ in range(2))
        return {**super().losses(ego, representation, batch), "ssl": self.view_contrast(first, second, batch)}


class SimGCL(LightGCN):
    """SimGCL: two views with noise after each layer."""

    def losses(self, ego: Tensor, representation: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Add the contrast of the two noisy views."""
        n_layers = self.settings["n_layers"]
        first, second = (propagate(self.adjacency, ego, n_layers, self.perturb) for _ in range(2))
        return {**super().losses(ego, representation, batch), "ssl": self.view_contrast(first, second, batch)}

    def perturb(self, layer: Tensor) -> Tensor:
        """Add noise of length ``eps`` in the orthant of each row of ``layer``, ``[n, d]``."""
        return layer + F.normalize(torch.rand_like(layer), dim=1) * layer.sign() * self.settings["eps"]


BACKBONES: dict[str, type[LightGCN]] = {"LightGCN": LightGCN, "SGL": SGL, "SimGCL": SimGCL}

# ---------------------------------------------------------------------- models


class Base(nn.Module):
    """A backbone trained with its own losses and the squared norm of every parameter."""

    def __init__(self, backbone: LightGCN) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = backbone.settings

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted loss terms of users, positive and negative items, ``[B]`` each, by name."""
        return self.backbone_losses(self.backbone.ego(), batch)[1]

    def backbone_losses(self, ego: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the representation of ``ego``, ``[U + I, d]``, and the terms that every model has."""
        representation = self.backbone.encode(ego)
        terms = self.backbone.losses(ego, representation, batch)
        squares = [parameter.norm(2).square() for parameter in self.parameters()]
        terms["reg"] = self.settings["reg_weight"] * torch.stack(squares).sum()
        return representation, terms


class Con(Base):
    """A backbone with contrastive alignment.

    Args:
        backbone: what is aligned.
        user_semantic: ``[U, D]`` semantic embeddings.
        item_semantic: ``[I, D]`` semantic embeddings.
    """

    def __init__(self, backbone: LightGCN, user_semantic: Tensor, item_semantic: Tensor) -> None:
        super().__init__(backbone)
        self.user_semantic, self.item_semantic = user_semantic, item_semantic
        self.projector = projector(user_semantic.shape[1], backbone.width)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the backbone's terms and the alignment; all profiles of both sides are projected."""
        representation, terms = self.backbone_losses(self.backbone.ego(), batch)
        users, items = self.backbone.split(representation)
        user_profiles, item_profiles = self.projector(self.user_semantic), self.projector(self.item_semantic)
        temperature = self.settings["alignment_temperature"]
        alignment = alignment_loss(users, items, user_profiles, item_profiles, batch, temperature)
        return {**terms, "alignment": self.settings["alignment_weight"] * alignment}


class Gen(Base):
    """A backbone with generative alignment; arguments as of :class:`Con`."""

    def __init__(self, backbone: LightGCN, user_semantic: Tensor, item_semantic: Tensor) -> None:
        super().__init__(backbone)
        self.semantic = torch.cat([user_semantic, item_semantic])
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, backbone.user_embedding.shape[1]))
        self.projector = projector(backbone.width, self.semantic.shape[1])

    def draw_masked(self) -> Tensor:
        """Return the rows, among users and items together, that this step masks."""
        n = len(self.semantic)
        return torch.randperm(n, device=self.semantic.device)[: int(self.settings["mask_ratio"] * n)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the backbone's terms on the masked table and the reconstruction of the masked rows."""
        masked = self.draw_masked()
        is_masked = torch.zeros(len(self.semantic), 1, device=self.semantic.device)
        is_masked[masked] = 1
        ego = self.backbone.ego() * (1 - is_masked) + self.mask_token * is_masked
        representation, terms = self.backbone_losses(ego, batch)
        rebuilt, temperature = self.projector(representation[masked]), self.settings["reconstruction_temperature"]
        reconstruction = reconstruction_loss(rebuilt, self.semantic[masked], temperature)
        return {**terms, "reconstruction": self.settings["reconstruction_weight"] * reconstruction}


def build(
    model: str,
    interactions: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    settings: Mapping[str, Any],
    semantic: tuple[np.ndarray, np.ndarray] | None = None,
    device: str = "cpu",
) -> Base:
    """Build a model.

    Args:
        model: ``<Backbone>``, ``<Backbone>_RLMRecCon`` or ``<Backbone>_RLMRecGen``.
        interactions: users and items, ``[E]`` each, counted from 0.
        shape: numbers of users and items.
        settings: of this package's names.
        semantic: ``[U, D]`` and ``[I, D]``, for Con and Gen.
        device: where everything lies.
    """
    backbone_name, _, variant = model.partition("_RLMRec")
    users, items = (torch.from_numpy(ids).to(device) for ids in interactions)
    adjacency = normalized_adjacency(users, items, *shape)
    backbone = BACKBONES[backbone_name](adjacency, *shape, settings)
    if not variant:
        return Base(backbone).to(device)
    if semantic is None:
        raise ValueError(f"{model} needs semantic embeddings")
    aligned = {"Con": Con, "Gen": Gen}[variant]
    return aligned(backbone, *(torch.from_numpy(table).to(device) for table in semantic)).to(device)


# ---------------------------------------------------------------------- training


class PairwiseRows(Dataset):
    """One ``(user, item, negative item)`` per training interaction.

    Args:
        users: ``[E]`` users, counted from 0.
        items: ``[E]`` items.
        shape: numbers of users and items.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> None:
        self.users, self.items, self.n_items = users, items, shape[1]
        ones = np.ones(len(users), dtype=np.float32)
        self.known = scipy.sparse.coo_matrix((ones, (users, items)), shape=shape).todok()
        self.negatives = np.zeros(len(users), dtype=np.int64)

    def draw_negatives(self, rows: Iterable[int]) -> None:
        """Draw an item for each of these rows that its user has no training interaction with."""
        for row in rows:
            user = self.users[row]
            negative = np.random.randint(self.n_items)
            while (user, negative) in self.known:
                negative = np.random.randint(self.n_items)
            self.negatives[row] = negative

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, row: int) -> tuple[np.int64, np.int64, np.int64]:
        return self.users[row], self.items[row], self.negatives[row]


def train_epoch(model: Base, loader: DataLoader, optimizer: torch.optim.Optimizer, device: str = "cpu") -> float:
    """Train over the loader's batches once; return the sum of the losses."""
    model.train()
    total = 0.0
    for batch in loader:
        optimizer.zero_grad()
        terms = model.losses(tuple(rows.long().to(device) for rows in batch))
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        optimizer.step()
        total += sum(term.item() for term in terms.values())
    return total
