"""hairpin's parts in a training loop of your own: the order of samples, the schedule, the clipper,
the guard and the checkpoint store. Nothing else of hairpin is here.

    python examples/plain_pytorch.py book.txt --out run --updates 200
    python examples/plain_pytorch.py book.txt --out run --updates 200    # after Ctrl-C: goes on

Killed at any instant and started again, it ends in the same bits as if nothing had happened.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.settings import Guard as GuardSettings
from hairpin.data.order import SampleOrder
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import load_optimizer_tensors, optimizer_tensors, step_unless
from hairpin.schedules import cosine

CONTEXT, BATCH, EVERY = 32, 16, 20


def batch_at(data: Tensor, order: SampleOrder, position: int) -> tuple[Tensor, Tensor]:
    """The samples at positions `position` … + BATCH: bytes, and the bytes after them."""
    _, samples = order.at(position, BATCH)
    rows = torch.stack([data[s * CONTEXT : (s + 1) * CONTEXT + 1] for s in samples.tolist()])
    return rows[:, :-1], rows[:, 1:]


def train(text: Path, out: Path, updates: int, stop_after: int | None = None) -> nn.Module:
    """Train a network of bytes, from the newest checkpoint in `out` if there is one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(256, 64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    data = torch.tensor(list(text.read_bytes()))
    order = SampleOrder((len(data) - 1) // CONTEXT, seed=0)
    schedule = cosine(updates=updates, warmup=updates // 20, peak_lr=3e-3, min_lr=3e-4)
    clipper, guard = Clipper("norm", 1.0), Guard(GuardSettings(on_non_finite="skip"), "cpu")
    store, start = CheckpointStore(out / "checkpoints", keep=2), 0

    if checkpoint := store.newest(print):
        model.load_state_dict(checkpoint.tensors("model"))
        load_optimizer_tensors(model, optimizer, checkpoint.tensors("optimizer"))
        guard.load(checkpoint.tensors("guard"))
        start = checkpoint.step

    with store:
        for update in range(start, updates):
            inputs, targets = batch_at(data, order, update * BATCH)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            clipped = clipper([p.grad for p in model.parameters() if p.grad is not None])
            verdict = guard.judge(loss, clipped.norm)  # a NaN never touches the weights
            step_unless(verdict.skip, optimizer, schedule(update))
            done = update + 1
            if done % EVERY == 0 or done == updates:
                print(
                    f"{done}  loss {loss:.3f}  grad {clipped.norm:.2f}  lr {schedule(update):.1e}"
                )
                tensors = {
                    "model": model.state_dict(),
                    "optimizer": optimizer_tensors(model, optimizer),
                    "guard": guard.state_tensors(),
                }
                store.save(Snapshot(done, tensors))  # in the background
            if done == stop_after:
                break
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=200)
    arguments = parser.parse_args()
    train(arguments.text, arguments.out, arguments.updates)
