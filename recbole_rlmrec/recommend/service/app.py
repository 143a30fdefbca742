"""The service's paths: what may be asked, and how errors are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from recbole_rlmrec.errors import DataError, RLMRecError, ServiceError, SettingError
from recbole_rlmrec.recommend.free_text import WEIGHT
from recbole_rlmrec.recommend.service.batching import Batcher
from recbole_rlmrec.recommend.service.guard import App, Guard, RefusedError
from recbole_rlmrec.recommend.service.metrics import Metrics
from recbole_rlmrec.recommend.service.served import Live, Served, Sources
from recbole_rlmrec.sides import Side
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import item_of
from recbole_rlmrec.text.json_lines import MalformedLineError, parse_json
from recbole_rlmrec.version import __version__

_logger = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page"
#: Path -> file and its kind.
_FILES = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/docs.js": ("docs.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

#: Length of the longest list, and characters of the longest sentence.
LONGEST_LIST, LONGEST_QUERY = 1000, 2000
#: Items that are added at once.
MOST_AT_ONCE = 100

_LENGTH = Field(10, ge=1, le=LONGEST_LIST, description="length of the list; where there is less, it is shorter")
_SEEN = Field(False, description="list items that the user has already, too")


class _Asked(BaseModel):
    """What may stand behind the question mark; other names are refused."""

    model_config = ConfigDict(extra="forbid")


class _Lists(_Asked):
    user: str = Field(description="id")
    k: int = _LENGTH
    include_seen: bool = _SEEN
    compare: bool = Field(False, description="the base's list as well, and each item's rank in it")


class _Sentence(_Asked):
    text: str = Field(max_length=LONGEST_QUERY, description="a sentence, in the language of the dataset's texts")
    user: str | None = Field(None, description="id of a user to mix it with")
    weight: float = Field(WEIGHT, ge=0, le=1, description="of the sentence beside the user")
    k: int = _LENGTH
    include_seen: bool = _SEEN


class _Neighbours(_Asked):
    item: str | None = Field(None, description="id of an item, or")
    user: str | None = Field(None, description="id of a user")
    k: int = _LENGTH


class _Users(_Asked):
    user: str | None = Field(None, description="id of a user to look at, or")
    search: str | None = Field(None, max_length=200, description="beginning of ids")
    k: int = _LENGTH


class _Items(_Asked):
    item: str | None = Field(None, description="id of an item to look at, or")
    search: str | None = Field(None, max_length=200, description="words of titles, or ids")
    k: int = _LENGTH


@dataclass(frozen=True)
class AppSettings:
    """How a service answers.

    Attributes:
        token: that a request has to name; empty for none.
        only_loopback: see :class:`~recbole_rlmrec.recommend.service.guard.Guard`.
    """

    token: str = ""
    only_loopback: bool = True


def loaded_app(sources: Sources, settings: AppSettings) -> App:
    """Load the model and return the service; each process of it calls this.

    Raises:
        RLMRecError: the model cannot be loaded.
    """
    served, metrics = Served.load(sources), Metrics()
    served.warm_up()
    return app_of(Live(served, sources, metrics), metrics, settings)


def app_of(live: Live, metrics: Metrics, settings: AppSettings) -> App:
    """Return the service of a model.

    Args:
        live: the model.
        metrics: counts what is answered.
        settings: see there.
    """
    service = _Service(live, metrics)
    app = FastAPI(
        title="recbole_rlmrec",
        version=__version__,
        description="What a trained model recommends.",
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        lifespan=service.lifespan,
    )
    answers: dict[str, Callable[..., Any]] = {
        "/recommend": service.recommend,
        "/similar": service.similar,
        "/query": service.query,
        "/users": service.users,
        "/items": service.items,
        "/model": service.model,
    }
    for path, answer in answers.items():
        app.get(path)(answer)
    app.post("/items", openapi_extra=_body_of_items())(service.add_items)

    @app.get("/health")
    async def health() -> Response:
        """Say that the service is up, and whether it asks for a token."""
        return JSONResponse({"status": "ok", "needs_token": bool(settings.token)})

    @app.get("/metrics")
    async def counted() -> Response:
        """Return counters and times in the text format of Prometheus."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    for path, (name, kind) in _FILES.items():
        app.get(path, include_in_schema=False)(_file(_PAGE / name, kind))
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RLMRecError, _answer_fault)
    app.add_exception_handler(RefusedError, _answer_refused)
    app.add_exception_handler(Exception, _answer_unexpected)
    paths = {route.path for route in app.routes if hasattr(route, "path")}
    return Guard(
        app,
        metrics,
        paths=paths,
        open_paths={"/health", *_FILES},
        token=settings.token,
        only_loopback=settings.only_loopback,
    )


