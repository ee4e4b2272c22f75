"""How much a model's output depends on every tensor that crosses a boundary, without any labels.

The Fisher information of a tensor is the mean of g g^T, g being the gradient of the log-likelihood
of an output drawn from the model's own distribution. For a classifier with probabilities p the
information of its logits is diag(p) - p p^T; v = sqrt(p) e - p (sqrt(p) . e) with random signs e
has that covariance, and its gradients need fewer draws than those of single labels, as every class
takes part in each. For a detector its head knows what an error in each value costs (information.py
in tasks). Any other output is taken as normal, with the variance of its values over all inputs.
Several outputs add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from splitpoint.codec import Array

from ..bundle.bundle import Manifest
from ..run.torch_chain import TorchChain

Weigh = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""From the outputs of one input to what errors in each of their values cost, by tensor."""


def gradients(
    manifest: Manifest,
    chain: TorchChain,
    inputs: Mapping[str, Array],
    weigh: Weigh,
    generator: torch.Generator,
    projections: int,
) -> dict[tuple[int, str], tuple[Array, Array]]:
    """Value and gradients of every float32 tensor at every inner boundary, for one input.

    `weigh` says how much errors in each value of the outputs cost, by tensor (see `Judge.weights`);
    a classifier is not asked. The value has the tensor's shape, the gradients
    `[projections, *shape]`. A tensor that crosses two boundaries has other gradients at each: what
    was done with it in between is left out.
    """
    state = chain.place(inputs)
    crossing: dict[tuple[int, str], torch.Tensor] = {}
    found: dict[tuple[int, str], list[torch.Tensor]] = {}
    with torch.enable_grad():
        for index in range(len(chain)):
            for spec in manifest.boundaries[index].tensors if index else ():
                if spec.dtype == "float32":
                    # A node of its own: its gradient is that of what follows the boundary only.
                    value = state[spec.name].clone()
                    if not value.requires_grad:
                        value.requires_grad_()
                    crossing[index, spec.name] = state[spec.name] = value
            state |= chain.forward(index, state)
        names = [name for name in manifest.outputs.values() if state[name].requires_grad]
        outputs = [state[name] for name in names]
        found = {key: [] for key in crossing}
        costs = {} if manifest.classifies else weigh(_arrays(state, manifest.outputs.values()))
        for done in range(projections if outputs else 0):
            directions = [
                _of_a_class(value, generator)
                if manifest.classifies
                else _signs(value, generator) * torch.from_numpy(costs[name]).to(value)
                for name, value in zip(names, outputs, strict=True)
            ]
            grads = torch.autograd.grad(
                outputs,
                list(crossing.values()),
                directions,
                retain_graph=done < projections - 1,
                allow_unused=True,
            )
            for (key, value), grad in zip(crossing.items(), grads, strict=True):
                # A square root at 0, say, has none: what is not known counts as nothing.
                found[key].append(
                    torch.zeros_like(value)
                    if grad is None
                    else grad.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
                )
    return {
        key: (crossing[key].detach().cpu().numpy(), torch.stack(grads).cpu().numpy())
        for key, grads in found.items()
        if grads
    }


def _arrays(state: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, Array]:
    return {name: state[name].detach().cpu().numpy() for name in names}


def _signs(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1


def _of_a_class(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random vector whose covariance is the information of the logits."""
    probabilities = logits.detach().softmax(-1)
    drawn = probabilities.sqrt() * _signs(logits, generator)
    return drawn - probabilities * drawn.sum(-1, keepdim=True)
