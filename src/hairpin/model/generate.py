"""Generation of text, token by token, with a cache of keys and values.

The model sees at most its context. When that is full the older half is dropped and the window
moves on, so that the cache is rebuilt once in half a context rather than at every token.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from hairpin.errors import ConfigError, NonFiniteError
from hairpin.model.decode import Cache, Decoder, fits
from hairpin.model.gpt import GPT
from hairpin.model.kernels.attention import LayerCache


@dataclass(frozen=True)
class Sampling:
    """Settings of how the next token is drawn.

    Args:
        temperature: divides the logits, from 0 up; 0 always takes the most likely token.
        top_k: draw from this many of the most likely tokens; 0: from all.
        top_p: draw from the most likely tokens that together reach this probability
            (Holtzman et al. 2020), above 0; 1: from all.

    Raises:
        ConfigError: a line for each setting that is out of bounds.
    """

    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {value} is not {words}"
            for name, value, is_fit, words in (
                (
                    "temperature",
                    self.temperature,
                    _is_number(self.temperature) and self.temperature >= 0,
                    "0 or more; 0 always takes the most likely token",
                ),
                (
                    "top-k",
                    self.top_k,
                    _is_whole(self.top_k) and self.top_k >= 0,
                    "a whole number, 0 or more; 0 draws from all tokens",
                ),
                (
                    "top-p",
                    self.top_p,
                    _is_number(self.top_p) and 0 < self.top_p <= 1,
                    "above 0 and at most 1; 1 draws from all tokens",
                ),
            )
            if not is_fit
        ]
        if problems:
            raise ConfigError(problems)

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """Return a token id drawn by all scores; ties at temperature 0 go to the smallest id."""
        logits_V = logits_V.float().cpu()
        if self.temperature == 0:
            return int(logits_V.numpy().argmax())  # ten times as fast as the tensor's
        ids_K = None
        if 0 < self.top_k < logits_V.numel():
            logits_V, ids_K = torch.topk(logits_V, int(self.top_k))
        probabilities_K = self._probabilities(logits_V)
        if self.top_p < 1:
            ordered_K, order_K = probabilities_K.sort(descending=True, stable=True)
            # Kept while the tokens before it have not reached top_p: always at least one,
            # however near to 0 it is in the format of the probabilities.
            least = torch.finfo(ordered_K.dtype).tiny
            dropped_K = ordered_K.cumsum(0) - ordered_K >= max(float(self.top_p), least)
            probabilities_K[order_K[dropped_K]] = 0.0
        drawn = int(torch.multinomial(probabilities_K, 1, generator=generator))
        return drawn if ids_K is None else int(ids_K[drawn])

    def _probabilities(self, logits_V: Tensor) -> Tensor:
        """Return the probabilities at the temperature.

        Raises:
            NonFiniteError: the logits do not give probabilities.
        """
        temperature = float(self.temperature)
        probabilities_V = torch.softmax(logits_V / temperature, dim=-1)
        if not probabilities_V.isnan().any():
            return probabilities_V
        # So low a temperature overflows float32; the differences of logits remain.
        below_V = (logits_V - logits_V.max()).double()
        probabilities_V = torch.softmax(below_V / temperature, dim=-1)
        if probabilities_V.isnan().any():
            raise NonFiniteError(
                "the model's scores for the next token are not finite, so no token can be drawn; "
                "use other weights"
            )
        return probabilities_V


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def window_start(length: int, context: int) -> int:
    """Return the window's start after `length` tokens: it moves by half a context."""
    if length <= context:
        return 0
    stride = max(1, context // 2)
    return -(-(length - context) // stride) * stride


@torch.no_grad()
def generate(
    model: GPT,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    seed: int,
    cached: bool = True,
    decoder: Decoder | None = None,
) -> Iterator[int]:
    """Yield token ids that follow the prompt, without end.

    Args:
        model: its training mode is restored whenever a token is handed out.
        prompt: at least one id.
        sampling: how a token is drawn.
        seed: the same seed gives the same text; no other random stream is read or moved.
        cached: False recomputes the whole window for each token: slow, with the same result.
        decoder: made from the model; None: one in float32, if it supports the model.
    """
    if not prompt:
        raise ValueError("a prompt needs at least one token, such as end-of-text")
    if decoder is None and fits(model):
        decoder = Decoder(model)
    cached = cached and _has_cache(model)
    generator = torch.Generator().manual_seed(seed)
    written = list(prompt)
    cache: list[LayerCache] = []
    seen, start = 0, -1
    while True:
        begin = window_start(len(written), model.shape.context)
        if begin != start or not cached:
            cache = decoder.empty_cache() if decoder else _empty_cache(model)
            seen, start = begin, begin
        if isinstance(cache, Cache) and decoder and len(written) == seen + 1 and cached:
            logits_V = decoder.logits(written[-1], cache)
        else:
            logits_V = _last_logits(model, written[seen:], cache)
        seen = len(written)
        written.append(sampling.draw(logits_V, generator))
        yield written[-1]


def _has_cache(model: nn.Module) -> bool:
    """Return True for hairpin's own networks; a plugin's has no cache."""
    return isinstance(model, GPT)


def _empty_cache(model: GPT) -> list[LayerCache]:
    return model.empty_cache() if _has_cache(model) else []


def _last_logits(model: GPT, tokens: Sequence[int], cache: list[LayerCache]) -> Tensor:
    """Return the next token's logits, [V]; the cache is extended."""
    was_training = model.training
    model.eval()
    new_1T = torch.tensor([tokens], device=next(model.parameters()).device)
    if _has_cache(model):
        logits_V: Tensor = model.project(model.hidden(new_1T, cache)[:, -1])[0]
    else:
        logits_V = model.logits(new_1T)[0, -1]
    model.train(was_training)
    return logits_V
