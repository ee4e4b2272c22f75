"""One number of a worker that is none must not keep a device from choosing its plan."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scripted_worker import ScriptedCall, frame, manners
from split_tables import codec_time, manifest_of, profile_of
from splitpoint.edge.dispatch.adapt import Adapter
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.dispatch.conditions import Conditions
from splitpoint.edge.dispatch.dispatcher import Dispatcher
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import cost_table
from splitpoint.partition.plan.plan import Plan
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_reply

NAN, MOST = math.nan, 2**32 - 1


@pytest.mark.parametrize("number", [NAN, math.inf, -math.inf, -1.0, 3e38], ids=str)
@pytest.mark.parametrize("field", ["queue_ms", "wait_ms", "slowdown"])
async def test_the_plan_still_follows_the_link(field: str, number: float) -> None:
    """After an answer with such a load, a link that has become slow brings all to the device."""
    load = pb.Load(queue_ms=1.0, wait_ms=[1.0, 1.0], slowdown=1.0)
    if field == "wait_ms":
        load.wait_ms[1] = number
    else:
        setattr(load, field, number)
    times = pb.Times(total_us=MOST, queue_us=MOST)

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") == "probe":
            echo = pb.ProbeReply(id=message.probe.id, load=load)
            return [pb.ServerMessage(probe=echo).SerializeToString()]
        if message.WhichOneof("kind") == "frame":
            reply = pb.Reply(
                id=message.frame.id, message_index=index, status=pb.OK, load=load, times=times
            )
            return [build_reply(reply)]
        return manners(message)

    codecs = [codec_time(0, "raw", 1e5), codec_time(1, "raw", 2e4)]
    manifest, profile = manifest_of(2), profile_of((20.0, 80.0), codecs)
    table = cost_table(manifest, [profile], CloudTimes(segment_ms=(1.0, 4.0)), radio=RADIOS["wifi"])
    arms = Arms.of(table, np.ones(len(table), bool), np.zeros(len(table)))
    dispatcher = Dispatcher(arms, 0.3, Conditions(1.0), 125e3)
    workers = SimpleNamespace(current=SimpleNamespace(usable=True, away=False), stream=None)
    adapter = Adapter(table, dispatcher, cast(Any, workers), lambda line: None)
    for plan in adapter.plans:
        adapter.ready(plan)
    stream = await FrameStream.opened("scripted", ScriptedCall(answer), pb.Hello())
    adapter.new_stream(stream)
    for number in range(3):
        found = await stream.ask(frame, 5000)
        adapter.load_told(stream.session.load)
        plan = Plan(boundary=1, codec="raw")
        adapter.frame_answered(number, plan, "raw", found, stream, 1)
    assert math.isfinite(dispatcher.conditions.server_factor)
    now_s = time.perf_counter()
    for _ in range(16):  # the link has become slow
        dispatcher.uplink.sent(now_s, 1e3, 1.0)
    ways = [adapter.way(number, live=True) for number in range(100, 104)]
    assert adapter.decides
    assert {way.boundary for way in ways if way is not None} <= {2}
    assert adapter.way(200, live=False).boundary == 2  # type: ignore[union-attr]
    await stream.close()
