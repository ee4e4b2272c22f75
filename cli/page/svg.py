"""The few SVG pieces that the charts are made of, written as text.

A chart's width is the reader's: horizontal positions are percentages of the plot and vertical ones
pixels, so that letters keep their size on a phone. Margins for labels are CSS margins, into which
the drawing may overflow.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from statistics import mean

MOST_STEPS = 6  # between the ticks of an axis
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


def esc(value: object) -> str:
    """Text of any origin, fit for HTML and XML."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape(_UNSEEN.sub("\ufffd", text))


def tag(name: str, *children: str, **attributes: str | float) -> str:
    """An element; the children are markup already, attributes are escaped here.

    `class_` stands for class and an underscore for a hyphen. Raises `ValueError` for a number that
    is no position, which would otherwise spoil the drawing silently.
    """
    parts = [name]
    for key, value in attributes.items():
        if isinstance(value, (int, float)):
            if not math.isfinite(value):
                raise ValueError(f"{name} {key} is {value}")
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{esc(value)}"')
    return f"<{' '.join(parts)}>{''.join(children)}</{name}>"


def text(words: object, x: str | float, y: float, **attributes: str | float) -> str:
    """Letters whose baseline starts at `x`, `y`, or what `text_anchor` says."""
    return tag("text", esc(words), x=x, y=y, **attributes)


def line(x1: str | float, y1: float, x2: str | float, y2: float, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def at(x: str, y: float, *children: str) -> str:
    """Moves children that are drawn in pixels to a place whose `x` is a percentage."""
    return tag("svg", *children, x=x, y=y, width=1, height=1, class_="at")


def tip(words: str) -> str:
    """What shows while the mouse rests on an element."""
    return tag("title", esc(words))


def pct(fraction: float) -> str:
    """`12.34%`; raises `ValueError` for what is not finite."""
    if not math.isfinite(fraction):
        raise ValueError(f"a position of {fraction}")
    return f"{100 * fraction:.3f}%"


def chart(ident: str, title: str, description: str, height: float, class_: str, body: str) -> str:
    """A whole drawing with what a screen reader says of it."""
    return tag(
        "svg",
        tag("title", esc(title), id=f"{ident}-title"),
        tag("desc", esc(description), id=f"{ident}-desc"),
        body,
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
        height=height,
        class_=f"chart {class_}",
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """HTML of (class of the swatch, words)."""
    items = (f'<li><i class="{esc(c)}"></i>{esc(words)}</li>' for c, words in entries)
    return f'<ul class="legend">{"".join(items)}</ul>'


def figure(value: float) -> str:
    """Three digits or whole numbers: `0.12`, `4.56`, `45.6`, `1,234`."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def shortened(words: str, most: int) -> str:
    """At most that many characters; the end stays, and where there is room the start too."""
    if len(words) <= most:
        return words
    head = most * 2 // 5 if most >= 16 else 0
    return words[:head] + "…" + words[head + 1 - most :]


def ticks(limit: float) -> list[float]:
    """Round values from 0 to `limit`, in `MOST_STEPS` steps at most."""
    step = 10.0 ** math.floor(math.log10(limit / MOST_STEPS))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if factor * step * MOST_STEPS >= limit)
    return [index * step for index in range(int(limit / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 in every decade from `low` to `high`; only 1 where those would be too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 6 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def spread_out(places: Sequence[float], gap: float, most: float) -> list[float]:
    """The places of labels, moved as little as keeps them `gap` apart and from 0 to `most`.

    Labels that get in each other's way become a block, which stands where its members want to be
    on average (isotonic regression by pooling neighbours).
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    blocks: list[list[float]] = []  # each holds where its members would have the block's start
    for rank, index in enumerate(order):
        blocks.append([places[index] - gap * rank])
        while len(blocks) > 1 and mean(blocks[-2]) > mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    starts = [mean(block) for block in blocks for _ in block]
    moved, highest = list(places), max(most - gap * (len(places) - 1), 0.0)
    for rank, index in enumerate(order):
        moved[index] = min(max(starts[rank], 0.0), highest) + gap * rank
    return moved
