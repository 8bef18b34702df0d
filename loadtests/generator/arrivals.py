"""When the buyers come: pure arithmetic over an absolute plan that is never re-anchored.

An arrival is due at an instant fixed before the run. Whether the generator or the server was late for earlier
arrivals changes nothing for later ones: that is what makes the load open, and its latencies honest. Every shape
has the same number of arrivals, the rate times the seconds; only a trace has its own.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, Protocol

RATE_MOST: Final = 100_000.0  # arrivals a second; far above what one process can send
ARRIVALS_MOST: Final = 10_000_000  # arrivals of one run
GRACE_US: Final = 1_000_000  # after the plan's last instant, late arrivals may still go out for this long
HOURS: Final = (3, 2, 1, 1, 1, 2, 3, 5, 7, 8, 8, 9, 10, 8, 7, 7, 8, 9, 11, 13, 14, 12, 8, 5)  # visitors of each hour
STEP_SHARE: Final = 0.8  # of all arrivals come while the door opens
STEP_PART: Final = 0.1  # … which takes this part of the time, unless said
SPIKE_PART: Final = 0.1  # the middle of the time, in which
SPIKE_SHARE: Final = 0.55  # of all arrivals come
SHAPES: Final = "constant, poisson[:SEED], step[:SECONDS], ramp, spike, diurnal, trace:FILE"


class Arrivals(Protocol):
    """An absolute plan of arrivals, numbered from 0."""

    @property
    def total(self) -> int:
        """Return how many arrivals the whole plan has."""

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""

    def pace(self, elapsed_us: int, sent: int) -> tuple[int, bool]:
        """Return (how long to wait for the next arrival in µs, whether to stop) after ``sent`` arrivals."""


class _Schedule:
    """What all plans share; each says when an arrival is due."""

    __slots__ = ("_end_us", "total")

    def __init__(self, rate: float, seconds: float) -> None:
        """Fix the plan: ``rate`` arrivals a second on average, for ``seconds``.

        Raises:
            ValueError: the rate or the time is not positive or too large; the message says which.
        """
        if not 0 < rate <= RATE_MOST:
            raise ValueError(f"the rate must be above 0 and at most {RATE_MOST:.0f} a second, not {rate}")
        if not seconds > 0:
            raise ValueError(f"the time must be above 0 seconds, not {seconds}")
        if rate * seconds > ARRIVALS_MOST:
            raise ValueError(f"{rate * seconds:.0f} arrivals are more than one run holds ({ARRIVALS_MOST})")
        self.total: int = max(1, round(rate * seconds))
        self._end_us = int(seconds * 1_000_000) + GRACE_US

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""
        raise NotImplementedError

    def pace(self, elapsed_us: int, sent: int) -> tuple[int, bool]:
        """Return (µs to wait for the next arrival, whether to stop).

        The wait is 0 for an arrival that is due or overdue. It stops after the last arrival, or when the
        generator is so late that the run is over: what is left then was due but never sent.
        """
        if sent >= self.total or elapsed_us > self._end_us:
            return 0, True
        return max(0, self.due_us(sent) - elapsed_us), False


class Constant(_Schedule):
    """Evenly spaced."""

    __slots__ = ("_step_us",)

    def __init__(self, rate: float, seconds: float) -> None:
        """Fix the plan; see ``_Schedule``."""
        super().__init__(rate, seconds)
        self._step_us = 1_000_000 / rate

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""
        return int(number * self._step_us)


class Ramp(_Schedule):
    """From nobody to twice the rate: by the time t, rate·t²/seconds have come."""

    __slots__ = ("_scale",)

    def __init__(self, rate: float, seconds: float) -> None:
        """Fix the plan; see ``_Schedule``."""
        super().__init__(rate, seconds)
        self._scale = seconds / rate * 1e12

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""
        return int(math.sqrt(number * self._scale))


class _Pieces(_Schedule):
    """Stretches of time, each with arrivals evenly spaced."""

    __slots__ = ("_arrivals", "_begins", "_firsts", "_lengths_us")

    def __init__(self, rate: float, seconds: float, pieces: Sequence[tuple[float, float]]) -> None:
        """Take the pieces as (part of the time, share of the arrivals); both add up to 1."""
        super().__init__(rate, seconds)
        self._lengths_us = [part * seconds * 1e6 for part, _ in pieces]
        self._begins = [0.0, *accumulate(self._lengths_us)]
        self._arrivals = [share * self.total for _, share in pieces]
        self._firsts = [0.0, *accumulate(self._arrivals)]
        steepest = max(share / part for part, share in pieces)
        if rate * steepest > RATE_MOST:
            raise ValueError(
                f"{rate * steepest:.0f} arrivals a second at the peak are more than {RATE_MOST:.0f}: lower the rate"
            )

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""
        piece = min(bisect_right(self._firsts, number), len(self._lengths_us)) - 1
        within = (number - self._firsts[piece]) / self._arrivals[piece]
        return int(self._begins[piece] + within * self._lengths_us[piece])


class Step(_Pieces):
    """The door opens: four of five come in the first tenth of the time (or in ``opening_s``), then a tail."""

    __slots__ = ()

    def __init__(self, rate: float, seconds: float, opening_s: float | None = None) -> None:
        """Fix the plan; see ``_Schedule``.

        Raises:
            ValueError: also if the opening is not shorter than the time.
        """
        part = STEP_PART
        if opening_s is not None:
            part = opening_s / seconds if seconds > 0 else 1.0
        if not 0 < part < 1:
            raise ValueError(f"the opening must be above 0 and below {seconds:g} seconds, not {opening_s:g}")
        super().__init__(rate, seconds, ((part, STEP_SHARE), (1 - part, 1 - STEP_SHARE)))


class Spike(_Pieces):
    """Half the rate, but in the middle tenth of the time eleven times as much."""

    __slots__ = ()

    def __init__(self, rate: float, seconds: float) -> None:
        """Fix the plan; see ``_Schedule``."""
        side = ((1 - SPIKE_PART) / 2, (1 - SPIKE_SHARE) / 2)
        super().__init__(rate, seconds, (side, (SPIKE_PART, SPIKE_SHARE), side))


class Diurnal(_Pieces):
    """A day in little: 24 hours, quiet at night, busiest in the evening with twice the mean."""

    __slots__ = ()

    def __init__(self, rate: float, seconds: float) -> None:
        """Fix the plan; see ``_Schedule``."""
        super().__init__(rate, seconds, [(1 / len(HOURS), visitors / sum(HOURS)) for visitors in HOURS])


class _Instants(_Schedule):
    """A list of instants."""

    __slots__ = ("_instants_us",)

    _instants_us: array[int]

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""
        return self._instants_us[number]


class Poisson(_Instants):
    """As strangers come: independent of each other. The same seed gives the same plan.

    Given their number, the instants of a Poisson process are uniform over the time (Cox and Lewis, The Statistical
    Analysis of Series of Events, 1966, section 2.3); in order they are sums of exponential gaps, scaled.
    """

    __slots__ = ()

    def __init__(self, rate: float, seconds: float, seed: int) -> None:
        """Fix the plan; see ``_Schedule``."""
        super().__init__(rate, seconds)
        draw = random.Random(seed).expovariate  # a plan, not a secret
        ends = list(accumulate(draw(1.0) for _ in range(self.total + 1)))
        scale = seconds * 1e6 / ends[-1]
        self._instants_us = array("q", [int(end * scale) for end in ends[:-1]])


class Trace(_Instants):
    """The instants of a file: one a line, seconds since the start, ascending; ``#`` begins a comment."""

    __slots__ = ()

    def __init__(self, path: Path, seconds: float) -> None:
        """Read the file.

        Raises:
            ValueError: it cannot be read, or a line is wrong; the message says which and what to do.
        """
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError(f"the trace {path} cannot be read (it is no file): name a file of instants")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ValueError(f"the trace {path} cannot be read ({why}): name a file of instants") from error
        instants_us = array("q")
        for number, line in enumerate(text.splitlines(), 1):
            word = line.partition("#")[0].strip()
            if word:
                instants_us.append(_instant_us(f"{path.name} line {number}", word, instants_us, seconds))
        if not instants_us:
            raise ValueError(f"{path.name} has no instants: write one a line, in seconds since the start")
        if len(instants_us) > min(ARRIVALS_MOST, RATE_MOST * seconds):
            raise ValueError(
                f"{path.name} has {len(instants_us)} instants; {RATE_MOST:.0f} for each of the {seconds:g} seconds and "
                f"{ARRIVALS_MOST} in all are the most: ask for more seconds, or cut the trace"
            )
        super().__init__(len(instants_us) / seconds, seconds)
        self._instants_us, self.total = instants_us, len(instants_us)


