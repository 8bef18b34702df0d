"""``python -m loadtests generator-ceiling``: Locust's fast user, the lean user and the whole generator, a null server.

One core each for the generator and the server, the kinds in turn in every round, so that what else the machine does
meets both alike. The lean user runs with its full accounting: a line of history, a histogram and Locust's statistics
for every request. Both are closed loops; the whole generator of a run (open arrivals, buyers with all they do, the
dispatcher) is measured after them, by a rise of the default sale (``loadtests.generator.whole_ceiling``): that is the
figure a run has to stay below. The last line is the ratio, and the exit code says whether it is 3 or more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import bars, rows
from benchmarks.pinned import Progress
from core.arguments import Arguments
from loadtests.generator import ceiling
from loadtests.generator.ceiling import CeilingUnknown, Reached
from loadtests.generator.whole_ceiling import Whole, whole_ceiling
from loadtests.scenarios import find

RATIO_LEAST: Final = 3.0
RECORDING_US_MOST: Final = 3.0
VERB: Final = "generator-ceiling"
_KINDS: Final = {"Fast": "FastHttpUser", "Lean": "LeanUser"}
_ROUNDS_UNTIL_S: Final = 50.0
SCENARIO: Final = "flash_sale"  # that the whole generator plays
_RISES_MOST: Final = 3
_RISE_S: Final = 3.0
_RISES_UNTIL_S: Final = 80.0


def main(argv: Sequence[str]) -> int:
    """Measure both users and the whole generator on a null server, print medians and spread, and end with the ratio.

    Exit codes: 0 the lean user does 3 times the requests of FastHttpUser or more and its recording costs 3 µs a
    request or less, 1 one of them does not hold.
    """
    parser = Arguments(prog=f"python -m loadtests {VERB}", description=(main.__doc__ or "").strip())
    parser.add_argument("--rounds", type=int, default=5, help="how often each kind is measured (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long, each time (default 2)")
    options = parser.parse_args(argv)
    rows.check(options.rounds, options.seconds)
    out = rows.run_folder(VERB)
    with Progress() as say:
        rounds = measure(options.rounds, options.seconds, say)
        say("measuring what recording costs")
        recording = ceiling.recording_us()
        whole = rises(min(options.rounds, _RISES_MOST), say)
    told = report(rounds, recording, options.seconds, whole)
    code = rows.tell(told, out)
    # Cut, not rounded: what is printed as 3.0 is 3.
    sys.stdout.write(f"\nrecording {recording:.2f} us a request\nratio {int(told.ratios[0].value * 10) / 10:.1f}\n")
    return code


def measure(rounds: int, seconds: float, say: Progress) -> list[dict[str, Reached]]:
    """Return what each kind did in each round."""
    done: list[dict[str, Reached]] = []
    with ceiling.null_server() as port, tempfile.TemporaryDirectory() as folder:
        for number in rows.rounds_in_time(rounds, say, _ROUNDS_UNTIL_S):
            reached: dict[str, Reached] = {}
            for kind, name in _KINDS.items():
                say(f"round {number} of {rounds}: {name}")
                reached[kind] = ceiling.drive(kind, port, seconds, Path(folder))
            done.append(reached)
    return done


def rises(rounds: int, say: Progress) -> list[Whole]:
    """Return what the whole generator reached in each rise of the default sale."""
    scenario = find(SCENARIO)
    done = []
    for number in rows.rounds_in_time(rounds, say, _RISES_UNTIL_S):
        say(f"rise {number} of {rounds}: the whole generator")
        try:
            done.append(whole_ceiling(scenario, scenario.rate, _RISE_S))
        except CeilingUnknown as error:
            say(f"rise {number} of {rounds} shows nothing: {error}")
    return done


def report(
    rounds: Sequence[dict[str, Reached]], recording: float, seconds: float, whole: Sequence[Whole]
) -> rows.Report:
    """Return what the rounds and the rises say."""
    figures = []
    for kind, name in _KINDS.items():
        seen = [reached[kind] for reached in rounds]
        figures += [
            rows.Figure(f"{name}, one core", "requests/s", [one.per_s for one in seen]),
            rows.Figure(f"{name}, CPU", "µs a request", [one.cpu_seconds / one.requests * 1e6 for one in seen]),
            rows.Figure(f"{name}, CPU busy", "of its core", [one.cpu_seconds / one.seconds for one in seen]),
        ]
    figures.append(rows.Figure("recording, in a loop", "µs a request", [recording]))
    if whole:
        figures += [
            rows.Figure("whole generator, one core", "arrivals/s", [one.arrivals_per_s for one in whole]),
            rows.Figure("whole generator, all they do", "requests/s", [one.requests_per_s for one in whole]),
        ]
    ratios = [
        bars.ratio("LeanUser ÷ FastHttpUser", [one["Lean"].per_s / one["Fast"].per_s for one in rounds], RATIO_LEAST),
        bars.ratio("recording, µs a request", [recording], RECORDING_US_MOST, at_most=True),
    ]
    busy = median(one["Lean"].cpu_seconds / one["Lean"].seconds for one in rounds)
    notes = [
        f"{ceiling.USERS} users without wait time; requests as Locust's own statistics count them, none failed.",
        f"The lean user was busy {busy:.0%} of its core; the rest was other work's, or the null server's being late.",
        _about(whole),
    ]
    return rows.report(VERB, len(rounds), seconds, figures, ratios, notes)


def _about(whole: Sequence[Whole]) -> str:
    if not whole:
        return "The whole generator: never fit, so the machine was too busy to show its ceiling; measure again."
    least = "" if all(one.gave_out for one in whole) else "; it had not given out each time, so it can do more"
    return (
        f"The whole generator: {SCENARIO} by open arrivals that rise for {_RISE_S:g} s, {len(whole)} times; its "
        f"busiest half second while it was fit to judge that scenario's p99{least}."
    )
