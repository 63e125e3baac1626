"""The book's loop, as its package has it: runs in the package's own environment, without hairpin.

    python -m benchmarks.speed.run_book JOB RESULT

The flag `best` takes what the package and the book's bonus section on speed offer: GPTModelFast
(flash attention, PyTorch's own norms and GELU), fused AdamW, torch.compile.
"""

from contextlib import nullcontext

import torch
from llms_from_scratch.ch04 import GPTModel, GPTModelFast
from llms_from_scratch.ch05 import calc_loss_batch

from benchmarks.speed.job import Clock, open_job

RENAMED = {"norm1.scale": "norm1.weight", "norm1.shift": "norm1.bias", "norm2.scale":
           "norm2.weight", "norm2.shift": "norm2.bias", "final_norm.scale": "final_norm.weight",
           "final_norm.shift": "final_norm.bias", "att.out_proj": "att.proj"}  # fmt: skip


def for_fast(weights, layers):
    """GPTModel's weights under GPTModelFast's names: query, key and value are one matrix."""
    renamed = {}
    for name, tensor in weights.items():
        if any(part in name for part in ("att.W_", "att.mask")):
            continue
        for old, new in RENAMED.items():
            name = name.replace(old, new)  # noqa: PLW2901
        renamed[name] = tensor
    for layer in range(layers):
        stem = f"trf_blocks.{layer}.att."
        thirds = [weights[f"{stem}W_{name}.weight"] for name in ("query", "key", "value")]
        renamed[f"{stem}qkv.weight"] = torch.cat(thirds)
    return renamed


job = open_job()
best = job.flags.get("best", False)
device = torch.device(job.device)
model = (GPTModelFast if best else GPTModel)(
    {
        "vocab_size": job.shape["vocabulary"],
        "context_length": job.shape["context"],
        "emb_dim": job.shape["width"],
        "n_heads": job.shape["heads"],
        "n_layers": job.shape["layers"],
        "drop_rate": 0.0,
        "qkv_bias": False,
    }
)
weights = job.load_weights()
model.load_state_dict(for_fast(weights, job.shape["layers"]) if best else weights)
model.to(device)
fused = {"fused": True} if best else {}
optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, weight_decay=0.0, **fused)
if best:
    model = torch.compile(model)
model.train()
half = job.precision == "bfloat16"
clock = Clock()
for ids in job.load_ids():
    optimizer.zero_grad()
    with torch.autocast(job.device, torch.bfloat16) if half else nullcontext():
        loss = calc_loss_batch(ids[:, :-1], ids[:, 1:], model, device)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    clock.tick(loss)
clock.write(job, "llms-from-scratch")
