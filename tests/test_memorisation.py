"""What a run memorised: measured at its end, beside what is known to be in the text."""

import random
import signal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import hairpin
from hairpin.config.settings import Data
from hairpin.data.shards import Prepared, prepare
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import Interrupted
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.runs import events
from hairpin.runs.watcher import Quiet
from hairpin.tasks import memorisation
from hairpin.tasks.memorisation import MemorisationMeasure, write_after
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState
from helpers import Watching, a_guard, lively_model, of_kind, random_ids, text_file, tiny

LETTERS = "abcdefghijklmnopqrstuvwxyz"


pytestmark = pytest.mark.usefixtures("no_plots")


def unlikely_text(words: int, seed: int) -> str:
    """Made-up words: a long stretch of it is written only by who has learned it."""
    draw = random.Random(seed)
    made = ("".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(words))
    return " ".join(made) + "\n"


def prepared_of(folder: Path, *texts: str, **settings: Any) -> Prepared:
    """Streams of documents, a file each, in bytes."""
    source = folder / "texts"
    source.mkdir()
    for number, text in enumerate(texts):
        (source / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    return prepare(Data(texts=(str(source),), **settings), ByteTokenizer(), cache=folder / "cache")


def state_of(model: GPT, tokens: int = 10**6) -> TrainState:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainState(Spread(model), optimizer, a_guard(), update=7, tokens=tokens)


def measured(prepared: Prepared, model: GPT, tokens: int = 10**6) -> events.Memorisation | None:
    measure = MemorisationMeasure(prepared.train, prepared.val, prepared.tokenizer, seed=3)
    return measure(state_of(model, tokens), lambda: False)


SMALL = Shape(257, 32, layers=1, heads=2, width=16)

# --- writing ---


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "qwen3"])
@pytest.mark.parametrize("tokens", [5, 40])
def test_several_texts_at_once_are_what_each_is_alone(architecture: Any, tokens: int) -> None:
    tied = architecture == "gpt2"
    shape = Shape(64, 16, layers=2, heads=2, width=16, architecture=architecture, tied=tied)
    model = lively_model(shape)
    prompts, greedy = random_ids(3, 4), Sampling(temperature=0.0)
    before = torch.get_rng_state()
    written = write_after(model, prompts, tokens, 1, lambda: False, greedy)
    assert written is not None
    for prompt, row in zip(prompts.tolist(), written.tolist(), strict=True):
        assert row == list(islice(generate(model, prompt, greedy, seed=0), tokens))
    assert torch.equal(torch.get_rng_state(), before) and model.training


def test_the_same_seed_writes_the_same() -> None:
    model, prompts = lively_model(SMALL), random_ids(2, 4)
    one, again, other = (write_after(model, prompts, 30, s, lambda: False) for s in (1, 1, 2))
    assert one is not None and again is not None and other is not None
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


# --- measuring ---


class Parrot(GPT):
    """Says a text from wherever it is asked, whatever it was asked."""

    def __init__(self, said: bytes) -> None:
        super().__init__(SMALL)
        self.said, self.asked = said, 0

    def hidden(self, inputs_BT: torch.Tensor, cache: Any = None) -> torch.Tensor:
        self.asked += 1
        return torch.zeros(*inputs_BT.shape, self.shape.width)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(x), self.shape.vocabulary), -1e9)
        logits[:, self.said[(self.asked - 1) % len(self.said)]] = 0.0
        return logits


def test_what_is_word_for_word_in_the_training_text_is_counted_to_the_byte(tmp_path: Path) -> None:
    texts = [unlikely_text(200, seed) for seed in range(30)]
    prepared = prepared_of(tmp_path, *texts)
    stream = prepared.tokenizer.decode_bytes(prepared.train.read(0, len(prepared.train)).tolist())
    learned = stream[3000:3070]
    assert sum(learned in text.encode() for text in texts) == 1, "all of it is in one document"
    said = learned + b"0" * 58
    found = measured(prepared, Parrot(said))
    assert found is not None
    assert (found.update, found.shortest_bytes) == (7, 50)
    assert (found.sample_bytes, found.verbatim_bytes) == (8 * 128, 8 * 70)
    assert (found.longest_bytes, found.longest_text) == (70, learned.decode())
    assert found.searched_bytes == found.train_bytes == prepared.train.text_bytes
    assert found.val_bytes > 3000 and found.val_verbatim_bytes == 0


def test_the_text_may_be_in_many_parts_and_documents_have_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [unlikely_text(60, seed) for seed in range(40)]
    prepared = prepared_of(tmp_path, *texts)
    ids = prepared.train.read(0, len(prepared.train)).tolist()
    documents = prepared.tokenizer.decode_bytes(ids)
    end = ids.index(256, 1) - 1  # of the first document; its end-of-text stands for no byte
    across = documents[end - 45 : end + 45]
    whole = documents[1000:1049] + documents[2000:2079]
    for part_bytes in (100, 1000, 1 << 20):
        monkeypatch.setattr(memorisation, "_PART_BYTES", part_bytes)
        nothing, something = (measured(prepared, Parrot(said)) for said in (across, whole))
        assert nothing is not None and something is not None
        assert nothing.verbatim_bytes == 0, "a stretch went from one document into the next"
        assert something.longest_bytes == 79
        assert something.searched_bytes == prepared.train.text_bytes


