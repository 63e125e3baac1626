"""The walk is counted by hand in a small package that has hairpin's name."""

from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.walk import UNTIL, Size, size_of, walk
from hairpin.training.job import Job

FILES = {
    "__init__.py": "",
    "py.typed": "",
    "constants.py": "ONE = 1\n",  # no function
    "cli/__init__.py": "",
    "cli/main.py": """
        from hairpin.constants import ONE
        from hairpin.toy import threads
        from hairpin.toy.job import Job

        def at_import():
            return ONE

        at_import()

        def main(arguments):
            job = Job()
            list(map(lambda _: threads.beside(job.prepare), arguments))
            job.step()
            raise SystemExit(job.later())
        """,
    "toy/__init__.py": "",
    "toy/job.py": """
        class Job:
            def prepare(self):
                class Local:
                    pass
                return sum(self.squares(n) for n in range(2)) + sum(n for n in range(3))

            def squares(self, n):
                return n * n

            def step(self):
                import hairpin.constants

            def later(self):
                return 0
        """,
    "toy/threads.py": """
        import threading

        def beside(work):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        """,
}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name, source in FILES.items():
        path = tmp_path / "code" / "hairpin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source).lstrip(), encoding="utf-8")
    return tmp_path / "code"


def test_functions_are_counted_up_to_the_first_step_in_threads_too(code: Path) -> None:
    assert walk(code, ["train"], "Job.step", "") == {
        "cli/main.py": ["main", "<lambda>"],
        "toy/threads.py": ["beside"],
        "toy/job.py": ["prepare", "<genexpr>", "squares", "step"],
    }


def test_the_step_is_called_so_in_hairpin() -> None:
    assert Job.step.__qualname__ == UNTIL


def test_a_command_that_ends_before_the_step_is_an_error(code: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Job\.walk did not return"):
        walk(code, ["train"], "Job.walk", "")


def test_a_package_is_measured(code: Path) -> None:
    # At the top __init__, constants, cli and toy; main imports three modules, and job one.
    assert size_of(code / "hairpin") == Size(entries=4, files=7, lines=1 + 14 + 14 + 6, arrows=4)
