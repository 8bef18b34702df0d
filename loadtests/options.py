"""The options of ``flashproof prove``: read and checked before anything is started or written."""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import shlex
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from core.arguments import Arguments
from core.errors import BadInput
from core.settings import variable
from loadtests.faults import FAULTS
from loadtests.generator.arrivals import parse_arrivals
from loadtests.generator.load import Hosts
from loadtests.generator.scenario import HOT_SKU, Scenario
from loadtests.hosts import add_master, master_of
from loadtests.record.folder import directory
from loadtests.record.summary import Budgets
from loadtests.scenarios import NAMES, find
from loadtests.shop.kills import Kill, parse_kills
from loadtests.targets import NAMES as TARGETS
from loadtests.targets import load

DRAIN_S: Final = 20.0
WEB_PORT: Final = 8089  # Locust's own default


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """A shop that runs already: how it is reached and what of it may be looked into."""

    url: str  # http://host:port
    adapter: str
    skus: tuple[str, ...]  # the hot one first
    tag: str  # in the names of this run's buyers and keys
    names_secret: bytes  # hashes the keys shown; the shop's own if its stores are read
    sandbox_secret: bytes
    postgres_dsn: str
    valkey_url: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    scenario: Scenario
    arrivals: str
    rate: float
    seconds: float
    stock: int
    seed: int
    cold: int
    workers: int
    processes: int
    drain: float
    budgets: Budgets
    kills: tuple[Kill, ...]
    lane: str
    fault: str
    profile: bool
    web: int | None
    ceiling_s: float
    report: Path
    command: str
    elsewhere: Elsewhere | None = None
    hosts: Hosts | None = None

    def of_load(self, url: str) -> dict[str, str]:
        """Return the options of the scenario's Locust process, for a shop at ``url``."""
        stage, elsewhere = self.scenario.stage, self.elsewhere
        found = {
            "--host": url,
            "--fp-arrivals": self.arrivals,
            "--fp-rate": str(self.rate),
            "--fp-seconds": str(self.seconds),
            "--fp-seed": str(self.seed),
            "--fp-cold": str(self.cold),
            "--fp-hot-sku": self.hot_sku,
            "--fp-think": str(stage.hold_ms(self.seconds) * stage.think_share / 1000),
            "--fp-stock": str(self.stock),
            "--fp-out": str(self.report),
            "--fp-drain": str(self.drain),
        }
        if elsewhere is not None:
            found |= {"--fp-adapter": elsewhere.adapter, "--fp-tag": elsewhere.tag}
            found["--fp-skus"] = ",".join(elsewhere.skus[1:])
        return found

    @property
    def hot_sku(self) -> str:
        """The SKU most buyers want."""
        return HOT_SKU if self.elsewhere is None else self.elsewhere.skus[0]

    @property
    def load_most_s(self) -> float:
        """How long the scenario's process may take."""
        return self.seconds + self.drain + 30.0


def read_options(argv: Sequence[str], says: str) -> Options:
    """Return the checked options; ``says`` is what ``--help`` tells.

    Raises:
        BadInput: one is out of bounds.
    """
    scenario, options = _parse(argv, says)
    bounds = (
        ("--rate", options.rate, 1, 50_000),
        ("--seconds", options.seconds, 1, 3_600),
        ("--seed", options.seed, 0, 2**31),
        ("--cold", 0 if options.cold is None else options.cold, 0, 1_000),
        ("--workers", options.workers, 1, 64),
        ("--processes", options.processes, 1, 64),
        ("--drain", options.drain, 0, 600),
        ("--ceiling", options.ceiling, 0, 60),
        ("--p99-ms", 1 if options.p99_ms is None else options.p99_ms, 0.001, 60_000),
    )
    for name, value, least, most in bounds:
        _within(name, value, least, most)
    if options.web is not None:
        _within("--web", options.web, 1, 65_535)
        _free_port(options.web)
    try:
        arrivals = parse_arrivals(options.arrivals, options.rate, options.seconds, options.seed)
    except ValueError as error:
        raise BadInput(f"--arrivals: {error}") from error
    stock = scenario.stage.stock(arrivals.total) if options.stock is None else options.stock
    _within("--stock", stock, 1, 1_000_000)
    if options.fault and options.fault not in FAULTS:
        raise BadInput(f"--fault: there are {', '.join(FAULTS)}")
    kills = parse_kills(options.kill or "")
    if options.kill is None:
        kills = tuple(Kill(what, round(at * options.seconds, 3)) for what, at in scenario.kills)
    if kills and kills[-1].at_s >= options.seconds:
        raise BadInput(
            f"--kill: {kills[-1].what}@{kills[-1].at_s:g} would come after the sale of {options.seconds:g} s"
        )
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{options.seed}-{os.getpid()}"
    hosts = master_of(options)
    elsewhere = _elsewhere(options, scenario, run_id)
    cold = scenario.stage.cold if options.cold is None else options.cold
    if elsewhere is not None:
        cold = len(elsewhere.skus) - 1
    return Options(
        scenario=scenario,
        arrivals=options.arrivals,
        rate=options.rate,
        seconds=options.seconds,
        stock=stock,
        seed=options.seed,
        cold=cold,
        workers=options.workers,
        processes=options.processes,
        drain=options.drain,
        budgets=_budgets(scenario.budgets, options.p99_ms, bool(options.kill)),
        kills=kills,
        lane=options.lane,
        fault=options.fault,
        profile=options.profile,
        web=options.web,
        ceiling_s=options.ceiling,
        report=directory(options.report) if options.report is not None else Path("out/prove") / run_id,
        command=shlex.join(["flashproof", "prove", *_without_secrets(argv)]),
        elsewhere=elsewhere,
        hosts=hosts,
    )


