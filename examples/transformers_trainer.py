"""hairpin's schedule, order of samples and clipper in the Trainer of transformers, which saves and
resumes by itself.

    python examples/transformers_trainer.py book.txt --out run --updates 200

Its own `lr_scheduler_type` has no curve that ends exactly at a minimum in the last update, or that
begins above zero; `optimizers=(optimizer, scheduler)` takes any.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import hairpin
from hairpin.data.order import SampleOrder
from hairpin.optim.gradients import Clipper

CONTEXT, BATCH, EVERY = 32, 8, 10


class Windows(Dataset[dict[str, torch.Tensor]]):
    """A text's bytes in windows, at each position of training the one that hairpin's order says."""

    def __init__(self, text: Path, positions: int) -> None:
        self.data = torch.tensor(list(text.read_bytes()))
        order = SampleOrder(len(self.data) // CONTEXT, seed=0)
        self.samples = order.at(0, positions)[1].tolist()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        start = self.samples[position] * CONTEXT
        ids = self.data[start : start + CONTEXT]
        return {"input_ids": ids, "labels": ids}


class InOrder(Trainer):
    """A Trainer that takes the samples as they come."""

    def _get_train_sampler(self, *_: Any) -> Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


class Clip(TrainerCallback):
    """hairpin's clipper before each update, which says what it did; and each update's rate."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.clipper = Clipper("norm", 1.0)
        self.norms: list[float] = []
        self.lrs: list[float] = []

    def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:
        """After accumulation, before the step."""
        parameters = given["model"].parameters()
        self.norms.append(
            float(self.clipper([p.grad for p in parameters if p.grad is not None]).norm)
        )
        self.lrs.append(self.optimizer.param_groups[0]["lr"])


def train(text: Path, out: Path, updates: int, stop_after: int | None = None) -> Any:
    """Train a small GPT-2 of bytes, from the newest checkpoint in `out` if there is one."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    schedule = hairpin.schedules.cosine(
        updates=updates, warmup=updates // 20, peak_lr=3e-3, min_lr=3e-4
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    clip = Clip(optimizer)
    trainer = InOrder(
        model,
        TrainingArguments(
            output_dir=str(out),
            max_steps=stop_after or updates,
            per_device_train_batch_size=BATCH,
            max_grad_norm=0.0,  # the clipper does it
            save_steps=EVERY,
            logging_steps=EVERY,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Windows(text, updates * BATCH),
        optimizers=(optimizer, hairpin.ScheduleLR(optimizer, schedule)),
        callbacks=[clip],
    )
    there = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    trainer.train(resume_from_checkpoint=str(there[-1]) if there else None)
    return model, clip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=200)
    arguments = parser.parse_args()
    train(arguments.text, arguments.out, arguments.updates)
