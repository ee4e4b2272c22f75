"""The baseline of rate_accuracy.py: a simple Fisher-weighted transform codec.

A KLT weighted with the information of one label a picture, sampled from the model's own softmax; a
DCT over the map; one step; round at 0.6; middles of bins; 8-bit symbols, clipped; PPMd of order 2
over the coefficients in the order of their variance. No class here knows anything of the product's
codec but its interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyppmd
import torch
import zstandard
from splitpoint.codec import Array, Codec, TensorSpec
from splitpoint.codec.fkt.grid import dct_matrix
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.run.torch_chain import TorchChain

ROUND_AT, RIDGE, PPMD_ORDER, PPMD_BYTES = 0.6, 1e-3, 2, 1 << 20


@dataclass(frozen=True)
class Basis:
    """What all steps share, for a map of `[1, channels, height, width]`."""

    mean: Array
    forward: Array
    order: Array
    unit: float  # the coefficients' root mean square

    def transform(self, array: Array) -> Array:
        rows = np.einsum("kc,chw->khw", self.forward, array[0] - self.mean)
        return dct_matrix(rows.shape[1]) @ rows @ dct_matrix(rows.shape[2]).T

    def inverse(self, coefficients: Array) -> Array:
        rows = dct_matrix(coefficients.shape[1]).T @ coefficients
        rows = rows @ dct_matrix(coefficients.shape[2])
        found = np.einsum("ck,khw->chw", np.linalg.inv(self.forward), rows) + self.mean
        return found[np.newaxis].astype(np.float32)


@dataclass(frozen=True)
class Prototype:
    """One step of a basis."""

    name: str
    basis: Basis
    step: float

    def supports(self, spec: TensorSpec) -> bool:
        return True

    def encode(self, array: Array, spec: TensorSpec) -> bytes:
        values = self.basis.transform(array).ravel()[self.basis.order] / self.step
        symbols = np.sign(values) * np.floor(np.abs(values) + 1 - ROUND_AT)
        encoder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_BYTES)
        data = np.clip(symbols, -127, 127).astype(np.int8).tobytes()
        return bytes(encoder.encode(data) + encoder.flush())

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:
        decoder = pyppmd.Ppmd7Decoder(PPMD_ORDER, PPMD_BYTES)
        count = len(self.basis.order)
        data = decoder.decode(payload, count)
        while len(data) < count:  # the last symbols may need more input than there is
            data += decoder.decode(b"\0" if decoder.needs_input else b"", count - len(data))
        symbols = np.frombuffer(data, np.int8)
        flat = np.empty(count)
        flat[self.basis.order] = symbols * self.step
        return self.basis.inverse(flat.reshape(spec.shape[1:]))

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:
        return 2 * spec.nbytes_at(batch)


@dataclass(frozen=True)
class ThreeBits:
    """Per-channel affine quantisation to 3 bits, packed in channel order, then zstd at level 3."""

    name: str = "3 bit + zstd"

    def supports(self, spec: TensorSpec) -> bool:
        return True

    def encode(self, array: Array, spec: TensorSpec) -> bytes:
        rows = array.reshape(array.shape[1], -1)
        low, high = rows.min(1), rows.max(1)
        step = np.where(high > low, (high - low) / 7, 1)
        symbols = np.rint((rows - low[:, None]) / step[:, None]).astype(np.uint8)
        bits = np.unpackbits(symbols.reshape(-1, 1), axis=1)[:, 5:]
        ranges = np.stack([low, step]).astype("<f4").tobytes()
        return zstandard.compress(ranges + np.packbits(bits).tobytes(), 3)

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:
        data = zstandard.decompress(payload)
        channels, size = spec.shape[1], int(np.prod(spec.shape[1:]))
        low, step = np.frombuffer(data, "<f4", 2 * channels).reshape(2, channels, 1)
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=8 * channels))[: 3 * size]
        symbols = bits.reshape(-1, 3) @ np.array([4, 2, 1], np.uint8)
        return (symbols.reshape(channels, -1) * step + low).reshape(spec.shape).astype(np.float32)

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:
        return 2 * spec.nbytes_at(batch)


@dataclass(frozen=True)
class Fixed:
    """A source of one codec, whatever it is asked for."""

    codec: Codec

    def named(self, name: str, boundary: int) -> Codec:
        return self.codec


def basis_of(values: Sequence[Array], fisher: Array) -> Basis:
    """From activations `[1, channels, height, width]` and the information of the channels."""
    stacked = np.concatenate(values).astype(np.float64)
    mean = stacked.mean((0, 2, 3))[:, None, None]
    rows = (stacked - mean).transpose(1, 0, 2, 3).reshape(len(mean), -1)
    fisher = fisher + RIDGE * fisher.diagonal().max() * np.eye(len(fisher))
    size, vectors = np.linalg.eigh(fisher)
    root = vectors * np.sqrt(size) @ vectors.T
    _, components = np.linalg.eigh(root @ (rows @ rows.T / rows.shape[1]) @ root)
    draft = Basis(mean, components[:, ::-1].T @ root, np.zeros(0, int), 1.0)
    variance = np.mean([draft.transform(value) ** 2 for value in values], 0).ravel()
    return Basis(
        mean, draft.forward, np.argsort(-variance, kind="stable"), float(np.sqrt(variance.mean()))
    )


def fisher_of_sampled_labels(
    manifest: Manifest, chain: TorchChain, inputs: Sequence[Mapping[str, Array]]
) -> dict[int, Array]:
    """Mean of g g^T over positions and inputs, by boundary of one tensor; one label an input."""
    found: dict[int, Array] = {}
    generator = torch.Generator().manual_seed(0)
    inner = [b for b in manifest.boundaries[1:-1] if len(b.tensors) == 1]
    for given in inputs:
        state, leaves = chain.place(given), {}
        with torch.enable_grad():
            for index in range(len(chain)):
                for boundary in inner:
                    if boundary.id == index:
                        name = boundary.tensors[0].name
                        leaf = state[name].clone()
                        leaves[index] = state[name] = (
                            leaf if leaf.requires_grad else leaf.requires_grad_()
                        )
                state |= chain.forward(index, state)
            scores = state[next(iter(manifest.outputs.values()))].log_softmax(-1)[0]
            label = torch.multinomial(scores.detach().exp(), 1, generator=generator)
            grads = torch.autograd.grad(scores[label].sum(), list(leaves.values()))
        for key, grad in zip(leaves, grads, strict=True):
            rows = grad[0].reshape(grad.shape[1], -1).double().cpu().numpy()
            found[key] = found.get(key, 0) + rows @ rows.T / rows.shape[1] / len(inputs)
    return found
