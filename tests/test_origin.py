"""Weights to begin from: runs, and GPT-2 checkpoints as transformers writes them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from safetensors.torch import save_file
from torch import Tensor

import hairpin
from hairpin.config.settings import Optimizer
from hairpin.data.tokenizers import BpeTokenizer, Gpt2Tokenizer, train_bpe
from hairpin.errors import RunError, UserError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer
from hairpin.run import Run
from hairpin.runs.folder import RunDirectory
from hairpin.runs.watcher import Quiet
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState
from hairpin.weights.origin import Origin, open_origin, weights_sha256
from hairpin.weights.transformers_weights import to_plain
from helpers import (
    GPT2_CONFIG,
    GPT2_END,
    GPT2_IDS,
    GPT2_SHAPE,
    a_guard,
    copy_of_tokenizer,
    gpt2_folder,
    gpt2_tensors,
    gpt2_tokenizer_json,
    last_checkpoint,
    lively_model,
    random_ids,
    save_state,
    some_text,
    text_file,
    tiny,
    weights_of,
    write_gpt2_config,
    write_gpt2_tokenizer,
    write_gpt2_weights,
)
from test_model import plain_logits

# What tiktoken calls GPT-2's encoder.json and vocab.bpe: the SHA-1 of their addresses.
GPT2_VOCAB = "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"
GPT2_MERGES = "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole GPT-2 checkpoint, small."""
    return gpt2_folder(tmp_path / "gpt2")


def logits_of(origin: Origin, ids: Tensor) -> Tensor:
    model = GPT(origin.shape)
    model.load_state_dict(dict(origin.tensors), strict=True)
    return model.eval().logits(ids[None])[0].detach()