def _without_secrets(argv: Sequence[str]) -> list[str]:
    """Return the words typed, a store's address (there may be a password in it) as a place to fill in."""
    shown, hide = [], False
    for word in argv:
        name, has_value, _ = word.partition("=")
        secret = name in ("--postgres-dsn", "--valkey-url")
        shown.append("…" if hide else f"{name}=…" if secret and has_value else word)
        hide = secret and not has_value
    return shown


def _elsewhere(options: argparse.Namespace, scenario: Scenario, run_id: str) -> Elsewhere | None:
    """Return the shop of ``--target``, or None.

    Raises:
        BadInput: an option does not go with it, or without it.
    """
    ours = ("kill", "profile", "fault", "workers", "lane", "cold")
    theirs = ("adapter", "skus", "postgres_dsn", "valkey_url")
    if not options.target:
        for name in theirs:
            if getattr(options, name):
                raise BadInput(
                    f"--{name.replace('_', '-')} says something of a shop that runs already: give --target too"
                )
        return None
    given = [name for name in ours if getattr(options, name) not in (None, False, "", *_DEFAULTS.get(name, ()))]
    if given:
        raise BadInput(f"--{given[0]} is for a shop of our own; with --target leave it out")
    if scenario.restocks or scenario.kills:
        what = "imports keys" if scenario.restocks else "kills a store"
        raise BadInput(
            f"{scenario.name} {what} while it runs, which --target leaves to nobody: choose another scenario"
        )
    url = urlsplit(options.target)
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query:
        raise BadInput(f"--target must look like http://127.0.0.1:8080, not {options.target!r}")
    if options.valkey_url and not options.postgres_dsn:
        raise BadInput("--valkey-url alone checks nothing: give --postgres-dsn too")
    adapter = options.adapter or "core"
    core = adapter == "core"
    if options.postgres_dsn and not core:
        raise BadInput("--postgres-dsn reads the core's own tables: it goes with --adapter core")
    sandbox = _secret("sandbox_secret", 16) if core else b""
    if core and not sandbox:
        raise BadInput(
            f"{variable('sandbox_secret')} must be the target's own (base64): the load pays through its sandbox"
        )
    shared = options.postgres_dsn or options.master
    names = _secret("secret", 32) if shared else secrets.token_bytes(32)
    if not names:
        raise BadInput(
            f"{variable('secret')} must be the target's own (base64): card keys are compared by its keyed hash"
        )
    load(adapter, f"{url.hostname}:{url.port or 80}", sandbox)  # a file that cannot be used is told now
    return Elsewhere(
        url=f"http://{url.hostname}:{url.port or 80}",
        adapter=adapter if adapter in TARGETS else str(Path(adapter).resolve()),
        skus=tuple(filter(None, (options.skus or HOT_SKU).split(","))) or (HOT_SKU,),
        tag=run_id.replace("T", "").replace("-", ""),
        names_secret=names,
        sandbox_secret=sandbox,
        postgres_dsn=options.postgres_dsn or "",
        valkey_url=options.valkey_url or "",
    )


_DEFAULTS: Final[dict[str, tuple[object, ...]]] = {"workers": (1,), "lane": ("on",)}


