"""Folders of transformers as people have them: tied or not, with added tokens, with other names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

import hairpin as package
from hairpin.data.added_tokens import END_OF_TEXT
from hairpin.data.encoding import DocumentPart, encoded_parts
from hairpin.data.tokenizers import BpeTokenizer, load_tokenizer
from hairpin.errors import RunError
from hairpin.model.shape import Shape
from hairpin.weights.model_config import config_json
from hairpin.weights.origin import open_origin
from hairpin.weights.transformers_weights import to_transformers
from helpers import (
    GPT2_END,
    GPT2_IDS,
    Hairpin,
    copy_of_tokenizer,
    gpt2_folder,
    gpt2_tensors,
    lively_model,
    random_ids,
    some_text,
    text_file,
    tiny,
    write_gpt2_config,
    write_gpt2_tokenizer,
    write_gpt2_weights,
)
from test_origin import logits_by_hand, logits_of, problems_of

CHAT = ("<|im_start|>", "<|im_end|>", "<|im_start|>user", "<tool>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return gpt2_folder(tmp_path / "gpt2")


def text_notices(path: Path) -> list[str]:
    return [line.replace(f"{path}: ", "") for line in open_origin(path).notices]


# --- tied or not ---


@pytest.mark.parametrize("setting", [True, None])
def test_a_head_that_is_not_the_embedding_is_kept_whatever_the_config_says(
    folder: Path, setting: bool | None
) -> None:
    tensors = gpt2_tensors(tied=False)
    write_gpt2_weights(folder, tensors)
    config = json.loads((folder / "config.json").read_bytes())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(
        json.dumps(config if setting is None else config | {"tie_word_embeddings": setting})
    )
    origin, ids = open_origin(folder), random_ids(12, below=GPT2_IDS)
    assert not origin.shape.tied
    expected = logits_by_hand(tensors, ids)
    torch.testing.assert_close(logits_of(origin, ids).double(), expected, atol=1e-4, rtol=1e-4)
    assert text_notices(folder) == [
        "its config.json ties the head to the embedding, but lm_head.weight differs: read as "
        "untied, like transformers"
    ]


def test_a_head_that_is_the_embedding_stays_tied_and_nothing_is_said(folder: Path) -> None:
    origin = open_origin(folder)
    assert origin.shape.tied and not origin.notices
    rounded = {name: tensor.bfloat16() for name, tensor in gpt2_tensors().items()}
    write_gpt2_weights(folder, rounded)
    assert open_origin(folder).shape.tied


def test_a_tied_folder_that_has_only_its_head_has_its_embedding(folder: Path) -> None:
    whole = open_origin(folder).sha256
    tensors = {name: tensor for name, tensor in gpt2_tensors().items() if name != "wte.weight"}
    write_gpt2_weights(folder, tensors)
    assert open_origin(folder).sha256 == whole


def test_rows_that_no_token_has_do_not_untie(folder: Path) -> None:
    padded = gpt2_tensors(320)
    head = padded["lm_head.weight"].clone()
    head[GPT2_IDS:] = 0
    write_gpt2_weights(folder, padded | {"lm_head.weight": head})
    write_gpt2_config(folder, vocab_size=320)
    assert open_origin(folder).shape.tied
    assert text_notices(folder) == ["left out 20 rows of the embedding that no token has"]


def llama_folder(path: Path, shape: Shape, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config_json(shape) | config))
    save_file(tensors, path / "model.safetensors")
    whole = copy_of_tokenizer()
    write_gpt2_tokenizer(path, whole)
    return path


def test_a_qwen3_whose_head_is_another_is_untied_too(tmp_path: Path) -> None:
    shape = Shape.default("qwen3", GPT2_IDS, 12, 2, 2, 16)
    tensors = to_transformers(lively_model(shape).state_dict(), shape)
    untied = open_origin(llama_folder(tmp_path / "untied", shape, tensors))
    said = llama_folder(tmp_path / "said", shape, tensors, tie_word_embeddings=True)
    origin = open_origin(said)
    assert (origin.sha256, origin.shape) == (untied.sha256, untied.shape)
    assert not origin.shape.tied and not untied.notices
    assert "read as untied" in text_notices(said)[0]


# --- names of tensors ---


@pytest.mark.parametrize("bare", ["all", "some"])
@pytest.mark.parametrize("architecture", ["modern", "qwen3"])
def test_names_without_model_in_front_are_the_same_weights(
    tmp_path: Path, architecture: str, bare: str
) -> None:
    shape = Shape.default(architecture, GPT2_IDS, 12, 2, 2, 16)
    tensors = to_transformers(lively_model(shape).state_dict(), shape)
    whole = open_origin(llama_folder(tmp_path / "whole", shape, tensors))
    renamed = {
        name.removeprefix("model.") if bare == "all" or ".1." in name else name: tensor
        for name, tensor in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    found = open_origin(llama_folder(tmp_path / "bare", shape, renamed))
    assert found.sha256 == whole.sha256


def test_a_tensor_that_is_there_under_two_names_is_refused(folder: Path, tmp_path: Path) -> None:
    write_gpt2_weights(folder, gpt2_tensors() | {"transformer.ln_f.bias": torch.zeros(32)})
    assert problems_of(folder) == [
        "gpt2/model.safetensors: transformer.ln_f.bias and ln_f.bias are the same tensor; "
        "save the model again"
    ]
    shape = Shape.default("qwen3", GPT2_IDS, 12, 1, 2, 16)
    tensors = to_transformers(lively_model(shape).state_dict(), shape)
    path = llama_folder(tmp_path / "q", shape, tensors | {"norm.weight": torch.ones(16)})
    assert "model.norm.weight and norm.weight are the same tensor" in problems_of(path)[0]


def test_heads_that_are_no_language_models_are_told(folder: Path) -> None:
    write_gpt2_weights(folder, gpt2_tensors() | {"score.weight": torch.ones(2, 32)})
    assert text_notices(folder) == ["left out score.weight: not part of a language model"]


# --- tokens ---


def with_added(
    folder: Path, contents: tuple[str, ...] = CHAT, rows: int | None = None, **flags: bool
) -> dict[str, Any]:
    """Add tokens to a folder's vocabulary, and rows to its embedding."""
    whole = copy_of_tokenizer()
    whole["added_tokens"] += [
        {"id": GPT2_IDS + n, "content": content, "special": True, "normalized": False, **flags}
        for n, content in enumerate(contents)
    ]
    for token in whole["added_tokens"]:
        for flag in ("single_word", "lstrip", "rstrip", "normalized"):
            token.setdefault(flag, False)
    write_gpt2_tokenizer(folder, whole)
    count = GPT2_IDS + len(contents) if rows is None else rows
    write_gpt2_weights(folder, {f"transformer.{n}": t for n, t in tied_rows(count).items()})
    write_gpt2_config(folder, vocab_size=count)
    return whole


