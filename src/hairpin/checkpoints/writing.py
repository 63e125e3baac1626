"""Writing of one checkpoint: by one process, or by several, each its own pieces."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hairpin.checkpoints.manifest import write_manifest
from hairpin.checkpoints.pieces import file_name, in_manifest
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.tensors import FileFacts, write_hashed, write_tensors
from hairpin.distributed.world import World
from hairpin.errors import HairpinError
from hairpin.system.files import as_json, new_folder


def commit(snapshot: Snapshot, final: Path, facts: Mapping[str, Any], world_size: int) -> None:
    """Write the checkpoint, completely or not at all.

    Args:
        snapshot: the checkpoint's content.
        final: its folder, which must not exist.
        facts: for the manifest.
        world_size: the number of processes that train.

    Raises:
        HairpinError: a value is not finite.
        OSError: it cannot be written.
    """
    bad = snapshot.not_finite()
    if bad:
        raise HairpinError(_not_finite_words(snapshot, bad))
    with new_folder(final) as temporary:
        files = _write_files(temporary, snapshot, World())
        write_manifest(temporary, snapshot.step, files, facts, world_size=world_size)


def commit_together(
    snapshot: Snapshot, final: Path, facts: Mapping[str, Any], world: World
) -> None:
    """Write the checkpoint with several processes, each its own pieces and rank 0 everything else.
    Rank 0 makes the folder and writes the manifest; an error in one process is raised in all.

    Args:
        snapshot, final, facts: as in `commit`; a folder that exists is left unchanged.
        world: the processes, which call this at the same time.

    Raises:
        HairpinError: one of them failed, or had a value that is not finite.
    """
    if world.share(final.exists):
        return
    if not world.is_first:
        _write_together(snapshot, Path(world.share(str)), world)
        world.share(bool)  # until it is committed
        return
    with new_folder(final) as temporary:
        world.share(lambda: str(temporary))
        files = _write_together(snapshot, temporary, world)
        shards = {group: in_manifest(pieces) for group, pieces in snapshot.pieces.items()}
        write_manifest(temporary, snapshot.step, files, facts, world_size=world.size, shards=shards)
    world.share(lambda: True)


def _write_together(snapshot: Snapshot, folder: Path, world: World) -> dict[str, FileFacts]:
    """Write this process's files and return those of all processes."""
    files, problem = dict[str, FileFacts](), None
    if bad := snapshot.not_finite():
        problem = _not_finite_words(snapshot, bad)
    else:
        try:
            files = _write_files(folder, snapshot, world)
        except OSError as error:
            problem = (
                f"{folder.parent}: process {world.rank} cannot save update {snapshot.step} "
                f"({error.strerror or error}); the previous checkpoint is intact"
            )
    told = world.gather(
        {"problem": problem, "files": {name: vars(found) for name, found in files.items()}}
    )
    problems = [one["problem"] for one in told if one["problem"]]
    if problems:
        raise HairpinError(problems)
    return {name: FileFacts(**found) for one in told for name, found in one["files"].items()}


def _write_files(folder: Path, snapshot: Snapshot, world: World) -> dict[str, FileFacts]:
    """Write this process's files."""
    files = {}
    for group, tensors in snapshot.tensors.items():
        in_pieces = group in snapshot.pieces
        name = file_name(group, world.rank, world.size) if in_pieces else f"{group}.safetensors"
        files[name] = write_tensors(folder / name, tensors)
    if world.is_first:
        others = {"state.json": as_json(snapshot.values).encode(), **snapshot.files}
        for name, content in others.items():
            files[name] = write_hashed(folder / name, [content])
    return files


def _not_finite_words(snapshot: Snapshot, name: str) -> str:
    return f"update {snapshot.step}: {name} is not finite; nothing was saved"
