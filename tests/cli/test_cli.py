"""The command as a user meets it: JSON that scripts lean on, and errors in one line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Command
from PIL import Image
from processes import MAIN, background, free_port, rest_of
from splitpoint.cli.commands import doctor as doctor_cmd
from splitpoint.cli.run import three_ways
from splitpoint.edge.link import probe
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.meter import Found
from splitpoint.partition.model_spec import ModelSpec


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(
            folder / f"{i}.png"
        )
    return folder


def test_inspect_json(command: Command, small_bundle: Bundle) -> None:
    document = json.loads(command("inspect", str(small_bundle.folder), "--json").stdout)
    assert document.keys() >= {"name", "digest", "layers", "boundaries", "codecs"}
    assert document["digest"] == small_bundle.digest
    layer = document["layers"][1]
    assert layer.keys() >= {
        "name", "op", "output_shape", "flops", "params", "output_bytes", "segment",
    }  # fmt: skip
    assert layer["name"] == "conv1"
    assert layer["output_shape"] == [8, 12, 12]
    first = document["boundaries"][0]
    assert first["tensors"] == [{"name": "pixels", "dtype": "uint8", "shape": [24, 24, 3]}]
    assert first["bytes"] == 24 * 24 * 3


def test_inspect_table_shows_boundaries(command: Command, small_bundle: Bundle) -> None:
    out = command("inspect", str(small_bundle.folder)).stdout
    for boundary in small_bundle.manifest.boundaries[1:]:
        assert f"boundary {boundary.id}" in out


def test_run_json(
    command: Command, small: ModelSpec, small_bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.jpg").write_bytes(b"no picture")
    with background(["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0"]) as address:
        done = command(
            "run", "--json", "--server", address, "--source", str(pictures), "--split", "2",
            "--codec", "raw", "--cache", str(tmp_path / "cache"), "--save-outputs",
            str(tmp_path / "out"), "--slowdown", "2",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [line["outcome"] for line in lines] == ["answered"] * 3 + ["failed"]
    summary = last["summary"]
    assert summary["frames"] == 4 == sum(summary["outcomes"].values())
    assert summary["outcomes"] == {
        "answered": 3,
        "local": 0,
        "expired": 0,
        "failed": 1,
        "skipped": 0,
    }
    assert summary.keys() >= {
        "p50_ms", "p95_ms", "p99_ms", "bytes_up", "energy_mj", "energy_kind",
    }  # fmt: skip
    assert "emulated" in summary
    line = lines[0]
    assert line.keys() >= {"id", "source", "split", "codec", "bytes_up", "top", "total_ms"}
    assert line["stages_ms"].keys() == {
        "edge", "encode", "uplink", "queue", "cloud", "downlink",
    }  # fmt: skip
    assert "no picture" in lines[3]["error"]
    assert small.picture is not None
    for line in lines[:3]:
        pixels = small.picture.read(Path(line["source"]))
        with torch.inference_mode():
            expected = small.module(torch.tensor(pixels[None])).numpy()
        saved = np.load(tmp_path / "out" / f"{line['id']:06}-output.npy")
        np.testing.assert_allclose(saved, expected, rtol=1e-4, atol=1e-4)
        assert line["top"][0]["label"] == small.labels[int(expected.argmax())]
        scores = torch.tensor(expected[0]).softmax(0)
        assert line["top"][0]["score"] == pytest.approx(float(scores.max()), abs=1e-4)


def test_run_local_needs_no_server(command: Command, small_bundle: Bundle, pictures: Path) -> None:
    done = command(
        "run", "--bundle", str(small_bundle.folder), "--split", "local", "--source",
        str(pictures / "*.png"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["outcomes"]["local"] == 3


def test_interrupted_run_accounts_for_its_frames(small_bundle: Bundle, pictures: Path) -> None:
    process = subprocess.Popen(
        [*MAIN, "run", "--bundle", str(small_bundle.folder), "--split", "local", "--source",
         str(pictures), "--json", "--repeat", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = rest_of(process)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert json.loads(lines[-1])["summary"]["frames"] == len(lines)


def damaged(bundle: Bundle, folder: Path) -> Path:
    copy = Path(shutil.copytree(bundle.folder, folder / "damaged.split"))
    (copy / "segments" / "00.onnx").write_bytes(b"")
    return copy


def test_errors_are_one_line_with_a_remedy(
    command: Command, small_bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    good, broken = str(small_bundle.folder), str(damaged(small_bundle, tmp_path))
    source = ["--source", str(pictures)]
    nobody = f"127.0.0.1:{free_port()}"
    cases = {
        ("inspect", "nothing.split"): "there is no bundle",
        ("inspect", broken): "damaged",
        ("serve", "nothing.split"): "there is no bundle",
        ("serve", broken): "damaged",
        ("serve", good, "--device", "cuda"): "CUDA",
        ("serve", good, "--device", "tpu9"): "unknown device",
        ("compile", "torchvision:nothing", "--out", "x.split"): "no model",
        ("compile", "nothing", "--out", "x.split"): "unknown model",
        ("compile", "no.such:thing", "--out", "x.split"): "cannot import",
        ("compile", "efficientnet-lite0", "--out", good): "exists already",
        ("compile", "torchvision:alexnet", "--weights", "no.pth", "--out", "x.split"): "no.pth",
        ("run", "--server", nobody, *source): "no worker answers",
        ("run", "--server", nobody, "--source", "nothing/*.jpg"): "matches no file",
        ("run", "--bundle", good, "--split", "1", *source): "needs a worker",
        ("run", "--bundle", good, "--split", "99", *source): "no boundary '99'",
        ("run", "--bundle", good, "--runtime", "onnxruntime-int8", *source): "no INT8 segments",
        ("run", "--bundle", good, "--providers", "cuda", *source): "no execution provider 'cuda'",
        ("profile", good, "--runtime", "onnxruntime-int8"): "no INT8 segments",
        ("profile", good, "--providers", "abacus"): "no execution provider 'abacus'",
        ("run", *source): "neither a server nor a bundle",
        ("run", "--server", nobody, "--budget-ms", "5e9", *source): "a budget of",
        ("emulate", "--server", "localhost"): "has no port",
        ("profile", "nothing.split"): "there is no bundle",
        ("emulate", "--server", nobody, "--link", "5parsec"): "unknown link",
        ("emulate", "--server", nobody, "--fault", "boom@1s"): "unknown fault",
    }
    for arguments, words in cases.items():
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == 1, (arguments, done.stderr)
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("error: "), done.stderr
        assert words in line, line
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.split").exists()


def test_busy_port(command: Command, small_bundle: Bundle) -> None:
    with background(["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0"]) as address:
        done = command("serve", str(small_bundle.folder), "--listen", address)
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr.splitlines()[-1]


def test_wrong_usage_exits_2(command: Command) -> None:
    assert command("inspect").returncode == 2
    assert command("run", "--sauce", "x").returncode == 2
    assert command("compile", "efficientnet-lite0", "--out", "x", "--int8").returncode == 2


def test_compile_json_and_unsupported_op(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 4, 3, stride=4)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x).mean((2, 3))\n"
        "class Odd(Net):\n"
        "    def forward(self, x):\n"
        "        return torch.special.bessel_j1(self.conv(x)).mean((2, 3))\n"
    )
    done = command("compile", "mine:Net", "--out", "net.split", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "boundaries, which takes" in line]
    assert line.startswith(
        "mine:Net: 3 layers, 118 parameters, photos of 224x224 (crop), answers: "
    )
    assert "classify; to be cut at " in line
    assert "mine:Net returns the model in training mode" in done.stderr
    document = json.loads(done.stdout)
    assert document["max_relative_error"] < 1e-4
    done = command("compile", "mine:Odd", "--out", "odd.split", cwd=tmp_path)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert "bessel_j1" in line
    assert "without an ONNX form" in line
    assert sorted(p.name for p in tmp_path.glob("*.split")) == ["net.split"]


@pytest.mark.slow
def test_demo(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(three_ways, "SECONDS", 1.0)
    monkeypatch.setattr(probe, "LARGE_PROBES", 1)
    done = command("demo", "--json", "--link", "wifi")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["boundaries"]) == 8
    labels = {row["photo"]: row["label"] for row in document["photos"]}
    assert labels["coffee.png"] == "espresso"
    assert labels["rocket.png"] == "missile"
    assert "emulated" in document["link"]
    links = ["3g", "lte", "wifi", "fading", "lte, then cut off"]
    assert [row["link"] for row in document["ways"]] == [link for link in links for _ in range(3)]
    assert all(row["fps_in_time"] > 0 for row in document["ways"][2::3])  # each frame its own way


def test_profile(command: Command, small_bundle: Bundle, tmp_path: Path) -> None:
    done = command(
        "profile", str(small_bundle.folder), "--out", str(tmp_path / "p.json"), "--json",
        "--threads", "1", "--slowdown", "4", "--max-seconds", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "p.json").read_text())
    assert document.keys() >= {
        "device", "runtime", "threads", "date", "digest", "segments", "layers",
    }  # fmt: skip
    assert document["emulated"] == "slowed down 4 times"
    assert [layer["name"] for layer in document["layers"]] == [
        layer.name for layer in small_bundle.manifest.layers
    ]
    assert document["segments"][0].keys() >= {"id", "ms", "p95_ms", "mj"}


def test_int8(command: Command, int8_bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    folder, profiles = str(int8_bundle.folder), []
    document = json.loads(command("inspect", folder, "--json").stdout)
    assert document["int8"].keys() == {"1", "2", "3", "4"}
    assert document["int8"]["4"].keys() >= {"judged", "agreed", "loss"}
    assert "INT8 on the device" in command("inspect", folder).stdout
    for runtime in ("onnxruntime", "onnxruntime-int8", "torch"):
        path = tmp_path / f"{runtime}.json"
        profiles.append(str(path))
        done = command(
            "profile", folder, "--out", profiles[-1], "--runtime", runtime, "--max-seconds", "0.5",
            "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["runtime"] == runtime
        done = command(
            "run", "--bundle", folder, "--split", "local", "--source", str(pictures), "--json",
            "--runtime", runtime,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"in {runtime}" in done.stderr
    done = command(
        "plan", folder, "--edge", profiles[0], "--edge", profiles[1], "--cloud", profiles[2],
        "--link", "lte", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runtimes = {candidate["runtime"] for candidate in json.loads(done.stdout)["candidates"]}
    assert runtimes == {"onnxruntime", "onnxruntime-int8"}


def test_run_without_torch(small_bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    """A whole run, fetch and frames, where torch and its company cannot be imported."""
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'onnx'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from splitpoint.cli.main import main\n"
        "given = sys.argv\n"
        "for split in ('input', '2', 'local', 'auto'):\n"
        "    sys.argv = [*given, '--split', split]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code\n"
    )
    with background(["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0"]) as address:
        done = subprocess.run(
            [sys.executable, "-c", blocker, "run", "--json", "--server", address, "--source",
             str(pictures), "--cache", str(tmp_path / "cache")],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [line for line in map(json.loads, done.stdout.splitlines()) if "summary" in line]
    at_input, at_2, local, auto = (line["summary"]["outcomes"] for line in ends)
    assert (at_input["answered"], at_2["answered"], local["local"]) == (3, 3, 3)
    assert auto["answered"] + auto["local"] == 3


@pytest.mark.parametrize("usable", [False, True])
def test_doctor_says_where_energy_comes_from(
    usable: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meters = [Found(name="rapl", usable=usable, detail="not found, or found")]
    monkeypatch.setattr(doctor_cmd, "find_meters", lambda: meters)
    doctor_cmd.doctor(json_=True)
    document = json.loads(capsys.readouterr().out)
    assert document["energy_meters"] == [
        {"name": "rapl", "usable": usable, "detail": "not found, or found"}
    ]
    assert "W busy" in document["power_model"]
    doctor_cmd.doctor(json_=False)
    said = capsys.readouterr().out
    assert ("energy cannot be measured on this machine" in said) is not usable
    assert document["power_model"] in said.replace("\n", " ")
