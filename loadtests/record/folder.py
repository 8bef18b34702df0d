"""The directory a run is written to: made, held by one run at a time, and freed of what an earlier run left there.

A run that fails early would otherwise leave the report of the run before beside its own history. What is removed is
known by name, and only in a directory that carries the mark of a run; a file of that name anywhere else is somebody's,
so the run refuses. Nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import BadInput

MARK: Final = ".flashproof-run"
_SAYS: Final = b"flashproof writes its runs here and removes the files of the run before\n"
_LOGS: Final = tuple(f"logs/{part}.log" for part in ("serve", "work", "valkey", "postgres", "locust"))
NAMES: Final = (  # of prove
    *("run.json", "generator.json", "histograms.json", "history.jsonl", "charges.jsonl", "timeline.jsonl"),
    *("postgres.json", "valkey.json", "summary.json", "report.html", "metrics-serve.txt", "metrics-work.txt"),
    *("profile-serve.svg", "profile-work.svg"),
    *_LOGS,
)
_HALF: Final = ".new"  # what is not wholly written yet
_STORES: Final = "stores"  # of a run that was killed


class Leaves(NamedTuple):
    """What a run leaves in its directory."""

    files: tuple[str, ...]
    folders: tuple[str, ...]  # patterns


RUN: Final = Leaves(NAMES, (".parts-*", ".whole-*"))  # the folders: of a master that was killed
SWEEP: Final = Leaves(("sweep.json", "sweep.html", *_LOGS), ("trial-[0-9][0-9][0-9]",))


def directory(text: str) -> Path:
    """Return the directory that ``--report`` names, by a path that ends in a name.

    Raises:
        BadInput: it names none.
    """
    path = Path(text) if Path(text).name not in ("", "..") else Path(text).resolve()
    if not text or not path.name:
        raise BadInput(f"--report must name a directory for the run, not {text!r}")
    return path


@contextlib.contextmanager
def occupied(report: Path, leaves: Leaves = RUN) -> Iterator[None]:
    """Make a run's directory, hold it, and remove what an earlier run left; ``leaves`` tells what that may be.

    Raises:
        BadInput: it cannot be made or written, another run is writing there, or it holds what may be somebody else's.
    """
    _make(report)
    kept = [name + half for name in leaves.files for half in ("", _HALF) if os.path.lexists(report / (name + half))]
    kept += [path.name for pattern in leaves.folders for path in report.glob(pattern)]
    if kept and not (report / MARK).is_file():
        raise BadInput(
            f"--report {report}: {kept[0]} is there, and nothing says that a run left it; "
            "remove it, or name another directory"
        )
    if any(_entries(report / _STORES)):
        raise BadInput(
            f"--report {report}: the stores of a run that was killed are still in {_STORES}; "
            "remove the directory, or name another"
        )
    with (report / MARK).open("a+b") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"--report {report}: another run is writing there; name another directory") from error
        _clear(report, leaves)
        mark.truncate(0)
        mark.write(_SAYS)
        mark.flush()
        yield


def _make(report: Path) -> None:
    missing: list[Path] = []
    try:
        missing += [folder for folder in (report, *report.parents) if not folder.exists()]
        report.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=report):  # may it be written?
            pass
    except OSError as error:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise BadInput(f"--report {report}: {error.strerror}; name a directory that can be written") from error


def _clear(report: Path, leaves: Leaves) -> None:
    try:
        for name in leaves.files:
            (report / name).unlink(missing_ok=True)
            (report / (name + _HALF)).unlink(missing_ok=True)
        for folder in [path for pattern in leaves.folders for path in report.glob(pattern)]:
            shutil.rmtree(folder)
    except OSError as error:
        raise BadInput(f"--report {report}: {error.filename} cannot be removed: {error.strerror}") from error


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
