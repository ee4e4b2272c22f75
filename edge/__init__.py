"""The edge agent: runs the early layers, sends what crosses, and accounts for every frame.

Nothing in this package needs torch.
"""

from .agent import EdgeAgent
from .auto_plan import AutoPlan
from .errors import AgentError, CacheError
from .given import Given
from .result import Outcome, Result, Stages

__all__ = [
    "AgentError",
    "AutoPlan",
    "CacheError",
    "EdgeAgent",
    "Given",
    "Outcome",
    "Result",
    "Stages",
]
