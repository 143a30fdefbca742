"""From a dataset with text to embeddings that a model trains with, in one command."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_server import LoopbackServer, Reply, embedding, profile_content, user_text

from recbole_rlmrec.cli import main
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.split import pairs_sha256
from recbole_rlmrec.errors import ContractError, SettingError
from recbole_rlmrec.profile import llm_writer, prompt
from recbole_rlmrec.profile.llm import LLMSettings
from recbole_rlmrec.profile.llm_writer import LLMWriter
from recbole_rlmrec.profile.newcomers import open_text_space
from recbole_rlmrec.profile.prompt import Prompts, PromptSettings, user_prompts
from recbole_rlmrec.profile.record import iter_profiles, read_failures, read_profiles
from recbole_rlmrec.profile.writer import RuleWriter
from recbole_rlmrec.semantics import BuildSettings, build_semantics
from recbole_rlmrec.sides import SIDES
from recbole_rlmrec.text.load import load_corpus

KEY = "sk-loopback-0123456789abcdef"
N_USERS, N_ITEMS = 12, 8


class Shop:
    """A dataset with texts on disk, and the command that is run on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "shop"
        self.folder.mkdir()
        rows = []
        for user in range(N_USERS):
            for step in range(5):
                item = (user + step * (1 + user % 2)) % N_ITEMS
                split = ("train", "train", "train", "valid", "test")[step]
                rows.append((f"u{user}", f"i{item}", split))
        self.rows = rows
        lines = ["user_id:token\titem_id:token\tsplit:token", *("\t".join(row) for row in rows)]
        (self.folder / "shop.inter").write_text("\n".join(lines) + "\n")
        items = [
            {
                "item_id": f"i{item}",
                "title": f"Gadget number {item}",
                "description": "",
                "attributes": {"kind": ["new"]},
            }
            for item in range(N_ITEMS)
        ]
        (self.folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))

    @property
    def train_sha256(self) -> str:
        train = [row for row in self.rows if row[2] == "train"]
        return pairs_sha256([row[0] for row in train], [row[1] for row in train])

    def build(self, *arguments: str) -> int:
        return main(["build-semantics", "--dataset", "shop", f"--data_path={self.root}", *arguments])

    def path(self, name: str) -> Path:
        return self.folder / f"shop.{name}"

    def vectors(self, side: str) -> dict[str, np.ndarray]:
        tokens = self.path(f"{side}emb.tokens").read_text().split()
        return dict(zip(tokens, np.load(self.path(f"{side}emb.npy"))))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return Shop(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackServer(key=KEY) as running:
        yield running


def by_llm(server: LoopbackServer) -> list[str]:
    return [
        *("--writer", "llm", "--llm", "m", "--llm-base-url", server.base_url),
        *("--encoder", "openai", "--encoder-model", "e", "--encoder-base-url", server.base_url),
    ]


def test_template_and_lsa_make_embeddings_that_a_model_trains_with(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    assert shop.build() == 0
    printed = capsys.readouterr().out
    assert f"items: {N_ITEMS} profiles by template, {N_ITEMS} of them new." in printed
    assert "no leak found" in printed
    users = read_profiles(shop.path("userprf.jsonl"))
    assert set(users) == {f"u{user}" for user in range(N_USERS)}
    used = {user: set(users[user].interacted) for user in users}
    assert used == {user: {row[1] for row in shop.rows if row[0] == user and row[2] == "train"} for user in users}
    described = json.loads(shop.path("semantic.json").read_text())
    assert described["writer"] == "template"
    assert described["train_sha256"] == shop.train_sha256
    assert set(shop.vectors("item")) == {f"i{item}" for item in range(N_ITEMS)}
    trained = ["train", "--model=LightGCN_RLMRecCon", "--dataset=shop", f"--data_path={shop.root}", "--epochs=1"]
    assert main([*trained, "--leakage=error", "--topk=[2]", "--valid_metric=Recall@2", "--show_progress=False"]) == 0


def test_several_tables_side_by_side(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    assert shop.build() == 0
    before = {path.name: path.read_bytes() for path in shop.folder.iterdir()}
    assert shop.build("--semantic=small", "--dimension=4") == 0
    assert {name: (shop.folder / name).read_bytes() for name in before} == before
    assert np.load(shop.path("small.useremb.npy")).shape == (N_USERS, 4)
    assert json.loads(shop.path("small.semantic.json").read_text())["options"] == ["--dimension=4"]
    config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(shop.root), "semantic": "small"})
    assert open_text_space(config).vectors(["gadget"]).shape == (1, 4)  # by what lsa learned for this table
    shop.path("small.semantic.json").write_text(json.dumps({"train_sha256": "0" * 64}))
    where = ["--dataset=shop", f"--data_path={shop.root}"]
    assert main(["check", *where]) == 0
    capsys.readouterr()
    assert main(["check", *where, "--semantic=small"]) == 1
    printed = capsys.readouterr().out
    assert "shop.small.useremb.npy" in printed and "LEAK" in printed
    assert main(["check", *where, "--semantic=large"]) == 2
    assert "leave the setting out), 'small'" in capsys.readouterr().err
    main(["split", *where, "--split_field=~", "--overwrite"])
    assert "shop.small.semantic.json'" in capsys.readouterr().out  # stale as well


def test_a_second_call_finds_everything_done(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    assert shop.build() == 0
    before = {path.name: path.read_bytes() for path in shop.folder.iterdir()}
    capsys.readouterr()
    assert shop.build() == 0
    printed = capsys.readouterr().out
    assert "0 of them new" in printed
    assert "up to date" in printed
    assert {path.name: path.read_bytes() for path in shop.folder.iterdir()} == before


def test_embeddings_of_something_else_are_not_overwritten_unasked(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    assert shop.build() == 0
    before = shop.path("useremb.npy").read_bytes()
    assert shop.build("--dimension", "4") == 2
    assert "overwrite" in capsys.readouterr().err
    assert shop.path("useremb.npy").read_bytes() == before
    assert shop.build("--dimension", "4", "--overwrite", "--float16") == 0
    assert shop.vectors("user")["u0"].shape == (4,)
    assert shop.vectors("user")["u0"].dtype == np.float16


def test_profiles_of_another_split_are_refused_unless_leakage_is_a_warning(
    shop: Shop, capsys: pytest.CaptureFixture
) -> None:
    assert shop.build() == 0
    text = shop.path("inter").read_text()
    shop.path("inter").write_text(text.replace("valid", "was").replace("train", "valid", 12).replace("was", "train"))
    trained = ["train", "--model=LightGCN_RLMRecCon", "--dataset=shop", f"--data_path={shop.root}", "--epochs=1"]
    trained += ["--topk=[2]", "--valid_metric=Recall@2", "--show_progress=False"]
    capsys.readouterr()
    assert main(trained) == 2
    assert "build-semantics" in capsys.readouterr().err
    assert main([*trained, "--leakage=warn"]) == 0
    capsys.readouterr()
    assert main(["check", "--dataset", "shop", f"--data_path={shop.root}"]) == 1
    assert "LEAK" in capsys.readouterr().out
    assert shop.build("--overwrite") == 0  # written again from this split
    assert main(trained) == 0


def test_a_language_model_writes_items_first_then_users(shop: Shop, server: LoopbackServer) -> None:
    assert shop.build(*by_llm(server)) == 0
    asked = server.texts()
    assert len(asked) == N_ITEMS + N_USERS
    item_texts, user_texts = asked[:N_ITEMS], asked[N_ITEMS:]
    items = read_profiles(shop.path("itemprf.jsonl"))
    assert {profile.profile for profile in items.values()} == {f"Profile of {text}" for text in item_texts}
    assert all("Profile of" in text for text in user_texts)  # items' profiles are shown
    found = shop.vectors("item")["i3"]
    expected = embedding(items["i3"].profile, 8)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-5)
    assert not any(KEY.encode() in path.read_bytes() for path in shop.folder.iterdir())
    assert shop.build(*by_llm(server)) == 0
    assert len(server.texts()) == N_ITEMS + N_USERS  # nobody is asked again


@pytest.mark.parametrize("batch", [False, True])
def test_a_limited_run_is_a_small_world_and_goes_on_later(
    shop: Shop, server: LoopbackServer, capsys: pytest.CaptureFixture, *, batch: bool
) -> None:
    limited = [*by_llm(server), "--limit", "2", *(["--batch"] if batch else [])]
    for number in range(2) if batch else ():
        assert shop.build(*limited) == 1
        server.finish(f"batch-{number}")
    assert shop.build(*limited) == 0  # it ended as asked
    users, items = read_profiles(shop.path("userprf.jsonl")), read_profiles(shop.path("itemprf.jsonl"))
    assert set(users) == {"u0", "u1"}
    shown = {item for user in users.values() for item in user.interacted}
    assert set(items) == shown == {row[1] for row in shop.rows if row[0] in users and row[2] == "train"}
    n_left = N_ITEMS - len(shown)
    printed = capsys.readouterr().out
    assert f"--limit: 2 users, and {len(shown)} items that their prompts show." in printed
    assert f"{N_USERS - 2} users and {n_left} items are left; the same command goes on with the next" in printed
    assert not shop.path("useremb.npy").exists()
    assert shop.build(*by_llm(server)) == 0
    written = {side: list(iter_profiles(shop.path(f"{side}prf.jsonl"))) for side in SIDES}
    assert (len(written["user"]), len(written["item"])) == (N_USERS, N_ITEMS)  # nobody was asked twice


def test_a_limit_takes_the_next_users_each_time(shop: Shop, server: LoopbackServer) -> None:
    for n_users in (5, 10, N_USERS):
        assert shop.build(*by_llm(server), "--limit", "5") == 0
        assert len(read_profiles(shop.path("userprf.jsonl"))) == n_users
    assert shop.path("useremb.npy").exists() and len(server.texts()) == N_ITEMS + N_USERS


def test_a_trial_asks_for_the_items_that_come_into_view(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long stand-ins leave room for few items; the profiles that are written are short, and leave room for more."""
    monkeypatch.setattr(prompt, "_LEAST_INTERACTIONS", 1)
    monkeypatch.setattr(llm_writer, "stand_ins", lambda _: {f"i{item}": "long " * 300 for item in range(N_ITEMS)})
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackServer(key=KEY, answer=lambda _: Reply(profile_content("Short."))) as server:
        assert shop.build(*by_llm(server), "--token-budget", "400", "--limit", "1") == 0
        (user,) = read_profiles(shop.path("userprf.jsonl")).values()
        assert set(user.interacted) == set(read_profiles(shop.path("itemprf.jsonl"))) and len(user.interacted) == 3
        assert server.texts()[-1].count('"profile": "Profile of Short."') == 3


def test_prompts_are_shown_and_nobody_is_asked(shop: Shop, server: LoopbackServer, capsys: Any) -> None:
    before = sorted(shop.folder.iterdir())
    for arguments in ([], by_llm(server)):
        assert shop.build(*arguments, "--show-prompt", "3") == 0
        printed = capsys.readouterr().out
        for side, noun in (("item", "i"), ("user", "u")):
            assert f"Instruction for {side}s:\n\nYou write" in printed
            assert sum(line.startswith(f"{side} {noun}") for line in printed.splitlines()) == 3
        assert '"title": "Gadget number 0"' in printed and '"profile": "Gadget number 0. Kind: new.' in printed
    assert server.texts() == [] and sorted(shop.folder.iterdir()) == before
    assert shop.build("--show-prompt", "0") == 2
    assert "--show-prompt is 0; expected a number of prompts, 1 or more." in capsys.readouterr().err


def as_older(path: Path) -> None:
    """Make the records of a file those of the first version, whose prompts were others."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["version"]
        line.pop("sums", None)
        line.update(prompt_sha256="0" * 64, profile=f"Older gadget of {line['token']}.")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("writer", ["template", "llm"])
def test_profiles_of_an_older_prompt_stay_until_others_are_asked_for(
    shop: Shop, server: LoopbackServer, capsys: pytest.CaptureFixture, writer: str
) -> None:
    arguments = by_llm(server) if writer == "llm" else []
    assert shop.build(*arguments) == 0
    for side in SIDES:
        as_older(shop.path(f"{side}prf.jsonl"))
    n_asked = len(server.texts())
    older = {side: shop.path(f"{side}prf.jsonl").read_bytes() for side in SIDES}
    capsys.readouterr()
    assert shop.build(*arguments, "--overwrite") == 0  # the embeddings', whose profiles are others
    assert f"users: {N_USERS} by an older prompt or template; they stay valid" in capsys.readouterr().out
    assert {side: shop.path(f"{side}prf.jsonl").read_bytes() for side in SIDES} == older
    assert len(server.texts()) == n_asked
    if writer == "llm":
        assert shop.build(*arguments, "--dry-run") == 0
        assert f"items: {N_ITEMS} by an older prompt" in (printed := capsys.readouterr().out)
        assert printed.count("0 to ask for") == 2
        assert shop.build("--overwrite") == 0 and shop.build(*arguments, "--overwrite") == 0
        assert read_profiles(shop.path("userprf.jsonl"))["u0"].profile == "Older gadget of u0."  # it counts again
        assert len(server.texts()) == n_asked
    assert shop.build(*arguments, "--overwrite", "--rewrite-older") == 0
    assert not any(profile.is_older for profile in read_profiles(shop.path("userprf.jsonl")).values())
    assert len(server.texts()) == 2 * n_asked


def test_an_older_profile_of_another_split_is_written_again(shop: Shop) -> None:
    assert shop.build() == 0
    as_older(shop.path("userprf.jsonl"))
    text = shop.path("userprf.jsonl").read_text()
    shop.path("userprf.jsonl").write_text(text.replace(shop.train_sha256, "f" * 64))
    assert shop.build("--overwrite") == 0
    assert not any(profile.is_older for profile in read_profiles(shop.path("userprf.jsonl")).values())


def test_what_the_model_refuses_is_a_hole(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def answer(body: Any) -> Any:
        return Reply(refusal="I would rather not.") if "Gadget number 3" in user_text(body) else None

    with LoopbackServer(key=KEY, answer=answer) as server:
        assert shop.build(*by_llm(server)) == 0
    failed = read_failures(shop.path("itemprf.failed.jsonl"))
    assert set(failed) == {"i3"}
    assert "i3" not in shop.vectors("item")
    users_of_it = {row[0] for row in shop.rows if row[1] == "i3" and row[2] == "train"}
    assert set(shop.vectors("user")) == {f"u{user}" for user in range(N_USERS)} - users_of_it


@pytest.mark.parametrize("writer", ["template", "llm"])
def test_prompts_are_built_once(
    shop: Shop, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, writer: str, capsys: pytest.CaptureFixture
) -> None:
    """By whoever needs them first: the writing, or the check at the end."""
    counts: Counter[str] = Counter()
    for side in SIDES:
        build = getattr(prompt, f"{side}_prompts")

        def counted(*arguments: Any, side: str = side, build: Any = build) -> Any:
            counts[side] += 1
            return build(*arguments)

        monkeypatch.setattr(prompt, f"{side}_prompts", counted)
    assert shop.build(*(by_llm(server) if writer == "llm" else [])) == 0
    assert counts == {"user": 1, "item": 1}
    assert f"prompts built from the training split now: {N_USERS + N_ITEMS}\n" in capsys.readouterr().out


def test_a_check_with_other_item_profiles_builds_the_users_prompts_of_those(shop: Shop) -> None:
    corpus = load_corpus(RLMRecConfig("BPR", "shop", config_dict={"data_path": str(shop.root)}))
    prompts = Prompts(corpus, PromptSettings())
    first = prompts.of_users({"i0": "one"})
    assert prompts.of_users({"i0": "one"}) is first
    assert prompts.of_users({"i0": "two"}) == user_prompts(corpus, {"i0": "two"}, PromptSettings()) != first


class Wrong(RuleWriter):
    """Returns no dictionary of profiles."""

    known_as = "wrong"

    def profiles(self, task: Any, side: Any, item_profiles: Any) -> Any:
        return [], {}

    def write(self, task: Any, side: Any, item_profiles: Any) -> Any:
        return {"i0": "a text"}


def test_a_writer_that_returns_no_profiles_reads_what_is_expected(shop: Shop) -> None:
    config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(shop.root)})
    with pytest.raises(ContractError, match=r"Wrong.write\(\) returned .*'a text'.*, expected a dictionary token"):
        build_semantics(config, BuildSettings(writer=Wrong()))


def in_a_notebook(shop: Shop, settings: BuildSettings, **more: Any) -> Any:
    """Build as a notebook's cell does, within a running event loop."""

    async def cell() -> Any:
        config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(shop.root)})
        return build_semantics(config, settings, progress=False, **more)

    return asyncio.run(cell())


