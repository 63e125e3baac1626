"""hairpin's parts in Lightning: the order of samples as a sampler, the schedule as a scheduler, the
clipper in place of `gradient_clip_val`, the guard around the step, the store as checkpoints.

    python examples/lightning_loop.py book.txt --out run --updates 200

Stopped and started again, it ends in the same bits as if nothing had happened.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

import hairpin
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.settings import Guard as GuardSettings
from hairpin.data.order import SampleOrder
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import load_optimizer_tensors, optimizer_tensors

CONTEXT, BATCH, EVERY = 32, 16, 20


class Positions(Sampler[int]):
    """The samples at positions `start` … `end`, in hairpin's order."""

    def __init__(self, order: SampleOrder, start: int, end: int) -> None:
        self.order, self.start, self.end = order, start, end

    def __iter__(self) -> Iterator[int]:
        yield from self.order.at(self.start, self.end - self.start)[1].tolist()

    def __len__(self) -> int:
        return self.end - self.start


class Bytes(L.LightningModule):
    """A network of bytes."""

    def __init__(self, updates: int, store: CheckpointStore) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Embedding(256, 64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 256)
        )
        self.schedule = hairpin.schedules.cosine(
            updates=updates, warmup=updates // 20, peak_lr=3e-3, min_lr=3e-4
        )
        self.clipper = Clipper("norm", 1.0)
        self.guard = Guard(GuardSettings(on_non_finite="skip"), "cpu")
        self.store = store
        self.checkpoint = store.newest(print)
        self.done = self.checkpoint.step if self.checkpoint else 0
        self.lrs: list[float] = []  # of each update, for whoever asks

    def configure_optimizers(self) -> Any:
        """AdamW, and hairpin's schedule in Lightning's way; both as the checkpoint has them."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-3)
        scheduler = hairpin.ScheduleLR(optimizer, self.schedule)
        if self.checkpoint:
            self.net.load_state_dict(self.checkpoint.tensors("model"))
            load_optimizer_tensors(self.net, optimizer, self.checkpoint.tensors("optimizer"))
            self.guard.load(self.checkpoint.tensors("guard"))
            scheduler.load_state_dict(self.checkpoint.values()["scheduler"])
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The mean cross entropy of the next byte."""
        (rows,) = batch
        self.loss = F.cross_entropy(self.net(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        return self.loss

    def optimizer_step(
        self, epoch: int, index: int, optimizer: Any, closure: Callable[[], Any] | None = None
    ) -> None:
        """Loss and gradients, then clipping and the guard, which may call the update off."""
        assert closure
        closure()
        clipped = self.clipper([p.grad for p in self.net.parameters() if p.grad is not None])
        self.lrs.append(optimizer.param_groups[0]["lr"])
        if not self.guard.judge(self.loss, clipped.norm).skip:
            optimizer.step()

    def on_train_batch_end(self, *_: Any) -> None:
        """Save now and then, in the background; Lightning has stepped the scheduler by now."""
        self.done += 1
        if self.done % EVERY == 0 or self.done == self.schedule.updates:
            optimizer = self.optimizers(use_pl_optimizer=False)
            tensors = {
                "model": self.net.state_dict(),
                "optimizer": optimizer_tensors(self.net, optimizer),
                "guard": self.guard.state_tensors(),
            }
            scheduler = self.lr_schedulers().state_dict()
            self.store.save(Snapshot(self.done, tensors, {"scheduler": scheduler}))


def train(text: Path, out: Path, updates: int, stop_after: int | None = None) -> Bytes:
    """Train, from the newest checkpoint in `out` if there is one."""
    L.seed_everything(0, verbose=False)
    data = torch.tensor(list(text.read_bytes()))
    rows = data[: (len(data) - 1) // CONTEXT * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT)
    order = SampleOrder(len(rows), seed=0)
    with CheckpointStore(out / "checkpoints", keep=2) as store:
        model = Bytes(updates, store)
        sampler = Positions(order, model.done * BATCH, (stop_after or updates) * BATCH)
        trainer = L.Trainer(
            max_steps=(stop_after or updates) - model.done,
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, DataLoader(TensorDataset(rows), BATCH, sampler=sampler))
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=200)
    arguments = parser.parse_args()
    train(arguments.text, arguments.out, arguments.updates)
