"""Inference with a trained run: generation, classification, and evaluation on text or records."""

import codecs
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.batches import Windows
from hairpin.data.blend import prepare_text
from hairpin.data.rereading import (
    READING,
    RECORDS,
    as_list,
    files_of,
    open_like_run,
    pass_notices,
    reading_settings,
    tokens_of,
)
from hairpin.data.tables.records import require_characters
from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.errors import ConfigError, CorpusError, RunError
from hairpin.machine.numerics import Numerics, choose_device
from hairpin.machine.torch_settings import alone, isolated_iterator
from hairpin.model.classifier import Classifier
from hairpin.model.decode import Decoder, fits, prepare_weights
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.products import Precision
from hairpin.model.products import require_supported as refuse_precision
from hairpin.model.shape import Shape
from hairpin.planning.sizes import micro_batch_sequences
from hairpin.plugins.registry import BUILT_IN
from hairpin.runs.folder import RunDirectory
from hairpin.system.arguments import plain_number
from hairpin.tasks.divided import divide_records, other_examples
from hairpin.tasks.examples import Example, ExampleSet
from hairpin.tasks.finetuning import new_model, tally_of
from hairpin.tasks.prediction import Prediction, predict
from hairpin.tasks.pretraining import evaluation_set
from hairpin.tasks.samples import cut_of_prompt, prompt_ids
from hairpin.tasks.template import render
from hairpin.training.checkpoint import load_weights
from hairpin.training.evaluate import EvaluationSet, Evaluator, Measured

_EVALUATION_BYTES = 1e9


def _whole(given: object, name: str) -> int:
    """Return a number as a Python int.

    Raises:
        ConfigError: it is not a whole number from 0 to what 63 bits hold.
    """
    number = plain_number(given)
    if type(number) is not int or not 0 <= number < 2**63:
        raise ConfigError(f"{name}: {given!r} is not a whole number from 0 to 2^63 - 1")
    return number


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


@dataclass(frozen=True)
class Trained:
    """A run's model with its tokenizer.

    Args:
        config: the run's settings.
        model: on `device`, not training.
        tokenizer: the run's.
        weights: a description of the weights.
        device: of the model.
        decoder: for generation; None: the model itself, or a decoder of its unchanged weights.
    """

    config: Config
    model: GPT
    tokenizer: Tokenizer
    weights: str
    device: str
    decoder: Decoder | None = None

    @property
    def follows_instructions(self) -> bool:
        """True if a prompt is an instruction, to be put into the run's template."""
        return self.config.finetune.kind == "instruct"

    @alone
    def for_writing(self, precision: Precision = "float32") -> Self:
        """Return the same, prepared for fast generation on a CPU.

        In float32 that rearranges the model's weights in memory: they are the same numbers, but
        `save_file` needs them contiguous. The other formats are copies, which later training does
        not change.

        Args:
            precision: of products with weights, except for prompts. "float32" is the network's
                own arithmetic; "bfloat16", "float16" and "int8" read less and round.

        Raises:
            ConfigError: this processor or the model's device does not support it.
        """
        refuse_precision(precision, self.device)
        if not fits(self.model):
            return self
        model = prepare_weights(self.model) if precision == "float32" else self.model
        return replace(self, decoder=Decoder(model, precision))

    def write(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        *,
        tokens: int = 200,
        seed: int = 0,
        on_notice: Callable[[str], None] = _warn,
    ) -> Iterator[str]:
        """Yield the text that follows `prompt`, piece by piece, until an end-of-text or `tokens`;
        for a run that follows instructions, the response to it.

        Args:
            prompt: text to continue.
            sampling: the sampling settings.
            tokens: the most to generate.
            seed: the same seed gives the same text.
            on_notice: receives how much was cut of a prompt longer than the context; by default
                a Python warning.

        Raises:
            ConfigError: the number of tokens or the seed is invalid.
            CorpusError: the prompt is not text, or has characters that UTF-8 cannot encode.
        """
        if not isinstance(prompt, str):
            raise CorpusError(f"the prompt is a {type(prompt).__name__}, not a text")
        require_characters(prompt, "the prompt")
        tokens, seed = _whole(tokens, "tokens"), _whole(seed, "seed")
        if self.follows_instructions:
            prompt = render(self.config.finetune.template, prompt)
        ids = prompt_ids(self.tokenizer, prompt)
        if line := cut_of_prompt(len(ids), self.model.shape.context):
            on_notice(line)
        return isolated_iterator(self._pieces(ids, sampling or Sampling(), tokens, seed))

    def _pieces(
        self, ids: Sequence[int], sampling: Sampling, tokens: int, seed: int
    ) -> Iterator[str]:
        # Several tokens may make one character: bytes are held back until they are whole.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        written = generate(self.model, ids, sampling, seed=seed, decoder=self.decoder)
        for token in islice(written, tokens):
            if token == self.tokenizer.end_of_text:
                break
            if text := decoder.decode(self.tokenizer.decode_bytes([token])):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    @alone
    def measure(
        self,
        texts: Iterable[Any] | Path = (),
        on_progress: Callable[[int, int], None] | None = None,
        on_notice: Callable[[str], None] = lambda line: None,
        column: str | None = None,
        settings: Mapping[str, Any] | None = None,
        overrides: Iterable[str] = (),
    ) -> Measured:
        """Measure the loss on whole texts, or by default on the run's own validation text; of a
        mixture also that of each source.

        Of a fine-tuned run: on files of records, or on its validation records.

        Args:
            texts: files, folders and rows held by Python, as in `hairpin.train`. They are read as
                the run reads its own text.
            on_progress: called with the number of windows done, and of all.
            on_notice: receives what was left out.
            column: of tables; None: the run's, or as in training.
            settings: for reading the texts, replacing the run's own `data.separator`,
                `data.format`, `data.column` and `data.on_bad_bytes`.
            overrides: the same as "key=value" strings.

        Raises:
            CorpusError: a text cannot be read or is empty, a label is unknown, or the run's own
                data has changed.
            ConfigError: a setting is not about reading, or there is no text to apply it to.
        """
        shape = self.model.shape
        sequences = micro_batch_sequences(shape, 1 << 20, _EVALUATION_BYTES, self.device)
        tally = tally_of(self.config, self.tokenizer, self.device)
        evaluator = Evaluator(self.model, tally, Numerics(self.device), sequences)
        asked = {**(settings or {}), **({} if column is None else {"data.column": column})}
        known = RECORDS if self.config.finetune.kind else READING
        said = reading_settings(overrides, asked, known)
        named = as_list(texts)
        if said and not named:
            raise ConfigError(
                f"{', '.join(said)}: without a text the run's own validation text is read, with "
                "its config's settings; name a text"
            )
        measured = evaluator.measure(self._set_of(named, on_notice, said), on_progress)
        assert measured
        return measured

    def _set_of(
        self, texts: Sequence[Any], on_notice: Callable[[str], None], said: Mapping[str, Any]
    ) -> EvaluationSet:
        if self.config.finetune.kind:
            config = with_values(self.config, said)
            return ExampleSet(self._examples(files_of(texts), on_notice, config))
        context = self.model.shape.context
        if not texts and not self.config.data.is_named:
            raise CorpusError("no text given, and the run has no validation text; name a text")
        if not texts:
            prepared = prepare_text(self.config.data, self.tokenizer)
            return evaluation_set(prepared, "val", context, None)
        corpora = open_like_run(self.config.data, texts, said)
        tokens = tokens_of(corpora, self.tokenizer)
        for line in (line for corpus in corpora for line in pass_notices(corpus)):
            on_notice(line)
        if len(tokens) < 2:
            raise CorpusError("nothing to evaluate: the text is empty")
        return Windows(tokens, context)

    def _examples(
        self, files: Sequence[Path], on_notice: Callable[[str], None], config: Config
    ) -> list[Example]:
        if not files:
            return divide_records(self.config, self.tokenizer).val
        found: list[Example] = []
        for file in files:
            examples, notices = other_examples(file, config, self.tokenizer)
            found += examples
            for notice in notices:
                on_notice(notice)
        return found


