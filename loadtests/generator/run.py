"""A scenario as a stock Locust file sees it: one user whose only task dispatches every arrival of the plan.

Official seams only: a ``User``, ``init_command_line_parser``, ``init``, ``request`` and ``process_exit_code``.
Exit codes: 0 the plan was run, 1 it was not, 3 the shop could not be reached, 64 bad usage.
"""

from __future__ import annotations

import base64
import binascii
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import gevent
import msgspec
from locust import User, events, task
from locust.exception import StopUser

from core.clock import iso8601
from core.errors import BadInput
from core.ids import Names
from core.settings import variable
from loadtests.generator import fleet, luggage
from loadtests.generator.alarm import Urgent
from loadtests.generator.arrivals import Arrivals, parse_arrivals
from loadtests.generator.buyer import World, play
from loadtests.generator.client import Client, RefusedError
from loadtests.generator.clock import Clock
from loadtests.generator.crew import Crew
from loadtests.generator.dispatcher import DRAIN_MOST_S, Dispatcher
from loadtests.generator.follow import Follow
from loadtests.generator.gateway import Gateway
from loadtests.generator.generated import Progress
from loadtests.generator.locust_stats import LocustStats
from loadtests.generator.manners import THINK_MOST_US, Manners
from loadtests.generator.part import CannotPlay, Part, PartOfArrivals, plan_of
from loadtests.generator.plan import Crowd, Plan, without
from loadtests.generator.recorder import Recorder
from loadtests.generator.retry_budget import RetryBudget
from loadtests.generator.scenario import HOT_SKU, Scenario
from loadtests.generator.sleepers import Sleepers
from loadtests.generator.swift import Swift
from loadtests.generator.telling import tell
from loadtests.generator.web_face import Live, extend, quit_all
from loadtests.targets import Target, load
from loadtests.targets.core import Core

ASK_CONNECTIONS_MOST: Final = 6_000  # more than the shop itself keeps waiting: it, not we, must say no
WAIT_CONNECTIONS_MOST: Final = 3_500  # both together stay below the 10,000 files Locust asks the system for
WARM_LEAST, WARM_MOST = 64, 1_000  # connections opened before the run
WARM_S: Final = 0.2  # as many as were busy if answers took so long: buyers have looked at the page before they order
COLD_MOST: Final = 10_000
THINK_MOST_S: Final = 600.0
EXIT_NOT_RUN, EXIT_NO_SHOP, EXIT_USAGE = 1, 3, 64


class Options(msgspec.Struct, frozen=True):
    """The run's options, checked."""

    scenario: str
    host: str
    port: int
    arrivals: Arrivals
    crowd: Crowd
    out_dir: Path
    drain_s: float
    names: Names
    target: Target
    manners: Manners
    secrets: bytes  # the shop's, all together; the workers of a run must have the same


def user_of(scenario: Scenario) -> type[User]:
    """Return the Locust user that plays a scenario, its options added to Locust's own."""
    events.init_command_line_parser.add_listener(partial(add_options, scenario))
    events.init.add_listener(partial(check_options, scenario))
    events.init.add_listener(extend)
    name = "".join(word.capitalize() for word in scenario.name.split("_"))
    return type(name, (Visitors,), {"scenario": scenario, "fixed_count": 1, "__doc__": scenario.story})


def add_options(scenario: Scenario, parser: Any) -> None:
    """Add the scenario's options to Locust's own."""
    stage = scenario.stage
    group = parser.add_argument_group(f"Flashproof: {scenario.name}")
    group.add_argument("--fp-arrivals", default=scenario.arrivals, help="how they come")
    group.add_argument("--fp-rate", type=float, default=scenario.rate, help="arrivals a second")
    group.add_argument("--fp-seconds", type=float, default=scenario.seconds, help="how long arrivals come")
    group.add_argument("--fp-seed", type=int, default=1, help="same seed, same crowd")
    group.add_argument("--fp-out", default="out/load", help="directory for history.jsonl and the other files")
    group.add_argument("--fp-cold", type=int, default=stage.cold, help="how many cold SKUs there are")
    group.add_argument("--fp-think", type=float, default=THINK_MOST_US / 1e6, help="seconds to paying, at most")
    group.add_argument("--fp-hot-sku", default=HOT_SKU, help="the SKU most buyers want")
    group.add_argument("--fp-stock", type=int, help="units of that SKU, for crowds that plan by it")
    group.add_argument("--fp-skus", default="", help="the other SKUs by name: a,b,c (instead of --fp-cold)")
    group.add_argument("--fp-tag", default="", help="in the names of buyers and keys, for a shop that knows the seed's")
    group.add_argument("--fp-adapter", default="core", help="core, plain, or a .py file of yours")
    group.add_argument("--fp-drain", type=float, default=DRAIN_MOST_S, help="seconds buyers may go on afterwards")
    group.add_argument("--fp-tell", action="store_true", help="say on standard output which step it is in")


