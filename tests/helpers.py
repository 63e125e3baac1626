"""Small things that several tests share: a text, tiny settings, rings of tokens."""

import atexit
import json
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.settings import Guard as GuardSettings
from hairpin.data.order import Indices
from hairpin.data.tokenizers import train_bpe
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.guard import Guard
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.runs.folder import RunDirectory
from hairpin.training.checkpoint import snapshot
from hairpin.training.state import TrainState

torch.set_num_threads(1)

TINY: dict[str, Any] = {
    "recipe": "gpt2",
    "tokenizer.kind": "bytes",
    "model.layers": 1,
    "model.heads": 2,
    "model.width": 16,
    "model.context": 16,
    "train.updates": 12,
    "train.tokens_per_update": 64,
    "train.seed": 5,
    "schedule.peak_lr": 0.01,
    "schedule.warmup_updates": 3,
    "evaluate.every_updates": 4,
    "evaluate.tokens": 128,
    "evaluate.sample_tokens": 3,
    "checkpoint.keep": 50,
    "execution.precision": "float32",
    "execution.device": "cpu",
    "execution.micro_batch": 2,
}


def _file_of(settings: Mapping[str, Any]) -> Path:
    """A config file, which what a test types comes after."""
    folder = Path(tempfile.mkdtemp(prefix="hairpin-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "settings.toml"
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    file.write_text("".join(lines), encoding="utf-8")
    return file


TINY_FLAGS = ["--config", str(_file_of(TINY))]


def some_text(characters: int = 6000, seed: int = 1) -> str:
    """Lines of words with a little structure to learn; always the same."""
    words = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "and", "then"]
    words += ["it", "saw", "moon", "été"]
    draw = random.Random(seed)
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines.append(" ".join(draw.choices(words, k=draw.randint(4, 9))) + ".\n")
    return "".join(lines)[:characters]


def text_file(folder: Path, characters: int = 6000) -> Path:
    """A file with `some_text`."""
    path = folder / "text.txt"
    path.write_text(some_text(characters), encoding="utf-8")
    return path


def tiny(**changes: Any) -> dict[str, Any]:
    """Settings of a run of seconds; `train__updates=3` changes `train.updates`."""
    return TINY | {key.replace("__", "."): value for key, value in changes.items()}


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of a command that was refused as bad input."""
        assert (self.code, self.out) == (2, ""), self
        (line,) = self.err.splitlines()
        return line.removeprefix("hairpin: ")


Hairpin = Callable[..., Done]


class Ring:
    """A stream of tokens in memory that goes round at its end."""

    def __init__(self, ids: Any) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> Indices:
        return np.array([self.ids[(start + i) % len(self.ids)] for i in range(count)], np.int64)


def random_ids(*shape: int, below: int = 64, seed: int = 0) -> Tensor:
    """Token ids, the same for a seed."""
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(seed))


def lively_model(shape: Shape, seed: int = 3) -> GPT:
    """A model whose parameters are all far from zero and one, biases and norms too."""
    model = GPT(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)
    return model


def a_guard(**settings: Any) -> Guard:
    """A guard on the CPU that has seen nothing yet."""
    return Guard(GuardSettings(**settings), "cpu")


# What a reader of the book would call a small GPT_CONFIG.
BOOK_TINY: dict[str, Any] = {
    "vocab_size": 64,
    "context_length": 8,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": False,
}

M = TypeVar("M", bound=nn.Module)


def shaken(module: M, seed: int = 3) -> M:
    """The module with all its parameters far from zero and one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            mean = 1.0 if name.endswith("scale") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)
    return module


def book_batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches of two windows for a model of `BOOK_TINY`."""
    ids = random_ids(count, 2, 9, seed=seed)
    return [(two[:, :-1], two[:, 1:]) for two in ids]


class WordsOfTwo:
    """A tokenizer with tiktoken's methods: two letters are a token, ab is 0, cd is 1, and so on."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [(ord(text[at]) - ord("a")) // 2 for at in range(0, len(text), 2)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass
