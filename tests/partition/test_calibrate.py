"""Calibration: tables and ladders of small models, against what the models really answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from built import built
from calibrated import SCENES, pixels_of
from splitpoint.codec import NO_TABLES, Array, CodecError, CodecSet, codec_of_tensor, codecs_for
from splitpoint.codec.fkt.table import FktTable
from splitpoint.partition.bundle.bundle import Boundary, Bundle, open_bundle
from splitpoint.partition.bundle.codec_tables import codecs_of, load_tables
from splitpoint.partition.bundle.ladder import DEFAULT_LOSS, CodecLevel
from splitpoint.partition.bundle.samples import Samples
from splitpoint.partition.calibrate import calibrate as calibrating
from splitpoint.partition.calibrate.calibrate import FOLDS, IMAGE_LADDER, calibrate
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import BundleError, PlanError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.plan import coarser, default_level, named_plan
from splitpoint.partition.profile.measure_codecs import measure_codecs
from splitpoint.partition.run.onnx_chain import OnnxChain

CPU = torch.device("cpu")
Values = Mapping[str, Array]


class TwoTensors(torch.nn.Module):
    """A regression with a float and an integer input; a skip makes two tensors cross with them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(6, 12)
        self.table = torch.nn.Embedding(9, 12)
        self.middle = torch.nn.Linear(12, 12)
        self.norm = torch.nn.LayerNorm(12)
        self.last = torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        skip = self.embed(x)
        y = torch.relu(self.middle(skip))
        y = self.norm(self.middle(y)) + 0.1
        y = torch.tanh(self.middle(y)) + skip
        return self.last(y + self.table(ids).mean(1, keepdim=True))


def two_tensors_spec() -> ModelSpec:
    torch.manual_seed(0)
    args = (torch.randn(3, 16, 6), torch.randint(0, 9, (3, 4)))
    return ModelSpec(source="two", module=TwoTensors(), args=args)


@pytest.fixture
def pictures(album_folder: Path) -> Path:
    return album_folder


@pytest.fixture
def spec(vivid_spec: ModelSpec) -> ModelSpec:
    return vivid_spec


