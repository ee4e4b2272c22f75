"""Where an MQTT broker is, as a user writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from splitpoint.proto.address import join_address
from splitpoint.proto.redact import redacted

from ..errors import AgentError

TOPIC = "splitpoint"
PORTS = {"mqtt": 1883, "mqtts": 8883}
_FORM = "as in mqtt://user@host:1883/topic; the password stands in --mqtt-password-file"
_WILD = frozenset("+#\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """`topic` begins all topics. The password is in a file of its own, out of lists of processes.

    With TLS the broker's certificate is checked against `ca`, or against the system's.
    """

    host: str
    port: int
    topic: str = TOPIC
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None

    @classmethod
    def parse(
        cls, address: str, *, password_file: Path | None = None, ca: Path | None = None
    ) -> Broker:
        """`mqtt://` or `mqtts://`; `AgentError` for any other address, or a file that is none."""
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise AgentError(f"{redacted(address)} is no broker", _FORM) from None
        topic = unquote(parts.path).strip("/") or TOPIC
        good = parts.scheme in PORTS and parts.hostname and not (parts.query or parts.fragment)
        if not good or parts.password is not None or _WILD & set(topic) or topic[0] == "$":
            raise AgentError(f"{redacted(address)} is no broker", _FORM)
        assert parts.hostname is not None
        if password_file is not None and parts.username is None:
            raise AgentError("--mqtt-password-file without a user", "name one: mqtt://USER@HOST")
        if ca is not None and parts.scheme != "mqtts":
            raise AgentError("--mqtt-ca without TLS", "write mqtts:// in --mqtt")
        return cls(
            host=parts.hostname,
            port=port or PORTS[parts.scheme],
            topic=topic,
            tls=parts.scheme == "mqtts",
            user=unquote(parts.username or ""),
            password="" if password_file is None else _password(password_file),
            ca=ca,
        )

    def __str__(self) -> str:
        """For lines that are said of it."""
        return f"the MQTT broker at {join_address(self.host, self.port)}"


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise AgentError(f"cannot read the password file {path}: {why}") from error
