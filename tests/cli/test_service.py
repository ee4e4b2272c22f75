"""Requests over HTTP: what they get, whose turn it is, and that their frames are frames."""

from __future__ import annotations

import asyncio
import http.client
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from http_service import FORM, Answer, Served, ask_at, form, picture, serving
from patience import until
from small_tasks import task_bundle
from splitpoint.cli.run.result_lines import FrameDocument
from splitpoint.cli.service.turns import Turns
from splitpoint.edge import FakeWorker, Given, Outcome, Result
from splitpoint.edge.sources.source import InputFeed
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.errors import PictureError
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame

CLIENTS = 16
SAME = ("top", "detections", "areas", "outputs", "outcome", "split", "codec", "bytes_up")


@pytest.fixture(scope="module")
def detector() -> Bundle:
    return task_bundle("yolo")


async def document_of(served: Served, content: bytes) -> dict[str, Any]:
    """The line of `run --json` for what a file holds."""
    given = InputFeed.of(served.agent.manifest).of_content(content, "a")
    result = await served.agent.infer(given.inputs, metadata=given.metadata)
    return FrameDocument(agent=served.agent)(result)


def same(document: dict[str, Any], line: dict[str, Any]) -> bool:
    assert document.keys() == line.keys()
    return all(document.get(key) == line.get(key) for key in SAME)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_infer_gives_the_line_of_run_json(small_bundle: Bundle, kind: str) -> None:
    async with serving(small_bundle) as served:
        body = picture(kind=kind)
        line = await document_of(served, body)
        answers = [
            await served.ask("POST", "/infer", body),
            await served.ask("POST", "/infer", body, {"Content-Type": f"image/{kind.lower()}"}),
            await served.ask("POST", "/infer", form(file=body), FORM),
        ]
    for number, answer in enumerate(answers):
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        assert same(answer.json, line)
        assert answer.json["source"] == f"http#{number}"
    assert line["top"][0]["label"] in ("ant", "bee", "cat", "dog", "eel")


@pytest.mark.parametrize("head", ["yolo", "segment"])
async def test_infer_for_every_task(head: str) -> None:
    async with serving(task_bundle(head)) as served:
        line = await document_of(served, picture())
        answer = await served.ask("POST", "/infer", picture())
    assert same(answer.json, line)
    assert answer.json["detections" if head == "yolo" else "areas"]


