"""How fast an update of the book's experiment is in the book's loop and in hairpin's.

    python -m benchmarks.book_speed

Both train appendix D's model (162M parameters, 2 × 256 tokens an update, dropout, clipping), one
update of each in turn, so that whatever else the machine does meets both. The book's: float32 and
AdamW as PyTorch makes it. hairpin's: `--recipe book` with bfloat16 products where those are faster
here, weights and moments in float32, fused AdamW.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from hairpin.book import GPT_CONFIG_124M, GPTModel, calc_loss_batch
from hairpin.config.load import build_config
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper

_SEQUENCES, _CONTEXT = 2, 256


def main() -> None:
    """Time both and print medians, ranges and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--updates", type=int, default=11, help="of each, after one to warm up")
    parser.add_argument("--precision", default="bfloat16")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    ids = torch.randint(0, GPT_CONFIG_124M["vocab_size"], (_SEQUENCES, _CONTEXT + 1))
    batch = (ids[:, :-1], ids[:, 1:])
    updates = {
        "book": _book_update(batch),
        f"hairpin, {arguments.precision}": _product_update(batch, arguments.precision),
    }
    times: dict[str, list[float]] = {name: [] for name in updates}
    for number in range(arguments.updates + 1):
        for name in list(updates)[:: 1 if number % 2 else -1]:  # neither is always first
            start = time.perf_counter()
            updates[name]()
            times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        kept = taken[1:]
        print(
            f"{name:<20} median {statistics.median(kept):.3f} s an update "
            f"({min(kept):.3f} to {max(kept):.3f}), "
            f"{_SEQUENCES * _CONTEXT / statistics.median(kept):.0f} tokens/s"
        )
    ratios = [book / ours for book, ours in zip(*(t[1:] for t in times.values()), strict=True)]
    print(
        f"book / hairpin       median {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def _book_update(batch: tuple[torch.Tensor, torch.Tensor]) -> Callable[[], None]:
    model = GPTModel(GPT_CONFIG_124M).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)

    def update() -> None:
        optimizer.zero_grad()
        calc_loss_batch(*batch, model, "cpu").backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()

    return update


def _product_update(batch: tuple[torch.Tensor, torch.Tensor], precision: str) -> Callable[[], None]:
    config = build_config(flags={"recipe": "book"})
    model = GPT(Shape.of(config.model, GPT_CONFIG_124M["vocab_size"])).train()
    stepper = Stepper(
        Spread(model),
        build_optimizer(model, config.optimizer),
        Clipper(config.clip.kind, config.clip.threshold),
        Numerics("cpu", precision),
        seed=0,
        micro_batch=_SEQUENCES,
        guard=Guard(config.guard, "cpu"),
    )

    def update() -> None:
        float(stepper.step(batch, update=0, position=0, lr=1e-3).loss)

    return update


if __name__ == "__main__":
    main()
