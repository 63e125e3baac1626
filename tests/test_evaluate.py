import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED, Windows
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.training.evaluate import Evaluator, Measured, TextTally, evaluating
from helpers import Ring, lively_model, random_ids

CPU = Numerics("cpu")
BYTES: npt.NDArray[np.int32] = np.arange(64, dtype=np.int32) % 5  # 0 to 4 bytes a token


def model_of(dropout: float = 0.0) -> GPT:
    return lively_model(Shape(64, 8, layers=1, heads=2, width=16, dropout=dropout))


def text_tally() -> TextTally:
    return TextTally(BYTES, "cpu")


def stream(length: int = 150) -> Ring:
    return Ring(random_ids(length, seed=8).numpy())


def measured(model: nn.Module, windows: Windows, sequences: int = 4) -> Measured:
    found = Evaluator(model, text_tally, CPU, sequences).measure(windows)
    assert found
    return found


class Uniform(nn.Module):
    """Every token is as likely as any other."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        count = (targets != IGNORED).sum()
        return count * math.log(self.vocabulary), count


def test_a_uniform_model_by_hand() -> None:
    # Targets are tokens 1 to 6 of 7: 3 + 4 + 0 + 1 + 2 + 3 = 13 bytes, at log2(64) = 6 bits each.
    found = measured(Uniform(64), Windows(Ring([2, 3, 4, 5, 6, 7, 8]), 4))
    assert found.tokens == 6
    assert found.loss == pytest.approx(math.log(64))
    assert found.perplexity == pytest.approx(64)
    assert found.bits_per_byte == pytest.approx(6 * 6 / 13)


@pytest.mark.parametrize("most_tokens", [None, 40])
def test_it_is_the_token_weighted_mean_of_a_plain_loop(most_tokens: int | None) -> None:
    model, ring = model_of(), stream()
    windows = Windows(ring, 8, most_tokens)
    nats, text_bytes, count = 0.0, 0, 0
    chosen = range(19) if most_tokens is None else [w * 19 // 5 for w in range(5)]
    for window in chosen:
        ids = ring.ids[window * 8 : window * 8 + 9]
        logits = model.logits(torch.from_numpy(ids[None, :-1])).detach()[0].double().numpy()
        for row, target in zip(logits, ids[1:], strict=True):
            nats += np.log(np.exp(row).sum()) - row[target]
            text_bytes += int(target) % 5
            count += 1
    found = measured(model, windows)
    assert found.tokens == count == (149 if most_tokens is None else 40)
    assert found.loss == pytest.approx(nats / count, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-6)


def test_any_number_of_sequences_at_once_gives_the_same() -> None:
    model = model_of()
    found = [measured(model, Windows(stream(), 8), sequences) for sequences in (1, 2, 3, 7, 19, 99)]
    for other in found[1:]:
        assert other.loss == pytest.approx(found[0].loss, rel=1e-6)
        assert other.bits_per_byte == pytest.approx(found[0].bits_per_byte, rel=1e-6)
        assert other.tokens == found[0].tokens


def test_it_draws_nothing_changes_nothing_and_leaves_the_mode() -> None:
    model = model_of(dropout=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = measured(model_of(dropout=0.0), Windows(stream(), 8))
    random_before = torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        found = measured(model, Windows(stream(), 8))
        assert model.training is training
        assert found == expected, "dropout was on"
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_comes_back_after_an_error_too() -> None:
    model = model_of().train()
    with pytest.raises(RuntimeError, match="planted"), evaluating(model):
        assert not model.training
        raise RuntimeError("planted")
    assert model.training


def test_it_is_given_up_when_asked_to_stop() -> None:
    asked = iter([False, False, True])
    model = model_of().train()
    passes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    evaluator = Evaluator(model, text_tally, CPU, 4, lambda: next(asked))
    assert evaluator.measure(Windows(stream(), 8)) is None
    assert len(passes) == 2
    assert model.training


def test_progress_is_told_in_windows() -> None:
    told: list[tuple[int, int]] = []
    evaluator = Evaluator(model_of(), text_tally, CPU, 8)
    evaluator.measure(Windows(stream(), 8), lambda done, total: told.append((done, total)))
    assert told == [(8, 19), (16, 19), (19, 19)]


def test_text_of_no_bytes_and_a_huge_loss_are_infinite_and_no_error() -> None:
    only_end_of_text = Windows(Ring([0, 5, 10, 0]), 8)
    assert measured(Uniform(64), only_end_of_text).bits_per_byte == math.inf
    assert Measured(loss=1000.0, bits_per_byte=1.0, tokens=1).perplexity == math.inf
