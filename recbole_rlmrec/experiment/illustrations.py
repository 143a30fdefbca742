"""What alignment changes, illustrated: users who come together, maps, lists side by side; kept beside a comparison.

All of it is computed from what a comparison leaves, the lists and checkpoints of its cells, and kept in
``illustrations/``, a file for each aligned model. What has not changed is not computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import CheckpointError, DataError, RLMRecError
from recbole_rlmrec.experiment import case_study, side_by_side, space_map
from recbole_rlmrec.experiment.folder import read_comparison, read_result, write_json
from recbole_rlmrec.experiment.known_data import KnownData, warned_before
from recbole_rlmrec.experiment.lists import RankedLists
from recbole_rlmrec.model.arrays import tables_of
from recbole_rlmrec.model.scores import evaluating
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.reading.documents import Format, parse_json
from recbole_rlmrec.reading.regular import file_sha256

_ILLUSTRATION = Format("illustration of an aligned model", "Remove it: it is made again.", allow_others=True)

#: Of what a file in ``illustrations/`` holds: those of another one are made again.
_VERSION = 1

#: Titles of a user's training items that are shown.
_N_TITLES = 12


def illustrations_of(folder: str | Path) -> list[dict[str, Any]]:
    """Return an illustration of each aligned model of a comparison that has its base beside it.

    They are written to ``illustrations/<model>.json`` in the folder, and all case studies to ``case_study.json``.

    Args:
        folder: of the comparison.

    Returns:
        Plain values: ``model``, ``base``, ``seed`` (the first with which the model was kept), ``case_study``, ``map``
        and ``side_by_side``; where one of these cannot be made it has ``missing`` alone, which says why.

    Raises:
        DataError: the comparison, or a file of it, is damaged.
        SettingError: its settings are not known any more.
    """
    folder = Path(folder)
    found = read_comparison(folder)
    aligned = [(row["model"], row["base"]) for row in found["rows"] if row["base"]]
    if not aligned:
        return []
    illustrator = _Illustrator(folder, found)
    illustrations = [illustrator.of(model, base) for model, base in sorted(aligned, key=lambda pair: pair[1])]
    studies = {
        illustration["model"]: {
            "base": illustration["base"],
            "seed": illustration["seed"],
            **illustration["case_study"],
        }
        for illustration in illustrations
    }
    write_json(folder / "case_study.json", {"rule": case_study.RULE, "models": studies})
    return illustrations


class _Space(NamedTuple):
    """A trained model's representations by internal id, ``[U, d]`` and ``[I, d]``, and its training data."""

    users: np.ndarray
    items: np.ndarray
    dataset: Any


class _Subject(NamedTuple):
    """What is illustrated: an aligned model, its base, and the seed of both."""

    model: str
    base: str
    seed: int


