"""deploy/compose.yaml, statement by statement: what it names is there, and the commands parse."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from container_files import ROOT, arguments_of
from patience import PATIENCE_S
from processes import free_port
from splitpoint.cli.app import app
from splitpoint.edge.sinks.broker import Broker

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted, by where it is in the container."""
    pairs = [volume.split(":")[:2] for volume in service.get("volumes", ())]
    return {target: source for source, target in pairs}


def container_file(service: dict[str, Any]) -> Path:
    build = service["build"]
    context = (FILE.parent / build["context"]).resolve()
    assert context == ROOT
    return context / build["dockerfile"]


def parsed(service: dict[str, Any]) -> dict[str, Any]:
    """The options that its command comes to, with the files that are mounted."""
    program, command = json.loads(arguments_of(container_file(service), "ENTRYPOINT")[0])
    assert program == "splitpoint"
    here = {target: str(FILE.parent / source) for target, source in mounts(service).items()
            if source.startswith(".")}  # fmt: skip
    words = [here.get(word, word) for word in service["command"]]
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    with found.make_context(command, words) as context:
        return dict(context.params)


def test_it_has_a_worker_a_device_and_what_they_talk_to() -> None:
    assert set(OURS) == {"worker", "agent"}
    assert set(SERVICES) == {"worker", "agent", "prometheus", "mosquitto"}
    assert not any("profiles" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for target, source in mounts(SERVICES[name]).items():
        if source.startswith("."):
            assert (FILE.parent / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source
        assert target.startswith("/")


@pytest.mark.parametrize("name", OURS)
def test_what_must_be_kept_is(name: str) -> None:
    """The volumes of the image, and its home where it is written."""
    file = container_file(OURS[name])
    assert set(arguments_of(file, "VOLUME")) <= mounts(OURS[name]).keys()
    known = {line.partition("=")[0] for line in arguments_of(file, "ARG")}
    assert set(OURS[name]["build"].get("args", ())) <= known


@pytest.mark.parametrize("name", SERVICES)
def test_it_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "privileged" not in service


def test_the_commands_parse_and_the_device_finds_the_worker() -> None:
    worker, agent = parsed(OURS["worker"]), parsed(OURS["agent"])
    assert agent["server"] == f"worker:{worker['listen'].rpartition(':')[2]}"
    assert agent["source"][0].removeprefix("watch:") in mounts(OURS["agent"])
    assert str(agent["cache"]) in mounts(OURS["agent"])
    assert worker["insecure"]
    assert "ports" not in OURS["worker"]
    grace_s = int(OURS["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= worker["grace"] + 10


def test_the_device_publishes_to_the_broker() -> None:
    broker = Broker.parse(parsed(OURS["agent"])["mqtt"])
    here = (FILE.parent / "compose" / "mosquitto.conf").read_text(encoding="utf-8")
    assert broker.host in SERVICES
    assert f"listener {broker.port}" in here
    assert "mqtt" in OURS["agent"]["build"]["args"]["EXTRA"].split(",")


def test_the_device_waits_for_the_workers_health() -> None:
    waits = OURS["agent"]["depends_on"]
    assert waits == {"worker": {"condition": "service_healthy"}}
    assert arguments_of(container_file(OURS["worker"]), "HEALTHCHECK")


def test_prometheus_reads_where_figures_are() -> None:
    (source,) = (source for target, source in mounts(SERVICES["prometheus"]).items()
                 if target.endswith("prometheus.yml"))  # fmt: skip
    document = yaml.safe_load((FILE.parent / source).read_text(encoding="utf-8"))
    targets = {
        target
        for job in document["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    worker, agent = parsed(OURS["worker"]), parsed(OURS["agent"])
    assert targets == {
        f"worker:{worker['metrics'].rpartition(':')[2]}",
        f"agent:{agent['metrics_port']}",
    }
    assert agent["metrics_host"] == "0.0.0.0"
    assert worker["metrics"].startswith("0.0.0.0:")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed")
def test_the_brokers_configuration_is_understood(tmp_path: Path) -> None:
    """As it stands in the file, with a port and a folder of this machine."""
    service, port = SERVICES["mosquitto"], free_port()
    (source, data) = mounts(service).items()
    assert source[0] == "/mosquitto/config/mosquitto.conf"
    text = (FILE.parent / source[1]).read_text(encoding="utf-8")
    assert f"persistence_location {data[0]}/" in text
    here = text.replace("listener 1883", f"listener {port} 127.0.0.1")
    here = here.replace(f"{data[0]}/", f"{tmp_path}/")
    (tmp_path / "mosquitto.conf").write_text(here, encoding="utf-8")
    broker = ["mosquitto", "-c", tmp_path / "mosquitto.conf"]
    process = subprocess.Popen(broker, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + PATIENCE_S
        while not accepts(port) and process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.05)
        assert accepts(port)  # it ends at a line that it does not understand
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