@pytest.fixture
def bundle(vivid_bundle: Bundle) -> Bundle:
    return vivid_bundle


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of `TwoTensors`."""
    folder, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for index in range(SCENES):
        scale = rng.uniform(0.5, 2, (1, 6))
        np.savez(
            folder / f"{index:02}.npz",
            x=(scale * rng.normal(size=(16, 6))).astype(np.float32),
            ids=rng.integers(0, 9, 4),
        )
    return folder


@pytest.fixture(scope="module")
def two_tensors(arrays: Path) -> Bundle:
    spec, calibration = two_tensors_spec(), Calibration(source=str(arrays))
    return built(
        "two",
        lambda path: compile_model(spec, path, boundaries=20, calibration=calibration),
        __file__,
    )


def inputs_of(bundle: Bundle, source: Path) -> tuple[Values, ...]:
    return calibration_inputs(bundle.manifest, Calibration(source=str(source))).inputs


CHAINS: dict[str, OnnxChain] = {}


def loaded(bundle: Bundle) -> OnnxChain:
    """Loaded once."""
    if bundle.digest not in CHAINS:
        chain = CHAINS[bundle.digest] = OnnxChain(bundle, 1)
        for index in range(len(chain)):
            chain.load(index)
    return CHAINS[bundle.digest]


def crossing(bundle: Bundle, given: Values) -> list[Values]:
    """The tensors of every boundary, for one input."""
    chain = loaded(bundle)
    state = chain.place(given)
    found = []
    for boundary in bundle.manifest.boundaries:
        found.append({s.name: chain.fetch(state[s.name]) for s in boundary.tensors})
        if boundary.id < len(chain):
            state = dict(state) | dict(chain.step(boundary.id, state))
    return found


def rest_of_the_model(bundle: Bundle, boundary: int, values: Values) -> Array:
    """The first output from a boundary on, for one input."""
    chain = loaded(bundle)
    state = chain.place(values)
    for index in range(boundary, len(chain)):
        state = dict(state) | dict(chain.step(index, state))
    return chain.fetch(state[next(iter(bundle.manifest.outputs.values()))]).astype(np.float64)


def sent(codecs: CodecSet, name: str, boundary: Boundary, values: Values) -> tuple[int, Values]:
    """Payload bytes, and what arrives."""
    codec, nbytes, decoded = codecs.named(name, boundary.id), 0, {}
    for tensor in boundary.tensors:
        way = codec_of_tensor(codec, tensor)
        payload = way.encode(values[tensor.name], tensor)
        nbytes += len(payload)
        decoded[tensor.name] = way.decode(payload, tensor, 1)
    return nbytes, decoded


def fkt_rungs(boundary: Boundary) -> list[CodecLevel]:
    return [rung for rung in boundary.ladder if rung.codec.startswith("fkt@")]


def divergence(before: Array, after: Array) -> float:
    """Kullback-Leibler, in nats, of rows of logits."""
    p, q = (torch.tensor(x, dtype=torch.float64).log_softmax(-1) for x in (before, after))
    return float((p.exp() * (p - q)).sum(-1).mean())


# What appears


def test_inner_boundaries_get_tables_and_all_get_ladders(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert open_bundle(bundle.folder).manifest == manifest
    first, *inner, last = manifest.boundaries
    assert inner
    assert (first.tables, last.tables, last.ladder) == ("", "", ())
    assert [rung.codec for rung in first.ladder] == [
        *IMAGE_LADDER["jpeg"], *IMAGE_LADDER["webp"],
    ]  # fmt: skip
    for boundary in inner:
        assert boundary.tables == f"codecs/{boundary.id:02}.safetensors"
        assert boundary.tables in manifest.files
        names = [rung.codec for rung in boundary.ladder]
        fixed = [name for name in codecs_for(boundary.tensors) if name != "raw"]
        levels = names[len(fixed) :]
        assert names[: len(fixed)] == fixed
        assert levels == [f"fkt@{number}" for number in range(1, len(levels) + 1)]
        assert len(levels) >= 4
        assert boundary.codecs == ["raw", *fixed, *levels]


def test_every_rung_makes_sense(bundle: Bundle) -> None:
    for boundary in bundle.manifest.boundaries:
        for rung in boundary.ladder:
            assert rung.judged == SCENES
            assert rung.agreed is not None
            assert 0 < rung.nbytes < 2 * boundary.nbytes
            assert rung.p95_bytes >= 0.9 * rung.nbytes
            assert rung.encode_ms > 0
            assert rung.decode_ms > 0
            assert (rung.correct, rung.correct_before) == (None, None)
            if rung.loss < 1e-4:
                assert rung.agreed >= SCENES - 1


def test_finer_levels_cost_more_and_lose_less(bundle: Bundle, two_tensors: Bundle) -> None:
    for found in (bundle, two_tensors):
        for boundary in found.manifest.boundaries[1:-1]:
            rungs = fkt_rungs(boundary)
            # Each fold has tables of its own, so that two levels of a few bytes may change places.
            assert all(a.nbytes <= 1.02 * b.nbytes for a, b in pairwise(rungs))
            assert rungs[-1].nbytes > rungs[0].nbytes
            assert rungs[-1].loss < rungs[0].loss


def test_the_transform_codec_is_the_smallest(bundle: Bundle) -> None:
    """Of what these pictures are made of, little matters to the answer."""
    for boundary in bundle.manifest.boundaries[1:-2]:
        q4 = boundary.level("q4")
        assert q4 is not None
        assert all(rung.nbytes < q4.nbytes / 4 for rung in fkt_rungs(boundary))


# Against what really happens


def worst_error(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(after - before).max() / np.abs(before).max())


@pytest.mark.parametrize("codec", ["jpeg@75", "jpeg@95", "webp@80"])
def test_image_rungs_against_the_unsplit_model(
    bundle: Bundle, spec: ModelSpec, pictures: Path, codec: str
) -> None:
    boundary = bundle.manifest.boundaries[0]
    pixels = pixels_of(spec, pictures)
    sizes, decoded = [], []
    for row in pixels:
        nbytes, arrived = sent(NO_TABLES, codec, boundary, {"pixels": row[None]})
        sizes.append(nbytes)
        decoded.append(arrived["pixels"][0])
    with torch.inference_mode():
        before = spec.module(torch.tensor(pixels)).numpy()
        after = spec.module(torch.tensor(np.stack(decoded))).numpy()
    rung = boundary.level(codec)
    assert rung is not None
    assert rung.nbytes == pytest.approx(np.mean(sizes), abs=0.06)
    assert rung.p95_bytes == pytest.approx(np.percentile(sizes, 95), abs=0.06)
    assert rung.agreed == int((before.argmax(-1) == after.argmax(-1)).sum())
    assert rung.loss == pytest.approx(divergence(before, after), rel=1e-2, abs=1e-5)
    assert rung.worst_error == pytest.approx(worst_error(before, after), rel=1e-2)


def test_codecs_without_tables_against_the_rest_of_the_model(
    bundle: Bundle, spec: ModelSpec, pictures: Path
) -> None:
    with torch.inference_mode():
        before = spec.module(torch.tensor(pixels_of(spec, pictures))).numpy()
    rows = [crossing(bundle, given) for given in inputs_of(bundle, pictures)]
    for boundary in bundle.manifest.boundaries[1:-1]:
        for codec in ("fp16", "q4"):
            found = [sent(NO_TABLES, codec, boundary, row[boundary.id]) for row in rows]
            after = np.concatenate(
                [rest_of_the_model(bundle, boundary.id, arrived) for _, arrived in found]
            )
            rung = boundary.level(codec)
            assert rung is not None
            assert rung.nbytes == pytest.approx(np.mean([n for n, _ in found]), abs=0.06)
            assert rung.agreed == int((before.argmax(-1) == after.argmax(-1)).sum())
            assert rung.loss == pytest.approx(divergence(before, after), rel=0.02, abs=1e-5)
            assert rung.worst_error == pytest.approx(worst_error(before, after), rel=0.05, abs=1e-4)
            if codec == "fp16":
                assert rung.agreed == SCENES


def test_the_tables_that_ship_do_as_the_ladder_says(bundle: Bundle, pictures: Path) -> None:
    """Those that judged were made from three quarters of the inputs, so that figures differ.

    Payloads of some twenty bytes also by the four bytes of a lane.
    """
    codecs = codecs_of(bundle.manifest, bundle.folder)
    rows = [crossing(bundle, given) for given in inputs_of(bundle, pictures)]
    for boundary in bundle.manifest.boundaries[1:-1]:
        for rung in fkt_rungs(boundary)[::3]:
            sizes = [sent(codecs, rung.codec, boundary, row[boundary.id])[0] for row in rows]
            assert np.mean(sizes) == pytest.approx(rung.nbytes, rel=0.15, abs=5)


def test_the_finest_level_keeps_the_answers(
    bundle: Bundle, spec: ModelSpec, pictures: Path
) -> None:
    """With the tables that ship, against the unsplit model.

    Of answers on the edge, one that changes must have been nearly as likely as the one it was.
    """
    codecs = codecs_of(bundle.manifest, bundle.folder)
    with torch.inference_mode():
        before = spec.module(torch.tensor(pixels_of(spec, pictures))).numpy()
    likely = torch.tensor(before).softmax(-1).numpy()
    rows = [crossing(bundle, given) for given in inputs_of(bundle, pictures)]
    for boundary in bundle.manifest.boundaries[1:-1]:
        losses = []
        for rung in (fkt_rungs(boundary)[0], fkt_rungs(boundary)[-1]):
            after = np.concatenate(
                [
                    rest_of_the_model(
                        bundle,
                        boundary.id,
                        sent(codecs, rung.codec, boundary, row[boundary.id])[1],
                    )
                    for row in rows
                ]
            )
            losses.append(divergence(before, after))
        each = np.arange(len(before))
        lost = likely.max(-1) - likely[each, after.argmax(-1)]
        assert lost.max() < 0.1
        assert losses[-1] < 0.01
        assert losses[-1] < losses[0]


@pytest.mark.slow
def test_every_input_is_judged_with_tables_made_without_it(
    spec: ModelSpec, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table's mean shows what it was made from: an input of its own fold never matters."""
    bundle = compile_model(spec, tmp_path / "v.split", boundaries=3)
    inputs = list(inputs_of(bundle, pictures))[:8]
    fit = calibrating.fit_table

    def means(given: Sequence[Values]) -> list[tuple[int, Array]]:
        found: list[tuple[int, Array]] = []

        def noted(*arguments: object) -> FktTable:
            table = fit(*arguments)
            found.append((arguments[2].inputs, table.mean))
            return table

        monkeypatch.setattr(calibrating, "fit_table", noted)
        calibrate(bundle, given, device=CPU)
        return found

    before = means(inputs)
    odd = 5
    inputs[odd] = {"pixels": 255 - inputs[odd]["pixels"]}
    after = means(inputs)
    assert [count for count, _ in before] == [8, *[6] * FOLDS]
    same = [np.array_equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True)]
    assert same == [False, *(fold == odd % FOLDS for fold in range(FOLDS))]


