"""What the book's appendix D calls, in its order and with its arguments: a script.

It runs in a folder that holds the-verdict.txt. Only its imports are hairpin's; whatever it prints
is the book's format.
"""

import math
from typing import Any

import tiktoken
import torch

from hairpin.book import (
    GPTModel,
    calc_loss_batch,
    create_dataloader_v1,
    find_highest_gradient,
    train_model,
)

GPT_CONFIG_124M: dict[str, Any] = {
    "vocab_size": 50257,
    "context_length": 256,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
device = torch.device("cpu")
torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
model.to(device)
model.eval()

with open("the-verdict.txt", encoding="utf-8") as file:  # noqa: PTH123 - as a reader writes it
    text_data = file.read()
split_idx = int(0.90 * len(text_data))
torch.manual_seed(123)
train_loader = create_dataloader_v1(
    text_data[:split_idx],
    batch_size=2,
    max_length=GPT_CONFIG_124M["context_length"],
    stride=GPT_CONFIG_124M["context_length"],
    drop_last=True,
    shuffle=True,
    num_workers=0,
)
val_loader = create_dataloader_v1(
    text_data[split_idx:],
    batch_size=2,
    max_length=GPT_CONFIG_124M["context_length"],
    stride=GPT_CONFIG_124M["context_length"],
    drop_last=False,
    shuffle=False,
    num_workers=0,
)

# D.1
n_epochs = 15
initial_lr, peak_lr = 0.0001, 0.01
total_steps = len(train_loader) * n_epochs
warmup_steps = int(0.2 * total_steps)
print(warmup_steps)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
lr_increment = (peak_lr - initial_lr) / warmup_steps
track_lrs: list[float] = []
for _ in range(n_epochs):
    for _batch in train_loader:
        optimizer.zero_grad()
        warm = len(track_lrs) < warmup_steps
        lr = initial_lr + len(track_lrs) * lr_increment if warm else peak_lr
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        track_lrs.append(optimizer.param_groups[0]["lr"])

# D.2
min_lr = 0.1 * initial_lr
track_lrs = []
for _ in range(n_epochs):
    for input_batch, target_batch in train_loader:  # noqa: B007 - the last is used below
        optimizer.zero_grad()
        if len(track_lrs) < warmup_steps:
            lr = initial_lr + len(track_lrs) * lr_increment
        else:
            progress = (len(track_lrs) - warmup_steps) / (total_steps - warmup_steps)
            lr = min_lr + (peak_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        track_lrs.append(optimizer.param_groups[0]["lr"])

# D.3
torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
model.to(device)
loss = calc_loss_batch(input_batch, target_batch, model, device)
loss.backward()  # type: ignore[no-untyped-call]
print(find_highest_gradient(model))
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
print(find_highest_gradient(model))

# D.4
torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
model.to(device)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
tokenizer = tiktoken.get_encoding("gpt2")
train_losses, val_losses, tokens_seen, lrs = train_model(
    model,
    train_loader,
    val_loader,
    optimizer,
    device,
    n_epochs=n_epochs,
    eval_freq=5,
    eval_iter=1,
    start_context="Every effort moves you",
    tokenizer=tokenizer,
    warmup_steps=warmup_steps,
    initial_lr=1e-5,
    min_lr=1e-5,
)
