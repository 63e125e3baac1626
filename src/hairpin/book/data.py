"""Text to batches, as in the book's chapter 2: windows of a text, and targets one token later."""

from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

END_OF_TEXT = "<|endoftext|>"


class GPTDatasetV1(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a tokenized text.

    Args:
        txt: the text.
        tokenizer: has tiktoken's `encode`.
        max_length: tokens in a window.
        stride: tokens from the start of one window to the start of the next.
    """

    def __init__(self, txt: str, tokenizer: Any, max_length: int, stride: int) -> None:
        ids = tokenizer.encode(txt, allowed_special={END_OF_TEXT})
        starts = range(0, len(ids) - max_length, stride)
        self.input_ids = [torch.tensor(ids[start : start + max_length]) for start in starts]
        self.target_ids = [
            torch.tensor(ids[start + 1 : start + max_length + 1]) for start in starts
        ]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.input_ids)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a window, [max_length] each."""
        return self.input_ids[idx], self.target_ids[idx]


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return batches of a text in GPT-2 tokens: (inputs, targets), [batch_size, max_length] each.

    Each pass over it draws from torch's default random stream, shuffled or not.
    """
    dataset = GPTDatasetV1(txt, tiktoken.get_encoding("gpt2"), max_length, stride)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
    )


def text_to_token_ids(text: str, tokenizer: Any) -> Tensor:
    """Return a text as a batch of one, [1, T] ids."""
    return torch.tensor(tokenizer.encode(text, allowed_special={END_OF_TEXT})).unsqueeze(0)


def token_ids_to_text(token_ids: Tensor, tokenizer: Any) -> str:
    """Return the text of a batch of one, [1, T] ids."""
    text: str = tokenizer.decode(token_ids.squeeze(0).tolist())
    return text
