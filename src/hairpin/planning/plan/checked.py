"""The findings of the text check in words: kind, amount and remedy."""

from collections.abc import Iterator

from hairpin.data.checking.check import WORST_SHARE_SHOWN, CorpusCheck
from hairpin.data.checking.oddities import ODD
from hairpin.reports.formats import format_bytes, safe_name

_NEAR_SHARE = 0.005
_VERBATIM_SHARE = 0.01
_REPEATED_SHARE = 0.05
_LONG_SHARE = 0.3
_LONG_OF_DOCUMENTS = 10
_MAX_NAME_LENGTH = 80  # characters


def check_lines(check: CorpusCheck) -> list[str]:
    """Return all findings, then the most repeated lines."""
    found = check.survey
    looked = f"{found.documents:,} documents, {format_bytes(found.bytes)}"
    if check.is_sample:
        looked += (
            f"; checked a sample of {format_bytes(check.checked_bytes)} in "
            f"{check.checked_documents:,} documents, so shares are estimates, and copies in the "
            "rest are not found"
        )
    lines = [looked]
    problems = list(check_problems(check))
    lines += [f"! {problem}" for problem in problems] or ["no problems found"]
    for line in check.repeated[:5] if check.repeated else ():
        shown = safe_name(line.text, 60)
        lines.append(f"  {line.count:>7,} times in {line.documents:,} documents: {shown}")
    return lines


def check_problems(check: CorpusCheck) -> Iterator[str]:
    """Yield a line for each problem that should be fixed."""
    yield from _copies(check)
    yield from _lines(check)
    for odd in check.oddities:
        words, advice = ODD[odd.kind]
        where = f"{_file(odd.file)}, line {odd.line:,}"
        yield f"{odd.count:,} {words}, the first in {where}: {advice}"
    if check.empty_documents:
        yield (f"{check.empty_documents:,} documents are empty; they can be left out")
    name, size = check.longest
    total = max(1, check.checked_bytes)
    if check.checked_documents >= _LONG_OF_DOCUMENTS and size > _LONG_SHARE * total:
        yield (
            f"one document is {size / total:.0%} of the text: {_file(name)}, "
            f"{format_bytes(size)}; if it is many documents in one file, set data.separator"
        )


def _copies(check: CorpusCheck) -> Iterator[str]:
    near, verbatim = check.near, check.verbatim
    total = max(1, check.checked_bytes)
    if near.bytes > _NEAR_SHARE * total:
        one, other = (_file(name) for name in near.examples[0])
        yield (
            f"{near.copies:,} documents ({format_bytes(near.bytes)}, {near.bytes / total:.1%} of "
            f"the text) are near copies of others, in {near.groups:,} groups, such as {one} and "
            f"{other}: keep one of each, or each copy is seen in every epoch"
        )
    if verbatim.share > _VERBATIM_SHARE and verbatim.worst:
        name, share = verbatim.worst
        worst = f", most in {_file(name)}" if share > WORST_SHARE_SHOWN else ""
        yield (
            f"{verbatim.share:.1%} of validation text is verbatim in the training text (stretches "
            f"of 50 bytes){worst}: the validation loss will look too good; remove near copies, or "
            "keep copies on one side"
        )


def _lines(check: CorpusCheck) -> Iterator[str]:
    total = max(1, check.checked_bytes)
    if check.boilerplate:
        first = check.boilerplate[0]
        yield (
            f"boilerplate: {len(check.boilerplate)} lines or more occur in a tenth of the "
            f'documents or more, such as "{safe_name(first.text, 60)}" in {first.documents:,}; '
            "identical lines teach nothing and can be removed"
        )
    if check.repeated_bytes > _REPEATED_SHARE * total:
        yield (
            f"{check.repeated_bytes / total:.1%} of the text are repeated lines: copies of "
            "paragraphs, tables or licences"
        )


def _file(name: str) -> str:
    """Return a path for use in a line; of a long one the end, which tells files apart."""
    shown = safe_name(name)
    return shown if len(shown) <= _MAX_NAME_LENGTH else "…" + shown[1 - _MAX_NAME_LENGTH :]
