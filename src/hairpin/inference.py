"""A trained run at work: its model writes, or is measured on a text."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from hairpin.config.settings import Config, Data
from hairpin.data.batches import Tokens, Windows
from hairpin.data.corpus import open_corpus
from hairpin.data.order import Indices
from hairpin.data.shards import prepare, token_blocks
from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.errors import CorpusError, RunError
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.planning import micro_batch_sequences
from hairpin.runs.directory import RunDirectory
from hairpin.training.checkpoint import load_weights
from hairpin.training.evaluate import Evaluator, Measured
from hairpin.training.numerics import Numerics, choose_device
from hairpin.training.samples import prompt_ids

_EVALUATION_BYTES = 1e9


@dataclass(frozen=True)
class Trained:
    """A run's model with its tokenizer.

    Args:
        config: the run's settings.
        model: on `device`, not training.
        tokenizer: the run's.
        weights: which weights they are, in words.
        device: where the model is.
    """

    config: Config
    model: GPT
    tokenizer: Tokenizer
    weights: str
    device: str

    def write(
        self, prompt: str, sampling: Sampling | None = None, *, tokens: int = 200, seed: int = 0
    ) -> Iterator[str]:
        """The text that follows `prompt`, piece by piece, until an end-of-text or `tokens`."""
        # Several tokens may make one character: bytes are held back until they are whole.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        written = generate(
            self.model, prompt_ids(self.tokenizer, prompt), sampling or Sampling(), seed=seed
        )
        for token in islice(written, tokens):
            if token == self.tokenizer.end_of_text:
                break
            if text := decoder.decode(self.tokenizer.decode_bytes([token])):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    def measure(
        self, texts: Sequence[Path], on_progress: Callable[[int, int], None] | None = None
    ) -> Measured:
        """The loss on whole texts, or without any on the run's own validation text.

        Raises:
            CorpusError: a text cannot be read or is empty, or the run's text has changed.
        """
        tokens: Tokens = (
            _InMemory(_encode(texts, self.tokenizer))
            if texts
            else prepare(self.config.data, self.tokenizer).val
        )
        if len(tokens) < 2:
            raise CorpusError("nothing to evaluate: the text is empty")
        shape = self.model.shape
        sequences = micro_batch_sequences(shape, 1 << 20, _EVALUATION_BYTES, self.device)
        evaluator = Evaluator(
            self.model, self.tokenizer.token_bytes(), Numerics(self.device), sequences
        )
        measured = evaluator.measure(Windows(tokens, shape.context), on_progress)
        assert measured
        return measured


def load_trained(run: RunDirectory, *, weights: str = "best", device: str = "auto") -> Trained:
    """The model of a run with its best or last weights.

    Raises:
        RunError: nothing was saved yet, or what was saved is damaged.
    """
    config = run.read_config()
    tokenizer = load_tokenizer(run.tokenizer)
    tensors, which = load_weights(run, weights, tokenizer_sha256=tokenizer.hash())
    device = choose_device(device)
    model = GPT(Shape.of(config.model, tokenizer.vocabulary))
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError:  # somebody has edited the config
        raise RunError(f"{run.config}: its [model] is not the one that was trained") from None
    return Trained(config, model.to(device).eval(), tokenizer, which, device)


class _InMemory:
    """A stream of tokens that fits in memory."""

    def __init__(self, ids: Indices) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, count: int) -> Indices:
        return self._ids.take(np.arange(start, start + count), mode="wrap")


def _encode(texts: Sequence[Path], tokenizer: Tokenizer) -> Indices:
    data = Data(texts=tuple(str(text.absolute()) for text in texts))
    blocks = [ids for ids, _ in token_blocks(open_corpus(data).documents(), tokenizer)]
    return np.concatenate(blocks).astype(np.int64) if blocks else np.empty(0, dtype=np.int64)