@pytest.mark.parametrize("writer", ["llm", "batch"])
def test_one_call_builds_within_a_running_event_loop(shop: Shop, server: LoopbackServer, writer: str) -> None:
    settings = BuildSettings(writer=writer, llm=LLMSettings("m", base_url=server.base_url))
    report = in_a_notebook(shop, settings)
    for number in range(2) if writer == "batch" else ():
        assert report is None, "batches are under way"
        server.finish(f"batch-{number}")
        report = in_a_notebook(shop, settings)
    assert not report.has_leak
    assert json.loads(shop.path("semantic.json").read_text())["writer"] == "llm:m"
    assert len(read_profiles(shop.path("userprf.jsonl"))) == N_USERS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"writer": "llm"}, "The writer 'llm' needs llm=LLMSettings"),
        ({"llm": LLMSettings("m")}, "The writer 'template' asks no language model"),
        ({"writer": LLMWriter(LLMSettings("m")), "llm": LLMSettings("m")}, "leave out llm"),
        ({"writer": "lmm"}, "There is no writer 'lmm'. Expected one of template, llm, batch"),
        ({"writer": LLMWriter}, "BuildSettings.writer is <class .*expected the name"),
        ({"encoder": "lsi"}, "There is no encoder 'lsi'"),
        ({"encoder": "openai"}, "needs a model"),
    ],
)
def test_settings_of_a_build_that_do_not_fit(shop: Shop, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        in_a_notebook(shop, BuildSettings(**settings))
    assert not shop.path("itemprf.jsonl").exists()


def test_the_domain_of_a_build_is_the_configurations(shop: Shop, server: LoopbackServer) -> None:
    settings = BuildSettings(writer=LLMWriter(LLMSettings("m", base_url=server.base_url, limit=1)))
    config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(shop.root), "text_domain": "games"})
    assert build_semantics(config, settings, progress=False) is None
    assert server.requests[0].body["messages"][0]["content"].startswith("You write video game profiles")


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--limit", "3"], 2), (["--batch"], 2)])
def test_where_everything_fails_the_reason_is_said(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], status: int
) -> None:
    """And no error of a later step hides it; what a server says does not reach the terminal as it is."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    refused = Reply(status=400, error={"message": "Pay \x1b]0;first\x07 \x9b31mnow."})
    with LoopbackServer(key=KEY, answer=lambda _: refused) as server:
        monkeypatch.setattr(llm_writer.time, "sleep", lambda _: server.finish(list(server.batches)[-1]))
        wait = ["--wait"] if "--batch" in arguments else []
        assert shop.build(*by_llm(server), *arguments, *wait) == status
    output = capsys.readouterr()
    shown = output.out + output.err
    assert "HTTP 400: Pay " in shown
    assert "now." in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    n_asked = 6 if "--limit" in arguments else N_ITEMS  # what three users chose
    assert f"None of the {n_asked} items got a profile from llm:m. The commonest reason ({n_asked} of" in output.err
    assert "nothing to encode" not in output.err


def test_steps_back_are_taken_once_for_both_sides(
    shop: Shop, server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.unsupported = frozenset(["json_schema", "temperature"])
    assert shop.build(*by_llm(server), "--concurrency", "1") == 0
    assert len(server.texts()) == N_ITEMS + N_USERS + 2
    assert sum("The server does not take" in record.getMessage() for record in caplog.records) == 2


def test_who_was_refused_is_not_asked_in_every_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    n_refused = 0

    def answer(body: Any) -> Any:
        nonlocal n_refused
        if '"Gadget number 3"' not in user_text(body) or "interactions" in user_text(body):
            return None
        n_refused += 1
        return Reply(refusal="No.")

    with LoopbackServer(key=KEY, answer=answer) as server:
        assert shop.build(*by_llm(server)) == 0
        assert shop.build(*by_llm(server)) == 0
        assert n_refused == 1
        capsys.readouterr()
        assert shop.build(*by_llm(server), "--dry-run") == 0
        printed = capsys.readouterr().out
        assert f"items: {N_ITEMS - 1} prompts: {N_ITEMS - 1} profiles are recorded, 0 to ask for." in printed
        assert "1 more failed or were refused before; --retry-failed asks again." in printed
        assert shop.build(*by_llm(server), "--retry-failed") == 0
        assert n_refused == 2


def test_batch_is_a_writer_too(shop: Shop, server: LoopbackServer) -> None:
    arguments = [argument if argument != "llm" else "batch" for argument in by_llm(server)]
    assert shop.build(*arguments) == 1
    server.finish("batch-0")
    assert shop.build(*by_llm(server), "--batch") == 1
    assert list(server.batches) == ["batch-0", "batch-1"]


def test_switching_writers_never_mixes_them_and_never_pays_twice(shop: Shop, server: LoopbackServer) -> None:
    assert shop.build(*by_llm(server)) == 0
    vectors = shop.vectors("item")
    assert shop.build("--overwrite") == 0
    assert json.loads(shop.path("semantic.json").read_text())["writer"] == "template"
    assert shop.build(*by_llm(server), "--overwrite") == 0
    assert len(server.texts()) == N_ITEMS + N_USERS
    again = shop.vectors("item")
    assert all(np.array_equal(vectors[token], again[token]) for token in vectors)


def test_a_dry_run_asks_and_writes_nothing(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    prices = ["--input-price", "1", "--output-price", "2"]
    arguments = ["--writer", "llm", "--llm", "m", "--llm-base-url", "http://127.0.0.1:9/v1", "--dry-run", *prices]
    before = sorted(shop.folder.iterdir())
    assert shop.build(*arguments) == 0
    printed = capsys.readouterr().out
    assert f"items: {N_ITEMS} prompts: 0 profiles are recorded, {N_ITEMS} to ask for." in printed
    assert f"{N_USERS} prompts: 0 profiles are recorded, {N_USERS} to ask for." in printed
    assert "Together: $" in printed
    assert sorted(shop.folder.iterdir()) == before


def test_batches_are_collected_and_submitted_by_the_same_command(
    shop: Shop, server: LoopbackServer, capsys: pytest.CaptureFixture
) -> None:
    arguments = [*by_llm(server), "--batch"]
    assert shop.build(*arguments) == 1  # the items are on their way
    assert shop.build(*arguments) == 1  # and still are
    assert list(server.batches) == ["batch-0"]
    server.finish("batch-0")
    assert shop.build(*arguments) == 1  # collected; the users are on their way
    assert list(server.batches) == ["batch-0", "batch-1"]
    server.finish("batch-1")
    assert shop.build(*arguments) == 0
    assert len(read_profiles(shop.path("userprf.jsonl"))) == N_USERS
    assert len(list(iter_profiles(shop.path("itemprf.jsonl")))) == N_ITEMS
    assert set(shop.vectors("user")) == {f"u{user}" for user in range(N_USERS)}


def test_waiting_for_batches_ends_with_the_embeddings(
    shop: Shop, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def instead_of_sleeping(seconds: float) -> None:
        waits.append(seconds)
        server.finish(list(server.batches)[-1])

    monkeypatch.setattr(llm_writer.time, "sleep", instead_of_sleeping)
    assert shop.build(*by_llm(server), "--batch", "--wait") == 0
    assert waits == [llm_writer.BATCH_POLL_SECONDS] * 2


def test_what_failed_in_a_batch_is_submitted_again_only_when_asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    is_willing = False

    def answer(body: Any) -> Any:
        refuses = "Gadget number 3" in user_text(body) and not is_willing
        return Reply(refusal="No.") if refuses else Reply(profile_content(user_text(body)[:20]))

    with LoopbackServer(key=KEY, answer=answer) as server:
        arguments = [*by_llm(server), "--batch"]
        assert shop.build(*arguments) == 1
        server.finish("batch-0")
        assert shop.build(*arguments) == 1  # item i3 failed; the users are on their way all the same
        assert list(server.batches) == ["batch-0", "batch-1"]
        is_willing = True
        server.finish("batch-1")
        assert shop.build(*arguments) == 0
        assert "i3" not in shop.vectors("item")
        assert shop.build(*arguments, "--retry-failed") == 1
        assert "i3" in read_profiles(shop.path("itemprf.jsonl"))


def test_a_batch_that_fails_as_a_whole_does_not_let_the_users_begin(shop: Shop, server: LoopbackServer) -> None:
    arguments = [*by_llm(server), "--batch"]
    assert shop.build(*arguments) == 1
    server.finish("batch-0", status="failed", answered=0)
    assert shop.build(*arguments) == 1  # submitted again, and still no user is asked
    assert list(server.batches) == ["batch-0", "batch-1"]
    assert all("Profile of" not in text for text in server.texts())
    server.finish("batch-1")
    assert shop.build(*arguments) == 1
    assert list(server.batches) == ["batch-0", "batch-1", "batch-2"]


def test_waiting_ends_where_a_batch_expires(
    shop: Shop, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def instead_of_sleeping(_: float) -> None:
        server.finish(list(server.batches)[-1], status="expired", answered=2)

    monkeypatch.setattr(llm_writer.time, "sleep", instead_of_sleeping)
    assert shop.build(*by_llm(server), "--batch", "--wait") == 1
    assert f"{N_ITEMS - 3} items are left" in capsys.readouterr().out
    assert list(server.batches) == ["batch-0"]


def test_what_batches_are_asked_is_not_asked_directly(
    shop: Shop, server: LoopbackServer, capsys: pytest.CaptureFixture
) -> None:
    assert shop.build(*by_llm(server), "--batch") == 1
    n_asked = len(server.texts())
    assert shop.build(*by_llm(server)) == 2
    assert f"{N_ITEMS - 1} of these prompts are in batches under way" in capsys.readouterr().err
    assert len(server.texts()) == n_asked
    assert shop.build(*by_llm(server), "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "1 profiles are recorded, 0 to ask for" in printed
    assert f"{N_ITEMS - 1} more are in batches" in printed


def test_the_budget_is_that_of_both_sides_together(shop: Shop, server: LoopbackServer) -> None:
    assert shop.build(*by_llm(server), "--limit", "2") == 0
    prices = ["--input-price", "0", "--output-price", "1000000", "--max-tokens", "100"]
    before = len(server.texts())
    assert shop.build(*by_llm(server), *prices, "--budget", "1") == 1  # 100 dollars may be needed for a single one
    assert len(server.texts()) == before
    assert shop.build(*by_llm(server)) == 0
    assert len(server.texts()) == N_ITEMS + N_USERS


def test_an_item_that_fails_is_asked_once_more_before_the_users(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    n_asked = 0

    def answer(body: Any) -> Any:
        nonlocal n_asked
        if "Gadget number 3" not in user_text(body) or "interactions" in user_text(body):
            return None
        n_asked += 1
        return Reply("no JSON at all") if n_asked <= 2 else None  # the answer and its repair

    with LoopbackServer(key=KEY, answer=answer) as server:
        assert shop.build(*by_llm(server)) == 0
        assert n_asked == 3
        n_requests = len(server.texts())
        assert shop.build(*by_llm(server)) == 0
        assert len(server.texts()) == n_requests
    assert "i3" in shop.vectors("item")
    assert not shop.path("itemprf.failed.jsonl").exists()


def test_another_model_is_asked_what_one_refused_in_a_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def answer(body: Any) -> Any:
        return Reply(refusal="No.") if "Gadget number 3" in user_text(body) and body["model"] == "m" else None

    with LoopbackServer(key=KEY, answer=answer) as server:
        monkeypatch.setattr(llm_writer.time, "sleep", lambda _: server.finish(list(server.batches)[-1]))
        assert shop.build(*by_llm(server), "--batch", "--wait") == 0
        assert "i3" not in shop.vectors("item")
        other = [argument if argument != "m" else "n" for argument in by_llm(server)]
        assert shop.build(*other, "--batch", "--wait", "--overwrite") == 0
        assert "i3" in shop.vectors("item")


def test_the_first_prompt_refused_does_not_hold_up_a_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def answer(body: Any) -> Any:
        return Reply(refusal="No.") if '"Gadget number 0"' in user_text(body) else None

    with LoopbackServer(key=KEY, answer=answer) as server:
        monkeypatch.setattr(llm_writer.time, "sleep", lambda _: server.finish(list(server.batches)[-1]))
        assert shop.build(*by_llm(server), "--batch", "--wait") == 0
        assert shop.build(*by_llm(server), "--batch", "--wait", "--retry-failed") == 0


def test_a_batch_that_the_server_lost_is_named(
    shop: Shop, server: LoopbackServer, capsys: pytest.CaptureFixture
) -> None:
    assert shop.build(*by_llm(server), "--batch") == 1
    server.batches.clear()
    assert shop.build(*by_llm(server), "--batch") == 2
    error = capsys.readouterr().err
    assert "batch-0" in error and "shop.itemprf.batch.json" in error


def test_a_wrong_encoder_is_found_before_profiles_are_paid_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackServer(key=KEY, models={"m"}) as server:
        assert shop.build(*by_llm(server)) == 2
        assert server.texts() == []
    assert "'e'" in capsys.readouterr().err


def test_a_dataset_without_texts_is_an_error_that_names_the_settings(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    (shop.folder / "items.jsonl").unlink()
    assert shop.build() == 2
    error = capsys.readouterr().err
    assert "No item of 'shop' has a profile" in error
    assert "item_title_field" in error


def test_a_folder_that_cannot_be_written_is_named(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    shop.path("itemprf.jsonl").mkdir()
    assert shop.build() == 2
    assert "shop.itemprf.jsonl' cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--writer", "llm"], "--llm gpt-4o-mini"),
        (["--limit", "5"], "--limit is for --writer llm"),
        (["--writer", "llm", "--llm", "m", "--limit", "0"], "--limit 0"),
        (["--llm", "m"], "--llm is for --writer llm"),
        (["--wait"], "--wait is for --batch."),
        (["--retry-failed"], "--retry-failed is for --writer llm"),
        (["--batch"], "--batch is for --writer llm; the writer 'template' sends no batches."),
        (["--encoder", "openai"], "model"),
        (["--token-budget", "10"], "token_budget"),
        (["--encoder-prompt", "Represent:"], "prompt"),
        (["--item_title_fields=title"], "item_title_field"),
    ],
)
def test_wrong_arguments_are_one_clear_error(
    shop: Shop, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert shop.build(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not shop.path("useremb.npy").exists()


def test_a_missing_key_is_said_before_anything_is_asked(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    assert shop.build("--writer", "llm", "--llm", "m") == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_check_without_anything_to_check_names_the_command(shop: Shop, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "--dataset", "shop", f"--data_path={shop.root}"]) == 2
    assert "recbole-rlmrec build-semantics --dataset shop" in capsys.readouterr().err
