"""Folder of checkpoints: written completely or not at all, verified when read, rotated.

A checkpoint is written under a temporary name, made durable, and renamed. There is no pointer to
the latest: it is the highest step that verifies. Usable in any training loop:

    store = CheckpointStore(Path("checkpoints"), keep=3)
    checkpoint = store.newest()
    if checkpoint:
        model.load_state_dict(checkpoint.tensors("model"))
        start = checkpoint.values()["step"]
    with store:
        ...
            store.save(Snapshot(step, {"model": model.state_dict()}, {"step": step}))
"""

import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from hairpin.checkpoints.background import Background
from hairpin.checkpoints.best import best_folder, best_problem, best_step, old_best
from hairpin.checkpoints.manifest import Checkpoint, open_checkpoint, read_manifest, write_manifest
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.tensors import FileFacts
from hairpin.checkpoints.writing import commit, commit_together
from hairpin.distributed.world import World
from hairpin.errors import CheckpointError, HairpinError, UnreadableError
from hairpin.system.access import entries, is_there
from hairpin.system.files import (
    IS_WINDOWS,
    SPARE_SPACE,
    link_or_copy,
    move,
    new_folder,
    remove,
    size_words,
    sync_folder,
    write_atomically,
)


class CheckpointStore:
    """The checkpoints of one run. One process writes to it at a time; or all processes of a world,
    each its own pieces, and rank 0 everything else.

    Args:
        folder: the folder of the checkpoints.
        keep: how many of the newest to keep.
        keep_every: keep every step that is a multiple of this too; None: no others.
        best: the folder for the best checkpoint's model; None: keep none.
        facts: plain JSON values for every manifest, such as hashes of the text and tokenizer.
        remedy: what to do about a full disk, for the error message.
        world: the processes that call the same methods together.
        witness: a file next to the folder that exists from the first commit on: it distinguishes a
            lost folder from one that was never filled. None: there is none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 3,
        keep_every: int | None = None,
        best: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        remedy: str = "make space and try again",
        world: World | None = None,
        witness: Path | None = None,
    ) -> None:
        self.folder = folder
        self._witness = witness
        self._world = world or World()
        self._apart = self._world.apart()  # for saving in a thread of its own
        self.best = best
        self._keep = keep
        self._keep_every = keep_every
        self._facts = dict(facts or {})
        self._remedy = remedy
        self._background = Background()

    def save(self, snapshot: Snapshot, *, is_best: bool = False) -> None:
        """Commit a checkpoint in the background; the snapshot's tensors may change at once.

        Waits for a save that is still running. A step that exists is not written again.

        Args:
            snapshot: must be finite.
            is_best: its group `model` is the best so far.

        Raises:
            HairpinError: the disk is too full; or the previous save failed: with an error of its
                own, or because something in it was not finite. What was committed before is intact.
        """
        self._background.finish()
        if not self._world.is_first:
            if not snapshot.pieces:
                return
            snapshot = snapshot.pieces_only()
        self._require_space(snapshot.bytes)
        copy = snapshot.copied()
        self._background.start(lambda: self._save(copy, is_best))

    def check(self) -> None:
        """Raise the error of a save that failed; never wait for one."""
        self._background.check()

    def finish(self) -> None:
        """Wait for the running save; raise its error."""
        self._background.finish()

    def __enter__(self) -> Self:
        """Return the store; the end of the block waits for the running save."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Wait for the save, except after an interrupt; the block's own error takes precedence."""
        if error is None:
            self.finish()
        elif isinstance(error, Exception | GeneratorExit):
            with suppress(Exception):
                self.finish()

    def steps(self) -> list[Path]:
        """Return the folders of committed checkpoints, oldest first; not verified."""
        found = [
            (int(match[1]), path)
            for path in entries(self.folder)
            if (match := re.fullmatch(r"step-(\d{8,})", path.name))
        ]
        return [path for _, path in sorted(found)]

    def newest(
        self,
        notice: Callable[[str], None] = lambda line: None,
        if_none: Callable[[Sequence[str]], None] = lambda problems: None,
    ) -> Checkpoint | None:
        """Return the checkpoint to resume from: the highest step that verifies.

        Those that do not verify are set aside, never deleted, and so is a later best checkpoint;
        unfinished files of killed processes are removed.

        Args:
            notice: called with a line for each that is set aside.
            if_none: called if no step verifies, with the problem of each, before anything is
                changed; it may raise.

        Raises:
            UnreadableError: something cannot be read now; nothing was changed.
        """
        self.finish()
        if self._world.size == 1:
            return self._newest(notice, if_none)
        found: list[Checkpoint] = []

        def name_of_newest() -> str | None:
            found.extend(filter(None, [self._newest(notice, if_none)]))
            return found[0].path.name if found else None

        name = self._world.share(name_of_newest)
        if self._world.is_first or name is None:
            return found[0] if found else None
        path = self.folder / name  # verified by rank 0
        return Checkpoint(path, read_manifest(path))

    def _newest(
        self, notice: Callable[[str], None], if_none: Callable[[Sequence[str]], None]
    ) -> Checkpoint | None:
        # Read everything needed before changing anything.
        damaged: dict[Path, CheckpointError] = {}
        checkpoint = None
        for path in reversed(self.steps()):
            try:
                checkpoint = open_checkpoint(path)
                break
            except CheckpointError as damage:
                damaged[path] = damage
        if checkpoint is None:
            if_none([str(damage) for damage in damaged.values()])
        step = checkpoint.step if checkpoint else 0
        best = best_folder(self.best) if self.best else None
        problem = best_problem(best, step) if best else None
        self._remove_unfinished()
        for path, why in damaged.items():
            notice(f"{why}; set aside as {_set_aside(path)}, taking the checkpoint before it")
        if self.best and problem:
            notice(f"{self.best}: {problem}; set aside as {_set_aside(self.best)}")
        if checkpoint:
            self._write_commit_marker()
        return checkpoint

    def set_all_aside(self, notice: Callable[[str], None] = lambda line: None) -> None:
        """Set aside every checkpoint and the best, damaged or not, so that there is none to resume
        from; unfinished files of killed processes are removed. For one process.
        """
        self.finish()
        self._remove_unfinished()
        for path in (*self.steps(), *filter(None, [self.best])):
            if is_there(path):
                notice(f"{path}: set aside as {_set_aside(path)}")
        if self._witness:
            self._witness.unlink(missing_ok=True)

    def keep_as_best(self, step: int, notice: Callable[[str], None] = lambda line: None) -> None:
        """Make the step the best checkpoint, unless it already is, is gone, or is damaged."""
        path = self._path(step)
        if self.best is None or not is_there(path) or best_step(self.best) == step:
            return
        try:
            open_checkpoint(path)
        except CheckpointError as damage:
            notice(f"{damage}; the best weights, from update {step}, are lost")
        else:
            self._replace_best(path, step)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _save(self, snapshot: Snapshot, is_best: bool) -> None:
        final = self._path(snapshot.step)
        try:
            if snapshot.pieces:
                commit_together(snapshot, final, self._facts, self._apart)
            elif not final.exists():
                commit(snapshot, final, self._facts, self._world.size)
            if not self._world.is_first:
                return
            self._write_commit_marker()
            if is_best and self.best:
                self._replace_best(final, snapshot.step)
            self._rotate()
        except OSError as error:
            raise HairpinError(
                f"{final}: cannot be saved ({error.strerror or error}); {self._before()}: "
                f"{self._remedy}"
            ) from error

    def _require_space(self, tensor_bytes: int) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        needed = SPARE_SPACE * tensor_bytes
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise HairpinError(
                f"{self.folder}: a checkpoint needs {size_words(needed)}, some of it spare, and "
                f"the disk has {size_words(free)} free; {self._before()}: {self._remedy}"
            )

    def _before(self) -> str:
        """Return a phrase on whether an earlier checkpoint exists, for a failed save."""
        is_saved = bool(self.steps())
        return "the previous checkpoint is intact" if is_saved else "none was saved before it"

    def _replace_best(self, checkpoint: Path, step: int) -> None:
        assert self.best
        old = old_best(self.best)
        with new_folder(self.best) as temporary:
            # Use the manifest's hashes, so that bytes that have changed since do not verify.
            found = Checkpoint(checkpoint, read_manifest(checkpoint))
            files = {
                name: FileFacts(**found.manifest["files"][name]) for name in found.files("model")
            }
            for name in files:
                link_or_copy(checkpoint / name, temporary / name)
            shards = {g: s for g, s in found.manifest.get("shards", {}).items() if g == "model"}
            write_manifest(
                temporary, step, files, self._facts, world_size=found.processes, shards=shards
            )
            if self.best.exists():
                remove(old, may_stay=True)
                move(self.best, old)  # readers use it until the new one is moved in
        remove(old, may_stay=True)

    def _rotate(self) -> None:
        """Delete all but the newest, and only after the newest is verified."""
        steps = self.steps()
        doomed = [path for path in steps[: -self._keep] if not self._stays(path)]
        if doomed:
            self._read_back(steps[-1])
        for path in doomed:
            # Renamed first, so that a kill leaves no half-deleted checkpoint under its name.
            unwanted = path.with_name(f".tmp-{path.name}")
            move(path, unwanted)
            # Windows cannot delete files that are being read; the next start removes them.
            remove(unwanted, may_stay=IS_WINDOWS)

    def _read_back(self, path: Path) -> None:
        try:
            open_checkpoint(path)
        except UnreadableError as error:
            raise HairpinError(
                f"{error.path}: was saved but cannot be read back ({error.reason}); no older "
                "checkpoint was deleted: run the same command again when it can be read"
            ) from None

    def _stays(self, path: Path) -> bool:
        return bool(self._keep_every) and int(path.name[5:]) % (self._keep_every or 1) == 0

    def _remove_unfinished(self) -> None:
        places = [*self.folder.glob(".tmp-step-*")] if self.folder.is_dir() else []
        if self.best:
            places.append(self.best.with_name(".tmp-best"))
            if old_best(self.best).is_dir() and not self.best.exists():
                move(old_best(self.best), self.best)
            places.append(old_best(self.best))
        for path in places:
            remove(path, may_stay=True)

    def _write_commit_marker(self) -> None:
        """Create a file outside the folder that shows that a checkpoint was committed."""
        if self._witness and not is_there(self._witness):
            write_atomically(self._witness, b"A checkpoint was written; see docs/reliability.md.\n")


def _set_aside(path: Path) -> str:
    aside = path.with_name(f".bad-{path.name}-{time.time_ns()}")
    move(path, aside)
    return aside.name
