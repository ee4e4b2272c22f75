"""Results as messages of MQTT, with availability and Home Assistant's discovery.

The extra `mqtt` brings the client.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ..errors import AgentError
from ..result import Result
from .broker import Broker

log = logging.getLogger("splitpoint.edge")

# Messages that wait while the broker is away; of those beyond, the oldest are lost.
MOST_WAITING = 1000
MOST_UNACKNOWLEDGED = 20
CONNECT_S, FLUSH_S, KEEP_ALIVE_S = 10.0, 5.0, 30
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1, 60
ONLINE, OFFLINE = "online", "offline"
_DISCOVERY = "homeassistant/sensor"


class MqttSink:
    """A sink that publishes TOPIC/SOURCE/result for each frame, each at least once and in order.

    TOPIC/status is `online` or `offline`, retained, and said by the broker where this device
    cannot. `describe` gives a result's document, and `templates` the state of each source for Home
    Assistant, by its name. A broker that goes away is waited for: `lost` counts what did not wait
    as long. Raises `AgentError` where it cannot be reached at the start, or does not let us in.
    """

    def __init__(
        self,
        broker: Broker,
        describe: Callable[[Result], Mapping[str, Any]],
        templates: Mapping[str, str],
        source_of: Callable[[Result], str],
    ) -> None:
        self._broker, self._describe, self._templates = broker, describe, templates
        self._source_of = source_of
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[tuple[str, str]] = deque()
        self._under_way: set[int] = set()
        self._connected, self._refused = False, ""
        self._was_gone = False
        self.delivered = self.lost = 0
        self._client = self._made()
        self._begin()

    def add(self, result: Result) -> None:
        """Publishes it, or lets it wait for the broker."""
        topic = f"{self._broker.topic}/{_level(self._source_of(result))}/result"
        message = json.dumps(self._describe(result))
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append((topic, message))
            self._publish()

    def close(self) -> None:
        """Says that this device is offline, once what waits is delivered or `FLUSH_S` are over."""
        with self._changed:
            self._changed.wait_for(
                lambda: not (self._waiting or self._under_way) or not self._connected, FLUSH_S
            )
            self.lost += len(self._waiting) + len(self._under_way)
            self._waiting.clear()
            connected = self._connected
        if connected:
            self._client.publish(self._status, OFFLINE, qos=1, retain=True).wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def counts(self) -> dict[str, int]:
        """What became of the results."""
        return {"delivered": self.delivered, "undelivered": self.lost}

    @property
    def _status(self) -> str:
        return f"{self._broker.topic}/status"

    def _made(self) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        client.max_inflight_messages_set(MOST_UNACKNOWLEDGED)
        client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        client.will_set(self._status, OFFLINE, qos=1, retain=True)
        if self._broker.user:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls:
            ca = None if self._broker.ca is None else str(self._broker.ca)
            try:
                client.tls_set_context(ssl.create_default_context(cafile=ca))
            except (OSError, ssl.SSLError) as error:
                raise AgentError(f"--mqtt-ca {ca} holds no certificate that can be read") from error
        return client

    def _begin(self) -> None:
        broker = self._broker
        try:
            self._client.connect(broker.host, broker.port, KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise AgentError(f"{broker} cannot be reached ({why})", "is it there?") from error
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or bool(self._refused), CONNECT_S)
            if self._connected:
                return
            refused = self._refused or "it does not answer"
        self._client.disconnect()
        self._client.loop_stop()
        raise AgentError(f"{broker} does not let us in: {refused}", "see user and password")

    def _publish(self) -> None:
        """Sends what may be under way; what that is waits for its acknowledgement in the client."""
        while self._connected and self._waiting and len(self._under_way) < MOST_UNACKNOWLEDGED:
            topic, message = self._waiting.popleft()
            self._under_way.add(self._client.publish(topic, message, qos=1).mid)

    # What the client's thread calls ----------------------------------------------------------

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            if reason.is_failure:
                self._refused = str(reason)
            else:
                self._connected, self._refused = True, ""
                if self._was_gone:
                    log.warning("%s is back", self._broker)
                self._was_gone = False
                client.publish(self._status, ONLINE, qos=1, retain=True)
                self._announce(client)
                self._publish()
            self._changed.notify_all()

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            if self._connected and reason.is_failure:
                log.warning("%s is gone (%s); results wait for it", self._broker, reason)
                self._was_gone = True
            self._connected = False
            self._changed.notify_all()

    def _on_publish(
        self, client: paho.Client, data: Any, mid: int, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            if mid in self._under_way:
                self._under_way.discard(mid)
                self.delivered += 1
                self._publish()
            self._changed.notify_all()

    def _announce(self, client: paho.Client) -> None:
        """To Home Assistant: one sensor for each source."""
        for source, template in self._templates.items():
            name = f"{_level(self._broker.topic)}_{_level(source)}"
            config = {
                "name": source or "splitpoint",
                "unique_id": name,
                "state_topic": f"{self._broker.topic}/{_level(source)}/result",
                "value_template": template,
                "json_attributes_topic": f"{self._broker.topic}/{_level(source)}/result",
                "availability_topic": self._status,
                "device": {"identifiers": [_level(self._broker.topic)], "name": self._broker.topic},
            }
            client.publish(f"{_DISCOVERY}/{name}/config", json.dumps(config), qos=1, retain=True)


def _level(name: str) -> str:
    """One level of a topic."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "frames"


def templates_for(task: str, sources: Sequence[str]) -> dict[str, str]:
    """What Home Assistant shows of each source: the first class, or how many things are seen."""
    shown = {
        "classify": "{{ value_json.top[0].label if value_json.top else 'none' }}",
        "detect": "{{ value_json.detections | default([]) | count }}",
        "segment": "{{ value_json.areas[0].label if value_json.areas else 'none' }}",
    }.get(task, "{{ value_json.outcome }}")
    return dict.fromkeys(sources, shown)
