"""What Home Assistant is told of a device: a sensor for each of its sources.

The topics and keys are those of https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
and https://www.home-assistant.io/integrations/sensor.mqtt/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from splitpoint.partition.strict_json import to_json

_PREFIX = "homeassistant/sensor"
_ANSWERED = "value_json.outcome in ['answered', 'local']"
# A frame without an answer leaves a sensor as it is.
_LABEL = "{{{{ value_json.{0}[0].label if value_json.{0} else this.state }}}}"
_COUNT = (
    f"{{% if {_ANSWERED} %}}{{{{ value_json.detections | count }}}}"
    "{% elif is_number(this.state) %}{{ this.state }}{% else %}None{% endif %}"
)
# By task: what the sensor is called, the template of its state, and further keys.
_SHOWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classify": ("class", _LABEL.format("top"), {}),
    "detect": ("things", _COUNT, {"state_class": "measurement"}),
    "segment": ("largest area", _LABEL.format("areas"), {}),
}
_OUTCOME = ("outcome", "{{ value_json.outcome }}", dict[str, Any]())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensors:
    """One for each of `sources` (their names, "" for the only one) of a model with this task.

    It shows the last label, the number of things that were found, or the class of the largest area.
    """

    model: str
    task: str
    sources: Sequence[str]

    def configs(self, topic: str, status: str) -> Iterator[tuple[str, str]]:
        """Topic and message of each; results come below `topic`, and `status` says online."""
        what, template, more = _SHOWN.get(self.task, _OUTCOME)
        device = topic_level(topic)
        for source in self.sources:
            level = topic_level(source)
            config = {
                "name": f"{source} {what}".strip(),
                "unique_id": f"{device}_{level}",
                "state_topic": f"{topic}/{level}/result",
                "value_template": template,
                "availability_topic": status,
                "qos": 1,
                "device": {"identifiers": [device], "name": topic, "model": self.model},
                "origin": {"name": "splitpoint"},
                **more,
            }
            yield f"{_PREFIX}/{device}_{level}/config", to_json(config)


def topic_level(name: str) -> str:
    """One level of a topic."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "frames"