class Watching:
    """A watcher that remembers, and that sends a signal after some update's event."""

    stop_after_update: int | None = None
    signal_number: signal.Signals = signal.SIGINT
    seen: list[Event] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def stage(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def notice(self, line: str) -> None:
        self.notices.append(line)

    def begin(self, path: Path) -> None:
        """Nothing."""

    def show(self, event: Event) -> None:
        self.seen.append(event)
        if isinstance(event, events.Update) and event.update == self.stop_after_update:
            signal.raise_signal(self.signal_number)

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def of_kind(record: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The record's events of one kind."""
    return [event for event in record if event["event"] == kind]


def updates_without_times(record: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The update events, less the one number that a clock makes."""
    return [
        {key: value for key, value in event.items() if key != "tokens_per_second"}
        for event in of_kind(record, "update")
    ]


def evaluations(run: Run) -> list[dict[str, Any]]:
    """The run's evaluation events."""
    return of_kind(run.record(), "evaluation")


def last_checkpoint(run: Path) -> Path:
    """The folder of the highest step."""
    return max((run / "checkpoints").glob("step-*"))


def tensor_bytes(folder: Path) -> dict[str, bytes]:
    """The bytes of the weights and the moments in a checkpoint."""
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")}


def weights_of(folder: Path) -> Mapping[str, Tensor]:
    """The weights in a checkpoint."""
    loaded: Mapping[str, Tensor] = load_file(folder / "model.safetensors")
    return loaded


def assert_same_history(whole: Run, resumed: Run) -> None:
    """Byte for byte the same end, and one history with every event once."""
    assert_same_end(whole, resumed)
    assert of_kind(whole.record(), "sample") == of_kind(resumed.record(), "sample")


def assert_same_end(whole: Run, resumed: Run) -> None:
    """The same weights, moments, updates and evaluations, byte for byte."""
    folders = last_checkpoint(whole.path), last_checkpoint(resumed.path)
    assert folders[0].name == folders[1].name
    assert tensor_bytes(folders[0]) == tensor_bytes(folders[1])
    assert tensor_bytes_of_best(whole) == tensor_bytes_of_best(resumed)
    assert updates_without_times(whole.record()) == updates_without_times(resumed.record())
    assert evaluations(whole) == evaluations(resumed)


def tensor_bytes_of_best(run: Run) -> bytes:
    """The best weights as they are on disk."""
    return (run.path / "best" / "model.safetensors").read_bytes()


# --- a GPT-2 checkpoint as transformers writes it ---

GPT2_IDS = 300
GPT2_SHAPE = Shape(GPT2_IDS, 12, layers=2, heads=4, width=32)
GPT2_END = "<|endoftext|>"

GPT2_CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "n_positions": 12,
    "n_inner": None,
    "vocab_size": GPT2_IDS,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-05,
    "attn_pdrop": 0.1,
    "tie_word_embeddings": True,
}


@cache
def gpt2_tokenizer_json() -> dict[str, Any]:
    """A BPE of 299 tokens in the format of Hugging Face tokenizers, as it is on disk."""
    (content,) = train_bpe([some_text()], GPT2_IDS)._files().values()
    whole: dict[str, Any] = json.loads(content)
    assert len(whole["model"]["vocab"]) == GPT2_IDS - 1
    whole["added_tokens"] = [{"id": GPT2_IDS - 1, "content": GPT2_END, "special": True}]
    return whole


def copy_of_tokenizer() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(json.dumps(gpt2_tokenizer_json()))
    return whole


@cache
def gpt2_tensors(vocabulary: int = GPT2_IDS, tied: bool = True) -> dict[str, Tensor]:
    """Random weights under GPT-2's names, with GPT-2's orientation."""
    generator = torch.Generator().manual_seed(8)
    c = GPT2_SHAPE.width
    sizes: dict[str, tuple[int, ...]] = {"wte.weight": (vocabulary, c), "wpe.weight": (12, c)}
    for h in range(GPT2_SHAPE.layers):
        for norm in ("ln_1", "ln_2"):
            sizes |= {f"h.{h}.{norm}.weight": (c,), f"h.{h}.{norm}.bias": (c,)}
        linears = {"attn.c_attn": (c, 3 * c), "attn.c_proj": (c, c)}
        linears |= {"mlp.c_fc": (c, 4 * c), "mlp.c_proj": (4 * c, c)}
        for name, (n_in, n_out) in linears.items():
            sizes |= {f"h.{h}.{name}.weight": (n_in, n_out), f"h.{h}.{name}.bias": (n_out,)}
    sizes |= {"ln_f.weight": (c,), "ln_f.bias": (c,), "lm_head.weight": (vocabulary, c)}
    tensors = {name: torch.randn(size, generator=generator) * 0.3 for name, size in sizes.items()}
    if tied:
        tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    return tensors


def write_gpt2_config(folder: Path, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(GPT2_CONFIG | changes), encoding="utf-8")


def write_gpt2_tokenizer(folder: Path, whole: dict[str, Any]) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")


def write_gpt2_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def gpt2_folder(path: Path) -> Path:
    """A whole GPT-2 checkpoint, small."""
    write_gpt2_config(path)
    write_gpt2_tokenizer(path, gpt2_tokenizer_json())
    write_gpt2_weights(path, gpt2_tensors())
    return path


# --- fine-tuning ---

# Of a run that starts from the fixture `base`.
FINETUNE: dict[str, Any] = {
    "train.updates": 12,
    "train.seed": 5,
    "finetune.examples_per_update": 8,
    "schedule.peak_lr": 0.01,
    "schedule.warmup_updates": 3,
    "evaluate.every_updates": 4,
    "evaluate.sample_tokens": 8,
    "checkpoint.keep": 50,
    "execution.precision": "float32",
    "execution.device": "cpu",
    "execution.micro_batch": 8,
}
# One word of a text says its label, and the response to it.
LABELS = {"cat": "animal", "boat": "sea", "moon": "sky"}
RESPONSES = {"cat": "meow", "boat": "splash", "moon": "it shines"}
TEMPLATE = "{instruction}: "


def finetune(**changes: Any) -> dict[str, Any]:
    """Settings of a fine-tuning of a second or so; `train__updates=3` changes `train.updates`."""
    return FINETUNE | {key.replace("__", "."): value for key, value in changes.items()}


def telling_texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts, and the word in each that tells what it is about."""
    words = ["the", "a", "sat", "ran", "on", "under", "hill", "and", "then", "it", "saw"]
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        telling = list(LABELS)[number % len(LABELS)]
        text = draw.choices(words, k=draw.randint(2, 5))
        text.insert(draw.randint(0, len(text)), telling)
        texts.append((" ".join(text), telling))
    return texts


def labels_file(folder: Path, count: int = 300, name: str = "labels.csv") -> Path:
    """A file of labelled texts."""
    rows = [f"{text},{LABELS[telling]}\n" for text, telling in telling_texts(count)]
    path = folder / name
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return path


def tasks_file(folder: Path, count: int = 300) -> Path:
    """A file of instructions and responses."""
    rows = [
        json.dumps({"instruction": text, "response": RESPONSES[telling]}) + "\n"
        for text, telling in telling_texts(count)
    ]
    path = folder / "tasks.jsonl"
    path.write_text("".join(rows), encoding="utf-8")
    return path


def save_state(
    run: RunDirectory, state: TrainState, facts: Mapping[str, str], keep: int = 3
) -> None:
    """Commit a checkpoint of a run, as training does."""
    store = CheckpointStore(run.checkpoints, keep=keep, best=run.best, facts=facts)
    store.save(snapshot(state, run.read_config(), record_bytes=1), is_best=state.is_best)
    store.finish()


def assert_as_defined(
    model: GPT,
    plain_logits: Callable[[dict[str, Tensor]], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    atol: float,
    rtol: float,
) -> None:
    """Logits, loss and gradients of a model are those of its definition in float64.

    Args:
        model: in float32.
        plain_logits: the definition: takes weights by name.
        inputs, targets: token ids.
        atol, rtol: of the logits.
    """
    weights = {
        name: parameter.detach().double().requires_grad_()
        for name, parameter in model.named_parameters()
    }
    expected = plain_logits(weights)
    torch.testing.assert_close(model.logits(inputs).double(), expected, atol=atol, rtol=rtol)
    loss_sum, count = model(inputs, targets)
    reference = F.cross_entropy(expected.flatten(0, 1), targets.flatten(), reduction="sum")
    assert float(loss_sum.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    (loss_sum / count).backward()
    (reference / count).backward()
    for name, parameter in model.named_parameters():
        expected_gradient = weights[name].grad
        assert parameter.grad is not None and expected_gradient is not None
        scale = float(expected_gradient.abs().max())
        torch.testing.assert_close(
            parameter.grad.double(), expected_gradient, atol=1e-4 * scale, rtol=0, msg=name
        )
