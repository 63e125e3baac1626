"""GPT2LMHeadModel.generate: runs in its own environment, without hairpin.

python run_transformers.py JOB RESULT
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CompileConfig, GPT2Config, GPT2LMHeadModel

job = json.loads(Path(sys.argv[1]).read_text())
shape, flags = job["shape"], job["flags"]
config = GPT2Config(
    vocab_size=shape["vocabulary"], n_positions=shape["context"], n_embd=shape["width"],
    n_layer=shape["layers"], n_head=shape["heads"], bos_token_id=None, eos_token_id=None,
)  # fmt: skip
model = GPT2LMHeadModel(config).eval()
weights = load_file(job["weights"])
named = {k if k.startswith("lm_head") else f"transformer.{k}": v for k, v in weights.items()}
model.load_state_dict(named)
model.tie_weights()
model = model.to(getattr(torch, flags["precision"]))
model.generation_config.pad_token_id = 0
prompt = torch.tensor([job["prompt"]])
options = {}
if flags.get("compiled"):
    compile_config = CompileConfig(fullgraph=False, mode="default")
    compile_config._compile_all_devices = True  # by default not on a CPU
    options = {"cache_implementation": "static", "compile_config": compile_config}


def write(tokens):
    """The likeliest text."""
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=True,
        max_new_tokens=tokens, **options,
    )  # fmt: skip
    return out[0, prompt.size(1) :].tolist()


# What is compiled is compiled for a length of the cache.
for _ in range(2):
    write(job["tokens"] if flags.get("compiled") else job["warm_up_tokens"])
begin = time.perf_counter()
ids = write(job["tokens"])
facts = {"ids": ids, "seconds": time.perf_counter() - begin}
if job["text"]:
    with torch.no_grad():
        logits = model(torch.tensor([job["text"]])).logits[0].float()
    save_file({"logits": logits.contiguous()}, job["logits"])
Path(sys.argv[2]).write_text(json.dumps(facts))
