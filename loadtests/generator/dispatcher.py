"""Sends every arrival when it is due, whatever the earlier ones do, and tells how well it kept the plan.

A timer walks the absolute plan and sends each arrival's order, or begins a greenlet for it; the same timer wakes those
who sleep until a later instant of the plan. What it could not do is counted, never hidden: ``shed`` (too many under
way), ``unsent`` (due, but the run was over), the wake lag (from due to the sending: the generator's own lateness), the
read lag and the generator's CPU. The identity ``scheduled = sent + unsent + shed`` holds for every run, or the run says
that it is broken.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final, Protocol

import gevent
from gevent.event import Event

from loadtests.generator.alarm import Alarm, Urgent
from loadtests.generator.arrivals import Arrivals
from loadtests.generator.attempts import unsent_attempt
from loadtests.generator.clock import Clock
from loadtests.generator.crew import Crew
from loadtests.generator.generated import Generated, Progress, Rates, ReadLag, WakeLag
from loadtests.generator.plan import Plan
from loadtests.generator.punctual import ask_real_time, give_real_time_back
from loadtests.generator.recorder import Buckets, Recorder
from loadtests.generator.sleepers import NEVER_US, Sleepers
from loadtests.generator.watch import Watch
from loadtests.record.history import Result

UNDER_WAY_MOST: Final = 20_000
DRAIN_MOST_S: Final = 15.0
BURST_MOST: Final = 32  # overdue arrivals spawned before the others may run
DENSE: Final = 4  # arrivals still to come that tell whether they are so dense that naps pay
NAP_US: Final = 800  # between two looks at the plan; what is due meanwhile is sent together, that late
NAP_MOST_US: Final = 2_000
NAP_SHARE: Final = 0.02  # of the p99 that accepted orders take from their sending: longer naps drown in that
PROGRESS_S: Final = 0.5
CUT_OFF_S: Final = 2.0  # how long cut-off requests may take to be written down


class Swift(Protocol):
    """Sends orders without a greenlet; see ``loadtests/generator/swift.py``."""

    under_way: int

    def send(self, plan: Plan, due_us: int) -> int:
        """Send an arrival's order now and return when that was; 0: nothing was sent, it takes a greenlet."""

    def hand_over(self) -> None:
        """Have greenlets go on with all that are under way."""


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
        sleepers: Sleepers | None = None,
        swift: Swift | None = None,
        urgent: Urgent | None = None,
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
            sleepers: who waits for a later instant; woken here.
            swift: may send an arrival's order without a greenlet.
            urgent: where those who handle replies look whether an arrival is due.
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
        self._swift, self._nap_us = swift, NAP_US
        self._in_greenlets = self._shed = 0
        self._lag, self._phase = Buckets(), "sale"
        self._watch, self._scheduling = Watch(clock.now_us), ""
        self._alarm = Alarm(self._ring, urgent or Urgent())
        self._rings_us = self._slack_us = 0  # when the alarm rings, and how much later than asked for that may be
        self._sleepers = sleepers or Sleepers(clock.now_us)
        self._sleepers.sooner = self._sooner
        self._taken = Event()  # the whole plan was walked

    @property
    def wake_lag(self) -> Buckets:
        """How late arrivals began so far."""
        return self._lag

    def progress(self) -> Progress:
        """Return how far the run is; unlike the told progress, it takes nothing from the recorder's window."""
        return self._progress(self._clock.now_us(), 0)

    @property
    def _under_way(self) -> int:
        return self._in_greenlets + (self._swift.under_way if self._swift is not None else 0)

    def _arrive(self, number: int, due_us: int) -> None:
        try:
            self._lag.add(self._clock.now_us() - due_us)
            self._play(self._plan(number), due_us)
        finally:
            self._in_greenlets -= 1

    # --- the run --------------------------------------------------------------------------------------------

    def run(self) -> Generated:
        """Play the whole plan, drain, cut off what is left, and return what was done.

        When the greenlet is killed meanwhile (Locust was told to stop), what was done so far is returned.
        """
        gc.collect()
        gc.freeze()  # what was imported is never garbage
        gc.disable()  # a collection stands still for up to 100 ms; requests leave next to no circles behind
        self._scheduling = ask_real_time()
        self._clock.restart()
        self._watch.start()
        teller = gevent.spawn(self._tell)
        complete, sale_us = False, 0
        try:
            complete = self._dispatch()
            sale_us, self._phase = self._clock.now_us(), "drain"
            self._drain()
        except gevent.GreenletExit:
            complete = False
        finally:
            self._watch.stop()
            self._alarm.close()
            self._sleepers.close()
            self._scheduling = give_real_time_back(self._scheduling)
            gc.enable()
            teller.kill()
            elapsed_us = self._clock.now_us()
            left = self._under_way
            if self._swift is not None:
                self._swift.hand_over()
            self._crew.cut_off(CUT_OFF_S)
            self._write_unsent()
        return self._result(complete, sale_us or elapsed_us, elapsed_us, left)

    def _dispatch(self) -> bool:
        """Wait until the plan was walked and return whether all of it was taken."""
        self._alarm.set_us(0)
        self._taken.wait()
        return self._begun == self._arrivals.total

    def _ring(self) -> None:
        """Send every arrival that is due, wake who is, and set the alarm for the next. In the hub, ahead of all others.

        At 5,000 a second a wake-up for each arrival is a quarter of all the generator does, and one for each reply
        another tenth (150 µs a request without naps, 112 with 0.4 ms, 99 with 0.8 ms and rests; one slow machine,
        the null server). So where arrivals are dense it naps between them: that is below what a run may be late, and
        part of the lags it reports. Where they are not, each is sent to the moment.
        """
        walked = self._taken.is_set()
        due_us = NEVER_US if walked else self._send_due()
        due_us = min(due_us, self._sleepers.wake(self._clock.now_us()))
        now_us, last, dense = self._clock.now_us(), self._arrivals.total - 1, False
        if not walked and due_us > now_us:
            far = min(DENSE, last - self._begun)
            dense = self._arrivals.due_us(self._begun + far) - now_us <= far * self._nap_us
        self._slack_us = self._nap_us if dense else 0
        self._set(due_us, now_us)

    def _sooner(self, due_us: int) -> None:
        if due_us + self._slack_us < self._rings_us:
            self._set(due_us, self._clock.now_us())

    def _set(self, due_us: int, now_us: int) -> None:
        self._rings_us = max(due_us, now_us + self._slack_us)
        self._alarm.set_us(self._rings_us - now_us, rest_us=self._slack_us)

    def _send_due(self) -> int:
        """Send every arrival that is due and return the instant of the next.

        An arrival begins in here, not at the loop's next turn: its order is sent at once, or its greenlet runs until it
        first waits. After a stall the overdue go out in bursts, so that replies are read in between.
        """
        pace, due_us, now_us = self._arrivals.pace, self._arrivals.due_us, self._clock.now_us
        late_us: list[int] = []
        wait_us = 0
        for _ in range(BURST_MOST):
            wait_us, stop = pace(now_us(), self._begun)
            if stop:
                self._taken.set()
                break
            if wait_us > 0:
                break
            number = self._begun
            self._begun += 1
            if self._under_way >= self._under_way_most:
                self._shed += 1
                self._not_sent(number, "shed")
                continue
            sent_us = self._send(number, due_us(number))
            if sent_us:
                late_us.append(sent_us - due_us(number))
            else:
                self._in_greenlets += 1
                self._crew.begin(self._arrive, number, due_us(number))
        self._lag.add_all(late_us)
        return NEVER_US if self._taken.is_set() else now_us() + wait_us

    def _send(self, number: int, due_us: int) -> int:
        """Send an arrival's order without a greenlet and return when that was; 0: it takes one."""
        if self._swift is None:
            return 0
        try:
            return self._swift.send(self._plan(number), due_us)
        except Exception:  # noqa: BLE001  # it raises again in the greenlet; here it would stop the timer's watcher
            return 0

    def _drain(self) -> None:
        end_us = self._clock.now_us() + int(self._drain_most_s * 1_000_000)
        while (self._crew.busy or self._under_way > 0) and self._clock.now_us() < end_us:
            gevent.sleep(0.02)

    def _not_sent(self, number: int, result: Result) -> None:
        plan = self._plan(number)
        self._recorder.first(result)
        self._recorder.note(unsent_attempt(plan, self._arrivals.due_us(number), result))

    def _write_unsent(self) -> None:
        while self._begun < self._arrivals.total:
            self._not_sent(self._begun, "unsent")
            self._begun += 1

    # --- telling ------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Flush the files and show the progress, until killed."""
        while True:
            gevent.sleep(PROGRESS_S)
            for _ in self._recorder.flushing():
                gevent.sleep(0.001)  # not 0: that comes back within the same turn of the loop, before any reply is read
            gevent.sleep(0.001)
            p99_us, service_p99_us = self._recorder.window()
            self._nap_us = min(NAP_MOST_US, max(NAP_US, int(service_p99_us * NAP_SHARE)))
            if self._show is not None:
                self._show(self._progress(self._clock.now_us(), p99_us))

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
            cpu=round(self._watch.cpu, 3),
        )

    def _result(self, complete: bool, sale_us: int, elapsed_us: int, left: int) -> Generated:
        outcomes, total = dict(sorted(self._recorder.firsts.items())), self._arrivals.total
        unsent, shed = outcomes.get("unsent", 0), outcomes.get("shed", 0)
        sent, lag, read = total - unsent - shed, self._lag.summary(), self._recorder.read_lag.summary()
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
            cpu_max=round(self._watch.cpu_max, 4),
            cpu_mean=round(self._watch.cpu_mean, 4),
            wake_lag_us=WakeLag(lag.p50, lag.p99, lag.max),
            read_lag_us=ReadLag(read.p50, read.p99, read.max, read.count) if read.count else None,
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
            cpu_samples=self._watch.cpu_samples,
            stalls=self._watch.stalls,
            scheduling=self._scheduling,
        )
