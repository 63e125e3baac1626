"""hairpin's writing, on the same job as the peer: python run_hairpin.py JOB RESULT."""

import json
import sys
import time
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hairpin.model.decode import Decoder, prepare_weights
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape

job = json.loads(Path(sys.argv[1]).read_text())
model = GPT(Shape(**job["shape"])).eval()
model.load_state_dict(load_file(job["weights"]))
precision = job["flags"]["precision"]
decoder = Decoder(prepare_weights(model) if precision == "float32" else model, precision)


def write(tokens: int) -> list[int]:
    """The likeliest text."""
    written = generate(model, job["prompt"], Sampling(temperature=0), seed=0, decoder=decoder)
    return list(islice(written, tokens))


for _ in range(2):
    write(job["warm_up_tokens"])
begin = time.perf_counter()
ids = write(job["tokens"])
facts = {"ids": ids, "seconds": time.perf_counter() - begin}
if job["text"]:
    cache = decoder.empty_cache()
    rows = [decoder.logits(token, cache).clone() for token in job["text"]]
    save_file({"logits": torch.stack(rows)}, job["logits"])
Path(sys.argv[2]).write_text(json.dumps(facts))
