"""The check's numbers, counted by hand, and the leaks it finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.check import embeddings
from recbole_rlmrec.check import report as check_module
from recbole_rlmrec.check.report import CheckReport, check, check_corpus
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data import semantic_embedding
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.prompt import Prompt, Prompts, PromptSettings
from recbole_rlmrec.profile.record import Failure, Profile, write_failures, write_profiles
from recbole_rlmrec.profile.template import TemplateWriter
from recbole_rlmrec.text.corpus import Corpus, Item, Review
from recbole_rlmrec.text.load import load_corpus

SETTINGS = PromptSettings(domain="movies")
ITEMS = [Item("a", "Toy Story"), Item("b", "Star Wars, The"), Item("c", "Up"), Item("d", "Star Wars, The 2"), Item("e")]
TRAINING = (Review("u", "a"), Review("u", "d"), Review("v", "a"), Review("w", "b"))
CORPUS = Corpus(
    dataset="tiny",
    items={item.token: item for item in ITEMS},
    users={token: {} for token in "uvwx"},
    training=TRAINING,
    held_out=frozenset([("u", "b"), ("u", "c"), ("v", "b")]),
    train_sha256="now",
)


def user(token: str, text: str = "Likes toys.", **values: Any) -> Profile:
    return replace(Profile(token, text, "", "llm:m", "p", "now"), **values)


def checked(
    folder: Path, users: list[Profile], items: tuple[Profile, ...] = (), corpus: Corpus = CORPUS
) -> CheckReport:
    write_profiles(folder / "tiny.userprf.jsonl", users)
    if items:
        write_profiles(folder / "tiny.itemprf.jsonl", items)
    return check_corpus(corpus, [folder], SETTINGS)


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to check.*recbole-rlmrec build-semantics --dataset tiny"):
        check_corpus(CORPUS, [tmp_path], SETTINGS)


def test_profiles_are_counted(tmp_path: Path) -> None:
    failures = [Failure("w", "p", "llm:m", "no JSON", 3), Failure("x", "p", "llm:m", "no JSON", 3)]
    write_failures(tmp_path / "tiny.userprf.failed.jsonl", failures)
    profiles = [user("u", "Likes  toys."), user("v", "one two three four"), user("x", " "), user("z", "Likes toys.")]
    report = checked(tmp_path, [user("u", "older"), *profiles[:3], replace(profiles[3], writer="template")])
    users, items = report.profiles
    assert (users.ids, users.holes, users.strangers, users.empty) == (4, ("w", "x"), ("z",), ("x",))
    assert (users.words, users.identical, dict(users.writers)) == ((2, 4, 2), 0, {"llm:m": 3, "template": 1})
    assert items.path is None and str(items) == "item profiles: none"
    assert str(users).splitlines()[1:] == [
        "  coverage: 2 of 4 (50.0 %)",
        "  without a profile: 2, such as w, x",
        "  failed: 2; the next run of build-semantics tries them again",
        "    2: no JSON",
        "  empty profiles: 1, such as x",
        "  profiles of ids that the dataset does not have: 1, such as z",
        "  writers: llm:m (3), template (1)",
        "  4 by an older prompt or template; they stay valid, and build-semantics --rewrite-older --overwrite writes "
        "them and their embeddings again",
        "  length in words: 2 to 4, median 2",
    ]
    assert not report.has_leak and str(report).endswith("verdict: no leak found.")


def test_only_profiles_by_an_older_prompt_are_named_so(tmp_path: Path) -> None:
    now = [user("u", version=2), user("v", version=2, writer="template"), user("w", writer="another's")]
    assert checked(tmp_path, now).profiles[0].older == 0
    report = checked(tmp_path, [*now[:2], user("w")])
    assert report.profiles[0].older == 1 and not report.has_leak


def test_identical_profiles(tmp_path: Path) -> None:
    users = checked(tmp_path, [user("u", "Same."), user("v", "Same. "), user("w", "Other.")]).profiles[0]
    assert users.identical == 2 and "2 profiles have the text of another" in str(users)


def test_held_out_interactions_in_profiles_are_a_leak(tmp_path: Path) -> None:
    items = (Profile("a", "x", "", "llm:m", "p", "now", ("u", "v")), Profile("b", "x", "", "llm:m", "p", "now", ("v",)))
    report = checked(tmp_path, [user("u", interacted=("a", "b", "e")), user("v", interacted=("a",))], items)
    # (u, a) and (v, a) are used on both sides.
    assert report.leaks.used == 5
    assert report.leaks.used_held_out == (("u", "b"), ("v", "b"))
    assert report.leaks.used_unknown == (("u", "e"),)
    assert report.has_leak
    verdict = "verdict: LEAK. 2 held-out interactions used in profiles; write the profiles again, with build-semantics "
    assert f"{verdict}--overwrite" in str(report)


def test_training_interactions_in_profiles_are_no_leak(tmp_path: Path) -> None:
    report = checked(tmp_path, [user("u", interacted=("a", "d")), user("v", interacted=("a",))])
    assert (report.leaks.used, report.leaks.used_held_out, report.leaks.used_unknown) == (3, (), ())
    assert not report.has_leak


def test_the_prompts_of_now_are_looked_at(tmp_path: Path) -> None:
    assert checked(tmp_path, [user("u")]).leaks.prompts == 7  # four items with a title, three users with one

    class Careless(Prompts):
        def of_users(self, item_profiles: Mapping[str, str]) -> Any:
            prompts, without = super().of_users(item_profiles)
            return [*prompts, Prompt("user", "u", "", "", ("a", "c"))], without

    report = check_corpus(CORPUS, [tmp_path], SETTINGS, prompts=Careless(CORPUS, SETTINGS))
    assert report.leaks.prompts_held_out == (("u", "c"),) and report.has_leak


def test_profiles_of_another_split_are_suspected_unless_their_record_clears_them(tmp_path: Path) -> None:
    old = {"train_sha256": "old"}
    silent = checked(tmp_path, [user("u", **old), user("v", **old), user("w")])
    assert silent.leaks.other_split == (
        "2 user profiles written from another training split, may show held-out interactions",
    )
    assert silent.has_leak and "verdict: SUSPECTED LEAK" in str(silent)

    sums = Profile("a", "x", "", "template", "p", "old", version=2, sums=True)  # whatever it is recorded to be from
    assert checked(tmp_path, [user("w")], (sums,)).has_leak

    item = Profile("a", "x", "", "llm:m", "p", "old")
    cleared = checked(tmp_path, [user("u", interacted=("a",), **old), user("w")], (item,))
    assert cleared.leaks.other_split == () and not cleared.has_leak
    assert [sentence.split(" written")[0] for sentence in cleared.leaks.harmless_split] == [
        "1 user profile",
        "1 item profile",
    ]
    proven = checked(tmp_path, [user("u", interacted=("a", "b"), **old)], (item,))
    assert proven.has_leak and len(proven.leaks.other_split) == 1 and "verdict: LEAK" in str(proven)


def test_profiles_without_any_record_are_unknown_not_suspected(tmp_path: Path) -> None:
    """Those that RLMRec released have no hash."""
    bare = {"train_sha256": ""}
    report = checked(tmp_path, [user("u", **bare), user("v")], (Profile("a", "x", "", "", "", ""),))
    assert report.leaks.unknown == ("user", "item") and report.leaks.other_split == () and not report.has_leak
    assert "verdict: unknown: nothing recorded says what the user and item embeddings or their profiles" in str(report)
    known = checked(
        tmp_path, [user("u", interacted=("a",), **bare), user("v")], (Profile("a", "x", "", "", "", "now"),)
    )
    assert known.leaks.unknown == () and "no leak found" in str(known)
    assert checked(tmp_path, [user("u", interacted=("b",), **bare)]).has_leak
    embed_both(tmp_path, train_sha256="now")
    assert checked(tmp_path, [user("u", **bare)]).leaks.unknown == ()


def test_titles_of_held_out_items_are_a_hint(tmp_path: Path) -> None:
    texts = {
        "u": "Liked The Star Wars 2 and Up.",  # The Star Wars inside a training title; Up is too short
        "v": "Would like The Star Wars!",
        "w": "The Star Wars and Toy Story.",  # nothing of w is held out
        "z": "Star Wars, The",  # nobody knows z
    }
    items = {**CORPUS.items, "d": Item("d", "The Star Wars 2")}
    report = checked(
        tmp_path, [user(token, text) for token, text in texts.items()], corpus=replace(CORPUS, items=items)
    )
    assert report.leaks.mentions == {"v": ("The Star Wars",)}
    assert not report.has_leak
    assert "hint: 1 user profile with the title of a held-out item" in str(report)
    assert "    user v: The Star Wars\n" in str(report)


@pytest.mark.parametrize(
    ("text", "found"),
    [("Star Wars, The end", True), ("The Star Warship", False), ("the star wars", False), ("MyThe Star Wars", False)],
)
def test_titles_are_found_word_for_word(tmp_path: Path, text: str, found: bool) -> None:
    assert bool(checked(tmp_path, [user("v", text)]).leaks.mentions) == found


def embed(folder: Path, side: semantic_embedding.Side, vectors: dict[str, Any], **recorded: Any) -> None:
    SemanticEmbedding.from_arrays(list(vectors), np.array(list(vectors.values()), np.float16), side).save(
        folder, "tiny", side
    )
    (folder / "tiny.semantic.json").write_text(json.dumps(recorded))


def test_embeddings_are_described(tmp_path: Path) -> None:
    vectors = {"e": [0, 3, 0], "a": [1, 0, 0], "b": [1, 1, 0], "c": [0, 0, 0], "stranger": [9, 9, 9]}
    embed(tmp_path, "item", vectors, encoder="an encoder", train_sha256="now")
    report = check_corpus(CORPUS, [tmp_path / "none", tmp_path], SETTINGS)
    assert str(report.embeddings[0]) == "user embeddings: none"
    items = report.embeddings[1]
    assert (items.ids, items.holes, items.zeros, items.dimension, items.dtype) == (5, ("c", "d"), 1, 3, "float16")
    assert items.encoder == "an encoder"
    # a and b, b and e: the root of a half; a and e: 0.
    assert items.mean_cosine == pytest.approx(2 * 0.5**0.5 / 3)
    nearest = {query: [(label, round(cosine, 3)) for label, cosine in found] for query, found in items.neighbours}
    a, b = "a (Toy Story)", "b (Star Wars, The)"
    assert list(nearest)[:2] == [a, b]  # by popularity, then by token
    assert nearest == {a: [(b, 0.707), ("e", 0.0)], b: [(a, 0.707), ("e", 0.707)], "e": [(b, 0.707), (a, 0.0)]}
    assert "hardly" not in str(items) and not report.has_leak


def test_neighbours_and_mean_cosine_are_those_of_the_slow_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    tokens = [f"i{number:02}" for number in range(40)]
    table = dict(zip(tokens, rng.normal(size=(40, 5)) + 1))
    training = tuple(Review(f"u{number}", tokens[number % 7]) for number in range(30))
    corpus = replace(CORPUS, items={token: Item(token) for token in tokens}, training=training, held_out=frozenset())
    embed(tmp_path, "item", dict(reversed(list(table.items()))))
    reports = []
    for block in (1, 64, 1 << 20):
        monkeypatch.setattr(embeddings, "BLOCK_BYTES", block)
        reports.append(check_corpus(corpus, [tmp_path], SETTINGS).embeddings[1])
    unit = np.array([table[token] for token in tokens], np.float16).astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    for report in reports:
        assert report.mean_cosine == pytest.approx(cosines[~np.eye(40, dtype=bool)].mean(), abs=1e-6)
        queries = [query for query, _ in report.neighbours]
        assert queries[:3] == ["i00", "i01", "i02"] and len(set(queries)) == 5  # 30 interactions of 7 items: 5, 5, 4...
        for query, found in report.neighbours:
            row = cosines[tokens.index(query)].copy()
            row[tokens.index(query)] = -2
            order = np.argsort(-row)[:3]
            assert [label for label, _ in found] == [tokens[column] for column in order]
            assert [cosine for _, cosine in found] == pytest.approx(row[order], abs=1e-6)


def test_a_collapsed_encoder_shows(tmp_path: Path) -> None:
    embed(tmp_path, "item", {"a": [1, 0.1], "b": [1, 0.2], "c": [1, 0]})
    assert "hardly distinguishes them" in str(check_corpus(CORPUS, [tmp_path], SETTINGS))


def test_one_vector_has_no_neighbour(tmp_path: Path) -> None:
    embed(tmp_path, "item", {"a": [1, 0.1]})
    items = check_corpus(CORPUS, [tmp_path], SETTINGS).embeddings[1]
    assert items.mean_cosine is None and items.neighbours == (("a (Toy Story)", ()),)


def test_embeddings_of_another_split_are_suspected(tmp_path: Path) -> None:
    embed(tmp_path, "item", {"a": [1, 0.1], "b": [0, 1]}, train_sha256="0123456789abcdef")
    report = check_corpus(CORPUS, [tmp_path], SETTINGS)
    assert report.has_leak and "tiny.semantic.json says that the embeddings" in str(report)
    assert "(0123456789ab... instead of now...)" in str(report)


@pytest.mark.parametrize("split", ["0123456789abcdef", "now"])
def test_an_encoder_tuned_on_another_split_is_suspected(tmp_path: Path, split: str) -> None:
    embed(tmp_path, "item", {"a": [1, 0.1], "b": [0, 1]}, train_sha256="now", encoder_train_sha256=split)
    report = check_corpus(CORPUS, [tmp_path], SETTINGS)
    assert report.has_leak is (split != "now")
    said = "says that the embeddings' encoder was tuned on another training split (0123456789ab... instead of now...)"
    assert (said in str(report)) is report.has_leak


@pytest.mark.parametrize("broken", ["half", "strangers", "metadata", "dimensions"])
def test_embeddings_that_cannot_be_used_are_reported_and_the_rest_is_checked(tmp_path: Path, broken: str) -> None:
    embed(tmp_path, "user", {"u": [1, 0], "v": [0, 1]})
    embed(tmp_path, "item", {"no": [1, 0]} if broken == "strangers" else {"a": [1, 0, 1]}, dimension=None)
    if broken == "half":
        (tmp_path / "tiny.itememb.tokens").unlink()
    if broken == "metadata":
        (tmp_path / "tiny.semantic.json").write_text('{"dimension": 7}')
    report = checked(tmp_path, [user("u")])
    message = {
        "half": "holds tiny.itememb.npy but not tiny.itememb.tokens",
        "strangers": "item",
        "metadata": "says dimension 7",
        "dimensions": "the two sides differ in dimension",
    }[broken]
    assert message in report.embeddings[1].problem
    assert str(report.embeddings[1]).startswith("item embeddings cannot be used: ")
    assert report.profiles[0].ids == 4


def test_movielens_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = RLMRecConfig("LightGCN", "ml-100k", config_dict={"show_progress": False})
    corpus = load_corpus(config)
    monkeypatch.setattr(check_module, "load_corpus", lambda _: corpus)
    writer = TemplateWriter()
    (items, without), (users, _) = writer.item_profiles(corpus, SETTINGS), writer.user_profiles(corpus, SETTINGS)
    assert list(without) == ["267"] and len(users) == 943
    assert all(0 < len(profile.profile.split()) < 100 for profile in users + items)

    report = check(config)
    assert [found.ids for found in report.embeddings] == [943, 1682] and not report.has_leak
    assert [found.holes for found in report.embeddings] == [(), ("267",)]
    assert all(found.dimension == 256 for found in report.embeddings)

    wrong = min(item for user_token, item in corpus.held_out if user_token == users[0].token)
    write_profiles(tmp_path / "ml-100k.itemprf.jsonl", items)
    write_profiles(
        tmp_path / "ml-100k.userprf.jsonl", [replace(users[0], interacted=(*users[0].interacted, wrong)), *users[1:]]
    )
    report = check_corpus(corpus, [tmp_path], SETTINGS)
    assert (report.leaks.used, report.leaks.used_unknown) == (60_001, ())
    assert report.leaks.used_held_out == ((users[0].token, wrong),)
    assert report.leaks.mentions == {} and report.leaks.prompts == 943 + 1681
    assert "verdict: LEAK. 1 held-out interaction used in profiles" in str(report)


# ---------------------------------------------------------------------- what is judged, and by which record


def embed_both(folder: Path, users: str = "uvw", items: str = "abd", **recorded: Any) -> None:
    embed(folder, "user", {token: [1, number] for number, token in enumerate(users)}, **recorded)
    embed(folder, "item", {token: [1, number] for number, token in enumerate(items)}, **recorded)


def item(token: str, **values: Any) -> Profile:
    return replace(Profile(token, f"About {token}.", "", "llm:m", "p", "now"), **values)


@pytest.mark.parametrize("embedded", [True, False])
def test_profiles_that_nothing_uses_raise_no_verdict(tmp_path: Path, embedded: bool) -> None:
    old: dict[str, Any] = {"train_sha256": "old"}
    left = [user("z", interacted=("a", "c"), **old)]  # no id of the dataset
    if embedded:
        embed_both(tmp_path, train_sha256="now")
        left += [user("x", "Saw The Star Wars.", interacted=("b",), **old)]  # no vector
    corpus = replace(CORPUS, held_out=CORPUS.held_out | {("x", "b")})
    users = [user("u", interacted=("a",)), user("v"), user("w")]
    report = checked(tmp_path, [*users, *left], (item("a"), item("e", interacted=("q",), **old)), corpus)
    assert report.leaks.unused == {
        "user": ("x", "z") if embedded else ("z",),
        "item": ("e",) if embedded else (),
    }
    wanted = "2 user profiles are not used: " if embedded else "1 user profile is not used: "
    assert f"  {wanted}no vector, or not in the dataset, such as {'x, z' if embedded else 'z'}\n" in str(report)
    assert report.leaks.used_held_out == () and report.leaks.mentions == {}
    assert report.leaks.used == (1 if embedded else 2)
    assert bool(report.leaks.other_split) != embedded  # without embeddings the item e may be used
    assert report.has_leak != embedded


def test_profiles_that_are_used_are_judged(tmp_path: Path) -> None:
    embed_both(tmp_path, users="ux", train_sha256="now")
    report = checked(tmp_path, [user("u", interacted=("b",)), user("v", interacted=("b",))])
    assert report.leaks.used_held_out == (("u", "b"),) and report.has_leak


def test_embeddings_without_any_record_are_unknown(tmp_path: Path) -> None:
    embed_both(tmp_path)
    for name in ("absent", "empty"):
        report = check_corpus(CORPUS, [tmp_path], SETTINGS)
        assert report.leaks.unknown == ("user", "item") and not report.has_leak
        assert "verdict: unknown: nothing recorded says what the user and item embeddings or their" in str(report)
        assert "no leak found" not in str(report)
        (tmp_path / "tiny.semantic.json").unlink(missing_ok=name == "empty")


def test_a_record_or_a_profile_of_each_vector_says_what_embeddings_were_made_from(tmp_path: Path) -> None:
    embed_both(tmp_path)
    some = checked(tmp_path, [user("u"), user("v"), user("w")], (item("a"), item("b")))
    assert some.leaks.unknown == ("item",)
    everyone = checked(tmp_path, [user("u"), user("v"), user("w")], (item("a"), item("b"), item("d")))
    assert everyone.leaks.unknown == () and "no leak found" in str(everyone)
    embed_both(tmp_path, train_sha256="now")
    (tmp_path / "tiny.userprf.jsonl").unlink()
    (tmp_path / "tiny.itemprf.jsonl").unlink()
    recorded = check_corpus(CORPUS, [tmp_path], SETTINGS)
    assert recorded.leaks.unknown == () and "no leak found" in str(recorded)


def written(*profiles: Profile) -> str:
    """Return the hash of these lines, by hand."""
    keys = ("token", "profile", "reasoning", "writer", "prompt_sha256", "train_sha256")
    lines = ""
    for profile in profiles:
        record = {key: getattr(profile, key) for key in keys}
        if profile.interacted:
            record["told"] = profile.interacted
        lines += json.dumps(record, ensure_ascii=False) + "\n"
    return hashlib.sha256(lines.encode()).hexdigest()


W, V, U = user("w", "W."), user("v", "Vé.", interacted=("a",)), user("u", "U.")
B, A, D = item("b"), item("a"), item("d")
STALE = "the embeddings were made from other profiles than these; run build-semantics"


def digests(folder: Path, *profiles: Profile) -> None:
    """Write which text each row of ``embed_both``'s tables is of, by hand; rows are in the order of the ids."""
    for side, tokens in (("user", "uvw"), ("item", "abd")):
        text_of = {profile.token: profile.profile for profile in profiles}
        content = b""
        for number, token in enumerate(tokens):
            made = {"encoder": "e", "normalized": True, "dtype": "float16", "text": text_of[token]}
            line = json.dumps(made, ensure_ascii=False) + "\n"
            row = np.array([1, number], np.float16).tobytes()
            content += hashlib.blake2b(line.encode() + row, digest_size=8).digest()
        (folder / f".tiny.{side}emb.texts").write_bytes(content)


