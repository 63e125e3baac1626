"""The fast model against the book's plain one, at shared weights; and the recipe that trains it."""

import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hairpin import api
from hairpin.book import GPT_CONFIG_124M, GPTModel, calc_loss_batch
from hairpin.config.load import build_config
from hairpin.config.settings import Guard as GuardSettings
from hairpin.config.settings import Optimizer
from hairpin.errors import RunError
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.planning.sizes import count_parameters
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper
from hairpin.weights.book_weights import from_book, to_book
from hairpin.weights.transformers_weights import from_transformers, to_plain
from helpers import BOOK_TINY, lively_model, of_kind, random_ids, shaken, text_file

SHAPE = Shape(64, 8, layers=2, heads=2, width=16, tied=False)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_the_fast_model_is_the_books(qkv_bias: bool) -> None:
    book = shaken(GPTModel(BOOK_TINY | {"qkv_bias": qkv_bias}))
    fast = GPT(replace(SHAPE, qkv_bias=qkv_bias))
    fast.load_state_dict(from_book(book.state_dict(), 2), strict=True)
    x, y = random_ids(3, 8), random_ids(3, 8, seed=1)
    torch.testing.assert_close(fast.logits(x), book(x), atol=1e-5, rtol=1e-5)

    calc_loss_batch(x, y, book, "cpu").backward()  # type: ignore[no-untyped-call]
    loss_sum, count = fast(x, y)
    (loss_sum / count).backward()
    gradients = {name: p.grad for name, p in book.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(book.parameters()))
    wanted = from_book(gradients, 2)
    for name, parameter in fast.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-4, rtol=1e-4, msg=name)
        if not name.endswith("query_key_value.bias"):  # that of a key is zero but for rounding
            assert wanted[name].abs().max() > 1e-3, f"{name}: too small to tell anything"


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-4), ("bfloat16", 0.03)])
def test_twenty_updates_have_the_losses_of_the_books_loop(precision: str, most: float) -> None:
    """The step with its clipping, folded division and all, at a size of several blocks of
    attention: 160 positions. The loss falls by a whole nat.
    """
    sizes = {"context_length": 160, "emb_dim": 32, "n_heads": 4, "vocab_size": 300}
    book = GPTModel(BOOK_TINY | sizes | {"drop_rate": 0.0})
    fast = GPT(replace(SHAPE, vocabulary=300, context=160, heads=4, width=32, qkv_bias=False))
    fast.load_state_dict(from_book(book.state_dict(), 2), strict=True)
    stepper = Stepper(
        Spread(fast), build_optimizer(fast, Optimizer(weight_decay=0.0, beta2=0.999)),
        Clipper("norm", 1.0), Numerics("cpu", precision), seed=0, micro_batch=2,
        guard=Guard(GuardSettings(), "cpu"),
    )  # fmt: skip
    plain = torch.optim.AdamW(book.parameters(), lr=3e-3, weight_decay=0.0)
    x, y = (torch.randint(0, 300, (4, 160), generator=seeded(seed)) for seed in (0, 1))
    losses = []
    for update in range(20):
        plain.zero_grad()
        loss = calc_loss_batch(x, y, book, "cpu")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(book.parameters(), max_norm=1.0)
        plain.step()
        ours = stepper.step((x, y), update=update, position=0, lr=3e-3)
        losses.append(float(loss.detach()))
        assert float(ours.loss) == pytest.approx(losses[-1], abs=most), update
    assert losses[0] - losses[-1] > 1


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_the_books_weights_come_back_unchanged(qkv_bias: bool) -> None:
    state = shaken(GPTModel(BOOK_TINY | {"qkv_bias": qkv_bias})).state_dict()
    back = to_book(from_book(state, 2), 2)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize(
    ("tied", "bias", "qkv_bias"), list(itertools.product((True, False), repeat=3))
)
def test_every_model_of_ours_is_one_of_the_book(tied: bool, bias: bool, qkv_bias: bool) -> None:
    shape = replace(SHAPE, tied=tied, bias=bias, qkv_bias=qkv_bias)
    ours = lively_model(shape)
    book = GPTModel(BOOK_TINY | {"qkv_bias": bias and qkv_bias})
    book.load_state_dict(to_book(ours.state_dict(), 2), strict=True)
    ids = random_ids(2, 8)
    torch.testing.assert_close(book(ids), ours.logits(ids), atol=1e-5, rtol=1e-5)
    back = from_book(book.state_dict(), 2)
    assert ("head.weight" in back) is not tied
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back[name], tensor), name


