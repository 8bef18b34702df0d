"""``flashproof verify DIR``: judge a finished run again from its raw files, and compare with what it said of itself.

Three things are compared. ``histograms.json`` and what the generator says of its own counting are made again from
the history (``loadtests.record.rebuild``), bucket by bucket. ``summary.json`` is computed again, field by field. And
``report.html`` is built again: first the data of its charts, then every line of the page. A page made by another
version of Flashproof differs in its lines; verify a run with the tree it was made by (``git_commit``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import msgspec

from core.arguments import Arguments
from core.errors import BadInput
from loadtests import judge
from loadtests.record import rebuild
from loadtests.record.run_files import RunFiles, Unjudgeable, as_written, read_run
from loadtests.record.summary import Summary
from loadtests.report import html

EXIT_DIFFERS: Final = 2
EXIT_VOID: Final = 3
_SHOWN_MOST: Final = 20
_TEXT_MOST: Final = 100


def main(argv: Sequence[str]) -> int:
    """Judge a finished run again from its raw files and name every difference to its summary.json and report.html.

    Exit codes: 0 all the same, 2 something differs, 3 the files cannot be judged, 64 bad usage.
    """
    about, _, codes = (main.__doc__ or "").partition("\n\n")
    parser = Arguments(prog="flashproof verify", description=about, epilog=" ".join(codes.split()))
    parser.add_argument("run", type=Path, help="a run's directory, e.g. out/prove/latest")
    options = parser.parse_args(argv)
    if not options.run.is_dir():
        raise BadInput(f"{options.run} is no directory; `flashproof prove` writes runs to out/prove/<run id>")
    try:
        differences = verify(options.run)
    except Unjudgeable as error:
        sys.stderr.write(f"VOID: {error}\n")
        return EXIT_VOID
    for difference in differences[:_SHOWN_MOST]:
        sys.stdout.write(difference + "\n")
    if len(differences) > _SHOWN_MOST:
        sys.stdout.write(f"and {len(differences) - _SHOWN_MOST} more\n")
    fine = "every number in summary.json and in report.html follows from the raw files"
    sys.stdout.write("differs\n" if differences else f"{fine}\n")
    return EXIT_DIFFERS if differences else 0


def verify(directory: Path) -> list[str]:
    """Judge the run again and return every difference to what it said of itself as a sentence.

    Raises:
        Unjudgeable: a file is missing or broken.
    """
    said, page = _read(directory / "summary.json"), _read(directory / html.NAME)
    try:
        msgspec.json.decode(said, type=Summary)
        summary_said = msgspec.json.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unjudgeable(f"summary.json is not what it should be: {error}") from error
    files = read_run(directory)
    found = judge.judge(files)
    differences = list(_counted(files))
    differences += _structures("summary.json", summary_said, found, said, as_written(found).decode())
    return differences + list(_pages(page, html.render(found, files)))


def _counted(files: RunFiles) -> Iterator[str]:
    """Compare what was counted while the load ran with the history."""
    attempts = files.evidence.attempts
    latency, service = rebuild.rebuild(attempts, files.evidence.charges)
    yield from rebuild.histogram_differences("latency", files.histograms, latency)
    yield from rebuild.histogram_differences("service", files.service, service)
    yield from rebuild.generator_differences(files.generator, attempts, latency)
    if files.run.started_at != files.generator.started_at:
        yield f"run.json: started_at says {files.run.started_at}, generator.json says {files.generator.started_at}"


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # read_text would pass over other line ends
    except OSError as error:
        raise Unjudgeable(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Unjudgeable(f"{path.name} is not what it should be: {error}") from error


def _structures(name: str, said: Any, found: Any, said_text: str, found_text: str) -> Iterator[str]:
    """Compare values, and then how they are written: a name that stands twice or an odd number says two things."""
    differs = False
    for difference in _values(name, "", said, msgspec.json.decode(msgspec.json.encode(found))):
        differs = True
        yield difference
    if not differs and said_text != found_text:
        yield f"{name}: {_apart(said_text, found_text)}"


def _pages(said: str, found: str) -> Iterator[str]:
    """Compare two pages: the data of their charts by name, then line by line whatever else they say."""
    if said == found:
        return
    data_said, rest_said = html.parted(said)
    data_found, rest_found = html.parted(found)
    try:
        charts_said = {chart["id"]: chart for chart in msgspec.json.decode(data_said)}
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError):
        yield "report.html: the data of its charts cannot be read"
    else:
        charts_found = {chart["id"]: chart for chart in msgspec.json.decode(data_found)}
        yield from _structures(html.NAME, charts_said, charts_found, data_said, data_found)
    for number, (one, other) in enumerate(zip_longest(rest_said.split("\n"), rest_found.split("\n")), 1):
        if one != other:
            yield f"report.html line {number}: {_apart(one, other)}"


def _apart(said: str | None, found: str | None) -> str:
    """Return where two lines begin to differ; a table is one long line."""
    if said is None or found is None:
        return "it is missing" if said is None else "nothing in the raw files says it"
    at = next((n for n, (a, b) in enumerate(zip(said, found, strict=False)) if a != b), min(len(said), len(found)))
    begin = max(0, at - _TEXT_MOST // 2)
    one, other = said[begin : begin + _TEXT_MOST], found[begin : begin + _TEXT_MOST]
    return f"it says {one!r}, the raw files say {other!r}"


def _values(name: str, where: str, said: Any, found: Any) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(found, dict):
        for key in sorted(said.keys() | found.keys()):
            yield from _values(name, f"{where}.{key}" if where else key, said.get(key), found.get(key))
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        for number, (one, other) in enumerate(zip(said, found, strict=True)):
            yield from _values(name, f"{where}[{number}]", one, other)
    elif said != found or type(said) is not type(found):  # true is 1 in Python, and no number in a chart
        yield f"{where}: {name} says {_cut(said)}, the raw files say {_cut(found)}"


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _TEXT_MOST else text[:_TEXT_MOST] + "…"
