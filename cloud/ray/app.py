"""Workers as a Ray Serve application: replicas that Ray starts, scales, replaces and updates.

`app` builds it for Ray's own configuration (`import_path: splitpoint.cloud.ray.app:app`, see
deploy/kubernetes/rayservice.yaml); `serving_on_ray` runs it from Python, as `splitpoint serve
--ray` does.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, gRPCOptions

from ..errors import ServeError
from .options import APP, AUTO_REPLICAS, DEPLOYMENT, ROUTE, RayOptions
from .replica import HEALTH_S, SILENT_S, SplitReplica
from .servicer import SERVICER_FUNCTION

log = logging.getLogger("splitpoint.cloud")

POLICY = "splitpoint.cloud.ray.policy:replicas_for_wait"
# What a process needs before it loads torch or onnxruntime; `splitpoint` itself sets the same.
ENVIRONMENT = {"GOMP_SPINCOUNT": "60000", "ORT_DISABLE_TELEMETRY": "1"}
UP_S, DOWN_S, LOOK_BACK_S = 15.0, 300.0, 20.0


def app(args: dict[str, Any]) -> serve.Application:
    """The application for the fields of `RayOptions`, as Ray's configuration files give them.

    Raises `ServeError` for what makes no sense, `TypeError` for a field that there is not.
    """
    return application(RayOptions(**args))


def application(options: RayOptions) -> serve.Application:
    """The application; replicas load their bundles when Ray starts them."""
    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if options.replicas == AUTO_REPLICAS:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=options.min_replicas,
                max_replicas=options.max_replicas,
                upscale_delay_s=UP_S,
                downscale_delay_s=DOWN_S,
                look_back_period_s=LOOK_BACK_S,
                policy=AutoscalingPolicy(policy_function=POLICY),
            )
        }
    deployment = serve.deployment(
        SplitReplica,
        name=DEPLOYMENT,
        max_ongoing_requests=options.max_streams,
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=30,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=SILENT_S + options.grace_s + 5,
        ray_actor_options={
            "num_cpus": options.cpus,
            "num_gpus": options.gpus,
            "runtime_env": {"env_vars": ENVIRONMENT},
        },
        **scaling,
    )
    return deployment.bind(options)


def proxy_options(port: int) -> gRPCOptions:
    """What Ray's gRPC proxies have to know to carry our service; they listen on every interface."""
    return gRPCOptions(
        port=port, grpc_servicer_functions=[SERVICER_FUNCTION], enable_reflection=False
    )


@contextmanager
def serving_on_ray(options: RayOptions, port: int, http_port: int) -> Iterator[None]:
    """Serves inside the block: in the cluster of RAY_ADDRESS, or in a new one on this machine.

    The block begins once every replica (the fewest, with "auto") is loaded. Raises `ServeError`
    where ports are taken, GPUs are asked for that no node has, or replicas do not start.
    """
    given = "RAY_ADDRESS" in os.environ
    for wanted in () if given else (port, http_port):
        _check_free(wanted)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
    new = {} if given else {"address": "local", "include_dashboard": False}
    ray.init(logging_level=logging.ERROR, log_to_driver=False, **new)
    try:
        options = _with_gpus(options)
        serve.start(
            proxy_location="EveryNode",
            http_options=HTTPOptions(host="127.0.0.1", port=http_port),
            grpc_options=proxy_options(port),
        )
        try:
            serve.run(application(options), name=APP, route_prefix=ROUTE)
        except Exception as error:
            raise ServeError(
                f"the replicas do not start: {_reason(error)}",
                "splitpoint serve without --ray says more",
            ) from error
        yield
    finally:
        try:
            serve.delete(APP)
        except Exception as error:  # noqa: BLE001 - the cluster may be gone already
            log.warning("the application could not be ended: %r", error)
        ray.shutdown()


def _with_gpus(options: RayOptions) -> RayOptions:
    """A GPU for each replica where one is meant, or where the cluster has any."""
    has = ray.cluster_resources().get("GPU", 0)
    if options.device == "cuda" and not has:
        raise ServeError("no node of the Ray cluster has a GPU", "use --device cpu")
    if options.gpus or options.device == "cpu" or not has:
        return options
    return replace(options, gpus=1.0)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            raise ServeError(
                f"port {port} is in use", "choose others with --listen and --http-port"
            ) from error


def _reason(error: Exception) -> str:
    """The last line that says something: Ray puts a replica's own error at the end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