MADE = {"writer": "llm:m", "encoder": "e", "normalized": True, "train_sha256": "now"}


@pytest.mark.parametrize(
    "more",
    [
        (),
        (user("z"),),  # no id of the dataset
        (user("x"),),  # no vector
        (user("x"), user("z"), replace(V, profile="Template's.", writer="template")),
    ],
)
def test_embeddings_of_these_profiles_are_not_stale(tmp_path: Path, more: tuple[Profile, ...]) -> None:
    """Files also keep profiles of other writers and of ids without a vector."""
    embed_both(tmp_path, profiles_sha256="of what was encoded", **MADE)
    digests(tmp_path, U, V, W, A, B, D)
    report = checked(tmp_path, [W, user("v", "older"), V, U, *more], (B, A, D))
    assert report.leaks.stale == () and STALE not in str(report)


@pytest.mark.parametrize("newer", [replace(W, profile="Other."), None])
def test_embeddings_of_another_text_are_stale(tmp_path: Path, newer: Profile | None) -> None:
    """A text is another, or it is not there any more."""
    embed_both(tmp_path, profiles_sha256="of what was encoded", **MADE)
    digests(tmp_path, U, V, W, A, B, D)
    report = checked(tmp_path, [U, V, *filter(None, [newer])], (A, B, D))
    assert report.leaks.stale == (tmp_path / "tiny.semantic.json",)


