"""Results through a real mosquitto: in order, at least once, and none lost within the bound."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import free_port
from splitpoint.edge import AgentError, Outcome, Result

paho = pytest.importorskip("paho.mqtt.client")

from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402
from splitpoint.edge.sinks import mqtt  # noqa: E402
from splitpoint.edge.sinks.broker import Broker  # noqa: E402
from splitpoint.edge.sinks.home_assistant import Sensors  # noqa: E402
from splitpoint.edge.sinks.mqtt import MqttSink  # noqa: E402

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
PASSWD = shutil.which("mosquitto_passwd")
real = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


class Mosquitto:
    """A broker that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._process: subprocess.Popen[bytes] | None = None

    def demand_password(self, folder: Path) -> None:
        assert PASSWD is not None
        subprocess.run([PASSWD, "-b", "-c", folder / "users", "me", "right"], check=True)
        (folder / "users").chmod(0o644)
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\n"
            f"password_file {folder / 'users'}\nuser root\n"
        )

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.3)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Listener:
    """What a subscriber gets of all topics."""

    def __init__(self, port: int, **over: Any) -> None:
        self.messages: list[tuple[str, str, bool]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda client, data, message: self.messages.append(
            (message.topic, message.payload.decode(), message.retain)
        )
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        time.sleep(0.3)

    def of(self, topic: str) -> list[str]:
        return [text for name, text, _ in self.messages if name == topic]

    def wait(self, topic: str, count: int) -> list[str]:
        give_up_s = time.monotonic() + 10
        while len(self.of(topic)) < count and time.monotonic() < give_up_s:
            time.sleep(0.02)
        return self.of(topic)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


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
        lambda one: {"id": one.id, "outcome": one.outcome.value},
        lambda one: str(one.metadata),
        Sensors(model="m", task="detect", sources=["yard"]),
    )


@real
def test_messages_come_in_order_and_the_device_says_whether_it_is_there(
    broker: Mosquitto,
) -> None:
    broker.start()
    listener = Listener(broker.port)
    sink = sink_at(broker.port)
    for number in range(100):
        sink.add(result(number))
    sink.close()
    found = listener.wait("cams/yard/result", 100)
    assert [json.loads(text) for text in found] == [
        {"id": number, "outcome": "local"} for number in range(100)
    ]
    assert listener.wait("cams/status", 2) == ["online", "offline"]
    assert sink.counts() == {"delivered": 100, "lost": 0}
    (config,) = listener.wait("homeassistant/sensor/cams_yard/config", 1)
    told = json.loads(config)
    assert told["state_topic"] == "cams/yard/result"
    assert told["availability_topic"] == "cams/status"
    listener.close()
    late = Listener(broker.port)  # what is retained is there for those who come later
    assert late.wait("cams/status", 1) == ["offline"]
    assert late.messages[0][2]
    late.close()


@real
def test_a_broker_that_dies_and_comes_back_gets_all_within_the_bound(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker.start()
    sink = sink_at(broker.port)
    for number in range(10):
        sink.add(result(number))
    time.sleep(0.5)
    broker.kill()
    for number in range(10, 60):
        sink.add(result(number))
        time.sleep(0.01)
    broker.start()
    listener = Listener(broker.port)
    found = {json.loads(text)["id"] for text in listener.wait("cams/yard/result", 50)}
    assert found >= set(range(10, 60))
    sink.close()
    listener.close()
    assert sink.counts() == {"delivered": 60, "lost": 0}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "is gone" in said[0]
    assert said[1].endswith("is back")


@real
def test_beyond_the_bound_the_oldest_are_lost_and_counted(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "MOST_WAITING", 20)
    broker.start()
    sink = sink_at(broker.port)
    time.sleep(0.2)
    broker.kill()
    time.sleep(0.2)
    for number in range(100):
        sink.add(result(number))
    broker.start()
    listener = Listener(broker.port)
    found = [json.loads(text)["id"] for text in listener.wait("cams/yard/result", 20)]
    assert found[-20:] == list(range(80, 100))
    sink.close()
    listener.close()
    assert sink.counts() == {"delivered": 20, "lost": 80}


@real
@pytest.mark.skipif(PASSWD is None, reason="mosquitto_passwd is not installed")
def test_a_password_lets_in_and_a_wrong_one_is_one_line(broker: Mosquitto, tmp_path: Path) -> None:
    broker.demand_password(tmp_path)
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
    with pytest.raises(AgentError, match=r"broker at 127\.0\.0\.1:\d+ cannot be reached"):
        sink_at(free_port())


@pytest.mark.parametrize(
    "address",
    ["", "host", "http://h/t", "mqtt://", "mqtt://u:secret@h/t", "mqtt://h/a+b", "mqtt://h:x/t",
     "mqtt://h/t?x=1", "mqtt://h/%23"],
)  # fmt: skip
def test_what_is_no_broker(address: str) -> None:
    with pytest.raises(AgentError, match="is no broker") as caught:
        Broker.parse(address)
    assert "secret" not in str(caught.value)


def test_addresses() -> None:
    found = Broker.parse("mqtts://me@[::1]:9999/a/b")
    assert (found.host, found.port, found.topic, found.tls, found.user) == (
        "::1", 9999, "a/b", True, "me",
    )  # fmt: skip
    plain = Broker.parse("mqtt://broker.lan")
    assert (plain.port, plain.topic, plain.tls) == (1883, "splitpoint", False)
