"""Contents of a run's checkpoints, and the check that a run may resume from one.

checkpoints/step-00000100/
model.safetensors  optimizer.safetensors  rng.safetensors
state.json         counters, and the record's length that belongs to them
config.toml        the settings that made it
manifest.json
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.best import best_folder
from hairpin.checkpoints.live import read_live
from hairpin.checkpoints.manifest import Checkpoint
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.checks import schedule_of
from hairpin.config.load import build_config, changed_keys, to_toml
from hairpin.config.settings import Config
from hairpin.distributed.world import World
from hairpin.errors import CheckpointError, RunError
from hairpin.machine.out_of_memory import is_out_of_memory
from hairpin.machine.threads import threads_of
from hairpin.runs.folder import RunDirectory
from hairpin.system.shell import command
from hairpin.training.state import TrainState

# Settings (a whole table ends in a dot) that may change on resume: they change nothing computed so
# far. Those of its length must give the same learning rates so far.
_FREE = (
    "data.texts",
    "data.column",
    "data.format",
    "checkpoint.",
    "guard.on_non_finite",
    "guard.on_spike",
    "guard.most_skips",
    "guard.most_rewinds",
    "evaluate.every_updates",
    "evaluate.sample_tokens",
    "evaluate.sample_prompt",
    "evaluate.temperature",
    "evaluate.top_k",
    "track.",
)
_LENGTH = ("train.updates", "train.tokens", "train.epochs", "schedule.")
_MACHINE = ("execution.", "plugins")
_OLDER_THREADS = ("execution.threads", "auto")  # for runs older than the setting, which used all
_COUNTS = ("update", "position", "tokens", "record_bytes")
_COMPARED_UPDATES = 100_000


def run_store(
    run: RunDirectory, config: Config, facts: dict[str, str], world: World | None = None
) -> CheckpointStore:
    """Return the store of a run's checkpoints.

    Args:
        run: its folder.
        config: its settings.
        facts: hashes that tie the checkpoints to text and tokenizer.
        world: the processes that train.
    """
    return CheckpointStore(
        run.checkpoints,
        keep=config.checkpoint.keep,
        keep_every=config.checkpoint.keep_every,
        best=run.best,
        facts={**facts, "threads": threads_of(config)},
        remedy=f"make space, then `{command('resume', run.path)}`",
        world=world,
        witness=run.witness,
    )


def snapshot(state: TrainState, config: Config, record_bytes: int) -> Snapshot:
    """Return the contents of a checkpoint of the run.

    Args:
        state: the state of training.
        config: the settings that made it, to be saved in the checkpoint.
        record_bytes: the durable length of metrics.jsonl that belongs to the state.
    """
    return Snapshot(
        state.update,
        state.tensors(),
        {**state.counters(), "record_bytes": record_bytes},
        {"config.toml": to_toml(config).encode()},
        state.pieces(),
    )


def load_state(checkpoint: Checkpoint, state: TrainState) -> int:
    """Load the checkpoint into `state`; return the record's length in bytes.

    Raises:
        RunError: the checkpoint does not fit the run's model.
    """
    values = checkpoint.values()
    wrong = [key for key in _COUNTS if type(values.get(key)) is not int or values[key] < 0]
    if wrong:
        raise CheckpointError(f"{checkpoint.path}/state.json: {wrong[0]} is not a count")
    try:
        state.load(_TensorGroups(checkpoint, state), values)
    except (RuntimeError, KeyError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{checkpoint.path}: does not fit the model of config.toml: {reason}"
        ) from None
    return int(values["record_bytes"])


class _TensorGroups(Mapping[str, dict[str, Tensor]]):
    """A checkpoint's groups of tensors, each read on access and not kept."""

    def __init__(self, checkpoint: Checkpoint, state: TrainState) -> None:
        self._checkpoint = checkpoint
        self._state = state

    def __getitem__(self, group: str) -> dict[str, Tensor]:
        rows_of = partial(self._state.rows_of, group) if self._state.pieces() else None
        return self._checkpoint.tensors(group, rows_of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint.groups())

    def __len__(self) -> int:
        return len(self._checkpoint.groups())


