"""The edge agent: runs the early layers, sends what crosses, and accounts for every frame.

Nothing in this package needs torch.
"""

from .agent import EdgeAgent, Given
from .errors import AgentError, CacheError, SourceError
from .result import Outcome, Result, Stages

__all__ = [
    "AgentError",
    "CacheError",
    "EdgeAgent",
    "Given",
    "Outcome",
    "Result",
    "SourceError",
    "Stages",
]
