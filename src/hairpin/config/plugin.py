"""A config's record of the plugins that it was made with."""

from pydantic import Field

from hairpin.config.table import Table


class Plugin(Table):
    """A Python file of the user's that registers names (docs/plugins.md). That it stands here runs
    nothing: it has to be named with `--plugin` each time.
    """

    path: str = Field(description="Absolute path of the file when the run was made.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its bytes, in hex; the run needs these."
    )