def changes_since(
    checkpoint: Checkpoint, config: Config, facts: dict[str, str], processes: int | None = None
) -> tuple[str, ...]:
    """Return a line for each reason why updates from here on differ from those that this machine
    would have made before; none: they are the same bits.

    Args:
        checkpoint: the one to resume from.
        config: the run's, filled in.
        facts: hashes of the run's data and tokenizer.
        processes: the number that train from here on; None: no training.

    Raises:
        RunError: the settings, the text or the tokenizer differ from the checkpoint's. Settings
            of what follows may change (the length, the curve from there on, evaluation,
            checkpoints), and so may the machine.
    """
    problems = [
        f"{checkpoint.path.parent.parent}: its {name.removesuffix('_sha256')} is not the one that "
        f"update {checkpoint.step} was made with; restore it, or start another run"
        for name, value in facts.items()
        if checkpoint.manifest.get(name) != value
    ]
    before = config_of(checkpoint)
    edits = [f"{key} is {now} but was {was}" for key, was, now in _fixed(before, config)]
    if not _same_rates(before, config, checkpoint.step):
        edits.append(f"the learning rates before update {checkpoint.step} differ")
    copy = checkpoint.path / "config.toml"
    problems += [
        f"config.toml: {edit}; restore it (a copy: {copy}), or start another run" for edit in edits
    ]
    if problems:
        raise RunError(problems)
    changes = [
        difference
        for difference in changed_keys(before, config)
        if _is_in(difference[0], _MACHINE) and difference[:2] != _OLDER_THREADS
    ]
    if processes is not None:
        changes += _machine_changes(checkpoint, config, processes)
    return tuple(
        f"{key} was {was} until update {checkpoint.step} and is {now} from here: bits will differ"
        for key, was, now in changes
    )


def _machine_changes(
    checkpoint: Checkpoint, config: Config, processes: int
) -> Iterator[tuple[str, Any, Any]]:
    """Yield known differences between the checkpoint's machine and this one that change the order
    in which sums are rounded.
    """
    manifest = checkpoint.manifest
    for what, was, now in (
        ("the number of processes", checkpoint.processes, processes),
        ("torch", manifest.get("torch"), str(torch.__version__)),
        ("the number of threads", manifest.get("threads"), threads_of(config)),
    ):
        if was not in (None, now):
            yield what, was, now


def config_of(checkpoint: Checkpoint) -> Config:
    """Return the settings that made the checkpoint."""
    path = checkpoint.file("config.toml")
    return build_config(file=path, content=checkpoint.read("config.toml").tobytes())


def load_weights(
    run: RunDirectory, which: str = "best", *, tokenizer_sha256: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """Return the best or last weights of a run and a phrase that names them.

    Args:
        run: its folder.
        which: "best" or "last".
        tokenizer_sha256: hash of the tokenizer that they will be used with.

    Raises:
        RunError: nothing was saved yet, the weights are damaged or cannot be read now, or were
            trained with another tokenizer.
    """

    def find() -> Path | None:
        if which == "best" and (best := best_folder(run.best)):
            return best
        if steps := CheckpointStore(run.checkpoints).steps():
            return steps[-1]
        return best_folder(run.best)  # imported weights have no other

    def use(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, Tensor]]:
        return checkpoint, checkpoint.tensors("model")

    found = read_live(find, use)
    if found is None:
        raise RunError(
            f"{run.path}: no weights saved yet; resume with `{command('resume', run.path)}`"
        )
    checkpoint, tensors = found
    if tokenizer_sha256 not in (None, checkpoint.manifest.get("tokenizer_sha256")):
        raise RunError(
            f"{run.tokenizer}: not the tokenizer that {checkpoint.path} was trained with; restore "
            "the run's own from a copy"
        )
    kind = "last" if checkpoint.path.parent == run.checkpoints else "best"
    return tensors, f"{kind} weights, update {checkpoint.step}"


def _fixed(before: Config, config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences that make it another run."""
    for difference in changed_keys(before, config):
        if difference[0] == "data.sources" and _drawn(before) == _drawn(config):
            continue
        if not _is_in(difference[0], (*_FREE, *_LENGTH, *_MACHINE)):
            yield difference


def _drawn(config: Config) -> list[tuple[Any, ...]]:
    """Return the facts that determine a mixture's samples, without the paths of its files."""
    return [(s.name, s.weight, s.split, s.hash) for s in config.data.sources]


def _is_in(key: str, settings: tuple[str, ...]) -> bool:
    return any(key.startswith(s) if s.endswith(".") else key == s for s in settings)


def _same_rates(before: Config, config: Config, updates: int) -> bool:
    """Return True if both give the same learning rate to each of the first updates."""
    if (before.schedule, before.train) == (config.schedule, config.train):
        return True  # readers of a plugin's run need not have its curve
    was, now = schedule_of(before), schedule_of(config)
    stride = -(-updates // _COMPARED_UPDATES) or 1
    return all(was(u) == now(u) for u in (*range(0, updates, stride), max(0, updates - 1)))
