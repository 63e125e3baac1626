"""Chapter 5's `train_model_simple` against appendix D's `train_model`, at equal updates.

    python -m benchmarks.book_comparison                 # the grid of docs/comparison.md
    python -m benchmarks.book_comparison --texts stdlib --arms warmup decay clip --lrs 3e-3 3e-2
    python -m benchmarks.book_comparison --report .      # trains nothing: tables and pictures

Both functions are called as they are. Results are appended to a JSONL file, and what is there
already is not trained again: an interrupted run goes on where it was. A result depends on (text,
arm, peak lr, seed, updates), the version of Python whose text it is, and PyTorch; never on what
else the machine does meanwhile.

Besides the two functions there are arms for parts of the appendix: `warmup`, `decay`, `clip`, and
any of them joined with `+`. They are `train_model_simple` with an optimizer that sets its own
learning rate, and clips, just before each step.
"""

import argparse
import contextlib
import io
import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.comparison_report import write_report
from hairpin.book import GPTModel, train_model, train_model_simple
from hairpin.config import settings
from hairpin.data.batches import IGNORED, Tokens, Windows
from hairpin.data.shards import Prepared, prepare
from hairpin.data.tokenizers import Tokenizer
from hairpin.machine.numerics import Numerics
from hairpin.system.files import write_atomically
from hairpin.training.evaluate import Evaluator, TextTally

