"""Whether two runs may be compared at all. Each reason why not is a sentence; without one they may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from loadtests.record.history import Attempt
from loadtests.record.identity import first_places
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Summary
from loadtests.record.timeline import others_cores

OTHERS_MOST: Final = 0.1  # of all cores


def why_not(
    before: Summary, after: Summary, files: tuple[RunFiles, RunFiles], names: tuple[str, str] = ("before", "after")
) -> list[str]:
    """Return why two runs may not be compared; the summaries are those of their raw files."""
    found = [*_unfit(before, names[0]), *_unfit(after, names[1])]
    for what, one, other in (
        ("scenario", before.scenario, after.scenario),
        ("seed", before.seed, after.seed),
        *(
            (name.replace("_", " "), before.asked.get(name), after.asked.get(name))
            for name in sorted(_asked(before, after))
        ),
        ("processor", before.machine.cpu, after.machine.cpu),
        ("number of cores", before.machine.cores, after.machine.cores),
        ("kernel", before.machine.kernel, after.machine.kernel),
        ("generator's processes", before.generator.processes, after.generator.processes),
        ("kills", _killed(before), _killed(after)),
    ):
        if one != other:
            found.append(f"The {what} differ{'' if what == 'kills' else 's'}: {one} and {other}.")
    for name, summary, one in zip(names, (before, after), files, strict=True):
        found += _company(name, summary, one)
    if not found:
        found += _other_arrivals(*(first_places(one.evidence.attempts) for one in files))
    return found


def changed(before: Summary, after: Summary) -> list[str]:
    """Return what else differs; it may be just what is to be compared."""
    rows: list[tuple[str, Any, Any]] = [
        ("commit", before.git_commit, after.git_commit),
        ("python", before.machine.python, after.machine.python),
    ]
    rows += [
        (name, before.versions.get(name), after.versions.get(name))
        for name in sorted(before.versions.keys() | after.versions.keys())
    ]
    return [f"{name}: {one or 'none'} → {other or 'none'}" for name, one, other in rows if one != other]


def _unfit(summary: Summary, name: str) -> Iterable[str]:
    if summary.verdict in ("void", "wrong"):
        reason = next((one for one in summary.reasons if one.startswith(summary.verdict)), "")
        told = "proves nothing" if summary.verdict == "void" else "broke an invariant, so its speed counts for nothing"
        yield f"The run {name} {told} ({reason})."


def _company(name: str, summary: Summary, files: RunFiles) -> Iterable[str]:
    """Say when others used the machine: two runs of one tree then differ by what the neighbours did."""
    cores = others_cores(files.timeline, summary.window.begin_us, summary.window.end_us)
    if cores is not None and cores > OTHERS_MOST * summary.machine.cores:
        yield (
            f"During the run {name} other processes used {cores:.2f} of {summary.machine.cores} cores; "
            f"{OTHERS_MOST * summary.machine.cores:.2f} is the most at which two runs say something of the shop."
        )


def _asked(before: Summary, after: Summary) -> list[str]:
    return sorted(before.asked.keys() | after.asked.keys())


def _killed(summary: Summary) -> list[str]:
    return [incident.what for incident in summary.incidents if incident.planned]


def _other_arrivals(before: Mapping[int, Attempt], after: Mapping[int, Attempt]) -> Iterable[str]:
    """Compare what was due when: the seed and the rate do not tell of a plan that has changed."""
    numbers = before.keys() | after.keys()
    other = sum(1 for n in numbers if n not in before or n not in after or _due(before[n]) != _due(after[n]))
    if other:
        yield f"The arrivals differ: {other:,} of {len(numbers):,} were due at another time or wanted something else."


def _due(first: Attempt) -> tuple[int, str, str, str, int]:
    return first.intended_us, first.op, first.buyer, first.sku, first.quantity
