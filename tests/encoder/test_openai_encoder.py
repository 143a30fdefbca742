"""The OpenAI encoder against a real server on this machine, faults included."""

from __future__ import annotations

import base64
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_server import LoopbackServer, embedding

from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.encoder.base import Encoder, EncoderSettings, make_encoder
from recbole_rlmrec.encoder.encode import encode_texts
from recbole_rlmrec.encoder.summary import EncodeSummary
from recbole_rlmrec.errors import DataError, ServiceError, SettingError
from recbole_rlmrec.sides import Side

KEY = "sk-test-0123456789abcdef"
TEXTS = [f"text number {number}" for number in range(23)]


class AlteredServer(LoopbackServer):
    """Changes the answers of the embeddings endpoint."""

    def __init__(self, alter: Callable[[dict[str, Any]], Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.alter = alter

    def _embeddings(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        status, answer = super()._embeddings(body)
        return status, self.alter(answer)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def encoder_of(server: LoopbackServer, **settings: Any) -> Encoder:
    given = {"model": "m", "batch_size": 4, "concurrency": 3, "timeout": 1.0, "max_retries": 6, **settings}
    return make_encoder("openai", EncoderSettings(base_url=server.base_url, key_variable="MY_KEY", **given))


def expected(texts: list[str], dimension: int = 8) -> np.ndarray:
    return np.stack([embedding(text, dimension) for text in texts])


def test_vectors_come_in_the_order_of_the_texts() -> None:
    def shuffled(answer: dict[str, Any]) -> dict[str, Any]:
        answer["data"] = answer["data"][::-1]
        return answer

    with AlteredServer(shuffled, key=KEY, delay=0.02) as server:
        encoder = encoder_of(server)
        vectors = encoder.encode(TEXTS)
        assert server.in_flight_max == 3
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    assert sorted(len(request.body["input"]) for request in server.requests) == [3, 4, 4, 4, 4, 4]
    assert {request.body["encoding_format"] for request in server.requests} == {"float"}
    assert "counted 69 tokens" in encoder.notes()[0]  # three words a text
    assert encoder.name == "openai:m" and encoder.block_size == 12


def test_options_reach_the_server_and_the_name() -> None:
    with LoopbackServer() as server:
        encoder = encoder_of(server, dimension=5, prompt="query: ")
        vectors = encoder.encode(TEXTS[:2])
    np.testing.assert_array_equal(vectors, expected([f"query: {text}" for text in TEXTS[:2]], 5))
    assert server.requests[0].body["dimensions"] == 5
    assert encoder.name == "openai:m, 5 dimensions, prompt 'query: '"


def test_a_busy_server_is_asked_again() -> None:
    with LoopbackServer({"rate_limit": 0.3, "server_error": 0.2}, seed=2) as server:
        np.testing.assert_array_equal(encoder_of(server).encode(TEXTS), expected(TEXTS))
    assert server.fault_counts().keys() == {"rate_limit", "server_error"}


def test_a_request_that_is_too_large_as_a_whole_is_split() -> None:
    class Small(LoopbackServer):
        def _embeddings(self, body: Mapping[str, Any]) -> tuple[int, Any]:
            if len(body["input"]) > 2:
                return 400, {"error": {"message": "Too many tokens in one request."}}
            return super()._embeddings(body)

    with Small() as server:
        encoder = encoder_of(server, batch_size=8)
        np.testing.assert_array_equal(encoder.encode(TEXTS), expected(TEXTS))
    assert "counted 69 tokens" in encoder.notes()[0]


def test_the_text_that_is_too_long_is_named(tmp_path: Path) -> None:
    texts: dict[Side, dict[str, str]] = {
        "user": {f"u{number}": text for number, text in enumerate(TEXTS)},
        "item": {"i": "short"},
    }
    texts["user"]["u17"] = "long " * 20
    with LoopbackServer(max_characters=40) as server:
        with pytest.raises(ServiceError, match=r"the user 'u17' \(100 characters\).*maximum context length") as caught:
            encode_texts(tmp_path, "x", texts, encoder_of(server), progress=False)
        assert "HTTP 400" in str(caught.value)
        texts["user"]["u17"] = "shorter"
        encode_texts(tmp_path, "x", texts, encoder_of(server), progress=False)
    vectors = SemanticEmbedding.load([tmp_path], "x", "user").vectors
    exact = expected(list(texts["user"].values())).astype(np.float64)
    np.testing.assert_allclose(vectors, exact / np.linalg.norm(exact, axis=1, keepdims=True), rtol=1e-6)


def test_a_server_that_goes_away_loses_nothing(tmp_path: Path) -> None:
    texts: dict[Side, dict[str, str]] = {"user": {text: text for text in TEXTS}, "item": {"i": "short"}}
    with LoopbackServer(models={"m"}) as server:
        first = encoder_of(server, concurrency=1)

        class Leaving(type(first)):  # type: ignore[misc]
            def encode(self, texts: Any) -> np.ndarray:
                vectors = super().encode(texts)
                server.models = {"another"}
                return vectors

        first.__class__ = Leaving
        with pytest.raises(ServiceError, match="does not find the model 'm'"):
            encode_texts(tmp_path, "x", texts, first, progress=False)
        server.models = {"m"}
        n_requests = len(server.requests)
        assert encode_texts(tmp_path, "x", texts, encoder_of(server, concurrency=1), progress=False).resumed == 4
        assert TEXTS[3] not in "\n".join(request.text for request in server.requests[n_requests:]).split("\n")


def test_wrong_key_and_unreachable_server(tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    texts: dict[Side, dict[str, str]] = {"user": {"u": "text"}, "item": {"i": "text"}}
    with (
        LoopbackServer(key="another") as server,
        pytest.raises(ServiceError, match=r"refuses the key in .* MY_KEY") as no,
    ):
        encode_texts(tmp_path, "x", texts, encoder_of(server), progress=False)
    assert len(server.requests) == 1
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = EncoderSettings("m", base_url=f"http://127.0.0.1:{port}/v1", key_variable="MY_KEY", max_retries=0)
    with pytest.raises(ServiceError, match=f"127.0.0.1:{port}/v1 cannot be reached") as gone:
        encode_texts(tmp_path, "x", texts, make_encoder("openai", settings), progress=False)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ServiceError, match="environment variable MY_KEY is not set"):
        make_encoder("openai", EncoderSettings("m", key_variable="MY_KEY")).encode(["a"])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in f"{no.value}{gone.value}{caplog.text}{written!r}"


def drop_one(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": answer["data"][1:]}


def same_index(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": [{**each, "index": 0} for each in answer["data"]]}


def no_numbers(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": [{**each, "embedding": ["a"]} for each in answer["data"]]}


def uneven(answer: dict[str, Any]) -> dict[str, Any]:
    answer["data"][0]["embedding"] = [1.0]
    return answer


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (drop_one, "1 vectors with 1 different 'index' for 2 texts"),
        (same_index, "2 vectors with 1 different 'index' for 2 texts"),
        (no_numbers, "an 'embedding' that is no list of numbers"),
        (uneven, r"vectors of the lengths \[1, 8\]"),
        (lambda answer: {"answer": 42}, "an answer without 'data'"),
        (lambda answer: [1, 2], "returned an answer without 'data'"),
    ],
)
def test_unusable_answers_are_said(alter: Callable[[dict[str, Any]], Any], said: str) -> None:
    with AlteredServer(alter) as server, pytest.raises(ServiceError, match=said):
        encoder_of(server).encode(TEXTS[:2])


def test_a_page_instead_of_json_is_said() -> None:
    with LoopbackServer({"no_json": 1.0}) as server, pytest.raises(ServiceError, match="OpenAI-compatible"):
        encoder_of(server).encode(TEXTS[:2])


def test_settings_that_cannot_be_used_are_said() -> None:
    with pytest.raises(SettingError, match="openai needs a model, such as text-embedding-3-small"):
        make_encoder("openai", EncoderSettings())
    with pytest.raises(SettingError, match="openai cannot use device"):
        make_encoder("openai", EncoderSettings("m", device="cpu"))


# ---------------------------------------------------------------------- fields, steps back, and what is kept


def without_index(*places: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def alter(answer: dict[str, Any]) -> dict[str, Any]:
        for place in places or range(len(answer["data"])):
            del answer["data"][place]["index"]
        return answer

    return alter


def index_0_last(answer: dict[str, Any]) -> dict[str, Any]:
    del answer["data"][0]["index"]
    return {**answer, "data": answer["data"][::-1]}


def as_floats(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": [{**each, "index": float(each["index"])} for each in answer["data"][::-1]]}


def in_base64(answer: dict[str, Any]) -> dict[str, Any]:
    for each in answer["data"]:
        each["embedding"] = base64.b64encode(np.array(each["embedding"], dtype="<f4").tobytes()).decode()
    return answer


@pytest.mark.parametrize(
    "alter", [without_index(), without_index(0), index_0_last, without_index(1, 2), as_floats, in_base64]
)
def test_places_stand_in_for_a_missing_index(alter: Callable[[dict[str, Any]], Any]) -> None:
    with AlteredServer(alter) as server:
        np.testing.assert_array_equal(encoder_of(server).encode(TEXTS[:4]), expected(TEXTS[:4]))


@pytest.mark.parametrize("usage", ["many", [1], {"total_tokens": -5}, {"total_tokens": 10**400}, None, True, {}])
def test_usage_of_any_form(usage: Any) -> None:
    with AlteredServer(lambda answer: {**answer, "usage": usage}) as server:
        encoder = encoder_of(server)
        np.testing.assert_array_equal(encoder.encode(TEXTS[:2]), expected(TEXTS[:2]))
        assert encoder.notes() == ()


@pytest.mark.parametrize("index", [[0], "0", 0.5, -1, 7, True, {}, 10**400])
def test_an_index_of_another_kind_is_said(index: Any) -> None:
    def alter(answer: dict[str, Any]) -> dict[str, Any]:
        answer["data"][0]["index"] = index
        return answer

    with AlteredServer(alter) as server, pytest.raises(ServiceError, match="different 'index' for 2 texts"):
        encoder_of(server).encode(TEXTS[:2])


def count_texts(server: LoopbackServer) -> Counter[str]:
    return Counter(text for request in server.requests for text in request.body["input"])


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 1e39, "1.0", 10**400, [1.0]])
def test_a_value_that_is_no_number_loses_no_other_vector(tmp_path: Path, value: Any) -> None:
    """Each vector is asked and paid for once, whatever another text of its batch came with."""
    broken = True

    def alter(answer: dict[str, Any]) -> dict[str, Any]:
        for each, text in zip(answer["data"], server.requests[-1].body["input"]):
            if broken and text == TEXTS[5]:
                each["embedding"][3] = value
        return answer

    texts: dict[Side, dict[str, str]] = {"user": {f"u{n}": text for n, text in enumerate(TEXTS)}, "item": {"i": "item"}}
    with AlteredServer(alter) as server:
        with pytest.raises(ServiceError, match=r"the user 'u5' .* an 'embedding' that is no list of numbers"):
            encode_texts(tmp_path, "x", texts, encoder_of(server, concurrency=1, batch_size=8), progress=False)
        broken = False
        encode_texts(tmp_path, "x", texts, encoder_of(server, concurrency=1, batch_size=8), progress=False)
        assert count_texts(server) == Counter([*TEXTS, "item", TEXTS[5]])
    vectors = SemanticEmbedding.load([tmp_path], "x", "user").vectors
    exact = expected(TEXTS).astype(np.float64)
    np.testing.assert_allclose(vectors, exact / np.linalg.norm(exact, axis=1, keepdims=True), rtol=1e-6)
    assert [path.name for path in tmp_path.iterdir() if "encode" in path.name] == []


class ChosenServer(LoopbackServer):
    """Refuses an embeddings request where ``refuse`` returns an error."""

    def __init__(self, refuse: Callable[[Mapping[str, Any]], tuple[int, Any] | None], **settings: Any) -> None:
        super().__init__(**settings)
        self.refuse = refuse

    def _embeddings(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        return self.refuse(body) or super()._embeddings(body)


def refusal(status: int, message: str, **more: Any) -> tuple[int, Any]:
    return status, {"error": {"message": message, **more}}


@pytest.mark.parametrize("status", [400, 500])
def test_the_text_that_a_model_fails_at_is_found_and_named(tmp_path: Path, status: int) -> None:
    def refuse(body: Mapping[str, Any]) -> tuple[int, Any] | None:
        return refusal(status, "unsupported value: NaN") if TEXTS[5] in body["input"] else None

    texts: dict[Side, dict[str, str]] = {"user": {f"u{n}": text for n, text in enumerate(TEXTS)}, "item": {"i": "item"}}
    with (
        ChosenServer(refuse) as server,
        pytest.raises(ServiceError, match=rf"the user 'u5' .*HTTP {status}: unsupported value: NaN"),
    ):
        encode_texts(tmp_path, "x", texts, encoder_of(server, max_retries=1), progress=False)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_fails_at_every_text_blames_none(tmp_path: Path, status: int) -> None:
    texts: dict[Side, dict[str, str]] = {"user": {"u": TEXTS[0]}, "item": {"i": "item"}}
    with (
        ChosenServer(lambda body: refusal(status, "This model makes no embeddings.")) as server,
        pytest.raises(ServiceError, match=rf"for the model 'm': HTTP {status}: This model makes no") as error,
    ):
        encode_texts(tmp_path, "x", texts, encoder_of(server, max_retries=0), progress=False)
    assert "profile" not in str(error.value)


@pytest.mark.parametrize("message", ["batch size 4 > maximum allowed batch size 2", "Too many inputs in a batch."])
def test_a_batch_size_that_is_refused_is_learned(message: str) -> None:
    def refuse(body: Mapping[str, Any]) -> tuple[int, Any] | None:
        return refusal(422, message) if len(body["input"]) > 2 else None

    with ChosenServer(refuse) as server:
        encoder = encoder_of(server, concurrency=1)
        np.testing.assert_array_equal(encoder.encode(TEXTS[:4]), expected(TEXTS[:4]))
        n_requests = len(server.requests)
        np.testing.assert_array_equal(encoder.encode(TEXTS[4:8]), expected(TEXTS[4:8]))
        assert len(server.requests) == n_requests + 2


@pytest.mark.parametrize(
    "error",
    [
        refusal(400, "Unknown parameter: 'encoding_format'."),
        (422, {"detail": [{"loc": ["body", "encoding_format"], "msg": "Extra inputs are not permitted"}]}),
    ],
)
def test_a_server_without_encoding_format(error: tuple[int, Any]) -> None:
    with ChosenServer(lambda body: error if "encoding_format" in body else None) as server:
        np.testing.assert_array_equal(encoder_of(server, concurrency=1).encode(TEXTS), expected(TEXTS))
    assert sum("encoding_format" in request.body for request in server.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        refusal(400, "This model does not support specifying dimensions."),
        refusal(400, "Not Matryoshka."),
        (422, {"detail": [{"loc": ["body", "dimensions"], "msg": "Extra inputs are not permitted"}]}),
        None,
    ],
)
def test_a_server_without_dimensions(error: tuple[int, Any] | None) -> None:
    class Deaf(ChosenServer):
        def _embeddings(self, body: Mapping[str, Any]) -> tuple[int, Any]:
            refused = self.refuse(body)
            return refused or LoopbackServer._embeddings(self, {**body, "dimensions": None})

    with (
        Deaf(lambda body: error if "dimensions" in body else None) as server,
        pytest.raises(SettingError, match=r"Leave the dimension out \(--dimension\)") as said,
    ):
        encoder_of(server, dimension=4).encode(TEXTS[:2])
    assert "profile" not in str(said.value)


def test_an_error_in_an_answer_of_200_is_shown() -> None:
    error = {"error": {"message": f"No providers for {KEY}.", "code": 404}}
    with AlteredServer(lambda answer: error) as server, pytest.raises(ServiceError, match=r"404: No providers for \[k"):
        encoder_of(server).encode(TEXTS[:2])


def test_vectors_too_large_for_float16_are_not_paid_for_twice(tmp_path: Path) -> None:
    def large(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "data": [{**each, "embedding": [1e5, 1.0]} for each in answer["data"]]}

    texts: dict[Side, dict[str, str]] = {"user": {"u": "one"}, "item": {"i": "two"}}
    with AlteredServer(large) as server:
        with pytest.raises(DataError, match="float16"):
            encode_texts(tmp_path, "x", texts, encoder_of(server), float16=True, normalize=False, progress=False)
        encode_texts(tmp_path, "x", texts, encoder_of(server), normalize=False, progress=False)
    assert count_texts(server) == Counter(["one", "two"])
    assert SemanticEmbedding.load([tmp_path], "x", "user").vectors.tolist() == [[1e5, 1.0]]


# ---------------------------------------------------------------------- what is paid for once


class PaidServer(LoopbackServer):
    """Counts the texts that it answered, and can fail at one of them.

    Attributes:
        paid: text -> how often its vector was sent.
        fails_at: the text whose requests get status 400; none if empty.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.paid: Counter[str] = Counter()
        self.fails_at = ""

    def _embeddings(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        if self.fails_at in body["input"]:
            return refusal(400, "This model's maximum context length is 8192 tokens.")
        self.paid.update(set(body["input"]) - {"text"})  # without the text that shows whether it works at all
        return super()._embeddings(body)


def sides_of(users: list[str], items: list[str]) -> dict[Side, dict[str, str]]:
    return {"user": {f"u{n}": text for n, text in enumerate(users)}, "item": {f"i{n}": t for n, t in enumerate(items)}}


def run_to(
    folder: Path,
    server: PaidServer,
    users: list[str],
    items: list[str],
    fails_at: str = "",
    *,
    model: str = "m",
    learns: bool = False,
    **options: Any,
) -> EncodeSummary | None:
    """Encode texts four at a time; up to one that the server refuses, where it does."""
    server.fails_at = fails_at
    encoder = encoder_of(server, model=model, concurrency=1)
    encoder.learns_from_texts = learns
    try:
        return encode_texts(folder, "x", sides_of(users, items), encoder, progress=False, overwrite=True, **options)
    except ServiceError:
        assert fails_at
        return None


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ITEMS = [f"item number {number}" for number in range(6)]
# Other users than before: one is corrected, one is new, one is gone, and the order is another.
CORRECTED = [TEXTS[20], "a new one", *TEXTS[5:20], "corrected", TEXTS[0], *TEXTS[2:5]]


def assert_paid_once(server: PaidServer) -> None:
    assert [text for text, number in server.paid.items() if number > 1] == []


@pytest.mark.parametrize(("fails_at", "options"), [(TEXTS[17], {}), (ITEMS[5], {"float16": True})])
def test_texts_that_were_not_corrected_are_paid_for_once(tmp_path: Path, fails_at: str, options: Any) -> None:
    """Whatever stopped the runs before: the tables are those of one run."""
    with PaidServer() as server:
        run_to(tmp_path / "a", server, TEXTS, ITEMS, fails_at, **options)
        run_to(tmp_path / "a", server, CORRECTED, ITEMS, "corrected", **options)
        run_to(tmp_path / "a", server, [*CORRECTED[:-3], "second", *CORRECTED[-2:]], ITEMS, "second", **options)
        run_to(tmp_path / "a", server, CORRECTED, ITEMS, **options)
        assert_paid_once(server)
        run_to(tmp_path / "b", server, CORRECTED, ITEMS, **options)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"float16": True}), ({"normalize": False}, {"float16": True})],  # as is advised where the disk is full
)
def test_vectors_in_another_form_are_paid_for_once(tmp_path: Path, first: Any, second: Any) -> None:
    """Where they follow from those that are there; also after a run with another model."""
    with PaidServer() as server:
        run_to(tmp_path / "a", server, TEXTS, ITEMS, TEXTS[17], **first)
        paid = server.paid.copy()
        run_to(tmp_path / "a", server, TEXTS, ITEMS, TEXTS[7], model="a typing error", **first)
        server.paid = paid
        run_to(tmp_path / "a", server, TEXTS, ITEMS, **second)
        assert_paid_once(server)
        run_to(tmp_path / "b", server, TEXTS, ITEMS, **second)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_vectors_of_another_model_under_the_same_name_are_not_mixed(tmp_path: Path) -> None:
    with PaidServer() as server:
        run_to(tmp_path / "a", server, TEXTS, ITEMS, TEXTS[3])
        server.dimension = 16
        run_to(tmp_path / "a", server, TEXTS, ITEMS)
        run_to(tmp_path / "b", server, TEXTS, ITEMS)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_what_an_encoder_learned_from_other_texts_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PaidServer() as server:
        run_to(tmp_path / "a", server, TEXTS, ITEMS, TEXTS[17], learns=True)
        summary = run_to(tmp_path / "a", server, CORRECTED, ITEMS, learns=True)
    assert summary is not None and summary.taken == 0
    assert "it is dropped, and encoding starts from the first text" in caplog.text
