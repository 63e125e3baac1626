"""The transformers Trainer with GPT2LMHeadModel: runs in its own environment, without hairpin.

    python -m benchmarks.speed.run_transformers JOB RESULT

Job's `flags` are training arguments beside the ones that make it the same training.
"""

import tempfile

from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.speed.gpt2 import load_gpt2
from benchmarks.speed.job import Clock, open_job

job = open_job()
ids = job.load_ids()
# Targets of all T positions, which the model takes as `shift_labels`; `labels` asks for a loss.
rows = [
    {"input_ids": row[:-1], "labels": row[:-1], "shift_labels": row[1:]}
    for row in ids.flatten(0, 1)
]


class InOrder(Trainer):
    """Takes the rows one after the other."""

    def _get_train_sampler(self, *_args, **_options):
        return SequentialSampler(self.train_dataset)


class Ticking(TrainerCallback):
    """Reads the loss of each update."""

    def on_log(self, _args, _state, _control, logs=None, **_options):
        if logs and "loss" in logs:
            clock.tick(logs["loss"])


schedule = {"lr_scheduler_type": "constant"}
if job.recipe:
    schedule = {
        "lr_scheduler_type": "cosine_warmup_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": job.recipe["min_share"]},
        "warmup_steps": job.recipe["warmup"],
        "adam_beta2": job.recipe["beta2"],
        "weight_decay": job.recipe["weight_decay"],
    }
model = load_gpt2(job)
clock = Clock()
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=ids.size(1), max_steps=len(ids), learning_rate=job.lr,
        max_grad_norm=1.0, logging_steps=1, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=job.device == "cpu",
        remove_unused_columns=False, **schedule, **job.flags,
    )  # fmt: skip
    InOrder(model, arguments, train_dataset=rows, callbacks=[Ticking()]).train()
clock.stop(job)
if job.validation:
    trained = load_gpt2(job).eval()  # without what the Trainer has put around the other
    trained.load_state_dict(model.state_dict())
    clock.validate(job, lambda inputs: trained(input_ids=inputs).logits)
clock.write(job, "transformers", "accelerate")
