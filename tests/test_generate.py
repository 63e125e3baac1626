import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from hairpin.errors import ConfigError, NonFiniteError
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from helpers import lively_model, random_ids

GREEDY = Sampling(temperature=0)


def model_of(context: int = 8, dropout: float = 0.0) -> GPT:
    return lively_model(Shape(64, context, layers=2, heads=2, width=16, dropout=dropout))


def written(
    model: GPT, prompt: list[int], sampling: Sampling, count: int = 40, *, cached: bool = True
) -> list[int]:
    return list(itertools.islice(generate(model, prompt, sampling, seed=7, cached=cached), count))


def visible(tokens: list[int], context: int) -> list[int]:
    """What the model sees: half of a full window is forgotten at once."""
    while len(tokens) > context:
        tokens = tokens[max(1, context // 2) :]
    return tokens


@pytest.mark.parametrize("context", [2, 3, 8, 9])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 13, 30])
def test_greedy_text_is_the_argmax_of_the_plain_logits(context: int, length: int) -> None:
    model = model_of(context)
    prompt = random_ids(length, seed=length).tolist()
    expected = list(prompt)
    for _ in range(25):
        logits = model.logits(torch.tensor([visible(expected, context)]))[0, -1]
        expected.append(int(logits.argmax()))
    assert written(model, prompt, GREEDY, 25) == expected[length:]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.8, 5), Sampling(1.3, 0, 0.9)])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 21])
def test_with_and_without_the_cache_the_tokens_are_the_same(
    sampling: Sampling, length: int
) -> None:
    model = model_of()
    prompt = random_ids(length, seed=100 + length).tolist()
    cached = written(model, prompt, sampling)
    assert cached == written(model, prompt, sampling, cached=False)
    assert len(set(cached)) > 3, "nearly one token: shows nothing"


def test_the_cache_saves_work() -> None:
    model = model_of(context=16)
    seen: list[int] = []
    model.token_embedding.register_forward_hook(lambda _, ids, __: seen.append(ids[0].size(1)))
    written(model, [1, 2, 3], GREEDY, 22)
    # 3 at once, and up to 16 one by one; a new window of 16 - 8 + 1; again one by one.
    assert seen == [3, 9], "what is one by one is the decoder's"


def test_drawing_from_one_candidate_is_greedy() -> None:
    model = model_of()
    greedy = written(model, [5], GREEDY)
    assert written(model, [5], Sampling(temperature=5.0, top_k=1)) == greedy
    assert written(model, [5], Sampling(temperature=0.9, top_k=0, top_p=1e-6)) == greedy


def test_the_seed_decides_the_text_and_no_other_stream_moves() -> None:
    model, sampling = model_of(), Sampling(1.0, 0)
    first = list(itertools.islice(generate(model, [5], sampling, seed=1), 30))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = list(itertools.islice(generate(model, [5], sampling, seed=1), 30))
    other = list(itertools.islice(generate(model, [5], sampling, seed=2), 30))
    assert again == first != other
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_in_training_writes_without_dropout_and_stays_in_training() -> None:
    plain, dropping = model_of(), model_of(dropout=0.9)
    dropping.train()
    modes = []
    tokens = []
    for token in itertools.islice(generate(dropping, [5], GREEDY, seed=0), 20):
        tokens.append(token)
        modes.append(dropping.training)
    assert tokens == written(plain, [5], GREEDY, 20)
    assert modes == [True] * 20
    dropping.eval()
    written(dropping, [5], GREEDY, 2)
    assert not dropping.training


def test_writing_leaves_no_gradient_and_no_change() -> None:
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    written(model, [5], GREEDY, 12)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        next(generate(model_of(), [], GREEDY, seed=0))


# --- drawing one token ---

LOGITS = np.array([1.5, 0.2, -1.0, 2.0, 0.0, -0.3])
DRAWS = 6000
# Chi-square beyond which a fair draw falls once in ten thousand, by degrees of freedom.
CRITICAL = {1: 15.1, 2: 18.4, 3: 21.1, 5: 25.7}


def frequencies(sampling: Sampling) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    generator = torch.Generator().manual_seed(11)
    logits = torch.tensor(LOGITS, dtype=torch.float32)
    drawn = [sampling.draw(logits.clone(), generator) for _ in range(DRAWS)]
    return np.bincount(drawn, minlength=len(LOGITS))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1.0, 0), [0, 1, 2, 3, 4, 5]),
        (Sampling(0.5, 0), [0, 1, 2, 3, 4, 5]),
        (Sampling(2.0, 100), [0, 1, 2, 3, 4, 5]),
        (Sampling(1.0, 3), [0, 1, 3]),
        (Sampling(0.7, 2), [0, 3]),
        # At temperature 1 the probabilities are .47 (3), .29 (0), .08 (1), .06 (4), .05, .02.
        (Sampling(1.0, 0, 0.70), [0, 3]),
        (Sampling(1.0, 0, 0.80), [0, 1, 3]),
        (Sampling(1.0, 0, 0.90), [0, 1, 3, 4]),
    ],
)
def test_tokens_are_drawn_as_often_as_the_softmax_says(sampling: Sampling, kept: list[int]) -> None:
    powers = np.exp(LOGITS[kept] / sampling.temperature)
    expected = DRAWS * powers / powers.sum()
    counts = frequencies(sampling)
    assert counts[kept].sum() == DRAWS, "a token was drawn that should be out"
    chi_square = float((((counts[kept] - expected) ** 2) / expected).sum())
    assert chi_square < CRITICAL[len(kept) - 1]


