"""The service answers as the recommender does, whatever it is asked, and stays up; checkpoints change under it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from conftest import World

from recbole_rlmrec import Recommender
from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import CheckpointError, SettingError
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items

pytest.importorskip("uvicorn")
app = pytest.importorskip("recbole_rlmrec.recommend.service.app")

import uvicorn  # noqa: E402

from recbole_rlmrec.recommend.service import guard, running  # noqa: E402
from recbole_rlmrec.recommend.service.metrics import Metrics  # noqa: E402
from recbole_rlmrec.recommend.service.served import AddedItems, Live, Served, Sources  # noqa: E402

PAGE = Path(app.__file__).parent / "page"


class WithTexts(Recommender):
    """A recommender whose sentences reverse a list, and whose new items are known by name only."""

    def query(
        self, text: str, k: int = 10, *, user: Any = None, weight: float = 0.5, include_seen: bool = False
    ) -> Any:
        if not text.strip():
            raise SettingError("The query is empty: type a few words.")
        if text == "a fault of the program":
            raise ZeroDivisionError("secret")
        frame = self.recommend([user or "u1"], k, include_seen=include_seen).drop(columns="user")
        return frame.assign(item=frame["item"].to_numpy()[::-1], title=frame["title"].to_numpy()[::-1])

    def add_items(self, items: Any, vectors: Any = None) -> list[str]:
        self.new = [*getattr(self, "new", []), *(item.token for item in items)]
        return [item.token for item in items]


def recommender_of(world: World, name: str = "LightGCN", **settings: Any) -> WithTexts:
    config = world.config(name, **settings)
    dataset, train_data, valid_data, _ = world.loaders(config)
    return WithTexts(config.model_class(config, train_data._dataset), dataset, (train_data, valid_data))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("service") / "dataset")
    titles = {3: "Three", 14: "Fourteen <b>&amp;</b>", 5: "Mot à mot"}
    write_items(world.folder / "items.jsonl", [Item(f"i{n}", titles.get(n, "")) for n in range(30)])
    return world


@pytest.fixture(scope="module")
def recommender(small: World) -> WithTexts:
    return recommender_of(small)


@contextmanager
def running_service(made: Any) -> Iterator[int]:
    """Run a service in a thread; yield its port."""
    with running.bound(running.Address("127.0.0.1", 0, 1)) as listening:
        server = uvicorn.Server(running.configured(lambda: made, 1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def service_of(served: Served, folder: Path, load: Callable[[Sources], Served] | None = None, **settings: Any) -> Any:
    """Return a service, its metrics, and the checkpoint whose change it looks for."""
    checkpoint = folder / "model.pth"
    checkpoint.write_bytes(b"first")
    sources, metrics = Sources(checkpoint, None, {}, folder / "added.jsonl"), Metrics()
    live = Live(served, sources, metrics, load or Served.load, period=0.02)
    return app.app_of(live, metrics, app.AppSettings(**settings)), metrics, checkpoint


@pytest.fixture(scope="module")
def port(recommender: WithTexts, small: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    base = recommender_of(small, seed=7)
    made, *_ = service_of(Served(recommender, base), tmp_path_factory.mktemp("files"))
    with running_service(made) as number:
        yield number


def ask(port: int, path: str, body: Any = None, method: str | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Return status, what the body holds, and the heads of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    if body is not None and not isinstance(body, (bytes, Iterator)):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    connection.request(
        method or ("GET" if body is None else "POST"),
        path,
        body,
        {name.replace("_", "-"): value for name, value in headers.items()},
        encode_chunked=isinstance(body, Iterator),
    )
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    is_json = answer.headers["content-type"] == "application/json"
    return answer.status, json.loads(content) if is_json else content.decode(), answer.headers


def rows_of(frame: Any) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records", double_precision=15))


# ---------------------------------------------------------------------- what is answered


def test_lists_asked_together_are_those_of_the_recommender(port: int, recommender: WithTexts) -> None:
    users = [f"u{n % 40}" for n in range(120)]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda user: ask(port, f"/recommend?user={user}&k=4"), users))
    for user, (status, found, _) in zip(users, answers):
        expected = recommender.recommend([user], 4)
        assert status == 200 and found["user"] == user
        assert [row["item"] for row in found["items"]] == expected["item"].tolist()
        assert [row["score"] for row in found["items"]] == pytest.approx(expected["score"].tolist())
        assert [row["rank"] for row in found["items"]] == [1, 2, 3, 4]


def test_requests_that_wait_are_one_batch(recommender: WithTexts, tmp_path: Path) -> None:
    calls = []

    class Slow(Served):
        def lists(self, users: Any, *arguments: Any, **options: Any) -> Any:
            calls.append(list(users))
            time.sleep(0.2)
            return super().lists(users, *arguments, **options)

    made, *_ = service_of(Slow(recommender, None), tmp_path)
    with running_service(made) as number, ThreadPoolExecutor(20) as pool:
        users = [f"u{n % 10}" for n in range(20)]
        assert {found[0] for found in pool.map(lambda user: ask(number, f"/recommend?user={user}"), users)} == {200}
        text = ask(number, "/metrics")[1]
    assert len(calls) < 10 and max(map(len, calls)) >= 5 and all(len(set(each)) == len(each) for each in calls)
    assert f'recbole_rlmrec_batches_total{{worker="{os.getpid()}"}} {len(calls)}' in text
    assert 'path="/recommend",status="200"} 20' in text and 'le="+Inf"} 20' in text


def test_the_base_stands_beside(port: int) -> None:
    _, found, _ = ask(port, "/recommend?user=u3&k=10&compare=true&include_seen=true")
    ranks = {row["item"]: row["rank"] for row in found["base"]}
    assert len(ranks) == 10 and [row["base_rank"] for row in found["items"]] == [
        ranks.get(row["item"]) for row in found["items"]
    ]
    assert 0 < sum(row["base_rank"] is None for row in found["items"]) < 10


def test_a_sentence_alone_and_with_a_user(port: int, recommender: WithTexts) -> None:
    for given in ({}, {"user": "u5", "weight": "0.3"}):
        _, found, _ = ask(port, "/query?" + urlencode({"text": "星戦争", "k": 3, **given}))
        assert found["text"] == "星戦争" and found["user"] == given.get("user")
        expected = recommender.recommend(given.get("user", "u1"), 3)["item"].tolist()[::-1]
        assert [row["item"] for row in found["items"]] == expected


def test_a_user_and_an_item_are_looked_at(port: int, recommender: WithTexts) -> None:
    _, found, _ = ask(port, "/users?user=u3")
    assert found["profile"] is None and found["history"] == rows_of(recommender.history("u3"))
    assert ask(port, "/items?item=i14")[1] == {
        "item": "i14", "title": "Fourteen <b>&amp;</b>", "profile": None, "added": False,
    }  # fmt: skip
    _, near, _ = ask(port, "/similar?item=i14&k=3")
    for space in ("model", "text"):
        expected = recommender.similar_items("i14", 3, space=space)  # type: ignore[arg-type]
        assert [row["item"] for row in near[f"in_{space}"]] == expected["item"].tolist()
    found = ask(port, "/similar?user=u3&k=2")[1]["in_model"]
    assert [row["user"] for row in found] == recommender.similar_users("u3", 2)["user"].tolist()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users?search=U1&k=3", {"users": ["u1", "u10", "u11"]}),
        ("/users?search=&k=2", {"users": ["u0", "u1"]}),
        ("/users?search=zz", {"users": []}),
        ("/items?search=MOT", {"items": [{"item": "i5", "title": "Mot à mot"}]}),
        ("/items?search=i2+8", {"items": [{"item": "i28", "title": None}]}),
    ],
)
def test_searches(port: int, path: str, expected: Any) -> None:
    assert ask(port, path)[1] == expected


def test_what_is_served(port: int) -> None:
    assert ask(port, "/health")[1] == {"status": "ok", "needs_token": False}
    _, about, _ = ask(port, "/model")
    assert (about["model"], about["base"], about["dataset"]) == ("LightGCN", "LightGCN", "tiny")
    assert (about["users"], about["items"]) == (40, 30)
    _, document, _ = ask(port, "/openapi.json")
    assert set(document["paths"]) == {
        "/recommend", "/similar", "/query", "/users", "/items", "/model", "/health", "/metrics",
    }  # fmt: skip
    assert set(document["paths"]["/items"]) == {"get", "post"}


# ---------------------------------------------------------------------- what cannot be answered


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/recommend?user=u41x", 404, "have no user 'u41x'"),
        ("/recommend?user=U4", 404, "Did you mean 'u4'?"),
        ("/similar?item=i99", 404, "have no item 'i99'"),
        ("/items?item=nothing", 404, "have no item"),
        ("/recommend", 422, "user: Field required."),
        ("/recommend?users=u1", 422, "There is no parameter 'users'"),
        ("/recommend?user=u1&k=0", 422, "k: Input should be greater than or equal to 1; found '0'."),
        ("/recommend?user=u1&k=1001", 422, "less than or equal to 1000"),
        ("/recommend?user=u1&k=ten", 422, "k: "),
        ("/query?text=", 422, "The query is empty"),
        ("/query?text=" + "w" * 2001, 422, "text: String should have at most 2000 characters"),
        ("/query?text=a&weight=2", 422, "weight: "),
        ("/query?text=a&user=u77", 404, "have no user 'u77'"),
        ("/similar?item=i1&user=u1", 422, "Give one of item and user."),
        ("/users", 422, "Give one of user and search."),
        ("/nothing", 404, "There is no such path"),
        ("/query?text=a+fault+of+the+program", 500, "Something went wrong here"),
    ],
)
def test_faults_are_said(port: int, path: str, status: int, said: str) -> None:
    found = ask(port, path)
    assert found[0] == status and said in found[1]["error"] and set(found[1]) == {"error"}
    assert not {"Traceback", "secret", ".py"} & set(json.dumps(found[1]).split())
    assert ask(port, "/health")[0] == 200


def test_a_list_longer_than_what_is_left_is_shorter(port: int, recommender: WithTexts) -> None:
    _, found, _ = ask(port, "/recommend?user=u1&k=1000")
    assert len(found["items"]) == 30 - len(recommender.history("u1"))


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b'{"items": [{"item_id": "n1", "ti', "application/json", 422, "is not valid JSON"),
        (b"[]", "application/json", 422, "holds no list of items"),
        (b'{"items": [7]}', "application/json", 422, "holds no list of items"),
        (b'{"items": [{"title": "a"}]}', "application/json", 422, "has no 'item_id'"),
        (b'{"items": [{"item_id": "n1"}]}', "application/json", 422, "'n1' has no text"),
        (b'{"items": [{"item_id": "n1", "title": 3}]}', "application/json", 422, "'title' of type int"),
        (b'{"items": [{"item_id": "i3", "title": "a"}]}', "application/json", 422, "an item 'i3' already"),
        (b'{"items": [%s]}' % b",".join([b'{"item_id": "n", "title": "a"}'] * 2), "application/json", 422, "repeats"),
        (b'{"items": [%s]}' % b",".join([b"{}"] * 101), "application/json", 422, "at most 100"),
        (b'{"items": [{"item_id": "n1", "title": "a"}]}', "text/plain", 415, "expected 'Content-Type"),
        (b"[" * 100_000, "application/json", 422, "The body"),
        (b" " * (guard.LARGEST_BODY + 1), "application/json", 413, "larger than 1,000,000 bytes"),
        (iter([b" " * 10**6] * 100), "application/json", 413, "larger than 1,000,000 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bodies_that_are_no_items(port: int, body: Any, kind: str, status: int, said: str) -> None:
    found = ask(port, "/items", body, Content_Type=kind)
    assert found[0] == status and said in found[1]["error"]
    assert ask(port, "/health")[0] == 200


@pytest.mark.parametrize(
    "sent", ["POST /items HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", "GET / HT", ""]
)
def test_slow_clients_are_cut(
    recommender: WithTexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    """One that sends a part of its body, of its head, or nothing."""
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    monkeypatch.setattr(running, "PATIENCE", 0.2)
    made, *_ = service_of(Served(recommender, None), tmp_path)
    with running_service(made) as number, socket.create_connection(("127.0.0.1", number), timeout=10) as client:
        client.sendall(sent.encode())
        assert ask(number, "/recommend?user=u1")[0] == 200  # others are not held up
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(10_000):
                answer += part
        assert (b"408" in answer and b"did not come within" in answer) if "{" in sent else answer == b""


# ---------------------------------------------------------------------- who may ask


def test_a_token_is_asked_for(recommender: WithTexts, tmp_path: Path) -> None:
    made, *_ = service_of(Served(recommender, None), tmp_path, token="correct horse battery")
    with running_service(made) as number:
        assert ask(number, "/health")[1]["needs_token"] and ask(number, "/")[0] == 200
        for path in ("/recommend?user=u1", "/openapi.json", "/metrics", "/nothing"):
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer korréct"}):
                status, found, headers = ask(number, path, **given)
                assert (status, headers["www-authenticate"]) == (401, "Bearer") and "token" in found["error"]
        assert ask(number, "/recommend?user=u1", Authorization="Bearer correct horse battery")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 421),
        ({"Host": "127.0.0.1:9"}, 200),
        ({"Host": "[::1]:9"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "[:"}, 421),
    ],
)
def test_pages_of_other_sites_get_nothing(port: int, headers: dict[str, str], status: int) -> None:
    assert ask(port, "/recommend?user=u1", **headers)[0] == status


def test_answers_keep_a_browser_safe(port: int) -> None:
    for path in ("/", "/page.js", "/recommend?user=u1", "/nothing"):
        headers = ask(port, path)[2]
        assert "default-src 'none'; script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert not any("access-control" in name for name in headers) and "server" not in headers


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_files_of_the_page(path: Path, port: int) -> None:
    """Each is served; none asks another host, or takes text for HTML."""
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert ask(port, "/" if path.name == "index.html" else f"/{path.name.removesuffix('.html')}")[0] == 200
    for word in ("http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacent", "eval(", "style=", "onclick="):
        assert word not in text, word


# ---------------------------------------------------------------------- items added, newer checkpoints


def test_items_are_added_for_every_process_and_checkpoint(small: World, tmp_path: Path) -> None:
    one, other, later = (Served(recommender_of(small), None) for _ in range(3))
    file = AddedItems(tmp_path / "added.jsonl")
    assert file.add(one, [Item("n1", "New"), Item("n2", "Newer", "Long.", {"genres": ("a", "b")})]) == ["n1", "n2"]
    assert file.add(other, [Item("n3", "Newest")]) == ["n3"]
    for served in (one, other, later):
        file.catch_up(served)
        file.catch_up(served)
        assert sorted(served.recommender.new) == ["n1", "n2", "n3"]  # each once
        assert served.added["n2"] == Item("n2", "Newer", "Long.", {"genres": ("a", "b")})
    assert one.find_items("new est", 5) == [{"item": "n3", "title": "Newest"}]


def test_an_item_that_cannot_be_added_is_nowhere(small: World, tmp_path: Path) -> None:
    served, file = Served(recommender_of(small), None), AddedItems(tmp_path / "added.jsonl")

    def fails(items: Any) -> Any:
        raise SettingError("no encoder")

    served.recommender.add_items = fails
    with pytest.raises(SettingError, match="no encoder"):
        file.add(served, [Item("n1", "New")])
    assert not served.is_known("item", "n1") and (tmp_path / "added.jsonl").read_bytes() == b""


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_newer_checkpoint_is_taken_and_a_damaged_one_is_not(
    small: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests go on meanwhile, and what was added is there again."""
    first, second = Served(recommender_of(small), None), Served(recommender_of(small, seed=7), None)
    other = Served(recommender_of(small), None)
    other.about = lambda: {"dataset": "another"}  # type: ignore[method-assign]
    next_ones: list[Any] = [CheckpointError("'model.pth' is damaged."), OSError("gone"), other, second]

    def load(sources: Sources) -> Served:
        found = next_ones.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    made, metrics, checkpoint = service_of(first, tmp_path, load)
    stop, statuses = threading.Event(), []

    def keep_asking(number: int) -> None:
        while not stop.is_set():
            statuses.append(ask(number, "/recommend?user=u1&k=3")[0])

    with running_service(made) as number, ThreadPoolExecutor(3) as pool, caplog.at_level(logging.INFO):
        pool.submit(keep_asking, number)
        assert ask(number, "/items", {"items": [{"item_id": "n1", "title": "New"}]})[:2] == (201, {"added": ["n1"]})
        for place, reason in enumerate(["is damaged", "gone", "of the dataset 'another', not of 'tiny'"], 1):
            checkpoint.write_bytes(b"x" * (place + 10))
            until(lambda: f'outcome="refused"}} {place}' in metrics.text())  # noqa: B023
            assert reason in caplog.text
            expected = first.recommender.recommend(["u1"], 3)["item"].tolist()
            assert [row["item"] for row in ask(number, "/recommend?user=u1&k=3")[1]["items"]] == expected
        checkpoint.write_bytes(b"whole")
        until(lambda: 'outcome="loaded"} 1' in metrics.text())
        expected = second.recommender.recommend(["u1"], 3)["item"].tolist()
        assert [row["item"] for row in ask(number, "/recommend?user=u1&k=3")[1]["items"]] == expected
        assert ask(number, "/items?item=n1")[1]["added"] and second.recommender.new == ["n1"]
        checkpoint.unlink()
        time.sleep(0.1)
        stop.set()
    assert set(statuses) == {200} and "was taken" in caplog.text and not next_ones


# ---------------------------------------------------------------------- the verb


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint=missing.pth", "--port=0"], "missing.pth"),
        ([], "Give --checkpoint=FILE"),
        (["--checkpoint=missing.pth", "--workers=0"], "--workers=0: expected at least 1"),
        (["--checkpoint=missing.pth", "--port=99999"], "--port=99999"),
        (["--checkpoint=missing.pth", "--port=0", "--host=192.0.2.1"], "--host=192.0.2.1"),
    ],
)
def test_the_verb_says_what_is_wrong(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and said in captured.err and captured.err.count("\n") == 1


def test_a_short_token_and_an_open_host_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(running.TOKEN, "short")
    assert main(["serve", "--checkpoint=missing.pth"]) == 2
    assert "RECBOLE_RLMREC_TOKEN has 5 characters" in capsys.readouterr().err
    monkeypatch.delenv(running.TOKEN)
    assert main(["serve", "--checkpoint=missing.pth", "--host=0.0.0.0", "--port=0"]) == 2
    assert "everybody who reaches 0.0.0.0 may use this service" in capsys.readouterr().out
