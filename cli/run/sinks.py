"""The slow sinks that a user asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from splitpoint.edge import EdgeAgent
from splitpoint.edge.errors import AgentError
from splitpoint.edge.sinks.annotated import AnnotatedPictures
from splitpoint.edge.sinks.broker import Broker
from splitpoint.edge.sinks.events import MOST_MB, EventFiles
from splitpoint.edge.sinks.home_assistant import Sensors
from splitpoint.edge.sinks.sink import Sink
from splitpoint.edge.sinks.webhook import Webhook, WebhookAddress

from .result_lines import FrameDocument, OutputFiles, source_of
from .slow_sinks import SlowSink

# Of the results that wait for what is away: a document is small, but a segmenter's map is not.
MOST_WAITING = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkWords:
    """What a user says of them."""

    outputs: Path | None = None
    annotated: Path | None = None
    mqtt: str = ""
    mqtt_password_file: Path | None = None
    mqtt_ca: Path | None = None
    webhook: str = ""
    webhook_token_file: Path | None = None
    insecure: bool = False
    events: Path | None = None
    events_max_mb: float = MOST_MB
    min_score: float = 0.0
    emulated: bool = False

    def document(self, agent: EdgeAgent) -> FrameDocument:
        """What is told of each frame."""
        return FrameDocument(agent=agent, emulated=self.emulated, min_score=self.min_score)


def slow_sinks(words: SinkWords, sources: Sequence[str]) -> list[SlowSink]:
    """All of them; `AgentError` for addresses that are none, and options without their sink."""
    return [*_on_disk(words), *_elsewhere(words, sources)]


def _on_disk(words: SinkWords) -> Iterator[SlowSink]:
    outputs, annotated, events = words.outputs, words.annotated, words.events
    if outputs is not None:
        yield SlowSink(name="save-outputs", make=lambda agent: OutputFiles(outputs))
    if annotated is not None:
        yield SlowSink(
            name="save-annotated",
            make=lambda agent: AnnotatedPictures(
                annotated, agent.manifest.task.kind, words.min_score
            ),
            most_waiting=4,  # each holds its photo
            draws=True,
        )
    if events is not None:
        yield SlowSink(
            name="events",
            make=lambda agent: EventFiles(events, words.document(agent), words.events_max_mb),
            most_waiting=MOST_WAITING,
        )


def _elsewhere(words: SinkWords, sources: Sequence[str]) -> Iterator[SlowSink]:
    if words.mqtt:
        broker = Broker.parse(words.mqtt, password_file=words.mqtt_password_file, ca=words.mqtt_ca)
        yield SlowSink(
            name="mqtt",
            make=lambda agent: _mqtt(broker, agent, sources, words),
            most_waiting=MOST_WAITING,
        )
    elif words.mqtt_password_file is not None or words.mqtt_ca is not None:
        raise AgentError("there is no broker for --mqtt-password-file or --mqtt-ca", "add --mqtt")
    if words.webhook:
        address = WebhookAddress.parse(
            words.webhook, token_file=words.webhook_token_file, insecure=words.insecure
        )
        yield SlowSink(
            name="webhook",
            make=lambda agent: Webhook(address, words.document(agent)),
            most_waiting=MOST_WAITING,
        )
    elif words.webhook_token_file is not None:
        raise AgentError("there is no webhook for --webhook-token-file", "add --webhook")


def _mqtt(broker: Broker, agent: EdgeAgent, sources: Sequence[str], words: SinkWords) -> Sink:
    from splitpoint.edge.sinks.mqtt import MqttSink  # the extra mqtt

    sensors = Sensors(
        model=agent.manifest.name, task=agent.manifest.task.kind, sources=tuple(sources)
    )
    return MqttSink(broker, words.document(agent), source_of, sensors)