def test_weights_of_another_depth_are_refused_by_the_tensor_that_is_missing() -> None:
    state = GPTModel(BOOK_TINY).state_dict()
    with pytest.raises(RunError, match=r"of 3 layers: trf_blocks\.2\.norm1\.scale is missing"):
        from_book(state, 3)
    del state["trf_blocks.1.att.W_key.weight"]
    with pytest.raises(RunError, match=r"trf_blocks\.1\.att\.W_key\.weight is missing"):
        from_book(state, 2)


def test_gpt2s_layout_gets_zeros_where_query_key_and_value_have_no_bias() -> None:
    bare = lively_model(replace(SHAPE, qkv_bias=False))
    theirs = to_plain(bare.state_dict(), bare.shape)
    assert theirs["h.1.attn.c_attn.bias"].tolist() == [0.0] * 48
    assert theirs["h.1.attn.c_proj.bias"].any()
    full = GPT(SHAPE)
    full.load_state_dict(from_transformers(theirs, SHAPE), strict=True)
    ids = random_ids(2, 8)
    torch.testing.assert_close(full.logits(ids), bare.logits(ids), atol=1e-6, rtol=1e-6)


# --- sizes and first weights ---


@pytest.mark.parametrize(
    ("tied", "bias", "qkv_bias"), list(itertools.product((True, False), repeat=3))
)
def test_the_count_on_paper_is_that_of_the_module(tied: bool, bias: bool, qkv_bias: bool) -> None:
    shape = Shape(61, 9, 3, heads=2, width=12, tied=tied, bias=bias, qkv_bias=qkv_bias)
    model = GPT(shape)
    assert count_parameters(shape).total == sum(p.numel() for p in model.parameters())
    names = {name.rpartition(".")[2] for name, _ in model.blocks[0].named_parameters()}
    assert ("bias" in names) is bias
    fused = "attention.query_key_value.bias"
    assert (fused in dict(model.blocks[0].named_parameters())) is (bias and qkv_bias)


def test_the_recipes_model_has_as_many_parameters_as_the_books() -> None:
    config = build_config(flags={"recipe": "book"})
    shape = Shape.of(config.model, 50_257)
    with torch.device("meta"):
        book = GPTModel(GPT_CONFIG_124M)
    # Two matrices of 50,257 · 768, positions of 256 · 768; twelve blocks of 12 · 768², two norms
    # of 2 · 768 and biases of (1 + 4 + 1) · 768; a last norm of 2 · 768.
    block = 12 * 768**2 + 4 * 768 + 6 * 768
    by_hand = 2 * 50_257 * 768 + 256 * 768 + 12 * block + 2 * 768
    assert by_hand == 162_419_712
    assert count_parameters(shape).total == by_hand == sum(p.numel() for p in book.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_pytorchs_first_weights_have_the_spread_of_pytorchs_layers(bias: bool) -> None:
    shape = Shape(512, 128, 2, 4, 128, tied=False, bias=bias, initialisation="pytorch")
    torch.manual_seed(0)
    for path, module in GPT(shape, seed=4).named_modules():
        fresh: nn.Module
        if isinstance(module, nn.Linear):
            fresh = nn.Linear(module.in_features, module.out_features, module.bias is not None)
        elif isinstance(module, nn.Embedding):
            fresh = nn.Embedding(module.num_embeddings, module.embedding_dim)
        elif isinstance(module, nn.LayerNorm):
            fresh = nn.LayerNorm(128, bias=bias)
        else:
            continue
        for (part, ours), theirs in zip(module.named_parameters(), fresh.parameters(), strict=True):
            name, noise = f"{path}.{part}", 5 / math.sqrt(ours.numel())
            if isinstance(module, nn.LayerNorm):
                assert torch.equal(ours, theirs), name
                continue
            std = theirs.std().item()
            assert ours.std().item() == pytest.approx(std, rel=noise), name
            assert abs(ours.mean().item()) < noise * std, name
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                assert 0.95 * bound < ours.abs().max().item() <= bound, name


def test_pytorchs_first_weights_depend_on_seed_and_name_alone() -> None:
    small = dict(GPT(replace(SHAPE, initialisation="pytorch", layers=1), seed=9).named_parameters())
    torch.manual_seed(1)
    shape = replace(SHAPE, initialisation="pytorch", layers=3, tied=True, qkv_bias=False)
    large = dict(GPT(shape, seed=9).named_parameters())
    shared = small.keys() & large.keys()
    assert len(shared) == len(small) - 2  # but for the head, and the bias of query, key and value
    assert all(torch.equal(small[name], large[name]) for name in shared)
    other = dict(GPT(replace(SHAPE, initialisation="pytorch"), seed=8).named_parameters())
    assert not any(torch.equal(small[n], other[n]) for n in shared if "norm." not in n)
    starts = [tuple(p.flatten()[:4].tolist()) for n, p in small.items() if "norm." not in n]
    assert len(set(starts)) == len(starts)


# --- the recipe ---


def test_the_recipe_is_the_appendixs_experiment() -> None:
    config = build_config(flags={"recipe": "book"})
    assert (config.data.corpus, config.tokenizer.kind) == ("verdict", "gpt2")
    assert (config.model.qkv_bias, config.model.bias, config.model.tied) == (False, True, False)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.9, 0.999)
    assert config.optimizer.weight_decay == 0.1
    assert (config.clip.kind, config.clip.threshold) == ("norm", 1.0)
    curve = api.schedule(settings={"recipe": "book"})
    assert (curve.updates, curve.warmup) == (135, 27)
    assert (curve(0), curve(27), curve(134)) == (1e-5, 1e-3, 1e-5)


