"""Exports loaded by transformers itself: logits, losses, text, tokens; and back again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import hairpin
from ecosystem.small_runs import ARCHITECTURES, STRANGE, TOKENIZERS, small_run
from hairpin.errors import RunError
from hairpin.model.generate import Sampling
from hairpin.model.shape import Shape
from hairpin.tasks.template import render
from hairpin.weights.convert.huggingface import export_folder
from hairpin.weights.convert.source import open_source
from hairpin.weights.origin import open_origin
from hairpin.weights.transformers_weights import to_transformers
from helpers import lively_model, random_ids, some_text

HELD_OUT = some_text(1500, seed=77)


def exported(tmp_path: Path, *which: str, **changes: Any) -> tuple[Any, Path]:
    run = small_run(*which, **changes)
    return run, hairpin.export(run.path, tmp_path / "out").path


def loaded(folder: Path) -> Any:
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report  # no tensor missing, left over, or of another shape
    return model.eval()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_computes_what_hairpin_does(
    tmp_path: Path, architecture: str, tokenizer: str
) -> None:
    run, folder = exported(tmp_path, architecture, tokenizer)
    theirs, ours = loaded(folder), run.trained(device="cpu")
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    classes = {"gpt2": "GPT2LMHeadModel", "modern": "NanoChatForCausalLM"}
    assert type(theirs).__name__ == classes.get(architecture, "Qwen3ForCausalLM")
    assert next(theirs.parameters()).dtype == torch.float32

    # Tokens, and end-of-text.
    for text in (some_text(800, seed=5), STRANGE, "", " ", "\n\n", "a" * 50):
        ids = their_tokenizer(text)["input_ids"]
        assert ids == ours.tokenizer.encode(text).tolist()
        assert their_tokenizer.decode(ids) == text
    end = ours.tokenizer.end_of_text
    assert their_tokenizer.convert_tokens_to_ids("<|endoftext|>") == end
    assert their_tokenizer("a<|endoftext|>b")["input_ids"][1:-1] == [end]
    whole = their_tokenizer("a<|endoftext|>b", split_special_tokens=True)["input_ids"]
    assert whole == ours.tokenizer.encode("a<|endoftext|>b").tolist()
    for holder in (their_tokenizer, theirs.config, theirs.generation_config):
        found = [getattr(holder, f"{name}_token_id") for name in ("bos", "eos", "pad")]
        assert found == [end] * 3

    # Logits of every position of a whole context.
    ids = random_ids(3, 64, below=ours.tokenizer.vocabulary)
    with torch.no_grad():
        expected, logits = ours.model.logits(ids), theirs(ids).logits
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.05

    # The loss of a text that it has not seen, in windows of a context.
    stream = torch.tensor([end, *their_tokenizer(HELD_OUT)["input_ids"]])
    stream = stream[: (len(stream) - 1) // 64 * 64 + 1]
    inputs, targets = stream[:-1].view(-1, 64), stream[1:].view(-1, 64)
    with torch.no_grad():
        loss_sum, count = ours.model(inputs, targets)
        their_loss = F.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten())
    assert float(their_loss) == pytest.approx(float(loss_sum / count), abs=1e-4)

    # Text.
    text = "".join(ours.write("the cat", Sampling(0.0), tokens=40))
    prompt = their_tokenizer(their_tokenizer.bos_token + "the cat", return_tensors="pt")
    written = theirs.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
    new = written[prompt["input_ids"].size(1) :]
    assert their_tokenizer.decode(new, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("gpt2", {"model.tied": False}),
        ("gpt2", {"model.bias": False, "model.qkv_bias": False}),
        ("gpt2", {"model.qkv_bias": False, "model.dropout": 0.1}),
        ("qwen3", {"model.tied": True, "optimizer.embedding_lr_scale": 6.0}),
        ("qwen3", {"optimizer.kind": "adamw"}),
    ],
)
def test_unequal_details_are_exact_too(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    run, folder = exported(tmp_path, architecture, "bytes", **changes)
    theirs, ours = loaded(folder), run.trained(device="cpu")
    ids = random_ids(2, 64, below=257)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours.model.logits(ids), atol=1e-4, rtol=0)
    head, embedding = theirs.get_output_embeddings(), theirs.get_input_embeddings()
    assert (head.weight is embedding.weight) == run.config.model.tied


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_and_back_is_the_same_file(tmp_path: Path, architecture: str) -> None:
    run, folder = exported(tmp_path, architecture, "bpe")
    again = hairpin.import_model(folder, out=tmp_path / "run")
    second = hairpin.export(again.path, tmp_path / "second").path
    for name in ("model.safetensors", "tokenizer.json", "config.json", "generation_config.json"):
        assert (second / name).read_bytes() == (folder / name).read_bytes(), name
    one, other = open_origin(run.path), open_origin(again.path)
    assert (one.sha256, one.tokenizer.hash()) == (other.sha256, other.tokenizer.hash())
    assert one.shape == other.shape
    writers = (run.writer(device="cpu"), again.writer(device="cpu"))
    texts = ["".join(w.write("a", Sampling(0.0), tokens=30)) for w in writers]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_transformers_saves_comes_back_whole_or_in_parts(
    tmp_path: Path, architecture: str
) -> None:
    run, folder = exported(tmp_path, architecture, "bytes")
    for name, size in (("whole", "5GB"), ("parts", "30KB")):
        loaded(folder).save_pretrained(tmp_path / name, max_shard_size=size)
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / name)
        origin = open_origin(tmp_path / name)
        assert origin.sha256 == open_origin(run.path).sha256
        assert origin.tokenizer.hash() == open_origin(run.path).tokenizer.hash()
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1


def test_weights_in_parts_are_loaded(tmp_path: Path) -> None:
    run = small_run("qwen3")
    export_folder(open_source(run), tmp_path / "parts", largest_bytes=30_000)
    export_folder(open_source(run), tmp_path / "whole")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 2
    state, expected = (loaded(tmp_path / n).state_dict() for n in ("parts", "whole"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


def test_an_instruction_in_a_chat_is_the_runs_own_prompt(tmp_path: Path) -> None:
    template = 'Ask "\\it\\":\n{instruction} 🐈\n\n{input}\n\nAgain {instruction}:\t'
    base = small_run("modern")
    data = tmp_path / "tasks.jsonl"
    rows = [{"instruction": f"say {n}", "response": f"it is {n}"} for n in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = hairpin.finetune(
        "instruct",
        data,
        start=base.path,
        out=tmp_path / "run",
        settings={
            "train.updates": 2,
            "finetune.template": template,
            "finetune.too_long": "keep-start",
            "execution.device": "cpu",
            "execution.precision": "float32",
            "evaluate.sample_tokens": 0,
        },
        watcher=hairpin.Quiet(),
    )
    tokenizer = AutoTokenizer.from_pretrained(hairpin.export(run.path, tmp_path / "out").path)
    trained = run.trained(device="cpu")
    ours = trained.tokenizer

    prompt = [ours.end_of_text, *ours.encode(render(template, "say 3")).tolist()]
    messages = [{"role": "user", "content": "say 3"}]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert found["input_ids"] == prompt
    # With its response: what training saw.
    messages.append({"role": "assistant", "content": "it is 3"})
    found = tokenizer.apply_chat_template(messages, return_dict=True)
    assert found["input_ids"] == [*prompt, *ours.encode("it is 3").tolist(), ours.end_of_text]
    with pytest.raises(Exception, match="no system messages"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}])


@pytest.mark.parametrize("tied", [False, True])
def test_qwen3_has_the_gradients_of_transformers(tied: bool) -> None:
    shape = Shape.default("qwen3", 80, 24, layers=3, heads=2, width=32, tied=tied)
    config = Qwen3Config(
        vocab_size=80, hidden_size=32, intermediate_size=shape.inner, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, max_position_embeddings=24,
        tie_word_embeddings=tied, rms_norm_eps=1e-6,
    )  # fmt: skip
    ours, theirs = lively_model(shape), Qwen3ForCausalLM(config)
    theirs.load_state_dict(to_transformers(ours.state_dict(), shape), strict=not tied)
    inputs, targets = random_ids(2, 24), random_ids(2, 24, seed=1)
    loss_sum, count = ours(inputs, targets)
    (loss_sum / count).backward()
    loss = F.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten())
    loss.backward()
    assert float(loss_sum.detach() / count) == pytest.approx(float(loss.detach()), rel=1e-5)
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, gradient in to_transformers(gradients, shape).items():
        expected = theirs.get_parameter(name).grad
        scale = float(expected.abs().max())
        torch.testing.assert_close(gradient, expected, atol=2e-4 * scale, rtol=0, msg=name)


def test_qwen3_of_others_that_hairpin_does_not_compute_is_refused_by_name(tmp_path: Path) -> None:
    config = Qwen3Config(
        vocab_size=257, hidden_size=32, intermediate_size=96, num_hidden_layers=1, head_dim=32,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=24,
        rope_theta=1e6, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(RunError) as caught:
        open_origin(tmp_path)
    named = [line.split(": ", 1)[1].split(" is ")[0] for line in caught.value.problems]
    assert named == ["intermediate_size", "num_key_value_heads", "head_dim", "rope_theta"]


def test_training_goes_on_from_an_export(tmp_path: Path) -> None:
    run, folder = exported(tmp_path, "qwen3", "bpe")
    text = tmp_path / "more.txt"
    text.write_text(some_text(9000, seed=3), encoding="utf-8")
    more = hairpin.train(
        text,
        start=folder,
        out=tmp_path / "more",
        settings={"train.updates": 3, "train.tokens_per_update": 256, "execution.device": "cpu",
                  "evaluate.sample_tokens": 0, "execution.precision": "float32"},
        watcher=hairpin.Quiet(),
    )  # fmt: skip
    assert more.config.model.architecture == "qwen3"
    assert more.record()[1]["start"] == f"Qwen3 checkpoint in {folder}"
    assert run.config.tokenizer.vocabulary == more.config.tokenizer.vocabulary
    assert AutoConfig.from_pretrained(folder).model_type == "qwen3"


# --- folders as people have them ---


@pytest.mark.parametrize(("architecture", "tied"), [("gpt2", True), ("qwen3", True)])
def test_a_head_that_differs_from_the_embedding_of_a_tied_folder(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    """As after a training in which the tie was cut, and the config was not told."""
    _, folder = exported(tmp_path, architecture, "bytes", **{"model.tied": tied})
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    tensors["lm_head.weight"] = torch.randn(257, 32, generator=generator)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    run = hairpin.import_model(folder, out=tmp_path / "run")
    ids = random_ids(2, 64, below=257)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        found = run.trained(device="cpu").model.logits(ids)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not run.config.model.tied


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokens_that_transformers_adds_come_along(
    tmp_path: Path, architecture: str, tokenizer: str
) -> None:
    _, folder = exported(tmp_path, architecture, tokenizer)
    model, theirs = loaded(folder), AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    theirs.add_tokens(["<tool>", "<tool>x"])
    model.resize_token_embeddings(len(theirs))
    model.save_pretrained(tmp_path / "chat")
    theirs.save_pretrained(tmp_path / "chat")
    run = hairpin.import_model(tmp_path / "chat", out=tmp_path / "run")
    ours = run.trained(device="cpu")
    text = f"<|im_start|>user\n{some_text(300)}<|im_end|>\n<tool> <tool>x{STRANGE}"
    ids = theirs(text)["input_ids"]
    assert ours.tokenizer.encode(text).tolist() == ids and len(theirs) == ours.tokenizer.vocabulary
    with torch.no_grad():
        row = torch.tensor([ids[:64]])
        torch.testing.assert_close(ours.model.logits(row), model(row).logits, atol=1e-4, rtol=0)
    back = hairpin.export(run.path, tmp_path / "back").path
    again = AutoTokenizer.from_pretrained(back)
    assert again(text)["input_ids"] == ids
    for special in (True, False):
        shown = again.decode(ids, skip_special_tokens=special)
        assert shown == theirs.decode(ids, skip_special_tokens=special)
    with torch.no_grad():
        assert torch.equal(loaded(back)(row).logits, model.eval()(row).logits)


def test_a_bare_model_comes_back_as_a_language_model(tmp_path: Path) -> None:
    """`AutoModel` saves names without `model.` or `transformer.` in front, and no head."""
    for architecture in ("gpt2", "qwen3"):
        place = tmp_path / architecture
        run = small_run(architecture, "bytes", **{"model.tied": True})
        folder = hairpin.export(run.path, place / "out").path
        AutoModel.from_pretrained(folder).save_pretrained(place / "bare")
        AutoTokenizer.from_pretrained(folder).save_pretrained(place / "bare")
        assert open_origin(place / "bare").sha256 == open_origin(run.path).sha256
