"""Files that an option of the master names, taken along to its workers: a trace, an adapter of one's own.

They ride with the options, which Locust itself sends to every worker. An adapter is code and runs there, as a Locust
file does that a worker takes from its master (``-f -``): a worker follows a master it trusts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

BYTES_MOST: Final = 64 * 1024 * 1024  # a trace of some six million arrivals
_TRACE: Final = "trace:"


def pack(parsed: Any) -> None:
    """Put the files that the options name beside them.

    Raises:
        ValueError: one cannot be read, or is too large to be sent.
    """
    named = {}
    if parsed.fp_arrivals.startswith(_TRACE):
        named["fp_arrivals"] = Path(parsed.fp_arrivals.removeprefix(_TRACE))
    if parsed.fp_adapter.endswith(".py"):
        named["fp_adapter"] = Path(parsed.fp_adapter)
    parsed.fp_files = {}
    for option, path in named.items():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if len(content) > BYTES_MOST:
            raise ValueError(f"{path} is too large to be sent to the workers: at most {BYTES_MOST:,} bytes")
        parsed.fp_files[option] = {"name": path.name, "bytes": content}


@contextmanager
def unpacked(parsed: Any) -> Iterator[None]:
    """Have the options name the files that came along, as long as they are read."""
    files = getattr(parsed, "fp_files", None) or {}
    said = {option: getattr(parsed, option) for option in files}
    with TemporaryDirectory(prefix="flashproof-luggage-") as folder:
        for option, file in files.items():
            path = Path(folder) / Path(file["name"]).name
            path.write_bytes(file["bytes"])
            setattr(parsed, option, f"{_TRACE if option == 'fp_arrivals' else ''}{path}")
        try:
            yield
        finally:
            for option, before in said.items():
                setattr(parsed, option, before)
