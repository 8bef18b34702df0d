"""A scenario against a shop that runs already: nothing is started, and its stores are read only where they may be.

``core`` is spoken to as its own HTTP says; any other shop by an adapter (``loadtests.targets``). What only a store
could show and nobody could look into is *not checked*, and is never counted as passed.
"""

from __future__ import annotations

import base64
import time
from functools import partial
from typing import Any, Final

from core.errors import BadInput, Fault
from core.settings import variable
from loadtests.generator import contract
from loadtests.generator.load import run_locust
from loadtests.options import Elsewhere, Options
from loadtests.progress import Progress
from loadtests.record import look, timeline
from loadtests.record.describe import began, describe, read_generator
from loadtests.record.resolve import ResumedClock, ShopConnection, resolve
from loadtests.record.run_files import write_json
from loadtests.record.summary import Incident
from loadtests.shop.sampler import Sampler, Sources
from loadtests.targets import Target, load

KNOCK_MOST_S: Final = 5.0
QUIET_MOST_S: Final = 30.0


class NoShop(Fault):
    """The target cannot be asked for anything, so there is nothing to measure."""

    code = "no_shop"


def knock(elsewhere: Elsewhere) -> Target:
    """Ask the target for what is to be sold, before anything is written, and return its adapter.

    Raises:
        NoShop: it does not answer, or does not sell it.
        BadInput: its stores know the SKUs already.
        StoreUnavailable: its stores cannot be read.
    """
    shop = ShopConnection(elsewhere.url, ResumedClock(0), KNOCK_MOST_S)
    target = load(elsewhere.adapter, shop.authority, elsewhere.sandbox_secret)
    for sku in elsewhere.skus:
        reply = shop.ask(target.browse(sku))
        if reply.error:
            why = {contract.REFUSED: "nobody listens there"}.get(reply.error, reply.error)
            raise NoShop(f"--target {elsewhere.url}: {why}; start the shop, or correct the address")
        try:
            answer = target.read("browse", reply)
        except Exception as error:
            raise NoShop(
                f"--adapter {elsewhere.adapter} cannot read {elsewhere.url}'s answer: {type(error).__name__}: {error}"
            ) from error
        if answer.result != "ok" and "browse" not in target.lacks:
            said = f"{reply.status} {answer.outcome}"
            raise NoShop(f"--target {elsewhere.url} does not sell {sku} ({said}); name what it sells with --skus")
    shop.close()
    if elsewhere.postgres_dsn and (used := look.used_before(elsewhere.postgres_dsn, elsewhere.skus)):
        raise BadInput(f"{used} already, which no check could tell from this run's: give --skus made for this run")
    return target


def run_against(options: Options, elsewhere: Elsewhere, target: Target, progress: Progress) -> None:
    """Run the scenario against the target and leave all evidence as files in the run's directory.

    Raises:
        Fault: the generator failed, or a store cannot be read.
    """
    (options.report / "logs").mkdir(exist_ok=True)
    secrets = {"secret": elsewhere.names_secret, "sandbox_secret": elsewhere.sandbox_secret}
    environment = {variable(name): base64.b64encode(value).decode() for name, value in secrets.items()}

    def tick(said: dict[str, Any] | None) -> None:
        if said is not None:
            progress.sale(said)

    if options.web is not None:
        progress.note(f"watch it: http://127.0.0.1:{options.web}")
    started = time.time()
    with Sampler(Sources(pids=dict)) as sampler:
        run_locust(
            options.scenario.name,
            options.of_load(elsewhere.url),
            environment,
            options.report / "logs" / "locust.log",
            options.load_most_s,
            tick,
            partial(sampler.watch, "generator"),
            options.processes,
            options.web,
            options.hosts,
            progress.step,
        )
    generator = read_generator(options.report)
    sampler.write(options.report / timeline.NAME, round(began(generator, started) * 1e6))
    progress.step("asking the open questions again")
    ended = time.monotonic()
    asked = resolve(
        options.report,
        elsewhere.url,
        names_secret=elsewhere.names_secret,
        sandbox_secret=elsewhere.sandbox_secret,
        adapter=elsewhere.adapter,
    )
    quiet = True
    if elsewhere.postgres_dsn:
        progress.step("waiting until all is quiet")
        where = elsewhere.postgres_dsn, elsewhere.valkey_url
        postgres, valkey, quiet = look.look(*where, elsewhere.skus, QUIET_MOST_S)
        write_json(options.report / "postgres.json", postgres)
        if elsewhere.valkey_url:
            write_json(options.report / "valkey.json", valkey)
    incidents = []
    if asked.left_open:
        incidents.append(Incident(at_us=0, what=f"{asked.left_open} questions stayed open", planned=False))
    run = describe(
        options,
        generator,
        cpu={},
        incidents=incidents,
        versions={},
        quiet_after_s=time.monotonic() - ended if quiet else None,
        lacks=target.lacks,
    )
    write_json(options.report / "run.json", run)