def _secret(field: str, bytes_least: int) -> bytes:
    """Return a secret of the environment, or nothing if it is missing, broken or too short."""
    try:
        found = base64.b64decode(os.environ.get(variable(field), ""), validate=True)
    except ValueError:
        return b""
    return found if len(found) >= bytes_least else b""


def _parse(argv: Sequence[str], says: str) -> tuple[Scenario, argparse.Namespace]:
    """Return the scenario asked for, and all options with its defaults."""
    first = Arguments(prog="flashproof prove", add_help=False, allow_abbrev=False)
    first.add_argument("--scenario", default="flash_sale")
    scenario = find(first.parse_known_args(argv)[0].scenario)
    about, _, codes = says.partition("\n\n")
    parser = Arguments(prog="flashproof prove", description=about, epilog=" ".join(codes.split()), allow_abbrev=False)
    add = parser.add_argument
    add("--scenario", metavar="NAME", default="flash_sale", help=f"one of {', '.join(NAMES)} (default flash_sale)")
    add("--arrivals", metavar="SPEC", default=scenario.arrivals, help=f"how they come (default {scenario.arrivals})")
    add("--rate", type=float, default=scenario.rate, help=f"attempts a second (default {scenario.rate:g})")
    seconds = f"how long buyers arrive (default {scenario.seconds:g})"
    add("--seconds", type=float, default=scenario.seconds, help=seconds)
    share = f"{scenario.stage.stock_share:g} of all attempts"
    add("--stock", type=int, help=f"keys of the hot SKU (default: {share})")
    add("--seed", type=int, default=1, help="the same seed gives the same crowd (default 1)")
    cold = scenario.stage.cold
    add("--cold", type=int, help=f"how many other SKUs are on sale (default {cold})")
    add("--workers", type=int, default=1, help="worker processes of the server (default 1)")
    add("--processes", type=int, default=1, help="processes of the load generator, sharing the plan (default 1)")
    add("--lane", choices=("on", "off"), default="on", help="off: all through aiohttp, to compare (default on)")
    add("--drain", type=float, default=DRAIN_S, help="seconds the last buyers may go on afterwards (default 20)")
    add(
        "--ceiling",
        type=float,
        default=3.0,
        help="seconds to measure the generator's own ceiling in, 1 or more; 0: not (default 3)",
    )
    add("--p99-ms", type=float, help="budget: accepted orders' p99 (default: the scenario's)")
    kills = "kill -9 while it runs, e.g. serve@4,work@7,valkey@10,postgres@13"
    add("--kill", metavar="PART@S,…", help=kills)
    add("--target", metavar="URL", help="a shop that runs already, http://host:port: nothing of ours is started")
    add(
        "--adapter",
        metavar="NAME",
        help="how the target is spoken to: core, plain or a .py file of yours (default core)",
    )
    add("--skus", metavar="A,B,…", help="what the target sells, the hot one first; made for this run (default hot)")
    add(
        "--postgres-dsn",
        metavar="DSN",
        help="the target's PostgreSQL, read only; without it what it knows is not checked",
    )
    add("--valkey-url", metavar="URL", help="the target's Valkey, only read; the same")
    add("--report", metavar="DIR", help="where the run is written (default out/prove/<run id>)")
    add("--profile", action="store_true", help="also draw flame graphs of a server worker and the projector (py-spy)")
    web = f"watch it in Locust's web UI on this port of 127.0.0.1 ({WEB_PORT}); each look costs the generator time"
    add("--web", nargs="?", type=int, const=WEB_PORT, metavar="PORT", help=web)
    add("--fault", default="", help=argparse.SUPPRESS)
    add_master(parser)
    return scenario, parser.parse_args(argv)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also refuses nan
        raise BadInput(f"{name} must be from {least:,} to {most:,}, not {value}")


def _free_port(port: int) -> None:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise BadInput(f"--web: port {port} of 127.0.0.1 cannot be used ({why}); give another") from error


def _budgets(budgets: Budgets, p99_ms: float | None, killing: bool) -> Budgets:
    """Return the budgets that apply: the option's, the scenario's, or, where --kill kills what its story does not, none
    of speed."""
    if killing:
        return Budgets(requests_per_arrival=budgets.requests_per_arrival, rss_growth_bytes=budgets.rss_growth_bytes)
    if p99_ms is None:
        return budgets
    return msgspec.structs.replace(budgets, accepted_p99_us=round(p99_ms * 1000))
