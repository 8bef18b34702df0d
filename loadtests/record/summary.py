"""What a run says of itself: how it was started (``run.json``), how the generator fared, and
``summary.json``.

``Summary`` is schema 1: its fields stay; more may come. Every number in it can be
computed again from the raw files beside it, and ``flashproof verify`` does.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from loadtests.machine import Machine
from loadtests.record.axis import WorkerClock
from loadtests.record.evidence import Finding

SCHEMA: Final = 1
Verdict = Literal["pass", "slow", "wrong", "void"]
EXIT_CODE: Final[dict[Verdict, int]] = {"pass": 0, "slow": 1, "wrong": 2, "void": 3}


class Incident(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that befell a process during the run, at an instant of the history's clock."""

    at_us: int
    what: str  # one short sentence: "kill -9 of the projector", "valkey came back after 0.8 s"
    planned: bool = True  # False: nobody meant it, so the run cannot be judged


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """What the scenario promises; None promises nothing. Missing one makes the run slow."""

    accepted_p99_us: int | None = None  # at the first asking
    accepted_after_retry_p99_us: int | None = None  # from the plan's instant, where there was a retry
    sold_out_p99_us: int | None = None
    paid_to_delivered_p99_us: int | None = None
    accepted_per_s: float | None = None
    p99_us: dict[str, int] = {}  # of any name in latency_us; missing it entirely is slow too
    unserved_share: float | None = None  # of all requests: put off (429, 503), failed or never answered
    requests_per_arrival: dict[str, float] = {}  # of a group of clients, retries and all
    rss_growth_bytes: dict[str, int] = {}  # of a role, from the second quarter of the sale to its last


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What one group of clients did to the shop, and got."""

    arrivals: int
    requests: int  # places, retries and all
    requests_per_arrival: float
    accepted: int  # arrivals that got an order in the end
    busiest_s: int  # places sent in its busiest second


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json``: what was asked for, where, and what befell it; written when the run is over."""

    run_id: str
    scenario: str
    seed: int
    rate: float  # attempts a second asked for
    seconds: float  # of arrivals
    stock: int  # keys of the hot SKU
    hot_sku: str
    cold_skus: int
    budgets: Budgets
    machine: Machine
    git_commit: str
    started_at: str  # ISO 8601: the instant 0 of the history's clock
    command: str  # what to type to run it again
    wanted: list[str]  # names of loadtests.checkers.non_vacuity
    versions: dict[str, str] = {}  # valkey, postgresql, locust, …
    cpu_seconds: dict[str, float] = {}  # over the sale: server, worker, valkey, postgres, generator
    incidents: list[Incident] = []
    not_tested: list[str] = []  # sentences
    target: str = ""  # the shop that ran already; "": one of our own
    unread: list[str] = []  # of postgres, valkey: stores nobody could look into; what they know is not checked
    quiet_after_s: float | None = None  # from the last arrival until all was quiet; None: it never was


class WakeLag(msgspec.Struct, frozen=True, kw_only=True):
    """How late the generator itself was, in µs."""

    p50: float = 0
    p99: float = 0
    max: float = 0


