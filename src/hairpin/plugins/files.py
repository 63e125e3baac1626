"""Plugin files: run when a user names them, and identified by their hashes.

A config, a run and a checkpoint record the plugins that made them (`plugins`: path and SHA-256).
That never runs one: it is compared with those named in this process.
"""

import hashlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Protocol

from hairpin.errors import HairpinError, PluginError, RunError
from hairpin.plugins.registry import REGISTERED, Registered, forget, registered
from hairpin.system.arguments import AnyPath, listed
from hairpin.system.shell import quoted_words

_REGISTER = (
    "register_schedule, register_optimizer, register_model, register_loss or register_tracker"
)


@dataclass(frozen=True)
class PluginFile:
    """A plugin that was run in this process.

    Args:
        path: absolute.
        sha256: of its bytes, in hex.
        brings: what it registered.
    """

    path: Path
    sha256: str
    brings: tuple[Registered, ...]


_LOADED: dict[Path, PluginFile] = {}


class _Source(SourceLoader):
    """Loader that runs the exact bytes that were hashed, and caches nothing next to the file."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str) -> bytes:
        if path != str(self._path):
            raise OSError("there is no bytecode")
        return self._content


def load_plugins(files: AnyPath | Iterable[AnyPath]) -> list[PluginFile]:
    """Run plugin files that the user named, each once; one that has changed is run again.

    Raises:
        PluginError: a file is missing, is not Python, fails, or registers nothing.
    """
    return [_load(Path(file).absolute()) for file in listed(files)]


def _load(path: Path) -> PluginFile:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: the plugin cannot be read: {error.strerror}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    before = _LOADED.pop(path, None)
    if before and before.sha256 == sha256:
        _LOADED[path] = before
        return before
    for found in before.brings if before else ():
        forget(found)
    there = set(REGISTERED)
    try:
        _run(path, content)
    except BaseException:
        _unregister_since(there)
        raise
    brings = tuple(found for key, found in REGISTERED.items() if key not in there)
    if not brings:
        raise PluginError(f"{path}: registers nothing; call hairpin.plugins.{_REGISTER} in it")
    _LOADED[path] = PluginFile(path, sha256, brings)
    return _LOADED[path]


def _run(path: Path, content: bytes) -> None:
    name = f"hairpin_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    loader = _Source(path, content)
    spec = spec_from_loader(name, loader)
    assert spec
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    try:
        loader.exec_module(module)
    except HairpinError:
        raise
    except SyntaxError as error:
        raise PluginError(f"{error.filename}:{error.lineno}: not Python: {error.msg}") from None
    except Exception as error:
        where = _innermost(error, {str(path)}) or str(path)
        raise PluginError(f"{where}: the plugin cannot be imported: {_words(error)}") from None


def _unregister_since(there: set[tuple[str, str]]) -> None:
    for key, found in list(REGISTERED.items()):
        if key not in there:
            forget(found)


class Entry(Protocol):
    """A plugin's entry in a config: the path, and the SHA-256 in hex."""

    @property
    def path(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def entries_for(
    files: Iterable[PluginFile], names: Mapping[str, str | None]
) -> list[dict[str, str]]:
    """Return the entries of a config: the named plugins, and other sources of the names that it
    uses, such as the training script.

    Args:
        files: named by the user.
        names: kind → the name in the config.
    """
    entries = {str(file.path): file.sha256 for file in files if _makes_runs(file)}
    for kind, name in names.items():
        found = registered(kind, name or "")
        if found and found.file not in entries:
            entries[found.file] = _sha256_of(found)
    return [{"path": path, "sha256": sha256} for path, sha256 in entries.items()]


def _makes_runs(file: PluginFile) -> bool:
    """Return False if a plugin brings only trackers, which change nothing in a run."""
    return any(found.kind != "tracker" for found in file.brings)


def is_present(sha256: str) -> bool:
    """True if the plugin with this hash was run in this process."""
    return sha256 in _hashes()


def require_plugins(entries: Sequence[Entry], command: str) -> None:
    """Check that the plugins that made a run were named.

    Args:
        entries: of its config.
        command: to type, without the plugins.

    Raises:
        RunError: a line with the command to type, or saying that a plugin has changed.
    """
    missing = [entry for entry in entries if not is_present(entry.sha256)]
    for entry in missing:
        now = _LOADED.get(Path(entry.path))
        if now:
            raise RunError(
                f"{entry.path}: not the plugin that the run was made with (SHA-256 "
                f"{now.sha256[:12]}…, was {entry.sha256[:12]}…); restore it, or add "
                "--accept-plugin to use this one"
            )
    if missing:
        named = quoted_words(*(w for entry in entries for w in ("--plugin", Path(entry.path))))
        raise RunError(
            "made with a plugin, whose code runs only if you name it: read it, then run "
            f"`{command} {named}`"
        )


def plugin_error_line(error: BaseException) -> str | None:
    """Return a line about an error raised in a plugin's code; None if it was not."""
    where = None if isinstance(error, HairpinError) else place_of(error)
    return f"{where}: {_words(error)}" if where else None


def place_of(error: BaseException) -> str | None:
    """Return the innermost line of a plugin's code in an error's traceback; None: there is none."""
    return _innermost(error, {found.file for found in REGISTERED.values()})


def _innermost(error: BaseException, files: set[str]) -> str | None:
    """Return the innermost line of these files in an error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in files]
    return places[-1] if places else None


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def _hashes() -> set[str]:
    files = {file.sha256 for file in _LOADED.values()}
    paths = {str(path) for path in _LOADED}
    return files | {_sha256_of(r) for r in REGISTERED.values() if r.file not in paths}


def _sha256_of(found: Registered) -> str:
    """Hash the file that a name was registered in, or the code itself, as in a notebook."""
    loaded = _LOADED.get(Path(found.file))
    if loaded:
        return loaded.sha256
    try:
        content = Path(found.file).read_bytes()
    except OSError:
        code = getattr(found.make, "__code__", None)
        content = code.co_code if code else found.name.encode()
    return hashlib.sha256(content).hexdigest()
