"""Tensors of floats: any shape, and every kind of values."""

import numpy as np
from hypothesis import strategies as st
from splitpoint.codec import (
    TensorSpec,
)

FLOAT_CODECS = ["raw", "fp16", "q8", "q4"]
FLT_MAX = np.finfo(np.float32).max
# Steps below this are sent as 0: the channel counts as constant.
SMALLEST_STEP = 1e-37


def spec_of(shape, batch_dim=0, dtype="float32"):
    return TensorSpec(name="x", dtype=dtype, shape=shape, batch_dim=batch_dim)


@st.composite
def specs(draw, dtype="float32"):
    """1-D to 4-D, the batch anywhere, its factor often above 1; some large enough for channels."""
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank)))
    return spec_of(shape, draw(st.integers(0, rank - 1)), dtype)


# Every distribution is a function of a generator and a shape.
FINITE = {
    "normal": lambda rng, shape: rng.normal(3, 2, shape),
    "relu": lambda rng, shape: rng.normal(0, 1, shape).clip(0),
    "constant": lambda rng, shape: np.full(shape, rng.normal()),
    "zero": lambda rng, shape: np.zeros(shape),
    "huge": lambda rng, shape: rng.uniform(-1e38, 1e38, shape),
    "offset": lambda rng, shape: 1e6 + rng.uniform(0, 1, shape),
    "denormal": lambda rng, shape: rng.uniform(-1e-38, 1e-38, shape),
    "two": lambda rng, shape: rng.integers(0, 2, shape) * -7.25,
    "exponents": lambda rng, shape: rng.choice([-1, 1], shape) * 10 ** rng.uniform(-45, 38, shape),
}


def values_of(kind, seed, shape):
    return FINITE[kind](np.random.default_rng(seed), shape).astype(np.float32)
