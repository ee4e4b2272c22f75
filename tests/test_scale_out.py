"""The page about scale-out and its manifest name what there is in the code."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from splitpoint.cli.app import app
from splitpoint.cloud.ray.options import APP, RayOptions
from splitpoint.cloud.ray.servicer import SERVICER_FUNCTION
from splitpoint.proto.limits import KEEPALIVE_MS, SERVICE

yaml = pytest.importorskip("yaml", reason="no YAML parser is installed")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guides" / "scale-out.md").read_text(encoding="utf-8")
GRPC_PORT, HTTP_PORT = 9000, 8000


@pytest.fixture(scope="module")
def manifest() -> list[dict[str, Any]]:
    text = (ROOT / "deploy" / "kubernetes" / "rayservice.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def serve_config(manifest: list[dict[str, Any]]) -> dict[str, Any]:
    found = yaml.safe_load(manifest[0]["spec"]["serveConfigV2"])
    assert isinstance(found, dict)
    return found


def test_the_manifest_names_our_functions(serve_config: dict[str, Any]) -> None:
    assert serve_config["grpc_options"]["grpc_servicer_functions"] == [SERVICER_FUNCTION]
    (application,) = serve_config["applications"]
    assert application["name"] == APP
    module, name = application["import_path"].split(":")
    path = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_manifest_gives_options_that_there_are(serve_config: dict[str, Any]) -> None:
    arguments = serve_config["applications"][0]["args"]
    assert set(arguments) <= {field.name for field in fields(RayOptions)}
    options = RayOptions(**arguments)
    assert options.device == "cuda"
    assert options.gpus == 1


def test_ports_and_sizes_agree(
    manifest: list[dict[str, Any]], serve_config: dict[str, Any]
) -> None:
    spec, service = manifest[0]["spec"], manifest[1]
    assert serve_config["grpc_options"]["port"] == GRPC_PORT
    assert serve_config["http_options"]["port"] == HTTP_PORT
    group = spec["rayClusterConfig"]["workerGroupSpecs"][0]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": HTTP_PORT, "grpc": GRPC_PORT}
    assert service["spec"]["ports"][0]["targetPort"] == GRPC_PORT
    options = RayOptions(**serve_config["applications"][0]["args"])
    assert group["maxReplicas"] == options.max_replicas
    assert container["resources"]["requests"]["nvidia.com/gpu"] == options.gpus
    mounted = container["volumeMounts"][0]["mountPath"]
    assert all(path.startswith(f"{mounted}/") for path in options.bundles)
    assert pod["terminationGracePeriodSeconds"] > options.grace_s + 10


def test_envoy_knows_the_service_and_lets_streams_be() -> None:
    (snippet,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = yaml.safe_load(snippet)["static_resources"]
    (cluster,), (listener,) = found["clusters"], found["listeners"]
    assert cluster["health_checks"][0]["grpc_health_check"]["service_name"] == SERVICE
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["stream_idle_timeout"] == "0s"
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert route["match"]["prefix"] == f"/{SERVICE}/"
    assert route["route"] == {"cluster": cluster["name"], "timeout": "0s"}
    pings = manager["http2_protocol_options"]["connection_keepalive"]
    assert pings["interval"] == f"{KEEPALIVE_MS // 1000}s"


def test_commands_and_files_on_the_page_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"^splitpoint .*$", PAGE, re.MULTILINE):
        _, name, *words = line.split()
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    for path in re.findall(r"`((?:cloud|benchmarks)/\w+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path
    anchors = {re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-")
               for title in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}  # fmt: skip
    assert set(re.findall(r"\]\(#([a-z-]+)\)", PAGE)) <= anchors
