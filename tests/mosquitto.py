"""A real MQTT broker that can be killed, and somebody who listens to it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from patience import PATIENCE_S
from processes import free_port

# Of what a listener has not yet acknowledged, the broker would drop what is beyond 1,000.
_ALL_KEPT = "max_queued_messages 0\n"
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
PASSWD = shutil.which("mosquitto_passwd")
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None or PASSWD is None, reason="mosquitto is not installed"
)


def wait_for(condition: Callable[[], object], what: str) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, what
        time.sleep(0.01)


class Mosquitto:
    """Without a password for anybody, unless it demands one of `me`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{_ALL_KEPT}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def demand_password(self, password: str) -> None:
        users = self._config.parent / "users"
        assert PASSWD is not None
        subprocess.run([PASSWD, "-b", "-c", users, "me", password], check=True)
        users.chmod(0o644)
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\n"
            f"password_file {users}\nuser root\n{_ALL_KEPT}"
        )

    def offer_tls(self, certificates: Path) -> int:
        """The port of a second listener, whose certificate is `server.pem` there."""
        port = free_port()
        with self._config.open("a") as file:
            file.write(
                f"listener {port} 127.0.0.1\ncertfile {certificates / 'server.pem'}\n"
                f"keyfile {certificates / 'server.key'}\nallow_anonymous true\nuser root\n"
            )
        return port

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(self._listens, "mosquitto does not listen")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False


class Listener:
    """Has all messages, from when it is made: topic, text, and whether it was retained."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, str, bool]] = []
        subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda client, data, message: self.messages.append(
            (message.topic, message.payload.decode(), message.retain)
        )
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def of(self, topic: str) -> list[str]:
        return [text for name, text, _ in self.messages if name == topic]

    def wait(self, topic: str, count: int) -> list[str]:
        wait_for(lambda: len(self.of(topic)) >= count, f"{topic}: {self.messages}")
        return self.of(topic)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