@dataclass(frozen=True)
class Again:
    """A second calibration, with labels: nine are what the model says, three are not."""

    folder: Path
    boundaries: tuple[Boundary, ...]
    said: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def again(
    vivid_bundle: Bundle,
    vivid_spec: ModelSpec,
    album_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Again:
    bundle, spec, pictures = vivid_bundle, vivid_spec, album_folder
    with torch.inference_mode():
        answers = spec.module(torch.tensor(pixels_of(spec, pictures))).argmax(-1).tolist()
    said: list[tuple[str, int, int]] = []
    folder = tmp_path_factory.mktemp("again") / "v.split"
    shutil.copytree(bundle.folder, folder, ignore=shutil.ignore_patterns("codecs"))
    boundaries = calibrate(
        uncalibrated(bundle, folder),
        inputs_of(bundle, pictures),
        device=CPU,
        labels=[(answer + (index < 3)) % 5 for index, answer in enumerate(answers)],
        progress=lambda what, done, total: said.append((what, done, total)),
    )
    return Again(folder, boundaries, said)


def uncalibrated(bundle: Bundle, folder: Path) -> Bundle:
    boundaries = tuple(
        replace(boundary, tables="", ladder=()) for boundary in bundle.manifest.boundaries
    )
    return replace(bundle, folder=folder, manifest=replace(bundle.manifest, boundaries=boundaries))


def test_labels_are_counted(again: Again) -> None:
    for boundary in again.boundaries:
        for rung in boundary.ladder:
            assert rung.correct_before == 9
            assert rung.correct is not None
            assert rung.agreed is not None
            assert abs(rung.correct - 9) <= SCENES - rung.agreed
            if rung.agreed == SCENES:
                assert rung.correct == 9


def test_the_same_inputs_give_the_same_tables_and_ladders(bundle: Bundle, again: Again) -> None:
    own = {"encode_ms": 0.0, "decode_ms": 0.0, "correct": None, "correct_before": None}
    for before, after in zip(bundle.manifest.boundaries, again.boundaries, strict=True):
        assert [replace(rung, **own) for rung in before.ladder] == [
            replace(rung, **own) for rung in after.ladder
        ]
        assert before.tables == after.tables
        if before.tables:
            data = bundle.path(before.tables).read_bytes()
            assert data == (again.folder / after.tables).read_bytes()


def test_progress_goes_to_its_end(again: Again) -> None:
    assert [done for _, done, _ in again.said] == list(range(1, again.said[-1][2] + 1))
    assert len({total for _, _, total in again.said}) == 1


def test_calibrating_again_replaces_the_ladder(
    bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    boundaries = calibrate(
        replace(bundle, folder=folder), inputs_of(bundle, pictures)[:8], device=CPU
    )
    for before, after in zip(bundle.manifest.boundaries, boundaries, strict=True):
        assert [rung.codec for rung in before.ladder] == [rung.codec for rung in after.ladder]


# Several tensors, other outputs


def test_tensors_and_integers_together(two_tensors: Bundle, arrays: Path) -> None:
    """Each float32 has a table, integers travel raw, and a first boundary has none at all."""
    codecs = codecs_of(two_tensors.manifest, two_tensors.folder)
    rows = [crossing(two_tensors, given) for given in inputs_of(two_tensors, arrays)]
    widest = 0
    assert two_tensors.manifest.boundaries[0].tables == ""
    for boundary in two_tensors.manifest.boundaries[1:-1]:
        floats = [spec.name for spec in boundary.tensors if spec.dtype == "float32"]
        integers = [spec.name for spec in boundary.tensors if spec.dtype == "int64"]
        widest = max(widest, len(floats))
        assert sorted(codecs.tables(boundary.id)) == sorted(floats)
        for name in integers:
            assert name not in codecs.tables(boundary.id)
        finest = fkt_rungs(boundary)[-1].codec
        values = rows[0][boundary.id]
        _, arrived = sent(codecs, finest, boundary, values)
        for spec in boundary.tensors:
            value, found = values[spec.name], arrived[spec.name]
            assert (found.shape, found.dtype) == (value.shape, value.dtype)
            if spec.name in integers:
                assert np.array_equal(found, value)
            else:
                assert np.abs(found - value).mean() < np.abs(value).mean()
    assert widest >= 2
    assert any(
        spec.dtype == "int64" for b in two_tensors.manifest.boundaries[1:] for spec in b.tensors
    )


def test_a_regression_has_a_relative_error(two_tensors: Bundle, arrays: Path) -> None:
    """Half the squared error over the variance, of all inputs together."""
    inputs = inputs_of(two_tensors, arrays)
    rows = [crossing(two_tensors, given) for given in inputs]
    module = two_tensors_spec().module
    with torch.inference_mode():
        before = np.concatenate(
            [module(*(torch.tensor(given[n]) for n in ("x", "ids"))).numpy() for given in inputs]
        ).astype(np.float64)
    for boundary in two_tensors.manifest.boundaries[:-1]:
        for rung in boundary.ladder:
            assert (rung.agreed, rung.drop, rung.drop_interval) == (None, None, None)
        after = np.concatenate(
            [
                rest_of_the_model(
                    two_tensors,
                    boundary.id,
                    sent(NO_TABLES, "q4", boundary, row[boundary.id])[1],
                )
                for row in rows
            ]
        )
        rung = boundary.level("q4")
        assert rung is not None
        loss = ((after - before) ** 2).mean() / before.var() / 2
        assert rung.loss == pytest.approx(loss, rel=0.02)


# The files


def test_a_damaged_table_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy.split"))
    paths = sorted((folder / "codecs").iterdir())
    assert len(paths) == len(bundle.manifest.boundaries) - 2
    for path in paths:
        data = path.read_bytes()
        for place in (0, len(data) // 2, len(data) - 1):
            flipped = bytearray(data)
            flipped[place] ^= 1
            path.write_bytes(flipped)
            with pytest.raises(BundleError, match=path.name):
                open_bundle(folder)
        path.unlink()
        with pytest.raises(BundleError, match=path.name):
            open_bundle(folder)
        path.write_bytes(data)
    assert open_bundle(folder).digest == bundle.digest


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no tables",
        lambda data: data[:-10],
        lambda data: data.replace(b"frequencies", b"frequencyes"),
        lambda data: data[:-4000] + bytes(4000),
    ],
)
def test_tables_that_are_none(
    bundle: Bundle, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Whoever made the digest: what does not fit is refused in one line."""
    boundary = bundle.manifest.boundaries[1]
    data = bundle.path(boundary.tables).read_bytes()
    assert damage(data) != data
    (tmp_path / "t.safetensors").write_bytes(damage(data))
    with pytest.raises(BundleError, match="holds no codec tables") as caught:
        load_tables(tmp_path / "t.safetensors", boundary.tensors)
    assert "\n" not in str(caught.value)


def test_tables_of_another_tensor(bundle: Bundle) -> None:
    one, two = bundle.manifest.boundaries[1:3]
    assert one.tensors[0].shape != two.tensors[0].shape
    with pytest.raises(BundleError, match="does not fit"):
        load_tables(bundle.path(one.tables), two.tensors)


# What is made of them


def test_fkt_stands_for_a_sensible_level(bundle: Bundle) -> None:
    manifest, codecs = bundle.manifest, codecs_of(bundle.manifest, bundle.folder)
    for boundary in manifest.boundaries[1:-1]:
        split, levels = str(boundary.id), fkt_rungs(boundary)
        fine = [all(x.loss <= DEFAULT_LOSS for x in levels[i:]) for i in range(len(levels))]
        expected = levels[fine.index(True) if any(fine) else -1].codec
        assert default_level(manifest, boundary.id) == expected
        for codec in ("auto", "fkt"):
            assert named_plan(manifest, codecs, split, codec).codec == expected
        assert named_plan(manifest, codecs, split, "fkt@2").codec == "fkt@2"
        for codec in ("fkt@0", "fkt@99", "fkt@x", "fkt@"):
            with pytest.raises(CodecError, match="unknown codec"):
                named_plan(manifest, codecs, split, codec)
    assert named_plan(manifest, codecs, "input").codec == "jpeg"


def test_what_was_not_calibrated_says_so(small_bundle: Bundle, bundle: Bundle) -> None:
    plain = codecs_of(small_bundle.manifest, small_bundle.folder)
    calibrated = codecs_of(bundle.manifest, bundle.folder)
    for manifest, codecs, split in (
        (small_bundle.manifest, plain, "1"),
        (bundle.manifest, calibrated, "0"),
    ):
        with pytest.raises(CodecError, match=f"boundary {split} has no tables.*--calibrate"):
            named_plan(manifest, codecs, split, "fkt")
    assert named_plan(small_bundle.manifest, plain, "1").codec == "q8"
    with pytest.raises(PlanError, match="codec jpeg cannot carry boundary 1"):
        named_plan(bundle.manifest, calibrated, "1", "jpeg")


def test_coarser_levels(bundle: Bundle) -> None:
    first, inner = bundle.manifest.boundaries[:2]
    assert coarser(first, "jpeg") == ["jpeg", "jpeg@85", "jpeg@75"]
    assert coarser(first, "webp@80") == ["webp@80"]
    assert coarser(first, "jpeg@50") == ["jpeg@50"]  # of which nothing is known
    assert coarser(inner, "q8") == ["q8"]
    assert coarser(inner, "raw") == ["raw"]
    *coarse, finest = (rung.codec for rung in fkt_rungs(inner))
    own, *others = coarser(inner, finest)
    assert own == finest
    assert sorted(others) == coarse
    sizes = [rung.nbytes for name in others for rung in fkt_rungs(inner) if rung.codec == name]
    assert sizes == sorted(sizes, reverse=True)
    assert coarser(inner, "fkt@1") == ["fkt@1"]


def test_a_device_measures_the_calibrated_levels(bundle: Bundle, pictures: Path) -> None:
    chain = OnnxChain(bundle, 1)
    for index in range(len(chain)):
        chain.load(index)
    inputs = inputs_of(bundle, pictures)[:6]
    found = measure_codecs(
        bundle,
        chain,
        codecs_of(bundle.manifest, bundle.folder),
        Samples(description="six", inputs=inputs, are_photos=True),
        max_seconds=60,
    )
    boundaries = bundle.manifest.boundaries[:-1]
    assert {(c.boundary, c.codec) for c in found} >= {
        (boundary.id, codec) for boundary in boundaries for codec in boundary.codecs
    }
    for c in found:
        rung = boundaries[c.boundary].level(c.codec)
        if rung is not None and c.codec.startswith("fkt@"):
            assert c.nbytes == pytest.approx(rung.nbytes, rel=0.2, abs=9)


# Models that have little to calibrate


def compiled(spec: ModelSpec, folder: Path, inputs: Sequence[Values]) -> tuple[Boundary, ...]:
    bundle = compile_model(spec, folder / "m.split", boundaries=4)
    names = [tensor.name for tensor in bundle.manifest.boundaries[0].tensors]
    renamed = [dict(zip(names, given.values(), strict=True)) for given in inputs]
    return calibrate(bundle, renamed, device=CPU)


def test_a_model_whose_answers_hardly_differ(
    small: ModelSpec, tmp_path: Path, pictures: Path
) -> None:
    """Untrained, it says nearly the same of everything: all levels together lose too little."""
    pixels = pixels_of(small, pictures)
    boundaries = compiled(small, tmp_path, [{"pixels": row[None]} for row in pixels])
    assert all(boundary.ladder for boundary in boundaries[:-1])


class Masked(torch.nn.Module):
    """The mask crosses with the activations, and is the same for every input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 12), torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)) * mask.unsqueeze(-1))


