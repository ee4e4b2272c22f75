"""`splitpoint cache`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from splitpoint.edge.errors import CacheError
from splitpoint.edge.store.bundles import (
    CachedBundle,
    bundles_in,
    first_digits,
    only_digest,
    remove_bundle,
)
from splitpoint.partition.kept_files import default_cache
from splitpoint.proto.printable import printable

from ..shell.output import human_bytes, out, print_json, say


def cache(
    folder: Annotated[
        Path | None,
        typer.Option("--cache", help="Where fetched segments are kept.", show_default=False),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Remove this bundle, by the first digits of its digest; repeatable."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List the bundles that the agent has fetched, or remove some.

    Each may be run again with `splitpoint run --pin DIGEST`, whatever the worker serves now.
    """
    place = folder or default_cache()
    found = bundles_in(place)
    for digest in [_digest_of(found, text) for text in remove or ()]:
        remove_bundle(place, digest)
        say(f"removed the bundle {digest[:12]}")
    if remove:
        found = bundles_in(place)
    if json_:
        print_json({"cache": str(place), "bundles": [_to_json(bundle) for bundle in found]})
    elif found:
        out.print(_table(place, found))
    else:
        say(f"no bundle is in the cache {place}")


def _digest_of(found: list[CachedBundle], text: str) -> str:
    first = first_digits(text)
    digests = {bundle.digest for bundle in found if bundle.digest.startswith(first)}
    if not digests:
        raise CacheError(
            f"no bundle in the cache begins with {first}", "leave --remove out: a list"
        )
    return only_digest(digests, first)


def _to_json(bundle: CachedBundle) -> dict[str, object]:
    return {
        "digest": bundle.digest,
        "name": printable(bundle.name),
        "bytes": bundle.nbytes,
        "of_bytes": bundle.of_bytes,
        "used": _local_time(bundle.used_s),
        "servers": [printable(server) for server in bundle.servers],
    }


def _table(place: Path, found: list[CachedBundle]) -> Table:
    table = Table("digest", "model", "here", "of all its files", "last used", "last served by")
    # Names are of manifests that a worker sent: they are no markup.
    table.title = Text(printable(f"bundles in {place}"))
    for bundle in found:
        cells = (
            bundle.digest[:12],
            printable(bundle.name) or "(no manifest)",
            human_bytes(bundle.nbytes),
            human_bytes(bundle.of_bytes) if bundle.of_bytes else "",
            _local_time(bundle.used_s),
            ", ".join(printable(server) for server in bundle.servers),
        )
        table.add_row(*map(Text, cells))
    return table


def _local_time(seconds: float) -> str:
    """To the second, with its zone; "" where it is not known."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