def logits_by_hand(tensors: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    doubles = {name: tensor.double() for name, tensor in tensors.items()}
    return plain_logits(ids, doubles, GPT2_SHAPE.layers, GPT2_SHAPE.heads)


def problems_of(path: Path) -> list[str]:
    """The lines of the error, each without the folder that all of this is in."""
    with pytest.raises(RunError) as caught:
        open_origin(path)
    return [line.replace(f"{path}", path.name) for line in caught.value.problems]


# --- a GPT-2 checkpoint ---


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_computes_what_gpt2_does(folder: Path, tied: bool) -> None:
    tensors = gpt2_tensors(tied=tied)
    write_gpt2_weights(folder, tensors)
    write_gpt2_config(folder, tie_word_embeddings=tied)
    origin = open_origin(folder)
    assert origin.shape == Shape(GPT2_IDS, 12, 2, 4, 32, dropout=0.0, bias=True, tied=tied)
    assert origin.path == folder
    assert origin.words == f"GPT-2 checkpoint in {folder}"
    assert {tensor.dtype for tensor in origin.tensors.values()} == {torch.float32}
    ids = random_ids(12, below=GPT2_IDS)
    expected = logits_by_hand(tensors, ids)
    torch.testing.assert_close(logits_of(origin, ids).double(), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.5


def test_it_computes_what_transformers_does(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.rmtree(folder)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2_CONFIG)).eval()
    model.load_state_dict({f"transformer.{n}": t for n, t in gpt2_tensors().items()}, strict=False)
    model.save_pretrained(folder)
    write_gpt2_tokenizer(folder, gpt2_tokenizer_json())
    ids = random_ids(12, below=GPT2_IDS)
    with torch.no_grad():
        expected = model(ids[None]).logits[0]
    torch.testing.assert_close(logits_of(open_origin(folder), ids), expected, atol=1e-5, rtol=1e-5)


def test_names_in_any_of_the_ways_they_have_been_written_are_the_same_weights(
    folder: Path,
) -> None:
    plain = open_origin(folder)
    longer = {f"transformer.{name}": tensor for name, tensor in gpt2_tensors().items()}
    longer["lm_head.weight"] = longer.pop("transformer.lm_head.weight")
    longer["transformer.h.0.attn.bias"] = torch.ones(1, 1, 12, 12, dtype=torch.uint8)
    longer["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
    longer["score.weight"] = torch.ones(2, 32)
    write_gpt2_weights(folder, longer)
    assert open_origin(folder).sha256 == plain.sha256
    without = {name: tensor for name, tensor in gpt2_tensors().items() if name != "lm_head.weight"}
    write_gpt2_weights(folder, without)
    assert open_origin(folder).sha256 == plain.sha256


def test_weights_in_parts_are_the_same_weights(folder: Path) -> None:
    whole = open_origin(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(gpt2_tensors())
    part_of = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(names)}
    for part in set(part_of.values()):
        save_file({n: gpt2_tensors()[n] for n in names if part_of[n] == part}, folder / part)
    index = {"metadata": {}, "weight_map": part_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    parts = open_origin(folder)
    assert parts.sha256 == whole.sha256
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in parts.tensors.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(folder: Path, dtype: torch.dtype) -> None:
    rounded = {name: tensor.to(dtype) for name, tensor in gpt2_tensors().items()}
    write_gpt2_weights(folder, rounded)
    tensor = open_origin(folder).tensors["blocks.1.mlp.expand.weight"]
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, rounded["h.1.mlp.c_fc.weight"].to(torch.float32).T)


def test_rows_behind_the_tokens_are_left_out(folder: Path) -> None:
    padded = gpt2_tensors(320)
    write_gpt2_weights(folder, padded)
    write_gpt2_config(folder, vocab_size=320)
    origin = open_origin(folder)
    assert origin.shape.vocabulary == origin.tokenizer.vocabulary == GPT2_IDS
    assert origin.tensors["token_embedding.weight"].untyped_storage().nbytes() == GPT2_IDS * 32 * 4
    ids = random_ids(12, below=GPT2_IDS)
    expected = logits_by_hand(padded, ids)[:, :GPT2_IDS]
    torch.testing.assert_close(logits_of(origin, ids).double(), expected, atol=1e-4, rtol=1e-4)


def test_what_hairpin_converts_comes_back(folder: Path) -> None:
    model = lively_model(GPT2_SHAPE)
    write_gpt2_weights(folder, to_plain(model.state_dict(), GPT2_SHAPE))
    back = open_origin(folder).tensors
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in model.state_dict().items())


OBJECTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"model_type": "llama"},
        'model_type is "llama", and hairpin\'s networks are "gpt2", "nanochat", "qwen3"',
    ),
    (
        {"model_type": None},
        'model_type is null, and hairpin\'s networks are "gpt2", "nanochat", "qwen3"',
    ),
    ({"n_layer": None}, "n_layer is null, but should be a number from 1 to 512"),
    ({"n_head": True}, "n_head is true, but should be a number from 1 to 512"),
    ({"n_positions": "12"}, 'n_positions is "12", but should be a number from 2 to 1048576'),
    ({"n_head": 5}, "n_embd is 32, not a multiple of n_head, 5"),
    ({"n_inner": 64}, "n_inner is 64, but hairpin supports only 128"),
    (
        {"activation_function": "gelu"},
        'activation_function is "gelu", but hairpin supports only "gelu_new" or '
        '"gelu_pytorch_tanh"',
    ),
    (
        {"layer_norm_epsilon": 1e-6},
        "layer_norm_epsilon is 1e-06, but hairpin supports only 1e-05",
    ),
    ({"scale_attn_weights": False}, "scale_attn_weights is false, but hairpin supports only true"),
    (
        {"scale_attn_by_inverse_layer_idx": True},
        "scale_attn_by_inverse_layer_idx is true, but hairpin supports only false",
    ),
    (
        {"reorder_and_upcast_attn": True},
        "reorder_and_upcast_attn is true, but hairpin supports only false",
    ),
    ({"add_cross_attention": True}, "add_cross_attention is true, but hairpin supports only false"),
    (
        {"pruned_heads": {"0": [1]}},
        'pruned_heads is {"0": [1]}, but hairpin supports only {} or null',
    ),
    (
        {"quantization_config": {"bits": 4}},
        'quantization_config is {"bits": 4}, but hairpin supports only null',
    ),
]


@pytest.mark.parametrize(("changes", "line"), OBJECTIONS)
def test_a_setting_that_hairpin_does_not_compute_with_is_refused(
    folder: Path, changes: dict[str, Any], line: str
) -> None:
    write_gpt2_config(folder, **changes)
    assert problems_of(folder) == [f"gpt2/config.json: {line}"]


