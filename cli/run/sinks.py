"""The slow sinks that a user asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from splitpoint.edge import EdgeAgent
from splitpoint.edge.errors import AgentError
from splitpoint.edge.sinks.annotated import AnnotatedPictures
from splitpoint.edge.sinks.broker import Broker
from splitpoint.edge.sinks.sink import Sink
from splitpoint.edge.sinks.webhook import Webhook

from .result_lines import OutputFiles, frame_json, source_of
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
    min_score: float = 0.0


def slow_sinks(words: SinkWords, sources: Sequence[str]) -> list[SlowSink]:
    """All of them; `AgentError` for addresses that are none, and options without their sink."""
    return list(_sinks(words, sources))


def _sinks(words: SinkWords, sources: Sequence[str]) -> Iterator[SlowSink]:
    outputs, annotated = words.outputs, words.annotated
    if outputs is not None:
        yield SlowSink(name="save-outputs", make=lambda agent: OutputFiles(outputs))
    if annotated is not None:
        yield SlowSink(
            name="save-annotated",
            make=lambda agent: AnnotatedPictures(
                annotated, agent.manifest.task.kind, agent.labels, words.min_score
            ),
            most_waiting=4,  # each holds its photo
            draws=True,
        )
    if words.mqtt:
        broker = Broker.parse(words.mqtt, password_file=words.mqtt_password_file, ca=words.mqtt_ca)
        yield SlowSink(
            name="mqtt",
            make=lambda agent: _mqtt(broker, agent, sources, words.min_score),
            most_waiting=MOST_WAITING,
        )
    elif words.mqtt_password_file is not None or words.mqtt_ca is not None:
        raise AgentError("there is no broker for --mqtt-password-file or --mqtt-ca", "add --mqtt")
    if words.webhook:
        yield SlowSink(
            name="webhook",
            make=lambda agent: Webhook(
                words.webhook,
                lambda result: frame_json(agent, result, words.min_score),
                words.webhook_token_file,
            ),
            most_waiting=MOST_WAITING,
        )
    elif words.webhook_token_file is not None:
        raise AgentError("there is no webhook for --webhook-token-file", "add --webhook")


def _mqtt(broker: Broker, agent: EdgeAgent, sources: Sequence[str], min_score: float) -> Sink:
    from splitpoint.edge.sinks.mqtt import MqttSink, templates_for  # the extra mqtt

    return MqttSink(
        broker,
        lambda result: frame_json(agent, result, min_score),
        templates_for(agent.manifest.task.kind, sources),
        source_of,
    )
