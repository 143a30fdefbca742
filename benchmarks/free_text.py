"""Quality: what sentences find on ml-100k, alone and mixed with a user, beside plain cosine over the texts.

    python benchmarks/free_text.py saved/LightGCN_RLMRecCon-ml-100k-....pth ... --output results/free-text

Eighteen sentences, one a genre. The share of the genre among the 20 first items says whether a sentence is understood;
mixed with a user, Recall@20 of that user's test items of the genre says whether it helps. The rule and the weight were
chosen with eighteen other sentences and with validation items (``--choosing`` prints what these say).
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_rlmrec import Recommender
from recbole_rlmrec.data.embedding_files import read_metadata
from recbole_rlmrec.data.provenance import versions
from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding
from recbole_rlmrec.encoder.text_space import TextSpace
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.layers import Projector
from recbole_rlmrec.profile.newcomers import open_text_space
from recbole_rlmrec.recommend.free_text import WEIGHT, FreeText, standardized
from recbole_rlmrec.text.load import known_items

K = 20
WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

#: Genre -> sentence, written before any result was seen.
SENTENCES = {
    "Action": "explosions, car chases and gunfights",
    "Adventure": "a quest for hidden treasure in faraway lands",
    "Animation": "a cartoon with talking animals",
    "Children's": "a story for kids and the whole family",
    "Comedy": "silly jokes that make me laugh out loud",
    "Crime": "gangsters and a bank robbery",
    "Documentary": "a true account of real people, with interviews",
    "Drama": "a serious, moving story of a family in trouble",
    "Fantasy": "wizards, dragons and magic",
    "Film-Noir": "a private detective and a femme fatale in black and white",
    "Horror": "blood, monsters and terror in the dark",
    "Musical": "musical for children, with singing and dancing",
    "Mystery": "who is the murderer? a puzzle to solve",
    "Romance": "two people who fall in love",
    "Sci-Fi": "space battles and aliens",
    "Thriller": "suspense that keeps me on the edge of my seat",
    "War": "soldiers at the front in Vietnam and World War II",
    "Western": "cowboys, sheriffs and outlaws on the frontier",
}
#: Those by which rule and weight were chosen.
CHOOSING = {
    "Action": "a hero fights against many enemies",
    "Adventure": "a dangerous journey across the sea and the jungle",
    "Animation": "animated film by Disney",
    "Children's": "something my little daughter can watch",
    "Comedy": "a funny film for a light evening",
    "Crime": "the mafia, police and corruption",
    "Documentary": "a film about history and the real world",
    "Drama": "a tragedy about loss, illness and grief",
    "Fantasy": "fairy tale creatures and spells",
    "Film-Noir": "dark city streets, betrayal and murder in the 1940s",
    "Horror": "vampires, zombies and haunted houses",
    "Musical": "songs of Broadway on the screen",
    "Mystery": "an investigation with secrets and an unexpected ending",
    "Romance": "a love story with a wedding at the end",
    "Sci-Fi": "robots and time travel in the future",
    "Thriller": "a killer hunts a woman, tense until the end",
    "War": "a battle between armies, and the men who die in it",
    "Western": "gunslingers in the old West",
}


class Projection(FreeText):
    """A rule that was not taken: the cosine, by the model's representations, between items and the projected sentence.

    Args:
        space: of the dataset's embeddings.
        embeddings: of the items.
        projector: of the model.
        ours: has the directions of the items' representations.
        alone: without the cosine between sentence and text, which is else added, both standardised.
    """

    def __init__(
        self, space: TextSpace, embeddings: JoinedEmbedding, projector: Projector, ours: FreeText, *, alone: bool
    ) -> None:
        super().__init__(space, embeddings, None)
        self._projector, self._of_items, self._alone = projector, ours._directions, alone

    def _scores(self, text: str) -> np.ndarray:
        with torch.no_grad():
            [projected] = self._projector(torch.from_numpy(self._space.vectors([text]))).numpy()
        ids = np.flatnonzero(self.covered)
        found = super()._scores(text)
        found[ids] = standardized(self._of_items[ids] @ projected) + (0 if self._alone else found[ids])
        return found


class Case:
    """A trained model, and what sentences find by it.

    Args:
        checkpoint: of a model on ml-100k.
    """

    def __init__(self, checkpoint: str) -> None:
        self.recommender = Recommender.load(checkpoint, device="cpu", config_dict={"state": "ERROR"})
        self.dataset = self.recommender.dataset
        self.embeddings = self.dataset.semantic_embedding("item")
        self.space = open_text_space(self.dataset.config)
        ours = self.recommender._free_text
        self.methods = {"ours": ours, "cosine": FreeText(self.space, self.embeddings, None)}
        projector = getattr(self.recommender.model, "text_projector", None)
        if projector is not None:
            self.methods["projection"] = Projection(self.space, self.embeddings, projector, ours, alone=True)
            self.methods["cosine and projection"] = Projection(
                self.space, self.embeddings, projector, ours, alone=False
            )
        items = known_items(self.dataset.config)
        tokens = self.dataset.field2id_token[self.dataset.iid_field]
        self.genres = {
            genre: np.array([token in items and genre in items[token].attributes.get("class", ()) for token in tokens])
            for genre in SENTENCES
        }
        self.parts = [self._matrix(part) for part in self.dataset.parts]
        users = np.arange(1, self.dataset.user_num)
        self.scores = np.zeros((self.dataset.user_num, self.dataset.item_num))
        self.scores[1:, 1:] = self.recommender._scores_of(users, np.arange(1, self.dataset.item_num))

    def _matrix(self, part: Any) -> np.ndarray:
        """Return which user has which item in a part, bool ``[users, items]``."""
        found = np.zeros((self.dataset.user_num, self.dataset.item_num), dtype=bool)
        found[tuple(part.inter_feat[field].numpy() for field in (self.dataset.uid_field, self.dataset.iid_field))] = (
            True
        )
        return found

    def shares(self, method: str, sentences: Mapping[str, str]) -> dict[str, float]:
        """Return genre -> its share among the first items for its sentence; 0 where no word is known."""
        found = {}
        for genre, sentence in sentences.items():
            if not self.space.vectors([sentence]).any():
                found[genre] = 0.0
                continue
            scores = self.methods[method].scores(sentence)
            ids = np.flatnonzero(self.embeddings.covered)
            first = ids[np.argsort(-scores[ids], kind="stable")[:K]]
            found[genre] = float(self.genres[genre][first].mean())
        return found

    def recalls(self, sentences: Mapping[str, str], weights: Sequence[float], part: int) -> dict[float, float]:
        """Return weight -> mean Recall@20 of users' items of a genre, of all users who have one and all genres.

        Args:
            sentences: by genre; those of which no word is known are left out.
            weights: of the sentence.
            part: 1 for validation, 2 for test; items of the parts before are no candidates.
        """
        seen = np.logical_or.reduce(self.parts[:part])
        found: dict[float, list[float]] = {weight: [] for weight in weights}
        for genre, sentence in sentences.items():
            if not self.space.vectors([sentence]).any():
                continue
            text = self.methods["ours"].scores(sentence)
            wanted = self.parts[part] & self.genres[genre] & self.embeddings.covered
            users = np.flatnonzero(wanted.any(axis=1))
            left = self.embeddings.covered & ~seen[users]
            of_user = _standardized(self.scores[users], left)
            of_text = _standardized(np.broadcast_to(np.nan_to_num(text), left.shape), left)
            for weight in weights:
                mixed = np.where(left, (1 - weight) * of_user + weight * of_text, -np.inf)
                first = np.argpartition(-mixed, K, axis=1)[:, :K]
                hits = np.take_along_axis(wanted[users], first, axis=1).sum(axis=1)
                found[weight] += (hits / wanted[users].sum(axis=1)).tolist()
        return {weight: float(np.mean(values)) for weight, values in found.items()}

    def result(self) -> dict[str, Any]:
        """Return what was measured."""
        folder = Path(self.embeddings.embedding.source).parent
        recalls = self.recalls(SENTENCES, (0.0, WEIGHT, 1.0), 2)
        options = (read_metadata([folder], self.dataset.dataset_name) or {}).get("options") or []
        compared = ("ours", "cosine")
        return {
            "encoder": self.space.encoder_name,
            "built_with": [each for each in options if "/" not in each],
            "model": type(self.recommender.model).__name__,
            "seed": self.dataset.config["seed"],
            "checkpoint": self.recommender.checkpoint.name,
            "share": {method: self.shares(method, SENTENCES) for method in compared},
            "recall": dict(zip(("user alone", "mixed", "text alone"), recalls.values())),
        }

    def choosing(self) -> dict[str, Any]:
        """Return what the other sentences and the validation items say."""
        return {
            "share": {method: float(np.mean([*self.shares(method, CHOOSING).values()])) for method in self.methods},
            "recall": {str(weight): value for weight, value in self.recalls(CHOOSING, WEIGHTS, 1).items()},
        }


def _standardized(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return each row less its mean and divided by its deviation, both over the chosen columns, ``[users, items]``."""
    means = values.mean(axis=1, where=chosen, keepdims=True)
    return (values - means) / values.std(axis=1, where=chosen, keepdims=True)


