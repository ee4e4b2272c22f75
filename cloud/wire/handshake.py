"""The first two messages of a stream: Hello, and Welcome or a refusal."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, MAX_CREDITS, PROTOCOL, max_frame_bytes
from splitpoint.proto.printable import printable
from splitpoint.proto.session.worker_session import read_hello
from splitpoint.proto.tasks import within

from ..access.caller import Caller
from ..access.quotas import ClientUse
from ..access.refusals import Refusal
from ..compute.served_model import ServedModel
from ..frames.answers import load_of
from ..frames.services import StreamServices
from .abort import abort

log = logging.getLogger("splitpoint.cloud")

HANDSHAKE_TIMEOUT_S = 10.0


async def shake_hands(
    context: Any, services: StreamServices, caller: Caller, use: ClientUse
) -> ServedModel:
    """The model that the client asks for, after Welcome; a refusal ends the call with a status."""
    try:
        data = await within(HANDSHAKE_TIMEOUT_S, context.read())
    except asyncio.TimeoutError:
        use.count_refused(Refusal.SILENT)
        await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "no Hello came")
    try:
        hello = read_hello(b"" if data is grpc.aio.EOF else data)
    except FrameError as error:
        use.count_refused(Refusal.MALFORMED)
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
    if hello.protocol != PROTOCOL:
        use.count_refused(Refusal.PROTOCOL)
        await abort(
            context,
            grpc.StatusCode.FAILED_PRECONDITION,
            f"this worker speaks protocol {PROTOCOL}, the client {hello.protocol}: "
            "install the same version of splitpoint at both ends",
        )
    model = services.models.get(hello.digest)
    if model is None:
        use.count_refused(Refusal.UNKNOWN_MODEL)
        known = ", ".join(
            f"{m.bundle.manifest.name} ({digest[:12]})"
            for digest, m in services.models.items()
            if use.client.may_use(m.bundle.manifest.name, digest)
        )
        name = f"{hello.model[:80]!r} " if hello.model else ""
        await abort(
            context,
            grpc.StatusCode.FAILED_PRECONDITION,
            f"the model {name}with digest {hello.digest[:12]} is not served here; "
            f"served: {known}; give both ends the same bundle",
        )
    name = model.bundle.manifest.name
    if not use.client.may_use(name, hello.digest):
        use.count_refused(Refusal.MODEL)
        await abort(
            context,
            grpc.StatusCode.PERMISSION_DENIED,
            f"{use.client.name} may not use the model {name}",
        )
    about = {"client": use.client.name, "model": name}
    itself = printable(hello.client) or "no name"
    log.info("%s (%s) uses %s", use.client.name, itself, name, extra=about)
    one_sample = model.bundle.manifest.boundaries[0].one_sample
    welcome = pb.Welcome(
        protocol=PROTOCOL,
        credits=MAX_CREDITS,
        max_batch=1 if one_sample else MAX_BATCH_PER_FRAME,
        max_frame_bytes=max_frame_bytes(model.boundaries, MAX_BATCH_PER_FRAME),
        segment_ms=model.times.segment_ms,
        load=load_of(services.engine, model, caller.share, services.figures),
    )
    answer = pb.ServerMessage(welcome=welcome).SerializeToString()
    try:
        await within(HANDSHAKE_TIMEOUT_S, context.write(answer))
    except asyncio.TimeoutError:
        use.count_refused(Refusal.SILENT)
        raise asyncio.CancelledError from None  # a status would wait behind the message
    return model
