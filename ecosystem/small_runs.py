"""Small runs of every architecture and tokenizer, for tests of what they are exported to."""

import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

import hairpin
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from helpers import some_text, tiny

ARCHITECTURES = ("gpt2", "modern", "qwen3")
TOKENIZERS = ("bytes", "bpe", "gpt2")
# Other letters, white space, digits, joined emoji.
STRANGE = "It's 12,345  cats'll\n\n\tsee  été — 猫と犬 🐈‍⬛ ﬁn \u00a0x\u2003y don't  \n"


@cache
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="hairpin-exports-"))
    (folder / "text.txt").write_text(some_text(20_000) + STRANGE * 3, encoding="utf-8")
    return folder


def small_run(architecture: str, tokenizer: str = "bytes", **changes: Any) -> Run:
    """A model of two layers that has learned a little; the same every time it is asked for.

    Args:
        architecture: also the recipe's name.
        tokenizer: "bytes", "bpe" or "gpt2".
        changes: settings, by dotted key.
    """
    return _trained(architecture, tokenizer, tuple(sorted(changes.items())))


@cache
def _trained(architecture: str, tokenizer: str, changes: tuple[tuple[str, Any], ...]) -> Run:
    if tokenizer == "gpt2" and not _has_gpt2_vocabulary():
        pytest.skip("no GPT-2 vocabulary: set HAIRPIN_TEST_DATA to a folder with tiktoken-cache/")
    settings = tiny(
        recipe=architecture,
        tokenizer__kind=tokenizer,
        model__layers=2,
        model__width=32,
        model__context=64,
        train__updates=24,
        train__tokens_per_update=512,
        evaluate__every_updates=12,
        evaluate__sample_tokens=0,
        execution__micro_batch=8,
    )
    if tokenizer == "bpe":
        settings["tokenizer.vocabulary"] = 400
    settings |= dict(changes)
    folder = _folder()
    name = "-".join([architecture, tokenizer, *(f"{key}-{value}" for key, value in changes)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIRPIN_CACHE", str(folder / "cache"))
        patch.setattr(Run, "write_plots", lambda self: [])
        return hairpin.train(
            folder / "text.txt", out=folder / name, settings=settings, watcher=Quiet()
        )


def _has_gpt2_vocabulary() -> bool:
    data = os.environ.get("HAIRPIN_TEST_DATA")
    if data:
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(data) / "tiktoken-cache"))
    return Path(os.environ.get("TIKTOKEN_CACHE_DIR", "/nowhere")).is_dir()
