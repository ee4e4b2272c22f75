"""How photos become pixels: as torchvision does it, and no more of them than the crop shows."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from splitpoint.codec import Array
from splitpoint.partition.errors import PictureError
from splitpoint.partition.models.find import load_model
from splitpoint.partition.models.torchvision import import_torchvision
from splitpoint.partition.picture import PictureInput


def input_of(resize: int, height: int, width: int, interpolation: str = "bilinear") -> PictureInput:
    return PictureInput(
        resize_px=resize, height_px=height, width_px=width, interpolation=interpolation
    )


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def by_torchvision(picture: PictureInput, photo: Image.Image) -> Array:
    """The whole photo resized, then cropped."""
    import_torchvision()
    transforms: Any = importlib.import_module("torchvision.transforms")
    mode = transforms.InterpolationMode(picture.interpolation)
    crop = (picture.height_px, picture.width_px)
    both = [transforms.Resize(picture.resize_px, mode), transforms.CenterCrop(crop)]
    return np.asarray(transforms.Compose(both)(photo))


def differences(one: Array, other: Array) -> Array:
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other)


# As the weights were evaluated


@pytest.mark.parametrize(
    ("model", "interpolation"),
    [("squeezenet1_1", "bilinear"), ("efficientnet_b0", "bicubic"), ("vit_b_16", "bilinear")],
)
def test_pixels_are_those_of_the_weights_own_transforms(
    model: str, interpolation: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision = import_torchvision()
    # Weights of hundreds of megabytes are not what this is about.
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: torch.nn.ReLU())
    picture = load_model(f"torchvision:{model}", "none").picture
    assert picture is not None
    assert picture.interpolation == interpolation
    transforms = torchvision.models.get_model_weights(model).DEFAULT.transforms()
    mean, std = (np.array(values)[:, None, None] for values in (transforms.mean, transforms.std))
    for path in photos.iterdir():
        with Image.open(path) as photo:
            normalised = transforms(photo.convert("RGB")).numpy()
        expected = np.round((normalised * std + mean) * 255).transpose(1, 2, 0)
        found = differences(picture.read(path), expected)
        assert found.max() <= 1
        assert found.mean() < 0.01


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size", [(300, 200), (200, 300), (37, 41), (256, 256), (24, 24), (25, 24), (1000, 90), (600, 2)]
)
def test_resizing_the_crop_is_cropping_the_resized(
    size: tuple[int, int], interpolation: str
) -> None:
    """Up to rounding, twice: values in between are of 8 bits. Noise is the worst for it."""
    photo = noise(*size)
    for picture in (
        input_of(256, 224, 224, interpolation),
        input_of(30, 24, 28, interpolation),
        input_of(64, 64, 64, interpolation),
    ):
        found = differences(picture.pixels_of(photo), by_torchvision(picture, photo))
        assert found.max() <= 3
        assert found.mean() < 0.2


def test_the_interpolations_differ(photos: Path) -> None:
    """Or the comparisons above would not tell one from the other."""
    path = photos / "coffee.png"
    found = differences(
        input_of(256, 224, 224).read(path), input_of(256, 224, 224, "bicubic").read(path)
    )
    assert found.mean() > 0.5


# Extreme shapes


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sizes of all pictures that are made."""
    sizes: list[tuple[int, int]] = []

    def recorded(name: str) -> None:
        before = getattr(Image.Image, name)

        def after(self: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:
            found: Image.Image = before(self, *args, **kwargs)
            sizes.append(found.size)
            return found

        monkeypatch.setattr(Image.Image, name, after)

    for name in ("resize", "crop", "convert", "transpose", "copy"):
        recorded(name)
    return sizes


@pytest.mark.parametrize(
    "size", [(6000, 2), (2, 6000), (60_000, 3), (3, 60_000), (100_000, 1), (1, 1), (65_000, 65)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_nothing_large_is_made_of_a_narrow_photo(
    size: tuple[int, int], interpolation: str, made: list[tuple[int, int]]
) -> None:
    photo = Image.new("RGB", size, (10, 20, 30))
    found = input_of(256, 224, 224, interpolation).pixels_of(photo)
    assert found.shape == (224, 224, 3)
    assert (found == (10, 20, 30)).all()
    assert made
    assert max(width * height for width, height in made) <= 2 * 224 * 224


# Crops that are not square


def test_a_photo_of_the_crops_shape_loses_nothing() -> None:
    """A 4:3 photo in a model of 640x480; `resize_px` used to be at least the longer side."""
    photo = noise(800, 600)
    found = input_of(480, 480, 640).pixels_of(photo)
    whole = np.asarray(photo.resize((640, 480), Image.Resampling.BILINEAR))
    assert differences(found, whole).max() <= 1


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1600, 480), (480, 0, 1120, 480)),  # wide: the height is kept, the middle shown
        ((640, 1000), (0, 260, 640, 740)),  # tall: the width is kept
        ((320, 500), (0, 130, 320, 370)),
        ((64, 48), (0, 0, 64, 48)),
    ],
)
def test_any_other_is_enlarged_until_it_covers_the_crop(
    size: tuple[int, int], shown: tuple[int, int, int, int]
) -> None:
    photo = noise(*size)
    expected = photo.resize((640, 480), Image.Resampling.BILINEAR, shown)
    found = differences(input_of(480, 480, 640).pixels_of(photo), np.asarray(expected))
    assert found.max() <= 1


def test_a_larger_resize_means_what_it_did() -> None:
    """Bundles that are not square were compiled with the longer side."""
    for size in ((800, 600), (600, 800), (641, 479)):
        photo, picture = noise(*size), input_of(700, 480, 640)
        found = differences(picture.pixels_of(photo), by_torchvision(picture, photo))
        assert found.max() <= 2
        assert found.mean() < 0.1


def test_geometry_that_is_refused() -> None:
    for sides in ((-1, 1, 1), (10, 0, 10), (10, 20, 20), (20_000, 10, 10), (10, 10, 20_000)):
        with pytest.raises(PictureError, match=r"resize_px is|give sides"):
            input_of(*sides)
    with pytest.raises(PictureError, match="use bilinear or bicubic"):
        input_of(10, 10, 10, "lanczos")


# The manifest


def test_the_interpolation_is_in_the_manifest() -> None:
    picture = input_of(40, 30, 20, "bicubic")
    assert PictureInput.from_json(picture.to_json()) == picture


def test_a_bundle_that_was_written_before_is_bilinear() -> None:
    before = {"resize_px": 40, "height_px": 30, "width_px": 20}
    assert PictureInput.from_json(before) == input_of(40, 30, 20, "bilinear")
