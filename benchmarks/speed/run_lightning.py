"""Lightning's Trainer with GPT2LMHeadModel: runs in its own environment, without hairpin.

    python -m benchmarks.speed.run_lightning JOB RESULT

Flags: `precision` (32-true if left out, as shipped), `fused`, `compile`.
"""

import logging
import warnings

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.gpt2 import load_gpt2
from benchmarks.speed.job import Clock, open_job

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
job = open_job()
ids = job.load_ids()
fused = job.flags.get("fused", False)


class Training(L.LightningModule):
    """GPT-2's loss and AdamW."""

    def __init__(self):
        super().__init__()
        model = load_gpt2(job)
        model.train()
        self.model = torch.compile(model) if job.flags.get("compile") else model

    def training_step(self, batch, _number):
        (rows,) = batch
        inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
        return self.model(input_ids=inputs, labels=inputs, shift_labels=targets).loss

    def configure_optimizers(self):
        options = {"fused": True} if fused else {}
        return torch.optim.AdamW(self.parameters(), lr=job.lr, weight_decay=0.0, **options)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, **options):
        # Lightning's own clipping refuses a fused optimizer under bf16-mixed; this is its hook.
        if fused:
            torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, **options)

    def on_train_batch_end(self, outputs, _batch, _number):
        clock.tick(outputs["loss"].detach())


clock = Clock()
L.Trainer(
    accelerator=job.device, devices=1, precision=job.flags.get("precision"),
    max_steps=len(ids), max_epochs=1, gradient_clip_val=None if fused else 1.0, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
).fit(Training(), DataLoader(TensorDataset(ids.flatten(0, 1)), batch_size=ids.size(1)))  # fmt: skip
clock.write(job, "lightning", "transformers")
