import json
import math
import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hairpin
from hairpin.config.load import build_config
from hairpin.config.settings import Data, Tokenizer
from hairpin.config.sources import parse_source
from hairpin.data.batches import Batches, MixedBatches, source_seed
from hairpin.data.blend import prepare_text, survey_sources
from hairpin.data.mixture import Mixture
from hairpin.data.tokenizers import load_tokenizer
from hairpin.errors import ConfigError, CorpusError, Interrupted, RunError
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.training.job import Job
from helpers import (
    TINY_FLAGS,
    Hairpin,
    Ring,
    Watching,
    assert_same_history,
    evaluations,
    of_kind,
    some_text,
    tiny,
)

WEIGHTS = st.lists(
    st.floats(1e-3, 1) | st.integers(1, 5) | st.just(1.0), min_size=1, max_size=5
).map(tuple)
MANY_WEIGHTS = st.lists(st.floats(1e-3, 1), min_size=6, max_size=12).map(tuple)


# --- which source stands at which position ---


@given(weights=WEIGHTS, start=st.integers(0, 10**6), length=st.integers(1, 300))
def test_in_any_window_counts_are_within_two_of_the_weights(
    weights: tuple[float, ...], start: int, length: int
) -> None:
    mixture = Mixture(weights)
    sources = [mixture.at(position)[0] for position in range(start, start + length)]
    total = sum(map(Fraction, weights))
    for source, weight in enumerate(map(Fraction, weights)):
        # Every window of this stretch: the largest and the least of what prefixes are off by.
        off = [Fraction(0)]
        for taken in sources:
            off.append(off[-1] + (taken == source) - weight / total)
        widest = float(max(off) - min(off))
        assert widest < mixture.bound + 1e-6 or len(weights) == 1
    assert mixture.bound <= {1: 0, 2: 1}.get(len(weights), 2)


@given(weights=MANY_WEIGHTS, start=st.integers(0, 10**6))
@settings(max_examples=25)
def test_of_many_sources_too_by_less_than_three(weights: tuple[float, ...], start: int) -> None:
    mixture = Mixture(weights)
    assert mixture.bound < 3
    begin, end = mixture.counts(start), mixture.counts(start + 200)
    for share, before, after in zip(mixture.shares, begin, end, strict=True):
        assert abs(after - before - 200 * share) < mixture.bound


@given(weights=WEIGHTS)
def test_positions_of_a_source_are_numbered_one_after_the_other(weights: tuple[float, ...]) -> None:
    mixture, counts = Mixture(weights), [0] * len(weights)
    for position in range(200):
        assert mixture.counts(position) == counts
        source, index = mixture.at(position)
        assert index == counts[source]
        counts[source] += 1


@given(weights=WEIGHTS, position=st.integers(0, 2**50))
def test_far_positions_are_as_exact_as_near_ones(weights: tuple[float, ...], position: int) -> None:
    mixture = Mixture(weights)
    before, after = mixture.counts(position), mixture.counts(position + 1)
    source, index = mixture.at(position)
    assert sum(before) == position and before[source] == index
    assert [b - a for a, b in zip(before, after, strict=True)] == [
        int(other == source) for other in range(len(weights))
    ]


def test_two_sources_alternate_as_by_hand() -> None:
    assert [Mixture((1, 1)).at(p)[0] for p in range(6)] in ([0, 1] * 3, [1, 0] * 3)
    # Three quarters of 1, 2, 3 … positions are, to the nearest whole, 1, 2, 2, 3, 4, 5, 5, 6.
    rare = [Mixture((0.25, 0.75)).at(p)[0] for p in range(8)]
    assert [p for p, source in enumerate(rare) if source == 0] == [2, 6]


