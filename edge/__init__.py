"""The edge agent: runs the early layers, sends what crosses, and accounts for every frame.

Nothing in this package needs torch.
"""

from .agent import EdgeAgent
from .auto_plan import AutoPlan
from .credentials import Credentials
from .errors import AgentError, CacheError, SourceError
from .find_source import find_source
from .given import Given
from .result import Outcome, Result, Stages
from .sink import CallbackSink, Sink
from .source import InputFeed, Source

__all__ = [
    "AgentError",
    "AutoPlan",
    "CacheError",
    "CallbackSink",
    "Credentials",
    "EdgeAgent",
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
