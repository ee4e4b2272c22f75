"""One number of a worker that is none must not keep a device from choosing its plan."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
from scripted_worker import ScriptedCall, frame, manners
from split_tables import codec_time, manifest_of, profile_of
from splitpoint.edge.dispatch.adapt import Adapter
from splitpoint.edge.dispatch.controller import IN_A_ROW, Controller
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import cost_table
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
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
    local, start = list(table.boundary).index(2), list(table.boundary).index(1)
    planner = OnlinePlanner(table, manifest, Objective({"latency": 1.0}), Constraints())
    controller = Controller(table, planner, start=start, budget_ms=10_000, round_trip_ms=1.0)
    nothing = cast(Any, None)
    adapter = Adapter(table, controller, nothing, nothing, nothing)
    stream = await FrameStream.opened("scripted", ScriptedCall(answer), pb.Hello())
    controller.knows(0.0, [0.05] * 4)
    for _ in range(IN_A_ROW):
        found = await stream.ask(frame, 5000)
        adapter.load_told(stream.session.load)
        adapter.frame_answered(Plan(boundary=1, codec="raw"), "raw", found, stream, 1)
    controller.knows(1e6, [0.05] * 4)
    switches = [controller.decide(1e6) for _ in range(IN_A_ROW)]
    assert [switch.after for switch in switches if switch] == [local]
    assert math.isfinite(controller.conditions.server_factor)
    await stream.close()