def tied_rows(count: int) -> dict[str, torch.Tensor]:
    return {name: t for name, t in gpt2_tensors(count).items() if name != "lm_head.weight"}


PIECES = st.lists(st.sampled_from([*CHAT, "user", "a", " b", "\n", "<|im", "_end|>", "é", "<tool"]))


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> tuple[BpeTokenizer, HuggingFaceTokenizer]:
    """A tokenizer with added tokens as hairpin reads it, and as `tokenizers` does."""
    folder = gpt2_folder(tmp_path_factory.mktemp("chat") / "gpt2")
    with_added(folder)
    found = open_origin(folder).tokenizer
    assert isinstance(found, BpeTokenizer)
    return found, HuggingFaceTokenizer.from_file(str(folder / "tokenizer.json"))


@settings(max_examples=200)
@given(PIECES.map("".join))
def test_added_tokens_are_found_as_tokenizers_finds_them(
    chatting: tuple[BpeTokenizer, HuggingFaceTokenizer], text: str
) -> None:
    ours, theirs = chatting
    ids = ours.encode(text)
    assert ids.dtype == np.uint32
    assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == text
    assert int(ours.token_bytes()[ids].sum()) == len(text.encode())
    assert ours.encode_batch([text, "x"])[0].tolist() == ids.tolist()