class _Service:
    """Answers what is asked; the model is used by one thread.

    Args:
        live: the model.
        metrics: counts the batches.
    """

    def __init__(self, live: Live, metrics: Metrics) -> None:
        self._live, self._batcher = live, Batcher(metrics)
        # One at a time: the search for the nearest id must not take the processor from everybody else.
        self._searching = asyncio.Semaphore(1)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Close what runs beside, at the end."""
        yield
        await asyncio.to_thread(self._live.close)
        await asyncio.to_thread(self._batcher.close)

    async def recommend(self, asked: Annotated[_Lists, Query()]) -> Response:
        """Recommend items to a user."""
        await self._require("user", asked.user)
        work = partial(self._lists, k=asked.k, include_seen=asked.include_seen, compare=asked.compare)
        key = ("lists", asked.k, asked.include_seen, asked.compare)
        return JSONResponse(await self._batcher.together(key, work, asked.user))

    def _lists(self, users: Any, *, k: int, include_seen: bool, compare: bool) -> dict[str, Any]:
        served = self._live.current()
        # A newer checkpoint may lack a user whom the one before had.
        known = [user for user in users if served.is_known("user", user)]
        found: dict[str, Any] = served.lists(known, k, include_seen=include_seen, compare=compare)
        return {user: RefusedError(404, f"The newer checkpoint has no user {user!r}.") for user in users} | found

    async def query(self, asked: Annotated[_Sentence, Query()]) -> Response:
        """Recommend items for a sentence, alone or mixed with a user."""
        if asked.user is not None:
            await self._require("user", asked.user)
        return await self._answer(
            lambda served: served.query(asked.text, asked.k, asked.user, asked.weight, include_seen=asked.include_seen)
        )

    async def similar(self, asked: Annotated[_Neighbours, Query()]) -> Response:
        """Return neighbours: of an item in behaviour and in text, or of a user in behaviour."""
        _require_one(item=asked.item, user=asked.user)
        if asked.item is not None:
            item = asked.item
            await self._require("item", item)
            return await self._answer(lambda served: served.similar_items(item, asked.k))
        user = str(asked.user)
        await self._require("user", user)
        return await self._answer(lambda served: served.similar_users(user, asked.k))

    async def users(self, asked: Annotated[_Users, Query()]) -> Response:
        """Look at a user (profile and history), or search ids by their beginning."""
        return await self._look("user", asked.user, asked.search, (Served.user, Served.find_users), asked.k)

    async def items(self, asked: Annotated[_Items, Query()]) -> Response:
        """Look at an item (title and profile), or search titles."""
        return await self._look("item", asked.item, asked.search, (Served.item, Served.find_items), asked.k)

    async def _look(
        self,
        side: Side,
        token: str | None,
        search: str | None,
        ways: tuple[Callable[..., Any], Callable[..., Any]],
        k: int,
    ) -> Response:
        """Answer what is known of an id, or which ids are found.

        Args:
            side: whose.
            token: the id, or None.
            search: what is searched for, or None.
            ways: what describes an id of the side, and what finds some.
            k: how many at most.
        """
        _require_one(**{side: token, "search": search})
        if token is None:
            return await self._answer(lambda served: {f"{side}s": ways[1](served, search or "", k)})
        await self._require(side, token)
        return await self._answer(lambda served: ways[0](served, token))

    async def add_items(self, request: Request) -> Response:
        """Add items by their text: from then on they are ranked together with the known ones."""
        items = _items_of(request, await request.body())
        tokens = await self._batcher.alone(lambda: self._live.added.add(self._live.current(), items))
        return JSONResponse({"added": tokens}, status_code=201)

    async def model(self) -> Response:
        """Say what is served: model, base, dataset, checkpoint, numbers of users and items."""
        return await self._answer(Served.about)

    async def _answer(self, ask: Callable[[Served], Any]) -> Response:
        return JSONResponse(await self._batcher.alone(lambda: ask(self._live.current())))

    async def _require(self, side: Side, token: str) -> None:
        """Check that there is a user or an item.

        Raises:
            DataError: there is none; the nearest id is named.
        """
        served = self._live.served
        if served.is_known(side, token):
            return
        # Another process may have been given it, which the thread that uses the model sees.
        if await self._batcher.alone(lambda: self._live.current().is_known(side, token)):
            return
        async with self._searching:
            try:
                await asyncio.to_thread(served.require_known, side, token)
            except DataError as error:
                raise RefusedError(404, str(error)) from None


def _require_one(**given: str | None) -> None:
    """Check that one of several is given.

    Raises:
        RefusedError: none is, or several are.
    """
    if sum(value is not None for value in given.values()) != 1:
        raise RefusedError(422, f"Give one of {' and '.join(given)}.")


def _items_of(request: Request, body: bytes) -> list[Item]:
    """Return the items of a body.

    Raises:
        RefusedError: it is something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":  # what a page of another site can send unasked is of another kind
        raise RefusedError(415, f"The body is {kind or 'of no kind'!r}, expected 'Content-Type: application/json'.")
    try:
        found = parse_json(body)
        items = found.get("items") if isinstance(found, dict) else None
        if not isinstance(items, list) or not all(isinstance(each, dict) for each in items) or not items:
            raise MalformedLineError(
                'holds no list of items, expected {"items": [{"item_id": "new-1", "title": "..."}]}'
            )
        if len(items) > MOST_AT_ONCE:
            raise MalformedLineError(f"holds {len(items):,} items, expected at most {MOST_AT_ONCE}")
        known = [item_of(each) for each in items]
    except MalformedLineError as error:
        raise RefusedError(422, f"The body {error}.") from None
    for number, item in enumerate(known):
        if not item.has_text:
            raise RefusedError(422, f"The item {item.token!r} has no text: give a title, a description or attributes.")
        if item.token in {other.token for other in known[:number]}:
            raise RefusedError(422, f"The body repeats the item {item.token!r}.")
    return known


