"""Sends every arrival when it is due, whatever the earlier ones do, and tells how well it kept the plan.

One greenlet walks the absolute plan and spawns one greenlet an arrival. What it could not do is counted,
never hidden: ``shed`` (too many under way), ``unsent`` (due, but the run was over), the wake lag (from due to
the arrival's first instruction: the generator's own lateness) and the generator's CPU. The identity
``scheduled = sent + unsent + shed`` holds for every run, or the run says that it is broken.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

import gevent
import msgspec

from loadtests.generator.alarm import Alarm
from loadtests.generator.arrivals import Arrivals
from loadtests.generator.attempts import unsent_attempt
from loadtests.generator.crew import Crew
from loadtests.generator.plan import Plan
from loadtests.generator.recorder import Buckets, Recorder
from loadtests.record.history import Result

UNDER_WAY_MOST: Final = 20_000
DRAIN_MOST_S: Final = 15.0
BURST_MOST: Final = 32  # overdue arrivals spawned before the others may run
CPU_SAMPLE_S: Final = 0.25
PROGRESS_S: Final = 0.5
CUT_OFF_S: Final = 2.0  # how long cut-off requests may take to be written down


class WakeLag(msgspec.Struct, frozen=True):
    """How late arrivals began, in µs: the generator's own lateness."""

    p50: int
    p99: int
    max: int


class Rates(msgspec.Struct, frozen=True):
    """What was reached, a second: ``offered`` and ``accepted`` over the sale, ``requests`` over all."""

    offered_per_s: float
    accepted_per_s: float
    requests_per_s: float


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """``generator.json``: what the generator did and whether it can be believed."""

    complete: bool  # the whole plan was run
    scheduled: int
    sent: int
    unsent: int
    shed: int
    crashed: int  # arrivals that ended by a fault of the generator; anything but 0 is a bug
    left: int  # arrivals cut off at the end of the drain
    requests: int
    waited_for_connection: int
    cpu_max: float  # fraction of one core, the highest quarter of a second
    cpu_mean: float
    wake_lag_us: WakeLag
    started_at: str  # ISO 8601, UTC
    started_unix_us: int  # the zero of every instant in the history
    elapsed_s: float
    sale_s: float
    rates: Rates
    outcomes: dict[str, int]  # first place attempts by outcome; they add up to `scheduled`
    keys_shown: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line of progress."""

    elapsed_s: float
    phase: str  # sale, drain
    scheduled: int
    sent: int
    under_way: int
    accepted: int
    refused: int
    sold: int  # keys shown to buyers
    p99_us: int  # of the orders accepted since the last line
    shed: int
    cpu: float


class Clock:
    """The run's clock: µs since its start, monotonic, and where its zero lies on the wall clock."""

    __slots__ = ("_zero_ns", "begins_unix_us", "started_unix_us")

    def __init__(self) -> None:
        """Start now."""
        self.begins_unix_us = 0  # where `restart` puts the zero, if not at its own instant
        self.restart()

    def restart(self) -> None:
        """Make this instant the zero, or the one that was agreed upon, which may be still to come."""
        now_ns, unix_us = time.monotonic_ns(), time.time_ns() // 1000
        self.started_unix_us = self.begins_unix_us or unix_us
        self._zero_ns = now_ns + (self.started_unix_us - unix_us) * 1000

    def now_us(self) -> int:
        """Return microseconds since the start."""
        return (time.monotonic_ns() - self._zero_ns) // 1000


