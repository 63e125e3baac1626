"""The transformers Trainer with GPT2LMHeadModel: runs in its own environment, without hairpin.

    python run_transformers.py JOB RESULT

Job's `flags` are training arguments beside the ones that make it the same training.
"""

import json
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

job = json.loads(Path(sys.argv[1]).read_text())
shape = job["shape"]
ids = torch.from_numpy(np.load(job["ids"]))
batch = ids.size(1)
# The model shifts labels itself, so it is given T tokens more by one and sees all but the last.
rows = [
    {"input_ids": row[:-1], "labels": row[:-1], "shift_labels": row[1:]}
    for row in ids.flatten(0, 1)
]


class InOrder(Trainer):
    """Takes the rows one after the other."""

    def _get_train_sampler(self, *_args, **_options):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(input_ids=inputs["input_ids"]).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), inputs["shift_labels"].flatten()
        )


class Clock(TrainerCallback):
    """When each update ended, and its loss."""

    def __init__(self) -> None:
        self.ends, self.losses = [], []

    def on_train_begin(self, *_args, **_options):
        self.ends.append(time.time())

    def on_step_end(self, *_args, **_options):
        self.ends.append(time.time())

    def on_log(self, _args, _state, _control, logs=None, **_options):
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


config = GPT2Config(
    vocab_size=shape["vocabulary"], n_positions=shape["context"], n_embd=shape["width"],
    n_layer=shape["layers"], n_head=shape["heads"], resid_pdrop=0.0, embd_pdrop=0.0,
    attn_pdrop=0.0, use_cache=False,
)  # fmt: skip
model = GPT2LMHeadModel(config)
weights = load_file(job["weights"])
named = {k if k.startswith("lm_head") else f"transformer.{k}": v for k, v in weights.items()}
model.load_state_dict(named)
model.tie_weights()
clock = Clock()
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=batch, max_steps=len(ids), learning_rate=job["lr"],
        lr_scheduler_type="constant", max_grad_norm=1.0, logging_steps=1, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
        **job["flags"],
    )  # fmt: skip
    InOrder(model=model, args=arguments, train_dataset=rows, callbacks=[clock]).train()
result = {
    "losses": clock.losses,
    "seconds": [end - begin for begin, end in pairwise(clock.ends)],
    "start_seconds": clock.ends[1] - job["asked_at"],
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
Path(sys.argv[2]).write_text(json.dumps(result))