async def test_arrays_are_taken_as_files_are(small_bundle: Bundle, pixels: np.ndarray) -> None:
    def saved(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    async with serving(small_bundle) as served:
        result = await served.agent.infer({"pixels": pixels[:1]})
        line = FrameDocument(agent=served.agent)(result)
        for array in (pixels[0], pixels[:1]):
            answer = await served.ask("POST", "/infer", saved(array))
            assert same(answer.json, line)
        wrong = await served.ask("POST", "/infer", saved(pixels.astype(np.float32)[0]))
        several = await served.ask("POST", "/infer", saved(pixels))
        file = io.BytesIO()
        np.savez(file, pixels=pixels[0])
        assert same((await served.ask("POST", "/infer", file.getvalue())).json, line)
    assert (wrong.status, several.status) == (400, 400)
    assert "uint8" in wrong.json["error"]


async def test_deepstack_as_frigate_asks(detector: Bundle) -> None:
    """Sixteen at a time, each with a picture of its own: every one gets its own answer."""
    pictures = [picture(seed, kind="JPEG") for seed in range(CLIENTS)]
    rounds = 3

    def client(address: str, file: bytes) -> list[Answer]:
        connection = http.client.HTTPConnection(address, timeout=60)
        found = []
        for _ in range(rounds):  # Frigate keeps its connection
            body = form(("api_key", b""), file=file)
            connection.request("POST", "/v1/vision/detection", body, FORM)
            response = connection.getresponse()
            found.append(Answer(response.status, dict(response.getheaders()), response.read()))
        connection.close()
        return found

    async with serving(detector) as served:
        lines = [await document_of(served, file) for file in pictures]
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = await asyncio.gather(
                *(loop.run_in_executor(pool, client, served.address, file) for file in pictures)
            )
        stats = (await served.ask("GET", "/stats")).json
    for answers, line in zip(found, lines, strict=True):
        expected = line["detections"]
        assert expected
        for answer in answers:
            assert answer.status == 200
            assert answer.json["success"] is True
            assert answer.json["duration"] > 0
            predictions = answer.json["predictions"]
            assert [p["label"] for p in predictions] == [d["label"] for d in expected]
            scores = [p["confidence"] for p in predictions]
            assert scores == sorted(scores, reverse=True)
            for prediction, detection in zip(predictions, expected, strict=True):
                box = [prediction[side] for side in ("x_min", "y_min", "x_max", "y_max")]
                assert all(isinstance(side, int) for side in box)
                assert np.abs(np.array(box) - detection["box"]).max() <= 0.6
    assert stats["frames"] == CLIENTS * rounds
    assert len(served.results) == CLIENTS * rounds
    assert served.agent.outcomes[Outcome.LOCAL] == CLIENTS * rounds + len(lines)


async def test_min_confidence(detector: Bundle) -> None:
    async with serving(detector, min_score=0.0) as served:

        async def scores(*fields: tuple[str, bytes]) -> list[float]:
            body = form(*fields, file=picture())
            answer = await served.ask("POST", "/v1/vision/detection", body, FORM)
            return [each["confidence"] for each in answer.json["predictions"]]

        everything = await scores(("min_confidence", b"0"))
        least = everything[len(everything) // 2] - 1e-4  # they are rounded to that
        assert await scores(("min_confidence", f"{least}".encode())) == [
            score for score in everything if score >= least
        ]
        assert await scores() == everything[:20]  # Frigate has room for no more
        for wrong in (b"2", b"nan", b"much", b"\xff"):
            body = form(("min_confidence", wrong), file=picture())
            answer = await served.ask("POST", "/v1/vision/detection", body, FORM)
            assert (answer.status, answer.json["success"]) == (400, False)


async def test_only_a_detector_detects(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        answer = await served.ask("POST", "/v1/vision/detection", form(file=picture()), FORM)
    assert answer.status == 400
    assert "classify" in answer.json["error"]
    assert served.results == []


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nothing", None, {}, 404),
        ("GET", "/../../etc/passwd", None, {}, 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", None, {}, 404),
        ("GET", "/page.js/../routes.py", None, {}, 404),
        ("GET", "/infer", None, {}, 405),
        ("POST", "/stats", b"{}", {}, 405),
        ("POST", "/infer", b"", {}, 400),
        ("POST", "/infer", b"no picture", {}, 400),
        ("POST", "/infer", picture()[:200], {}, 400),
        ("POST", "/infer", b"\x93NUMPY\x01\x00", {}, 400),
        ("POST", "/infer", b"PK\x03\x04", {}, 400),
        ("POST", "/infer", form(("other", b"x")), FORM, 400),
        ("POST", "/infer", form(file=b""), FORM, 400),
        ("POST", "/infer", picture(), {"Content-Type": "multipart/form-data"}, 400),
        ("POST", "/infer", form(*[(f"f{i}", b"") for i in range(40)]), FORM, 400),
        ("POST", "/infer", picture(), {"Content-Encoding": "gzip"}, 415),
        ("POST", "/v1/vision/detection", picture(), {}, 415),
        ("POST", "/v1/vision/detection", form(("api_key", b"")), FORM, 400),
        ("GET", "/picture?source=7", None, {}, 404),
    ],
)
async def test_what_is_wrong_is_said(
    detector: Bundle, method: str, path: str, body: bytes | None, headers: dict[str, str],
    status: int,
) -> None:  # fmt: skip
    async with serving(detector) as served:
        answer = await served.ask(method, path, body, headers)
        assert (await served.ask("GET", "/healthz")).json == {"status": "ok"}
    assert answer.status == status
    assert answer.json["success"] is False
    assert answer.json["error"]
    assert "Traceback" not in answer.json["error"]
    assert served.results == []  # it was no frame


async def test_an_array_that_claims_more_than_the_model_takes_is_not_read(
    small_bundle: Bundle,
) -> None:
    claim = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }\n"
    body = b"\x93NUMPY\x01\x00" + len(claim).to_bytes(2, "little") + claim
    packed = io.BytesIO()
    np.savez_compressed(packed, pixels=np.zeros(50_000_000, np.uint8))
    async with serving(small_bundle) as served:
        for each in (body, packed.getvalue()):
            answer = await served.ask("POST", "/infer", each)
            assert answer.status == 400
            assert "more than the model takes" in answer.json["error"]


async def test_a_frame_without_an_answer(detector: Bundle) -> None:
    async def refuses(frame: CheckedFrame) -> pb.Status:
        return pb.OVERLOADED

    worker = FakeWorker(detector, script=refuses)
    options = {"split": "input", "codec": "png", "finish_locally": False}
    async with serving(detector, worker=worker, agent=options) as served:
        line = await served.ask("POST", "/infer", picture())
        body = form(file=picture())
        deepstack = await served.ask("POST", "/v1/vision/detection", body, FORM)
    assert (line.status, line.json["outcome"]) == (503, "failed")
    assert line.json["error"]
    assert (deepstack.status, deepstack.json["success"]) == (502, False)
    assert [result.outcome for result in served.results] == [Outcome.FAILED] * 2


async def test_who_has_gone_before_its_frame_began_is_not_computed_for(
    small_bundle: Bundle,
) -> None:
    goes_on = asyncio.Event()

    async def waits(frame: CheckedFrame) -> pb.Status:
        await goes_on.wait()
        return pb.OK

    worker = FakeWorker(small_bundle, script=waits, credits=1)
    options = {"split": "input", "codec": "png", "finish_locally": False}
    async with serving(small_bundle, worker=worker, agent=options) as served:
        room = worker.credits + 2
        begun = [asyncio.create_task(served.ask("POST", "/infer", picture(i))) for i in range(room)]
        await until(lambda: worker.frames)
        body = picture(99)
        _, writer = await served.connect()
        writer.write(f"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                     "\r\n".encode() + body)  # fmt: skip
        await writer.drain()
        await served.until_here(room + 1)
        writer.close()
        await served.until_here(room)
        goes_on.set()
        assert [answer.status for answer in await asyncio.gather(*begun)] == [200] * room
    assert len(served.results) == room
    assert sum(served.agent.outcomes.values()) == room


async def test_a_frame_that_has_begun_ends_though_its_client_has_gone(
    small_bundle: Bundle,
) -> None:
    goes_on = asyncio.Event()

    async def waits(frame: CheckedFrame) -> pb.Status:
        await goes_on.wait()
        return pb.OK

    worker = FakeWorker(small_bundle, script=waits)
    options = {"split": "input", "codec": "png", "finish_locally": False}
    async with serving(small_bundle, worker=worker, agent=options) as served:
        body = picture()
        _, writer = await served.connect()
        writer.write(f"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                     "\r\n".encode() + body)  # fmt: skip
        await writer.drain()
        await until(lambda: worker.frames)
        writer.close()
        await asyncio.sleep(0.05)
        goes_on.set()
        await until(lambda: served.results)
    assert [result.outcome for result in served.results] == [Outcome.ANSWERED]


class Device:
    """Of an agent what requests see of it: frames that the test lets be computed and end."""

    def __init__(self) -> None:
        self.session = SimpleNamespace(workers=SimpleNamespace(credits=2))
        self.computing: list[Callable[[], None]] = []
        self.ends = asyncio.Event()

    async def infer(self, inputs: Any, *, metadata: Any, computed: Callable[[], None]) -> Result:
        self.computing.append(computed)
        await self.ends.wait()
        return Result(id=0, outcome=Outcome.ANSWERED, boundary=0, codec="png", metadata=metadata)


class Feed:
    """Of a feed the same: everything but `b"bad"` is an input."""

    def of_content(self, content: bytes, name: str) -> Given:
        return Given(error=PictureError("bad") if content == b"bad" else None, metadata=name)


async def test_one_request_at_a_time_waits_for_the_device() -> None:
    """However many there are: a source's frame never has more than one before it."""
    device, ended = Device(), list[Result]()
    turns = Turns(device, Feed(), ended.append)  # type: ignore[arg-type]
    asking = [asyncio.create_task(turns.infer(b"good")) for _ in range(10)]
    for begun in range(1, 5):  # credits + 2 are under way
        await until(lambda begun=begun: len(device.computing) == begun)
        await asyncio.sleep(0.02)
        assert len(device.computing) == begun
        device.computing[-1]()
    await asyncio.sleep(0.02)
    assert len(device.computing) == 4
    device.ends.set()
    with pytest.raises(PictureError):
        await turns.infer(b"bad")  # it holds nothing up
    await until(lambda: len(device.computing) == 10)
    await asyncio.gather(*asking)
    assert len(ended) == 10
    await turns.close()


async def test_a_source_and_requests_share_the_run(small_bundle: Bundle, tmp_path: Path) -> None:
    feed = InputFeed.of(small_bundle.manifest)
    frames = [feed.of_content(picture(seed), f"own#{seed}") for seed in range(5)]
    frames.append(feed.of_content(b"no picture", "own#5"))
    async with serving(small_bundle, frames=frames, sources=("own",)) as served:
        answers = await asyncio.gather(
            *(served.ask("POST", "/infer", picture(seed)) for seed in range(3))
        )
        await until(lambda: len(served.results) == 9)
        stats = (await served.ask("GET", "/stats")).json
    assert [answer.status for answer in answers] == [200] * 3
    own, http_ = stats["sources"]
    assert (own["name"], own["frames"], own["outcomes"]["failed"]) == ("own", 6, 1)
    assert (http_["name"], http_["frames"], http_["in_time"]) == ("http", 3, 3)
    assert own["stages_ms"]["edge"] > 0
    assert own["p50_ms"] > 0
    assert own["ways"] == [{"split": 4, "codec": "none", "way": "all on the device", "share": 1.0}]
    assert stats["frames"] == 9
    assert stats["outcomes"] == {
            "answered": 0, "local": 8, "expired": 0, "failed": 1, "skipped": 0,
        }  # fmt: skip
    assert stats["plan"]["way"] == "all on the device"
    assert stats["plan"]["why"]
    assert stats["model"]["name"] == "small"
    assert stats["energy_kind"] == "none"
    assert any("no picture" in event["text"] for event in stats["events"])


async def test_too_many_at_a_time_are_told_to_come_again(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitpoint.cli.service.bodies.MOST_REQUESTS", 4)
    goes_on = asyncio.Event()

    async def waits(frame: CheckedFrame) -> pb.Status:
        await goes_on.wait()
        return pb.OK

    worker = FakeWorker(small_bundle, script=waits, credits=1)
    options = {"split": "input", "codec": "png", "finish_locally": False}
    async with serving(small_bundle, worker=worker, agent=options) as served:
        begun = [asyncio.create_task(served.ask("POST", "/infer", picture(i))) for i in range(4)]
        await served.until_here(4)
        answer = await served.ask("POST", "/infer", picture())
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json["success"] is False
        goes_on.set()
        assert [each.status for each in await asyncio.gather(*begun)] == [200] * 4
        assert (await served.ask("POST", "/infer", picture())).status == 200


async def test_requests_under_way_end_with_the_run(small_bundle: Bundle) -> None:
    goes_on = asyncio.Event()

    async def waits(frame: CheckedFrame) -> pb.Status:
        await goes_on.wait()
        return pb.OK

    worker = FakeWorker(small_bundle, script=waits)
    options = {"split": "input", "codec": "png", "finish_locally": False}
    async with serving(small_bundle, worker=worker, agent=options) as served:
        asking = asyncio.create_task(served.ask("POST", "/infer", picture()))
        await until(lambda: worker.frames)
        asyncio.get_running_loop().call_later(0.1, goes_on.set)
    assert (await asking).status == 200
    assert len(served.results) == 1
    with pytest.raises(ConnectionRefusedError):
        ask_at(served.address, "GET", "/healthz")
