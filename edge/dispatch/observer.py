"""What an agent tells of its frames to whoever keeps its plan the best one."""

from __future__ import annotations

from collections.abc import Mapping

from splitpoint.partition.plan.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.answer_times import Answer

from ..link.frame_stream import FrameStream


class Observer:
    """This one knows nothing and does nothing: the plan stays as it is."""

    @property
    def uplink_mbps(self) -> float | None:
        """The rate that decisions are made for; None where nothing is known of the link."""
        return None

    @property
    def usual_mbps(self) -> float | None:
        """The rate in the middle of what was seen."""
        return None

    def finish_ms(self) -> dict[int, float]:
        """What the device is predicted to take from each boundary to the end, if that is known."""
        return {}

    def plan_is(self, plan: Plan) -> None:
        """This is the present plan, whoever has decided that."""

    def frame_taken(self, now_s: float) -> None:
        """A live source gave a frame."""

    def frame_computed(self, plan: Plan, ms: float) -> None:
        """The device computed and encoded a sample in `ms`."""

    def frame_answered(
        self, plan: Plan, codec: str, answer: Answer, stream: FrameStream, batch: int
    ) -> None:
        """A worker answered a frame, whose codec may be coarser than the plan's."""

    def frame_late(self, nbytes: int, waited_ms: float) -> None:
        """A frame of `nbytes` was not answered in time."""

    def frame_ended(self) -> None:
        """A frame has its outcome; what is due may begin. It never raises."""

    def stream_ended(self) -> None:
        """There are no more frames to keep up with."""

    def load_told(self, load: pb.Load) -> None:
        """A worker said how busy it is, or nothing of that."""

    def device_can_finish(self, predicted_ms: Mapping[int, float] | None) -> None:
        """In these times by boundary; None where it cannot."""

    async def close(self) -> None:
        """Ends what is under way."""