@pytest.mark.parametrize("encoded", [(W, V, U, B, A, D), (U, V, W, A, B, D)])
def test_without_digests_the_hash_of_the_files_counts(tmp_path: Path, encoded: tuple[Profile, ...]) -> None:
    """Profiles as they stand in the files, and by id, as build-semantics encodes them."""
    embed_both(tmp_path, profiles_sha256=written(*encoded), **MADE)
    report = checked(tmp_path, [W, user("v", "older"), V, U], (B, A, D))
    assert report.leaks.stale == () and STALE not in str(report)


def test_embeddings_of_other_profiles_are_stale(tmp_path: Path) -> None:
    recorded = {"profiles_sha256": written(U, V, W, A, B, D)}
    embed_both(tmp_path, train_sha256="now", **recorded)
    newer = [U, V, user("w", "Other.")]
    report = checked(tmp_path, newer, (A, B, D))
    assert report.leaks.stale == (tmp_path / "tiny.semantic.json",) and f"  {STALE} (" in str(report)
    assert "no leak found" in str(report)  # the embeddings' own record says which split
    embed_both(tmp_path, **recorded)
    assert checked(tmp_path, newer, (A, B, D)).leaks.unknown == ("user", "item")  # these profiles do not say
    assert checked(tmp_path, [U, V, W], (A, B, D)).leaks.unknown == ()


def test_empty_files_are_nothing_to_check(tmp_path: Path) -> None:
    for side in ("user", "item"):
        (tmp_path / f"tiny.{side}prf.jsonl").touch()
    with pytest.raises(DataError, match=r"nothing to check.*recbole-rlmrec build-semantics --dataset tiny"):
        check_corpus(CORPUS, [tmp_path], SETTINGS)


def test_without_titles_none_are_looked_for(tmp_path: Path) -> None:
    """A clean verdict about titles needs titles."""
    untitled = replace(CORPUS, items={token: replace(item, title="") for token, item in CORPUS.items.items()})
    text = str(checked(tmp_path, [user("u")], (item("a"),), untitled))
    assert "titles of held-out items in user profiles: not looked for, since no title is known; they come from" in text
    assert "not looked for" not in str(checked(tmp_path, [user("u")], (item("a"),)))
