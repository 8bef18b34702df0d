"""The stand a sweep tries rates on: one shop kept up over all trials, stocked anew before each.

A trial is a generator process of its own with a fresh seed, a hot product of its own with enough keys, and the
same cold products, topped up. Before it begins the shop is waited for until nothing of the last trial is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from core.settings import to_environment
from loadtests.generator.load import GeneratorFailed, run_locust
from loadtests.generator.plan import cold_skus
from loadtests.generator.scenario import Scenario
from loadtests.record import timeline
from loadtests.record.history import read
from loadtests.record.summary import Generator
from loadtests.record.timeline import Sample
from loadtests.search.bracket import Judgement
from loadtests.search.trial import Budget, Figures, accepted_us, figures_of, judge_trial
from loadtests.shop.deployment import Deployment
from loadtests.shop.quiet import wait_quiet
from loadtests.shop.sampler import Sampler, sources_of
from loadtests.shop.stage import restock, set_stage

ARRIVALS_LEAST: Final = 500  # of one trial: at low rates it lasts longer
SECONDS_MOST: Final = 8.0  # ... but no longer than this for that reason
STOCK_SHARE: Final = 1.25  # keys of the hot product for each arrival: nobody is refused for want of stock
COLD_MOST: Final = 20  # other products
COLD_STOCK: Final = 1_000  # keys of each to begin with, and in each topping-up
DRAIN_S: Final = 1.0  # how long buyers may go on after the last arrival
QUIET_MOST_S: Final = 12.0
AROUND_S: Final = 4.5  # what a trial takes beside its arrivals, for the estimate whether there is time for one more


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as it ended."""

    number: int  # from 1, in the order made
    rate: float
    judgement: Judgement
    why: str
    figures: Figures | None  # None: the generator failed
    latencies_us: list[int]  # of the orders accepted, from the due instant; not part of any file


