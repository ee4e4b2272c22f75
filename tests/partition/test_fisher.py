"""Gradients against the Fisher information of models whose information is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from split_tables import manifest_of
from splitpoint.codec import TensorSpec
from splitpoint.partition.bundle.bundle import Boundary, Manifest
from splitpoint.partition.bundle.model_kind import CLASSIFY, RAW_TASK
from splitpoint.partition.calibrate.fisher import gradients

State = Mapping[str, torch.Tensor]
DRAWS = 4000


class Functions:
    """A chain of plain functions, from the state to what each of them adds to it."""

    def __init__(self, *steps: Callable[[State], dict[str, torch.Tensor]]) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def place(self, values: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value) for name, value in values.items()}

    def forward(self, index: int, state: State) -> dict[str, torch.Tensor]:
        return self._steps[index](state)


SPREADS = {"y": 2.0, "z": 30.0}


def by_spread(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values in standard deviations, each output as one."""
    return {
        name: np.full(value.shape, 1 / (SPREADS[name] * value.size**0.5), np.float32)
        for name, value in outputs.items()
    }


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def manifest(
    *boundaries: Mapping[str, int], classifies: bool, dtypes: Mapping[str, str] | None = None
) -> Manifest:
    """Vectors of these sizes cross; those of the last boundary are the outputs."""
    dtypes = dtypes or {}
    made = manifest_of(len(boundaries) - 1)
    return replace(
        made,
        task=CLASSIFY if classifies else RAW_TASK,
        outputs={name: name for name in boundaries[-1]},
        boundaries=tuple(
            Boundary(
                id=index,
                after=None,
                tensors=tuple(
                    TensorSpec(
                        name=name,
                        dtype=dtypes.get(name, "float32"),
                        shape=(1, size),
                        batch_dim=0,
                    )
                    for name, size in tensors.items()
                ),
            )
            for index, tensors in enumerate(boundaries)
        ),
    )


def weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def information(grads: np.ndarray) -> np.ndarray:
    """The mean of g g^T."""
    flat = grads.reshape(len(grads), -1).astype(np.float64)
    return flat.T @ flat / len(flat)


def assert_close(found: np.ndarray, exact: np.ndarray) -> None:
    """As close as so many draws are to their mean, give or take."""
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


X = np.random.default_rng(1).normal(size=(1, 6)).astype(np.float32)


def test_a_softmax_has_its_own_information() -> None:
    """W^T (diag(p) - p p^T) W, for the logits of a linear layer."""
    first, second = weights(4, 6), weights(5, 4, seed=1)
    chain = Functions(
        lambda state: {"h": state["x"] @ first.T}, lambda state: {"y": state["h"] @ second.T}
    )
    known = manifest({"x": 6}, {"h": 4}, {"y": 5}, classifies=True)
    found = gradients(known, chain, {"x": X}, by_spread, seeded(0), DRAWS)
    assert found.keys() == {(1, "h")}
    value, grads = found[1, "h"]
    np.testing.assert_allclose(value, X @ first.numpy().T, rtol=1e-5)
    assert grads.shape == (DRAWS, 1, 4)
    logits = (value @ second.numpy().T)[0].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum()
    of_logits = np.diag(p) - np.outer(p, p)
    assert_close(information(grads), second.numpy().T @ of_logits @ second.numpy())


def test_the_loss_is_half_the_squared_length_in_that_information() -> None:
    """The divergence that a small error really makes is what the gradients foretell."""
    second = weights(5, 4, seed=1)
    chain = Functions(lambda state: {"h": state["x"]}, lambda state: {"y": state["h"] @ second.T})
    known = manifest({"x": 4}, {"h": 4}, {"y": 5}, classifies=True)
    value, grads = gradients(
        known, chain, {"x": X[:, :4]}, by_spread, torch.Generator().manual_seed(0), DRAWS
    )[1, "h"]
    error = 0.02 * np.random.default_rng(2).normal(size=(1, 4))
    told = float((error @ information(grads) @ error.T)[0, 0] / 2)
    before = torch.tensor(value).double() @ second.T.double()
    after = torch.tensor(value + error).double() @ second.T.double()
    true = (before.softmax(-1) * (before.log_softmax(-1) - after.log_softmax(-1))).sum()
    assert told == pytest.approx(float(true), rel=0.1)


def test_any_other_output_is_normal() -> None:
    """W^T W over the variance of the output's values and over how many there are."""
    second = weights(7, 4, seed=2)
    chain = Functions(lambda state: {"h": state["x"]}, lambda state: {"y": state["h"] @ second.T})
    known = manifest({"x": 4}, {"h": 4}, {"y": 7}, classifies=False)
    value, grads = gradients(
        known, chain, {"x": X[:, :4]}, by_spread, torch.Generator().manual_seed(0), DRAWS
    )[1, "h"]
    output = value @ second.numpy().T
    exact = second.numpy().T @ second.numpy() / (SPREADS["y"] ** 2 * output.size)
    assert_close(information(grads), exact)