def test_top_p_counts_probabilities_at_the_temperature() -> None:
    # At temperature 0.2 token 3 alone has more than 0.9.
    assert frequencies(Sampling(0.2, 0, 0.9))[3] == DRAWS


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-45, 1e-38, 1e-30, np.float32(1e-9)])
def test_the_lowest_temperatures_take_the_likeliest_token(temperature: float) -> None:
    assert frequencies(Sampling(temperature, 0))[3] == DRAWS
    # Of two that tie either may be drawn.
    logits = torch.tensor([1.0, 3.0, 3.0, -2.0])
    seeded = (torch.Generator().manual_seed(seed) for seed in range(30))
    assert {Sampling(temperature, 3).draw(logits, generator) for generator in seeded} == {1, 2}


@pytest.mark.parametrize("temperature", [1e6, 1e38, 1e39, 1e300, 1.7e308])
def test_the_highest_temperatures_draw_all_tokens_alike(temperature: float) -> None:
    counts = frequencies(Sampling(temperature, 0))
    expected = DRAWS / len(LOGITS)
    assert float(((counts - expected) ** 2 / expected).sum()) < CRITICAL[len(LOGITS) - 1]


@pytest.mark.parametrize("top_p", [5e-324, 1e-50, 1e-12])
def test_the_smallest_top_p_keeps_the_likeliest_token(top_p: float) -> None:
    assert frequencies(Sampling(1.0, 0, top_p))[3] == DRAWS


@pytest.mark.parametrize("temperature", [1e-3, 0.2, 0.8, 1.0, 3.7, 100.0])
def test_usual_temperatures_draw_the_token_that_float32_draws(temperature: float) -> None:
    logits = random_ids(50, below=1000, seed=3).float() / 100
    for seed in range(20):
        plain = torch.softmax(logits / temperature, dim=-1)
        drawn = torch.multinomial(plain, 1, generator=torch.Generator().manual_seed(seed))
        sampling = Sampling(temperature, 0)
        assert sampling.draw(logits, torch.Generator().manual_seed(seed)) == int(drawn)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"temperature": -0.1}, "temperature: -0.1 is not 0 or more; 0 always takes the"),
        ({"temperature": math.nan}, "temperature: nan is not 0 or more"),
        ({"temperature": math.inf}, "temperature: inf is not 0 or more"),
        ({"temperature": "0.5"}, "temperature: 0.5 is not 0 or more"),
        ({"temperature": None}, "temperature: None is not 0 or more"),
        ({"top_k": -1}, "top-k: -1 is not a whole number, 0 or more; 0 draws from all tokens"),
        ({"top_k": 2.5}, "top-k: 2.5 is not a whole number, 0 or more"),
        ({"top_p": 0}, "top-p: 0 is not above 0 and at most 1; 1 draws from all tokens"),
        ({"top_p": 1.01}, "top-p: 1.01 is not above 0 and at most 1"),
        ({"top_p": -math.inf}, "top-p: -inf is not above 0 and at most 1"),
        ({"top_p": math.nan}, "top-p: nan is not above 0 and at most 1"),
    ],
)
def test_what_no_token_can_be_drawn_with_is_refused(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Sampling(**values)
    (found,) = raised.value.problems
    assert found.startswith(line)


def test_all_that_is_wrong_with_sampling_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        Sampling(-1, -1, 2)
    assert [line.split(":")[0] for line in raised.value.problems] == [
        "temperature",
        "top-k",
        "top-p",
    ]


def test_numbers_of_numpy_are_numbers() -> None:
    values: dict[str, Any] = {"temperature": np.float32(0.7), "top_k": np.int64(2)}
    sampling = Sampling(**values, top_p=np.float64(0.9))
    logits = torch.tensor(LOGITS, dtype=torch.float32)
    assert sampling.draw(logits, torch.Generator().manual_seed(0)) in (0, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_told(bad: float) -> None:
    with pytest.raises(NonFiniteError, match="scores for the next token are not finite"):
        Sampling(1.0, 0).draw(torch.tensor([1.0, bad, 2.0]), torch.Generator())
    # A network of a plugin's may rule a token out.
    ruled_out = torch.tensor([1.0, -math.inf])
    assert Sampling(1.0, 0).draw(ruled_out, torch.Generator()) == 0


def test_the_scores_are_left_alone() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float32)
    before = logits.clone()
    Sampling(0.7, 2, 0.5).draw(logits, torch.Generator().manual_seed(0))
    assert torch.equal(logits, before)


def test_a_tie_at_temperature_zero_goes_to_the_smallest_id() -> None:
    assert GREEDY.draw(torch.tensor([0.0, 2.0, 2.0]), torch.Generator()) == 1
