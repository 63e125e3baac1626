"""`hairpin book`: the listings run in their order, and the page says what came out."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hairpin import api
from hairpin.book.report import verb
from hairpin.book.report.experiment import ListingResults, make_loaders, run_listings
from hairpin.book.report.listing import Losses
from hairpin.book.report.page import agreement, write_page
from hairpin.book.report.pictures import losses_chart, step_chart
from hairpin.book.report.printed import PRINTED_LOSSES, ComparedFigure, findings
from hairpin.book.report.recipe_run import RecipeRun, read_recipe_run
from hairpin.errors import CorpusError, RunError
from hairpin.reports.figures import draw
from hairpin.runs.watcher import Quiet
from helpers import Done, Hairpin, some_text, text_file, tiny
from test_docs import commands, parse

SMALL = {
    "vocab_size": 50257,
    "context_length": 16,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 1,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
LISTING = Path(__file__).with_name("book_listing.py")


# --- the listings ---


@pytest.fixture(scope="module")
def listing(
    tmp_path_factory: pytest.TempPathFactory, gpt2_vocabulary: Path
) -> tuple[str, list[str]]:
    """A short text, and what a reader's script prints with it and a small model."""
    folder = tmp_path_factory.mktemp("reader")
    text = text_file(folder, 700).rename(folder / "the-verdict.txt").read_text(encoding="utf-8")
    script = LISTING.read_text(encoding="utf-8")
    for key, value in SMALL.items():
        script, found = re.subn(rf'"{key}": [\w.]+,', f'"{key}": {value!r},', script)
        assert found == 1, key
    done = subprocess.run(
        [sys.executable, "-c", "import torch; torch.set_num_threads(1)\n" + script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return text, done.stdout.splitlines()


def test_the_appendix_runs_with_only_its_imports_changed(listing: tuple[str, list[str]]) -> None:
    text, lines = listing
    train, val = make_loaders(text, 16)
    steps = 15 * len(train)
    assert len(train) >= 4 and len(val) == 1
    assert lines[0] == str(steps // 5)
    assert all(re.fullmatch(r"tensor\(\d\.\d{4}\)", line) for line in lines[1:3])
    printed = [line for line in lines if line.startswith("Ep ")]
    for number, line in enumerate(printed):
        found = re.fullmatch(r"Ep (\d+) \(Iter (\d{6})\): Train loss [\d.]+, Val loss [\d.]+", line)
        assert found, line
        assert int(found[2]) == 5 * number
        assert int(found[1]) == 5 * number // len(train) + 1
    assert len(printed) == -(-steps // 5)
    samples = [line for line in lines[3:] if line not in printed]
    assert len(samples) == 15
    assert all(line.startswith("Every effort moves you") for line in samples)


def test_hairpin_book_prints_what_the_script_prints(
    listing: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    text, lines = listing
    outcome = run_listings(text, config=SMALL)
    assert capsys.readouterr().out.splitlines() == lines
    assert outcome.iterations == 15 * outcome.batches == len(outcome.warmup_lrs)
    assert [f"{at.train:.3f}" for at in outcome.losses] == [
        line.split()[6].strip(",") for line in lines if line.startswith("Ep ")
    ]
    assert f"tensor({outcome.largest_gradient_clipped:.4f})" == lines[2]
    assert len(outcome.samples) == 15


def test_fewer_iterations_are_the_beginning_of_the_same(
    listing: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    text, lines = listing
    told: list[tuple[int, int]] = []
    outcome = run_listings(
        text,
        config=SMALL,
        iterations=7,
        on_iteration=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 7) for done in range(8)]
    shown = capsys.readouterr().out.splitlines()
    assert shown == lines[: len(shown)]
    assert outcome.iterations == 7
    assert [at.iteration for at in outcome.losses] == [0, 5]
    assert len(outcome.samples) == 7 // outcome.batches
    assert len(outcome.cosine_lrs) == 15 * outcome.batches


def test_the_curves_are_those_of_the_appendix(listing: tuple[str, list[str]]) -> None:
    outcome = run_listings(listing[0], config=SMALL, iterations=1)
    steps, warmup = 15 * outcome.batches, outcome.warmup_steps
    assert warmup == steps // 5
    assert outcome.warmup_lrs[0] == outcome.cosine_lrs[0] == 0.0001
    assert outcome.warmup_lrs[warmup:] == [0.01] * (steps - warmup)
    assert outcome.warmup_lrs[:warmup] == outcome.cosine_lrs[:warmup]
    assert outcome.cosine_lrs[warmup] == 0.01
    middle = warmup + (steps - warmup) // 2  # an even number of steps: a quarter turn
    assert (steps - warmup) % 2 == 0
    assert outcome.cosine_lrs[middle] == pytest.approx((0.01 + 0.00001) / 2, rel=1e-12)
    assert outcome.example_norm == 5.0
    assert [entry for row in outcome.example_clipped for entry in row] == pytest.approx(
        [0.2, 0.4, 0.4, 0.8], rel=1e-6
    )


@pytest.mark.slow
def test_the_printed_figures_come_out(
    hairpin: Hairpin, tmp_path: Path, gpt2_vocabulary: Path, verdict_file: Path
) -> None:
    done = hairpin("book", "--iterations", "6", "--text", verdict_file, "--out", "page")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    expected = [
        "27",
        "tensor(0.0411)",
        "tensor(0.0185)",
        "Ep 1 (Iter 000000): Train loss 10.934, Val loss 10.939",
        "Ep 1 (Iter 000005): Train loss 9.151, Val loss 9.461",
    ]
    for line, wanted in zip(lines[:5], expected, strict=True):
        # Another processor adds in another order: one unit of the last digit is not a difference.
        assert ComparedFigure("", wanted, line).agrees in ("yes", "but for 1 in the last digit"), (
            line
        )
    page = (tmp_path / "page" / "book.md").read_text(encoding="utf-8")
    assert "Training steps: 6 of 135." in page
    assert "| sample after epoch 1, its beginning |" in page and "not reached" in page


# --- what agrees ---


@pytest.mark.parametrize(
    ("printed", "measured", "agrees"),
    [
        ("27", "27", "yes"),
        ("27", "28", "no"),
        ("10.934, 10.939", "10.934, 10.939", "yes"),
        ("10.934, 10.939", "10.935, 10.938", "but for 1 in the last digit"),
        ("10.934, 10.939", "10.936, 10.939", "no"),
        ("0.999", "1.000", "but for 1 in the last digit"),
        ("0.0411", "0.041", "no"),
        ("tensor(0.0411)", "tensor(0.0412)", "but for 1 in the last digit"),
        ("tensor(0.0411)", "array(0.0411)", "no"),
        ('you?" "Yes', 'you?"  "Yes', "yes"),
        ("10.934", None, ""),
        (None, "10.934", ""),
    ],
)
def test_figures_agree_to_the_printed_digits(
    printed: str | None, measured: str | None, agrees: str
) -> None:
    assert ComparedFigure("", printed, measured).agrees == agrees


OUTCOME = ListingResults(
    batches=9,
    warmup_steps=27,
    warmup_lrs=[0.0001, 0.01, 0.01],
    cosine_lrs=[0.0001, 0.01, 0.0000121],
    example_norm=5.0,
    example_clipped=[[0.2, 0.4], [0.4, 0.8]],
    largest_gradient=0.04113,
    largest_gradient_clipped=0.01854,
    largest_magnitude=0.0522,
    losses=[
        Losses(0, 10.934, 10.939),
        Losses(5, 9.151, 9.462),
        Losses(10, 7.9, 8.184),
        Losses(15, 6.362, 6.876),
        Losses(20, 5.8, 6.6),
    ],
    samples=["Every effort moves you" + "," * 50, "Every effort moves you a | b \x1b[2J"],
    iterations=21,
    training_seconds=60.0,
    seconds=75.0,
)
ENVIRONMENT = {
    "processor": "A | processor",
    "threads": 2,
    "memory_bytes": 8_000_000_000,
    "packages": {"torch": "2.10"},
}
BESIDE = RecipeRun(
    Path("runs/verdict-1"),
    "verdict",
    [0, 5, 10],
    [10.9, 8.3, 6.7],
    [10.9, 8.4, 6.9],
    10,
    90.0,
    42.0,
    220.0,
    {},
)


def test_each_figure_stands_beside_what_came_out() -> None:
    rows = {row.name: row for row in findings(OUTCOME, is_books_text=True)}
    assert rows["largest gradient of a batch"].measured == "0.0411"
    assert rows["sample after epoch 1, its beginning"].agrees == "yes"
    assert rows["sample after epoch 2, its beginning"].agrees == "no"
    assert rows["sample after epoch 15, its beginning"].measured is None
    agrees = {
        n: rows[f"training and validation loss, iteration {n}"].agrees for n in PRINTED_LOSSES
    }
    assert agrees == {0: "yes", 5: "but for 1 in the last digit", 10: "no", 15: "yes", 130: ""}
    # 7 before the losses, iterations 0 and 15, one sample; iteration 5; iteration 10 and a sample.
    assert agreement(list(rows.values())) == (
        "10 of 13 printed figures match to the digit, 1 but for 1 in the last digit, 2 did not"
    )


def test_of_another_text_only_what_no_text_changes_is_compared() -> None:
    rows = findings(replace(OUTCOME, warmup_steps=3), is_books_text=False)
    assert sum(row.agrees == "yes" for row in rows) == 4  # two learning rates, the small matrix
    assert not any(row.agrees == "no" for row in rows)


@pytest.mark.parametrize("beside", [None, BESIDE])
@pytest.mark.parametrize("is_books_text", [True, False])
def test_the_page_is_fit_for_the_docs(
    tmp_path: Path, beside: RecipeRun | None, is_books_text: bool
) -> None:
    path = write_page(
        OUTCOME,
        tmp_path,
        text_name="The Verdict",
        is_books_text=is_books_text,
        environment=ENVIRONMENT,
        recipe_run=beside,
    )
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "book.md"
    assert page.endswith("\n") and not page.endswith("\n\n")
    assert all(character.isprintable() or character == "\n" for character in page)
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert sorted(pictures) == ["book-cosine.png", "book-losses.png", "book-warmup.png"]
    assert {file.name for file in tmp_path.iterdir()} == {"book.md", *pictures}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    for command in commands(path):
        parse(command)
    columns = 0
    for before, line in zip(["", *page.splitlines()], page.splitlines(), strict=False):
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            columns = columns if before.startswith("|") else cells
            assert cells == columns, line
    assert ("speak of 20" in page) is is_books_text
    assert ("recipe `book`, on verdict" in page) is (beside is not None)
    assert "1m 15s, of it 1m 00s in `train_model`" in page
    assert r"A \| processor, 2 threads, 8 GB of memory" in page


def lines_of(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    (ax,) = (ax for ax in figure.axes if isinstance(ax, Axes))
    return {
        str(line.get_label()): [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()]
        for line in ax.lines
    }


def test_the_picture_of_the_losses_counts_updates_made() -> None:
    lines = lines_of(draw(losses_chart(OUTCOME, is_books_text=True, recipe_run=BESIDE)))
    # After the step of index 0 one update is made; the recipe counts updates itself.
    assert lines["listings, validation"][:2] == [(1, 10.939), (6, 9.462)]
    assert lines["recipe, training"] == [(0, 10.9), (5, 8.3), (10, 6.7)]
    assert (16, 6.876) in lines["as printed"] and len(lines["as printed"]) == 8
    assert "as printed" not in lines_of(draw(losses_chart(OUTCOME, is_books_text=False)))


def test_the_picture_of_the_rates_has_every_step() -> None:
    lines = lines_of(draw(step_chart("D.1", [0.0001, 0.005, 0.01, 0.01])))
    assert [(0, 0.0001), (1, 0.005), (2, 0.01), (3, 0.01)] in lines.values()
    assert any("1e-2 at update 2" in label for label in lines)


# --- the verb, and what it refuses before the work ---


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listings may not begin."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the listings began")

    monkeypatch.setattr(verb, "run_listings", never)


def refusal(done: Done) -> str:
    assert (done.code, done.out) == (2, ""), done
    (line,) = done.err.splitlines()
    return line.removeprefix("hairpin: ")


@pytest.mark.usefixtures("no_work")
def test_what_is_no_run_of_the_recipe_is_refused_at_once(hairpin: Hairpin, tmp_path: Path) -> None:
    assert "nowhere: not a run" in refusal(hairpin("book", "--beside", "nowhere"))
    text = text_file(tmp_path)
    api.train(text, out=tmp_path / "other", settings=tiny(), watcher=Quiet())
    line = refusal(hairpin("book", "--beside", "other"))
    assert line.startswith("other: made by the recipe gpt2")
    assert "hairpin train --recipe book" in line


@pytest.mark.usefixtures("no_work")
def test_a_text_that_cannot_be_read_is_refused_at_once(hairpin: Hairpin, tmp_path: Path) -> None:
    assert "nowhere.txt: cannot be read: No such file" in refusal(
        hairpin("book", "--text", "nowhere.txt")
    )
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    line = refusal(hairpin("book", "--text", "latin.txt"))
    assert line == "latin.txt: byte 3 is not UTF-8; write the file in UTF-8"


@pytest.mark.usefixtures("no_work")
def test_a_folder_that_cannot_be_is_refused_at_once(hairpin: Hairpin, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    (tmp_path / "book").write_text("a file", encoding="utf-8")
    line = refusal(hairpin("book", "--text", text))
    assert line.startswith("book: cannot be made a folder (File exists); name another with --out")


def test_too_little_text_is_refused_with_counts(gpt2_vocabulary: Path) -> None:
    with pytest.raises(CorpusError) as refused:
        make_loaders("word " * 90, 256)
    assert str(refused.value) == (
        "too little text: 450 characters make 0 training and 0 validation windows of 257 tokens, "
        "and 2 and 1 are needed; name a longer one"
    )


def test_without_the_vocabulary_there_is_one_line(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    line = refusal(hairpin("book", "--text", text_file(tmp_path)))
    assert line.startswith("GPT-2's vocabulary cannot be downloaded (ConnectionError); set")


@pytest.mark.parametrize("iterations", ["0", "136", "many"])
def test_there_are_135_iterations(hairpin: Hairpin, iterations: str) -> None:
    assert "--iterations" in refusal(hairpin("book", "--iterations", iterations))


def test_a_run_that_was_never_evaluated_says_how_to_go_on(tmp_path: Path) -> None:
    text = text_file(tmp_path)
    changes = tiny(recipe="book", tokenizer__kind="bytes", train__seed=5)
    run = api.train(text, out=tmp_path / "run", settings=changes, watcher=Quiet())
    beside = read_recipe_run(run.path)
    assert beside.updates == [0, 4, 8, 12] and beside.length == 12
    assert beside.text == "text.txt"
    assert beside.train[-1] < beside.train[0]
    assert beside.environment["device"] == "cpu"
    metrics = run.directory.metrics
    kept = [line for line in metrics.read_text("utf-8").splitlines() if '"evaluation"' not in line]
    metrics.write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="was never evaluated; resume it with `hairpin resume"):
        read_recipe_run(run.path)


def test_a_page_of_another_text_through_the_command_line(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2_vocabulary: Path
) -> None:
    def small(text: str, **options: Any) -> ListingResults:
        return run_listings(text, config=SMALL, **options)

    monkeypatch.setattr(verb, "run_listings", small)
    (tmp_path / "mine.txt").write_text(some_text(700), encoding="utf-8")
    done = hairpin("book", "--text", "mine.txt", "--iterations", "3", "--out", "a/page")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "written: a/page/book.md, with its plots next to it"
    page = (tmp_path / "a" / "page" / "book.md").read_text(encoding="utf-8")
    assert "Text: mine.txt" in page and "are about another text" in page
