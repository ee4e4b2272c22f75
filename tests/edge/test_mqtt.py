"""Results through a real mosquitto: in order, at least once, and none lost within the bound."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Listener, Mosquitto, needs_mosquitto, wait_for
from patience import PATIENCE_S
from processes import free_port
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.edge import AgentError, Outcome, Result
from splitpoint.edge.sinks import mqtt
from splitpoint.edge.sinks.broker import Broker
from splitpoint.edge.sinks.home_assistant import Sensors
from splitpoint.edge.sinks.mqtt import MqttSink

RESULTS = "cams/yard/result"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(tmp_path)
    yield found
    found.kill()


def result(number: int) -> Result:
    return Result(id=number, outcome=Outcome.LOCAL, boundary=0, codec="raw", metadata="yard")


def sink_at(port: int, address: str = "mqtt://127.0.0.1:{}/cams", **over: Any) -> MqttSink:
    return MqttSink(
        Broker.parse(address.format(port), **over),
        lambda one: {"id": one.id, "outcome": one.outcome.value, "score": float("nan")},
        lambda one: str(one.metadata),
        Sensors(model="m", task="detect", sources=["yard"]),
    )


def ids(texts: list[str]) -> list[int]:
    """Each once, where it came first."""
    return list(dict.fromkeys(json.loads(text)["id"] for text in texts))


@needs_mosquitto
def test_messages_come_in_order_and_the_device_says_whether_it_is_there(
    broker: Mosquitto,
) -> None:
    broker.start()
    listener = Listener(broker.port)
    sink = sink_at(broker.port)
    for number in range(100):
        sink.add(result(number))
    sink.close()
    assert [json.loads(text) for text in listener.wait(RESULTS, 100)] == [
        {"id": number, "outcome": "local", "score": None} for number in range(100)
    ]
    assert listener.wait("cams/status", 2) == ["online", "offline"]
    assert sink.counts() == {"delivered": 100, "lost": 0}
    (config,) = listener.wait("homeassistant/sensor/cams_yard/config", 1)
    told = json.loads(config)
    assert told["state_topic"] == RESULTS
    assert told["availability_topic"] == "cams/status"
    assert told["state_class"] == "measurement"
    listener.close()
    late = Listener(broker.port)  # what is retained is there for those who come later
    late.wait("cams/status", 1)
    late.wait("homeassistant/sensor/cams_yard/config", 1)
    assert {(topic, kept) for topic, _, kept in late.messages} == {
        ("cams/status", True), ("homeassistant/sensor/cams_yard/config", True),
    }  # fmt: skip
    assert late.of("cams/status") == ["offline"]
    late.close()


# paho leaves the socket of a handshake that fails to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
@needs_mosquitto
def test_only_a_broker_whose_certificate_is_good_gets_anything(
    broker: Mosquitto, tmp_path: Path
) -> None:
    for name in ("own", "other"):
        make_certificates(tmp_path / name, servers=["127.0.0.1"])
    port = broker.offer_tls(tmp_path / "own")
    broker.start()
    listener = Listener(broker.port)
    with pytest.raises(AgentError, match=r"is not trusted .*name its CA by --mqtt-ca"):
        sink_at(port, "mqtts://127.0.0.1:{}/other", ca=tmp_path / "other" / "ca.pem")
    gc.collect()
    sink = sink_at(port, "mqtts://127.0.0.1:{}/cams", ca=tmp_path / "own" / "ca.pem")
    for number in range(20):
        sink.add(result(number))
    sink.close()
    assert sink.counts() == {"delivered": 20, "lost": 0}
    assert ids(listener.wait(RESULTS, 20)) == list(range(20))
    assert not any(topic.startswith("other") for topic, _, _ in listener.messages)
    listener.close()


@needs_mosquitto
def test_a_burst_waits_for_the_broker_and_loses_nothing(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both threads of the sink are busy for as long as it takes."""
    monkeypatch.setattr(mqtt, "FLUSH_S", PATIENCE_S)
    broker.start()
    listener = Listener(broker.port)
    sink = sink_at(broker.port)
    for number in range(4000):
        sink.add(result(number))
    sink.close()
    assert ids(listener.wait(RESULTS, 4000)) == list(range(4000))
    assert sink.counts() == {"delivered": 4000, "lost": 0}
    listener.close()


@needs_mosquitto
def test_a_broker_that_dies_and_comes_back_gets_all_within_the_bound(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 2)  # the listener is there before it
    broker.start()
    sink = sink_at(broker.port)
    for number in range(200):
        sink.add(result(number))
        if number == 100:
            broker.kill()
    broker.start()
    listener = Listener(broker.port)
    wait_for(lambda: sink.counts()["delivered"] == 200, "not all are delivered")
    for number in range(200, 250):
        sink.add(result(number))
    sink.close()
    assert sink.counts() == {"delivered": 250, "lost": 0}
    found = ids(listener.wait(RESULTS, 149))
    assert found == list(range(found[0], 250))  # in order, though some were sent twice
    assert found[0] <= 101
    # The device may be back before or after the listener, who then hears of it twice.

    def statuses() -> list[str]:
        return [status for status, _ in groupby(listener.of("cams/status"))]

    wait_for(lambda: statuses() == ["online", "offline"], f"it says {statuses()}")
    configs = listener.of("homeassistant/sensor/cams_yard/config")  # it had forgotten
    assert len(set(configs)) == 1
    listener.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "is gone" in said[0]
    assert said[1].endswith("is back")