def test_a_tensor_that_never_changes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec(
        source="masked", module=Masked(), args=(torch.randn(3, 16, 6), torch.ones(3, 16))
    )
    rng = np.random.default_rng(0)
    inputs = [
        {"x": rng.normal(size=(1, 16, 6)).astype(np.float32), "mask": np.ones((1, 16), np.float32)}
        for _ in range(9)
    ]
    boundaries = compiled(spec, tmp_path, inputs)
    assert all(boundary.ladder for boundary in boundaries[:-1])


class Scalar(torch.nn.Module):
    """One number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(24, 48), torch.nn.Linear(48, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def vectors(count: int) -> list[Values]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 24)).astype(np.float32)} for _ in range(count)]


def scalar_spec() -> ModelSpec:
    torch.manual_seed(0)
    return ModelSpec(source="scalar", module=Scalar(), args=(torch.randn(3, 24),))


def test_a_regression_of_one_number(tmp_path: Path) -> None:
    """Its levels lose about what was aimed at, as those of any other model."""
    for boundary in compiled(scalar_spec(), tmp_path, vectors(40))[1:-1]:
        rungs = fkt_rungs(boundary)
        assert rungs[0].nbytes <= rungs[-1].nbytes  # some bytes hold one number at any level
        assert 0.02 < rungs[0].loss < 0.2
        assert rungs[-1].loss < 0.01


def test_one_input_unlike_all_others(tmp_path: Path) -> None:
    """The tables that judge it were made without it; that is no reason to give up."""
    inputs = vectors(12)
    inputs[3] = {"x": 1e6 * inputs[3]["x"]}
    boundaries = compiled(scalar_spec(), tmp_path, inputs)
    assert all(boundary.ladder for boundary in boundaries[:-1])
