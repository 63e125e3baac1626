"""The samples on the way: the same prompt each time, so that progress can be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from hairpin.config.settings import Config
from hairpin.data.batches import Tokens
from hairpin.data.tokenizers import Tokenizer
from hairpin.model.generate import Sampling, generate, window_start
from hairpin.model.gpt import GPT

_PROMPT_CHARACTERS = 80
_SEARCHED_TOKENS = 512
_PROMPT_PLACES = 15


@dataclass(frozen=True)
class SampleWriter:
    """Writer that continues a prompt with the model's current weights.

    Args:
        model: its weights are read.
        tokenizer: the run's.
        prompt: text to continue.
        tokens: length of the continuation; an end-of-text ends it early.
        sampling: how a token is drawn.
        seed: the same for every sample.
        stopped: polled before each token.
        shown: text shown instead of the prompt; None: the prompt.
    """

    model: GPT
    tokenizer: Tokenizer
    prompt: str
    tokens: int
    sampling: Sampling
    seed: int
    stopped: Callable[[], bool] = lambda: False
    shown: str | None = None

    def __call__(self) -> tuple[str, str]:
        """Return the prompt as shown, and the continuation."""
        ids = prompt_ids(self.tokenizer, self.prompt)
        written: list[int] = []
        for token in islice(generate(self.model, ids, self.sampling, seed=self.seed), self.tokens):
            if token == self.tokenizer.end_of_text or self.stopped():
                break
            written.append(token)
        shown = self.prompt if self.shown is None else self.shown
        return shown, self.tokenizer.decode(written)


def sample_writer(
    config: Config,
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    stopped: Callable[[], bool],
    shown: str | None = None,
) -> SampleWriter:
    """Return a writer of samples by the settings of `evaluate`.

    Args:
        config: of the run.
        model, tokenizer, prompt, stopped, shown: as in `SampleWriter`.
    """
    settings = config.evaluate
    return SampleWriter(
        model,
        tokenizer,
        prompt,
        settings.sample_tokens,
        Sampling(settings.temperature, settings.top_k),
        config.train.seed,
        stopped,
        shown,
    )


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return a prompt's ids after an end-of-text, as texts begin in training."""
    return [tokenizer.end_of_text, *(int(token) for token in tokenizer.encode(prompt))]


def cut_of_prompt(length: int, context: int) -> str | None:
    """Return a line about the part of a prompt that the model does not see; None: it sees all.

    Args:
        length: of the prompt's ids, with the end-of-text.
        context: number that the model sees.
    """
    cut = window_start(length, context)
    if not cut:
        return None
    return (
        f"the prompt has {length - 1:,} tokens, and the model sees {context:,}: its first "
        f"{cut - 1:,} were cut"
    )


def prompt_warnings(config: Config, tokenizer: Tokenizer, prompt: str | None) -> tuple[str, ...]:
    """Return a line about a prompt of the user's that the model does not see whole, if there is
    one.
    """
    if prompt is None or not config.evaluate.sample_tokens:
        return ()
    line = cut_of_prompt(len(prompt_ids(tokenizer, prompt)), config.model.context or 0)
    return (f"evaluate.sample_prompt: {line}",) if line else ()


def prompt_from(tokens: Tokens, tokenizer: Tokenizer) -> str:
    """Return about one line of the stream, from the start of a line, that is typical of it.

    Of the openings at some places in the stream, the one with the median share of letters: neither
    a table nor a title.
    """
    places = range(0, len(tokens), -(-len(tokens) // _PROMPT_PLACES))
    openings = [_opening(tokens, tokenizer, place) for place in places]
    return sorted(openings, key=_share_of_letters)[len(openings) // 2]


def _share_of_letters(text: str) -> float:
    return sum(character.isalpha() for character in text) / max(1, len(text))


def _opening(tokens: Tokens, tokenizer: Tokenizer, place: int) -> str:
    """Return about the first line that begins after `place`."""
    count = min(len(tokens), _SEARCHED_TOKENS)
    text = _text_of(tokens.read(place, count).tolist(), tokenizer)
    start = text.find("\n") + 1
    start = start if start < len(text) // 2 else 0
    while start < len(text) and text[start] == "\n":
        start += 1
    shown = text[start : start + _PROMPT_CHARACTERS]
    end = max(shown.rfind("\n"), shown.rfind(" "))
    return shown[:end] if end > _PROMPT_CHARACTERS // 4 else shown


def _text_of(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return decoded text, without truncated characters at either end."""
    return tokenizer.decode(ids).strip("\ufffd")
