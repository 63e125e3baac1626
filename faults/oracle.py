"""What a run came to, in a few hashes: two runs that trained alike have the same.

The files are read here and not by hairpin, so that a mistake of its reader is seen.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


class UnclearError(Exception):
    """The folder is not that of a finished run; the arguments say why."""


@dataclass(frozen=True)
class Oracle:
    """SHA-256 hashes of a finished run.

    Args:
        tensors: names, types, shapes and bytes of all tensors of the last checkpoint.
        counters: its state.json, without the record's length.
        best: names and bytes of the best weights.
        updates: loss, learning rate and gradient norm of every update, bit for bit.
        evaluations: each of them, and whether it was the best so far.
        samples: what the model wrote.
        diagnostics: how far updates moved the weights, and what was learned by heart.
        tokens: the ids that every update was made with.
    """

    tensors: str
    counters: str
    best: str
    updates: str
    evaluations: str
    samples: str
    diagnostics: str
    tokens: str

    def differences(self, other: "Oracle") -> list[str]:
        """The names of the parts that are not the same."""
        names = [field.name for field in fields(self)]
        return [
            f"oracle: other {name}" for name in names if getattr(self, name) != getattr(other, name)
        ]


def oracle_of(run: Path, ids: Path, updates: int, *, rewound: bool = False) -> Oracle:
    """The oracle of a finished run.

    Args:
        run: its folder.
        ids: the file where its processes logged the token ids of their updates.
        updates: how many it has.
        rewound: an update may have been made again with other tokens; the last ones count.

    Raises:
        UnclearError: it is not finished, or an update is recorded twice, or was made in two ways.
    """
    record = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    made = [event for event in record if event["event"] == "update"]
    numbers = [event["update"] for event in made]
    if numbers != list(range(updates)):
        raise UnclearError(f"the record's updates are {_shortly(numbers)}")
    # A signal makes saves of its own; those that belong to an evaluation say how good it was.
    evaluated = [event["update"] for event in record if event["event"] == "evaluation"]
    saves = {event["update"]: event["best"] for event in record if event["event"] == "checkpoint"}
    bests = [saves.get(update) for update in evaluated]
    newest = newest_step(run)
    if newest != updates:
        raise UnclearError(f"the newest checkpoint is of update {newest}")
    last = run / "checkpoints" / f"step-{updates:08d}"
    counters = json.loads((last / "state.json").read_text(encoding="utf-8"))
    counters.pop("record_bytes")
    return Oracle(
        tensors=_hash(_tensor_lines(last)),
        counters=_hash([json.dumps(counters, sort_keys=True)]),
        best=_hash(_tensor_lines(run / "best")),
        updates=_hash(_bits(event[key]) for event in made for key in ("loss", "lr", "grad_norm")),
        evaluations=_hash([*_lines(record, "evaluation"), json.dumps(bests)]),
        samples=_hash(_lines(record, "sample")),
        diagnostics=_hash([*_lines(record, "ratios"), *_lines(record, "memorisation")]),
        tokens=_hash(_ids_of_updates(ids, updates, rewound)),
    )


def newest_step(run: Path) -> int:
    """The highest update with a checkpoint under its final name; 0: there is none."""
    folders = (run / "checkpoints").glob("step-*")
    return max((int(folder.name[5:]) for folder in folders), default=0)


def read_ids(path: Path) -> list[tuple[int, int, str]]:
    """Process, update and hash of the token ids, in the order in which updates were made."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]  # a kill may cut the last
    return [tuple(json.loads(line)) for line in whole]


def tensors_of(path: Path) -> Iterator[tuple[str, str, list[int], bytes]]:
    """Name, type, shape and bytes of each tensor in a safetensors file, by name."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    header.pop("__metadata__", None)
    for name, facts in sorted(header.items()):
        begin, end = facts["data_offsets"]
        yield name, facts["dtype"], facts["shape"], content[start + begin : start + end]


def _lines(record: list[dict[str, Any]], kind: str) -> Iterator[str]:
    """The events of a kind, less what a clock makes different."""
    for event in record:
        if event["event"] == kind:
            yield json.dumps({k: v for k, v in event.items() if k != "time"}, sort_keys=True)


def _bits(number: float | None) -> str:
    """A number of the record; None: it was not finite."""
    return "not finite" if number is None else float(number).hex()


def _tensor_lines(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.safetensors")):
        for name, kind, shape, content in tensors_of(path):
            yield f"{path.stem} {name} {kind} {shape} {hashlib.sha256(content).hexdigest()}"


def _ids_of_updates(path: Path, updates: int, rewound: bool) -> Iterator[str]:
    seen: dict[int, str] = {}
    for _, update, ids in read_ids(path):
        if not rewound and seen.get(update, ids) != ids:
            raise UnclearError(f"update {update} was made with other tokens when it was made again")
        seen[update] = ids
    if sorted(seen) != list(range(updates)):
        raise UnclearError(f"the updates that were made are {_shortly(sorted(seen))}")
    return (seen[update] for update in range(updates))


def _hash(lines: Any) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _shortly(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:3])) + f" … {numbers[-1]}" if numbers else "none"