def test_every_such_setting_is_named_at_once(folder: Path) -> None:
    write_gpt2_config(
        folder, n_layer=0, n_inner=7, activation_function="relu", scale_attn_weights=None
    )
    named = [line.split()[1] for line in problems_of(folder)]
    assert named == ["n_layer", "n_inner", "activation_function", "scale_attn_weights"]


def test_the_other_name_of_the_same_gelu_is_taken(folder: Path) -> None:
    before = open_origin(folder).sha256
    write_gpt2_config(folder, activation_function="gelu_pytorch_tanh", n_inner=128)
    assert open_origin(folder).sha256 == before


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def with_tensor(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: tensor})


WEIGHTS: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (without("h.1.ln_2.bias"), "model.safetensors: h.1.ln_2.bias is missing"),
    (
        with_tensor("h.1.mlp.c_fc.weight", torch.ones(128, 32)),
        "model.safetensors: h.1.mlp.c_fc.weight is [128, 32], but config.json implies [32, 128]",
    ),
    (
        with_tensor("wte.weight", torch.ones(299, 32)),
        "model.safetensors: wte.weight is [299, 32], but config.json implies [300, 32]",
    ),
    (
        with_tensor("h.2.ln_1.weight", torch.ones(32)),
        "model.safetensors: h.2.ln_1.weight: GPT-2 has no such tensor",
    ),
    (
        lambda tensors: tensors.update(
            {f"h.{h}.attn.c_attn.lora_A": torch.ones(32, 4) for h in range(2)}
        ),
        "model.safetensors: h.0.attn.c_attn.lora_A and 1 more: GPT-2 has no such tensor",
    ),
    (
        with_tensor("ln_f.bias", torch.ones(32, dtype=torch.int8)),
        "model.safetensors: ln_f.bias is int8; save the weights as float32, float16 or bfloat16",
    ),
]


@pytest.mark.parametrize(("change", "line"), WEIGHTS)
def test_weights_that_are_not_those_of_the_settings_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], line: str
) -> None:
    tensors = dict(gpt2_tensors())
    change(tensors)
    write_gpt2_weights(folder, tensors)
    assert problems_of(folder) == [f"gpt2/{line}"]