@pytest.mark.parametrize("cut", range(1, 40))
def test_no_piece_of_a_document_ends_inside_an_added_token(
    chatting: tuple[BpeTokenizer, HuggingFaceTokenizer], cut: int
) -> None:
    ours, theirs = chatting
    text = "hé <|im_start|>user\nthe cat<|im_end|> <tool>\n"
    halves = [DocumentPart(False, True, "before <|im_", 12)]
    halves += [
        DocumentPart(False, n == 0, t, len(t.encode()))
        for n, t in enumerate((text[:cut], text[cut:]))
    ]
    found = list(encoded_parts(halves, ours))
    assert sum(part.text_bytes for part, _ in found) == 12 + len(text.encode())
    before, first, second = (ids.tolist() for _, ids in found)
    whole = theirs.encode(text, add_special_tokens=False).ids
    marks = [index for index in whole if index >= GPT2_IDS]
    assert [index for index in first + second if index >= GPT2_IDS] == marks
    assert ours.decode(first[1:] + second) == text
    assert before[1:] == ours.encode("before <|im_").tolist()


def test_end_of_text_is_made_from_no_text_among_added_tokens(
    chatting: tuple[BpeTokenizer, HuggingFaceTokenizer],
) -> None:
    ours, _ = chatting
    ids = ours.encode(f"<tool>{END_OF_TEXT}")
    assert ours.end_of_text == GPT2_IDS - 1 and ours.end_of_text not in ids
    assert ids[0] == GPT2_IDS + CHAT.index("<tool>")


def test_added_tokens_keep_their_rows_through_a_run_and_an_export(
    folder: Path, tmp_path: Path, hairpin: Hairpin
) -> None:
    with_added(folder)
    done = hairpin("import", folder, "--out", "run")
    assert done.code == 0
    assert done.err.strip().endswith(
        "4 added tokens (<|im_start|>, <|im_end|>, <|im_start|>user, <tool>) kept with their "
        "embedding rows; each is one id wherever its text occurs"
    )
    run = package.load(tmp_path / "run")
    saved = load_tokenizer(run.directory.tokenizer)
    assert saved.hash() == open_origin(folder).tokenizer.hash()
    out = package.export(run.path, tmp_path / "out").path
    tensors = load_file(folder / "model.safetensors")
    assert {n: t.tolist() for n, t in load_file(out / "model.safetensors").items()} == {
        n: t.tolist() for n, t in tensors.items()
    }
    before, after = (
        HuggingFaceTokenizer.from_file(str(each / "tokenizer.json")) for each in (folder, out)
    )
    text = f"<|im_start|>user\nhello<|im_end|> {END_OF_TEXT}<tool>"
    assert after.encode(text).ids == before.encode(text).ids
    assert after.get_vocab() == before.get_vocab()
    assert open_origin(out).tokenizer.hash() == saved.hash()
    config = json.loads((out / "tokenizer_config.json").read_bytes())
    assert [*config["added_tokens_decoder"]] == [str(n) for n in range(GPT2_IDS - 1, GPT2_IDS + 4)]


def test_training_from_such_a_folder_says_so(folder: Path, tmp_path: Path, no_plots: None) -> None:
    with_added(folder)
    lines: list[str] = []

    class Watcher(package.Quiet):
        def notice(self, line: str) -> None:
            lines.append(line)

    asked = tiny(
        train__updates=1,
        train__tokens_per_update=48,
        schedule__warmup_updates=0,
        schedule__kind="constant",
    )
    own = {
        key: value for key, value in asked.items() if not key.startswith(("model.", "tokenizer."))
    }
    run = package.train(
        text_file(tmp_path), start=folder, out=tmp_path / "run", settings=own, watcher=Watcher()
    )
    assert any("4 added tokens (<|im_start|>" in line for line in lines)
    assert load_tokenizer(run.directory.tokenizer).vocabulary == GPT2_IDS + 4


