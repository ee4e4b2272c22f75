"""A size for models that take photos of any."""

from __future__ import annotations


def four_to_three(shortest_px: float, longest_px: float, step_px: int) -> tuple[int, int]:
    """Height and width of an input in the shape of most cameras' photos, as multiples of a step.

    Its shorter side has at least `shortest_px`, and its longer one about `longest_px` at most.
    """
    longest_px = min(shortest_px * 4 / 3, longest_px)
    height, width = (-(-int(side) // step_px) * step_px for side in (shortest_px, longest_px))
    return height, max(width, height)
