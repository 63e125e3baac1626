"""Small things that several tests share: a text, tiny settings, rings of tokens."""

import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hairpin.data.order import Indices
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.runs import events
from hairpin.runs.events import Event

torch.set_num_threads(1)

TINY: dict[str, Any] = {
    "tokenizer.kind": "bytes",
    "model.layers": 1,
    "model.heads": 2,
    "model.width": 16,
    "model.context": 16,
    "train.updates": 12,
    "train.tokens_per_update": 64,
    "train.seed": 5,
    "schedule.peak_lr": 0.01,
    "schedule.warmup_updates": 3,
    "evaluate.every_updates": 4,
    "evaluate.tokens": 128,
    "evaluate.sample_tokens": 3,
    "checkpoint.keep": 50,
    "execution.precision": "float32",
    "execution.device": "cpu",
    "execution.micro_batch": 2,
}


def some_text(characters: int = 6000, seed: int = 1) -> str:
    """Lines of words with a little structure to learn; always the same."""
    words = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "and", "then"]
    words += ["it", "saw", "moon", "été"]
    draw = random.Random(seed)
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines.append(" ".join(draw.choices(words, k=draw.randint(4, 9))) + ".\n")
    return "".join(lines)[:characters]


def text_file(folder: Path, characters: int = 6000) -> Path:
    """A file with `some_text`."""
    path = folder / "text.txt"
    path.write_text(some_text(characters), encoding="utf-8")
    return path


def tiny(**changes: Any) -> dict[str, Any]:
    """Settings of a run of seconds; `train__updates=3` changes `train.updates`."""
    return TINY | {key.replace("__", "."): value for key, value in changes.items()}


class Ring:
    """A stream of tokens in memory that goes round at its end."""

    def __init__(self, ids: Any) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> Indices:
        return np.array([self.ids[(start + i) % len(self.ids)] for i in range(count)], np.int64)


def random_ids(*shape: int, below: int = 64, seed: int = 0) -> Tensor:
    """Token ids, the same for a seed."""
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(seed))


def lively_model(shape: Shape, seed: int = 3) -> GPT:
    """A model whose parameters are all far from zero and one, biases and norms too."""
    model = GPT(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)
    return model


# What a reader of the book would call a small GPT_CONFIG.
BOOK_TINY: dict[str, Any] = {
    "vocab_size": 64,
    "context_length": 8,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": False,
}

M = TypeVar("M", bound=nn.Module)


def shaken(module: M, seed: int = 3) -> M:
    """The module with all its parameters far from zero and one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            mean = 1.0 if name.endswith("scale") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)
    return module


def book_batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches of two windows for a model of `BOOK_TINY`."""
    ids = random_ids(count, 2, 9, seed=seed)
    return [(two[:, :-1], two[:, 1:]) for two in ids]


class WordsOfTwo:
    """A tokenizer with tiktoken's methods: two letters are a token, ab is 0, cd is 1, and so on."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [(ord(text[at]) - ord("a")) // 2 for at in range(0, len(text), 2)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass
class Watching:
    """A watcher that remembers, and that sends a signal after some update's event."""

    stop_after_update: int | None = None
    signal_number: signal.Signals = signal.SIGINT
    seen: list[Event] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def stage(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def notice(self, line: str) -> None:
        self.notices.append(line)

    def show(self, event: Event) -> None:
        self.seen.append(event)
        if isinstance(event, events.Update) and event.update == self.stop_after_update:
            signal.raise_signal(self.signal_number)

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def of_kind(record: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The record's events of one kind."""
    return [event for event in record if event["event"] == kind]


def updates_without_times(record: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The update events, less the one number that a clock makes."""
    return [
        {key: value for key, value in event.items() if key != "tokens_per_second"}
        for event in of_kind(record, "update")
    ]


def last_checkpoint(run: Path) -> Path:
    """The folder of the highest step."""
    return max((run / "checkpoints").glob("step-*"))


def tensor_bytes(folder: Path) -> dict[str, bytes]:
    """The bytes of the weights and the moments in a checkpoint."""
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")}


def weights_of(folder: Path) -> Mapping[str, Tensor]:
    """The weights in a checkpoint."""
    loaded: Mapping[str, Tensor] = load_file(folder / "model.safetensors")
    return loaded
