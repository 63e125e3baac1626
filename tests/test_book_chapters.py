"""What chapters 5, 6 and 7 of the book import, and their pages in small."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import hairpin.book
from hairpin.book import (
    GELU,
    FeedForward,
    FeedForwardFast,
    GPTModel,
    GPTModelFast,
    LayerNorm,
    MultiHeadAttention,
    PyTorchMultiHeadAttention,
    TransformerBlock,
    TransformerBlockFast,
    assign,
    calc_loss_loader,
    ch06,
    ch07,
    generate,
    generate_text_simple,
    load_weights_into_gpt,
    plot_losses,
    text_to_token_ids,
    token_ids_to_text,
    train_model,
    train_model_simple,
)
from helpers import BOOK_TINY, WordsOfTwo, book_batches, gpt2_tensors, random_ids, shaken
from test_model import plain_logits

# Parameters of the functions of the book's repository, with their defaults; but that there
# `orig_book_version` is False, so that a printed listing does not come to the printed figures.
SIGNATURES: dict[str, str] = {
    "assign": "left right",
    "calc_loss_batch": "input_batch target_batch model device",
    "calc_loss_loader": "data_loader model device num_batches=None",
    "create_dataloader_v1": "txt batch_size=4 max_length=256 stride=128 shuffle=True "
    "drop_last=True num_workers=0",
    "evaluate_model": "model train_loader val_loader device eval_iter",
    "find_highest_gradient": "model",
    "generate": "model idx max_new_tokens context_size temperature=0.0 top_k=None eos_id=None",
    "generate_and_print_sample": "model tokenizer device start_context",
    "generate_text_simple": "model idx max_new_tokens context_size",
    "load_weights_into_gpt": "gpt params",
    "plot_losses": "epochs_seen tokens_seen train_losses val_losses",
    "text_to_token_ids": "text tokenizer",
    "token_ids_to_text": "token_ids tokenizer",
    "train_model": "model train_loader val_loader optimizer device n_epochs eval_freq eval_iter "
    "start_context tokenizer warmup_steps initial_lr=3e-05 min_lr=1e-06 orig_book_version=True",
    "train_model_simple": "model train_loader val_loader optimizer device num_epochs eval_freq "
    "eval_iter start_context tokenizer",
    "FeedForwardFast": "cfg",
    "GPTModelFast": "cfg",
    "PyTorchMultiHeadAttention": "d_in d_out num_heads dropout=0.0 qkv_bias=False",
    "TransformerBlockFast": "cfg",
    "ch06.SpamDataset": "csv_file tokenizer max_length=None pad_token_id=50256",
    "ch06.calc_accuracy_loader": "data_loader model device num_batches=None",
    "ch06.calc_loss_batch": "input_batch target_batch model device",
    "ch06.calc_loss_loader": "data_loader model device num_batches=None",
    "ch06.classify_review": "text model tokenizer device max_length=None pad_token_id=50256",
    "ch06.create_balanced_dataset": "df",
    "ch06.evaluate_model": "model train_loader val_loader device eval_iter",
    "ch06.plot_values": "epochs_seen examples_seen train_values val_values label='loss'",
    "ch06.random_split": "df train_frac validation_frac",
    "ch06.train_classifier_simple": "model train_loader val_loader optimizer device num_epochs "
    "eval_freq eval_iter",
    "ch07.InstructionDataset": "data tokenizer",
    "ch07.custom_collate_fn": "batch pad_token_id=50256 ignore_index=-100 "
    "allowed_max_length=None device='cpu'",
    "ch07.format_input": "entry",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_arguments_are_those_of_the_books_repository(name: str) -> None:
    found: Any = hairpin.book
    for part in name.split("."):
        found = getattr(found, part)
    shown = [
        parameter.name
        if parameter.default is parameter.empty
        else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(found).parameters.values()
    ]
    assert " ".join(shown) == SIGNATURES[name]


# --- the model ---


def test_gelu_has_the_books_constant() -> None:
    x = torch.logspace(-6, -3, 2001)
    constant = torch.sqrt(torch.tensor(2.0 / torch.pi))
    expected = 0.5 * x * (1 + torch.tanh(constant * (x + 0.044715 * x**3)))
    assert torch.equal(GELU()(x), expected)


def as_fast(plain: nn.Module) -> dict[str, Tensor]:
    """The state of a plain part under the names of its fast variant."""
    state = plain.state_dict()
    fast: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if "W_query" in name:
            thirds = [
                state[name.replace("W_query", f"W_{part}")] for part in ("query", "key", "value")
            ]
            fast[name.replace("W_query", "qkv")] = torch.cat(thirds)
        elif "W_" not in name and "mask" not in name:
            new = name.replace("out_proj", "proj")
            fast[new.replace(".scale", ".weight").replace(".shift", ".bias")] = tensor
    return fast


CFG = BOOK_TINY | {"drop_rate": 0.0}
WIDTH, HEADS = CFG["emb_dim"], CFG["n_heads"]
PAIRS: list[tuple[Callable[[bool], nn.Module], Callable[[bool], nn.Module]]] = [
    (
        lambda b: MultiHeadAttention(WIDTH, WIDTH, 8, 0.0, HEADS, qkv_bias=b),
        lambda b: PyTorchMultiHeadAttention(WIDTH, WIDTH, HEADS, qkv_bias=b),
    ),
    (lambda _: FeedForward(CFG), lambda _: FeedForwardFast(CFG)),
    (
        lambda b: TransformerBlock(CFG | {"qkv_bias": b}),
        lambda b: TransformerBlockFast(CFG | {"qkv_bias": b}),
    ),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("plain", "fast"), PAIRS)
def test_fast_parts_compute_what_the_plain_ones_do(
    plain: Callable[[bool], nn.Module], fast: Callable[[bool], nn.Module], bias: bool
) -> None:
    one, other = shaken(plain(bias)), fast(bias)
    other.load_state_dict(as_fast(one), strict=True)
    x = torch.randn(2, 7, WIDTH)
    torch.testing.assert_close(other(x), one(x), atol=1e-5, rtol=1e-5)


def test_the_fast_model_computes_what_the_plain_one_does() -> None:
    one, other = shaken(GPTModel(CFG)), GPTModelFast(CFG)
    other.load_state_dict(as_fast(one), strict=True)
    ids = random_ids(2, 8)
    torch.testing.assert_close(other(ids), one(ids), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="d_out, 10, is not a multiple of num_heads, 4"):
        PyTorchMultiHeadAttention(10, 10, num_heads=4)
    assert not isinstance(LayerNorm(4), nn.LayerNorm)


def test_the_fast_model_drops_in_training_only() -> None:
    model = shaken(GPTModelFast(CFG | {"drop_rate": 0.5}))
    ids = random_ids(1, 8)
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


# --- GPT-2's weights ---

GPT2_CFG = {
    "vocab_size": 300, "context_length": 12, "emb_dim": 32, "n_heads": 4, "n_layers": 2,
    "drop_rate": 0.0, "qkv_bias": True,
}  # fmt: skip


def params_of(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """GPT-2's tensors as chapter 5 has them from OpenAI's files."""
    array = {name: tensor.numpy() for name, tensor in tensors.items()}

    def part(name: str, weight: str, bias: str) -> dict[str, Any]:
        return {weight: array[f"{name}.weight"], bias: array[f"{name}.bias"]}

    blocks = [
        {
            "ln_1": part(f"h.{h}.ln_1", "g", "b"),
            "ln_2": part(f"h.{h}.ln_2", "g", "b"),
            "attn": {name: part(f"h.{h}.attn.{name}", "w", "b") for name in ("c_attn", "c_proj")},
            "mlp": {name: part(f"h.{h}.mlp.{name}", "w", "b") for name in ("c_fc", "c_proj")},
        }
        for h in range(2)
    ]
    top = {"wte": array["wte.weight"], "wpe": array["wpe.weight"]}
    return top | {"g": array["ln_f.weight"], "b": array["ln_f.bias"], "blocks": blocks}


def test_gpt2s_weights_give_gpt2s_logits() -> None:
    tensors = gpt2_tensors()
    model = GPTModel(GPT2_CFG)
    load_weights_into_gpt(model, params_of(tensors))
    ids = random_ids(12, below=300)
    doubles = {name: tensor.double() for name, tensor in tensors.items()}
    expected = plain_logits(ids, doubles, layers=2, heads=4)
    found = model(ids[None])[0].detach().double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.out_head.weight is not model.tok_emb.weight


def test_weights_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Shape mismatch. Left: torch.Size\(\[2\]\), Right: \(3,"):
        assign(torch.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="Shape mismatch"):
        load_weights_into_gpt(GPTModel(GPT2_CFG | {"emb_dim": 16}), params_of(gpt2_tensors()))
    with pytest.raises(ValueError, match="2 blocks for a model of 1"):
        load_weights_into_gpt(GPTModel(GPT2_CFG | {"n_layers": 1}), params_of(gpt2_tensors()))


# --- writing ---


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(4)
    return shaken(GPTModel(CFG)).eval()


def test_without_a_temperature_it_is_the_simple_generation(model: GPTModel) -> None:
    ids = random_ids(2, 3)
    expected = generate_text_simple(model, ids, 9, 8)
    assert torch.equal(generate(model, ids, 9, 8), expected)
    assert torch.equal(generate(model, ids, 9, 8, temperature=1.4, top_k=1), expected)


@pytest.mark.parametrize("top_k", [None, 3])
def test_tokens_are_drawn_as_their_probabilities_say(model: GPTModel, top_k: int | None) -> None:
    ids = random_ids(1, 3).expand(4000, 3)
    torch.manual_seed(1)
    drawn = generate(model, ids, 1, 8, temperature=0.7, top_k=top_k)[:, -1]
    logits = model(ids[:1])[0, -1].detach().double() / 0.7
    if top_k:
        logits[logits.argsort()[:-top_k]] = -math.inf
    expected = torch.softmax(logits, 0)
    found = torch.bincount(drawn, minlength=len(logits)) / 4000
    assert (found[expected == 0] == 0).all()
    assert float((found - expected).abs().max()) < 5 * 0.5 / math.sqrt(4000)


def test_it_ends_before_the_end_of_text(model: GPTModel) -> None:
    ids = random_ids(1, 3)
    whole = generate_text_simple(model, ids, 12, 8)[0].tolist()
    new = whole[3:]
    end = next(index for index in range(1, 12) if new[index] not in new[:index])
    found = generate(model, ids, 12, 8, eos_id=new[end])
    assert found.tolist() == [whole[: 3 + end]]


# --- loops and plots ---


def steps_clipped(monkeypatch: pytest.MonkeyPatch, **named: Any) -> int:
    count = 0

    def clip(*_: Any, **__: Any) -> None:
        nonlocal count
        count += 1

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    model = GPTModel(BOOK_TINY)
    train_model(
        model, book_batches(4), book_batches(1), torch.optim.SGD(model.parameters(), 0.01), "cpu",
        n_epochs=2, eval_freq=50, eval_iter=1, start_context="ab", tokenizer=WordsOfTwo(),
        warmup_steps=3, **named,
    )  # fmt: skip
    return count


def test_the_printed_version_leaves_the_first_step_at_the_peak_unclipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps_clipped(monkeypatch, orig_book_version=False) == 5  # steps 3 to 7 of 8
    assert steps_clipped(monkeypatch, orig_book_version=True) == 4
    assert steps_clipped(monkeypatch) == 4
    assert "(Iter 000000)" in capsys.readouterr().out


def test_the_simple_loop_counts_steps(capsys: pytest.CaptureFixture[str]) -> None:
    model = GPTModel(BOOK_TINY)
    losses = train_model_simple(
        model, book_batches(4), book_batches(1), torch.optim.SGD(model.parameters(), 0.01), "cpu",
        num_epochs=2, eval_freq=3, eval_iter=1, start_context="ab", tokenizer=WordsOfTwo(),
    )  # fmt: skip
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Ep")]
    assert lines == [
        f"Ep {epoch} (Step {step:06d}): Train loss {train:.3f}, Val loss {val:.3f}"
        for epoch, step, train, val in zip((1, 1, 2), (0, 3, 6), *losses[:2], strict=True)
    ]


@pytest.mark.parametrize("plot", [plot_losses, partial(ch06.plot_values, label="accuracy")])
def test_a_plot_has_whole_epochs_below(
    plot: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    plot(torch.linspace(0, 2, 5), torch.linspace(0, 90, 5), [5, 4, 3, 2, 1], [5, 4, 4, 4, 4])
    figure = plt.gcf()
    below, above = figure.axes
    ticks = [tick for tick in below.get_xticks() if 0 <= tick <= 2]
    assert ticks == [0, 1, 2]
    assert [np.asarray(line.get_ydata()).tolist() for line in below.lines] == [
        [5, 4, 3, 2, 1],
        [5, 4, 4, 4, 4],
    ]
    words = below.get_ylabel(), above.get_xlabel()
    assert words in (("Loss", "Tokens seen"), ("Accuracy", "Examples seen"))
    plt.close(figure)


# --- chapter 6 ---


class Letters:
    """A tokenizer of 50,258 ids in which the book's padding is free: a letter is an id."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


