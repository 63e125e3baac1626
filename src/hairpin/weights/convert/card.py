"""Model card: a description of a run, in the README.md that goes with its weights."""

import re
from collections.abc import Iterator

from hairpin.config.shared import without_paths
from hairpin.planning.sizes import count_parameters
from hairpin.reports.formats import format_count, format_duration, format_loss, safe_name
from hairpin.system.version import __version__
from hairpin.weights.convert.source import ExportSource

_TOKENIZERS = {
    "bytes": "plain bytes",
    "bpe": "byte-level BPE, learned from the text",
    "gpt2": "GPT-2's",
}


def model_card(source: ExportSource) -> str:
    """Return the card of a run in Markdown."""
    name = _plain(source.name)
    rows = [f"| {key} | {value} |" for key, value in _facts(source)]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- hairpin",
        "---",
        "",
        f"# {name}",
        "",
        f"A language model that hairpin {__version__} trained: "
        f"`{source.shape.traits.transformers.class_name}`.",
        "",
        "| | |",
        "| --- | --- |",
        *rows,
        "",
        "## Use",
        "",
        *_use(source),
        "",
        "## What it is not for",
        "",
        *_limits(source),
    ]
    return "\n".join(lines) + "\n"


def _facts(source: ExportSource) -> Iterator[tuple[str, str]]:
    shape, config, summary, plan = source.shape, source.config, source.summary, source.plan
    yield "weights", source.weights
    yield (
        "network",
        f"{shape.traits.description}: {shape.layers} layers, {shape.heads} heads, "
        f"{shape.width} wide, {shape.context:,} positions",
    )
    yield "parameters", f"{count_parameters(shape).total:,}"
    yield "tokenizer", f"{_TOKENIZERS[source.tokenizer.kind]}, {shape.vocabulary:,} ids"
    if plan.get("text"):
        yield "text", _plain(without_paths(str(plan["text"])))
    if plan.get("start"):
        yield "started from", _plain(without_paths(str(plan["start"])))
    if summary.updates:
        yield (
            "training",
            f"{summary.updates:,} updates, {format_count(summary.tokens)} {summary.counted}"
            + (f", {format_duration(summary.seconds)}" if summary.seconds else ""),
        )
        yield (
            "recipe",
            f"{config.recipe}: {config.optimizer.kind}, peak learning rate "
            + (f"{config.schedule.peak_lr:g}" if config.schedule.peak_lr else "unknown"),
        )
    if (point := source.evaluation) and point.val_loss is not None:
        bits = point.val_bits_per_byte
        yield (
            "validation",
            f"{format_loss(point.val_loss)} nats per token"
            + (f", {bits:.3f} bits per byte" if bits is not None else "")
            + ", on text of the same kind that it was not trained on",
        )


def _use(source: ExportSource) -> Iterator[str]:
    yield from (
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")',
        'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER")',
    )
    if source.config.finetune.kind == "instruct":
        yield from (
            'messages = [{"role": "user", "content": "…"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
        )
    else:
        yield 'inputs = tokenizer(tokenizer.bos_token + "Once", return_tensors="pt")'
    yield from (
        "ids = model.generate(**inputs, max_new_tokens=100, do_sample=True, top_k=50)",
        "print(tokenizer.decode(ids[0], skip_special_tokens=True))",
        "```",
        "",
        f"An end-of-text (`{source.tokenizer.end_of_text}`, also the beginning and the padding) "
        "stood before each text in training, so it belongs before a prompt. The model sees "
        f"{source.shape.context:,} tokens; it was never trained on longer text.",
    )


def _limits(source: ExportSource) -> Iterator[str]:
    yield (
        "It continues text with what is likely given its training text, true or not, and may "
        "repeat that text verbatim. Nothing was done to keep out harmful or private content of "
        "that text. It is not for advice, decisions about people, or facts."
    )
    if source.config.finetune.kind == "instruct":
        yield "It learned one instruction and one response at a time: no system messages, no chat."


def _plain(text: str) -> str:
    """Return text of unknown origin as one line of Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", safe_name(text, 200))