@dataclass(frozen=True)
class TrainedClassifier(Trained):
    """A classifier with its tokenizer; its measurement has an accuracy."""

    model: Classifier

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the model's outputs."""
        return self.config.finetune.labels

    def write(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        *,
        tokens: int = 200,
        seed: int = 0,
        on_notice: Callable[[str], None] = _warn,
    ) -> Iterator[str]:
        """Refuse: a classifier does not generate text.

        Raises:
            RunError: always.
        """
        raise RunError(
            f"a classifier of {', '.join(self.labels[:8])} does not generate text; `hairpin "
            "predict RUN TEXT` predicts labels"
        )

    @alone
    def predict(self, texts: Sequence[str], places: Sequence[str] = ()) -> list[Prediction]:
        """Predict the label of each text.

        Args:
            texts: to classify.
            places: their locations, for errors; as many as texts, or none.

        Raises:
            CorpusError: a text is empty, longer than the context, or not one that UTF-8 can hold.
            TypeError: a single string was given: its letters would be taken for texts.
        """
        if isinstance(texts, str):
            raise TypeError("predict takes a list of texts; put the one text into a list")
        places = places or [f"text {number}" for number in range(1, len(texts) + 1)]
        return predict(self.model, self.tokenizer, self.config, texts, places, self.device)


@alone
def load_trained(run: RunDirectory, *, weights: str = "best", device: str = "auto") -> Trained:
    """Load a run's model with its best or last weights; a classifier as `TrainedClassifier`.

    Raises:
        RunError: nothing was saved yet, or what was saved is damaged.
    """
    config = run.read_config()
    tokenizer = load_tokenizer(run.tokenizer)
    tensors, which = load_weights(run, weights, tokenizer_sha256=tokenizer.hash())
    device = choose_device(device)
    shape = Shape.of(config.model, tokenizer.vocabulary)
    _require_fitting(run, config, shape, tensors)
    model = new_model(config, shape)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError:
        raise _other_model(run) from None
    model = model.to(device).eval()
    if isinstance(model, Classifier):
        return TrainedClassifier(config, model, tokenizer, which, device)
    return Trained(config, model, tokenizer, which, device)


def _require_fitting(
    run: RunDirectory, config: Config, shape: Shape, tensors: Mapping[str, Tensor]
) -> None:
    """Check, before allocating its memory, that the config's model has the weights' shapes.

    Raises:
        RunError: the config was edited.
    """
    if config.model.architecture not in BUILT_IN["model"]:
        return
    with torch.device("meta"):
        wanted = {name: p.shape for name, p in new_model(config, shape).named_parameters()}
    if any(name not in tensors or tensors[name].shape != wanted[name] for name in wanted):
        raise _other_model(run)


def _other_model(run: RunDirectory) -> RunError:
    return RunError(f"{run.config}: its [model] differs from the model that was trained")
