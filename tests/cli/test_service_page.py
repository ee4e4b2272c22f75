"""The page of a run: its files, its pictures, and what it keeps."""

from __future__ import annotations

import asyncio
import io
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from http_service import picture, serving
from PIL import Image
from small_tasks import task_bundle
from splitpoint.cli.service.figures import MOST_EVENTS, Events
from splitpoint.cli.service.pictures import LOOKED_S, Pictures
from splitpoint.edge import Outcome, Result
from splitpoint.edge.sinks.annotated import Drawing
from splitpoint.edge.sources.source import InputFeed, every_picture
from splitpoint.partition.bundle.bundle import Bundle

VOID = {"meta", "link", "input", "img", "br"}
PAGES = ("page.html", "login.html", "worker.html")


def text_of(name: str) -> str:
    return (files("splitpoint.cli.service") / name).read_text(encoding="utf-8")


class Strict(HTMLParser):
    """Every element that is opened is closed, in its place; ids are there once."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            assert not data.strip(), "nothing may stand inline"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_well_formed_and_take_nothing_from_elsewhere(name: str) -> None:
    parser = Strict()
    parser.feed(text_of(name))
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert text_of(name).startswith("<!DOCTYPE html>")
    for tag, attribute, value in parser.attributes:
        assert not attribute.startswith("on"), "no script in attributes"
        assert attribute != "style"
        if attribute in ("src", "href", "action"):
            assert value.startswith("/"), (tag, value)


@pytest.mark.parametrize("name", [*PAGES, "page.css", "page.js"])
def test_no_file_names_another_host(name: str) -> None:
    assert not re.search(r"https?://|url\(|@import|//[a-z]+\.", text_of(name))


def test_the_script_shows_text_only() -> None:
    code = text_of("page.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", code
    )
    for each in re.findall(r'(?:byId|show)\("([\w-]+)"', code):
        assert f'id="{each}"' in text_of("page.html"), each


async def test_the_files_are_given_as_they_are(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        for path, name, kind in (
            ("/", "page.html", "text/html"), ("/page.css", "page.css", "text/css"),
            ("/page.js", "page.js", "text/javascript"), ("/icon.svg", "icon.svg", "image/svg+xml"),
        ):  # fmt: skip
            answer = await served.ask("GET", path)
            assert answer.body.decode() == text_of(name)
            assert answer.headers["Content-Type"].startswith(kind)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy


@pytest.mark.parametrize("head", ["", "yolo", "segment"])
async def test_the_latest_picture_with_what_was_found(head: str, small_bundle: Bundle) -> None:
    bundle = task_bundle(head) if head else small_bundle
    async with serving(bundle, min_score=0.0) as served:
        assert (await served.ask("POST", "/infer", picture())).status == 200
        first = await served.ask("GET", "/picture?source=0")
        assert first.status == 204  # nobody had looked, and no picture was kept
        body = picture(1, width=320, height=240)
        assert (await served.ask("POST", "/infer", body)).status == 200
        answer = await served.ask("GET", "/picture?source=0&after=1")
        assert answer.headers["Content-Type"] == "image/jpeg"
        number = answer.headers["X-Frame-Id"]
        shown = Image.open(io.BytesIO(answer.body))
        assert shown.size == (320, 240)
        given = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), np.int16)
        assert np.abs(np.asarray(shown, np.int16) - given).mean() > 5  # it was drawn on
        again = await served.ask("GET", f"/picture?source=0&after={number}")
        assert again.status == 204


async def test_pictures_are_kept_and_drawn_only_while_somebody_looks(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    now_s = [0.0]

    class Counting(Drawing):
        def drawn(self, result: Result, *others: object) -> Image.Image:
            drawn.append(result.id)
            return super().drawn(result, *others)  # type: ignore[arg-type]

    pictures = Pictures(Counting("classify", []), clock=lambda: now_s[0])
    feed = InputFeed.of(small_bundle.manifest, every_picture)

    def result(number: int) -> Result:
        origin = feed.of_content(picture(), "a").metadata
        logits = {"output": np.zeros((1, 5), np.float32)}
        return Result(id=number, outcome=Outcome.LOCAL, boundary=4, codec="none", outputs=logits,
                      metadata=origin)  # fmt: skip

    assert not pictures.keeps(100)
    pictures.add("own", result(1))
    assert await pictures.latest("own") is None
    assert pictures.keeps(100)
    assert not pictures.keeps(100_000_000)
    for number in range(2, 6):
        pictures.add("own", result(number))
    assert drawn == []
    both = await asyncio.gather(pictures.latest("own"), pictures.latest("own"))
    assert [found and found[0] for found in both] == [5, 5]
    assert drawn == [5]  # once for both
    now_s[0] = LOOKED_S + 1
    assert not pictures.keeps(100)
    pictures.add("own", result(6))
    assert await pictures.latest("own") is None
    assert drawn == [5]
    await pictures.close()


def test_events_are_bounded() -> None:
    events = Events(clock=lambda: 0.0)
    for number in range(10_000):
        events.say(f"event {number} \x1b[31m " + "x" * 10_000)
    kept = events.to_json()
    assert len(kept) == MOST_EVENTS
    assert kept[0]["text"].startswith("event 9999 \\x1b[31m")
    assert kept[0]["time"] == "1970-01-01T00:00:00+00:00"
    assert sum(len(event["text"]) for event in kept) < 400 * MOST_EVENTS


async def test_changes_of_the_plan_and_warnings_are_events(small_bundle: Bundle) -> None:
    import logging

    async with serving(small_bundle) as served:
        served.service.switched("uplink 0.8 Mbit/s: 70 % here")
        logging.getLogger("splitpoint.edge").warning("camera 0 is lost")
        events = (await served.ask("GET", "/stats")).json["events"]
    texts = [event["text"] for event in events]
    assert texts == ["camera 0 is lost", "uplink 0.8 Mbit/s: 70 % here"]
    logging.getLogger("splitpoint.edge").warning("nobody follows any more")


@pytest.mark.parametrize("name", ["page.js", "worker.js"])
def test_labels_of_a_worker_are_text(name: str) -> None:
    """They reach the page as text of a JSON document, and nothing there reads markup."""
    for reads_markup in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
        assert reads_markup not in text_of(name)
