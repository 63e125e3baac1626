"""The book's training functions: chapter 5's, and appendix D's with warmup, decay and clipping.

They are the appendix's, edge cases included, and the product does not use them: hairpin's own loop
differs in what is awkward here (nothing clipped during warmup, in print not in the first step at
the peak either, a last rate short of the minimum, evaluations that draw from training's random
stream).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.book.data import text_to_token_ids, token_ids_to_text
from hairpin.book.model import generate_text_simple

Device = torch.device | str
SAMPLE_TOKENS = 50


class Loader(Protocol):
    """Batches of (inputs, targets), with their number."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Any: ...


def calc_loss_batch(
    input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: Device
) -> Tensor:
    """Return the mean cross entropy of a batch, [B, T] ids each, in nats per token."""
    logits_BTV = model(input_batch.to(device))
    return F.cross_entropy(logits_BTV.flatten(0, 1), target_batch.to(device).flatten())


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


def mean_loss(
    data_loader: Loader, num_batches: int | None, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """Return the mean loss of the first batches, or of all; NaN without any."""
    if len(data_loader) == 0:
        return math.nan
    count = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    total = 0.0
    for index, (input_batch, target_batch) in enumerate(data_loader):
        if index == count:
            break
        total += loss_of(input_batch, target_batch).item()
    return total / count


def evaluate_model(
    model: nn.Module, train_loader: Loader, val_loader: Loader, device: Device, eval_iter: int
) -> tuple[float, float]:
    """Return training and validation loss over `eval_iter` batches each, without dropout."""
    return evaluated(model, train_loader, val_loader, device, eval_iter, calc_loss_loader)


def evaluated(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    device: Device,
    eval_iter: int,
    loss_of: Callable[[Loader, nn.Module, Device, int], float],
) -> tuple[float, float]:
    """Return both losses without dropout; the model is back in training mode afterwards."""
    model.eval()
    with torch.no_grad():
        losses = [
            loss_of(loader, model, device, eval_iter) for loader in (train_loader, val_loader)
        ]
    model.train()
    return losses[0], losses[1]


def generate_and_print_sample(
    model: Any, tokenizer: Any, device: Device, start_context: str
) -> None:
    """Print the model's continuation of `start_context`, in one line."""
    model.eval()
    idx = generate_text_simple(
        model=model,
        idx=text_to_token_ids(start_context, tokenizer).to(device),
        max_new_tokens=SAMPLE_TOKENS,
        context_size=model.pos_emb.weight.shape[0],
    )
    print(token_ids_to_text(idx, tokenizer).replace("\n", " "))
    model.train()


def find_highest_gradient(model: nn.Module) -> Tensor | None:
    """Return the largest signed entry of all gradients; None without any."""
    largest = [p.grad.max() for p in model.parameters() if p.grad is not None]
    return torch.stack(largest).max() if largest else None


def train_model_simple(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: Device,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Any,
) -> tuple[list[float], list[float], list[int]]:
    """Train by chapter 5's loop, with only the optimizer's own constant learning rate.

    Returns:
        Training losses, validation losses and tokens seen, one for each evaluation.
    """
    train_losses, val_losses, track_tokens_seen = [], [], []
    tokens_seen, global_step = 0, -1
    for epoch in range(num_epochs):
        model.train()
        for input_batch, target_batch in train_loader:
            optimizer.zero_grad()
            loss = calc_loss_batch(input_batch, target_batch, model, device)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tokens_seen += input_batch.numel()
            global_step += 1
            if global_step % eval_freq == 0:
                losses = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                train_losses.append(losses[0])
                val_losses.append(losses[1])
                track_tokens_seen.append(tokens_seen)
                print_losses(epoch, "Step", global_step, *losses)
        generate_and_print_sample(model, tokenizer, device, start_context)
    return train_losses, val_losses, track_tokens_seen


def train_model(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: Device,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Any,
    warmup_steps: int,
    initial_lr: float = 3e-05,
    min_lr: float = 1e-6,
    orig_book_version: bool = True,
) -> tuple[list[float], list[float], list[int], list[float]]:
    """Train by appendix D's loop: linear warmup, cosine decay, clipping to norm 1 after warmup.

    The peak learning rate is the optimizer's initial one. In the printed listing the
    first step after the warmup, which is at the peak, is not clipped either; without
    `orig_book_version` it is. The book's repository defaults to False: here the default
    reproduces the printed figures.

    Returns:
        Training losses, validation losses and tokens seen, one for each evaluation, and the
        learning rate of every step.
    """
    train_losses, val_losses, track_tokens_seen, track_lrs = [], [], [], []
    tokens_seen, global_step = 0, -1
    peak_lr = optimizer.param_groups[0]["lr"]
    total_training_steps = len(train_loader) * n_epochs
    lr_increment = (peak_lr - initial_lr) / warmup_steps
    for epoch in range(n_epochs):
        model.train()
        for input_batch, target_batch in train_loader:
            optimizer.zero_grad()
            global_step += 1
            if global_step < warmup_steps:
                lr = initial_lr + global_step * lr_increment
            else:
                progress = (global_step - warmup_steps) / (total_training_steps - warmup_steps)
                lr = min_lr + (peak_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
            for param_group in optimizer.param_groups:
                param_group["lr"] = lr
            track_lrs.append(lr)
            loss = calc_loss_batch(input_batch, target_batch, model, device)
            loss.backward()  # type: ignore[no-untyped-call]
            first_clipped = warmup_steps + 1 if orig_book_version else warmup_steps
            if global_step >= first_clipped:
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            tokens_seen += input_batch.numel()
            if global_step % eval_freq == 0:
                losses = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                train_losses.append(losses[0])
                val_losses.append(losses[1])
                track_tokens_seen.append(tokens_seen)
                print_losses(epoch, "Iter", global_step, *losses)
        generate_and_print_sample(model, tokenizer, device, start_context)
    return train_losses, val_losses, track_tokens_seen, track_lrs


def plot_losses(
    epochs_seen: Sequence[float] | Tensor,
    tokens_seen: Iterable[float] | Tensor,
    train_losses: Iterable[float],
    val_losses: Iterable[float],
) -> None:
    """Show both losses against epochs, with the tokens seen along the top (needs pyplot)."""
    plot_against_epochs(
        epochs_seen, tokens_seen, train_losses, val_losses, label="loss", top="Tokens seen"
    )


def plot_against_epochs(
    epochs_seen: Sequence[float] | Tensor,
    seen: Iterable[float] | Tensor,
    train_values: Iterable[float],
    val_values: Iterable[float],
    *,
    label: str,
    top: str,
) -> None:
    """Show two curves against whole epochs, with the amount seen along the top.

    Args:
        epochs_seen, seen: the amounts seen at each value.
        train_values, val_values: of training and validation.
        label: label of the values.
        top: label of `seen`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    _, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    train = list(train_values)
    axes.plot(epochs_seen, train, label=f"Training {label}")
    axes.plot(epochs_seen, list(val_values), linestyle="-.", label=f"Validation {label}")
    axes.set(xlabel="Epochs", ylabel=label.capitalize())
    axes.legend(loc="upper right")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    above = axes.twiny()
    above.plot(list(seen), train, alpha=0)  # only its axis is needed
    above.set_xlabel(top)
    plt.show()


def print_losses(epoch: int, counter: str, step: int, train_loss: float, val_loss: float) -> None:
    """Print an evaluation as the book does; `counter` is its name for a step there."""
    losses = f"Train loss {train_loss:.3f}, Val loss {val_loss:.3f}"
    print(f"Ep {epoch + 1} ({counter} {step:06d}): {losses}")
