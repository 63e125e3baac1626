"""Exporting and importing, as far as no other library is needed; ecosystem/ has the rest."""

import builtins
import json
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open
from safetensors.torch import load_file

import hairpin as package
from hairpin.config.load import build_config
from hairpin.data import bpe
from hairpin.data.gpt2_files import read_tokenizer
from hairpin.data.tokenizers import ByteTokenizer, Gpt2Tokenizer, train_bpe
from hairpin.errors import ConfigError, RunError, UserError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.run import Run
from hairpin.weights.convert import bring_in, huggingface
from hairpin.weights.convert.gguf import gguf_tensors
from hairpin.weights.convert.huggingface import export_folder
from hairpin.weights.convert.source import open_source
from hairpin.weights.convert.tokenizer_files import Vocabulary, chat_template
from hairpin.weights.model_config import config_json, read_shape
from hairpin.weights.origin import open_origin
from hairpin.weights.transformers_weights import (
    from_transformers,
    misfit,
    plain_names,
    to_plain,
    to_transformers,
)
from helpers import (
    Hairpin,
    evaluations,
    finetune,
    gpt2_folder,
    labels_file,
    lively_model,
    some_text,
    text_file,
    tiny,
)

SHAPES = {
    "gpt2": Shape(60, 12, 2, 2, 16),
    "untied gpt2": Shape(60, 12, 2, 2, 16, tied=False),
    "modern": Shape.default("modern", 60, 12, 2, 2, 16),
    "qwen3": Shape.default("qwen3", 60, 12, 2, 2, 16),
    "tied qwen3": Shape.default("qwen3", 60, 12, 2, 2, 16, tied=True),
}
MERGES = "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"  # GPT-2's vocab.bpe in tiktoken's cache


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run of Qwen3's network, whose best weights are not its last."""
    folder = tmp_path_factory.mktemp("qwen3")
    settings = tiny(
        recipe="qwen3",
        schedule__peak_lr=0.2,
        schedule__kind="constant",
        schedule__warmup_updates=7,
        train__updates=8,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIRPIN_CACHE", str(folder / "cache"))
        patch.setattr(Run, "write_plots", lambda self: [])
        text, quiet = text_file(folder), package.Quiet()
        run = package.train(text, out=folder / "run", settings=settings, watcher=quiet)
    best = min(evaluations(run), key=lambda event: float(event["val_loss"]))
    assert best["update"] == 4
    return run


@pytest.fixture
def qwen3(trained: Run, tmp_path: Path) -> Run:
    """A copy of it."""
    shutil.copytree(trained.path, tmp_path / "qwen3")
    return package.load(tmp_path / "qwen3")


# --- names of tensors ---


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_come_back_from_transformers_names(kind: str) -> None:
    shape = SHAPES[kind]
    state = lively_model(shape).state_dict()
    theirs = to_transformers(state, shape)
    assert ("lm_head.weight" in theirs) == (not shape.tied)
    assert sum(t.numel() for t in theirs.values()) == sum(t.numel() for t in state.values())
    if "gpt2" not in kind:  # query, key, value, in that order
        fused = state["blocks.1.attention.query_key_value.weight"]
        for part, rows in zip("qkv", fused.split(16), strict=True):
            assert torch.equal(theirs[f"model.layers.1.self_attn.{part}_proj.weight"], rows)
    plain = plain_names(theirs, shape)
    assert misfit(plain, {n: t.shape for n, t in state.items()}, shape) is None
    back = from_transformers(plain, shape)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_the_first_thing_that_does_not_fit_is_named() -> None:
    shape = SHAPES["qwen3"]
    state = GPT(shape).state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    whole = to_plain(state, shape)
    key = "layers.1.self_attn.k_proj.weight"
    assert (
        misfit({n: t for n, t in whole.items() if n != key}, shapes, shape) == f"{key} is missing"
    )
    wrong = whole | {key: torch.ones(8, 16)}
    assert misfit(wrong, shapes, shape) == f"{key} is [8, 16], but config.json implies [16, 16]"
    more = whole | {"layers.0.self_attn.q_proj.bias": torch.ones(16), "x": torch.ones(1)}
    assert misfit(more, shapes, shape) == (
        "layers.0.self_attn.q_proj.bias and 1 more: Qwen3 has no such tensor"
    )


def test_gguf_splits_queries_keys_and_values_in_that_order() -> None:
    shape = SHAPES["tied qwen3"]
    state = lively_model(shape).state_dict()
    found = gguf_tensors(state, shape)
    fused = state["blocks.1.attention.query_key_value.weight"]
    assert torch.equal(found["blk.1.attn_k.weight"], fused[16:32])
    assert "output.weight" not in found
    bare = Shape(60, 12, 1, 2, 16, bias=False)
    biases = {n: t for n, t in gguf_tensors(GPT(bare).state_dict(), bare).items() if "bias" in n}
    assert sorted(biases) == sorted(
        ["output_norm.bias"]
        + [f"blk.0.{n}.bias" for n in ("attn_norm", "attn_qkv", "attn_output", "ffn_norm")]
        + [f"blk.0.{n}.bias" for n in ("ffn_up", "ffn_down")]
    )
    assert not any(t.any() for t in biases.values())
    assert biases["blk.0.attn_qkv.bias"].shape == (48,) and biases["blk.0.ffn_up.bias"].shape == (
        64,
    )


# --- tokenizers ---


def test_merges_are_found_again_from_the_tokens() -> None:
    tokenizer = train_bpe([some_text(20_000)], 400)
    assert len(tokenizer.merges) > 40
    assert bpe.merges_of(tokenizer.tokens) == tokenizer.merges
    assert Vocabulary.of(tokenizer).merges == tokenizer.merges


def test_gpt2s_merges_are_those_that_were_published(gpt2_vocabulary: Path) -> None:
    lines = (gpt2_vocabulary / MERGES).read_text(encoding="utf-8").splitlines()[1:]
    found = Vocabulary.of(Gpt2Tokenizer.fetch())
    assert [f"{left} {right}" for left, right in found.merges] == lines
    assert len(found.names) == 50_257 and found.names[0] == "!"


def test_bytes_are_a_bpe_without_merges(tmp_path: Path) -> None:
    found = Vocabulary.of(ByteTokenizer())
    assert (len(found.names), found.merges) == (257, [])
    assert found.names[ord("A")] == "A" and found.names[ord(" ")] == "Ġ"


def chat_of(template: str, messages: list[dict[str, Any]]) -> str:
    """What transformers makes of messages: Jinja with these names."""

    def raise_exception(line: str) -> None:
        raise TemplateError(line)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    made.globals["raise_exception"] = raise_exception
    return made.render(messages=messages, bos_token="<s>", eos_token="</s>")


PARTS = [{"type": "text", "text": "say 3"}]


@pytest.mark.parametrize("content", [PARTS, [], None, {"text": "say 3"}, 3])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_the_exported_template_says_that_it_takes_no_parts(role: str, content: Any) -> None:
    template = "Q: {instruction}\n\n{input}\n\nA:"
    values = {"finetune.kind": "instruct", "finetune.template": template, "start.path": "/base"}
    found = chat_template(build_config(flags={**values, "data.texts": ["/tasks.jsonl"]}))
    assert found
    first, answer = {"role": "user", "content": "say 3"}, {"role": "assistant", "content": "3"}
    assert chat_of(found, [first, answer]) == "<s>Q: say 3\n\nA:3</s>"
    with pytest.raises(TemplateError, match="content is one text, and no lists of parts"):
        chat_of(found, [first, {"role": role, "content": content}])
    with pytest.raises(TemplateError, match="content is one text"):
        chat_of(found, [{"role": role}])
    with pytest.raises(TemplateError, match="no system messages"):
        chat_of(found, [{"role": "system", "content": "x"}, first])


def test_only_a_run_that_follows_instructions_has_a_template(qwen3: Run) -> None:
    assert chat_template(qwen3.config) is None


# --- a folder for transformers ---


def test_a_folder_has_what_transformers_reads(qwen3: Run, tmp_path: Path, hairpin: Hairpin) -> None:
    best = min(evaluations(qwen3), key=lambda event: float(event["val_loss"]))
    done = hairpin("export", qwen3.path, tmp_path / "out")
    count = sum(t.numel() for t in open_origin(qwen3.path).tensors.values())
    words = f"Qwen3ForCausalLM, {count:,} parameters, best weights, update {best['update']}"
    assert done == (0, f"{tmp_path / 'out'}: {words}, of {qwen3.path}\n", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config["model_type"] == "qwen3" and config["eos_token_id"] == 256
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"best weights, update {best['update']}" in card and "| text | text.txt |" in card
    assert f"{best['val_loss']:.3f} nats per token, {best['val_bits_per_byte']:.3f} bits" in card


def test_last_weights_are_the_last(qwen3: Run, tmp_path: Path) -> None:
    last = package.export(qwen3.path, tmp_path / "last", weights="last")
    best = package.export(qwen3.path, tmp_path / "best")
    assert "last weights, update 8" in last.words
    tensors = [load_file(tmp_path / name / "model.safetensors") for name in ("last", "best")]
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(tensors[0][name], tensors[1][name])
    saved = load_file(qwen3.path / "checkpoints" / "step-00000008" / "model.safetensors")
    assert torch.equal(tensors[0][name], saved["blocks.0.mlp.expand.weight"])
    assert "update 8" not in best.words


def test_a_name_of_a_run_is_only_text_in_its_card(qwen3: Run, tmp_path: Path) -> None:
    odd = qwen3.path.with_name("a[b](http:x) <i>\x1b[31m|")
    qwen3.path.rename(odd)
    package.export(odd, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert r"# a\[b\](http:x) \<i\>\\x1b\[31m\|" in card and "\x1b" not in card


def test_large_weights_become_parts_with_an_index(qwen3: Run, tmp_path: Path) -> None:
    export_folder(open_source(qwen3), tmp_path / "parts", largest_bytes=6_000)
    export_folder(open_source(qwen3), tmp_path / "whole")
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_bytes())
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    files = sorted(set(index["weight_map"].values()))
    assert files == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]
    for file in files:
        part = load_file(tmp_path / "parts" / file)
        assert len(part) == 1 or sum(t.nbytes for t in part.values()) <= 6_000
    assert open_origin(tmp_path / "parts").sha256 == open_origin(tmp_path / "whole").sha256


@pytest.mark.parametrize("kind", SHAPES)
def test_config_json_is_read_back_as_the_shape(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(config_json(replace(SHAPES[kind], dropout=0.1)))
    )
    assert read_shape(tmp_path / "config.json")[0] == SHAPES[kind]


def test_what_cannot_be_written_leaves_nothing(
    qwen3: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "_write_weights", full)
    with pytest.raises(RunError, match=r"out: cannot be written \(No space left on device"):
        package.export(qwen3.path, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


# --- what is refused ---


def test_what_cannot_be_exported_is_refused_in_one_line(
    qwen3: Run, tmp_path: Path, hairpin: Hairpin
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    new = tmp_path / "new"
    for arguments, line in {
        ("nowhere", new): "nowhere: not a run: it has no config.toml",
        (qwen3.path, tmp_path / "full"): "full: exists and is not an empty folder; name another",
        (qwen3.path, new, "--to", "onnx"): "'onnx' is not one of 'huggingface', 'gguf'",
        (qwen3.path,): "is a run; also name a place to write to",
        (new,): "no runs in ./runs yet",
        ("a", "b", "c"): "export takes a run and one place to write to",
        (): "Missing argument '[RUN] OUT",
    }.items():
        assert line in hairpin("export", *arguments).refusal
    shutil.rmtree(qwen3.path / "best")
    shutil.rmtree(qwen3.path / "checkpoints")
    assert "no weights saved yet" in hairpin("export", qwen3.path, new).refusal
    assert not new.exists()
    with pytest.raises(ConfigError, match="there is no 'onnx'; choose one of huggingface, gguf"):
        package.export(qwen3.path, new, to="onnx")


def test_an_empty_folder_is_filled(qwen3: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    package.export(qwen3.path, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_a_classifier_is_refused(base: Run, tmp_path: Path, no_plots: None) -> None:
    run = package.finetune(
        "classify",
        labels_file(tmp_path),
        start=base.path,
        out=tmp_path / "labels",
        settings=finetune(train__updates=1, schedule__warmup_updates=0, schedule__kind="constant"),
        watcher=package.Quiet(),
    )
    with pytest.raises(RunError, match="a classifier, whose head has a bias"):
        package.export(run.path, tmp_path / "out")


def test_gguf_has_no_modern_network_and_needs_its_package(
    qwen3: Run, tmp_path: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"gguf is not installed; pip install 'hairpin\[gguf\]'"):
        package.export(qwen3.path, tmp_path / "a.gguf", to="gguf")
    (tmp_path / "there.gguf").touch()
    with pytest.raises(RunError, match=r"there\.gguf: already exists; name another file"):
        package.export(qwen3.path, tmp_path / "there.gguf", to="gguf")
    modern = package.train(
        text_file(tmp_path),
        out=tmp_path / "modern",
        settings=tiny(recipe="modern", train__updates=4, schedule__warmup_updates=1),
        watcher=package.Quiet(),
    )
    with pytest.raises(RunError, match="no network like `modern`; train with `--recipe qwen3`"):
        package.export(modern.path, tmp_path / "b.gguf", to="gguf")
    assert not list(tmp_path.glob("*[ab].gguf"))


# --- a model becomes a run ---


def test_a_gpt2_folder_becomes_a_run_that_does_all_that_runs_do(
    tmp_path: Path, hairpin: Hairpin, no_plots: None
) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    done = hairpin("import", folder, "--out", "run")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("run: ") and done.out.endswith(f" parameters, from {folder}\n")
    origin, imported = open_origin(folder), open_origin(tmp_path / "run")
    assert (imported.sha256, imported.shape) == (origin.sha256, origin.shape)
    assert imported.tokenizer.hash() == origin.tokenizer.hash()
    text = text_file(tmp_path)
    assert hairpin("sample", "run", "--prompt", "the", "--tokens", 5).code == 0
    assert hairpin("sample", "run", "--weights", "last", "--tokens", 5).code == 0
    assert "bits per byte" in hairpin("evaluate", "run", text).out
    assert "no text given" in hairpin("evaluate", "run").refusal
    assert "0 updates" in hairpin("verify", "run").out
    assert hairpin("report", "run").code == 0
    rows = [line.split() for line in hairpin("runs", ".").out.splitlines()]
    assert ["run", "finished"] in [row[:2] for row in rows]
    way = "imported, so there is no training to resume; `hairpin train TEXT --from run` starts one"
    assert way in hairpin("resume", "run").out
    assert way in hairpin("resume", "run", "--extend", 5).refusal
    flags = ["--updates", 2, "--set", "train.tokens_per_update=48", "--precision", "float32"]
    flags += ["--set", "evaluate.sample_tokens=0", "--device", "cpu", "--out", "more"]
    assert hairpin("train", text, "--from", "run", *flags).code == 0
    assert package.load(tmp_path / "more").config.model.architecture == "gpt2"


def test_an_import_names_its_run_after_the_folder(tmp_path: Path, hairpin: Hairpin) -> None:
    gpt2_folder(tmp_path / "gpt2")
    assert hairpin("import", "gpt2").out.startswith(f"{Path('runs', 'gpt2-1')}: ")
    assert hairpin("import", "gpt2").out.startswith(f"{Path('runs', 'gpt2-2')}: ")


def test_qwen3_and_plain_bytes_come_back(qwen3: Run, tmp_path: Path) -> None:
    folder = package.export(qwen3.path, tmp_path / "out").path
    found = read_tokenizer(folder)
    assert found and isinstance(found.tokenizer, ByteTokenizer)
    run = package.import_model(folder, out=tmp_path / "again")
    assert run.config.model.architecture == "qwen3" and run.config.tokenizer.kind == "bytes"
    assert open_origin(run.path).sha256 == open_origin(qwen3.path).sha256
    second = package.export(run.path, tmp_path / "second").path
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (second / name).read_bytes() == (folder / name).read_bytes()
    card = (second / "README.md").read_text(encoding="utf-8")
    assert f"| started from | Qwen3 checkpoint in {folder.name} |" in card
    assert "| training |" not in card and "| validation |" not in card


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"num_key_value_heads": 1}, "num_key_value_heads is 1, but hairpin supports only 2"),
    ({"head_dim": 16}, "head_dim is 16, but hairpin supports only 8"),
    ({"intermediate_size": 64}, "intermediate_size is 64, but hairpin supports only 40"),
    (
        {"rope_parameters": None, "rope_theta": 1e6},
        "rope_theta is 1000000.0, but hairpin supports only",
    ),
    ({"rope_parameters": [1]}, "rope_parameters is [1], but should be an object"),
    ({"rope_parameters": {"rope_type": "yarn"}}, 'rope_type is "yarn", but hairpin supports only'),
    ({"layer_types": ["sliding_attention"]}, 'layer_types is ["sliding_attention"], but hairpin'),
    ({"use_sliding_window": True}, "use_sliding_window is true, but hairpin supports only false"),
    ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05, but hairpin supports only 1e-06"),
    ({"num_attention_heads": 16}, "hidden_size / num_attention_heads is 1, which is not even"),
    ({"hidden_size": None}, "hidden_size is null, but should be a number from 1 to 65536"),
]


@pytest.mark.parametrize(("changes", "line"), CHANGES)
def test_a_qwen3_that_is_not_hairpins_is_refused(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    shape = Shape.default("qwen3", 257, 12, 1, 2, 16)
    (tmp_path / "config.json").write_text(json.dumps(config_json(shape) | changes))
    with pytest.raises(RunError) as caught:
        open_origin(tmp_path)
    assert any(
        problem.startswith(f"{tmp_path / 'config.json'}: {line}")
        for problem in caught.value.problems
    )


def test_what_cannot_be_imported_is_refused_and_leaves_nothing(
    tmp_path: Path, hairpin: Hairpin, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    assert hairpin("import", folder, "--out", "run").code == 0
    assert "run: is already a run; name it directly" in hairpin("import", "run").refusal
    assert "exists and is not an empty folder" in hairpin("import", folder, "--out", "run").refusal
    assert "no such folder" in hairpin("import", "nowhere/at/all", "--out", "x").refusal
    monkeypatch.setattr(
        bring_in, "_write_record", lambda *_: builtins.exec("raise OSError(28, 'x')")
    )
    assert "new: cannot be written" in hairpin("import", folder, "--out", "new").refusal
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refusal = hairpin("import", folder, "--out", "new").refusal
    assert "a pickle (pytorch_model.bin), which can run any program and is never read" in refusal
    assert "save_pretrained" in refusal
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60))
    assert "cannot be read" in hairpin("import", folder, "--out", "new").refusal
    assert not list(tmp_path.glob("*new*"))
