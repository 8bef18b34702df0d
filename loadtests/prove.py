"""``flashproof prove``: a whole flash sale on stores of its own, everything checked, the verdict printed.

The order: stores, server and projector up → catalog and keys in → one Locust scenario with arrivals on an absolute plan
→ wait until all is quiet → ask every open question again → read both stores → judge from the files alone → report.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from core.errors import BadInput, Fault, FlashproofError
from core.settings import to_environment
from loadtests import hosts, judge
from loadtests.against import knock, run_against
from loadtests.generator.ceiling import CeilingUnknown
from loadtests.generator.load import run_locust
from loadtests.generator.scenario import HOT_SKU
from loadtests.generator.whole_ceiling import Whole, whole_ceiling
from loadtests.machine import point_latest
from loadtests.options import Options, read_options
from loadtests.progress import Progress
from loadtests.record import collect, describe, timeline
from loadtests.record.folder import occupied
from loadtests.record.resolve import resolve
from loadtests.record.run_files import read_run, write_json
from loadtests.record.summary import Incident
from loadtests.report import html, terminal
from loadtests.shop.deployment import CORE, Deployment
from loadtests.shop.kills import Timetable
from loadtests.shop.parts import worker_of
from loadtests.shop.quiet import versions as stores_versions
from loadtests.shop.quiet import wait_quiet
from loadtests.shop.restocking import Restocking
from loadtests.shop.sampler import Sampler, sources_of
from loadtests.shop.stage import set_stage
from loadtests.targets import Target
from profiles.capture import Capture

EXIT_VOID: Final = 3
QUIET_MOST_S: Final = 30.0
_STILL_S: Final = 3.0  # a shop in which nothing moves for so long after the last reservation's end is stuck


def main(argv: Sequence[str]) -> int:
    """Run a whole flash sale with real stores, check everything, print the verdict.

    Exit codes: 0 pass, 1 slow (a budget missed), 2 wrong (an invariant broken), 3 void (proves nothing), 64 bad
    usage, 130 interrupted.
    """
    if "--worker" in argv:
        return hosts.play(argv)
    options = read_options(argv, main.__doc__ or "")
    elsewhere, target = options.elsewhere, None
    if elsewhere is not None:
        try:
            target = knock(elsewhere)
        except BadInput:
            raise
        except Fault as error:
            sys.stderr.write(f"VOID: {error}\n")
            return EXIT_VOID
    with occupied(options.report):
        return _prove(options, target)


def _prove(options: Options, target: Target | None) -> int:
    """Run the sale, judge it, and return the verdict's exit code."""
    elsewhere, progress = options.elsewhere, Progress(options.seconds)
    try:
        ceiling = _ceiling(options, progress)
        if elsewhere is not None and target is not None:
            run_against(options, elsewhere, target, progress)
        else:
            run_sale(options, progress)
        _write_ceiling(options.report / "generator.json", ceiling)
        progress.step("judging")
        files = read_run(options.report)
        summary = judge.judge(files)
        write_json(options.report / "summary.json", summary)
        html.write(options.report, summary, files)
    except BadInput:
        raise
    except KeyboardInterrupt:
        progress.end()
        sys.stderr.write(f"interrupted: nothing was judged, and {options.report} holds no verdict\n")
        raise
    except Exception as error:  # noqa: BLE001  # whatever stood in the way, the run proves nothing: that is its own code
        progress.end()
        said = str(error) if isinstance(error, FlashproofError | OSError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(f"VOID: {said}\nlogs: {options.report / 'logs'}\n")
        return EXIT_VOID
    progress.end()
    point_latest(options.report)
    terminal.show(summary, str(options.report))
    return judge.exit_code(summary)


def run_sale(options: Options, progress: Progress) -> None:
    """Run the sale and leave all evidence as files in the run's directory.

    Raises:
        Fault: a part could not be started, or the generator failed.
    """
    progress.step("starting stores and server")
    launcher = (sys.executable, "-m", "loadtests.faults.plant", options.fault) if options.fault else CORE
    environment = {"FLASHPROOF_LANE": options.lane} | (hosts.shop_environment() if options.hosts else {})
    with Deployment(options.report, workers=options.workers, launcher=launcher, environment=environment) as shop:
        shop.wait_ready()
        stage = options.scenario.stage
        set_stage(
            shop.settings,
            options.stock,
            options.cold,
            progress.step,
            stage.hold_ms(options.seconds),
            cold_stock=stage.cold_stock,
            limit=stage.buyer_limit,
        )
        captures = _captures(options, shop)
        cpu_before, began = shop.cpu_seconds(), time.time()

        def step(words: str) -> None:
            progress.step(words)
            cpu_before.update(shop.cpu_seconds())  # what passes while workers are waited for is no order's

        with Sampler(sources_of(shop)) as sampler:
            undone = _generate(options, shop, progress, sampler, step)
            cpu = {role: seconds - cpu_before.get(role, 0.0) for role, seconds in shop.cpu_seconds().items()}
            quiet_after_s, left_open = _calm(options, shop, progress)
        for capture in captures:
            if why := capture.finish():
                progress.note(f"no flame graph {capture.svg.name}: {why}")
        for part in ("serve", "work"):
            (options.report / f"metrics-{part}.txt").write_text(shop.metrics(part), encoding="utf-8")
        progress.step("reading both stores")
        states = asyncio.run(collect.collect(shop.settings.postgres_dsn, shop.settings.valkey_url))
        versions = stores_versions(shop.settings)
    generator = describe.read_generator(options.report)
    write_json(options.report / "postgres.json", states[0])
    write_json(options.report / "valkey.json", states[1])
    started = describe.began(generator, began)
    sampler.write(options.report / timeline.NAME, round(started * 1e6))
    incidents = [_incident(one, started) for one in shop.incidents]
    incidents += undone
    incidents += _dead_workers(options.report / "logs" / "serve.log", started)
    if left_open:
        incidents.append(Incident(at_us=0, what=f"{left_open} questions stayed open", planned=False))
    run = describe.describe(
        options, generator, cpu=cpu, incidents=incidents, versions=versions, quiet_after_s=quiet_after_s
    )
    write_json(options.report / "run.json", run)


def _calm(options: Options, shop: Deployment, progress: Progress) -> tuple[float | None, int]:
    """Wait until all is quiet and ask every open question again.

    Returns:
        the seconds that took (None: it never was quiet), and how many questions stayed open.
    """
    began = time.monotonic()
    progress.step("waiting until all is quiet")
    shop.wait_ready()
    stuck_s = options.scenario.stage.hold_ms(options.seconds) / 1000 + _STILL_S
    if not wait_quiet(shop.settings, QUIET_MOST_S, progress.step, stuck_s):
        return None, 0
    progress.step("asking the open questions again")
    settings = shop.settings
    asked = resolve(options.report, shop.url, names_secret=settings.secret, sandbox_secret=settings.sandbox_secret)
    quiet = wait_quiet(shop.settings, QUIET_MOST_S, progress.step, stuck_s)
    return (time.monotonic() - began if quiet else None), asked.left_open


def _captures(options: Options, shop: Deployment) -> list[Capture]:
    """Begin the flame graphs asked for: the first worker of serve, and the projector."""
    if not options.profile:
        return []
    found = {"serve": worker_of(shop.pid("serve")), "work": shop.pid("work")}
    return [
        Capture(pid, options.seconds, options.report / f"profile-{name}.svg")
        for name, pid in found.items()
        if pid is not None
    ]


def _ceiling(options: Options, progress: Progress) -> Whole | None:
    """Return how much of this scenario the generator makes of a null server here and now; None: not measured."""
    if not options.ceiling_s or options.hosts:  # it is other machines that generate
        return None
    progress.step("measuring the generator's own ceiling")
    try:
        return whole_ceiling(options.scenario, options.rate, options.ceiling_s)
    except CeilingUnknown as error:
        progress.note(f"the generator's ceiling is not known: {error}")
        return None


def _write_ceiling(path: Path, ceiling: Whole | None) -> None:
    if ceiling is None:
        return
    told = msgspec.json.decode(path.read_bytes())
    found = {"ceiling_per_s": ceiling.arrivals_per_s, "ceiling_requests_per_s": ceiling.requests_per_s}
    write_json(path, {**told, **found, "ceiling_found": ceiling.gave_out})


def _generate(
    options: Options, shop: Deployment, progress: Progress, sampler: Sampler, step: Callable[[str], None]
) -> list[Incident]:
    """Run the scenario to its end; return the kills and imports that were planned and not done."""
    timetable = Timetable(options.kills, shop.kill)
    restocks, seconds = options.scenario.restocks, options.seconds
    restocking = Restocking(shop.settings, HOT_SKU, options.stock, restocks, seconds)
    began: float | None = None

    def tick(said: dict[str, Any] | None) -> None:
        nonlocal began
        if said is not None:
            progress.sale(said)
            if began is None:
                began = time.monotonic() - float(said["elapsed_s"])
        if began is not None:
            restocking.begin(began)
            timetable.due(time.monotonic() - began)

    log = options.report / "logs" / "locust.log"
    watch = partial(sampler.watch, "generator")
    if options.web is not None:
        progress.note(f"watch it: http://127.0.0.1:{options.web}")
    secrets, name, of_load = to_environment(shop.settings), options.scenario.name, options.of_load(shop.url)
    run_locust(
        name,
        of_load,
        secrets,
        log,
        options.load_most_s,
        tick,
        watch,
        options.processes,
        options.web,
        options.hosts,
        step,
    )
    undone = [
        Incident(at_us=round(kill.at_s * 1e6), what=f"kill of {kill.what} not done", planned=False)
        for kill in timetable.left
    ]
    return undone + [
        Incident(at_us=round(at_s * 1e6), what=f"keys not imported: {why}", planned=False)
        for at_s, why in restocking.finish()
    ]


def _incident(one: Any, started: float) -> Incident:
    said = "kill -9 of" if one.planned else "unplanned end of"
    return Incident(at_us=round((one.at - started) * 1e6), what=f"{said} {one.what}", planned=one.planned)


def _dead_workers(log: Path, started: float) -> list[Incident]:
    """Return the workers whose death the server's parent noted; a kill of the whole server leaves no such line."""
    found = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if '"worker_died"' in line:
            at = float(msgspec.json.decode(line)["at"])
            found.append(Incident(at_us=round((at - started) * 1e6), what="a worker of serve died", planned=False))
    return found