def test_added_tokens_beside_vocab_json_are_the_same(folder: Path) -> None:
    whole = with_added(folder)
    expected = open_origin(folder).tokenizer.hash()
    (folder / "tokenizer.json").unlink()
    merges = "".join(f"{left} {right}\n" for left, right in whole["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]), encoding="utf-8")
    ids = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(ids), encoding="utf-8")
    assert open_origin(folder).tokenizer.hash() == expected
    (folder / "added_tokens.json").unlink()
    decoder = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in whole["added_tokens"]
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    assert open_origin(folder).tokenizer.hash() == expected


def test_an_added_token_without_a_row_is_left_out_and_told(folder: Path) -> None:
    plain = open_origin(folder)
    with_added(folder, ("[PAD]",), rows=GPT2_IDS)
    origin = open_origin(folder)
    assert origin.tokenizer.hash() == plain.tokenizer.hash()
    assert text_notices(folder) == ["1 added token ([PAD]) left out: they have no embedding row"]
    with_added(folder, ("<a>", "<b>"), rows=GPT2_IDS + 1)
    assert open_origin(folder).tokenizer.vocabulary == GPT2_IDS + 1
    assert text_notices(folder) == [
        "1 added token (<a>) kept with their embedding rows; each is one id wherever its text "
        "occurs",
        "1 added token (<b>) left out: they have no embedding row",
    ]


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_an_added_token_that_takes_more_than_its_text_is_told(folder: Path, flag: str) -> None:
    with_added(folder, ("<mask>",), **{flag: True})
    tokenizer = open_origin(folder).tokenizer
    assert tokenizer.decode(tokenizer.encode(" a<mask> b")) == " a<mask> b"
    assert text_notices(folder)[1].startswith(
        "1 added token (<mask>) matched exactly as written; in tokenizer.json"
    )


def test_an_end_of_text_of_its_own_is_told(folder: Path) -> None:
    with_added(folder)
    write_gpt2_config(folder, vocab_size=GPT2_IDS + 4, eos_token_id=GPT2_IDS + 1)
    assert f"its eos_token_id is {GPT2_IDS + 1}; hairpin ends at 299" in text_notices(folder)
    write_gpt2_config(folder, vocab_size=GPT2_IDS + 4, eos_token_id=[GPT2_IDS - 1])
    assert not any("eos_token_id" in line for line in text_notices(folder))


def test_a_chat_template_is_told(folder: Path) -> None:
    line = "its chat template is left out: a run has an instruction template, or none"
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert text_notices(folder) == [line]
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert text_notices(folder) == [line]


def learned_elsewhere(specials: list[str], **options: Any) -> HuggingFaceTokenizer:
    """What a page about `tokenizers` makes of a text."""
    theirs = HuggingFaceTokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=GPT2_IDS, special_tokens=specials, show_progress=False, **options
    )
    theirs.train_from_iterator([some_text(20_000)], trainer)
    return theirs


ALPHABET = pre_tokenizers.ByteLevel.alphabet()


@pytest.mark.parametrize("specials", [[GPT2_END], [GPT2_END, "<|pad|>"], ["<|pad|>", GPT2_END]])
def test_special_tokens_that_come_first_are_where_they_are(
    folder: Path, tmp_path: Path, specials: list[str]
) -> None:
    theirs = learned_elsewhere(specials, initial_alphabet=ALPHABET)
    theirs.add_tokens([AddedToken("<|late|>", normalized=False)])
    theirs.save(str(folder / "tokenizer.json"))
    count = theirs.get_vocab_size()
    assert count > 280
    write_gpt2_weights(folder, tied_rows(count))
    write_gpt2_config(folder, vocab_size=count)
    origin = open_origin(folder)
    tokenizer = origin.tokenizer
    assert tokenizer.end_of_text == theirs.token_to_id(GPT2_END) == specials.index(GPT2_END)
    text = some_text(3_000) + " <|late|> é\n<|pad|>x  \U0001f600"
    assert tokenizer.encode(text).tolist() == theirs.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([tokenizer.end_of_text, *tokenizer.encode("ab")]) == "ab"
    assert torch.equal(origin.tensors["token_embedding.weight"], tied_rows(count)["wte.weight"])
    run = package.import_model(folder, out=tmp_path / "run", on_notice=lambda line: None)
    assert load_tokenizer(run.directory.tokenizer).hash() == tokenizer.hash()
    out = package.export(run.path, tmp_path / "out").path
    back = HuggingFaceTokenizer.from_file(str(out / "tokenizer.json"))
    assert back.get_vocab() == theirs.get_vocab()
    assert back.encode(text).ids == theirs.encode(text).ids
    assert json.loads((out / "config.json").read_bytes())["eos_token_id"] == tokenizer.end_of_text
    assert open_origin(out).tokenizer.hash() == tokenizer.hash()


