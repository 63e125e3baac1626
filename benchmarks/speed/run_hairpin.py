"""hairpin's own step, on the same job as the peers: python run_hairpin.py JOB RESULT."""

import json
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

from hairpin.allocator import keep_memory

keep_memory()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from hairpin.config.guard import Guard as GuardSettings  # noqa: E402
from hairpin.config.settings import Optimizer  # noqa: E402
from hairpin.model.gpt import GPT  # noqa: E402
from hairpin.model.shape import Shape  # noqa: E402
from hairpin.optim.gradients import Clipper  # noqa: E402
from hairpin.optim.guard import Guard  # noqa: E402
from hairpin.optim.optimizers import build_optimizer  # noqa: E402
from hairpin.training.numerics import Numerics  # noqa: E402
from hairpin.training.step import Stepper  # noqa: E402

job = json.loads(Path(sys.argv[1]).read_text())
model = GPT(Shape(**job["shape"]))
model.load_state_dict(load_file(job["weights"]))
optimizer = build_optimizer(model, Optimizer(weight_decay=0.0, beta2=0.999))
ids = torch.from_numpy(np.load(job["ids"]))
stepper = Stepper(
    model, optimizer, Clipper("norm", 1.0), Numerics("cpu", job["precision"]), seed=0,
    micro_batch=ids.size(1), guard=Guard(GuardSettings(), "cpu"),
)  # fmt: skip
losses, ends = [], [time.time()]
for update, rows in enumerate(ids):
    batch = (rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    result = stepper.step(batch, update=update, position=0, lr=job["lr"])
    losses.append(float(result.loss))
    ends.append(time.time())
facts = {
    "losses": losses,
    "seconds": [end - begin for begin, end in pairwise(ends)],
    "start_seconds": ends[1] - job["asked_at"],
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
Path(sys.argv[2]).write_text(json.dumps(facts))
