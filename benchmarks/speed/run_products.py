"""The products of an update and nothing else, in both precisions: the ceiling.

python -m benchmarks.speed.run_products JOB RESULT
"""

import json
import sys
from pathlib import Path

import torch

from benchmarks.speed.job import open_job
from benchmarks.speed.products import time_products
from hairpin.model.shape import Shape

job = open_job()
result = {
    str(dtype).removeprefix("torch."): time_products(
        Shape(**job.shape), job.flags["batch"], job.device, dtype
    )
    for dtype in (torch.float32, torch.bfloat16)
}
Path(sys.argv[2]).write_text(json.dumps(result))