CONTEXT, SEQUENCES, VOCABULARY = 128, 8, 4096
CONFIG: dict[str, Any] = {
    "context_length": CONTEXT,
    "emb_dim": 128,
    "n_heads": 4,
    "n_layers": 4,
    "drop_rate": 0.0,
    "qkv_bias": False,
}
VALIDATION_TOKENS = 131_072  # of the final figure; all of the text where it has fewer
EVAL_FREQ, EVAL_ITER = 25, 4  # updates between evaluations on the way, batches in each
# The appendix's call of train_model, and its share of warmup.
WARMUP, INITIAL_LR, MIN_LR, MAX_NORM, WEIGHT_DECAY = 0.2, 1e-5, 1e-5, 1.0, 0.1
BELLS = {"warmup", "decay", "clip"}
TEXTS = ("stdlib", "python-docs")
Batches = DataLoader[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Trial:
    """What one training run is a function of."""

    text: str
    arm: str
    peak_lr: float
    seed: int
    updates: int


def main() -> None:
    """Train what is missing, or report what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=TEXTS)
    parser.add_argument("--arms", nargs="+", type=_arm, default=["simple", "appendix"])
    parser.add_argument("--lrs", nargs="+", type=float, default=[4e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, … (3)")
    parser.add_argument("--updates", type=int, default=400, help="of each run, from 10 on (400)")
    parser.add_argument("--results", type=Path, default=Path("book-comparison.jsonl"))
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="draw and print, only")
    asked = parser.parse_args()
    if asked.updates < 10:
        parser.error(f"--updates {asked.updates}: there is no warmup in so few; name 10 or more")
    done = read_results(asked.results)
    if asked.report:
        rows = [row for trial, row in done.items() if trial.updates == asked.updates]
        write_report(rows, asked.report)
        return
    # What comes next is not to be written behind half a line.
    write_atomically(asked.results, _whole_lines(asked.results))
    # One thread: a sum over several would depend on how many there are.
    torch.set_num_threads(1)
    # Seeds outermost: whatever is done of the grid when it is interrupted can be compared.
    grid = itertools.product(range(asked.seeds), asked.texts, asked.lrs, asked.arms)
    trials = [Trial(text, arm, lr, seed, asked.updates) for seed, text, lr, arm in grid]
    missing = [trial for trial in trials if trial not in done]
    texts = {text: prepare_text(text) for text in asked.texts}
    for trial in track(missing, "training", console=Console(stderr=True)):
        row = asdict(trial) | run_trial(trial, texts[trial.text], CONFIG)
        with asked.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


def prepare_text(name: str) -> Prepared:
    """One of hairpin's corpora by name, in a BPE learned from its training part."""
    tokenizer = settings.Tokenizer(kind="bpe", vocabulary=VOCABULARY)
    return prepare(settings.Data.model_validate({"corpus": name}), tokenizer)


def read_results(path: Path) -> dict[Trial, dict[str, Any]]:
    """The rows by what they are a function of; a last line that was cut short is none."""
    rows = [json.loads(line) for line in _whole_lines(path).splitlines()]
    return {Trial(**{key: row[key] for key in Trial.__annotations__}): row for row in rows}


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def run_trial(trial: Trial, text: Prepared, config: Mapping[str, Any]) -> dict[str, Any]:
    """Train one model from its beginning and measure it on the validation text.

    Args:
        trial: everything that the result depends on, but for the text itself.
        text: the text of that name.
        config: the book's, without the size of the vocabulary.

    Returns:
        JSON values: `val_loss` (nats per token), `bits_per_byte`, `val_tokens`, `epochs`, and the
        series `steps`, `train_losses`, `val_losses` of the evaluations on the way. A loss that is
        not finite is None.
    """
    loader, epochs = training_batches(text.train, trial.updates, trial.seed)
    val_loader = validation_batches(text.val)
    # After all that is drawn for the data: the weights depend on the seed alone.
    torch.manual_seed(trial.seed)
    model = GPTModel({**config, "vocab_size": text.tokenizer.vocabulary})
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.peak_lr, weight_decay=WEIGHT_DECAY)
    where = (model, loader, val_loader, optimizer, "cpu", epochs)
    call = (*where, EVAL_FREQ, EVAL_ITER, "The", BookTokenizer(text.tokenizer))
    with contextlib.redirect_stdout(io.StringIO()):
        if trial.arm == "appendix":
            warmup_steps = int(WARMUP * trial.updates)
            train, val, seen, _ = train_model(*call, warmup_steps, INITIAL_LR, MIN_LR)
        else:
            if trial.arm != "simple":
                add_bells(optimizer, trial.arm.split("+"), trial.updates)
            train, val, seen = train_model_simple(*call)
    return {
        "epochs": epochs,
        **measure(model, text),
        "steps": [tokens // (SEQUENCES * CONTEXT) for tokens in seen],
        "train_losses": [_finite(loss, 3) for loss in train],
        "val_losses": [_finite(loss, 3) for loss in val],
    }


def measure(model: nn.Module, text: Prepared) -> dict[str, Any]:
    """The final figure: the loss weighted by tokens, without dropout, on much validation text."""
    windows = Windows(text.val, CONTEXT, VALIDATION_TOKENS)
    token_bytes = text.tokenizer.token_bytes()
    evaluator = Evaluator(
        Scored(model), lambda: TextTally(token_bytes, "cpu"), Numerics("cpu"), SEQUENCES
    )
    measured = evaluator.measure(windows)
    assert measured and measured.bits_per_byte is not None
    return {
        "val_loss": _finite(measured.loss),
        "bits_per_byte": _finite(measured.bits_per_byte),
        "val_tokens": measured.tokens,
    }


# --- data ---


def training_batches(tokens: Tokens, updates: int, seed: int) -> tuple[Batches, int]:
    """A loader, and the epochs that make of it exactly so many updates.

    The windows do not overlap and are drawn from all over the text: as many as the updates can
    use once, or, of a text with fewer, the same ones for a few epochs.
    """
    windows = (len(tokens) - 1) // CONTEXT
    epochs = -(-updates // (windows // SEQUENCES))
    if updates % epochs:
        raise SystemExit(f"--updates {updates} is not a multiple of the {epochs} epochs it takes")
    count = updates // epochs * SEQUENCES
    chosen = np.random.default_rng(seed).permutation(windows)[:count]
    ids = np.stack([tokens.read(int(window) * CONTEXT, CONTEXT + 1) for window in chosen])
    # A stream of its own, so that the order of the data depends on nothing else that is drawn.
    order = torch.Generator().manual_seed(seed)
    return DataLoader(_pairs(ids), SEQUENCES, shuffle=True, drop_last=True, generator=order), epochs


def validation_batches(tokens: Tokens) -> Batches:
    """The batches of the evaluations on the way, spread evenly over the validation text."""
    windows = (len(tokens) - 1) // CONTEXT
    count = min(windows, EVAL_ITER * SEQUENCES)
    starts = [index * windows // count * CONTEXT for index in range(count)]
    return DataLoader(
        _pairs(np.stack([tokens.read(start, CONTEXT + 1) for start in starts])), SEQUENCES
    )


def _pairs(ids: np.ndarray[Any, np.dtype[np.int64]]) -> TensorDataset:
    windows = torch.from_numpy(ids)
    return TensorDataset(windows[:, :-1], windows[:, 1:])


class BookTokenizer:
    """One of hairpin's tokenizers with tiktoken's `encode` and `decode`, as the book calls them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of a text; special tokens in it are ordinary text."""
        return [int(index) for index in self._tokenizer.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids."""
        return self._tokenizer.decode(ids)


# --- model ---


class Scored(nn.Module):
    """The book's model with the one entry that hairpin's evaluation wants."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T] ids each → the sum of the losses in nats, and the number of targets."""
        logits = self.model(inputs).flatten(0, 1)
        total = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, (targets != IGNORED).sum()


def add_bells(optimizer: torch.optim.Optimizer, bells: Collection[str], updates: int) -> None:
    """Let an optimizer do by itself what parts of appendix D's loop do around it.

    Without warmup the rate is at its peak for as long as warmup would have taken; without decay it
    stays there afterwards. Clipping begins where the appendix's does, after the update at the peak.

    Args:
        optimizer: with the peak rate.
        bells: some of "warmup", "decay" and "clip".
        updates: of the whole run.
    """
    peak_lr, warmup_steps = optimizer.param_groups[0]["lr"], int(WARMUP * updates)
    steps = itertools.count()

    def before_step(*_: object) -> None:
        step, lr = next(steps), peak_lr
        if step < warmup_steps:
            if "warmup" in bells:
                lr = INITIAL_LR + step * ((peak_lr - INITIAL_LR) / warmup_steps)
        elif "decay" in bells:
            progress = (step - warmup_steps) / (updates - warmup_steps)
            lr = MIN_LR + (peak_lr - MIN_LR) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = lr
            if "clip" in bells and step > warmup_steps:
                nn.utils.clip_grad_norm_(group["params"], MAX_NORM)

    optimizer.register_step_pre_hook(before_step)


def _finite(value: float, digits: int = 5) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _arm(argument: str) -> str:
    if argument not in ("simple", "appendix") and set(argument.split("+")) - BELLS:
        raise argparse.ArgumentTypeError(
            f"{argument!r} is none of simple, appendix, warmup, decay, clip, nor parts joined by +"
        )
    return argument


if __name__ == "__main__":
    main()