def test_of_much_text_a_part_is_searched_that_is_spread_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_of(tmp_path, *[unlikely_text(300, seed) for seed in range(30)])
    stream = prepared.train.read(0, len(prepared.train)).tolist()
    monkeypatch.setattr(memorisation, "_PART_BYTES", 1000)
    monkeypatch.setattr(memorisation, "_MAX_SEARCHED_BYTES", 10_000)
    measure = MemorisationMeasure(prepared.train, prepared.val, prepared.tokenizer, seed=3)
    parts = list(measure._parts(100, 10**9))
    found = measured(prepared, Parrot(b"x"))
    assert found is not None and found.searched_bytes < found.train_bytes
    assert found.searched_bytes == sum(new for _, new in parts) == pytest.approx(10_000, rel=0.05)
    whole = b"".join(b"\xff" if token == 256 else bytes([token]) for token in stream)
    places = [whole.index(part) for part, _ in parts]
    assert len(places) == 10 and places[0] == 0 and places[-1] > 0.85 * len(whole)


def test_validation_text_that_repeats_training_text_is_what_it_is_compared_with(
    tmp_path: Path,
) -> None:
    licence = unlikely_text(300, 99)
    texts = [licence + unlikely_text(100, seed) for seed in range(30)]
    prepared = prepared_of(tmp_path, *texts, validation_fraction=0.2)
    found = measured(prepared, Parrot(licence.encode()[:128]))
    assert found is not None and found.verbatim_bytes == found.sample_bytes
    share = found.val_verbatim_bytes / found.val_bytes
    assert share == pytest.approx(len(licence) / (sum(map(len, texts)) / len(texts)), abs=0.1)


@pytest.mark.parametrize("tokens", [0, 1_999, 98_000])
def test_a_run_too_short_to_write_fifty_bytes_is_not_measured(tmp_path: Path, tokens: int) -> None:
    prepared = prepared_of(tmp_path, *[unlikely_text(60, seed) for seed in range(30)])
    assert measured(prepared, Parrot(b"a"), tokens) is None
    found = measured(prepared, Parrot(b"a"), 100_000)  # 2,000 for each token
    assert found is not None and found.sample_bytes == 8 * 50


def test_a_stop_gives_it_up_wherever_it_comes(tmp_path: Path) -> None:
    prepared = prepared_of(tmp_path, *[unlikely_text(60, seed) for seed in range(30)])
    measure = MemorisationMeasure(prepared.train, prepared.val, prepared.tokenizer, seed=3)
    for patience in (0, 50, 128):
        asked = iter([*[False] * patience, *[True] * 9999])
        assert measure(state_of(Parrot(b"abc")), partial(next, asked)) is None


# --- in runs ---

BY_HEART = tiny(
    recipe="modern",
    model__width=64,
    model__heads=2,
    model__layers=2,
    model__context=64,
    train__updates=200,
    train__tokens_per_update=1024,
    execution__micro_batch=16,
    evaluate__every_updates=200,
    schedule__peak_lr=0.003,
    schedule__warmup_updates=20,
)


def test_a_model_that_saw_little_text_often_has_it_by_heart_and_a_new_one_has_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(unlikely_text(120, 5), encoding="utf-8")
    run = hairpin.train(path, out=tmp_path / "run", settings=BY_HEART, watcher=Quiet())
    (found,) = of_kind(run.record(), "memorisation")
    assert run.record()[-2] == found and found["update"] == 200
    assert found["verbatim_bytes"] > 0.8 * found["sample_bytes"]
    assert found["val_bytes"] > 50
    assert found["longest_text"] in path.read_text(encoding="utf-8")
    told = run.diagnostics().memorised
    assert told is not None and told.is_memorised and told.val_share == 0
    assert any(": more than such text repeats itself" in line for line in run.lines())
    prepared = prepare(run.config.data, ByteTokenizer())
    fresh = measured(prepared, GPT(run.trained().model.shape, seed=1))
    assert fresh is not None and fresh.verbatim_bytes == fresh.longest_bytes == 0
    # What is finished stays as it is.
    hairpin.resume(run.path, watcher=Quiet())
    assert of_kind(run.record(), "memorisation") == [found]


MEASURED = tiny(train__tokens_per_update=512, execution__micro_batch=32)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a run of seconds is long enough to be measured."""
    monkeypatch.setitem(memorisation._TRAINED_PER_WRITTEN, "cpu", 60)


@pytest.mark.usefixtures("patient")
def test_a_resumed_run_says_what_one_without_a_break_says(tmp_path: Path) -> None:
    text = text_file(tmp_path)
    whole = hairpin.train(text, out=tmp_path / "whole", settings=MEASURED, watcher=Quiet())
    (found,) = of_kind(whole.record(), "memorisation")
    with pytest.raises(Interrupted):
        hairpin.train(
            text, out=tmp_path / "run", settings=MEASURED, watcher=Watching(6, signal.SIGINT)
        )
    run = hairpin.resume(tmp_path / "run", watcher=Quiet())
    assert of_kind(run.record(), "memorisation") == [found]
    # Killed before the end was written, it is said once more, and counts once.
    record = run.directory.metrics
    record.write_bytes(record.read_bytes()[: record.read_bytes().rindex(b'{"event": "end"')])
    hairpin.resume(run.path, watcher=Quiet())
    assert of_kind(run.record(), "memorisation") == [found]
    longer = hairpin.resume(run.path, extend=4, policy="constant", watcher=Quiet())
    (last,) = of_kind(longer.record(), "memorisation")
    assert last["update"] == 16 and last != found


@pytest.mark.usefixtures("patient")
def test_without_samples_nothing_is_measured_and_the_weights_are_the_same(tmp_path: Path) -> None:
    text = text_file(tmp_path)
    runs = [
        hairpin.train(
            text,
            out=tmp_path / f"run{tokens}",
            settings=MEASURED | {"evaluate.sample_tokens": tokens},
            watcher=Quiet(),
        )
        for tokens in (0, 3)
    ]
    assert [len(of_kind(run.record(), "memorisation")) for run in runs] == [0, 1]
    best = [(run.path / "best" / "model.safetensors").read_bytes() for run in runs]
    assert best[0] == best[1]
