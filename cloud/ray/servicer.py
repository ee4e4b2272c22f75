"""The service's methods as Ray Serve's gRPC proxy wants them. Needs gRPC, not Ray.

The proxy runs no method itself: it takes the names and kinds of calls from here and sends each to a
replica. Every message is plain bytes, so that what a client sent is parsed, and refused, where the
plain worker does it, too; inside the cluster Ray hands on bytes and no objects made of them.
"""

from __future__ import annotations

from typing import Any

import grpc
from splitpoint.proto.limits import SERVICE

HEALTH_SERVICE = "grpc.health.v1.Health"
# For `grpc_servicer_functions` of Ray's `gRPCOptions`.
SERVICER_FUNCTION = "splitpoint.cloud.ray.servicer.add_split_to_server"


def add_split_to_server(servicer: Any, server: Any) -> None:
    """Adds Describe, Fetch, Infer and the health service's Check, by bytes.

    `servicer` has a method for each (Ray gives a stand-in); `server` is a gRPC server.
    """
    services: dict[str, dict[str, Any]] = {
        SERVICE: {
            "Describe": grpc.unary_unary_rpc_method_handler(servicer.Describe),
            "Fetch": grpc.unary_stream_rpc_method_handler(servicer.Fetch),
            "Infer": grpc.stream_stream_rpc_method_handler(servicer.Infer),
        },
        HEALTH_SERVICE: {"Check": grpc.unary_unary_rpc_method_handler(servicer.Check)},
    }
    for name, methods in services.items():
        handler = grpc.method_handlers_generic_handler(name, methods)
        server.add_generic_rpc_handlers((handler,))
