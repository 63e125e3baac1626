import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.config.recipes import SIZES
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.planning.sizes import (
    count_parameters,
    flops_per_token,
    micro_batch_sequences,
    state_bytes,
)

GPT2 = Shape(50_257, 1024, layers=12, heads=12, width=768)


def named(size: str) -> Shape:
    facts = SIZES[size]
    return Shape(50_257, facts["context"], facts["layers"], facts["heads"], facts["width"])


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        # What the published checkpoints hold.
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_the_gpt2_sizes_have_the_parameters_of_gpt2(size: str, parameters: int) -> None:
    assert count_parameters(named(size)).total == parameters


def test_parameters_by_part_add_up() -> None:
    parts = count_parameters(GPT2)
    assert parts.token_embedding == 50_257 * 768
    assert parts.position_embedding == 1024 * 768
    assert parts.blocks == 12 * 7_087_872
    assert parts.final_norm == 1536
    assert parts.head == 0


@pytest.mark.parametrize(("tied", "bias"), list(itertools.product((True, False), repeat=2)))
@pytest.mark.parametrize("layers", [1, 3])
def test_the_count_on_paper_is_that_of_the_module(layers: int, tied: bool, bias: bool) -> None:
    shape = Shape(61, 9, layers, heads=2, width=12, tied=tied, bias=bias)
    model = GPT(shape)
    parts = count_parameters(shape)
    assert parts.total == sum(parameter.numel() for parameter in model.parameters())
    assert parts.blocks == sum(parameter.numel() for parameter in model.blocks.parameters())
    assert state_bytes(shape) == 4 * 4 * parts.total


def test_every_named_size_has_whole_heads_and_each_is_larger_than_the_one_before() -> None:
    assert all(size["width"] % size["heads"] == 0 for size in SIZES.values())
    totals = [count_parameters(named(size)).total for size in SIZES]
    assert totals == sorted(totals)


def test_flops_of_gpt2_by_hand() -> None:
    # N: 12 blocks of 12 · 768² and a head of 768 for each token of the vocabulary. 6 N, and
    # 12 · 12 layers · 768 wide · 1024 positions = 113,246,208 for attention.
    assert flops_per_token(GPT2) == 6 * (84_934_656 + 38_597_376) + 113_246_208 == 854_438_400
    # With the vocabulary padded to 50,304, as it is often trained: the 854.7 MFLOP one reads of.
    padded = replace(GPT2, vocabulary=50_304)
    assert flops_per_token(padded) / 1e6 == pytest.approx(854.7, abs=0.05)


def test_tying_weights_saves_no_operation() -> None:
    assert flops_per_token(replace(GPT2, tied=False)) == flops_per_token(GPT2)


@given(
    samples=st.integers(1, 500),
    memory=st.floats(1e6, 1e12),
    device=st.sampled_from(["cpu", "mps", "cuda"]),
    size=st.sampled_from(list(SIZES)),
)
def test_a_micro_batch_is_at_least_one_and_at_most_the_update(
    samples: int, memory: float, device: str, size: str
) -> None:
    sequences = micro_batch_sequences(named(size), samples, memory, device)
    assert 1 <= sequences <= samples
    assert sequences <= micro_batch_sequences(named(size), samples, 2 * memory, device)


def test_memory_bounds_the_micro_batch() -> None:
    # State: 16 · 124,439,808 = 1.99e9 bytes. A sequence: 1024 · (12 · 80 · 768 + 14 · 50,257)
    # = 1.475e9 bytes. So 8e9 bytes hold 4 sequences and 80e9 hold 52; more than 64 do not help.
    # 512 are 16 times 32, but not a whole number of times 52.
    assert micro_batch_sequences(GPT2, 512, 8e9, "cuda") == 4
    assert micro_batch_sequences(GPT2, 512, 80e9, "cuda") == 32
    assert micro_batch_sequences(GPT2, 509, 80e9, "cuda") == 52
    assert micro_batch_sequences(GPT2, 512, 800e9, "cuda") == 64
    assert micro_batch_sequences(GPT2, 512, 1e6, "cuda") == 1


NO_TORCH = [
    "hairpin",
    "hairpin.api",
    "hairpin.schedules",
    "hairpin.planning.sizes",
    "hairpin.errors",
    "hairpin.model.shape",
    "hairpin.config.load",
    "hairpin.config.checks",
    "hairpin.runs.folder",
    "hairpin.runs.record",
    "hairpin.runs.events",
    "hairpin.reports.schedule_drawing",
    "hairpin.reports.formats",
    "hairpin.reports.plots",
    "hairpin.reports.summary",
    "hairpin.cli.main",
]


def test_what_must_start_at_once_imports_no_torch() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {NO_TORCH!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
        "import hairpin.training.step\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_function_train_stays_one_after_training_was_imported() -> None:
    code = (
        "import hairpin\n"
        "before = hairpin.train\n"
        "import hairpin.tasks.pretraining, hairpin.training.loop, hairpin.api\n"
        "assert hairpin.train is before is hairpin.api.train and callable(hairpin.train)\n"
        "assert hairpin.schedules.cosine and hairpin.load and hairpin.resume\n"
        "assert set(hairpin.__all__) <= set(dir(hairpin))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import hairpin

    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = hairpin.trian