def check_options(scenario: Scenario, environment: Any, **_: Any) -> None:
    """Refuse bad options before anything is sent, in one line."""
    if environment.parsed_options is None:
        return
    if fleet.is_worker(environment):  # it gets its options from the master, when the test starts
        Follow(environment, partial(play_part, scenario, environment))
        return
    parsed, master = environment.parsed_options, fleet.is_master(environment)
    try:
        environment.flashproof = read_options(scenario, parsed)
        if master:
            luggage.pack(parsed)
    except (ValueError, BadInput) as error:
        sys.stderr.write(f"{scenario.name}: {error}\n")
        if master and parsed.processes:
            fleet.send_home(environment, EXIT_USAGE)
            return
        raise SystemExit(EXIT_USAGE) from error
    if master:
        options = environment.flashproof
        fleet.Lead(environment, scenario.name, options.out_dir, options.secrets, tell)


def play_part(
    scenario: Scenario,
    environment: Any,
    out_dir: Path,
    part: Callable[[bytes], Part],
    show: Callable[[Progress], None],
) -> int:
    """Play a worker's part and return the exit code.

    Raises:
        ValueError, BadInput, CannotPlay: the master's options do not fit here, or the shop cannot be reached.
    """
    parsed = environment.parsed_options
    parsed.host = environment.host
    with luggage.unpacked(parsed):
        options = msgspec.structs.replace(read_options(scenario, parsed), out_dir=out_dir)
    try:
        return run(environment, options, lambda: part(options.secrets), show)
    except CannotPlay as error:
        if error.code == EXIT_NO_SHOP and _is_loopback(options.host) and not _is_loopback(parsed.master_host):
            hint = "that is this worker's own loopback; set the master's FLASHPROOF_HOST to an address others reach"
            raise CannotPlay(f"{error}; {hint}", error.code) from error
        raise


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def read_options(scenario: Scenario, parsed: Any) -> Options:
    """Return the run's options.

    Raises:
        ValueError: one is missing or wrong; the message says which and what to write.
    """
    url = urlsplit(parsed.host or "")
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/"):
        raise ValueError(f"--host must look like http://127.0.0.1:8080, not {parsed.host!r}")
    if not 0 <= parsed.fp_think <= THINK_MOST_S:
        raise ValueError(f"--fp-think must be 0 to {THINK_MOST_S:g} seconds, not {parsed.fp_think}")
    if not 0 <= parsed.fp_cold <= COLD_MOST:
        raise ValueError(f"--fp-cold must be 0 to {COLD_MOST}, not {parsed.fp_cold}")
    if not 0 <= parsed.fp_drain <= 600:
        raise ValueError(f"--fp-drain must be 0 to 600 seconds, not {parsed.fp_drain}")
    arrivals = parse_arrivals(parsed.fp_arrivals, parsed.fp_rate, parsed.fp_seconds, parsed.fp_seed)
    stage = scenario.stage
    sandbox_secret = _secret("sandbox_secret", 16) if parsed.fp_adapter == "core" else b""
    return Options(
        scenario=scenario.name,
        host=url.hostname,
        port=url.port or 80,
        arrivals=arrivals,
        crowd=scenario.crowd(
            parsed.fp_seed,
            parsed.fp_hot_sku,
            tuple(parsed.fp_skus.split(",")) if parsed.fp_skus else parsed.fp_cold,
            round(parsed.fp_think * 1e6),
            scenario.manners,
            limit=stage.buyer_limit,
            stock=parsed.fp_stock or stage.stock(arrivals.total),
            tag=parsed.fp_tag,
        ),
        out_dir=Path(parsed.fp_out),
        drain_s=parsed.fp_drain,
        names=Names(_secret("secret", 32)),
        target=load(parsed.fp_adapter, f"{url.hostname}:{url.port or 80}", sandbox_secret),
        manners=scenario.manners,
        secrets=b"\0".join((_secret("secret", 32), sandbox_secret)),
    )


def _secret(field: str, bytes_least: int) -> bytes:
    name = variable(field)
    try:
        secret = base64.b64decode(os.environ.get(name, ""), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) < bytes_least:
        raise ValueError(f"{name} must be the shop's own: base64 of {bytes_least} bytes or more")
    return secret


