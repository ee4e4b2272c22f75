"""What an agent tells of its frames to whoever decides which way they take, and asks of it."""

from __future__ import annotations

from collections.abc import Mapping

from splitpoint.partition.plan.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.answer_times import Answer

from ..link.frame_stream import FrameStream


class Observer:
    """This one knows nothing and decides nothing: all frames take the plan that was named.

    Frames go by the agent's number. Those that it does not know are nothing to it.
    """

    decides = False  # whether frames of a live source are to begin, or not to, as they come

    @property
    def uplink_mbps(self) -> float | None:
        """The rate that decisions are made for; None where nothing is known of the link.

        0 while nothing comes through.
        """
        return None

    def finish_ms(self) -> dict[int, float]:
        """What the device is predicted to take from each boundary to the end, if that is known."""
        return {}

    # What is asked ---------------------------------------------------------------------------

    def way(self, number: int, *, live: bool, samples: int = 1) -> Plan | None:
        """The plan of a frame that is here now; None for the one that was named."""
        return None

    def let_go(self, number: int) -> bool:
        """Whether a live source's frame is let go, as `way` has decided."""
        return False

    def worth_sending(self, number: int) -> bool:
        """Whether a frame that is encoded may still be answered in time."""
        return True

    def worth_finishing(self, number: int) -> bool:
        """Whether the device is to finish a frame that the cloud has not answered yet."""
        return True

    # What is told ----------------------------------------------------------------------------

    def device_done(self, number: int) -> None:
        """The device is done with what it was to compute of a frame, or has not begun it."""

    def frame_computed(self, plan: Plan, ms: float) -> None:
        """The device computed and encoded a sample in `ms`."""

    def frame_sent(self, number: int, nbytes: int, stream: FrameStream, id: int) -> None:
        """A frame's bytes go out on a stream, where it has another number."""

    def frame_answered(
        self, number: int, plan: Plan, codec: str, answer: Answer, stream: FrameStream, batch: int
    ) -> None:
        """A worker answered a frame, whose codec may be coarser than the plan's."""

    def finish_begins(self, number: int) -> None:
        """The device finishes a frame."""

    def frame_ended(self, number: int) -> None:
        """A frame has its outcome. It never raises."""

    def stream_ended(self) -> None:
        """There are no more frames to keep up with."""

    def new_stream(self, stream: FrameStream) -> None:
        """A worker was reached, again or for the first time."""

    def load_told(self, load: pb.Load) -> None:
        """A worker said how busy it is, or nothing of that."""

    def device_can_finish(self, predicted_ms: Mapping[int, float] | None) -> None:
        """In these times by boundary; None where it cannot."""

    async def close(self) -> None:
        """Ends what is under way."""
