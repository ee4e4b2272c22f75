"""From a torch model to a bundle: graph capture, boundaries, segments, planning."""