LETTERS_CFG = CFG | {"vocab_size": 130, "context_length": 24, "n_layers": 2}
Batch = tuple[Tensor, Tensor]


def labelled(count: int, seed: int) -> list[Batch]:
    """Batches of four texts of a's and b's that end with padding, and whether they hold a b."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((4 * count, 6), 128)
    ids[:, :5] = torch.randint(97, 99, (4 * count, 5), generator=generator)
    ids[::2, :5] = 97
    labels = (ids == 98).any(1).long()
    return [(ids[at : at + 4], labels[at : at + 4]) for at in range(0, 4 * count, 4)]


def as_classifier(model: GPTModel) -> GPTModel:
    """As the chapter makes one of a GPT: a head of two labels, and only the top trains."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.out_head = nn.Linear(in_features=LETTERS_CFG["emb_dim"], out_features=2)
    for part in (model.trf_blocks[-1], model.final_norm):
        for parameter in part.parameters():
            parameter.requires_grad = True
    return model


def test_the_page_of_chapter_6(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(123)
    model = GPTModel(LETTERS_CFG)
    prompt = text_to_token_ids("ab", Letters())
    written = generate_text_simple(model=model, idx=prompt, max_new_tokens=3, context_size=24)
    assert token_ids_to_text(written, Letters()).startswith("ab")
    as_classifier(model)
    train_loader, val_loader = labelled(12, seed=1), labelled(3, seed=2)
    before = ch06.calc_loss_loader(train_loader, model, "cpu", num_batches=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
    train_losses, val_losses, train_accs, val_accs, examples_seen = ch06.train_classifier_simple(
        model, train_loader, val_loader, optimizer, "cpu", num_epochs=6, eval_freq=12, eval_iter=5,
    )  # fmt: skip
    assert (len(train_losses), len(val_losses), len(train_accs)) == (6, 6, 6)
    assert examples_seen == 6 * 48
    assert train_losses[0] < before + 0.1 and train_losses[-1] < 0.4
    assert train_accs[-1] > 0.9 and val_accs[-1] > 0.8
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"Ep 1 (Step 000000): Train loss {train_losses[0]:.3f}, Val loss {val_losses[0]:.3f}"
    )
    assert lines[-1] == (
        f"Training accuracy: {100 * train_accs[-1]:.2f}% | "
        f"Validation accuracy: {100 * val_accs[-1]:.2f}%"
    )
    review = partial(
        ch06.classify_review, model=model, tokenizer=Letters(), device="cpu", pad_token_id=128
    )
    assert review("aabba", max_length=6) == "spam"
    assert review("aaaaa", max_length=6) == "not spam"


def test_losses_and_accuracies_of_labels_are_those_of_the_last_token() -> None:
    model = as_classifier(shaken(GPTModel(LETTERS_CFG))).eval()
    batches = labelled(3, seed=3)
    by_hand = [F.cross_entropy(model(x)[:, -1], y).item() for x, y in batches]
    assert ch06.calc_loss_loader(batches, model, "cpu") == pytest.approx(sum(by_hand) / 3)
    assert ch06.calc_loss_loader(batches, model, "cpu", 1) == pytest.approx(by_hand[0])
    assert math.isnan(ch06.calc_loss_loader([], model, "cpu"))
    right = [int((model(x)[:, -1].argmax(-1) == y).sum()) for x, y in batches]
    assert ch06.calc_accuracy_loader(batches, model, "cpu") == sum(right) / 12
    assert ch06.calc_accuracy_loader(batches, model, "cpu", num_batches=2) == sum(right[:2]) / 8
    losses = ch06.evaluate_model(model, batches, batches[1:], "cpu", 1)
    assert losses == pytest.approx(by_hand[:2]) and model.training


def test_a_review_of_no_given_length_fills_the_context() -> None:
    model = as_classifier(GPTModel(LETTERS_CFG))
    seen: list[Tensor] = []
    model.register_forward_hook(lambda part, given, out: seen.append(given[0]))
    for text, length in (("ab", None), ("a" * 40, None), ("ab" * 9, 6)):
        ch06.classify_review(text, model, Letters(), "cpu", max_length=length, pad_token_id=128)
    assert [tuple(ids.shape) for ids in seen] == [(1, 24), (1, 24), (1, 6)]
    assert seen[0].tolist()[0] == [97, 98] + [128] * 22


def test_tables_of_texts_are_pandas(tmp_path: Any) -> None:
    pd = pytest.importorskip("pandas")
    rows = [("ham", "a" * n) for n in range(1, 9)] + [("spam", "b" * n) for n in range(1, 4)]
    balanced = ch06.create_balanced_dataset(pd.DataFrame(rows, columns=["Label", "Text"]))
    assert balanced["Label"].value_counts().to_dict() == {"ham": 3, "spam": 3}
    parts = ch06.random_split(balanced, 0.5, 0.2)
    assert [len(part) for part in parts] == [3, 1, 2]
    table = pd.DataFrame({"Label": [0, 1], "Text": ["abc", "a"]})
    table.to_csv(tmp_path / "t.csv", index=None)
    dataset = ch06.SpamDataset(tmp_path / "t.csv", Letters(), pad_token_id=128)
    assert (len(dataset), dataset.max_length) == (2, 3)
    ids, label = dataset[1]
    assert (ids.tolist(), label.item()) == ([97, 128, 128], 1)
    assert ch06.SpamDataset(tmp_path / "t.csv", Letters(), 2)[0][0].tolist() == [97, 98]


# --- chapter 7 ---

ENTRIES = [
    {"instruction": f"say {letter}", "input": "" if letter < "c" else letter, "output": letter * 3}
    for letter in "abcdef"
]


def test_a_prompt_names_an_input_only_where_there_is_one() -> None:
    without, with_input = (ch07.format_input(ENTRIES[n]) for n in (0, 2))
    assert without.endswith("completes the request.\n\n### Instruction:\nsay a")
    assert with_input.endswith("### Instruction:\nsay c\n\n### Input:\nc")
    dataset = ch07.InstructionDataset(ENTRIES, Letters())
    assert len(dataset) == 6
    assert Letters().decode(dataset[2]) == f"{with_input}\n\n### Response:\nccc"


def test_a_batch_is_padded_and_only_the_first_padding_is_predicted() -> None:
    inputs, targets = ch07.custom_collate_fn([[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]])
    assert inputs.tolist() == [
        [0, 1, 2, 3, 4],
        [5, 6, 50256, 50256, 50256],
        [7, 8, 9, 50256, 50256],
    ]
    assert targets.tolist() == [
        [1, 2, 3, 4, 50256],
        [6, 50256, -100, -100, -100],
        [8, 9, 50256, -100, -100],
    ]
    inputs, targets = ch07.custom_collate_fn([[0, 1, 2], [5]], allowed_max_length=2)
    assert (inputs.tolist(), targets.tolist()) == ([[0, 1], [5, 50256]], [[1, 2], [50256, -100]])
    _, targets = ch07.custom_collate_fn([[1, 7, 2], [1]], pad_token_id=7, ignore_index=-1)
    assert targets.tolist() == [[7, 2, -1], [7, -1, -1]]


def test_the_page_of_chapter_7(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(123)
    cfg = LETTERS_CFG | {"context_length": 200}
    model = GPTModel(cfg)
    collate = partial(ch07.custom_collate_fn, pad_token_id=128, allowed_max_length=200)
    loader = DataLoader(
        ch07.InstructionDataset(ENTRIES, Letters()),
        batch_size=3,
        collate_fn=collate,
        shuffle=True,
        drop_last=True,
    )
    before = calc_loss_loader(loader, model, "cpu", num_batches=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
    train_losses, val_losses, tokens_seen = train_model_simple(
        model, loader, loader, optimizer, "cpu", num_epochs=4, eval_freq=5, eval_iter=2,
        start_context=ch07.format_input(ENTRIES[0]), tokenizer=Letters(),
    )  # fmt: skip
    assert len(train_losses) == len(val_losses) == len(tokens_seen) == 2
    assert train_losses[-1] < before
    assert "Ep 1 (Step 000000): Train loss" in capsys.readouterr().out
    token_ids = generate(
        model=model,
        idx=text_to_token_ids(ch07.format_input(ENTRIES[1]), Letters()),
        max_new_tokens=5,
        context_size=cfg["context_length"],
        eos_id=128,
    )
    assert token_ids_to_text(token_ids, Letters()).startswith(ch07.format_input(ENTRIES[1]))
