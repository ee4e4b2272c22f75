"""The service of `run --http` in this process, and requests to it as other programs make them."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image
from splitpoint.cli.service.service import HttpService, ServiceOptions
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Result
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.meter import NoMeter

PATIENT_S = 60


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask_at(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=PATIENT_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


@dataclass
class Served:
    """A service that listens; `results` are what the run's sinks would get."""

    service: HttpService
    agent: EdgeAgent
    results: list[Result] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.service.address

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return await asyncio.to_thread(ask_at, self.address, method, path, body, headers)

    async def until_here(self, count: int) -> None:
        """So many requests are not answered."""
        for _ in range(1000):
            if (await self.ask("GET", "/stats")).json["requests_waiting"] == count:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"there were never {count}")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection for what no proper client sends."""
        host, port = self.address.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))


@asynccontextmanager
async def serving(
    bundle: Bundle,
    *,
    worker: FakeWorker | None = None,
    frames: Sequence[Given] | AsyncIterator[Given] = (),
    agent: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Over an agent that computes here, or asks `worker`; the run goes on after `frames`."""
    ends = asyncio.Event()

    async def source() -> AsyncIterator[Given]:
        if isinstance(frames, Sequence):
            for given in frames:
                yield given
        else:
            async for given in frames:
                if ends.is_set():
                    return
                yield given
        await ends.wait()

    keywords: dict[str, Any] = {"split": "local", "threads": 1} | dict(agent or {})
    made = EdgeAgent(
        None if worker is None else worker.address,
        bundle=bundle.folder,
        connect=None if worker is None else worker.connect,
        **keywords,
    )
    energy = RunEnergy(NoMeter("none"), lambda: 0.0)
    service = HttpService(ServiceOptions(**{"listen": "127.0.0.1:0"} | options), energy)
    async with made, service.serving(made, made.stream(source())) as results:
        served = Served(service, made)

        async def consume() -> None:
            async for result in results:
                served.results.append(result)

        consuming = asyncio.create_task(consume())
        try:
            yield served
        finally:
            ends.set()
            await consuming


def picture(seed: int = 0, width: int = 80, height: int = 60, kind: str = "PNG") -> bytes:
    """A file of noise."""
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind)
    return file.getvalue()


BOUNDARY = "9f3c0b7a1f4e4d0c8a6b2e5d7c9f1a3b"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(*fields: tuple[str, bytes], file: bytes | None = None) -> bytes:
    """As the library `requests` writes it, which Frigate uses: fields, then the file `image`."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in fields
    ]
    if file is not None:
        head = 'Content-Disposition: form-data; name="image"; filename="image"'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