class Stand:
    """Runs trials against a deployment that is up."""

    def __init__(
        self,
        shop: Deployment,
        directory: Path,
        scenario: Scenario,
        budget: Budget,
        seconds: float,
        seed: int,
        say: Callable[[str], None],
        *,
        arrivals: str = "constant",
        processes: int = 1,
        stock_share: float = STOCK_SHARE,
    ) -> None:
        """Take where to run, what, and whom to tell; the directory gets one folder a trial.

        Args:
            shop: is up.
            directory: of the sweep.
            scenario: who the buyers are.
            budget: what a trial is judged by.
            seconds: of arrivals in a trial, unless the rate is low.
            seed: of the first trial, less one.
            say: told what is going on.
            arrivals: how they come.
            processes: of the load generator.
            stock_share: keys of the hot product for each arrival.
        """
        self._arrivals_like, self._processes, self._stock_share = arrivals, processes, stock_share
        self._shop, self._directory, self._scenario = shop, directory, scenario
        self._budget, self._seconds, self._seed, self._say = budget, seconds, seed, say
        self._cold = min(scenario.stage.cold, COLD_MOST)
        self._cold_keys = 0  # of each cold product, so far
        self._arrivals = 0  # so far, of all trials

    def seconds(self, rate: float) -> float:
        """Return how long arrivals come in a trial at this rate."""
        return max(self._seconds, min(SECONDS_MOST, ARRIVALS_LEAST / rate))

    def run(self, number: int, rate: float) -> Trial:
        """Run one trial and return it judged.

        Raises:
            Fault: a store failed while the stage was set.
        """
        seconds, died = self.seconds(rate), len(self._shop.unplanned)
        name = f"trial {number}: {rate:,.0f}/s for {seconds:.1f} s"
        self._say(f"{name}, stocking")
        self._shop.wait_ready()
        if number > 1:  # before the first there is no journal to wait for
            wait_quiet(self._shop.settings, QUIET_MOST_S, lambda words: self._say(f"{name}, {words}"))
        sku = f"hot-{number:03d}"
        self._stock(sku, math.ceil(rate * seconds), seconds)
        out = self._directory / f"trial-{number:03d}"
        out.mkdir()
        try:
            figures, latencies_us = self._generate(name, out, sku, rate, seconds, self._seed + number)
        except GeneratorFailed as error:
            why = str(error).splitlines()[0]
            return Trial(number=number, rate=rate, judgement="void", why=why, figures=None, latencies_us=[])
        said = judge_trial(figures, self._budget)
        judgement, why = said.judgement, said.why
        if len(self._shop.unplanned) > died:
            judgement, why = "void", f"{self._shop.unplanned[-1].what} ended unplanned"
        return Trial(number=number, rate=rate, judgement=judgement, why=why, figures=figures, latencies_us=latencies_us)

    # --- how ------------------------------------------------------------------------------------------------

    def _units(self, arrivals: float) -> int:
        return math.ceil(arrivals * self._stock_share) + 10

    def _stock(self, sku: str, arrivals: int, seconds: float) -> None:
        stage, settings = self._scenario.stage, self._shop.settings
        units, hold, silent = self._units(arrivals), stage.hold_ms(seconds), lambda _: None
        first = not self._cold_keys
        cold = self._cold if first else 0
        set_stage(settings, units, cold, silent, hold, cold_stock=COLD_STOCK, limit=stage.buyer_limit, hot_sku=sku)
        self._cold_keys = self._cold_keys or COLD_STOCK
        self._arrivals += arrivals
        while self._cold and self._arrivals * 2 > self._cold_keys * self._cold:  # half a unit an arrival
            for other in cold_skus(self._cold):
                restock(settings, other, self._cold_keys, COLD_STOCK)
            self._cold_keys += COLD_STOCK

    def _generate(
        self, name: str, out: Path, sku: str, rate: float, seconds: float, seed: int
    ) -> tuple[Figures, list[int]]:
        stage, shop = self._scenario.stage, self._shop

        def tick(said: dict[str, Any] | None) -> None:
            if said is None:
                return
            p99_ms = said["p99_us"] / 1000
            self._say(f"{name}, {min(said['elapsed_s'], seconds):.1f} s gone, p99 {p99_ms:.1f} ms")

        manners = self._scenario.manners  # who looks around first must come to ordering, or was never sent
        drain_s = DRAIN_S + manners.looks_most * manners.look_us / 1e6
        arguments = {
            "--host": shop.url,
            "--fp-arrivals": self._arrivals_like,
            "--fp-stock": str(self._units(rate * seconds)),
            "--fp-rate": str(rate),
            "--fp-seconds": str(seconds),
            "--fp-seed": str(seed),
            "--fp-cold": str(self._cold),
            "--fp-hot-sku": sku,
            "--fp-think": str(stage.hold_ms(seconds) * stage.think_share / 1000),
            "--fp-out": str(out),
            "--fp-drain": str(drain_s),
        }
        most_s, log = seconds + drain_s + 30.0, out / "locust.log"
        with Sampler(sources_of(shop)) as sampler:
            watch = partial(sampler.watch, "generator")
            try:
                run_locust(
                    self._scenario.name,
                    arguments,
                    to_environment(shop.settings),
                    log,
                    most_s,
                    tick,
                    watch,
                    self._processes,
                )
            except GeneratorFailed:
                if not (out / "generator.json").exists():  # else it says itself what it did not do
                    raise
        generator = msgspec.json.decode((out / "generator.json").read_bytes(), type=Generator)
        started_us = msgspec.json.decode((out / "generator.json").read_bytes())["started_unix_us"]
        sampler.write(out / timeline.NAME, started_us)
        cpu, gauges = means(timeline.read_timeline(out / timeline.NAME), round(seconds * 1e6))
        attempts = list(read(out / "history.jsonl"))
        figures = figures_of(
            attempts, generator, self._budget, rate=rate, seconds=seconds, seed=seed, cpu=cpu, gauges=gauges
        )
        return figures, accepted_us(attempts)


def means(samples: list[Sample], end_us: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means of CPU by role and of every gauge, over the samples that were taken while orders came."""
    inside = [sample for sample in samples if 0 < sample.at_us <= end_us] or samples
    return _means([one.cpu for one in inside]), _means([one.gauges for one in inside])


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}
