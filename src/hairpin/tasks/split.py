"""Stratified split of labelled examples: a share of each class, and no text in both halves.

A text's rank is the hash of (seed, text). Of each class, the lowest ranks are for validation. So
the order of the file does not matter, and a new example moves few others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class _Group:
    """The examples with one text: they stay together."""

    rank: bytes
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)


def stratified(
    labels: Sequence[str], keys: Sequence[str], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Return the indices of training and of validation examples, each in ascending order.

    Every class with at least two different texts has an example in each half; one with a single
    text is for training. A text with several labels counts towards its most frequent.

    Args:
        labels: the class of each example; all the same for data without classes.
        keys: the text of each example; those with equal texts go to the same half.
        fraction: the share of validation; 0 leaves all to training.
        seed: a different one gives a different split.

    Raises:
        ValueError: the fraction is not at least 0 and below 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"a validation share of {fraction} is not in [0, 1)")
    classes = _classes(labels, keys, seed)
    wanted = _shares(
        {label: sum(map(len, each)) for label, each in classes.items()}, fraction, seed
    )
    chosen: set[int] = set()
    for label, groups in classes.items():
        for group in _first(groups, wanted[label]) if fraction else ():
            chosen.update(group.indices)
    everyone = range(len(labels))
    return [i for i in everyone if i not in chosen], sorted(chosen)


def _classes(labels: Sequence[str], keys: Sequence[str], seed: int) -> dict[str, list[_Group]]:
    """Return the groups of each class, in order of rank."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        same[key].append(index)
    classes: dict[str, list[_Group]] = defaultdict(list)
    for key, indices in same.items():
        counts = Counter(labels[index] for index in indices)
        label = min(counts, key=lambda label: (-counts[label], label))
        classes[label].append(_Group(_rank(seed, key), tuple(indices)))
    return {label: sorted(groups) for label, groups in classes.items()}


def _shares(sizes: Mapping[str, int], fraction: float, seed: int) -> dict[str, int]:
    """Return the number of validation examples for each class, by largest remainder: each within
    one of its share, and in total the share of the whole, rounded.
    """
    wanted = {label: int(size * fraction) for label, size in sizes.items()}
    missing = round(sum(sizes.values()) * fraction) - sum(wanted.values())

    def urgency(label: str) -> tuple[float, bytes]:
        return wanted[label] - sizes[label] * fraction, _rank(seed, label)

    for label in sorted(sizes, key=urgency)[: max(missing, 0)]:
        wanted[label] += 1
    return wanted


def _first(groups: list[_Group], wanted: int) -> list[_Group]:
    """Return groups with about `wanted` examples: at least one if there are two, and not all."""
    if len(groups) == 1:
        return []
    taken, count = [], 0
    for group in groups:
        if 2 * count + len(group) < 2 * wanted:  # closer with the group than without
            taken.append(group)
            count += len(group)
    smallest = min(groups, key=len)
    if len(taken) == len(groups):
        taken.remove(smallest)
    return taken or [smallest]


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()
