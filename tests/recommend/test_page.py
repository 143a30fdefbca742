"""The page in a real browser: pick, query, add an item by text, at a phone's width; nothing from another host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser
from conftest import World

from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from test_service import recommender_of, running_service, service_of

from recbole_rlmrec.recommend.service.served import Served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

#: A title that would be a fault of the page if it were taken for HTML.
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    world = World(folder / "dataset")
    write_items(world.folder / "items.jsonl", [Item(f"i{n}", f"Title {n} {HOSTILE}") for n in range(30)])
    made, *_ = service_of(Served(recommender_of(world), recommender_of(world, seed=7)), folder)
    with running_service(made) as number:
        yield number


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with Browser(folder / "profile") as found:
        yield found


@pytest.fixture(params=[(1280, 900), (360, 740)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, port: int) -> Iterator[Browser]:
    """The page, fresh; at the end nothing was wrong, wide, taken for HTML, or asked of another host."""
    browser.faults.clear()
    browser.requests.clear()
    browser.size(*request.param)
    browser.open(f"http://127.0.0.1:{port}/?{request.node.name}#user=u1")
    yield browser
    width = browser.evaluate("document.documentElement.scrollWidth")
    assert width <= request.param[0] and browser.evaluate("document.title") == "Recommendations"
    assert browser.evaluate("document.images.length") == 0
    assert browser.faults == []
    assert {urlsplit(each).netloc for each in browser.requests} == {f"127.0.0.1:{port}"}


def titles(page: Browser, side: str) -> list[Any]:
    found: list[Any] = page.evaluate(
        f"[...document.querySelectorAll('#{side} .ranked .title')].map((each) => each.textContent)"
    )
    return found


def text(page: Browser, place: str) -> str:
    return str(page.evaluate(f"document.getElementById('{place}').textContent"))


def test_a_user_is_picked_by_the_keyboard(page: Browser) -> None:
    """Both lists, what moved, and the history; then an item and its neighbours."""
    assert text(page, "who-title") == "User u1" and len(titles(page, "before")) == len(titles(page, "after")) == 10
    page.evaluate("document.getElementById('user').focus()")
    page.type("u2")
    page.wait("!document.getElementById('users').hidden")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown", "Enter"):
        page.press(key)
    page.wait("document.getElementById('who-title').textContent === 'User u20'")
    page.wait("document.getElementById('history').children.length && document.querySelector('[aria-busy=false]')")
    moves = page.evaluate("[...document.querySelectorAll('#after .move')].map((each) => each.textContent)")
    assert len(moves) == 10 and set(moves) - {"–"} and HOSTILE in titles(page, "after")[0]
    page.evaluate("document.querySelector('#after .ranked button').focus()")
    page.press("Enter")
    page.wait("document.getElementById('item').open")
    for near in ("near-text", "near-model"):
        assert page.evaluate(f"document.getElementById('{near}').children.length") == 10
    page.press("Escape")
    page.wait("!document.getElementById('item').open")


def test_a_sentence_changes_the_list(page: Browser) -> None:
    before = titles(page, "after")
    page.evaluate("document.getElementById('sentence').focus()")
    page.type("space battles")
    page.wait("document.getElementById('after-title').textContent === 'With the sentence'")
    assert titles(page, "before") == before and titles(page, "after") == before[::-1]
    assert not page.evaluate("document.getElementById('weight').disabled")
    page.evaluate("document.getElementById('sentence').select()")
    page.type(" ")
    page.wait("document.getElementById('after-title').textContent === 'LightGCN'")
    assert titles(page, "after") == before


def test_an_item_is_added_by_its_text(page: Browser, request: pytest.FixtureRequest) -> None:
    token = f"new-{len(request.node.name)}"
    page.evaluate("document.querySelector('#adding summary').click()")
    for field, content in (("new-id", token), ("new-title", f"The {token} film"), ("new-text", "Aliens.")):
        page.evaluate(f"document.getElementById('{field}').focus()")
        page.type(content)
    page.press("Tab")
    page.evaluate("document.querySelector('#add button').click()")
    page.wait("document.getElementById('item').open")
    assert text(page, "item-title") == f"The {token} film" and text(page, "item-profile") == "Aliens."
    assert "is ranked with the other items now" in text(page, "added")


def test_a_fault_is_said_and_the_page_goes_on(browser: Browser, port: int) -> None:
    browser.size(1280, 900)
    browser.open(f"http://127.0.0.1:{port}/?fault#user=u1")
    browser.evaluate("pickUser('u4x')")
    browser.wait("document.getElementById('status').textContent.includes('have no user')")
    browser.evaluate("pickUser('u5')")
    browser.wait("document.getElementById('status').textContent.trim() === ''")


def test_the_token_is_asked_for(browser: Browser, folder: Path) -> None:
    world = World(folder / "locked")
    (folder / "lock").mkdir()
    made, *_ = service_of(Served(recommender_of(world), None), folder / "lock", token="correct horse battery")
    with running_service(made) as number:
        browser._call("Page.navigate", url=f"http://127.0.0.1:{number}/")
        for token, ends in (
            ("wrong", "document.getElementById('locked-title').textContent !== 'Token'"),
            ("correct horse battery", "document.body.dataset.ready === 'yes'"),
        ):
            browser.wait("document.getElementById('locked')?.open")
            browser.evaluate("document.getElementById('token').focus()")
            browser.type(token)
            browser.press("Enter")
            browser.wait(ends)
        assert len(titles(browser, "after")) == 10


def test_the_page_of_the_interface(browser: Browser, port: int) -> None:
    browser.faults.clear()
    browser._call("Page.navigate", url=f"http://127.0.0.1:{port}/docs")
    browser.wait("document.querySelectorAll('.operation').length >= 9")
    assert "POST /items" in browser.evaluate("document.body.textContent") and browser.faults == []