class ReadLag(msgspec.Struct, frozen=True, kw_only=True):
    """How late replies were read that had arrived, in µs."""

    p50: float = 0
    p99: float = 0
    max: float = 0
    replies: int = 0  # that were looked at


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """``generator.json``: what the load generator says of itself."""

    scheduled: int
    sent: int
    unsent: int
    shed: int
    cpu_max: float  # largest share of one core in any sample, 0 to 1; of several processes, the busiest one's
    wake_lag_us: WakeLag  # from due to the arrival's first instruction
    read_lag_us: ReadLag | None = None  # None: not measured
    started_at: str | float = ""
    elapsed_s: float = 0.0
    outcomes: dict[str, int] = {}
    requests: int | None = None
    keys_shown: int | None = None
    complete: bool = True  # the whole plan was run, without a fault
    crashed: int = 0  # arrivals that ended by a fault of the generator
    cpu_samples: list[tuple[int, float]] = []  # (instant in µs, share of one core), every 0.25 s
    stalls: list[tuple[int, int]] = []  # (instant in µs, length in µs) of what stopped the generator for 50 ms or more
    ceiling_per_s: float | None = None  # arrivals a second that all of it can make of a null server on this machine
    ceiling_requests_per_s: float | None = None  # in the same half second
    ceiling_found: bool = True  # False: it had not given out yet, so the ceiling lies higher
    processes: int = 1
    scheduling: str = ""  # how the kernel ran it: fifo (real time), other, or fifo until it was busy for too long
    clocks: list[WorkerClock] = []  # of several processes or hosts: how each one's instants came onto one axis


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One histogram of ``histograms.json``, in µs; ``hdr`` is HdrHistogram's own text and holds all of it."""

    hdr: str
    count: int
    max: float
    p50: float = 0
    p90: float = 0
    p99: float = 0
    p999: float = 0
    over: int = 0  # values above 60 s, counted as 60 s


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    """``histograms.json``: one histogram per operation and outcome, of the latency from either beginning."""

    latency: dict[str, Recorded]  # from the instant the plan intended
    service: dict[str, Recorded] = {}  # from the send


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in µs; None: fewer than 100 values lie beyond it, so it is not printed."""

    p50: int | None = None
    p90: int | None = None
    p99: int | None = None
    p999: int | None = None
    max: int = 0
    count: int = 0
    interval_us: dict[str, tuple[int, int]] = {}  # by percentile: 95 % confidence, where the values allow one


class StockLocust(msgspec.Struct, frozen=True, kw_only=True):
    """What stock Locust would have said of the same shop, in µs; see ``loadtests.record.stock_locust``."""

    p50: int = 0
    p99: int = 0
    p999: int = 0
    users: int = 0  # closed users it was given
    count: int = 0  # requests they would have made


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every scheduled arrival, by its first place attempt: ``scheduled`` is the sum of all others."""

    scheduled: int
    accepted: int  # an order was answered, new or the one that the same key had
    refused: dict[str, int]  # by the shop's code
    failed: int  # surely nothing happened and no code was answered: no connection could be made
    unknown: int  # a reset, a broken reply, an error that says nothing
    timed_out: int
    shed: int  # due, but too many were under way
    unsent: int  # due, but the run was over

    def accounted(self) -> int:
        """Return the sum that must be ``scheduled``."""
        ended = self.accepted + sum(self.refused.values()) + self.failed + self.unknown + self.timed_out
        return ended + self.shed + self.unsent


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """Planned arrivals, and what became of them."""

    scheduled: int
    sent: int
    unsent: int
    shed: int


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """Orders that ever reached a state, by PostgreSQL; one order may stand in several."""

    accepted: int
    paid: int
    delivered: int
    expired: int
    cancelled: int
    refund_due: int
    refunds_due: int  # charges to give back; an order charged twice is delivered and has one


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Card keys, all SKUs together."""

    loaded: int
    delivered: int
    duplicated: int  # different keys that reached more than one line, order or buyer; anything but 0 is wrong
    free: int
    void: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Per second over the window of the sale; orders sold and refusals are never one number."""

    accepted_per_s: float
    refused_per_s: float
    delivered_per_s: float
    accepted_peak_per_s: float  # the best whole second
    offered_per_s: float = 0.0  # arrivals the plan had, over the seconds of the plan
    achieved_per_s: float = 0.0  # arrivals sent, over the seconds until the last of them was sent


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU microseconds for each accepted order, everything the role did included; None: not measured."""

    server_cpu_us_per_order: float | None
    valkey_cpu_us_per_order: float | None
    postgres_cpu_us_per_order: float | None
    worker_cpu_us_per_order: float | None


class GeneratorHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the generator may be believed."""

    valid: bool
    cpu_max: float
    wake_lag_us_p99: int
    read_lag_us_p99: int | None = None  # None: not measured
    reasons: list[str] = []  # why not
    stalls: int = 0  # of 50 ms or more
    ceiling_per_s: float | None = None  # arrivals a second that all of it can make of a null server on this machine
    ceiling_requests_per_s: float | None = None  # in the same half second
    ceiling_found: bool = True  # False: it had not given out yet, so the ceiling lies higher
    processes: int = 1
    scheduling: str = ""
    clocks_within_us: int = 0  # how far an instant of one host may be off on the axis of all


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The sale on the history's clock: from the first place due to the last place answered, in µs."""

    begin_us: int
    end_us: int

    @property
    def seconds(self) -> float:
        """Return its length, never zero."""
        return max(self.end_us - self.begin_us, 1) / 1_000_000


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """``summary.json``: the whole run on one page."""

    schema: int
    run_id: str
    scenario: str
    seed: int
    started_at: str
    git_commit: str
    machine: Machine
    verdict: Verdict
    reasons: list[str]  # each begins with the verdict it argues for; empty: pass
    offered: Offered
    outcomes: dict[str, int]  # how the first place attempt of each arrival ended, and `replayed` for all retries
    place_answers: dict[str, int]  # every place attempt of the run, retries and all
    orders: Orders
    keys: Keys
    rates: Rates
    latency_us: dict[str, Latency]  # from the instant the plan intended
    service_us: dict[str, Latency]  # from the send
    gap_us: dict[str, Latency]  # from intended to sent: `backlog`, `connect` and the generator's own `wake_lag`
    read_lag_us: Latency  # of the replies looked at: how late the generator read them; none: not measured
    stock_locust_us: StockLocust
    identity: Identity
    cost: Cost
    invariants: list[Finding]
    non_vacuity: Finding
    reached: dict[str, int]  # how often each interesting thing happened, wanted or not
    groups: dict[str, Group] = {}  # of clients, where the scenario sets some side by side
    rss_growth_bytes: dict[str, int] = {}  # by role, from the second quarter of the sale to its last
    generator: GeneratorHealth
    window: Window
    budgets: Budgets
    asked: dict[str, float]  # rate, seconds, stock, cold_skus
    command: str
    versions: dict[str, str]
    incidents: list[Incident]
    not_tested: list[str]
    quiet_after_s: float | None
