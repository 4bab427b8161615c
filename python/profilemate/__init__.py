"""ProfileMate: a runtime profiler for vLLM servers.

The work is done in C: by the extension `_profilemate`, which is loaded into vLLM's processes, by the program
`profilemate`, which reads what it recorded, and by `profilemate._reader`, the same reader for Python (session.py):

    profilemate.open().tables["steps"].to_pandas()

This package also says where they are, and is how vLLM finds the extension (entry point group `vllm.general_plugins`,
see plugin.py). Importing it loads nothing but this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profilemate.session import Column, Process, Session, Table, Tables, open
    from profilemate.trace import load_trace

    __version__: str

__all__ = [
    "Column",
    "Process",
    "Session",
    "Table",
    "Tables",
    "__version__",
    "load_trace",
    "open",
    "program",
    "site_folder",
]

_OF_SESSION = ("Column", "Process", "Session", "Table", "Tables", "open")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("profilemate")
    if name == "load_trace":
        from profilemate.trace import load_trace

        return load_trace
    if name in _OF_SESSION:
        from profilemate import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def program() -> Path:
    """The program `profilemate` of this environment; FileNotFoundError when it is not where pip puts it."""
    import sysconfig

    schemes = [None, "posix_user", "posix_prefix"]
    for scheme in schemes:
        folder = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        path = Path(folder) / "profilemate"
        if path.exists():
            return path
    raise FileNotFoundError("the program profilemate is not in this environment's bin: install the package again")


def site_folder(preset: str = "full") -> Path:
    """What to put on PYTHONPATH to profile an environment that does not have this package."""
    folder = Path(__file__).resolve().parent / "site"
    return folder / "simple" if preset == "simple" else folder
