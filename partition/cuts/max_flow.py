"""Minimum cuts of flow networks with integer capacities of any size.

Dinic's algorithm (Dinic 1970): shortest augmenting paths found in phases, at most one phase a
node. Distances are measured towards the sink and every node remembers the arc that it tried last.
Capacities are Python integers, so nothing overflows and nothing is rounded; compiled max-flows
take 32-bit capacities and answer wrongly beyond, without a word.
"""

from __future__ import annotations


class FlowNetwork:
    """A directed network that is filled arc by arc and cut once.

    Arc `e` leads to `_heads[e]`; its reverse is arc `e ^ 1`. Residual capacities stand in place of
    capacities once a flow was pushed.
    """

    def __init__(self, nodes: int) -> None:
        self._heads: list[int] = []
        self._residual: list[int] = []
        self._arcs: list[list[int]] = [[] for _ in range(nodes)]

    def add_arc(self, tail: int, head: int, capacity: int, backwards: int = 0) -> None:
        """An arc and its opposite, with their capacities (zero or more)."""
        self._arcs[tail].append(len(self._heads))
        self._heads.append(head)
        self._residual.append(capacity)
        self._arcs[head].append(len(self._heads))
        self._heads.append(tail)
        self._residual.append(backwards)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The source's side of a minimum cut; of several, the one contained in all others."""
        while (distance := self._distances(source, sink))[source] >= 0:
            self._block(source, sink, distance)
        reached = {source}
        queue = [source]
        for node in queue:
            for arc in self._arcs[node]:
                head = self._heads[arc]
                if self._residual[arc] and head not in reached:
                    reached.add(head)
                    queue.append(head)
        return reached

    def _distances(self, source: int, sink: int) -> list[int]:
        """Arcs from each node to the sink over what is left, -1 where there is no way."""
        heads, residual = self._heads, self._residual
        distance = [-1] * len(self._arcs)
        distance[sink] = 0
        queue = [sink]
        for node in queue:
            if node == source:
                break
            for arc in self._arcs[node]:
                tail = heads[arc]
                if distance[tail] < 0 and residual[arc ^ 1]:
                    distance[tail] = distance[node] + 1
                    queue.append(tail)
        return distance

    def _block(self, source: int, sink: int, distance: list[int]) -> None:
        """Pushes flow until no shortest path is left."""
        heads, residual, arcs = self._heads, self._residual, self._arcs
        tried = [0] * len(arcs)
        path: list[int] = []
        node = source
        while True:
            if node == sink:
                node = self._push(path)
                continue
            own, i, closer = arcs[node], tried[node], distance[node] - 1
            while i < len(own) and not (residual[own[i]] and distance[heads[own[i]]] == closer):
                i += 1
            tried[node] = i
            if i < len(own):
                path.append(own[i])
                node = heads[own[i]]
            elif path:  # a dead end: go back and try the arc after the one that led here
                node = heads[path.pop() ^ 1]
                tried[node] += 1
            else:
                return

    def _push(self, path: list[int]) -> int:
        """Fills `path`, shortens it to before its first full arc, returns the node there."""
        amount = min(self._residual[arc] for arc in path)
        for arc in path:
            self._residual[arc] -= amount
            self._residual[arc ^ 1] += amount
        full = next(i for i, arc in enumerate(path) if not self._residual[arc])
        node = self._heads[path[full] ^ 1]
        del path[full:]
        return node
