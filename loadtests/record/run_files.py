"""The files of a run's directory: read whole, or refused by name; written whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from core.errors import Fault
from loadtests.record import timeline
from loadtests.record.evidence import NO_POSTGRES, NO_VALKEY, Evidence, PostgresState, ValkeyState
from loadtests.record.history import read, read_charges
from loadtests.record.summary import Generator, Histograms, Recorded, Run
from loadtests.record.timeline import Sample


class Unjudgeable(Fault):
    """The run's files are missing or unreadable, so it cannot be judged."""

    code = "unjudgeable"


class RunFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run's directory holds."""

    run: Run
    generator: Generator
    histograms: dict[str, Recorded]  # by name, from the intended instant
    service: dict[str, Recorded]  # the same from the send
    evidence: Evidence
    timeline: list[Sample] = []


_T = TypeVar("_T")


def _load(path: Path, kind: type[_T] | Any) -> _T:
    try:
        decoded: _T = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise Unjudgeable(f"{path.name} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unjudgeable(f"{path.name} is not what it should be: {error}") from error
    return decoded


def read_run(directory: Path) -> RunFiles:
    """Return what the directory of a run holds.

    Raises:
        Unjudgeable: a file is missing or broken.
    """
    run: Run = _load(directory / "run.json", Run)
    try:
        attempts = list(read(directory / "history.jsonl"))
        charges = list(read_charges(directory / "charges.jsonl"))
        samples = timeline.read_timeline(directory / timeline.NAME)
    except OSError as error:
        raise Unjudgeable(f"{Path(str(error.filename)).name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Unjudgeable(str(error)) from error
    unread = frozenset(run.unread)
    histograms: Histograms = _load(directory / "histograms.json", Histograms)
    return RunFiles(
        run=run,
        generator=_load(directory / "generator.json", Generator),
        histograms=histograms.latency,
        service=histograms.service,
        evidence=Evidence(
            wanted=tuple(run.wanted),
            hot_sku=run.hot_sku,
            attempts=attempts,
            charges=charges,
            postgres=NO_POSTGRES if "postgres" in unread else _load(directory / "postgres.json", PostgresState),
            valkey=NO_VALKEY if "valkey" in unread else _load(directory / "valkey.json", ValkeyState),
            unread=unread,
        ),
        timeline=samples,
    )


def as_written(value: Any) -> bytes:
    """Return a Struct as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def write_json(path: Path, value: Any) -> None:
    """Write a Struct as indented JSON, whole or not at all."""
    whole = path.with_name(path.name + ".new")
    whole.write_bytes(as_written(value))
    whole.replace(path)
