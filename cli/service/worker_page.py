"""The page of `serve --http`."""

from __future__ import annotations

from splitpoint.cloud.options import HttpFile

from .page_files import OPEN_FILES, POLICY, PageFile


def worker_page() -> dict[str, HttpFile]:
    """Its files by path; it looks like that of a device."""
    page = {
        "/": PageFile("worker.html", "text/html"),
        "/worker.css": PageFile("worker.css", "text/css"),
        "/worker.js": PageFile("worker.js", "text/javascript"),
        "/page.css": OPEN_FILES["/page.css"],
        "/icon.svg": OPEN_FILES["/icon.svg"],
    }
    return {
        path: HttpFile(content_type=file.content_type, content=file.content, policy=POLICY)
        for path, file in page.items()
    }
