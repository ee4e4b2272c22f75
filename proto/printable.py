"""What others sent, as a line of a log or a terminal may show it."""

from __future__ import annotations

from splitpoint.codec.errors import visible

MOST = 100  # characters of a name, a path, an error that is not ours


def printable(text: str, most: int = MOST) -> str:
    """The first `most` characters; what ends lines, moves cursors or cannot be seen is escaped."""
    cut = text[:most]
    whole = visible(cut)
    return f"{whole}…" if len(text) > most else whole
