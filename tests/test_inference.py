import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hairpin.config.load import build_config
from hairpin.config.settings import Optimizer
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import ConfigError, CorpusError, RunError
from hairpin.model.decode import Decoder
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.products import Precision
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer
from hairpin.runs.folder import RunDirectory, create_run
from hairpin.tasks.inference import Trained, load_trained
from hairpin.tasks.samples import SampleWriter, prompt_from
from hairpin.training.spread import Spread
from hairpin.training.state import Best, TrainState
from helpers import TINY, a_guard, lively_model, save_state, some_text

END = 256
SHAPE = Shape(257, 16, layers=1, heads=2, width=16)


def trained_with(model: GPT) -> Trained:
    config = build_config(flags=TINY | {"data.texts": ["/nowhere"]})
    return Trained(config, model, ByteTokenizer(), "last weights", "cpu")


class Scripted(GPT):
    """Says given bytes one after the other, whatever it has seen; a position is its clock."""

    def __init__(self, said: list[int]) -> None:
        super().__init__(Shape(257, 64, layers=1, heads=2, width=16))
        self.said = said
        self.prompted = 0

    def hidden(self, inputs_BT: Tensor, cache: object = None) -> Tensor:
        self.prompted += inputs_BT.size(1)
        return torch.zeros(1, 1, 16)

    def project(self, x_BTC: Tensor) -> Tensor:
        logits = torch.zeros(1, 1, 257)
        logits[0, 0, self.said.pop(0)] = 1.0
        return logits[:, -1]


GREEDY = Sampling(temperature=0)


def test_it_writes_what_generation_gives() -> None:
    model, sampling = lively_model(SHAPE), Sampling(1.0, 0)
    prompt = [END, *b"the c"]
    ids = list(itertools.islice(generate(model, prompt, sampling, seed=4), 300))
    ids = ids[: ids.index(END)] if END in ids else ids
    text = "".join(trained_with(model).write("the c", sampling, tokens=300, seed=4))
    assert text == bytes(ids).decode("utf-8", errors="replace")
    assert len(ids) > 20


def test_characters_of_several_tokens_come_out_whole() -> None:
    said = "aé日🎼z"
    model = Scripted([*said.encode(), 0])
    assert list(trained_with(model).write("", GREEDY, tokens=11)) == ["a", "é", "日", "🎼", "z"]


def test_half_a_character_at_the_end_is_shown_as_lost() -> None:
    model = Scripted([*"a🎼".encode(), 0])
    assert list(trained_with(model).write("", GREEDY, tokens=3)) == ["a", "\ufffd"]


def test_it_ends_at_an_end_of_text_and_at_the_number_of_tokens() -> None:
    model = Scripted([*b"abc", END, *b"def"])
    assert "".join(trained_with(model).write("", GREEDY, tokens=100)) == "abc"
    model = Scripted([*b"abcdef"])
    assert "".join(trained_with(model).write("", GREEDY, tokens=2)) == "ab"
    assert list(trained_with(Scripted([1])).write("", GREEDY, tokens=0)) == []


def test_a_prompt_that_is_not_all_seen_says_how_much_was_cut() -> None:
    told: list[str] = []
    for length in (0, 63):  # with the end-of-text in front just as long as the context
        list(trained_with(Scripted([97])).write("x" * length, GREEDY, tokens=1))
    for length in (64, 95, 96, 1000):
        model = Scripted([97])
        list(trained_with(model).write("x" * length, GREEDY, tokens=1, on_notice=told.append))
        cut = length - model.prompted
        line = f"the prompt has {length:,} tokens, and the model sees 64: its first {cut} were cut"
        assert told.pop() == line and not told and cut > 0
    with pytest.warns(UserWarning, match="the prompt has 70 tokens"):
        list(trained_with(Scripted([97])).write("x" * 70, GREEDY, tokens=1))


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        (b"the\xff".decode("utf-8", "surrogateescape"), "byte 0xff at character 3 is not UTF-8"),
        ("\ud83c", "half a character (\\ud83c) at character 0 is not UTF-8"),
    ],
)
def test_a_prompt_that_is_not_utf_8_is_refused_before_anything_is_written(
    prompt: str, line: str
) -> None:
    with pytest.raises(CorpusError) as raised:
        trained_with(lively_model(SHAPE)).write(prompt)
    (found,) = raised.value.problems
    assert found.startswith(f"the prompt: {line}")


def test_a_sample_on_the_way_is_what_the_run_would_write() -> None:
    model, sampling = lively_model(SHAPE), Sampling(0.9, 20)
    writer = SampleWriter(model, ByteTokenizer(), "the", 40, sampling, seed=3)
    prompt, text = writer()
    assert prompt == "the"
    assert text == "".join(trained_with(model).write("the", sampling, tokens=40, seed=3))
    assert writer() == (prompt, text)
    stopped = SampleWriter(model, ByteTokenizer(), "the", 40, sampling, 3, lambda: True)
    assert stopped() == ("the", "")


def test_a_sample_on_the_way_ends_at_an_end_of_text() -> None:
    model = Scripted([*b"abc", END, *b"def"])
    assert SampleWriter(model, ByteTokenizer(), "x", 7, GREEDY, seed=0)() == ("x", "abc")