def test_a_file_flags_and_a_text_override_the_recipe(tmp_path: Path) -> None:
    text = str(text_file(tmp_path))
    config = build_config(flags={"recipe": "book", "data.texts": [text], "train.updates": 20})
    assert config.data.corpus is None
    assert config.model.dropout == 0.1
    flags = {"recipe": "book", "schedule.kind": "constant", "model.size": "tiny"}
    config = build_config(flags=flags)
    assert (config.schedule.min_lr, config.model.layers) == (None, None)
    assert api.schedule(settings=flags)(134) == 1e-3


@pytest.fixture(scope="module")
def small_run(
    tmp_path_factory: pytest.TempPathFactory, gpt2_vocabulary: Path, verdict_file: Path
) -> Run:
    """A run of the recipe with no text named, shorter and of a smaller model."""
    folder = tmp_path_factory.mktemp("recipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIRPIN_CACHE", str(folder / "cache"))
        (folder / "cache" / "texts").mkdir(parents=True)
        shutil.copy(verdict_file, folder / "cache" / "texts" / "the-verdict.txt")
        settings = {
            "recipe": "book",
            "model.layers": 1,
            "model.heads": 2,
            "model.width": 8,
            "execution.device": "cpu",
            "execution.precision": "float32",
            "train.updates": 30,
            "evaluate.every_updates": 15,
            "evaluate.sample_tokens": 3,
        }
        return api.train(out=folder / "run", settings=settings, watcher=Quiet())


def test_the_recipe_trains_on_the_story_when_no_text_is_named(small_run: Run) -> None:
    config, record = small_run.config, small_run.record()
    assert config.recipe == "book" and config.data.corpus == "verdict"
    (plan,) = of_kind(record, "plan")
    # The story has 5,145 of GPT-2's tokens.
    assert plan["train_tokens"] + plan["val_tokens"] == pytest.approx(5145, abs=5)
    assert plan["val_tokens"] / 5145 == pytest.approx(0.1, abs=0.01)
    updates = of_kind(record, "update")
    lr = [event["lr"] for event in updates]
    assert (len(lr), lr[0], lr[6], lr[29]) == (30, 1e-5, 1e-3, 1e-5)
    assert all(event["tokens"] == 512 for event in updates)
    assert all(event["clipped"] == (event["grad_norm"] > 1.0) for event in updates)
    samples = of_kind(record, "sample")
    assert {event["prompt"] for event in samples} == {"Every effort moves you"}


def test_a_run_of_the_recipe_is_read_back_as_it_was(small_run: Run) -> None:
    stored = small_run.config
    assert stored.schedule.warmup_updates == 6
    assert stored.schedule.warmup_fraction is None
    assert stored.schedule.min_lr == 1e-5
    assert small_run.trained().model.shape.qkv_bias is False