class _Illustrator:
    """Looks at the aligned models of one comparison.

    Args:
        folder: of the comparison.
        found: its ``comparison.json``.
    """

    def __init__(self, folder: Path, found: Mapping[str, Any]) -> None:
        self._folder, self._seeds = folder, found["seeds"]
        conditions = found["conditions"]
        settings = {**conditions["settings"], "seed": self._seeds[0]}
        model = found["rows"][0]["model"]
        self._known = KnownData(
            RLMRecConfig(model, conditions["dataset"], conditions["config_files"], command_line=settings),
            conditions["data"] or {},
        )
        self._space = lru_cache(maxsize=2)(self._loaded)  # a base stays while its models come and go
        self._places: dict[tuple[str, bytes], np.ndarray] = {}

    def of(self, model: str, base: str) -> dict[str, Any]:
        """Return the illustration of one model, from its file as far as nothing has changed."""
        parts: dict[str, Callable[[_Subject], dict[str, Any]]] = {
            "case_study": self._case_study,
            "map": self._map,
            "side_by_side": self._side_by_side,
        }
        seed = next((seed for seed in self._seeds if self._is_there(model, base, seed)), None)
        if seed is None:
            missing = {"missing": f"There is no seed with which both were trained and {model} was kept, not {base}."}
            return {"model": model, "base": base, "seed": None, **dict.fromkeys(parts, missing)}
        subject, path = _Subject(model, base, seed), self._folder / "illustrations" / f"{model}.json"
        key = self._key(subject)
        stored = _stored(path)
        illustration: dict[str, Any] = {"key": key, "model": model, "base": base, "seed": seed}
        for name, make in parts.items():
            part = stored.get(name) if stored.get("key") == key else None
            if part is None or "missing" in part:
                try:
                    part = make(subject)
                except RLMRecError as error:
                    part = {"missing": str(error)}
            illustration[name] = part
        path.parent.mkdir(exist_ok=True)
        write_json(path, illustration)
        return illustration

    # ------------------------------------------------------------------ what there is

    def _cell(self, model: str, seed: int, ending: str) -> Path:
        return self._folder / "cells" / f"{model}-{seed}{ending}"

    def _is_there(self, model: str, base: str, seed: int) -> bool:
        paths = [self._cell(each, seed, ending) for each in (model, base) for ending in (".json", ".npz")]
        return all(path.is_file() for path in paths) and read_result(paths[0]).get("kept") != "base"

    def _key(self, subject: _Subject) -> str:
        """Return a hash of all that an illustration depends on."""
        cells = [
            file_sha256(self._cell(each, subject.seed, ending))
            for each in (subject.model, subject.base)
            for ending in (".json", ".npz")
        ]
        return hashlib.sha256(" ".join([str(_VERSION), *cells, *self._known.texts_sha256()]).encode()).hexdigest()

    def _loaded(self, model: str, seed: int) -> _Space:
        """Load a model's checkpoint: in the comparison's folder, which may have been moved, or where it was written.

        Raises:
            CheckpointError: it is not there any more, or of other data.
            SettingError: the model has no representations.
        """
        recorded = Path(read_result(self._cell(model, seed, ".json")).get("checkpoint") or "none")
        path = next((each for each in (self._folder / "saved" / recorded.name, recorded) if each.is_file()), None)
        if path is None:
            raise CheckpointError(f"The checkpoint of {model} with seed {seed} is gone ('{recorded}').")
        with warned_before():
            loaded = load_model(path)
        with evaluating(loaded.model):
            users, items = (table.float().cpu().numpy() for table in tables_of(loaded.model))
        return _Space(users, items, dataset_of(loaded.train_data))

    def _spaces(self, subject: _Subject) -> tuple[_Space, _Space]:
        """Return those of the base and of the aligned model."""
        return self._space(subject.base, subject.seed), self._space(subject.model, subject.seed)

    def _titles(self, ids: np.ndarray) -> list[str]:
        tokens = self._known.tokens("item")
        return [self._known.title(tokens[item]) for item in ids.tolist()]

    # ------------------------------------------------------------------ parts

    def _case_study(self, subject: _Subject) -> dict[str, Any]:
        base, aligned = self._spaces(subject)
        training, tokens = self._known.training, self._known.tokens("user")
        semantic = aligned.dataset.semantic_embedding("user")
        pairs = []
        for pair in case_study.brought_together(base.users, aligned.users, training):
            ids = np.array([pair.user, pair.other])
            first, second = case_study.unit(semantic.take(ids))
            have = [training[user].indices for user in ids.tolist()]
            pairs.append(
                {
                    "users": [tokens[user] for user in ids.tolist()],
                    "hops": case_study.hops_between(training, pair.user, pair.other),
                    "similarity": {"base": pair.base_similarity, "aligned": pair.similarity},
                    "rank": {"base": pair.base_rank, "aligned": pair.rank},
                    "of": training.shape[0] - 2,
                    "text similarity": float(first @ second) if semantic.covered[ids].all() else None,
                    "profiles": [self._known.profiles.get(tokens[user]) for user in ids.tolist()],
                    "items": [self._titles(items[:_N_TITLES]) for items in have],
                    "n_items": [len(items) for items in have],
                }
            )
        return {"pairs": pairs}

    def _map(self, subject: _Subject) -> dict[str, Any]:
        base, aligned = self._spaces(subject)
        semantic = aligned.dataset.semantic_embedding("item")
        is_trained = np.asarray(self._known.training.sum(axis=0)).ravel() > 0
        chosen = space_map.sample_of(semantic.covered & is_trained)
        if not len(chosen):
            raise DataError("Too few items have training interactions and an embedding.")
        vectors = {"text": semantic.take(chosen), "base": base.items[chosen], "aligned": aligned.items[chosen]}
        names = {"text": "text", "base": f"{subject.base}-{subject.seed}", "aligned": f"{subject.model}-{subject.seed}"}
        genres, tokens = self._known.genres, self._known.tokens("item")
        main = [-1] * len(chosen) if genres is None else genres.main[chosen].tolist()
        agreements = {name: space_map.agreement(vectors["text"], vectors[name]) for name in ("base", "aligned")}
        chance = min(space_map.N_NEAREST / (len(chosen) - 1), 1.0)
        return {
            "items": [tokens[item] for item in chosen.tolist()],
            "titles": self._titles(chosen),
            "genres": None if genres is None else [genres.names[number] if number >= 0 else None for number in main],
            "places": {name: self._place(names[name], each).round(2).tolist() for name, each in vectors.items()},
            "agreement": {**agreements, "chance": chance},
        }

    def _place(self, name: str, vectors: np.ndarray) -> np.ndarray:
        """Return a map of items; that of a space which was drawn for another model is not drawn again."""
        key = name, vectors.tobytes()
        if key not in self._places:
            self._places[key] = space_map.map_of(vectors)
        return self._places[key]

    def _side_by_side(self, subject: _Subject) -> dict[str, Any]:
        lists = {
            name: RankedLists.read(self._cell(model, subject.seed, ".npz"))
            for name, model in (("base", subject.base), ("aligned", subject.model))
        }
        tokens, items = self._known.tokens("user"), self._known.tokens("item")
        users = []
        for each in side_by_side.chosen_users(lists["base"], lists["aligned"]):
            user = int(lists["base"].users[each.row])
            sought = set(lists["base"].items[lists["base"].rows == each.row].tolist())
            have = self._known.training[user].indices
            shown = {name: found.lists[each.row, : side_by_side.N_SHOWN] for name, found in lists.items()}
            users.append(
                {
                    "user": tokens[user],
                    "why": each.why,
                    "ndcg": {"base": each.base, "aligned": each.aligned},
                    "items": self._titles(have[:_N_TITLES]),
                    "n_items": len(have),
                    "n_sought": len(sought),
                    "lists": {
                        name: [
                            {"item": items[item], "title": title, "hit": item in sought}
                            for item, title in zip(ids.tolist(), self._titles(ids))
                        ]
                        for name, ids in shown.items()
                    },
                }
            )
        return {"users": users, "k": lists["base"].k}


def _stored(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where there is none, or a damaged one, which is made again."""
    if not path.is_file():
        return {}
    try:
        stored = parse_json(_ILLUSTRATION.content(path))
    except (DataError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
