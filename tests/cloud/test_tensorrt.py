"""A segment through TensorRT as onnxruntime is asked for it, on onnxruntime's CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from segment_sources import source_of, values_of
from splitpoint.cloud.errors import NotCompiled
from splitpoint.cloud.gpu.tensorrt import by_tensorrt
from splitpoint.partition.bundle.bundle import Bundle

MOST = 16


class Asked:
    """Sessions that were made, as TensorRT would be asked for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.providers: list[Any] = []
        self.named: list[dict[str, Any]] = []
        self.fails: list[str] = []
        make = onnxruntime.InferenceSession

        def session(path: str, options: object, *, providers: Any, **named: Any) -> Any:
            self.providers += providers
            self.named.append(named)
            if self.fails:
                raise RuntimeError(self.fails.pop())
            return make(path, providers=["CPUExecutionProvider"])

        class Stream:
            cuda_stream = 4321

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())

    def options(self, number: int = 0) -> dict[str, Any]:
        return dict(self.providers[number][1])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_every_segment_answers_for_every_size_as_torch_does(
    asked: Asked, small_bundle: Bundle, tmp_path: Path
) -> None:
    for index in range(len(small_bundle.manifest.segments)):
        source = source_of(small_bundle, index)
        run = by_tensorrt(source, tmp_path, MOST)
        for samples in (4, 1, 2, 4):
            values = values_of(source, samples)
            values[0] = values[0].transpose(-1, -2).contiguous().transpose(-1, -2)
            with torch.inference_mode():
                found, expected = run(*values), source.module(*values)
            for own, other in zip(found, expected, strict=True):
                torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_an_engine_for_any_size_and_a_session_for_each(
    asked: Asked, small_bundle: Bundle, tmp_path: Path
) -> None:
    """A captured graph has to have an execution context to itself."""
    source = source_of(small_bundle, 1)
    run = by_tensorrt(source, tmp_path, MOST)
    assert not asked.providers, "it is built when it is called"
    for samples in (4, 1, 4, 1):
        run(*values_of(source, samples))
    assert len(asked.providers) == 2
    assert asked.options(0) == asked.options(1)
    assert asked.providers[0][0] == "TensorrtExecutionProvider"
    assert asked.named[0] == {"enable_fallback": 0}
    options = asked.options()
    (spec,) = source.inputs
    for which, samples in (("min", 1), ("opt", 8), ("max", MOST)):
        shape = "x".join(map(str, spec.shape_at(samples)))
        assert options[f"trt_profile_{which}_shapes"] == f"{spec.name}:{shape}"
    assert options["user_compute_stream"] == "4321"
    assert options["device_id"] == 0
    assert options["trt_engine_cache_enable"]
    assert options["trt_timing_cache_enable"]


def test_each_segment_and_format_has_its_own_folder(
    asked: Asked, small_bundle: Bundle, tmp_path: Path
) -> None:
    """Engines are told apart by their folder alone."""
    folders = []
    for index, precision in ((1, "tf32"), (2, "tf32"), (1, "bf16"), (1, "fp16")):
        source = source_of(small_bundle, index, precision)
        by_tensorrt(source, tmp_path, MOST)(*values_of(source, 1))
        options = asked.options(-1)
        folders.append(Path(options["trt_engine_cache_path"]))
        assert options["trt_timing_cache_path"] == options["trt_engine_cache_path"]
        assert options.get("trt_fp16_enable", False) == (precision == "fp16")
        assert options.get("trt_bf16_enable", False) == (precision == "bf16")
    assert len(set(folders)) == 4
    assert all(folder.is_dir() and tmp_path in folder.parents for folder in folders)


def test_a_model_of_one_sample_has_no_range_of_sizes(
    asked: Asked, small_bundle: Bundle, tmp_path: Path
) -> None:
    source = source_of(small_bundle, 1)
    by_tensorrt(source, tmp_path, 1)(*values_of(source, 1))
    assert not any("profile" in name for name in asked.options())


def test_tf32_is_no_float32(small_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(NotCompiled, match="TF32"):
        by_tensorrt(source_of(small_bundle, 0, "fp32"), tmp_path, MOST)


def test_an_engine_that_was_cut_off_is_not_met_again(
    asked: Asked, small_bundle: Bundle, tmp_path: Path
) -> None:
    source = source_of(small_bundle, 1)
    run = by_tensorrt(source, tmp_path, MOST)
    run(*values_of(source, 1))
    folder = Path(asked.options()["trt_engine_cache_path"])
    (folder / "x.engine").write_bytes(b"half")
    asked.fails = ["CUDA error: out of memory"]
    with pytest.raises(RuntimeError, match="out of memory"):
        run(*values_of(source, 2))
    assert (folder / "x.engine").exists(), "it is not at fault"
    asked.fails = ["could not deserialize engine from cache"]
    with pytest.raises(RuntimeError, match="deserialize"):
        run(*values_of(source, 2))
    assert not folder.exists()
    run(*values_of(source, 2))
    assert folder.exists()


@pytest.mark.parametrize("times", [1, 2])
def test_an_engine_of_an_earlier_start_that_fails_is_built_anew_once(
    asked: Asked, small_bundle: Bundle, tmp_path: Path, times: int
) -> None:
    """As one that was cut off, or of another version: what was chosen then stays chosen."""
    source = source_of(small_bundle, 1)
    by_tensorrt(source, tmp_path, MOST)(*values_of(source, 1))
    folder = Path(asked.options()["trt_engine_cache_path"])
    (folder / "x.engine").write_bytes(b"half")
    run = by_tensorrt(source, tmp_path, MOST)
    asked.fails = ["could not deserialize engine from cache"] * times
    if times == 1:
        run(*values_of(source, 1))
        assert list(folder.iterdir()) == []
    else:
        with pytest.raises(RuntimeError, match="deserialize"):
            run(*values_of(source, 1))
    assert not asked.fails
