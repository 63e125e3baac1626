"""What every training script shares: its job, its clock, its result.

It imports nothing of hairpin, which the peers' environments have not.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Job:
    """What one process is to train.

    Args:
        shape: the sizes of the network, by hairpin's names.
        weights: a file in safetensors, under the names of whoever trains.
        ids: a file of tokens, [updates, batch, context + 1].
        lr: constant, or the peak of `recipe`.
        precision: of matrix products, "float32" or "bfloat16".
        device: "cpu" or "cuda".
        flags: beside those that make it the same training.
        asked_at: when the process was started, in seconds since 1970.
        recipe: nothing, or `warmup` in updates, after which the rate falls along a cosine to
            `min_share` of itself, and AdamW's `beta2` and `weight_decay`.
        validation: a file of `inputs` and `targets`, [windows, T] each, to be measured on at the
            end; "": on nothing.
    """

    shape: Mapping[str, Any]
    weights: str
    ids: str
    lr: float
    precision: str
    device: str
    flags: Mapping[str, Any]
    asked_at: float
    recipe: Mapping[str, Any] = field(default_factory=dict)
    validation: str = ""

    def load_weights(self) -> dict[str, Tensor]:
        """The tensors that training begins with."""
        return load_file(self.weights)

    def load_ids(self) -> Tensor:
        """Tokens, [updates, batch, context + 1]."""
        return torch.from_numpy(np.load(self.ids))


def open_job() -> Job:
    """The job in the file that the command line names first."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))


@dataclass
class Clock:
    """When each update had ended, and its loss."""

    losses: list[float] = field(default_factory=list)
    end_times: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    val_nats: float | None = None

    def tick(self, loss: Any) -> None:
        """An update has ended; reading its loss waits for the device."""
        self.losses.append(float(loss))
        self.end_times.append(time.time())

    def stop(self, job: Job) -> None:
        """Training is over: what memory is taken from here on does not count."""
        self.peak_bytes = peak_bytes(job.device)

    @torch.no_grad()
    def validate(self, job: Job, logits_of: Callable[[Tensor], Tensor]) -> None:
        """The nats of all validation targets, by a model on the CPU."""
        with np.load(job.validation) as file:
            windows = zip(file["inputs"], file["targets"], strict=True)
            nats = 0.0
            for inputs, targets in windows:
                logits = logits_of(torch.from_numpy(inputs)[None])[0].float()
                nats += float(F.cross_entropy(logits, torch.from_numpy(targets), reduction="sum"))
        self.val_nats = nats

    def write(self, job: Job, *packages: str) -> None:
        """The result, into the file that the command line names second."""
        result = {
            "losses": self.losses,
            "val_nats": self.val_nats,
            "seconds": [end - begin for begin, end in pairwise(self.end_times)],
            "start_seconds": self.end_times[0] - job.asked_at,
            "peak_bytes": self.peak_bytes or peak_bytes(job.device),
            "versions": {name: version(name) for name in (*packages, "torch")},
        }
        Path(sys.argv[2]).write_text(json.dumps(result))


def peak_bytes(device: str) -> int:
    """The most memory that this process ever held on its device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # `ru_maxrss` would count what the process held that started this one.
        lines = status.read_text().splitlines()
        peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