def test_a_token_that_was_there_already_and_is_added_again_is_found_first(
    folder: Path, tmp_path: Path
) -> None:
    """`tokenizers` gives it the id that it has, and looks for it before it merges."""
    theirs = learned_elsewhere([GPT2_END], initial_alphabet=ALPHABET)
    again = [name for name in theirs.get_vocab() if name.isalpha() and name.isascii()]
    longest = max(again, key=len)
    theirs.add_tokens([longest, "a"])
    assert theirs.get_vocab_size() == len(theirs.get_vocab())
    theirs.save(str(folder / "tokenizer.json"))
    count = theirs.get_vocab_size()
    write_gpt2_weights(folder, tied_rows(count))
    write_gpt2_config(folder, vocab_size=count)
    tokenizer = open_origin(folder).tokenizer
    text = some_text(1_000) + f" x{longest}y{longest[:-1]} banana"
    assert tokenizer.encode(text).tolist() == theirs.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text
    run = package.import_model(folder, out=tmp_path / "run", on_notice=lambda line: None)
    assert load_tokenizer(run.directory.tokenizer).hash() == tokenizer.hash()
    out = package.export(run.path, tmp_path / "out").path
    back = HuggingFaceTokenizer.from_file(str(out / "tokenizer.json"))
    assert (
        back.get_vocab() == theirs.get_vocab() and back.encode(text).ids == theirs.encode(text).ids
    )


def test_a_vocabulary_without_all_bytes_is_refused_with_what_gives_them(folder: Path) -> None:
    theirs = learned_elsewhere([GPT2_END])
    theirs.save(str(folder / "tokenizer.json"))
    write_gpt2_config(folder, vocab_size=theirs.get_vocab_size())
    (line,) = problems_of(folder)
    assert "of the 256 bytes have no token, so it cannot encode every text (to train" in line
    assert "initial_alphabet=ByteLevel.alphabet()" in line


SEQUENCES: list[Callable[[dict[str, Any]], Any]] = [
    lambda whole: whole.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [whole["pre_tokenizer"]]}
    ),
    lambda whole: whole.update(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "Sequence", "pretokenizers": [whole["pre_tokenizer"]]}],
        }
    ),
    lambda whole: whole.update(normalizer={"type": "Sequence", "normalizers": []}),
    lambda whole: whole.update(decoder={"type": "Sequence", "decoders": [whole["decoder"]]}),
    lambda whole: (
        whole.update(added_tokens=None) or whole["model"]["vocab"].update({GPT2_END: 299})
    ),
]


@pytest.mark.parametrize("change", SEQUENCES)
def test_a_sequence_of_one_is_that_one(
    folder: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    plain = open_origin(folder).tokenizer.hash()
    whole = copy_of_tokenizer()
    change(whole)
    write_gpt2_tokenizer(folder, whole)
    assert open_origin(folder).tokenizer.hash() == plain


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("pre_tokenizer", [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]),
        ("pre_tokenizer", [{"type": "Whitespace"}]),
        ("normalizer", [{"type": "NFC"}]),
    ],
)
def test_a_sequence_that_does_something_else_is_refused(
    folder: Path, key: str, parts: list[Any]
) -> None:
    whole = copy_of_tokenizer()
    whole[key] = {"type": "Sequence", f"{key.replace('_', '')}s": parts}
    write_gpt2_tokenizer(folder, whole)
    with pytest.raises(RunError, match="hairpin cannot use this tokenizer"):
        open_origin(folder)


def test_an_added_token_of_no_text_is_refused(folder: Path) -> None:
    with_added(folder, ("",))
    assert "one of its added tokens is empty" in problems_of(folder)[0]
