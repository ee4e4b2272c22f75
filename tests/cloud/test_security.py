"""TLS, certificates and tokens against a real worker: who gets in, and what the others are told."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from local_worker import local_worker
from patience import until
from raw_client import RawClient
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.cloud.access.refusals import Refusal
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.worker import Worker
from splitpoint.edge import AgentError, Credentials, EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.status import (
    PermissionDeniedError,
    RefusedError,
    UnauthenticatedError,
    WireError,
)
from splitpoint.proto.tls import TlsError
from token_files import bearer, token_file

DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@dataclass(frozen=True)
class Files:
    """`ours` signed the worker, cam and old; `theirs` knows nobody here."""

    ours: Path
    theirs: Path

    def security(self, **more: object) -> Security:
        fields = {"tls_cert": self.ours / "server.pem", "tls_key": self.ours / "server.key"}
        return Security(**fields | more)  # type: ignore[arg-type]

    def device(self, name: str = "cam", folder: Path | None = None, **more: str) -> Credentials:
        folder = folder or self.ours
        return Credentials(
            tls_ca=self.ours / "ca.pem",
            tls_cert=folder / f"{name}.pem",
            tls_key=folder / f"{name}.key",
            **more,
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    make_certificates(ours, servers=["localhost", "127.0.0.1"], devices=["cam"])
    long_ago = datetime.now(timezone.utc) - timedelta(days=800)
    make_certificates(ours, devices=["old"], now=long_ago)
    make_certificates(theirs, servers=["127.0.0.1"], devices=["cam"])
    return Files(ours, theirs)


def serving(bundle: Bundle, security: Security | None = None, **more: object) -> Worker:
    return local_worker(bundle, security=security, **more)


def agent_of(worker: Worker, cache: Path, credentials: Credentials | None, **more: object):
    options = {"split": "1", "codec": "raw", "cache": cache, "credentials": credentials} | more
    return EdgeAgent(worker.address, **options)  # type: ignore[arg-type]


async def refused_at_start(agent: EdgeAgent) -> Exception:
    with pytest.raises((WireError, AgentError, TlsError)) as caught:
        async with agent:
            pass
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.usefixtures("both_ways")
async def test_tokens(small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path) -> None:
    security = Security(tokens=token_file(tmp_path, gate="", other=""))
    async with serving(small_bundle, security) as worker:
        async with agent_of(worker, tmp_path, Credentials(token="gate")) as agent:
            result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.ANSWERED
        assert not worker.refusals.counts
        for credentials, reason, words in (
            (None, Refusal.NO_TOKEN, "a token is needed"),
            (Credentials(token="Gate"), Refusal.WRONG_TOKEN, "none of this worker's"),
        ):
            error = await refused_at_start(agent_of(worker, tmp_path, credentials))
            assert type(error) is UnauthenticatedError
            assert words in str(error)
            await until(lambda reason=reason: worker.refusals.counts[reason] == 1)
        for metadata in ((), bearer("Gate"), bearer("gate") * 2):
            async with RawClient(worker, metadata=metadata) as client:
                fetch = partial(client.fetch, client.digest, client.digest)
                for call in (client.hello, client.describe, fetch):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call()
                    assert caught.value.code() is UNKNOWN
        await until(lambda: worker.refusals.counts == {Refusal.NO_TOKEN: 4, Refusal.WRONG_TOKEN: 7})


@pytest.mark.usefixtures("both_ways")
async def test_models_of_a_client(small_bundle: Bundle, tmp_path: Path) -> None:
    tokens = token_file(
        tmp_path, some='models = ["small"]', none="models = []", odd='models = ["large"]'
    )
    digest = small_bundle.digest
    async with serving(small_bundle, Security(tokens=tokens)) as worker:
        async with RawClient(worker, metadata=bearer("some")) as client:
            assert [model.digest for model in (await client.describe()).models] == [digest]
            assert await client.fetch(digest, digest)
            await client.hello()
        for count, name in enumerate(("none", "odd"), start=1):
            async with RawClient(worker, metadata=bearer(name)) as client:
                assert not (await client.describe()).models
                with pytest.raises(grpc.aio.AioRpcError, match=f"{name} may not use") as caught:
                    await client.fetch(digest, digest)
                assert caught.value.code() is DENIED
                with pytest.raises(grpc.aio.AioRpcError, match=f"{name} may not use") as caught:
                    await client.hello()
                assert caught.value.code() is DENIED
            await until(lambda count=count: worker.refusals.counts[Refusal.MODEL] == 2 * count)
            async with RawClient(worker, metadata=bearer(name)) as client:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.hello(digest="0" * 64)
                assert "small" not in (caught.value.details() or "")
        credentials = Credentials(token="odd")
        error = await refused_at_start(agent_of(worker, tmp_path, credentials))
        assert "no model that this client may use" in str(error)
        mine = small_bundle.folder
        error = await refused_at_start(agent_of(worker, tmp_path, credentials, bundle=mine))
        assert type(error) is PermissionDeniedError
        assert "odd may not use the model small" in str(error)


async def test_certificates(
    small_bundle: Bundle, files: Files, pixels: np.ndarray, tmp_path: Path
) -> None:
    security = files.security(client_ca=files.ours / "ca.pem")
    async with serving(small_bundle, security) as worker:
        async with agent_of(worker, tmp_path, files.device()) as agent:
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            (stream,) = worker.backend.service.streams
            assert stream.caller.share == "cam"
        pair = [(files.ours / f"old.{end}").read_bytes() for end in ("key", "pem")]
        ca = (files.ours / "ca.pem").read_bytes()
        for key, chain in (
            (None, None),
            pair,
            [(files.theirs / f"cam.{end}").read_bytes() for end in ("key", "pem")],
            # A certificate of ours, but a worker's.
            [(files.ours / f"server.{end}").read_bytes() for end in ("key", "pem")],
        ):
            credentials = grpc.ssl_channel_credentials(ca, key, chain)
            async with RawClient(worker, credentials=credentials) as client:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.describe()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with RawClient(worker) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.describe()
        for credentials in (
            Credentials(tls_ca=files.ours / "ca.pem"),
            files.device(folder=files.theirs),
        ):
            # Of a cache of its own: with all files there it would go on alone.
            error = await refused_at_start(agent_of(worker, tmp_path / "empty", credentials))
            assert isinstance(error, WireError)
            assert "--tls-cert" in str(error)
        # An own certificate that has expired is noticed before anybody is asked.
        error = await refused_at_start(agent_of(worker, tmp_path, files.device("old")))
        assert type(error) is TlsError
        assert "expired" in str(error)


async def test_the_worker_must_prove_itself(
    small_bundle: Bundle, files: Files, tmp_path: Path
) -> None:
    tokens = token_file(tmp_path, gate="")
    async with (
        serving(small_bundle, files.security(tokens=tokens)) as worker,
        serving(small_bundle, Security(tokens=tokens)) as plain,
    ):
        trust = Credentials(tls_ca=files.ours / "ca.pem", token="gate")
        async with agent_of(worker, tmp_path, trust) as agent:
            assert agent.digest == small_bundle.digest
        distrust = Credentials(tls_ca=files.theirs / "ca.pem", token="gate")
        error = await refused_at_start(agent_of(worker, tmp_path, distrust))
        assert type(error) is UnauthenticatedError
        assert "--tls-ca" in str(error)
        error = await refused_at_start(agent_of(plain, tmp_path, trust))
        assert type(error) is UnauthenticatedError
        assert "does not speak TLS" in str(error)
        error = await refused_at_start(agent_of(worker, tmp_path, Credentials(token="gate")))
        assert "--tls-ca" in str(error)
        assert not worker.refusals.counts[Refusal.NO_TOKEN]
    make_certificates(tmp_path / "named", servers=["worker.example"])
    security = Security(
        tls_cert=tmp_path / "named" / "server.pem", tls_key=tmp_path / "named" / "server.key"
    )
    async with serving(small_bundle, security) as worker:
        credentials = Credentials(tls_ca=tmp_path / "named" / "ca.pem")
        error = await refused_at_start(agent_of(worker, tmp_path, credentials))
        assert type(error) is UnauthenticatedError
        assert "for other names than this address" in str(error)


async def test_certificates_and_tokens_together(
    small_bundle: Bundle, files: Files, tmp_path: Path
) -> None:
    """Who stands in the file without a token needs a certificate, and the others both."""
    tokens = token_file(tmp_path, gate="")
    tokens.write_text(tokens.read_text() + "[cam]\nmodels = []\n")
    security = files.security(client_ca=files.ours / "ca.pem", tokens=tokens)
    make_certificates(tmp_path, devices=["x"])  # of another authority
    make_certificates(files.ours, devices=["gate"])
    async with serving(small_bundle, security) as worker:
        ca = (files.ours / "ca.pem").read_bytes()

        def channel(name: str) -> grpc.ChannelCredentials:
            key, chain = [(files.ours / f"{name}.{end}").read_bytes() for end in ("key", "pem")]
            return grpc.ssl_channel_credentials(ca, key, chain)

        async with RawClient(worker, credentials=channel("cam")) as client:
            assert not (await client.describe()).models
        async with RawClient(worker, credentials=channel("cam"), metadata=bearer("gate")) as client:
            assert (await client.describe()).models
        async with RawClient(worker, credentials=channel("gate")) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.describe()
            assert caught.value.code() is UNKNOWN
        await until(lambda: worker.refusals.counts[Refusal.NO_TOKEN])  # its stream is refused, too


def test_where_a_worker_may_listen(files: Files, tmp_path: Path) -> None:
    tokens, ca = token_file(tmp_path, gate=""), files.ours / "ca.pem"
    for listen in ("127.0.0.1:0", "localhost:7070", "[::1]:7070"):
        Security().check_listen(listen)
    for listen in ("0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070", "worker.example:7070"):
        for security, lacks in (
            (Security(), ("without TLS", "clients that nobody knows")),
            (Security(tokens=tokens), ("without TLS",)),
            (files.security(), ("clients that nobody knows",)),
        ):
            with pytest.raises(ServeError) as caught:
                security.check_listen(listen)
            line = str(caught.value)
            assert "\n" not in line
            for words in (listen, *lacks, "--insecure", "--tls-cert", "--client-ca", "--tokens"):
                assert words in line
        files.security(client_ca=ca).check_listen(listen)
        files.security(tokens=tokens).check_listen(listen)
        Security(insecure=True).check_listen(listen)


async def test_an_insecure_worker_listens_where_it_is_told(small_bundle: Bundle) -> None:
    with pytest.raises(ServeError, match="--insecure"):
        async with serving(small_bundle, listen="0.0.0.0:0"):
            pass
    async with serving(small_bundle, Security(insecure=True), listen="0.0.0.0:0") as worker:
        port = worker.address.rpartition(":")[2]
        async with RawClient(worker, server=f"127.0.0.1:{port}") as client:
            await client.hello()


async def test_nothing_is_started_with_bad_files(
    small_bundle: Bundle, files: Files, tmp_path: Path
) -> None:
    ours, theirs = files.ours, files.theirs
    (tmp_path / "typo.toml").write_text("[a]\nmodel = []\n")
    (tmp_path / "by-name.toml").write_text("[cam]\n")
    loaded = []
    threads = threading.active_count()
    for fields, words in (
        ({"tls_key": theirs / "server.key"}, "is not that of"),
        ({"tls_cert": ours / "nothing.pem"}, "cannot read"),
        ({"tls_cert": ours / "old.pem", "tls_key": ours / "old.key"}, "expired on"),
        ({"client_ca": ours / "cam.key"}, "no certificate"),
        ({"client_ca": tmp_path}, "Is a directory"),
        ({"tokens": tmp_path / "typo.toml"}, "did you mean models"),
        ({"tokens": tmp_path / "nothing.toml"}, "cannot read"),
        ({"tokens": tmp_path / "by-name.toml"}, "without token_sha256"),
    ):
        with pytest.raises((ServeError, TlsError), match=words) as caught:
            async with serving(small_bundle, files.security(**fields), progress=loaded.append):
                pass
        assert "\n" not in str(caught.value)
    assert threading.active_count() <= threads
    assert not loaded
    for fields, words in (
        ({"tls_cert": ours / "server.pem"}, "--tls-cert without --tls-key"),
        ({"tls_key": ours / "server.key"}, "--tls-key without --tls-cert"),
        ({"client_ca": ours / "ca.pem"}, "--client-ca without --tls-cert"),
    ):
        with pytest.raises(ServeError, match=words):
            Security(**fields)


@pytest.mark.usefixtures("both_ways")
async def test_health_needs_no_token(small_bundle: Bundle, tmp_path: Path) -> None:
    """Whoever looks after the worker asks whether it lives, and nothing else."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    security = Security(tokens=token_file(tmp_path, gate=""))
    async with (
        serving(small_bundle, security) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_errors_are_of_one_tree() -> None:
    assert issubclass(UnauthenticatedError, RefusedError)
    assert issubclass(PermissionDeniedError, RefusedError)
    assert not pb.Draining().reopen
