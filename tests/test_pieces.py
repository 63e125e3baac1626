"""Tensors in pieces: cut as FSDP2 cuts them, and read by any other number of processes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hairpin.checkpoints.manifest import Checkpoint, open_checkpoint, read_manifest
from hairpin.checkpoints.pieces import Piece, file_name, in_manifest
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.tensors import write_tensors
from hairpin.checkpoints.writing import commit
from hairpin.distributed.world import World
from hairpin.errors import CheckpointError

WHOLE = {
    "wide": torch.arange(7.0 * 3).reshape(7, 3),
    "tall": torch.arange(40).reshape(20, 2),
    "short": torch.tensor([1.5, -2.5]),  # of four processes two have none of it
}


@given(rows=st.integers(1, 60), size=st.integers(1, 9))
def test_rows_are_dealt_out_as_chunk_deals_them(rows: int, size: int) -> None:
    chunks = torch.arange(rows).chunk(size)
    for rank in range(size):
        piece = Piece.of((rows, 2), rank, size)
        expected = chunks[rank].tolist() if rank < len(chunks) else []
        assert list(range(piece.start, piece.stop)) == expected
        own = World(rank, size).rows(rows)
        assert list(own) == expected


def sharded(folder: Path, size: int) -> Checkpoint:
    """A checkpoint as `size` processes write it; a scalar is the first one's."""
    folder.mkdir(parents=True)
    files, pieces = {}, {}
    for rank in range(size):
        pieces = {name: Piece.of(tuple(t.shape), rank, size) for name, t in WHOLE.items()}
        parts = {n: WHOLE[n][pieces[n].start : pieces[n].stop].clone() for n in WHOLE}
        if rank == 0:
            parts["step"] = torch.tensor(3.0)
        name = file_name("model", rank, size)
        files[name] = write_tensors(folder / name, parts)
    from hairpin.checkpoints.manifest import write_manifest

    write_manifest(folder, 3, files, {}, world_size=size, shards={"model": in_manifest(pieces)})
    return open_checkpoint(folder)


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_all_of_it_is_put_together(tmp_path: Path, size: int) -> None:
    found = sharded(tmp_path / "step", size)
    tensors = found.tensors("model")
    assert tensors.keys() == {*WHOLE, "step"} and float(tensors["step"]) == 3
    assert all(torch.equal(tensors[name], WHOLE[name]) for name in WHOLE)
    assert found.groups() == ["model"] and len(found.files("model")) == size


@given(saved=st.integers(1, 6), read=st.integers(1, 6))
def test_other_numbers_of_processes_read_their_rows(
    tmp_path_factory: pytest.TempPathFactory, saved: int, read: int
) -> None:
    found = sharded(tmp_path_factory.mktemp("pieces") / "step", saved)
    for rank in range(read):
        own = {name: Piece.of(tuple(t.shape), rank, read) for name, t in WHOLE.items()}
        rows = {name: (piece.start, piece.stop) for name, piece in own.items()}
        tensors = found.tensors("model", rows.get)
        for name, (start, stop) in rows.items():
            assert torch.equal(tensors[name], WHOLE[name][start:stop])


def test_rows_are_read_from_a_checkpoint_of_one_process_too(tmp_path: Path) -> None:
    commit(Snapshot(5, {"model": WHOLE}), tmp_path / "step", {}, 1)
    found = open_checkpoint(tmp_path / "step")
    tensors = found.tensors("model", {"wide": (2, 4), "tall": (0, 0)}.get)
    assert torch.equal(tensors["wide"], WHOLE["wide"][2:4])
    assert tensors["tall"].shape == (0, 2)
    assert torch.equal(tensors["short"], WHOLE["short"])


def test_a_damaged_or_missing_piece_is_named(tmp_path: Path) -> None:
    found = sharded(tmp_path / "step", 3)
    second = found.path / file_name("model", 1, 3)
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003.*its bytes differ"):
        open_checkpoint(found.path)
    second.unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        open_checkpoint(found.path)


def test_what_the_manifest_says_of_pieces_is_checked_by_its_hash(tmp_path: Path) -> None:
    manifest = sharded(tmp_path / "step", 2).path / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"starts":[0,4,7]', '"starts":[0,3,7]'), encoding="utf-8")
    assert manifest.read_text(encoding="utf-8") != text
    with pytest.raises(CheckpointError, match="its bytes differ"):
        read_manifest(manifest.parent)
