"""Who is compared, and how each is asked: its packages, its script, its flags, its weights."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hairpin.model.book_weights import to_book
from hairpin.model.gpt import GPT
from hairpin.model.gpt2_weights import to_gpt2
from hairpin.model.shape import Shape

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Arm:
    """One way to train: of a peer, as shipped or with its best flags, or hairpin's.

    Args:
        name: in the table.
        peer: whose environment and model it has: "book" or "transformers".
        script: that trains.
        flags: beside those that make it the same training.
    """

    name: str
    peer: str
    script: str
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether hairpin trains."""
        return self.script == "run_hairpin.py"


ARMS = (
    Arm("hairpin, the book's model", "book", "run_hairpin.py"),
    Arm("the book's loop", "book", "run_book.py"),
    Arm("hairpin, GPT-2", "transformers", "run_hairpin.py"),
    Arm("transformers Trainer", "transformers", "run_transformers.py"),
    Arm(
        "transformers Trainer, fused, compiled",
        "transformers",
        "run_transformers.py",
        {"optim": "adamw_torch_fused", "torch_compile": True},
    ),
)
# The book's package asks for far more than its training needs.
PACKAGES = {
    "book": (("--no-deps", "llms-from-scratch"), ("numpy", "safetensors", "tiktoken", "tqdm",
             "matplotlib", "requests")),
    "transformers": (("transformers",), ("accelerate", "numpy", "safetensors")),
}  # fmt: skip


def environment(peer: str, folder: Path) -> Path:
    """The Python of a peer's own environment, which is made at the first use."""
    python = folder / peer / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
        for packages in ((TORCH,), *reversed(PACKAGES[peer])):
            install = [str(python), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(install, check=True)
    return python


def shape_for(arm: Arm, shape: Shape) -> Shape:
    """The same sizes, as the peer's model has them: the book ties nothing."""
    if arm.peer == "transformers":
        return shape
    return Shape(
        shape.vocabulary, shape.context, shape.layers, shape.heads, shape.width,
        tied=False, qkv_bias=False,
    )  # fmt: skip


def weights_for(arm: Arm, model: GPT) -> dict[str, Tensor]:
    """A model's weights under the names of whoever trains it."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if arm.is_ours:
        return state
    convert = {"book": to_book, "transformers": to_gpt2}[arm.peer]
    return {n: t.contiguous() for n, t in convert(state, len(model.blocks)).items()}
