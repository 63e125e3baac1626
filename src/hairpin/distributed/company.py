"""Several processes from their first line to their last: what becomes of the first one, becomes of
the others.

All of them join before anything else. Then the first one goes ahead, and the others wait for its
word: the run that it trains, or how it ended with nothing to train. Whatever it does instead of
training, it leaves the block of `in_company` on the way, which gives the word if nothing else did.
One that is killed gives none, and the others see its connection close.

PyTorch is imported only where there are several processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.distributed import launch
from hairpin.errors import exit_code_of

if TYPE_CHECKING:
    from hairpin.distributed.world import World


@dataclass(frozen=True)
class Word:
    """The first process's message to the others.

    Args:
        run: the folder of the run; None: there is none.
        exit_code: with which it ended, with nothing to train; None: it trains the run.
    """

    run: str | None
    exit_code: int | None


class Company:
    """The processes that were started together; one alone has nobody to tell.

    Args:
        joined: what they tell each other over; None: this process is alone.

    Attributes:
        exit_code: of this process, if it ends without an exception.
    """

    def __init__(self, joined: "World | None" = None) -> None:
        self.exit_code = 0
        self._joined = joined
        self._word: Word | None = None

    @property
    def world(self) -> "World":
        """Return the processes as a world."""
        from hairpin.distributed.world import World

        return self._joined or World()

    def lead(self, run: Path) -> None:
        """Say which run the first process trains from here on."""
        self._tell(Word(str(run.absolute()), None))

    def finish(self, run: Path) -> None:
        """Say that the first process has come to an end with the run, if it did not train it."""
        self._tell(Word(str(run.absolute()), 0))

    def word(self) -> Word:
        """The first process's word, once it is there.

        Raises:
            ProcessLostError: that one has ended without giving it.
        """
        if self._word is None:
            self._word = Word(*self.world.share(list))
        return self._word

    def part(self) -> None:
        """Leave the others, after telling them with which code if this is the first process."""
        if self._joined is None:
            return
        if self._joined.is_first:
            self._joined.note_end(self.exit_code)
            with suppress(Exception):  # if they are gone, they know
                self._tell(Word(None, self.exit_code))
        self._joined.leave(in_order=self.exit_code == 0)

    def _tell(self, word: Word) -> None:
        if self._word is None and self._joined is not None:
            self._word = word
            self._joined.share(lambda: [word.run, word.exit_code])


_entered: list[Company] = []  # one at most


@contextmanager
def in_company() -> Iterator[Company]:
    """Be with the other processes; inside such a block already, it is the same company.

    Raises:
        ProcessLostError: the others cannot be reached.
    """
    if _entered:
        yield _entered[0]
        return
    joined = None
    if launch.world_size() > 1:
        from hairpin.distributed.world import join

        joined = join()
    company = Company(joined)
    _entered.append(company)
    try:
        yield company
    except BaseException as error:
        company.exit_code = exit_code_of(error)
        raise
    finally:
        _entered.clear()
        company.part()
