"""Memorisation: the share of generated text that is verbatim in the training text.

At the end of a run the model continues a few passages of the validation text, and stretches of the
generated text that are verbatim in the training text are counted. Text repeats itself (licences,
tables, idioms), so the same is done with the validation text's own continuations.

All of it is a function of the weights, the text and the settings: a resumed run gives
the same result. The amounts generated and searched follow from the amount trained, to cost little.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from hairpin.data.streams import TokenStream
from hairpin.data.tokenizers import Tokenizer
from hairpin.data.verbatim import HashedText, VerbatimSearch
from hairpin.model.generate import Sampling, window_start
from hairpin.model.gpt import GPT, derived_seed
from hairpin.model.kernels.attention import LayerCache
from hairpin.runs import events
from hairpin.training.evaluate import evaluating
from hairpin.training.state import TrainState

MIN_BYTES = 50
_SAMPLES = 8
_MAX_TOKENS = 128  # in a sample
_MAX_PROMPT_TOKENS = 16
_MAX_SEARCHED_BYTES = 256_000_000
_VALIDATION_BYTES = 200_000
_PART_BYTES = 1 << 20
_MIN_SEARCHED_BYTES = 4 * _PART_BYTES
# Trained tokens for which one more token in each sample, or searching a byte, costs about a
# hundredth of the time: on two cores, and on a GPU.
_TRAINED_PER_WRITTEN = {"cpu": 2_000, "cuda": 50_000, "mps": 50_000}
_SEARCHED_PER_TRAINED = {"cpu": 10, "cuda": 1, "mps": 1}
# Marks end-of-text, and is not valid in UTF-8: no stretch spans two documents.
_BOUNDARY = b"\xff"
_KEPT_CHARACTERS = 1_000


@dataclass(frozen=True)
class MemorisationMeasure:
    """Measurement of memorisation at the end of a run.

    Args:
        train, val: the two streams.
        tokenizer: of both.
        seed: of the samples.
    """

    train: TokenStream
    val: TokenStream
    tokenizer: Tokenizer
    seed: int

    def __call__(
        self, state: TrainState, stopped: Callable[[], bool]
    ) -> events.Memorisation | None:
        """Return the result; None: the run was too short to generate enough, or was stopped.

        Args:
            state: at the end; it is not changed.
            stopped: polled on the way.
        """
        device = state.model.token_embedding.weight.device.type
        context = state.model.shape.context
        prompt = max(1, min(_MAX_PROMPT_TOKENS, context // 2))
        tokens = min(_MAX_TOKENS, state.tokens // _TRAINED_PER_WRITTEN[device])
        if tokens < 1:
            return None
        written = write_after(state.model, self._prompts(prompt), tokens, self.seed, stopped)
        if written is None:
            return None
        samples = [self._texts(row)[0] for row in written.tolist()]
        if max(map(len, samples)) < MIN_BYTES:
            return None
        texts = self._validation_texts(tokens, sum(map(len, samples)) / _SAMPLES)
        most = max(_MIN_SEARCHED_BYTES, _SEARCHED_PER_TRAINED[device] * state.tokens)
        ours = VerbatimSearch(samples, MIN_BYTES)
        theirs = VerbatimSearch(texts, MIN_BYTES, wants_longest=False)
        searched = 0
        for part, new_bytes in self._parts(max(ours.overlap_bytes, theirs.overlap_bytes), most):
            if stopped():
                return None
            hashed = HashedText(part)
            ours.search_in(hashed)
            theirs.search_in(hashed)
            searched += new_bytes
        return events.Memorisation(
            update=state.update,
            shortest_bytes=MIN_BYTES,
            sample_bytes=sum(map(len, samples)),
            verbatim_bytes=ours.verbatim_bytes,
            longest_bytes=len(ours.longest),
            longest_text=ours.longest.decode(errors="replace").strip("\ufffd")[:_KEPT_CHARACTERS],
            val_bytes=sum(map(len, texts)),
            val_verbatim_bytes=theirs.verbatim_bytes,
            searched_bytes=searched,
            train_bytes=self.train.text_bytes,
        )

    def _prompts(self, tokens: int) -> Tensor:
        """Return passages of the validation text, evenly spread, [samples, tokens]."""
        starts = [sample * len(self.val) // _SAMPLES for sample in range(_SAMPLES)]
        return torch.stack([torch.from_numpy(self.val.read(at, tokens)) for at in starts])

    def _validation_texts(self, tokens: int, sample_bytes: float) -> list[bytes]:
        """Return pieces of validation text like the samples, evenly spread, as many as allowed."""
        tokens = min(tokens, len(self.val))
        count = min(len(self.val) // tokens, max(_SAMPLES, int(_VALIDATION_BYTES / sample_bytes)))
        starts = [piece * len(self.val) // count for piece in range(count)]
        return [max(self._texts(self.val.read(at, tokens).tolist()), key=len) for at in starts]

    def _texts(self, ids: list[int]) -> list[bytes]:
        """Return the bytes between end-of-text tokens."""
        end = self.tokenizer.end_of_text
        cuts = [-1, *(place for place, token in enumerate(ids) if token == end), len(ids)]
        return [self.tokenizer.decode_bytes(ids[a + 1 : b]) for a, b in pairwise(cuts)]

    def _parts(self, overlap_tokens: int, most_bytes: int) -> Iterator[tuple[bytes, int]]:
        """Yield parts of the training text, with the number of bytes not in another: all of it, or
        as much as may be searched, evenly spread.

        A part overlaps the next by `overlap_tokens`; every token but end-of-text has a byte.
        """
        length, table = len(self.train), self.tokenizer.pieces()
        table[self.tokenizer.end_of_text] = _BOUNDARY
        most_bytes = min(most_bytes, _MAX_SEARCHED_BYTES)
        size = max(1, int(_PART_BYTES * length / max(1, self.train.text_bytes)))
        parts = -(-length // size)
        chosen = max(1, min(parts, most_bytes // _PART_BYTES))
        for number in range(chosen):
            start = number * parts // chosen * size
            count = min(size + overlap_tokens, length - start)
            ids = self.train.read(start, count).tolist()
            new = b"".join(map(table.__getitem__, ids[:size]))
            rest = b"".join(map(table.__getitem__, ids[size:]))
            yield new + rest, len(new) - ids[:size].count(self.tokenizer.end_of_text)


@torch.no_grad()
def write_after(
    model: GPT,
    prompts_BT: Tensor,
    tokens: int,
    seed: int,
    stopped: Callable[[], bool],
    sampling: Sampling | None = None,
) -> Tensor | None:
    """Generate after all prompts at once, [B, tokens]; None: stopped.

    Args:
        model: its training mode is restored.
        prompts_BT: token ids, fewer than the context.
        tokens: to generate after each.
        seed: the same seed gives the same text; no other random stream is read or moved.
        stopped: polled before each token.
        sampling: how a token is drawn; None: at temperature 0.8 from the 50 most likely.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "memorisation"))
    shape, weight, sampling = model.shape, model.token_embedding.weight, sampling or Sampling()
    ids_BT, whole = prompts_BT, prompts_BT.size(1) + tokens
    room = min(shape.context, whole)
    size = (len(ids_BT), shape.heads, room, shape.width // shape.heads)
    seen, start, cache = 0, -1, list[LayerCache]()
    with evaluating(model):
        while ids_BT.size(1) < whole:
            if stopped():
                return None
            begin = window_start(ids_BT.size(1), shape.context)
            if begin != start:
                cache = [
                    LayerCache(weight.new_zeros(size), weight.new_zeros(size)) for _ in model.blocks
                ]
                seen = start = begin
            x_BTC = model.hidden(ids_BT[:, seen:].to(weight.device), cache)
            seen = ids_BT.size(1)
            logits_BV = model.project(x_BTC[:, -1]).float().cpu()
            drawn = [sampling.draw(logits_V, generator) for logits_V in logits_BV]
            ids_BT = torch.cat([ids_BT, torch.tensor(drawn)[:, None]], 1)
    return ids_BT[:, -tokens:]
