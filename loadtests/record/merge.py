"""One run from the parts that several generator processes played: every line kept, every count added, nothing averaged.

Each part is a directory with the files a run leaves. All parts share the clock's zero, so the lines of the histories
are brought into the order in which they ended; histograms are added bucket by bucket; of the generator's own health the
worst part counts, so no part hides behind the others.
"""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtests.record.axis import WorkerClock
from loadtests.record.latency import merge as merge_histograms
from loadtests.record.run_files import write_json
from loadtests.record.summary import Histograms

FILES: Final = ("history.jsonl", "charges.jsonl", "histograms.json", "generator.json")
HELD_MOST: Final = 20_000  # as many as may be under way in one process
_Values = Sequence[Any]


class _Line(msgspec.Struct, gc=False):
    """What the order of lines goes by."""

    done_us: int = 0
    intended_us: int = 0
    at_us: int = 0


_line = msgspec.json.Decoder(_Line)


def merge_parts(parts: Sequence[Path], out: Path, clocks: Sequence[WorkerClock] = ()) -> None:
    """Write the files of the whole run to ``out``; ``clocks`` tells how the parts' instants came onto one axis.

    Nothing of it stands there before all of it was merged.

    Raises:
        OSError: a part is not whole, or ``out`` cannot be written.
        ValueError: a file of a part cannot be read, or parts began at different instants.
    """
    with tempfile.TemporaryDirectory(prefix=".whole-", dir=out) as folder:
        _merge(parts, Path(folder), clocks)
        for name in FILES:
            Path(folder, name).replace(out / name)


def _merge(parts: Sequence[Path], out: Path, clocks: Sequence[WorkerClock]) -> None:
    for name in ("history.jsonl", "charges.jsonl"):
        with (out / name).open("wb") as file:
            for _, _, raw in heapq.merge(*(_sorted_lines(part / name) for part in parts), key=lambda line: line[0]):
                file.write(raw)
    found = [msgspec.json.decode((part / "histograms.json").read_bytes(), type=Histograms) for part in parts]
    merged = {
        beginning: merge_histograms([getattr(one, beginning) for one in found])
        for beginning in Histograms.__struct_fields__
    }
    write_json(out / "histograms.json", merged)
    told = [msgspec.json.decode((part / "generator.json").read_bytes()) for part in parts]
    write_json(out / "generator.json", merge_generators(told) | {"clocks": clocks})


def _sorted_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (instant, number, line) of a part by their instants.

    A line is written when who asked goes on, a moment after the reply was read; so lines stand out of order by as many
    as may have been read together, and no more are held here.
    """
    held: list[tuple[int, int, bytes]] = []
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            line = _line.decode(raw)
            entry = line.done_us or line.at_us or line.intended_us, number, raw
            if len(held) < HELD_MOST:
                heapq.heappush(held, entry)
            else:
                yield heapq.heappushpop(held, entry)
    while held:
        yield heapq.heappop(held)


# --- the generator's own word -----------------------------------------------------------------------------------


def _same(values: _Values) -> Any:
    if any(value != values[0] for value in values):
        raise ValueError(f"the parts are not of one run: {values}")
    return values[0]


def _counts(values: _Values) -> dict[str, int]:
    return dict(sorted(sum((Counter(value) for value in values), Counter()).items()))


def _worst(values: _Values) -> dict[str, int]:
    """Return the greatest of each percentile: of all parts together it can only be less."""
    return {name: max(value[name] for value in values) for name in values[0]}


def _worst_read(values: _Values) -> dict[str, int] | None:
    """Return the same of read lag, the replies looked at summed; a part that could not measure adds nothing."""
    told = [value for value in values if value is not None]
    return {**_worst(told), "replies": sum(value["replies"] for value in told)} if told else None


def _in_order(values: _Values) -> list[Any]:
    return sorted(one for value in values for one in value)


# How each field of generator.json comes from those of the parts.
RULES: Final[dict[str, Callable[[_Values], Any]]] = {
    **dict.fromkeys(("scheduled", "sent", "unsent", "shed", "crashed", "left", "requests", "keys_shown"), sum),
    "waited_for_connection": sum,
    "processes": sum,
    "complete": all,
    **dict.fromkeys(("cpu_max", "cpu_mean", "elapsed_s", "sale_s"), max),
    "wake_lag_us": _worst,
    "read_lag_us": _worst_read,
    **dict.fromkeys(("started_at", "started_unix_us"), _same),
    "outcomes": _counts,
    **dict.fromkeys(("cpu_samples", "stalls"), _in_order),
    "scheduling": lambda values: values[0] if len(set(values)) == 1 else "mixed",
    "ceiling_per_s": lambda values: values[0],
    "ceiling_requests_per_s": lambda values: values[0],
    "ceiling_found": lambda values: values[0],
    "rates": lambda values: values[0],  # computed anew from the sums
}


def merge_generators(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ``generator.json`` of the whole run.

    Raises:
        ValueError: the parts began at different instants, or one has a field without a rule.
    """
    unknown = {name for one in told for name in one} - set(RULES)
    if unknown:
        raise ValueError(f"no rule merges {', '.join(sorted(unknown))} of generator.json")
    merged = {name: RULES[name]([one[name] for one in told]) for name in told[0]}
    merged["processes"] = sum(one.get("processes", 1) for one in told)
    accepted = sum(one["rates"]["accepted_per_s"] * one["sale_s"] for one in told)
    sale_s, elapsed_s = max(merged["sale_s"], 1e-3), max(merged["elapsed_s"], 1e-3)
    merged["rates"] = {
        "offered_per_s": round(merged["sent"] / sale_s, 1),
        "accepted_per_s": round(accepted / sale_s, 1),
        "requests_per_s": round(merged["requests"] / elapsed_s, 1),
    }
    return merged
