"""Cameras that give one picture for each request: `http://camera/snapshot.jpg`."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from splitpoint.codec import Array
from splitpoint.partition.errors import PictureError
from splitpoint.partition.photo import open_photo
from splitpoint.proto.redact import redacted

from ..errors import SourceError
from .opencv import Capture, open_stream, quiet_opencv
from .paced import Pace

DEFAULT_FPS = 1.0  # a camera has better things to do than to encode pictures for us
TIMEOUT_S = 4.0
MOST_BYTES = 32 << 20


class Snapshots:
    """A capture that asks for a picture `fps` times a second."""

    def __init__(self, camera: _Camera, fps: float) -> None:
        self._camera, self._pace = camera, Pace(fps)

    def read(self) -> Array | None:
        """The picture when it is due; None for one that cannot be decoded.

        Raises `SourceError` where the camera does not answer.
        """
        time.sleep(self._pace.wait_s(time.monotonic()))
        self._pace.took(time.monotonic())
        _, body = self._camera.get()
        try:
            return np.asarray(open_photo(body, "snapshot"))
        except PictureError:
            return None

    def close(self) -> None:
        """Each request has ended already."""


def open_http(url: str, fps: float) -> Capture:
    """Snapshots where a request gives a picture, and the stream that it begins otherwise.

    Raises `SourceError` where nothing answers, `ModuleNotFoundError` for a stream without OpenCV.
    """
    camera = _Camera(url)
    kind, _ = camera.get(only_kind=True)
    if kind.startswith("image/"):
        return Snapshots(camera, fps if fps <= 1000 else DEFAULT_FPS)
    quiet_opencv()
    return open_stream(url)


class _Camera:
    """Requests to one address. A password in it is sent as Basic or Digest, as the camera asks."""

    def __init__(self, url: str) -> None:
        self._name = redacted(url)
        try:
            parts = urlsplit(url)
        except ValueError:
            raise SourceError(f"{self._name} is no address", "give http://HOST/PATH") from None
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit(parts._replace(netloc=host, fragment=""))
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            passwords.add_password(None, self._url, user, password)
        self._opener = urllib.request.build_opener(
            _SameHost,
            _Basic(passwords),
            _Digest(passwords),
        )

    def get(self, *, only_kind: bool = False) -> tuple[str, bytes]:
        """The type of what it sends, and the bytes; `SourceError` where it sends nothing."""
        try:
            with self._opener.open(self._url, timeout=TIMEOUT_S) as answer:
                kind = answer.headers.get_content_type()
                body = b"" if only_kind else answer.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            error.close()
            remedy = "give user and password in the address" if error.code == 401 else ""
            raise SourceError(f"{self._name} answers with status {error.code}", remedy) from None
        except (OSError, http.client.HTTPException, ValueError):
            # What these say may hold the address with its password.
            raise SourceError(f"{self._name} does not answer", "is it there?") from None
        if len(body) > MOST_BYTES:
            raise SourceError(
                f"{self._name} sends more than {MOST_BYTES >> 20} MB", "is it a camera?"
            )
        return kind, body


class _Basic(urllib.request.HTTPBasicAuthHandler):
    """Closes the connection on which it was asked for a password."""

    def http_error_401(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> Any:
        """The answer to the request with one, if there is one."""
        answer = super().http_error_401(req, fp, code, msg, headers)
        if answer is not None:
            fp.close()
        return answer


class _Digest(urllib.request.HTTPDigestAuthHandler):
    """Likewise."""

    def http_error_401(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> Any:
        """The answer to the request with one, if there is one."""
        answer = super().http_error_401(req, fp, code, msg, headers)
        if answer is not None:
            fp.close()
        return answer


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a camera to another page of its own, and nowhere else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """None, which makes it an error, for another host."""
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)
