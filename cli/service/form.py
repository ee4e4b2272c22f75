"""A form as browsers and programs send it: multipart/form-data (RFC 7578), whole in memory."""

from __future__ import annotations

from email.message import Message
from email.parser import HeaderParser
from http import HTTPStatus

from .turned_down import TurnedDown

KIND = "multipart/form-data"
MOST_FIELDS, MOST_HEAD = 16, 2048  # bytes of a field's headers
# Fields before the file that are read to know who sends it.
MOST_BEFORE = 4096
_LINE = b"\r\n"


def boundary_of(content_type: str) -> bytes:
    """What stands between the fields; `TurnedDown` for a header that does not say it."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary("")
    if not boundary or len(boundary) > 70 or not boundary.isascii():
        raise TurnedDown(HTTPStatus.BAD_REQUEST, "the form's boundary is missing or too long")
    return boundary.encode()


def fields_of(body: bytes | bytearray, boundary: bytes) -> dict[str, bytes]:
    """The fields by their names, the first of each. `TurnedDown` for what is no form.

    Of a body that is not there yet, those that are whole.
    """
    parts = (_LINE + body).split(_LINE + b"--" + boundary, MOST_FIELDS + 1)
    if len(parts) > MOST_FIELDS + 1:
        raise TurnedDown(HTTPStatus.BAD_REQUEST, f"the form has more than {MOST_FIELDS} fields")
    found: dict[str, bytes] = {}
    for part in parts[1:-1]:  # before the first boundary, and behind the last, is nothing of it
        head, blank, content = part.partition(_LINE * 2)
        if not blank or len(head) > MOST_HEAD:
            raise TurnedDown(HTTPStatus.BAD_REQUEST, "a field of the form has no end of its head")
        headers = HeaderParser().parsestr(head.decode("latin-1").lstrip())
        name = headers.get_param("name", header="content-disposition")
        if isinstance(name, str):
            found.setdefault(name, content)
    return found