@needs_mosquitto
def test_beyond_the_bound_the_oldest_are_lost_and_counted(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt, "MOST_WAITING", 20)
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 2)
    broker.start()
    sink = sink_at(broker.port)
    broker.kill()
    wait_for(lambda: caplog.records, "it does not see that the broker is gone")
    for number in range(100):
        sink.add(result(number))
    broker.start()
    listener = Listener(broker.port)
    assert ids(listener.wait(RESULTS, 20)) == list(range(80, 100))
    sink.close()
    listener.close()
    assert sink.counts() == {"delivered": 20, "lost": 80}


@needs_mosquitto
def test_what_a_broker_never_took_is_lost_at_the_end(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "FLUSH_S", 0.1)
    broker.start()
    sink = sink_at(broker.port)
    sink.add(result(0))
    wait_for(lambda: sink.counts()["delivered"] == 1, "the first is not delivered")
    broker.kill()
    for number in range(1, 50):
        sink.add(result(number))
    begun_s = time.monotonic()
    sink.close()
    assert time.monotonic() - begun_s < 10
    assert sink.counts() == {"delivered": 1, "lost": 49}


@needs_mosquitto
def test_a_password_lets_in_and_a_wrong_one_is_one_line(broker: Mosquitto, tmp_path: Path) -> None:
    broker.demand_password("right")
    broker.start()
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(f"{name}\n")
    address = "mqtt://me@127.0.0.1:{}/cams"
    sink_at(broker.port, address, password_file=tmp_path / "right").close()
    with pytest.raises(AgentError, match=r"does not let us in \(Not authorized\): check") as caught:
        sink_at(broker.port, address, password_file=tmp_path / "wrong")
    assert "\n" not in str(caught.value)
    with pytest.raises(AgentError, match="does not let us in"):
        sink_at(broker.port)


def test_a_broker_that_is_not_there() -> None:
    with pytest.raises(AgentError, match=r"broker at 127\.0\.0\.1:\d+ cannot be reached .*: start"):
        sink_at(free_port())


@pytest.mark.parametrize(
    "address",
    ["", "host", "http://h/t", "mqtt://", "mqtt://u:secret@h/t", "mqtt://h/a+b", "mqtt://h:x/t",
     "mqtt://h/t?x=1", "mqtt://h/%23", "mqtt://h/$SYS"],
)  # fmt: skip
def test_what_is_no_broker(address: str) -> None:
    with pytest.raises(AgentError, match="is no broker") as caught:
        Broker.parse(address)
    assert "secret" not in str(caught.value)


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="without a user: name one"):
        Broker.parse("mqtt://h/t", password_file=tmp_path / "password")
    with pytest.raises(AgentError, match="--mqtt-ca without TLS: write mqtts://"):
        Broker.parse("mqtt://h/t", ca=tmp_path / "ca.pem")
    with pytest.raises(AgentError, match="cannot read the password file"):
        Broker.parse("mqtt://me@h/t", password_file=tmp_path / "password")


def test_addresses() -> None:
    found = Broker.parse("mqtts://me@[::1]:9999/a/b")
    assert (found.host, found.port, found.topic, found.tls, found.user) == (
        "::1", 9999, "a/b", True, "me",
    )  # fmt: skip
    assert str(found) == "the MQTT broker at [::1]:9999"
    plain = Broker.parse("mqtt://broker.lan")
    assert (plain.port, plain.topic, plain.tls) == (1883, "splitpoint", False)


@pytest.mark.parametrize("task", ["classify", "detect", "segment", ""])
def test_home_assistant_is_told_of_each_source(task: str) -> None:
    """Keys of the documented format; a source may have any name, and the only one has none."""
    sensors = Sensors(model="m", task=task, sources=["", "the yard"])
    found = {topic: json.loads(text) for topic, text in sensors.configs("a/b", "a/b/status")}
    assert list(found) == [
        "homeassistant/sensor/a_b_frames/config", "homeassistant/sensor/a_b_the_yard/config",
    ]  # fmt: skip
    first, second = found.values()
    assert (first["state_topic"], second["state_topic"]) == (
        "a/b/frames/result", "a/b/the_yard/result",
    )  # fmt: skip
    assert first["unique_id"] != second["unique_id"]
    assert first["device"] == second["device"]
    assert second["name"].startswith("the yard ")
    template = first["value_template"]
    assert template.count("{{") == template.count("}}") >= 1
    assert template.count("{%") == template.count("%}")
