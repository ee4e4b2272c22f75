"""The edge agent: runs the early layers, sends what crosses, and accounts for every frame.

Nothing in this package needs torch.

May import: codec, partition, proto.
"""

from .agent import EdgeAgent
from .dispatch.auto_plan import AutoPlan
from .errors import AgentError, CacheError, SourceError
from .given import Given
from .options import AgentOptions
from .result import Outcome, Result, Stages
from .sinks.sink import CallbackSink, Sink
from .sources.find import find_source
from .sources.source import InputFeed, Source
from .transport.credentials import Credentials
from .transport.fake_worker import FakeWorker

__all__ = [
    "AgentError",
    "AgentOptions",
    "AutoPlan",
    "CacheError",
    "CallbackSink",
    "Credentials",
    "EdgeAgent",
    "FakeWorker",
    "Given",
    "InputFeed",
    "Outcome",
    "Result",
    "Sink",
    "Source",
    "SourceError",
    "Stages",
    "find_source",
]
