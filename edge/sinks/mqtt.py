"""Results as messages of MQTT, with availability and Home Assistant's discovery.

The extra `mqtt` brings the client.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from splitpoint.partition.strict_json import to_json

from ..errors import AgentError
from ..result import Result
from .broker import Broker
from .home_assistant import Sensors, topic_level

log = logging.getLogger("splitpoint.edge")

# Messages that wait while the broker is away; of those beyond, the oldest are lost.
MOST_WAITING = 1000
MOST_UNACKNOWLEDGED = 20
CONNECT_S, FLUSH_S, KEEP_ALIVE_S = 10.0, 5.0, 30
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1, 30
ONLINE, OFFLINE = "online", "offline"


class MqttSink:
    """A sink that publishes TOPIC/SOURCE/result for each frame, each at least once and in order.

    TOPIC/status is `online` or `offline`, retained, and said by the broker where this device
    cannot. `describe` gives a result's document, `source_of` the name of its source, and `sensors`
    what Home Assistant is told. A broker that goes away is waited for: the oldest of more than
    `MOST_WAITING` are lost. One that is there and slow is waited for by `add`. Raises `AgentError`
    where it cannot be reached at the start, or does not let us in.
    """

    def __init__(
        self,
        broker: Broker,
        describe: Callable[[Result], Mapping[str, Any]],
        source_of: Callable[[Result], str],
        sensors: Sensors,
    ) -> None:
        self._broker, self._describe, self._source_of = broker, describe, source_of
        self._status = f"{broker.topic}/status"
        self._sensors = dict(sensors.configs(broker.topic, self._status))
        # The client calls back while it holds a lock of its own, which publishing takes: nothing
        # is published while this one is held.
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[tuple[str, str]] = deque()
        self._under_way: set[int] = set()
        self._again: set[int] = set()  # of these, what the client sends once more by itself
        self._sending, self._early = False, set[int]()  # acknowledged before `publish` returned
        self._connected, self._begun, self._refused = False, False, ""
        self._delivered = self._lost = 0
        self._client = self._made()
        self._begin()

    def add(self, result: Result) -> None:
        """Publishes it, or lets it wait for the broker."""
        topic = f"{self._broker.topic}/{topic_level(self._source_of(result))}/result"
        message = to_json(self._describe(result))
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < MOST_WAITING or not self._connected)
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append((topic, message))
        self._send()

    def close(self) -> None:
        """Says that this device is offline, once what waits is delivered or `FLUSH_S` are over."""
        with self._changed:
            self._changed.wait_for(
                lambda: not (self._waiting or self._under_way or self._sending), FLUSH_S
            )
            self._lost += len(self._waiting) + len(self._under_way)
            self._waiting.clear()
            self._under_way.clear()
            connected = self._connected
        if connected:
            told = self._client.publish(self._status, OFFLINE, qos=1, retain=True)
            if told.rc == paho.MQTT_ERR_SUCCESS:  # else it went away just now
                told.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def counts(self) -> dict[str, int]:
        """What became of the results."""
        with self._changed:
            return {"delivered": self._delivered, "lost": self._lost}

    def _made(self) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        client.max_inflight_messages_set(0)  # `_send` limits them
        client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        client.will_set(self._status, OFFLINE, qos=1, retain=True)
        if self._broker.user:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls:
            ca = None if self._broker.ca is None else str(self._broker.ca)
            try:
                client.tls_set_context(ssl.create_default_context(cafile=ca))
            except OSError as error:
                raise AgentError(f"--mqtt-ca {ca} holds no certificate that can be read") from error
        return client

    def _begin(self) -> None:
        broker = self._broker
        try:
            self._client.connect(broker.host, broker.port, KEEP_ALIVE_S)
        except ssl.SSLCertVerificationError as error:
            raise AgentError(
                f"{broker} is not trusted ({error.verify_message})", "name its CA by --mqtt-ca"
            ) from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise AgentError(
                f"{broker} cannot be reached ({why})", "start it, or give another --mqtt"
            ) from error
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or bool(self._refused), CONNECT_S)
            self._begun = self._connected
            refused = self._refused
        if self._begun:
            return
        self._client.disconnect()
        self._client.loop_stop()
        raise AgentError(
            f"{broker} does not let us in ({refused or 'it does not answer'})",
            "check the user in --mqtt, --mqtt-password-file, and whether it is mqtts://",
        )

    def _send(self) -> None:
        """Gives the client what may be under way, in order, one thread at a time."""
        while True:
            with self._changed:
                room = len(self._under_way) < MOST_UNACKNOWLEDGED and not self._again
                if self._sending or not (self._connected and self._waiting and room):
                    return
                self._sending = True
                topic, message = self._waiting.popleft()
            mid = self._client.publish(topic, message, qos=1).mid
            with self._changed:
                self._sending = False
                if mid in self._early:
                    self._delivered += 1
                else:
                    self._under_way.add(mid)
                self._early.clear()
                self._changed.notify_all()

    # What the client's thread calls ----------------------------------------------------------

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            before, self._refused = self._refused, str(reason) if reason.is_failure else ""
            if reason.is_failure:
                if self._begun and self._refused != before:
                    log.warning("%s does not let us in (%s)", self._broker, reason)
                self._changed.notify_all()
                return
        client.publish(self._status, ONLINE, qos=1, retain=True)
        for topic, config in self._sensors.items():  # it may have forgotten what it retained
            client.publish(topic, config, qos=1, retain=True)
        with self._changed:
            if self._begun:
                log.warning("%s is back", self._broker)
            self._again = set(self._under_way)
            self._connected = True
            self._changed.notify_all()
        self._send()

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            if self._connected and reason.is_failure:
                log.warning(
                    "%s is gone (%s); up to %d results wait for it",
                    self._broker, reason, MOST_WAITING,
                )  # fmt: skip
            elif not self._begun:
                self._refused = self._refused or "it hangs up"
            self._connected = False
            self._changed.notify_all()

    def _on_publish(
        self, client: paho.Client, data: Any, mid: int, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            if mid in self._under_way:
                self._under_way.discard(mid)
                self._again.discard(mid)
                self._delivered += 1
            elif self._sending:
                self._early.add(mid)
            self._changed.notify_all()
        self._send()
