"""Chapter 7: a GPT that follows instructions, by chapter 5's loop on padded batches.

from hairpin.book.ch07 import InstructionDataset, custom_collate_fn, format_input
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

PADDING = 50256
IGNORED = -100
_TASK = (  # Alpaca's prompt (Taori et al. 2023), which the chapter uses
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def format_input(entry: Mapping[str, str]) -> str:
    """Return the prompt of a record: its instruction, and its input if it has one.

    Args:
        entry: has "instruction" and "input", which may be empty.
    """
    prompt = f"{_TASK}\n\n### Instruction:\n{entry['instruction']}"
    return f"{prompt}\n\n### Input:\n{entry['input']}" if entry["input"] else prompt


class InstructionDataset(Dataset[list[int]]):
    """Prompts with their responses, as ids.

    Args:
        data: records with "instruction", "input" and "output".
        tokenizer: has tiktoken's `encode`.
    """

    def __init__(self, data: Sequence[Mapping[str, str]], tokenizer: Any) -> None:
        self.data = data
        self.encoded_texts = [
            tokenizer.encode(f"{format_input(entry)}\n\n### Response:\n{entry['output']}")
            for entry in data
        ]

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.data)

    def __getitem__(self, index: int) -> list[int]:
        """Return the ids of a record."""
        ids: list[int] = self.encoded_texts[index]
        return ids


def custom_collate_fn(
    batch: Sequence[Sequence[int]],
    pad_token_id: int = PADDING,
    ignore_index: int = IGNORED,
    allowed_max_length: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return lists of ids as inputs and targets, [B, T] each, T the longest list's length.

    Each list ends with one padding token, which is to be predicted; the loss ignores the padding
    of the rest of its targets.

    Args:
        batch: lists of ids.
        pad_token_id: ends a list, and pads lists shorter than the longest.
        ignore_index: the target of positions that are not predicted.
        allowed_max_length: most tokens of a row; None: no limit.
        device: the batch's device.
    """
    longest = max(map(len, batch))
    rows = [[*ids, *[pad_token_id] * (longest + 1 - len(ids))] for ids in batch]
    whole = torch.tensor(rows)
    inputs, targets = whole[:, :-1].clone(), whole[:, 1:].clone()
    # All but the first padding token of a row, at any position, as in the book.
    is_padding = targets == pad_token_id
    targets[is_padding & (is_padding.cumsum(dim=1) > 1)] = ignore_index
    return (
        inputs[:, :allowed_max_length].to(device),
        targets[:, :allowed_max_length].to(device),
    )
