"""The order of sources in a mixture: a closed form, like the order of samples within a source.

Sources are the leaves of a binary tree. A node that was visited n times has passed floor(n·p + 1/2)
of the visits to its left branch, where p is that branch's share of the node's weight: the error is
diffused by arithmetic, without random numbers or state. Finding a position's source is a walk from
the root, with one integer product a step (Morse and Hedlund 1940 for two sources: each branch is a
Sturmian word).

In any window of positions the number of a source's samples differs from its share by less than 1
for two sources, and by less than `Mixture.bound` for more: at most 2 for up to five, since the tree
is chosen for that, and slightly more for others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_INFINITE = float("inf")
_SEARCHED = 7  # leaves up to which all trees are tried; 135,135 of eight would take a second
_WHOLE = 2**40  # weights as integers: sums and products are exact


@dataclass(frozen=True)
class _Node:
    """A branch: its sources, their total weight, and its two branches unless it is a leaf."""

    weight: int
    sources: tuple[int, ...]
    left: "_Node | None" = None
    right: "_Node | None" = None


_Tree = tuple[float, _Node] | None
_Sides = tuple[list[_Node], list[_Node]]


@dataclass(frozen=True)
class Mixture:
    """The mapping from positions of a mixture to its sources.

    Args:
        weights: of the sources, above zero; only their ratios matter.

    Attributes:
        bound: in any window, the number of a source's samples differs from its share by less than
            this. A branch with the share p of its node is off by less than 1 + p · (the node's
            error).
    """

    weights: tuple[float, ...]
    bound: float = field(init=False, compare=False)
    _root: _Node = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the tree; reject an empty mixture."""
        if not self.weights or not all(0 < weight < _INFINITE for weight in self.weights):
            raise ValueError(f"weights must be above zero, not {self.weights}")
        total = sum(self.weights)
        whole = [max(1, round(weight / total * _WHOLE)) for weight in self.weights]
        leaves = [_Node(weight, (source,)) for source, weight in enumerate(whole)]
        found = _tree(sorted(leaves, key=lambda leaf: (-leaf.weight, leaf.sources)))
        assert found
        object.__setattr__(self, "_root", found[1])
        object.__setattr__(self, "bound", found[0])

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each source; they add up to 1."""
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)

    def at(self, position: int) -> tuple[int, int]:
        """Return the source of a position, and how many positions before it have that source."""
        node = self._root
        while node.left and node.right:
            before, after = _to_left(node, position), _to_left(node, position + 1)
            node, position = (
                (node.left, before) if after > before else (node.right, position - before)
            )
        return node.sources[0], position

    def counts(self, position: int) -> list[int]:
        """Return how many positions before this one have each source."""
        counts = [0] * len(self.weights)
        waiting = [(self._root, position)]
        while waiting:
            node, taken = waiting.pop()
            if node.left and node.right:
                left = _to_left(node, taken)
                waiting += [(node.left, left), (node.right, taken - left)]
            else:
                counts[node.sources[0]] = taken
        return counts


def _to_left(node: _Node, taken: int) -> int:
    """Return how many of a node's first `taken` positions go left, rounded to the nearest."""
    assert node.left
    return (2 * taken * node.left.weight + node.weight) // (2 * node.weight)


def _tree(leaves: Sequence[_Node], off: float = 0.0, below: float = _INFINITE) -> "_Tree":
    """Return the tree over these leaves with the smallest error of its sources, and the error;
    None: none is below `below`. With many leaves only halves are tried, the heaviest assigned
    first.

    Args:
        leaves: in a fixed order, so that the tree depends on the weights alone.
        off: the error of their node.
        below: a bound that is already known.
    """
    if len(leaves) == 1:
        return (off, leaves[0]) if off < below else None
    total, found = sum(leaf.weight for leaf in leaves), None
    for sides in _halves(leaves) if len(leaves) > _SEARCHED else _all_splits(leaves):
        offs = [1 + sum(leaf.weight for leaf in side) / total * off for side in sides]
        if max(offs) >= below:
            continue
        left = _tree(sides[0], offs[0], below)
        right = _tree(sides[1], offs[1], below) if left else None
        if left and right:
            below = max(left[0], right[0])
            sources = left[1].sources + right[1].sources
            found = below, _Node(total, sources, left[1], right[1])
    return found


def _all_splits(leaves: Sequence[_Node]) -> Iterator[_Sides]:
    """Yield every way to divide leaves in two."""
    for chosen in range(1, 2 ** (len(leaves) - 1)):
        yield (
            [leaf for at, leaf in enumerate(leaves) if chosen >> at & 1],
            [leaf for at, leaf in enumerate(leaves) if not chosen >> at & 1],
        )


def _halves(leaves: Sequence[_Node]) -> Iterator[_Sides]:
    """Yield one way: each leaf, the heaviest first, goes to the lighter side."""
    sides: _Sides = ([], [])
    for leaf in leaves:
        lighter = min(sides, key=lambda side: sum(other.weight for other in side))
        lighter.append(leaf)
    yield sides