def _instant_us(where: str, word: str, earlier: array[int], seconds: float) -> int:
    try:
        instant = float(word)
    except ValueError:
        instant = math.nan
    if not 0 <= instant < math.inf:
        raise ValueError(f"{where}: {word[:40]!r} is no instant: write seconds since the start, like 0.25")
    if instant > seconds:
        raise ValueError(f"{where}: {word} is after the end: ask for {math.ceil(instant)} seconds, or cut the trace")
    instant_us = round(instant * 1_000_000)
    if earlier and instant_us < earlier[-1]:
        raise ValueError(f"{where}: {word} is before the instant above it: sort the trace (sort -n)")
    return instant_us


def parse_arrivals(text: str, rate: float, seconds: float, seed: int = 1) -> Arrivals:
    """Return the plan that a word names.

    Args:
        text: one of ``SHAPES``.
        rate: arrivals a second, on average over the whole time; a trace has its own.
        seconds: how long arrivals come.
        seed: of ``poisson``, unless the text names one.

    Raises:
        ValueError: the text, the rate, the time or the trace is wrong; one line that says what to write.
    """
    shape, _, value = text.partition(":")
    try:
        if shape == "poisson":
            return Poisson(rate, seconds, int(value) if value else seed)
        if shape == "step":
            return Step(rate, seconds, float(value) if value else None)
    except ValueError as error:
        if "invalid literal" in str(error) or "could not convert" in str(error):
            raise ValueError(f"{text!r} is no plan of arrivals: write one of {SHAPES}") from error
        raise
    if shape == "trace" and value:
        return Trace(Path(value), seconds)
    plain = {"constant": Constant, "ramp": Ramp, "spike": Spike, "diurnal": Diurnal}.get(text)
    if plain is None:
        raise ValueError(f"{text!r} is no plan of arrivals: write one of {SHAPES}")
    return plain(rate, seconds)
