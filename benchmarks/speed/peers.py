"""Who is compared, and how each is asked: its packages, its script, its flags, its weights."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.weights.book_weights import to_book
from hairpin.weights.transformers_weights import HEAD, to_plain

TORCH = "torch==2.13.0"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to train: a peer as shipped or with its best flags, or hairpin.

    Args:
        name: in the table.
        peer: who trains, and whose environment that takes; "hairpin" has this one.
        network: "book" (nothing tied, no bias at query, key and value) or "gpt2".
        precision: of its matrix products, "float32" or "bfloat16".
        flags: beside those that make it the same training.
        in_quick: whether a quick run has it.
        is_same_network: whether its losses must be hairpin's.
    """

    name: str
    peer: str
    network: str
    precision: str = "float32"
    flags: Mapping[str, Any] = field(default_factory=dict)
    in_quick: bool = False
    is_same_network: bool = True

    @property
    def script(self) -> str:
        """The module that trains."""
        return f"benchmarks.speed.run_{self.peer}"

    @property
    def is_ours(self) -> bool:
        """Whether hairpin trains."""
        return self.peer == "hairpin"


FUSED = {"optim": "adamw_torch_fused"}
HALF = {"bf16": True}
COMPILED = {"torch_compile": True}
LIGHTNING_BEST = {"precision": "bf16-mixed", "fused": True, "compile": True}
# A quick run has no arm that compiles: half a minute for the first update of the smallest network.
ARMS = (
    Arm("hairpin, float32", "hairpin", "book", in_quick=True),
    Arm("hairpin, bfloat16", "hairpin", "book", "bfloat16", in_quick=True),
    Arm("the book's loop", "book", "book", in_quick=True),
    Arm("the book's fast model, fused, compiled", "book", "book", flags={"best": True}),
    Arm("the book's fast model, fused, compiled, bf16", "book", "book", "bfloat16", {"best": True}),
    Arm("hairpin, float32", "hairpin", "gpt2", in_quick=True),
    Arm("hairpin, bfloat16", "hairpin", "gpt2", "bfloat16", in_quick=True),
    Arm("transformers Trainer", "transformers", "gpt2", in_quick=True),
    Arm("transformers, fused, compiled", "transformers", "gpt2", flags=FUSED | COMPILED),
    Arm("transformers, fused, bf16", "transformers", "gpt2", "bfloat16", FUSED | HALF,
        in_quick=True),
    Arm("transformers, fused, compiled, bf16", "transformers", "gpt2", "bfloat16",
        FUSED | COMPILED | HALF),
    Arm("Lightning Trainer", "lightning", "gpt2"),
    Arm("Lightning, fused, compiled, bf16-mixed", "lightning", "gpt2", "bfloat16", LIGHTNING_BEST),
    Arm("litgpt pretrain (compiled, bf16-mixed)", "litgpt", "gpt2", "bfloat16",
        is_same_network=False),
    Arm("litgpt, fused, 32-true", "litgpt", "gpt2", "float32",
        {"precision": "32-true", "fused": True}, is_same_network=False),
    Arm("litgpt, fused, bf16-true", "litgpt", "gpt2", "bfloat16",
        {"precision": "bf16-true", "fused": True}, is_same_network=False),
)  # fmt: skip
# Whose losses are compared before anything is timed: float32, as shipped.
CHECKED = tuple(
    arm for arm in ARMS if arm.precision == "float32" and arm.is_same_network and not arm.flags
)
# One pip call each. The book's package asks for far more than its training needs.
PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "book": (
        ("numpy", "safetensors", "tiktoken", "tqdm", "matplotlib", "requests"),
        ("--no-deps", "llms-from-scratch==1.0.19"),
    ),
    "transformers": (("transformers==5.24.0", "accelerate==1.15.0", "numpy", "safetensors"),),
    "lightning": (("lightning==2.6.6", "transformers==5.24.0", "numpy", "safetensors"),),
    "litgpt": (("litgpt==0.5.13", "numpy", "safetensors"),),
}


def environment(peer: str, folder: Path) -> Path:
    """The Python of a peer's own environment, which is made at the first use."""
    if peer == "hairpin":
        return Path(sys.executable)
    python = folder / peer / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
        for packages in ((TORCH,), *PACKAGES[peer]):
            install = [str(python), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(install, check=True)
    return python


def in_turn(arms: Sequence[T], turn: int) -> list[T]:
    """The arms in the order of a turn: forwards, then backwards, so that none always comes late."""
    return list(arms) if turn % 2 == 0 else list(reversed(arms))


def shape_for(network: str, shape: Shape) -> Shape:
    """The same sizes, as the network has them: the book ties nothing."""
    if network == "gpt2":
        return shape
    return Shape(
        shape.vocabulary, shape.context, shape.layers, shape.heads, shape.width,
        tied=False, qkv_bias=False,
    )  # fmt: skip


def weights_for(arm: Arm, model: GPT) -> dict[str, Tensor]:
    """A model's weights under hairpin's names, or those of whoever published the network."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if arm.is_ours:
        return state
    if arm.network == "book":
        theirs = to_book(state, len(model.blocks))
    else:
        theirs = to_plain(state, model.shape) | {HEAD: model.head_weight.detach().clone()}
    return {name: tensor.contiguous() for name, tensor in theirs.items()}
