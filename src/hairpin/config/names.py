"""Names of settings: our flags for them, and those of other trainers with the nearest of ours.

A foreign name is refused with ours suggested: guessing would be worse, because units and meanings
differ (an "iteration" is a micro-batch in one trainer and an update in another).
"""

import difflib
from collections.abc import Iterable

# Flag → the key that it sets.
FLAGS = {
    "size": "model.size",
    "updates": "train.updates",
    "tokens": "train.tokens",
    "epochs": "train.epochs",
    "lr": "schedule.peak_lr",
    "seed": "train.seed",
    "precision": "execution.precision",
    "device": "execution.device",
    "parallel": "execution.parallel",
    "recipe": "recipe",
    "column": "data.column",
    "sources": "data.sources",
}
# Key → the flag that sets it, if any; a text is given by its path alone.
FLAG_OF = {
    **{key: f"--{name}" for name, key in FLAGS.items()},
    "data.texts": "",
    "data.corpus": "--corpus",
    "data.sources": "--source",
    "start.path": "--from",
    "track.tools": "--track",
}

FOREIGN_NAMES = {
    # nanoGPT
    "n_layer": "model.layers",
    "n_head": "model.heads",
    "n_embd": "model.width",
    "block_size": "model.context",
    "vocab_size": "tokenizer.vocabulary",
    "max_iters": "train.updates",
    "lr_decay_iters": "train.updates",
    "warmup_iters": "schedule.warmup_updates",
    "learning_rate": "schedule.peak_lr",
    "grad_clip": "clip.threshold",
    "batch_size": "train.tokens_per_update",
    "gradient_accumulation_steps": "train.tokens_per_update",
    "eval_interval": "evaluate.every_updates",
    "eval_iters": "evaluate.tokens",
    "decay_lr": "schedule.kind",
    "dtype": "execution.precision",
    "dataset": "data.texts",
    "text_field": "data.column",
    "data_mix": "data.sources",
    "out_dir": "--out",
    "init_from": "--from",
    # the book
    "n_layers": "model.layers",
    "n_heads": "model.heads",
    "emb_dim": "model.width",
    "context_length": "model.context",
    "drop_rate": "model.dropout",
    "warmup_steps": "schedule.warmup_updates",
    "n_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "eval_freq": "evaluate.every_updates",
    "eval_iter": "evaluate.tokens",
    "start_context": "evaluate.sample_prompt",
    "max_length": "model.context",
    # transformers' Trainer
    "max_steps": "train.updates",
    "num_train_epochs": "train.epochs",
    "warmup_ratio": "schedule.warmup_fraction",
    "lr_scheduler_type": "schedule.kind",
    "max_grad_norm": "clip.threshold",
    "per_device_train_batch_size": "train.tokens_per_update",
    "adam_beta1": "optimizer.beta1",
    "adam_beta2": "optimizer.beta2",
    "adam_epsilon": "optimizer.epsilon",
    "eval_steps": "evaluate.every_updates",
    "logging_steps": "metrics.jsonl, which holds every update",
    "save_steps": "checkpoint.every_updates",
    "save_total_limit": "checkpoint.keep",
    "output_dir": "--out",
    "bf16": "execution.precision",
    "fp16": "execution.precision",
    "num_hidden_layers": "model.layers",
    "num_attention_heads": "model.heads",
    "hidden_size": "model.width",
    "max_position_embeddings": "model.context",
    # litgpt, torchtitan, nanochat
    "global_batch_size": "train.tokens_per_update",
    "micro_batch_size": "execution.micro_batch",
    "device_batch_size": "execution.micro_batch",
    "total_batch_size": "train.tokens_per_update",
    "lr_warmup_steps": "schedule.warmup_updates",
    "lr_warmup_fraction": "schedule.warmup_fraction",
    "max_norm": "clip.threshold",
    "max_tokens": "train.tokens",
    "seq_len": "model.context",
    "sequence_len": "model.context",
    "num_iterations": "train.updates",
    "depth": "model.layers",
    "lr": "schedule.peak_lr",
    "max_lr": "schedule.peak_lr",
    "betas": "optimizer.beta1 and optimizer.beta2",
    "eps": "optimizer.epsilon",
    "steps": "train.updates",
    "epochs": "train.epochs",
    "seed": "train.seed",
    "device": "execution.device",
    "precision": "execution.precision",
}


def advice_for(name: str, known: Iterable[str]) -> str:
    """Return advice on the unknown key `name` (dotted), given the known keys."""
    own = FOREIGN_NAMES.get(name.rpartition(".")[2].replace("-", "_"))
    if own:
        return f"hairpin calls it {own}"
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        last = name.rpartition(".")[2]
        close = [key for key in known if key.rpartition(".")[2] == last][:1]
    return f"did you mean {close[0]}?" if close else "docs/config.md lists every key"
