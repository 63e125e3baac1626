"""Disk space of a run, estimated before it begins."""

import math
from dataclasses import dataclass

from hairpin.config.settings import Config
from hairpin.model.shape import Shape
from hairpin.planning.memory import moment_bytes
from hairpin.planning.sizes import count_parameters
from hairpin.system.files import SPARE_SPACE, size_words


@dataclass(frozen=True)
class Disk:
    """Disk space that a run takes, in bytes.

    Args:
        checkpoint: size of one.
        kept: number of checkpoints kept.
        best: size of the best weights.
        shards: size of the tokenized text in the cache.
        free: free space on the run's disk.
        there: size of the run's files that exist already.
        is_prepared: True if the shards are in the cache already.
    """

    checkpoint: int
    kept: int
    best: int
    shards: int
    free: int
    there: int = 0
    is_prepared: bool = True

    @property
    def most(self) -> int:
        """Peak bytes: while a checkpoint is written, the one it replaces still exists."""
        written = int(self.checkpoint * SPARE_SPACE)
        shards = 0 if self.is_prepared else self.shards
        return self.checkpoint * self.kept + written + self.best + shards

    @property
    def fits(self) -> bool:
        """Return True if there is room for it."""
        return self.most - self.there <= self.free

    def words(self) -> str:
        """Describe the space needed and the free space."""
        needed = max(0, self.most - self.there)
        more = " more" if self.there else ""
        return f"up to {size_words(needed)}{more} are needed and {size_words(self.free)} are free"


def disk_of(
    config: Config,
    shape: Shape,
    free: int,
    *,
    shards: int = 0,
    is_prepared: bool = True,
    there: int = 0,
) -> Disk:
    """Estimate the disk space that a run takes.

    Args:
        config: with a length, evaluations and checkpoints.
        shape: of the network.
        free, shards, is_prepared, there: as in `Disk`.
    """
    updates, keep_every = config.train.updates, config.checkpoint.keep_every
    assert updates
    _, checkpoints = milestones(config)
    more = updates // keep_every if keep_every else 0
    return Disk(
        checkpoint=checkpoint_bytes(config, shape),
        kept=min(config.checkpoint.keep + more, checkpoints),
        best=4 * count_parameters(shape).total,
        shards=shards,
        free=free,
        there=there,
        is_prepared=is_prepared,
    )


def milestones(config: Config) -> tuple[int, int]:
    """Count evaluations and checkpoints, at most: each evaluation may be the best so far."""
    updates, evaluate = config.train.updates, config.evaluate.every_updates
    save = config.checkpoint.every_updates
    assert updates and evaluate and save
    evaluations = math.ceil(updates / evaluate)
    both = math.ceil(updates / math.lcm(evaluate, save))
    return evaluations + 1, evaluations + math.ceil(updates / save) - both


def checkpoint_bytes(config: Config, shape: Shape) -> int:
    """Return the size of weights and moments in float32; without moments where most are frozen."""
    moments = moment_bytes(shape, config.optimizer.kind) if config.finetune.layers is None else 0
    return 4 * count_parameters(shape).total + moments
