"""What the formats of weights cost a trained run in agreement.

    python -m benchmarks.generation.agreement RUN

On windows of the run's own validation text, token by token: the loss in each format, how often the
likeliest next token is the one of float32, and how far scores are from float32's.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import hairpin
from hairpin.data.shards import prepare
from hairpin.model.decode import Decoder
from hairpin.model.products import PRECISIONS, Precision
from hairpin.tasks.inference import Trained


def main() -> None:
    """Read the windows in every format, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--windows", type=int, default=8)
    asked = parser.parse_args()
    trained = hairpin.load(asked.run).trained(device="cpu")
    windows = validation_windows(trained, asked.windows)
    expected, loss = scores(trained, "float32", windows)
    print(f"{trained.weights}, {len(expected):,} tokens\n")
    print("| | loss, nats | more by | same choice | largest logit gap |\n|" + " --- |" * 5)
    for precision in PRECISIONS:
        found, its_loss = scores(trained, precision, windows)
        same = float((found.argmax(1) == expected.argmax(1)).float().mean())
        gap = float((found - expected).abs().max())
        print(f"| {precision} | {its_loss:.4f} | {its_loss - loss:+.5f} | {same:.2%} | {gap:.1e} |")


def validation_windows(trained: Trained, count: int) -> list[list[int]]:
    """Windows of the validation text, as far apart as can be, a target longer than the context."""
    tokens = prepare(trained.config.data, trained.tokenizer).val
    size = trained.model.shape.context + 1
    step = max(1, (len(tokens) - size) // count)
    return [tokens.read(step * number, size).tolist() for number in range(count)]


def scores(
    trained: Trained, precision: Precision, windows: list[list[int]]
) -> tuple[Tensor, float]:
    """Scores after every token, [N, V], and the mean loss."""
    decoder = Decoder(trained.model, precision)
    rows, targets = [], []
    for window in windows:
        cache = decoder.empty_cache()
        rows += [decoder.logits(token, cache).clone() for token in window[:-1]]
        targets += window[1:]
    logits = torch.stack(rows)
    return logits, float(torch.nn.functional.cross_entropy(logits, torch.tensor(targets)))


if __name__ == "__main__":
    main()
