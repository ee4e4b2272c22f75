"""Models in plain torch: recurrent ones, two inputs, and outputs by name."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from zoo_subject import Given, Subject, given

STEPS = 400


class Recurrent(nn.Module):
    """Features of 400 steps, say of sound, to classes."""

    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Conv1d(24, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU())
        self.rnn = kind(32, 48, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(96 if bidirectional else 48, 12)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.rnn(self.embed(x.transpose(1, 2)).transpose(1, 2))
        y: Tensor = self.head(steps)
        return y


class Siamese(nn.Module):
    """How alike two pictures are, by one encoder for both: for a while they are one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64),
        )  # fmt: skip
        self.head = nn.Linear(64, 1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        both = self.encoder(torch.cat([left, right]))
        a, b = both[: left.shape[0]], both[left.shape[0] :]
        return {"alike": torch.cosine_similarity(a, b), "same": self.head((a - b).abs())}


class Pose(NamedTuple):
    heatmaps: Tensor
    offsets: Tensor


class Answers(nn.Module):
    """One trunk and heads whose answers have names: in a dict, or in a named tuple."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.Hardswish(),
            nn.Conv2d(24, 48, 3, 2, 1, groups=24), nn.GroupNorm(4, 48), nn.SiLU(),
        )  # fmt: skip
        self.heatmaps, self.offsets = nn.Conv2d(48, 17, 1), nn.Conv2d(48, 34, 1)

    def forward(self, x: Tensor) -> Pose | dict[str, object]:
        y = self.trunk(x)
        heatmaps, offsets = self.heatmaps(y).sigmoid(), self.offsets(y)
        if self.form == "dict":
            return OrderedDict(heatmaps=heatmaps, deep={"offsets": offsets, "nothing": None})
        return Pose(heatmaps=heatmaps, offsets=offsets)


class Speech(nn.Module):
    """Convolutions, then a transformer that is told which frames are padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True)
        self.embed = nn.Conv1d(24, 48, 3, padding=1)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 30)

    def forward(self, x: Tensor, is_padding: Tensor) -> Tensor:
        y = self.embed(x.transpose(1, 2)).transpose(1, 2)
        y = self.head(self.encoder(y, src_key_padding_mask=is_padding))
        return y


def padded() -> Given:
    lengths = torch.tensor([60, 41, 17])
    return given(Speech(), torch.randn(3, 60, 24), torch.arange(60) >= lengths[:, None])


class Lengths(nn.Module):
    """Skips padding with a packed sequence, whose size is that of the values in `lengths`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(24, 32, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return y


def sound() -> Tensor:
    return torch.randn(3, STEPS, 24)


TORCH = [
    Subject("LSTM over 400 steps", lambda _: given(
        Recurrent(nn.LSTM, bidirectional=False), sound())),
    Subject("GRU over 400 steps", lambda _: given(
        Recurrent(nn.GRU, bidirectional=True), sound())),
    Subject("Siamese pair", lambda _: given(
        Siamese(), torch.randn(3, 3, 96, 96), torch.randn(3, 3, 96, 96)), quick=True),
    Subject("outputs in a dict", lambda _: given(
        Answers("dict"), torch.randn(3, 3, 96, 96)), quick=True),
    Subject("outputs in a named tuple", lambda _: given(
        Answers("tuple"), torch.randn(3, 3, 96, 96))),
    Subject("transformer with padding", lambda _: padded()),
    Subject("packed sequences", lambda _: given(
        Lengths(), torch.randn(3, 60, 24), torch.tensor([60, 41, 17])),
        refused="packs sequences by their lengths"),
]  # fmt: skip