class Dispatcher:
    """Runs one plan of arrivals. ``play(plan, due_us)`` is one arrival's life, in a greenlet of its own."""

    def __init__(
        self,
        arrivals: Arrivals,
        crew: Crew,
        plan: Callable[[int], Plan],
        play: Callable[[Plan, int], None],
        recorder: Recorder,
        clock: Clock,
        *,
        under_way_most: int = UNDER_WAY_MOST,
        drain_most_s: float = DRAIN_MOST_S,
        show: Callable[[Progress], None] | None = None,
        waited: Callable[[], int] = lambda: 0,
        iso: Callable[[int], str] = str,
    ) -> None:
        """Take the plan, how to play an arrival, and where to record.

        Args:
            arrivals: when arrivals are due.
            crew: runs them; what arrivals start beside themselves should run there too, to be cut off at the end.
            plan: what arrival ``number`` does.
            play: plays it; must record its own attempts.
            recorder: gets shed and unsent arrivals, and is flushed here.
            clock: the run's clock, restarted by ``run``.
            under_way_most: arrivals beyond this many at once are shed.
            drain_most_s: how long arrivals may go on after the last one was sent.
            show: gets the progress every half second.
            waited: requests that had to wait for a connection so far.
            iso: milliseconds since 1970 as ISO 8601.
        """
        self._arrivals, self._crew, self._plan, self._play = arrivals, crew, plan, play
        self._recorder, self._clock, self._show = recorder, clock, show
        self._under_way_most, self._drain_most_s = under_way_most, drain_most_s
        self._waited, self._iso = waited, iso
        self._begun = 0  # arrivals the loop has taken from the plan, sent or shed
        self._under_way = self._shed = 0
        self._lag, self._phase = Buckets(), "sale"
        self._cpu = self._cpu_max = 0.0

    @property
    def wake_lag(self) -> Buckets:
        """How late arrivals began so far."""
        return self._lag

    def progress(self) -> Progress:
        """Return how far the run is; unlike the told progress, it takes nothing from the recorder's window."""
        return self._progress(self._clock.now_us(), 0)

    def _arrive(self, number: int, due_us: int) -> None:
        try:
            self._lag.add(self._clock.now_us() - due_us)
            self._play(self._plan(number), due_us)
        finally:
            self._under_way -= 1

    # --- the run --------------------------------------------------------------------------------------------

    def run(self) -> Generated:
        """Play the whole plan, drain, cut off what is left, and return what was done.

        When the greenlet is killed meanwhile (Locust was told to stop), what was done so far is returned.
        """
        gc.collect()
        gc.freeze()  # what was imported is never garbage
        gc.set_threshold(50_000, 20, 100)  # full collections stop the world for milliseconds
        self._clock.restart()
        process_ns = time.process_time_ns()
        watcher = gevent.spawn(self._watch)
        complete, sale_us = False, 0
        try:
            complete = self._dispatch()
            sale_us, self._phase = self._clock.now_us(), "drain"
            self._drain()
        except gevent.GreenletExit:
            complete = False
        finally:
            watcher.kill()
            elapsed_us = self._clock.now_us()
            cpu_mean = (time.process_time_ns() - process_ns) / 1000 / max(1, elapsed_us)
            left = self._under_way
            self._crew.cut_off(CUT_OFF_S)
            self._write_unsent()
        return self._result(complete, sale_us or elapsed_us, elapsed_us, left, cpu_mean)

    def _dispatch(self) -> bool:
        """Walk the plan and return whether all of it was taken."""
        alarm, burst, start = Alarm(), 0, self._crew.start
        pace, due_us, now_us = self._arrivals.pace, self._arrivals.due_us, self._clock.now_us
        try:
            while True:
                wait_us, stop = pace(now_us(), self._begun)
                if stop:
                    return self._begun == self._arrivals.total
                if wait_us > 0 or burst >= BURST_MOST:
                    burst = 0
                    alarm.sleep_us(wait_us)
                    continue
                burst += 1
                number = self._begun
                self._begun += 1
                if self._under_way >= self._under_way_most:
                    self._shed += 1
                    self._not_sent(number, "shed")
                else:
                    self._under_way += 1
                    start(self._arrive, number, due_us(number))
        finally:
            alarm.close()

    def _drain(self) -> None:
        end_us = self._clock.now_us() + int(self._drain_most_s * 1_000_000)
        while self._crew.busy and self._clock.now_us() < end_us:
            gevent.sleep(0.02)

    def _not_sent(self, number: int, result: Result) -> None:
        plan = self._plan(number)
        self._recorder.first(result)
        self._recorder.note(unsent_attempt(plan, self._arrivals.due_us(number), result))

    def _write_unsent(self) -> None:
        while self._begun < self._arrivals.total:
            self._not_sent(self._begun, "unsent")
            self._begun += 1

    # --- watching itself ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Sample the generator's own CPU, flush the files and show the progress, until killed."""
        wall_ns, cpu_ns, shown_us = time.monotonic_ns(), time.process_time_ns(), 0
        while True:
            gevent.sleep(CPU_SAMPLE_S)
            wall_before, cpu_before = wall_ns, cpu_ns
            wall_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
            self._cpu = (cpu_ns - cpu_before) / (wall_ns - wall_before)
            self._cpu_max = max(self._cpu_max, self._cpu)
            now_us = self._clock.now_us()
            if now_us - shown_us >= PROGRESS_S * 1_000_000:
                shown_us = now_us
                self._recorder.flush()
                if self._show is not None:
                    self._show(self._progress(now_us, self._recorder.window_p99_us()))

    def _progress(self, now_us: int, p99_us: int) -> Progress:
        firsts = self._recorder.firsts
        going_well = sum(firsts.get(word, 0) for word in ("accepted", "replayed", "unknown", "shed", "unsent"))
        return Progress(
            elapsed_s=round(now_us / 1e6, 2),
            phase=self._phase,
            scheduled=self._arrivals.total,
            sent=self._begun - self._shed,
            under_way=self._under_way,
            accepted=self._recorder.accepted,
            refused=sum(firsts.values()) - going_well,
            sold=self._recorder.keys_shown,
            p99_us=p99_us,
            shed=self._shed,
            cpu=round(self._cpu, 3),
        )

    def _result(self, complete: bool, sale_us: int, elapsed_us: int, left: int, cpu_mean: float) -> Generated:
        outcomes, total = dict(sorted(self._recorder.firsts.items())), self._arrivals.total
        unsent, shed = outcomes.get("unsent", 0), outcomes.get("shed", 0)
        sent, lag = total - unsent - shed, self._lag.summary()
        counted = sum(outcomes.values())
        return Generated(
            complete=complete and not self._crew.faults and counted == total,
            scheduled=total,
            sent=sent,
            unsent=unsent,
            shed=shed,
            crashed=self._crew.faults,
            left=left,
            requests=self._recorder.requests,
            waited_for_connection=self._waited(),
            cpu_max=round(self._cpu_max, 4),
            cpu_mean=round(cpu_mean, 4),
            wake_lag_us=WakeLag(lag.p50, lag.p99, lag.max),
            started_at=self._iso(self._clock.started_unix_us // 1000),
            started_unix_us=self._clock.started_unix_us,
            elapsed_s=round(elapsed_us / 1e6, 3),
            sale_s=round(sale_us / 1e6, 3),
            rates=Rates(
                round(sent / (sale_us / 1e6), 1),
                round(self._recorder.accepted / (sale_us / 1e6), 1),
                round(self._recorder.requests / (elapsed_us / 1e6), 1),
            ),
            outcomes=outcomes,
            keys_shown=self._recorder.keys_shown,
        )