class Visitors(User):  # type: ignore[misc]  # Locust is untyped here
    """The one user; the crowd lives in its dispatcher."""

    abstract = True

    @task  # type: ignore[untyped-decorator]
    def play_the_plan(self) -> None:
        """Run the plan once, write its files, and have Locust quit."""
        environment = self.environment
        while fleet.is_worker(environment):  # its part is played whether it has a user or not
            gevent.sleep(3_600)
        environment.process_exit_code = EXIT_NOT_RUN
        try:
            environment.process_exit_code = run(environment, environment.flashproof)
        except CannotPlay as error:
            sys.stderr.write(f"{environment.flashproof.scenario}: {error}\n")
            environment.process_exit_code = error.code
        finally:
            gevent.spawn(quit_all, environment)  # not from here: it kills this very greenlet
        raise StopUser


def run(
    environment: Any, options: Options, part: Callable[[], Part] = Part, show: Callable[[Progress], None] = tell
) -> int:
    """Run the sale against the shop and return the process's exit code.

    Args:
        environment: Locust's.
        options: the run's.
        part: asked once all stands ready; says which part of the plan is played, and may wait for the others.
        show: gets the progress.

    Raises:
        CannotPlay: nothing was sent.
    """
    clock, urgent = Clock(), Urgent()
    try:
        ask = Client(options.host, options.port, clock.now_us, ASK_CONNECTIONS_MOST, urgent=urgent)
        wait = Client(options.host, options.port, clock.now_us, WAIT_CONNECTIONS_MOST, urgent=urgent)
        ask.warm(_warm(options) if part is Part else WARM_LEAST)
    except (OSError, RefusedError) as error:
        raise CannotPlay(f"no shop at {options.host}:{options.port}: {error}", EXIT_NO_SHOP) from error
    try:
        recorder = Recorder(options.out_dir, LocustStats(environment))
    except OSError as error:
        raise CannotPlay(f"--fp-out {options.out_dir}: {error.strerror}", EXIT_USAGE) from error
    mine = part()
    if mine.start_us:
        clock.agree(mine.start_us, mine.start_unix_us)
    arrivals = options.arrivals if mine.of == 1 else PartOfArrivals(options.arrivals, mine)
    crew, sleepers = Crew(), Sleepers(clock.now_us)
    crew.warm(_warm(options))
    world = World(
        target=options.target,
        ask=ask.request,
        wait=wait.request,
        gateway=Gateway(options.target, ask.request, recorder, clock, sleepers.sleep_us),
        recorder=recorder,
        names=options.names,
        clock=clock,
        sleep_us=sleepers.sleep_us,
        spawn=crew.start,
        ask_beside=crew.ask,
        manners=options.manners,
        budget=RetryBudget(),
    )
    dispatcher = Dispatcher(
        arrivals,
        crew,
        plan_of(mine, partial(_plan, options) if options.target.lacks else options.crowd.plan, arrivals.total),
        lambda plan, due_us: play(world, plan, due_us),
        recorder,
        clock,
        drain_most_s=options.drain_s,
        show=show,
        sleepers=sleepers,
        swift=Swift(world, ask, crew),
        urgent=urgent,
        waited=lambda: ask.waited + wait.waited,
        iso=iso8601,
    )
    environment.flashproof_live = Live(recorder, dispatcher)
    generated = dispatcher.run()
    for client in (ask, wait):
        client.close()
    recorder.close()
    encoded = msgspec.json.format(msgspec.json.encode(generated), indent=1) + b"\n"
    (options.out_dir / "generator.json").write_bytes(encoded)
    _tell_faults(options.scenario, crew)
    return 0 if generated.complete else EXIT_NOT_RUN


def _tell_faults(scenario: str, crew: Crew) -> None:
    if crew.faults:
        first = crew.first_fault.rstrip().rpartition("\n")[2]  # the traceback's last line
        sys.stderr.write(f"{crew.first_fault}{scenario}: {crew.faults} faults, the first: {first[:400]}\n")


def _warm(options: Options) -> int:
    """Return how many connections to open: to a shop that is no core of ours few, for it may serve one at a time."""
    if not isinstance(options.target, Core):
        return WARM_LEAST
    arrivals = options.arrivals
    per_us = arrivals.total / max(1_000_000, arrivals.due_us(arrivals.total - 1))
    return min(WARM_MOST, max(WARM_LEAST, round(per_us * WARM_S * 1e6)))


def _plan(options: Options, number: int) -> Plan:
    return without(options.crowd.plan(number), options.target.lacks)