@pytest.mark.parametrize("weights", [(), (0.0, 1.0), (-1.0, 1.0), (math.nan,), (math.inf, 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Mixture(weights)


# --- batches ---

A, B, C = (
    Ring(np.arange(start, start + length)) for start, length in ((0, 61), (100, 9), (200, 30))
)


def mixed(seed: int = 3) -> MixedBatches:
    return MixedBatches({"a": A, "b": B, "c": C}, Mixture((0.5, 0.2, 0.3)), 4, seed)


@given(start=st.integers(0, 400), pieces=st.lists(st.integers(1, 9), min_size=1))
def test_any_slices_give_what_the_whole_gives(start: int, pieces: list[int]) -> None:
    whole = mixed().at(start, sum(pieces))
    position, inputs, targets = start, [], []
    for piece in pieces:
        taken = mixed().at(position, piece)
        inputs.append(taken[0])
        targets.append(taken[1])
        position += piece
    assert torch.equal(torch.cat(inputs), whole[0])
    assert torch.equal(torch.cat(targets), whole[1])


def test_each_source_has_the_order_it_has_alone() -> None:
    sources, starts = mixed().starts(0, 500)
    for number, (name, ring) in enumerate({"a": A, "b": B, "c": C}.items()):
        alone = Batches(ring, 4, source_seed(3, name))
        own = starts[sources == number]
        assert own.tolist() == alone.starts(0, len(own)).tolist()
        assert len(own) / alone.samples > 3  # several epochs of each
    assert len({source_seed(3, name) for name in "abc"} | {source_seed(4, "a"), 3}) == 5


def test_batches_of_a_mixture_say_where_they_begin() -> None:
    sources, starts = mixed().starts(7, 10)
    firsts = {
        "abc"[s]: int(start) for s, start in reversed(list(zip(sources, starts, strict=True)))
    }
    assert mixed().where(7, 10) == (
        "training tokens " + ", ".join(f"{firsts[n]} of {n}" for n in "abc") + " and on"
    )


# --- what people write ---


@pytest.mark.parametrize(
    ("text", "name", "path", "weight"),
    [
        ("wiki=wiki.jsonl:0.7", "wiki", "wiki.jsonl", 0.7),
        ("wiki=wiki.jsonl", "wiki", "wiki.jsonl", None),
        ("code=src/:3", "code", "src", 3.0),
        (r"w=C:\data\wiki.jsonl", "w", r"C:\data\wiki.jsonl", None),
        (r"w=C:\data\wiki.jsonl:.5", "w", r"C:\data\wiki.jsonl", 0.5),
        ("a=b=c.txt:1e-3", "a", "b=c.txt", 0.001),
        ("t=12:30.txt", "t", "12:30.txt", None),
        ("all=data/**/*.jsonl.gz:1", "all", "data/**/*.jsonl.gz", 1.0),
    ],
)
def test_a_source_on_the_command_line(
    text: str, name: str, path: str, weight: float | None
) -> None:
    expected: dict[str, Any] = {"name": name, "texts": [str(Path(path).absolute())]}
    assert parse_source(text) == expected | ({} if weight is None else {"weight": weight})


def test_a_corpus_by_name_is_a_source_too() -> None:
    assert parse_source("py=@stdlib:2") == {"name": "py", "corpus": "stdlib", "weight": 2.0}


WRONG = {
    "wiki.jsonl": "write it as --source NAME=PATH, or NAME=PATH:WEIGHT",
    r"C:\data=x": "write it as --source NAME=PATH",
    "=x": "write it as --source NAME=PATH",
    "a=": "write it as --source NAME=PATH",
    "a=x:0": "a weight is a number above 0, not 0",
    "a=x:-1": "a weight is a number above 0, not -1",
    "a=x:nan": "a weight is a number above 0, not nan",
    "a=x:inf": "a weight is a number above 0, not inf",
    "a b=x": "data.sources.0.name: string should match pattern",
    "a=@nothing": "data.sources.0.corpus: input should be 'stdlib'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_source_that_is_none_is_a_line(hairpin: Hairpin, text: str) -> None:
    assert WRONG[text] in hairpin("train", "--source", text).refusal


def test_sources_that_contradict_each_other_are_refused() -> None:
    def problems(*sources: dict[str, Any], **more: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            build_config(flags={"data.sources": list(sources)} | more)
        return list(caught.value.problems)

    a, b = {"name": "a", "texts": ["/a"]}, {"name": "b", "texts": ["/b"]}
    assert "two sources are called a" in problems(a, {"name": "A", "texts": ["/b"]})[0]
    assert "a has no weight" in problems(a, b | {"weight": 1.0})[0]
    assert "a needs texts or a corpus" in problems({"name": "a"})[0]
    assert "data.texts and data.sources" in problems(a, **{"data.texts": ["/x"]})[0]
    assert "greater than 0" in problems(a | {"weight": 0.0})[0]
    assert "finite" in problems(a | {"weight": math.nan})[0]
    assert "unknown key" in problems(a | {"wieght": 1.0})[0]


def test_sources_in_a_file_are_relative_to_it_and_silenced_by_others(tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(
        '[[data.sources]]\nname = "a"\ntexts = ["a.txt"]\nweight = 2\n'
        '[[data.sources]]\nname = "b"\ntexts = ["/b/*.jsonl"]\nweight = 1.5\ncolumn = "body"\n'
    )
    read = build_config(file=file).data
    assert [source.texts for source in read.sources] == [
        (str(tmp_path / "a.txt"),),
        ("/b/*.jsonl",),
    ]
    assert [source.weight for source in read.sources] == [2.0, 1.5]
    (_, first), (_, second) = read.parts()
    assert (first.texts, first.column, second.column) == ((str(tmp_path / "a.txt"),), None, "body")
    assert build_config(file=file, flags={"data.texts": ["/x"]}).data.sources == ()
    other = build_config(file=file, flags={"data.sources": [{"name": "c", "corpus": "stdlib"}]})
    assert [source.name for source in other.data.sources] == ["c"]


# --- text of several sources ---


def two_sources(folder: Path, small: int = 700, large: int = 4000) -> list[dict[str, Any]]:
    """A small table and a large text; the one in capitals, so that they can be told apart."""
    rows = [some_text(small // 10, seed).upper() for seed in range(10)]
    (folder / "small.jsonl").write_text("".join(json.dumps({"body": row}) + "\n" for row in rows))
    (folder / "large.txt").write_text(some_text(large))
    return [
        {"name": "small", "texts": [str(folder / "small.jsonl")], "weight": 0.25},
        {"name": "large", "texts": [str(folder / "large.txt")], "weight": 0.75},
    ]


def without_weights(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: v for key, v in source.items() if key != "weight"} for source in sources]


def test_each_source_has_shards_of_its_own_and_one_tokenizer(tmp_path: Path) -> None:
    data = Data.model_validate({"sources": two_sources(tmp_path)})
    prepared = prepare_text(data, Tokenizer(vocabulary=300))
    small, large = prepared.sources
    assert small.prepared.tokenizer.hash() == large.prepared.tokenizer.hash()
    assert (small.share, large.share) == (0.25, 0.75)
    whole = prepared.train.read(0, len(prepared.train))
    parts = [s.prepared.train.read(0, len(s.prepared.train)) for s in prepared.sources]
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert prepared.tokenizer.decode(parts[0].tolist()).isupper()
    assert prepared.train.text_bytes + prepared.val.text_bytes == prepared.survey.bytes
    assert prepared.survey == survey_sources(data)
    filled = prepared.data.sources
    assert (filled[0].column, filled[0].format, filled[1].format) == ("body", "jsonl", None)
    assert all(source.hash and source.split for source in filled)
    again = prepare_text(prepared.data, Tokenizer(vocabulary=300))
    assert (again.key, again.data) == (prepared.key, prepared.data)


def test_without_weights_a_source_has_its_share_of_the_tokens(tmp_path: Path) -> None:
    sources = without_weights(two_sources(tmp_path))
    prepared = prepare_text(Data.model_validate({"sources": sources}), Tokenizer(kind="bytes"))
    sizes = [len(source.prepared.train) for source in prepared.sources]
    shares = [source.share for source in prepared.sources]
    assert shares == pytest.approx([size / sum(sizes) for size in sizes])


def test_the_vocabulary_is_learned_from_sources_by_weight(tmp_path: Path) -> None:
    def vocabulary(weight: float) -> set[str]:
        sources = two_sources(tmp_path, small=4000)
        sources[0]["weight"], sources[1]["weight"] = weight, 1 - weight
        data = Data.model_validate({"sources": sources})
        tokenizer = prepare_text(data, Tokenizer(vocabulary=320)).tokenizer
        return {tokenizer.decode([token]) for token in range(256, tokenizer.vocabulary - 1)}

    mostly_capitals, mostly_small = vocabulary(0.95), vocabulary(0.05)
    assert sum(map(str.isupper, mostly_capitals)) > sum(map(str.islower, mostly_capitals))
    assert sum(map(str.isupper, mostly_small)) < sum(map(str.islower, mostly_small))


def test_a_changed_source_is_named(tmp_path: Path) -> None:
    data = Data.model_validate({"sources": two_sources(tmp_path)})
    filled = prepare_text(data, Tokenizer(kind="bytes")).data
    (tmp_path / "large.txt").write_text(some_text(3000, seed=9))
    with pytest.raises(CorpusError, match=r"large: the text has changed since this run's config"):
        prepare_text(filled, Tokenizer(kind="bytes"))


def test_a_source_that_is_too_small_is_named(tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    (tmp_path / "large.txt").write_text("tiny")
    with pytest.raises(CorpusError, match="source large: too little training text"):
        hairpin.train(
            settings=tiny() | {"data.sources": sources}, out=tmp_path / "r", watcher=Quiet()
        )


# --- runs ---


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int], list[int]]]:
    """(update, sources, starts) of each update that is taken."""
    taken: list[tuple[int, list[int], list[int]]] = []
    step = Job.step

    def recorded(self: Job) -> Any:
        assert isinstance(self.batches, MixedBatches)
        sources, places = self.batches.starts(self.state.position, self.samples_per_update)
        taken.append((self.state.update, sources.tolist(), places.tolist()))
        return step(self)

    monkeypatch.setattr(Job, "step", recorded)
    return taken


def run_of(folder: Path, out: str, watcher: Any = None, **changes: Any) -> Run:
    sources = two_sources(folder, small=300, large=500)
    asked = tiny(train__updates=24, model__dropout=0.0, **changes) | {"data.sources": sources}
    return hairpin.train(settings=asked, out=folder / out, watcher=watcher or Quiet())


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("after", [3, 10])
def test_resumed_in_the_middle_of_an_epoch_of_each_source_it_is_as_if_never_stopped(
    tmp_path: Path, after: int, starts: list[tuple[int, list[int], list[int]]]
) -> None:
    whole = run_of(tmp_path, "whole")
    uninterrupted = {update: rest for update, *rest in starts}
    plan = of_kind(whole.record(), "plan")[0]
    assert min(each["epochs"] for each in plan["sources"].values()) > 1.2
    starts.clear()
    with pytest.raises(Interrupted):
        run_of(tmp_path, "stopped", Watching(after))
    before = [update for update, *_ in starts]
    resumed = hairpin.resume(tmp_path / "stopped", watcher=Quiet())
    assert 0 < len(set(before)) < 24 and starts[-1][0] == 23
    for update, *rest in starts:
        assert rest == uninterrupted[update]
    assert_same_history(whole, resumed)


@pytest.mark.usefixtures("no_plots")
def test_an_evaluation_has_each_source_and_their_mean_by_weight(tmp_path: Path) -> None:
    run = run_of(tmp_path, "run")
    for event in evaluations(run):
        small, large = event["sources"]["small"], event["sources"]["large"]
        for key in ("train_loss", "val_loss"):
            assert event[key] == pytest.approx(0.25 * small[key] + 0.75 * large[key])
        # Bits over bytes, both of a token as training draws them.
        nats = [0.25 * small["val_loss"], 0.75 * large["val_loss"]]
        text_bytes = [
            n / math.log(2) / each["val_bits_per_byte"]
            for n, each in zip(nats, (small, large), strict=True)
        ]
        assert event["val_bits_per_byte"] == pytest.approx(
            sum(nats) / math.log(2) / sum(text_bytes)
        )
    best = run.summary().best
    assert best is not None and [name for name, *_ in best.sources] == ["small", "large"]
    assert "sources     small" in "\n".join(run.summary().lines())
    shares = of_kind(run.record(), "plan")[0]["sources"]
    assert shares["small"]["epochs"] == pytest.approx(
        24 * 64 * 0.25 / shares["small"]["train_tokens"]
    )
    losses = [event["sources"]["large"]["val_loss"] for event in evaluations(run)]
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("no_plots")
def test_moved_files_may_go_on_and_another_weight_may_not(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_of(tmp_path, "run", Watching(5))
    config = tmp_path / "run" / "config.toml"
    text = config.read_text()
    (tmp_path / "small.jsonl").rename(tmp_path / "moved.jsonl")
    config.write_text(text.replace("weight = 0.25", "weight = 0.5"))
    with pytest.raises(RunError, match=r"data\.sources") as refused:
        config.write_text(config.read_text().replace("small.jsonl", "moved.jsonl"))
        hairpin.resume(tmp_path / "run", watcher=Quiet())
    assert "\n" not in str(refused.value)
    config.write_text(text.replace("small.jsonl", "moved.jsonl"))
    assert hairpin.resume(tmp_path / "run", watcher=Quiet()).summary().status == "finished"


@pytest.mark.usefixtures("no_plots")
def test_sources_from_python_are_files_streams_and_tables(tmp_path: Path) -> None:
    two_sources(tmp_path)
    run = hairpin.train(
        sources={
            "file": tmp_path / "large.txt",
            "rows": ({"text": some_text(300, seed)} for seed in range(9)),
            "table": {"texts": tmp_path / "small.jsonl", "column": "body"},
        },
        settings=tiny(train__updates=6),
        out=tmp_path / "run",
        watcher=Quiet(),
    )
    assert list(evaluations(run)[-1]["sources"]) == ["file", "rows", "table"]
    sources = run.config.data.sources
    assert [s.column for s in sources] == [None, "text", "body"]
    assert sum(s.weight or 0 for s in sources) == pytest.approx(1)


def test_every_verb_takes_sources(hairpin: Hairpin, tmp_path: Path) -> None:
    two_sources(tmp_path)
    mix = ("--source", "small=small.jsonl:0.25", "--source", "large=large.txt:0.75")
    plan = hairpin("plan", *mix, "--no-probe", *TINY_FLAGS)
    assert plan.code == 0 and "25.0% of it" in plan.out and "of all sources" in plan.out
    as_json = json.loads(hairpin("plan", *mix, "--no-probe", "--json", *TINY_FLAGS).out)
    assert set(as_json["text"]["sources"]) == {"small", "large"}
    train = ("train", *mix, *TINY_FLAGS, "--out", "run", "--or-resume")
    first = hairpin(*train)
    assert first.code == 0 and "small 25% (" in first.out
    assert "(small " in first.out and "sources     small" in first.out
    assert hairpin(*train).code == 0  # finished already
    other = hairpin(
        *train[:2], "small=small.jsonl:0.5", *train[3:4], "large=large.txt:0.5", *train[5:]
    )
    assert other.code == 2 and "data.sources is" in other.err
    shown = hairpin("evaluate", "run")
    assert shown.code == 0 and "\n  small  " in shown.out and "\n  large  " in shown.out
    facts = json.loads(hairpin("evaluate", "run", "--json").out)
    assert set(facts["sources"]["small"]) == {"tokens", "val_loss", "val_bits_per_byte"}
    assert facts["loss"] == pytest.approx(
        sum(w * facts["sources"][n]["val_loss"] for n, w in (("small", 0.25), ("large", 0.75)))
    )
    page = Path("run/report.html").read_text()
    assert "Validation loss by source" in page and "Bits per byte by source" in page
    assert Path("run/plots/sources.png").exists()
    made = hairpin("prepare", *mix, "--out", "shards")
    assert made.code == 0 and load_tokenizer(Path("shards/small/tokenizer")).vocabulary > 256


def test_a_source_that_is_seen_often_is_said(hairpin: Hairpin, tmp_path: Path) -> None:
    draw = random.Random(1)
    (tmp_path / "small.txt").write_text("".join(draw.choices("ab \n", k=60)))
    (tmp_path / "large.txt").write_text(some_text(20_000))
    mix = ("--source", "small=small.txt:1", "--source", "large=large.txt:1")
    done = hairpin("train", *mix, *TINY_FLAGS, "--set", "train.updates=60", "--out", "run")
    assert done.code == 0 and "a small source for its weight: the run repeats small" in done.out


@pytest.mark.parametrize("weights", [(1.0, 1.0, 2.0), (0.7, 0.2, 0.1)])
def test_samples_of_a_source_are_spread_evenly(weights: tuple[float, ...]) -> None:
    mixture = Mixture(weights)
    places: list[list[int]] = [[] for _ in weights]
    for position in range(2000):
        places[mixture.at(position)[0]].append(position)
    for share, own in zip(mixture.shares, places, strict=True):
        gaps = {b - a for a, b in pairwise(own)}
        assert max(gaps) <= 2 / share + 1
