"""Template profiles, word for word, and the choice of what a user likes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recbole_rlmrec.profile.prompt import PromptSettings, canonical_sha256
from recbole_rlmrec.profile.template import (
    TemplateWriter,
    describe_item,
    describe_user,
    first_sentences,
    natural_title,
)
from recbole_rlmrec.text.corpus import Corpus, Item, Review


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
            ("Toy Story", {"Release year": ["1995"], "Genres": ["Animation", "Comedy"]}, ""),
            "Toy Story. Release year: 1995. Genres: Animation, Comedy.",
        ),
        (("Airplane!", {}, "Funny? Yes."), "Airplane! Funny? Yes."),
        (("", {"Publisher": ["Valve Inc."]}, ""), "Publisher: Valve Inc."),
        (("", {"Tags": [str(number) for number in range(12)]}, ""), "Tags: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9."),
        (("Dune", {}, "Sand. " * 100), "Dune. " + " ".join(["Sand."] * 66)),  # 400 characters have room for 66
    ],
)
def test_describe_item(arguments: tuple[Any, ...], text: str) -> None:
    assert describe_item(*arguments) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ({"Age": ["24"]}, {"Genres": ["Drama", "War"], "TV rating": ["M"]}, ["Fargo", "Good, Bad"], []),
            "Favourite genres: Drama, War. Favourite TV rating: M. Liked best: Fargo; Good, Bad. Age: 24.",
        ),
        (({}, {}, [], ["Fargo"]), "Chose: Fargo."),
        (({"Age": ["24"]}, {}, [], []), "Age: 24."),
    ],
)
def test_describe_user(arguments: tuple[Any, ...], text: str) -> None:
    assert describe_user(*arguments) == text


@pytest.mark.parametrize(
    ("text", "limit", "start"),
    [
        ("One. Two. Three.", 16, "One. Two. Three."),
        ("One. Two. Three.", 15, "One. Two."),
        ("One. Two. Three.", 9, "One. Two."),
        ("One. Two. Three.", 8, "One."),
        ("One. Two. Three.", 3, "On…"),
        ("a longer sentence without end", 12, "a longer…"),
        ("a longer sentence without end", 9, "a longer…"),
        ("三体。很好。看", 6, "三体。很好。"),
        ("", 5, ""),
    ],
)
def test_first_sentences(text: str, limit: int, start: str) -> None:
    assert first_sentences(text, limit) == start
    assert len(start) <= limit


MOVIES = {
    "a": Item("a", "Usual Suspects, The", "", {"release_year": ("1995",), "class": ("Crime", "Thriller")}),
    "b": Item("b", "unkonwn", "", {"release_year": ("unkonwn",), "class": ("unknown",)}),
    "c": Item("c", "Heat", "", {"release_year": ("1991",), "class": ("Crime",), "price": ("9.99",)}),
    "d": Item("d", "Alien", "", {"release_year": ("1979",)}),
}
TRAINING = (
    Review("u", "a", "", 3.0),
    Review("u", "c", "", 5.0),
    Review("u", "d", "", 1.0),
    Review("v", "c"),
    Review("v", "d"),
    Review("w", "b", "", 5.0),
    Review("y", "c"),
)
USERS = {
    "u": {"age": ("24",), "occupation": ("other",)},
    "v": {},
    "w": {},
    "x": {"age": ("30",)},
    "y": {},
}
CORPUS = Corpus("tiny", MOVIES, USERS, TRAINING, frozenset([("x", "a")]), "split")


def test_the_writer_writes_items() -> None:
    profiles, without = TemplateWriter().item_profiles(CORPUS, PromptSettings(domain="movies"))
    assert {profile.token: profile.profile for profile in profiles} == {
        # Of its genres the rarer one first; of its only user, nothing is said.
        "a": "The Usual Suspects. Release year: 1995. Genres: Thriller, Crime.",
        "c": "Heat. Release year: 1991. Genres: Crime. Price: 9.99. Favourite release year of its users: 1970s. "
        "Its users also chose: Alien.",
        "d": "Alien. Release year: 1979. Favourite release year of its users: 1990s. Favourite genres of its users: "
        "Crime. Its users also chose: Heat.",
    }
    assert without == {"b": "no title, description or attribute"}
    inputs = {
        **{"title": "Alien", "attributes": {"Release year": ["1979"]}, "description": ""},
        "audience_favourites": {"Release year": ["1990s"], "Genres": ["Crime"]},
        "audience_titles": ["Heat"],
    }
    assert profiles[2].prompt_sha256 == canonical_sha256(inputs)
    assert {(profile.writer, profile.train_sha256, profile.interacted, profile.reasoning) for profile in profiles} == {
        ("template", "split", (), "")
    }
    assert [(profile.version, profile.sums) for profile in profiles] == [(2, False), (2, True), (2, True)]
    general, _ = TemplateWriter().item_profiles(CORPUS, PromptSettings())
    assert general[0].profile == "Usual Suspects, The. Release year: 1995. Class: Thriller, Crime."


def test_the_writer_writes_users_from_training_interactions() -> None:
    profiles, without = TemplateWriter().user_profiles(CORPUS, PromptSettings(domain="movies"))
    texts = {profile.token: profile.profile for profile in profiles}
    # Of 1, 3 and 5 stars, 1 is below the median; prices are not counted, years by decade. Of seven interactions four
    # are of the 1990s and of crime, two of the 1970s, one a thriller. Of u's three, two, two, one and one are:
    # (2 + 5) / (12/7 + 5) = 1.043, the same, (1 + 5) / (6/7 + 5) = 1.024 and (1 + 5) / (3/7 + 5) = 1.105.
    decades = "Favourite release year: 1990s, 1970s."
    assert texts["u"] == f"{decades} Favourite genres: Thriller, Crime. Liked best: Heat; The Usual Suspects. Age: 24."
    # Without ratings, what popularity explains least comes first: Alien has two interactions, Heat three. v's crime is
    # below what to expect, (1 + 5) / (8/7 + 5).
    assert texts["v"] == "Favourite release year: 1970s. Chose: Alien; Heat."
    assert {profile.token: profile.interacted for profile in profiles} == {
        "u": ("a", "c", "d"),
        "v": ("c", "d"),
        "y": ("c",),
    }
    assert without == {
        "w": "no attribute of the user, and no title or attribute of a training item",
        "x": "no training interaction",
    }


@pytest.mark.parametrize(
    ("ratings", "listed"),
    [
        ([1.0, 2.0, 2.0], "Chose"),  # nothing below the middle of the scale is liked, whatever the user's own
        ([1.0, 2.0, 5.0], "Liked best: C"),
        ([4.0, 4.0, 5.0], "Liked best: C; A; B"),
        ([float("nan"), None, 4.0], "Liked best: C"),
        ([None, None, None], "Chose: A; B; C"),
    ],
)
def test_what_was_rated_low_is_never_called_liked(ratings: list[Any], listed: str) -> None:
    items = {token: Item(token, token.upper()) for token in "abcz"}
    training = [Review("u", token, "", rating) for token, rating in zip("abc", ratings)]
    training += [Review("v", token, "", rating) for token, rating in zip("abcz", (1.0, 5.0, 3.0, 1.0))]
    corpus = Corpus("tiny", items, {"u": {}, "v": {}}, tuple(training), frozenset(), "split")
    text = TemplateWriter().user_profiles(corpus, PromptSettings())[0][0].profile
    assert listed in text and text.count("Liked") == listed.count("Liked")


def test_the_titles_that_popularity_explains_least_come_first() -> None:
    tokens = ["hit", *(f"t{number:02}" for number in range(11)), "only"]
    popularity = {"hit": 9, "only": 1, **{f"t{number:02}": 2 + number // 2 for number in range(11)}}
    training = [Review(f"u{user}", token) for token in tokens for user in range(popularity[token])]
    users: dict[str, dict[str, tuple[str, ...]]] = {f"u{user}": {} for user in range(9)}
    corpus = Corpus("tiny", {t: Item(t, t.upper()) for t in tokens}, users, tuple(training), frozenset(), "split")
    text = TemplateWriter().user_profiles(corpus, PromptSettings())[0][0].profile
    # Ten at most; what nobody else chose relates the user to nobody.
    assert text == "Chose: " + "; ".join(f"T{number:02}" for number in range(10)) + "."


def test_users_of_whom_nothing_sticks_out_still_get_a_profile() -> None:
    items = {token: Item(token, "", "", {"kind": ("new",)}) for token in "ab"}
    training = (Review("u", "a"), Review("v", "b"))
    corpus = Corpus("tiny", items, {"u": {}, "v": {}}, training, frozenset(), "split")
    profiles, without = TemplateWriter().user_profiles(corpus, PromptSettings())
    assert [profile.profile for profile in profiles] == ["Favourite kind: new."] * 2 and not without


def test_held_out_interactions_change_no_profile() -> None:
    writer, settings = TemplateWriter(), PromptSettings(domain="movies")
    other = replace(CORPUS, held_out=frozenset([("v", "a"), ("y", "d"), ("y", "a")]))
    leaking = replace(CORPUS, training=(*CORPUS.training, Review("y", "d"), Review("y", "a")))
    for write in (writer.user_profiles, writer.item_profiles):
        assert write(other, settings) == write(CORPUS, settings)
        assert write(leaking, settings) != write(CORPUS, settings)  # this would show


def test_the_writer_does_not_depend_on_an_order() -> None:
    backwards = Corpus(
        "tiny",
        dict(reversed(list(MOVIES.items()))),
        dict(reversed(list(USERS.items()))),
        TRAINING,
        frozenset(),
        "split",
    )
    writer, settings = TemplateWriter(), PromptSettings(domain="movies")
    assert writer.user_profiles(backwards, settings) == writer.user_profiles(CORPUS, settings)
    assert writer.item_profiles(backwards, settings) == writer.item_profiles(CORPUS, settings)
