"""Chapter 6: a GPT that labels a text by the scores at its last token.

It is a separate module because its losses have the same names as chapter 5's:

    from hairpin.book.ch06 import calc_accuracy_loader, calc_loss_loader, train_classifier_simple

The functions that take or read tables work on pandas' data frames, with columns Label and Text.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from hairpin.book.training import (
    Device,
    Loader,
    evaluated,
    mean_loss,
    plot_against_epochs,
    print_losses,
)

PADDING = 50256
_SEED = 123


class SpamDataset(Dataset[tuple[Tensor, Tensor]]):
    """Texts of a CSV file as ids of equal length, with their labels.

    Args:
        csv_file: has the columns Label, a number, and Text.
        tokenizer: has tiktoken's `encode`.
        max_length: tokens of each text; longer ones are cut. None: those of the longest.
        pad_token_id: fills what is shorter.
    """

    def __init__(
        self,
        csv_file: Any,
        tokenizer: Any,
        max_length: int | None = None,
        pad_token_id: int = PADDING,
    ) -> None:
        import pandas as pd

        self.data = pd.read_csv(csv_file)
        encoded = [tokenizer.encode(text) for text in self.data["Text"]]
        self.max_length = max(map(len, encoded), default=0) if max_length is None else max_length
        self.encoded_texts = [_fitted(ids, self.max_length, pad_token_id) for ids in encoded]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.encoded_texts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the ids of a text, [max_length], and its label."""
        label = int(self.data.iloc[index]["Label"])
        return torch.tensor(self.encoded_texts[index]), torch.tensor(label)


def create_balanced_dataset(df: Any) -> Any:
    """Return all "spam" rows and an equal number of "ham" rows, drawn at random."""
    import pandas as pd

    spam, ham = df[df["Label"] == "spam"], df[df["Label"] == "ham"]
    return pd.concat([ham.sample(len(spam), random_state=_SEED), spam])


def random_split(df: Any, train_frac: float, validation_frac: float) -> tuple[Any, Any, Any]:
    """Shuffle the rows and split them into training, validation and the rest."""
    shuffled = df.sample(frac=1, random_state=_SEED).reset_index(drop=True)
    first = int(len(shuffled) * train_frac)
    second = first + int(len(shuffled) * validation_frac)
    return shuffled[:first], shuffled[first:second], shuffled[second:]


def calc_accuracy_loader(
    data_loader: Loader, model: nn.Module, device: Device, num_batches: int | None = None
) -> float:
    """Return the share of the first batches' texts labelled correctly; the model stays in
    evaluation mode. Arguments as in `calc_loss_loader`.
    """
    model.eval()
    correct = examples = 0
    count = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    for index, (input_batch, target_batch) in enumerate(data_loader):
        if index == count:
            break
        with torch.no_grad():
            labels_B = model(input_batch.to(device))[:, -1, :].argmax(dim=-1)
        correct += int((labels_B == target_batch.to(device)).sum())
        examples += len(labels_B)
    return correct / examples


def calc_loss_batch(
    input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: Device
) -> Tensor:
    """Return the mean cross entropy of labels, [B], by the logits at the last of [B, T] ids."""
    logits_BL = model(input_batch.to(device))[:, -1, :]
    return F.cross_entropy(logits_BL, target_batch.to(device))


def calc_loss_loader(
    data_loader: Loader, model: nn.Module, device: Device, num_batches: int | None = None
) -> float:
    """Return the mean of the first batches' losses; NaN without any batch.

    Args:
        data_loader: the batches.
        model: ids → logits.
        device: the model's device.
        num_batches: number to take; None: all.
    """
    return mean_loss(data_loader, num_batches, partial(calc_loss_batch, model=model, device=device))


def evaluate_model(
    model: nn.Module, train_loader: Loader, val_loader: Loader, device: Device, eval_iter: int
) -> tuple[float, float]:
    """Return training and validation loss over `eval_iter` batches each, without dropout."""
    return evaluated(model, train_loader, val_loader, device, eval_iter, calc_loss_loader)


def train_classifier_simple(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: Device,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
) -> tuple[list[float], list[float], list[float], list[float], int]:
    """Train by chapter 5's loop on labels.

    Returns:
        Training and validation losses, one of each for an evaluation; training and validation
        accuracies, one of each for an epoch; and the examples seen.
    """
    train_losses: list[float] = []
    val_losses: list[float] = []
    train_accs: list[float] = []
    val_accs: list[float] = []
    examples_seen, global_step = 0, -1
    for epoch in range(num_epochs):
        model.train()
        for input_batch, target_batch in train_loader:
            optimizer.zero_grad()
            loss = calc_loss_batch(input_batch, target_batch, model, device)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            examples_seen += len(input_batch)
            global_step += 1
            if global_step % eval_freq == 0:
                losses = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                train_losses.append(losses[0])
                val_losses.append(losses[1])
                print_losses(epoch, "Step", global_step, *losses)
        accuracies = [
            calc_accuracy_loader(loader, model, device, num_batches=eval_iter)
            for loader in (train_loader, val_loader)
        ]
        train_accs.append(accuracies[0])
        val_accs.append(accuracies[1])
        shown = [f"{100 * accuracy:.2f}%" for accuracy in accuracies]
        print(f"Training accuracy: {shown[0]} | Validation accuracy: {shown[1]}")
    return train_losses, val_losses, train_accs, val_accs, examples_seen


def plot_values(
    epochs_seen: Sequence[float] | Tensor,
    examples_seen: Iterable[float] | Tensor,
    train_values: Iterable[float],
    val_values: Iterable[float],
    label: str = "loss",
) -> None:
    """Show both curves against epochs, with the examples seen along the top (needs pyplot)."""
    plot_against_epochs(
        epochs_seen, examples_seen, train_values, val_values, label=label, top="Examples seen"
    )


def classify_review(
    text: str,
    model: Any,
    tokenizer: Any,
    device: Device,
    max_length: int | None = None,
    pad_token_id: int = PADDING,
) -> str:
    """Classify a text as "spam" or "not spam".

    Args:
        text: the text.
        model: a classifier of two labels.
        tokenizer: has tiktoken's `encode`.
        device: the model's device.
        max_length: tokens it was trained with; None: its context length.
        pad_token_id: fills what is shorter.
    """
    model.eval()
    context_length = model.pos_emb.weight.shape[0]
    length = context_length if max_length is None else min(max_length, context_length)
    ids_1T = torch.tensor([_fitted(tokenizer.encode(text), length, pad_token_id)], device=device)
    with torch.no_grad():
        label = int(model(ids_1T)[:, -1, :].argmax(dim=-1))
    return "spam" if label == 1 else "not spam"


def _fitted(ids: Sequence[int], length: int, padding: int) -> list[int]:
    """Return exactly `length` ids: cut, or padded."""
    kept = list(ids[:length])
    return kept + [padding] * (length - len(kept))
