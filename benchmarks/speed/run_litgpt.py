"""`litgpt pretrain`'s loop: runs in its own environment, without hairpin.

    python -m benchmarks.speed.run_litgpt JOB RESULT

Its steps are those of `litgpt/pretrain.py` 0.5.13, without checkpoints and logs: Lightning Fabric,
torch.compile also on a CPU, AdamW that is fused on a GPU only, cross entropy in chunks. litgpt has
no learned positions, so this is not GPT-2: its positions are rotary, on a quarter of each head, as
Pythia's; all else is the same, and so are the weights. Flags: `precision` (litgpt's default if left
out, bf16-mixed), `fused` (which its command line cannot ask for on a CPU), `eager` (not compiled).
"""

import lightning as L
import torch
from litgpt.model import GPT, Config
from litgpt.pretrain import get_lr, initialize_weights
from litgpt.utils import (
    chunked_cross_entropy,
    get_default_supported_precision,
    instantiate_torch_optimizer,
)

from benchmarks.speed.job import Clock, open_job

RENAMED = {".ln_1.": ".norm_1.", ".ln_2.": ".norm_2.", ".c_attn.": ".qkv.", ".c_proj.": ".proj.",
           ".c_fc.": ".fc."}  # fmt: skip


def for_litgpt(weights):
    """GPT-2's weights under litgpt's names, matrices as [out, in]; positions are left out."""
    renamed = {}
    for name, tensor in weights.items():
        if name == "wpe.weight":
            continue
        turned = tensor.t() if ".c_" in name and name.endswith("weight") else tensor
        for old, new in RENAMED.items():
            name = name.replace(old, new)  # noqa: PLW2901
        renamed[name if name == "lm_head.weight" else f"transformer.{name}"] = turned
    return renamed


job = open_job()
shape = job.shape
fabric = L.Fabric(
    accelerator=job.device, devices=1, strategy="auto",
    precision=job.flags.get("precision") or get_default_supported_precision(training=True),
)  # fmt: skip
fabric.launch()
config = Config(
    block_size=shape["context"], n_layer=shape["layers"], n_embd=shape["width"],
    n_head=shape["heads"], vocab_size=shape["vocabulary"], padded_vocab_size=shape["vocabulary"],
    parallel_residual=False, rotary_percentage=0.25, gelu_approximate="tanh", bias=True,
)  # fmt: skip
with fabric.init_module(empty_init=True):
    model = GPT(config)
initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
model.load_state_dict(for_litgpt(job.load_weights()))
model.transformer.wte.weight = model.lm_head.weight  # its --train.tie_embeddings
network = model
if not job.flags.get("eager"):
    model = torch.compile(model)
model = fabric.setup(model)
recipe = job.recipe
options = {"lr": job.lr, "weight_decay": recipe.get("weight_decay", 0.0)}
options["betas"] = (0.9, recipe.get("beta2", 0.999))
settings = {"class_path": "torch.optim.AdamW", "init_args": options}
fused = job.flags.get("fused", fabric.device.type == "cuda")
optimizer = instantiate_torch_optimizer(settings, model.parameters(), fused=fused)
optimizer = fabric.setup_optimizers(optimizer)
clock = Clock()
ids = job.load_ids()
for update, rows in enumerate(ids):
    if recipe:
        lr = get_lr(job.lr, update + 1, recipe["warmup"], len(ids), job.lr * recipe["min_share"])
        for group in optimizer.param_groups:
            group["lr"] = lr
    rows = rows.to(fabric.device)  # noqa: PLW2901
    inputs, targets = rows[:, :-1].contiguous().long(), rows[:, 1:].contiguous().long()
    with fabric.no_backward_sync(model, enabled=False):
        logits = model(inputs)
        loss = chunked_cross_entropy(logits, targets)
        fabric.backward(loss)
    fabric.clip_gradients(model, optimizer, max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad()
    clock.tick(loss.detach())
clock.stop(job)
if job.validation:
    clock.validate(job, network.cpu().float().eval())
clock.write(job, "litgpt", "lightning")