def test_made_to_write_it_writes_the_same() -> None:
    model, sampling = lively_model(SHAPE), Sampling(1.0, 0)
    plain = "".join(trained_with(model).write("the c", sampling, tokens=60, seed=4))
    fast = trained_with(model).for_writing()
    assert "".join(fast.write("the c", sampling, tokens=60, seed=4)) == plain
    assert fast.decoder, "the model itself wrote"


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_what_writes_in_another_format_has_its_own_weights(precision: Precision) -> None:
    model = lively_model(SHAPE)
    trained = trained_with(model).for_writing(precision)
    first = "".join(trained.write("a", GREEDY, tokens=30))
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.parameters():
                parameter.zero_()
    assert trained.decoder
    cache, other = trained.decoder.empty_cache(), Decoder(model).empty_cache()
    kept, zeroed = trained.decoder.logits(5, cache), Decoder(model).logits(5, other)
    assert first
    assert (kept - zeroed).abs().max() > 0.1


def test_formats_are_for_a_cpu() -> None:
    trained = replace(trained_with(lively_model(SHAPE)), device="cuda")
    with pytest.raises(ConfigError, match="int8 is for generating on a CPU, not on cuda"):
        trained.for_writing("int8")


def test_a_model_of_a_class_of_its_own_writes_by_itself() -> None:
    model = Scripted([*b"abc", END])
    assert "".join(trained_with(model).for_writing().write("", GREEDY, tokens=9)) == "abc"


class _Text:
    def __init__(self, text: str) -> None:
        self.ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.take(self.ids, np.arange(start, start + count), mode="wrap")


def test_a_prompt_begins_where_a_line_does_and_ends_where_a_word_does() -> None:
    text = some_text(3000)
    prompt = prompt_from(_Text(text), ByteTokenizer())
    assert 20 <= len(prompt) <= 80
    at = text.index("\n" + prompt) + 1
    assert text[at + len(prompt)] in " \n"


@pytest.mark.parametrize("text", ["x", "ab", "\n\n\n", "日" * 300, "word " * 3])
def test_a_prompt_is_had_from_any_text(text: str) -> None:
    prompt = prompt_from(_Text(text), ByteTokenizer())
    assert len(prompt) <= 80 and "\ufffd" not in prompt
    assert prompt in text * 3


# --- measuring ---


def test_a_text_is_measured_as_a_plain_loop_measures_it(tmp_path: Path) -> None:
    model = lively_model(SHAPE)
    texts = [tmp_path / "one.txt", tmp_path / "two.txt"]
    texts[0].write_text("the cat sat on été\n" * 3, encoding="utf-8")
    texts[1].write_text("x", encoding="utf-8")
    ids = [i for text in texts for i in (END, *text.read_bytes())]
    nats = 0.0
    for start in range(0, len(ids) - 1, 16):
        window = ids[start : start + 17]
        logits = model.logits(torch.tensor([window[:-1]])).detach()[0].double().numpy()
        for row, target in zip(logits, window[1:], strict=True):
            nats += np.log(np.exp(row).sum()) - row[target]
    measured = trained_with(model).measure(texts)
    assert measured.tokens == len(ids) - 1
    assert measured.loss == pytest.approx(nats / (len(ids) - 1), rel=1e-6)
    # One end-of-text is a target; it stands for no byte. The first is no target.
    text_bytes = sum(text.stat().st_size for text in texts)
    assert measured.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-6)


def test_an_empty_text_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(CorpusError):
        trained_with(lively_model(SHAPE)).measure([empty])


# --- loading ---


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with weights of update 1, the best, and of update 2."""
    config = build_config(flags=TINY | {"data.texts": [str(tmp_path / "t.txt")]})
    run = create_run(tmp_path / "run", config)
    ByteTokenizer().save(run.tokenizer)
    model = lively_model(SHAPE, seed=1)
    state = TrainState(
        Spread(model),
        build_optimizer(model, Optimizer()),
        a_guard(),
        update=1,
        best=Best(1, 2.0),
    )
    facts = {"tokenizer_sha256": ByteTokenizer().hash()}
    save_state(run, state, facts)
    model.load_state_dict(lively_model(SHAPE, seed=2).state_dict())
    state.update = 2
    save_state(run, state, facts)
    return run


@pytest.mark.parametrize(
    ("weights", "seed", "phrase"),
    [("best", 1, "best weights, update 1"), ("last", 2, "last weights, update 2")],
)
def test_best_and_last_weights_are_loaded_and_named(
    run: RunDirectory, weights: str, seed: int, phrase: str
) -> None:
    trained = load_trained(run, weights=weights, device="cpu")
    assert trained.weights == phrase
    assert not trained.model.training
    expected = lively_model(SHAPE, seed=seed).state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in trained.model.state_dict().items())


def test_a_run_needs_nothing_but_its_folder(run: RunDirectory, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    run.path.rename(elsewhere)
    trained = load_trained(RunDirectory(elsewhere), device="cpu")
    assert isinstance("".join(trained.write("a", GREEDY, tokens=3)), str)


def test_weights_of_another_tokenizer_are_refused(run: RunDirectory) -> None:
    model = lively_model(SHAPE)
    state = TrainState(Spread(model), build_optimizer(model, Optimizer()), a_guard(), update=3)
    save_state(run, state, {"tokenizer_sha256": "0" * 64})
    with pytest.raises(RunError, match=r"not the tokenizer that .*step-00000003 was trained with"):
        load_trained(run, weights="last", device="cpu")


def test_a_config_of_another_model_is_refused(run: RunDirectory) -> None:
    config = run.config.read_text(encoding="utf-8")
    run.config.write_text(config.replace("layers = 1", "layers = 2"), encoding="utf-8")
    with pytest.raises(RunError, match="differs from the model that was trained"):
        load_trained(run, device="cpu")


def test_without_weights_it_says_so(tmp_path: Path) -> None:
    config = build_config(flags=TINY | {"data.texts": [str(tmp_path / "t.txt")]})
    run = create_run(tmp_path / "run", config)
    ByteTokenizer().save(run.tokenizer)
    with pytest.raises(RunError, match="no weights saved yet"):
        load_trained(run, device="cpu")
