"""Addresses as they may be shown: without what lets others in.

Cameras and proxies take their password in the address: before the host, in the query, some even in
the path. Every line, name of a frame and error shows an address through `redacted`.
"""

from __future__ import annotations

import re
from itertools import takewhile

UNKNOWN = "…"

_HOST = re.compile(r"(\[[\w.:%-]+\]|[\w.-]+)(:\d+)?")
# Before an `@`: of a password, or of a query that has an `@` in it. Nobody can tell.
_UNCLEAR = re.compile(r"[?#;]|/.*[=&]", re.DOTALL)


def redacted(address: str) -> str:
    """`scheme://host:port/path` of an address, and what has no `://` as it is.

    User, password and everything behind `?`, `#` or `;` go, whatever it is called: no list knows
    what all makers call a password, a token or a signature. So does the path from the first part
    with a `=` on. People write passwords as they are, with `/` or `@` in them: where it cannot be
    told what is the host, `scheme://…` is all that is left.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    before, _, after = rest.rpartition("@")
    host, *path = re.split("[?#;]", after, maxsplit=1)[0].split("/")
    if _UNCLEAR.search(before) or not _HOST.fullmatch(host):
        return f"{scheme}://{UNKNOWN}"
    return "/".join([f"{scheme}://{host}", *takewhile(lambda part: "=" not in part, path)])