def _body_of_items() -> dict[str, Any]:
    """Return what OpenAPI says of the body of new items: objects as in ``items.jsonl``."""
    text = {"type": "string"}
    item = {
        "type": "object",
        "required": ["item_id"],
        "properties": {"item_id": text, "title": text, "description": text, "attributes": {"type": "object"}},
    }
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_AT_ONCE}
    schema = {"type": "object", "required": ["items"], "properties": {"items": items}}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _file(path: Path, kind: str) -> Callable[[], Any]:
    async def answer() -> Response:
        return FileResponse(path, media_type=kind)

    return answer


# ---------------------------------------------------------------------- errors


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


async def _answer_invalid(_: Request, error: Any) -> Response:
    # A misspelt name also makes the right one missing.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"][1:]) or "The request"
    if first["type"] == "extra_forbidden":
        return _error(422, f"There is no parameter {place!r}: /docs lists those that there are.")
    found = "" if first["type"] == "missing" else f"; found {str(first['input'])[:100]!r}"
    return _error(422, f"{place}: {first['msg']}{found}.")


async def _answer_http(_: Request, error: Any) -> Response:
    said = {404: "There is no such path: /docs lists those that there are.", 405: "This path takes another method."}
    return _error(error.status_code, said.get(error.status_code, str(error.detail)))


async def _answer_refused(_: Request, error: Any) -> Response:
    return _error(error.status, error.message)


async def _answer_fault(_: Request, error: Any) -> Response:
    status = 503 if isinstance(error, ServiceError) else 422 if isinstance(error, (DataError, SettingError)) else 500
    return _error(status, str(error))


async def _answer_unexpected(_: Request, error: Any) -> Response:
    return _error(500, "Something went wrong here; the log of the service says what.")
