"""The address of a camera holds its password: no output of a run may."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from splitpoint.cli.main import main
from splitpoint.partition.bundle.bundle import Bundle


class FailingCapture:
    """OpenCV's, whose words hold the address."""

    def __init__(self, url: str, *_: object) -> None:
        raise cv2.error(f"cannot open {url}")


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:secret/x@127.0.0.1:9/s",
        "rtsp://admin:x/secret@127.0.0.1:9/s",
        "http://127.0.0.1:9/flv?user=admin&password=secret",
        "http://127.0.0.1:9/s;secret",
        "rtsp://127.0.0.1:9/user=admin_password=secret",
        "srt://admin:secret@127.0.0.1:9/s",
        "admin:secret@127.0.0.1:9/s",
        "127.0.0.1:9/flv?password=secret",
    ],
)
@pytest.mark.parametrize("options", [(), ("--repeat", "2"), ("--watch",), ("--config",)])
def test_a_run_with_a_failing_camera_tells_no_password(
    url: str,
    options: tuple[str, ...],
    small_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = ["run", "--bundle", str(small_bundle.folder), "--split", "local", "--json"]
    if options == ("--config",):
        config = tmp_path / "agent.toml"
        config.write_text(f'source = [["{url}"], 1]\n')
        arguments += ["--config", str(config)]
    else:
        arguments += ["--source", url, *options]
    monkeypatch.setattr("sys.argv", ["splitpoint", *arguments])
    if not options:
        monkeypatch.setattr(cv2, "VideoCapture", FailingCapture)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (1, 2)
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err + caplog.text
    assert len(said.err.splitlines()) == 1 or caught.value.code == 2
    assert "Traceback" not in said.err
