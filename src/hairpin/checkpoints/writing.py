"""Writing one checkpoint: by a process alone, or by several, each its pieces."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hairpin.checkpoints.manifest import write_manifest
from hairpin.checkpoints.pieces import file_name, in_manifest
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.tensors import FileFacts, write_hashed, write_tensors
from hairpin.distributed.world import World
from hairpin.errors import HairpinError
from hairpin.files import as_json, new_folder


def commit(snapshot: Snapshot, final: Path, facts: Mapping[str, Any], world_size: int) -> None:
    """Write the checkpoint, whole or not at all.

    Args:
        snapshot: what it is made of.
        final: its folder, which is not there.
        facts: for the manifest.
        world_size: how many processes train.

    Raises:
        HairpinError: something is not finite.
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
    """Write the checkpoint, of which every process has its pieces and the first one the rest. It
    makes the folder, and vouches for all files; what goes wrong in one goes wrong in all.

    Args:
        snapshot, final, facts: as in `commit`; the folder may be there, and is left as it is.
        world: the processes, which do this at the same time.

    Raises:
        HairpinError: one of them could not, or had something that is not finite.
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
    """The files that all processes have written."""
    files, problem = dict[str, FileFacts](), None
    if bad := snapshot.not_finite():
        problem = _not_finite_words(snapshot, bad)
    else:
        try:
            files = _write_files(folder, snapshot, world)
        except OSError as error:
            problem = (
                f"{folder.parent}: process {world.rank} cannot save update {snapshot.step} "
                f"({error.strerror or error}); the checkpoint before it is whole"
            )
    told = world.gather(
        {"problem": problem, "files": {name: vars(found) for name, found in files.items()}}
    )
    problems = [one["problem"] for one in told if one["problem"]]
    if problems:
        raise HairpinError(problems)
    return {name: FileFacts(**found) for one in told for name, found in one["files"].items()}


def _write_files(folder: Path, snapshot: Snapshot, world: World) -> dict[str, FileFacts]:
    """This process's files."""
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