def test_a_head_of_its_own_is_needed_where_it_is_not_tied(folder: Path) -> None:
    write_gpt2_config(folder, tie_word_embeddings=False)
    origin = open_origin(folder)  # equal to the embedding, and a tensor of its own all the same
    assert torch.equal(origin.tensors["head.weight"], origin.tensors["token_embedding.weight"])
    assert logits_of(origin, random_ids(4)).shape == (4, GPT2_IDS)
    write_gpt2_weights(folder, {n: t for n, t in gpt2_tensors().items() if n != "lm_head.weight"})
    assert problems_of(folder) == ["gpt2/model.safetensors: lm_head.weight is missing"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    tensors = dict(gpt2_tensors())
    tensors["h.0.mlp.c_proj.bias"] = torch.full((32,), value)
    write_gpt2_weights(folder, tensors)
    assert problems_of(folder) == [
        "gpt2: blocks.0.mlp.output.bias is not finite; such weights cannot be trained"
    ]


def test_files_that_are_missing_or_damaged_are_named(folder: Path) -> None:
    weights, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    weights.write_bytes(weights.read_bytes()[:5000])
    (line,) = problems_of(folder)
    assert line.startswith("gpt2/model.safetensors: cannot be read (")
    weights.unlink()
    assert problems_of(folder) == [
        "gpt2: no model.safetensors and no model.safetensors.index.json in it"
    ]
    wrong: list[Any] = [[], {"a": "../a.safetensors"}, {"a": 1}]
    for part_of in wrong:
        index.write_text(json.dumps({"weight_map": part_of}), encoding="utf-8")
        assert problems_of(folder) == [
            "gpt2/model.safetensors.index.json: its weight_map does not say which file has which "
            "tensor"
        ]
    index.write_text('{"weight_map": {"wte.weight": "one.safetensors"}}', encoding="utf-8")
    (line,) = problems_of(folder)
    assert line.startswith("gpt2/one.safetensors: cannot be read (")
    save_file({"wpe.weight": torch.ones(1)}, folder / "one.safetensors")
    assert problems_of(folder) == [
        "gpt2/one.safetensors: wte.weight is missing, and model.safetensors.index.json says it is "
        "there"
    ]
    index.write_text("{", encoding="utf-8")
    (line,) = problems_of(folder)
    assert line.startswith("gpt2/model.safetensors.index.json: not valid JSON: Expecting")
    (folder / "config.json").write_text("[]", encoding="utf-8")
    assert problems_of(folder) == ["gpt2/config.json: holds no JSON object; get the file again"]


def test_a_pickle_is_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    (line,) = problems_of(folder)
    assert line == (
        "gpt2: its weights are a pickle (pytorch_model.bin), which can run any program and is "
        "never read; convert them where you trust them: from transformers import "
        "AutoModelForCausalLM; "
        "AutoModelForCausalLM.from_pretrained('gpt2').save_pretrained('gpt2')"
    )


# --- its tokenizer ---


def split_files(folder: Path, whole: dict[str, Any], added: dict[str, int] | None = None) -> None:
    """The older layout of the same tokenizer."""
    (folder / "tokenizer.json").unlink(missing_ok=True)
    merges = "".join(f"{left} {right}\n" for left, right in whole["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    vocab = whole["model"]["vocab"] | ({GPT2_END: GPT2_IDS - 1} if added is None else {})
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    if added is not None:
        (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")


def test_a_tokenizer_is_the_same_from_each_of_its_layouts(folder: Path) -> None:
    own = train_bpe([some_text()], GPT2_IDS)
    assert open_origin(folder).tokenizer.hash() == own.hash()
    whole = copy_of_tokenizer()
    whole["model"]["merges"] = [" ".join(pair) for pair in whole["model"]["merges"]]
    whole["model"] = {k: v for k, v in whole["model"].items() if k in ("vocab", "merges")}
    write_gpt2_tokenizer(folder, whole)  # as transformers 4 wrote it
    assert open_origin(folder).tokenizer.hash() == own.hash()
    split_files(folder, gpt2_tokenizer_json())
    tokenizer = open_origin(folder).tokenizer
    assert isinstance(tokenizer, BpeTokenizer)
    assert tokenizer.hash() == own.hash()
    split_files(folder, gpt2_tokenizer_json(), added={GPT2_END: GPT2_IDS - 1, "[PAD]": GPT2_IDS})
    assert open_origin(folder).tokenizer.hash() == own.hash()


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """What sets one key, dotted, of a tokenizer.json."""

    def change(whole: dict[str, Any]) -> None:
        *tables, key = path.split(".")
        for table in tables:
            whole = whole[table]
        whole[key] = value

    return change


def exchange_merges(whole: dict[str, Any]) -> None:
    merges = whole["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


TOKENIZERS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (changed("model.type", "Unigram"), 'type is "Unigram"'),
    (changed("model.byte_fallback", True), "byte_fallback is true"),
    (changed("normalizer", {"type": "NFC"}), 'normalizer is {"type": "NFC"}'),
    (changed("pre_tokenizer", None), "type is null"),
    (changed("pre_tokenizer.add_prefix_space", True), "add_prefix_space is true"),
    (changed("pre_tokenizer.use_regex", False), "use_regex is false"),
    (changed("added_tokens", []), f"it has no {GPT2_END}, which separates texts"),
    (
        changed("added_tokens", [{"id": 400, "content": GPT2_END}]),
        "its ids are not 0, 1, 2 and so on",
    ),
    (exchange_merges, "its ids are not 256 bytes followed by one token for each merge"),
    (changed("model.merges", [["a", "b", "c"]]), "a merge of 3 tokens, not of two"),
]


@pytest.mark.parametrize(("change", "reason"), TOKENIZERS)
def test_a_tokenizer_that_would_give_other_ids_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    whole = copy_of_tokenizer()
    change(whole)
    write_gpt2_tokenizer(folder, whole)
    assert problems_of(folder) == [
        f"gpt2/tokenizer.json: hairpin cannot use this tokenizer: {reason}; it takes GPT-2's, and "
        "other byte-level BPE of the same form"
    ]


def test_a_space_in_front_is_refused_where_the_config_asks_for_it(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"add_prefix_space": true}', encoding="utf-8")
    (line,) = problems_of(folder)
    assert "cannot use this tokenizer: add_prefix_space is true" in line


def test_tokenizer_files_that_are_damaged_are_named(folder: Path) -> None:
    file = folder / "tokenizer.json"
    for content, line in (
        ("{", "hairpin cannot use this tokenizer: Expecting property name"),
        ("[]", "hairpin cannot use this tokenizer: tokenizer.json holds no JSON object"),
        ("{}", "not as transformers writes it (KeyError: 'model')"),
        ('{"model": 1}', "not as transformers writes it (AttributeError: "),
    ):
        file.write_text(content, encoding="utf-8")
        (found,) = problems_of(folder)
        assert found.startswith(f"gpt2/tokenizer.json: {line}")
    split_files(folder, gpt2_tokenizer_json())
    (folder / "merges.txt").unlink()
    (found,) = problems_of(folder)
    assert found.startswith("gpt2/merges.txt: cannot be read (No such file or directory)")


def test_a_model_without_its_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert problems_of(folder) == [
        "gpt2: no tokenizer in it, and 300 ids are not GPT-2's; add tokenizer.json, or vocab.json "
        "and merges.txt"
    ]
    write_gpt2_config(folder, vocab_size=299)
    write_gpt2_tokenizer(folder, gpt2_tokenizer_json())
    assert problems_of(folder) == [
        "gpt2: its tokenizer has 300 ids, and its config.json has a vocab_size of 299; add the "
        "tokenizer that belongs to the weights"
    ]


@pytest.fixture
def gpt2_sized(folder: Path) -> Path:
    """The same with as many ids as GPT-2 has."""
    (folder / "tokenizer.json").unlink()
    wte = torch.zeros(50_257, 32)
    write_gpt2_weights(folder, gpt2_tensors() | {"wte.weight": wte, "lm_head.weight": wte.clone()})
    write_gpt2_config(folder, vocab_size=50_257)
    return folder


def test_gpt2s_own_tokenizer_is_known_by_its_files(gpt2_sized: Path, gpt2_vocabulary: Path) -> None:
    shutil.copy(gpt2_vocabulary / GPT2_VOCAB, gpt2_sized / "vocab.json")
    shutil.copy(gpt2_vocabulary / GPT2_MERGES, gpt2_sized / "merges.txt")
    tokenizer = open_origin(gpt2_sized).tokenizer
    assert isinstance(tokenizer, Gpt2Tokenizer)
    text = some_text() + "  don't\n\n\t1234 été 我 \U0001f600 <|endoftext|>  "
    expected = tiktoken.get_encoding("gpt2").encode(text, disallowed_special=())
    assert tokenizer.encode(text).tolist() == expected
    assert tokenizer.hash() == Gpt2Tokenizer.fetch().hash()


def test_without_files_the_ids_of_gpt2_are_gpt2s(gpt2_sized: Path, gpt2_vocabulary: Path) -> None:
    assert open_origin(gpt2_sized).tokenizer.hash() == Gpt2Tokenizer.fetch().hash()


def test_without_files_and_without_a_network_it_says_so(
    gpt2_sized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Gpt2Tokenizer:
        raise UserError("tokenizer gpt2: its vocabulary cannot be downloaded")

    monkeypatch.setattr(Gpt2Tokenizer, "fetch", refuse)
    with pytest.raises(UserError, match="cannot be downloaded"):
        open_origin(gpt2_sized)


# --- a run ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_plots", lambda self: [])
        settings = tiny(train__updates=6, model__dropout=0.2, evaluate__every_updates=2)
        return hairpin.train(
            text_file(folder), out=folder / "run", settings=settings, watcher=Quiet()
        )


def test_a_run_is_an_origin(trained: Run) -> None:
    origin = open_origin(trained.path)
    assert origin.shape == Shape(257, 16, layers=1, heads=2, width=16, dropout=0.0)
    assert origin.tokenizer.kind == "bytes"
    saved = weights_of(trained.path / "best")
    assert origin.tensors.keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in origin.tensors.items())
    manifest = json.loads((trained.path / "best" / "manifest.json").read_text(encoding="utf-8"))
    assert origin.words == f"best weights, update {manifest['step']}, of {trained.path}"
    last = open_origin(trained.path, "last")
    assert last.words == f"last weights, update 6, of {trained.path}"
    saved = weights_of(last_checkpoint(trained.path))
    assert all(torch.equal(tensor, saved[name]) for name, tensor in last.tensors.items())


def test_a_run_says_the_same_as_a_checkpoint_made_of_it(trained: Run, folder: Path) -> None:
    run = open_origin(trained.path)
    small = copy_of_tokenizer()["model"]
    names = sorted(small["vocab"], key=small["vocab"].__getitem__)[:256]
    bytes_only = {"vocab": {name: i for i, name in enumerate(names)}, "merges": []}
    write_gpt2_tokenizer(
        folder,
        gpt2_tokenizer_json()
        | {"model": bytes_only, "added_tokens": [{"id": 256, "content": GPT2_END}]},
    )
    write_gpt2_config(folder, n_layer=1, n_head=2, n_embd=16, n_positions=16, vocab_size=257)
    write_gpt2_weights(folder, to_plain(run.tensors, run.shape))
    assert open_origin(folder).sha256 == run.sha256


def test_a_run_that_moved_has_the_same_hash(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "copy")
    assert open_origin(tmp_path / "copy").sha256 == open_origin(trained.path).sha256


class Classifier(GPT):
    """A GPT with something on top."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.class_head = torch.nn.Linear(shape.width, 2)


def test_a_classifiers_head_is_left_out(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "copy")
    run = RunDirectory(tmp_path / "copy")
    model = Classifier(open_origin(run.path).shape)
    facts = {"tokenizer_sha256": open_origin(run.path).tokenizer.hash()}
    state = TrainState(Spread(model), build_optimizer(model, Optimizer()), a_guard(), update=7)
    save_state(run, state, facts, keep=50)
    origin = open_origin(run.path, "last")
    assert origin.words.startswith("last weights, update 7, ")
    assert origin.tensors.keys() == GPT(origin.shape).state_dict().keys()
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in origin.tensors.items())


def test_a_run_with_another_config_is_refused(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "copy")
    config = tmp_path / "copy" / "config.toml"
    text = config.read_text(encoding="utf-8")
    for other in ("context = 32", "tied = false"):
        key = other.split()[0]
        lines = (other if line.startswith(f"{key} = ") else line for line in text.splitlines())
        config.write_text("\n".join(lines), encoding="utf-8")
        assert problems_of(tmp_path / "copy") == [
            "copy/config.toml: its [model] differs from the model that was trained"
        ]


# --- neither ---

KINDS = (
    "a run has config.toml, tokenizer/ and best/ in it; a model of transformers config.json, "
    "model.safetensors and tokenizer.json, or vocab.json and merges.txt"
)


def test_a_path_that_is_neither_is_told_what_each_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("file").touch()
    download = (
        "no such folder; hairpin downloads no weights: if that is a model on Hugging Face, type "
        "`hf download {} --local-dir {}`, and name that folder"
    )
    for name, line in {
        "runs": f"runs: neither a run nor a model in safetensors: {KINDS}",
        "file": "file: is a file; name its folder, a run or a model",
        "gpt2": f"gpt2: {download.format('gpt2', 'gpt2')}",
        "someone/gpt2-small": "someone/gpt2-small: "
        + download.format("someone/gpt2-small", "gpt2-small"),
        "runs/book-3": f"runs/book-3: no such folder: {KINDS}",
        "/no/such/folder": f"/no/such/folder: no such folder: {KINDS}",
    }.items():
        with pytest.raises(RunError) as caught:
            open_origin(Path(name))
        assert caught.value.problems == (line,)


# --- the hash ---


def test_the_hash_is_over_names_shapes_and_bytes_in_the_order_of_names() -> None:
    by_hand = hashlib.sha256(
        b"a.b torch.float32 [2, 1]\n"
        + bytes.fromhex("0000803f 000000c0")  # 1 and -2
        + b"b torch.float32 []\n"
        + bytes.fromhex("0000003f")  # a half
    ).hexdigest()
    tensors = {"b": torch.tensor(0.5), "a.b": torch.tensor([[1.0], [-2.0]])}
    assert weights_sha256(tensors) == by_hand
    transposed = {"b": torch.tensor(0.5), "a.b": torch.tensor([[1.0, -2.0], [3, 4]]).t()[:, :1]}
    assert weights_sha256(transposed) == by_hand  # what it looks like counts, not how it lies
    tensors["a.b"] = tensors["a.b"].view(1, 2)
    assert weights_sha256(tensors) != by_hand