def main(given: Sequence[str] | None = None) -> int:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="FILE")
    parser.add_argument("--choosing", action="store_true", help="what rule and weight were chosen by, too")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of README.md and results.json")
    arguments = parser.parse_args(given)
    results = []
    for checkpoint in arguments.checkpoints:
        case = Case(checkpoint)
        results.append({**case.result(), **({"choosing": case.choosing()} if arguments.choosing else {})})
    words = [Path(checkpoint).name for checkpoint in arguments.checkpoints]
    words += ["--choosing"] if arguments.choosing else []
    record = {
        "command": shlex.join(["python", "benchmarks/free_text.py", *words]),
        "date": date.today().isoformat(),
        "versions": versions(),
        "weight": WEIGHT,
        "results": results,
    }
    text = report(record)
    print(text)
    if arguments.output is not None:
        for name, content in (("README.md", text), ("results.json", json.dumps(record, indent=1) + "\n")):
            with atomic_path(arguments.output / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
    return 0


def _row(number: int, values: Iterable[float]) -> str:
    return f"| {number} | {' | '.join(f'{value:.4f}' for value in values)} |"


def report(record: Mapping[str, Any]) -> str:
    """Return the tables as Markdown."""
    results = record["results"]
    lines = [
        "# Free text on ml-100k",
        "",
        f"`{record['command']}`, {record['date']}; "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "",
        "Eighteen sentences, one a genre (`benchmarks/free_text.py` lists them); a sentence of which no word is known "
        "has the share 0. The rule and the weight were chosen with eighteen others and with validation items. Where "
        "`built with` has only the release year as an attribute, no genre stands in the texts. Embeddings were made by "
        "`recbole-rlmrec build-semantics --dataset ml-100k --data_path=DATA` with these options, models by "
        "`python run_recbole_rlmrec.py --model=LightGCN_RLMRecCon --dataset=ml-100k --data_path=DATA --seed=SEED`.",
        "",
        "| case | encoder | built with | model, seed | checkpoint |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {each['encoder']} | `{' '.join(each['built_with'])}` | {each['model']}, {each['seed']} "
        f"| {each['checkpoint']} |"
        for number, each in enumerate(results, start=1)
    ]
    lines += ["", "## Share of the genre among the first 20 items", ""]
    heads = [f"{number}: {method}" for number, each in enumerate(results, start=1) for method in each["share"]]
    lines += [f"| genre | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    columns = [shares for each in results for shares in each["share"].values()]
    lines += [f"| {genre} | {' | '.join(f'{shares[genre]:.2f}' for shares in columns)} |" for genre in SENTENCES]
    lines.append(f"| mean | {' | '.join(f'{np.mean([*shares.values()]):.3f}' for shares in columns)} |")
    lines += [
        "",
        f"## Recall@20 of users' test items of the genre (weight of the sentence {record['weight']})",
        "",
        "| case | user alone | mixed | text alone |",
        "|---|---:|---:|---:|",
    ]
    lines += [_row(number, each["recall"].values()) for number, each in enumerate(results, start=1)]
    if all("choosing" in each for each in results):
        methods, weights = (list(results[0]["choosing"][name]) for name in ("share", "recall"))
        lines += [
            "",
            "## What rule and weight were chosen by: other sentences, validation items",
            "",
            "`projection` is the cosine between the projected sentence and the items' representations, alone or added "
            "to the cosine of the texts, both standardised.",
            "",
            f"| case | {' | '.join(f'share: {method}' for method in methods)} |",
            "|---|" + "---:|" * len(methods),
        ]
        shares = [each["choosing"]["share"].values() for each in results]
        recalls = [each["choosing"]["recall"].values() for each in results]
        lines += [_row(number, values) for number, values in enumerate(shares, start=1)]
        lines += ["", f"| case | {' | '.join(f'recall at {weight}' for weight in weights)} |"]
        lines += ["|---|" + "---:|" * len(weights)]
        lines += [_row(number, values) for number, values in enumerate(recalls, start=1)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
