"""The book's loop, as its package has it: runs in the package's own environment, without hairpin.

python run_book.py JOB RESULT
"""

import json
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from llms_from_scratch.ch04 import GPTModel
from llms_from_scratch.ch05 import calc_loss_batch
from safetensors.torch import load_file

START = time.time()
job = json.loads(Path(sys.argv[1]).read_text())
shape = job["shape"]
model = GPTModel(
    {
        "vocab_size": shape["vocabulary"],
        "context_length": shape["context"],
        "emb_dim": shape["width"],
        "n_heads": shape["heads"],
        "n_layers": shape["layers"],
        "drop_rate": 0.0,
        "qkv_bias": False,
    }
)
model.load_state_dict(load_file(job["weights"]))
optimizer = torch.optim.AdamW(model.parameters(), lr=job["lr"], weight_decay=0.0)
model.train()
losses, ends = [], [time.time()]
for ids in torch.from_numpy(np.load(job["ids"])):
    optimizer.zero_grad()
    loss = calc_loss_batch(ids[:, :-1], ids[:, 1:], model, torch.device("cpu"))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    losses.append(loss.item())
    ends.append(time.time())
result = {
    "losses": losses,
    "seconds": [end - begin for begin, end in pairwise(ends)],
    "start_seconds": ends[1] - job["asked_at"],
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
Path(sys.argv[2]).write_text(json.dumps(result))
