"""Template profiles, word for word, and the choice of what a user likes."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_rlmrec.profile.template import (
    choose_liked_genres,
    choose_liked_items,
    item_profile,
    natural_title,
    user_profile,
)


@pytest.mark.parametrize(
    ("title", "natural"),
    [
        ("Toy Story", "Toy Story"),
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Close Shave, A", "A Close Shave"),
        ("American in Paris, An", "An American in Paris"),
        ("Boot, Das", "Das Boot"),
        ("Blue Angel, The (Blaue Engel, Der)", "The Blue Angel (Der Blaue Engel)"),
        ("Star Maker, The (Uomo delle stelle, L')", "The Star Maker (L'Uomo delle stelle)"),
        ("Hate (Haine, La)", "Hate (La Haine)"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Maybe, Maybe Not (Bewegte Mann, Der)", "Maybe, Maybe Not (Der Bewegte Mann)"),
        ("Corrina, Corrina", "Corrina, Corrina"),
        ("Paris, Texas", "Paris, Texas"),
        ("Theodore, Theatre", "Theodore, Theatre"),
        ("  Heat ", "Heat"),
        ("", ""),
    ],
)
def test_natural_title(title: str, natural: str) -> None:
    assert natural_title(title) == natural
    assert natural_title(natural) == natural


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
            "Toy Story (1995) is a movie. Genres: Animation, Children's, Comedy.",
        ),
        (("Toy Story", 1995, []), "Toy Story (1995) is a movie."),
        (("Toy Story", None, ["Comedy"]), "Toy Story is a movie. Genres: Comedy."),
        (("Toy Story", "", []), "Toy Story is a movie."),
        (("", 1995, ["Comedy"]), "An unnamed movie of 1995. Genres: Comedy."),
        (("", None, []), "An unnamed movie."),
    ],
)
def test_item_profile(arguments: tuple[Any, ...], text: str) -> None:
    assert item_profile(*arguments) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (24, "technician", ["Fargo", "The Usual Suspects"], ["Drama", "Comedy"]),
            "A user aged 24, occupation: technician. Favourite genres: Drama, Comedy. "
            "Liked movies: Fargo; The Usual Suspects.",
        ),
        (("24", None, ["Fargo"], []), "A user aged 24. Liked movies: Fargo."),
        ((None, "artist", [], ["Drama"]), "A user, occupation: artist. Favourite genres: Drama."),
        (("", "", [], []), "A user."),
    ],
)
def test_user_profile(arguments: tuple[Any, ...], text: str) -> None:
    assert user_profile(*arguments) == text


def test_liked_items_are_ordered_by_rating_popularity_title_and_token() -> None:
    ratings = {"e": 4.0, "d": 5.0, "c": 5.0, "b": 5.0, "a": 5.0, "f": 5.0}
    popularity = {"a": 1, "b": 2, "c": 2, "d": 2, "e": 9, "f": 3}
    titles = {"a": "A", "b": "Same", "c": "Same", "d": "First", "e": "E", "f": "Z"}
    assert choose_liked_items(ratings, popularity, titles) == ["f", "d", "b", "c", "a", "e"]
    assert choose_liked_items(ratings, popularity, titles, limit=2) == ["f", "d"]


def test_ten_items_at_most() -> None:
    tokens = [f"{number:02}" for number in range(12)]
    chosen = choose_liked_items(dict.fromkeys(tokens, 3.0), dict.fromkeys(tokens, 1), dict(zip(tokens, tokens)))
    assert chosen == tokens[:10]


def test_liked_genres_are_ordered_by_count_and_name() -> None:
    genres = [["Drama", "War"], ["Drama", "Comedy"], ["War", "Action"], ["Crime"], ["Romance", "Western"], []]
    assert choose_liked_genres(genres) == ["Drama", "War", "Action", "Comedy", "Crime"]
    assert choose_liked_genres(genres, limit=1) == ["Drama"]
    assert choose_liked_genres([]) == []