def test_several_outputs_add_up() -> None:
    one, two = weights(7, 4, seed=2), weights(3, 4, seed=3)
    chain = Functions(
        lambda state: {"h": state["x"]},
        lambda state: {"y": state["h"] @ one.T, "z": 100 * state["h"] @ two.T},
    )
    known = manifest({"x": 4}, {"h": 4}, {"y": 7, "z": 3}, classifies=False)
    value, grads = gradients(
        known, chain, {"x": X[:, :4]}, by_spread, torch.Generator().manual_seed(0), DRAWS
    )[1, "h"]
    exact = np.zeros((4, 4))
    for name, matrix in (("y", one.numpy()), ("z", 100 * two.numpy())):
        output = value @ matrix.T
        exact += matrix.T @ matrix / (SPREADS[name] ** 2 * output.size)
    assert_close(information(grads), exact)


def test_a_tensor_that_crosses_two_boundaries_has_two_gradients() -> None:
    """At the first, what is still to come of it in between counts too; at the second it does not.

    With u = C t and y = A t + B u, the gradient of t at the first boundary is that at the second
    plus C^T times that of u.
    """
    a, b, c = weights(5, 4, seed=1), weights(5, 3, seed=2), weights(3, 4, seed=3)
    chain = Functions(
        lambda state: {"t": torch.tanh(state["x"])},
        lambda state: {"u": state["t"] @ c.T},
        lambda state: {"y": state["t"] @ a.T + state["u"] @ b.T},
    )
    known = manifest({"x": 4}, {"t": 4}, {"t": 4, "u": 3}, {"y": 5}, classifies=True)
    found = gradients(known, chain, {"x": X[:, :4]}, by_spread, seeded(0), 6)
    assert found.keys() == {(1, "t"), (2, "t"), (2, "u")}
    early, late, of_u = (found[key][1] for key in ((1, "t"), (2, "t"), (2, "u")))
    assert early.shape == (6, 1, 4)
    np.testing.assert_allclose(early, late + of_u @ c.numpy(), atol=1e-6)
    assert np.abs(of_u @ c.numpy()).max() > 0.01
    assert np.array_equal(found[1, "t"][0], found[2, "t"][0])


def test_only_float32_is_asked_for() -> None:
    """Integers have no gradient, and what nothing depends on has one of nothing."""
    table = weights(9, 4)
    chain = Functions(
        lambda state: {"h": state["x"] + 1, "ids": state["ids"], "spare": state["x"] * 2},
        lambda state: {"y": state["h"] * table[state["ids"]].sum(1)},
    )
    known = manifest(
        {"x": 4, "ids": 2},
        {"h": 4, "ids": 2, "spare": 4},
        {"y": 4},
        classifies=True,
        dtypes={"ids": "int64"},
    )
    given = {"x": X[:, :4], "ids": np.array([[1, 8]])}
    found = gradients(known, chain, given, by_spread, seeded(0), 6)
    assert found.keys() == {(1, "h"), (1, "spare")}
    assert not found[1, "spare"][1].any()
    assert found[1, "h"][1].any()


def test_an_output_without_gradients_leaves_nothing() -> None:
    chain = Functions(
        lambda state: {"h": state["x"] + 1}, lambda state: {"y": state["h"].argmax(-1)[:, None]}
    )
    known = manifest({"x": 4}, {"h": 4}, {"y": 1}, classifies=False, dtypes={"y": "int64"})
    assert gradients(known, chain, {"x": X[:, :4]}, by_spread, torch.Generator(), 6) == {}


def test_the_same_generator_gives_the_same_gradients() -> None:
    second = weights(5, 4)
    chain = Functions(lambda state: {"h": state["x"]}, lambda state: {"y": state["h"] @ second.T})
    known = manifest({"x": 4}, {"h": 4}, {"y": 5}, classifies=True)
    first, again, other = (
        gradients(known, chain, {"x": X[:, :4]}, by_spread, seeded(seed), 6)[1, "h"][1]
        for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_where_there_is_no_gradient_it_counts_as_nothing() -> None:
    """A square root has none at 0, and the ReLU before it makes NaN of that."""
    chain = Functions(
        lambda state: {"h": state["x"]}, lambda state: {"y": torch.relu(state["h"]).sqrt()}
    )
    known = manifest({"x": 4}, {"h": 4}, {"y": 4}, classifies=False)
    given = {"x": np.array([[1.0, -1.0, 4.0, 0.0]], np.float32)}
    grads = gradients(known, chain, given, by_spread, seeded(0), 6)[1, "h"][1]
    assert np.isfinite(grads).all()
    assert np.abs(grads[:, 0, [0, 2]]).all()
    assert not grads[:, 0, [1, 3]].any()
