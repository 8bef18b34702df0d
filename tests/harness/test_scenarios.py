"""The ten scenarios: each is one whole story, reaches what it exists for, and can fail to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from core.errors import BadInput
from core.settings import QUANTITY_MOST
from loadtests.checkers import non_vacuity
from loadtests.generator.arrivals import parse_arrivals
from loadtests.generator.plan import Crowd, Plan, cold_skus
from loadtests.generator.retry_budget import RetryBudget
from loadtests.generator.scenario import HOT_SKU, Scenario
from loadtests.options import read_options
from loadtests.record.evidence import NO_POSTGRES, NO_VALKEY, Evidence
from loadtests.record.groups import amplified, groups
from loadtests.record.history import Attempt
from loadtests.record.summary import Budgets
from loadtests.scenarios import NAMES, find
from loadtests.shop.kills import Kill

COUNT = 4_000
TEN = {
    "flash_sale",
    "hostage",
    "late_payers",
    "ordinary_day",
    "pay_storm",
    "poll_storm",
    "restock_race",
    "retry_storm",
    "soak",
    "sold_out_storm",
}


@pytest.fixture(params=NAMES)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return find(request.param)


def crowd(of: Scenario, seed: int = 1) -> Crowd:
    stage = of.stage
    return of.crowd(seed, HOT_SKU, stage.cold, 500_000, of.manners, limit=stage.buyer_limit, stock=stage.stock(COUNT))


def plans(of: Scenario) -> list[Plan]:
    gathered = crowd(of)
    return [gathered.plan(number) for number in range(COUNT)]


def test_there_are_the_ten() -> None:
    """A scenario that is deleted must be missed."""
    assert set(NAMES) == TEN


def test_each_is_one_short_file_that_says_who_comes_when_and_what_must_be_kept(scenario: Scenario) -> None:
    """A story told over five files is nobody's."""
    file = Path(__file__).parents[2] / "loadtests" / "scenarios" / f"{scenario.name}.py"
    assert len(file.read_text().splitlines()) <= 60
    assert scenario.budgets != Budgets()
    assert set(scenario.wanted) <= set(non_vacuity.STATES)
    assert parse_arrivals(scenario.arrivals, scenario.rate, scenario.seconds).total == scenario.rate * scenario.seconds


def test_reading_a_scenario_loads_nothing_of_locust(scenario: Scenario) -> None:
    """Locust patches the standard library: the process that supervises real threads must not be touched."""
    source = (Path(__file__).parents[2] / "loadtests" / "scenarios" / f"{scenario.name}.py").read_text()
    assert "import locust" not in source
    assert "gevent" not in source


def test_the_same_seed_gives_the_same_crowd_and_every_arrival_is_its_own(scenario: Scenario) -> None:
    """A run that cannot be repeated cannot be argued about."""
    first = plans(scenario)
    again = crowd(scenario)
    assert [again.plan(n) for n in (COUNT - 1, 7, 0)] == [first[COUNT - 1], first[7], first[0]]
    assert crowd(scenario, 2).plan(COUNT - 1) != first[COUNT - 1]
    assert len({p.idempotency_key for p in first}) == COUNT


def test_buyers_ask_for_what_stands_on_the_stage(scenario: Scenario) -> None:
    """Orders for SKUs that do not exist are refusals nobody meant."""
    on_sale = {HOT_SKU, *cold_skus(scenario.stage.cold)}
    for plan in plans(scenario):
        assert plan.sku in on_sale
        assert set(plan.looks) <= {"", *on_sale}
        assert 1 <= plan.quantity <= QUANTITY_MOST
        assert plan.conflict is None or plan.conflict[0] in on_sale


def _asked(attempts: int) -> list[Attempt]:
    """Return a history in which buyers asked and were told nothing of interest."""
    return [
        Attempt(
            arrival=number,
            op="place",
            why="first",
            buyer=f"b{number}",
            sku="hot",
            quantity=1,
            idempotency_key=f"k{number}",
            intended_us=number * 1_000,
            sent_us=number * 1_000 + 1,
            done_us=number * 1_000 + 2,
            result="unknown",
            outcome="timeout",
        )
        for number in range(attempts)
    ]


def test_a_history_without_its_states_is_void_for_each_state_it_wants(scenario: Scenario) -> None:
    """Proof that a story was told, which no history could fail, proves nothing."""
    dull = Evidence(
        wanted=scenario.wanted, hot_sku="hot", attempts=_asked(30), charges=[], postgres=NO_POSTGRES, valkey=NO_VALKEY
    )
    found = non_vacuity.check(dull)
    assert found.holds is False
    assert len(found.violations) == found.checked == len(scenario.wanted)


def test_what_only_a_store_could_show_is_not_demanded_where_none_can_be_read() -> None:
    """A shop without a DSN would never get past its first scenario."""
    blind = Evidence(
        wanted=("expiry", "resale", "sold_out"),
        hot_sku="hot",
        attempts=_asked(3),
        charges=[],
        postgres=NO_POSTGRES,
        valkey=NO_VALKEY,
        unread=frozenset({"postgres", "valkey"}),
    )
    assert non_vacuity.check(blind).checked == 1
    assert non_vacuity.unseen(blind) == ["expiry", "resale"]
    assert "expiry" not in non_vacuity.reached(blind)


# --- what makes each of them itself -------------------------------------------------------------------------


def test_the_hostage_taker_asks_for_the_whole_stock_first_and_never_pays() -> None:
    found = plans(find("hostage"))
    stock = find("hostage").stage.stock(COUNT)
    theirs = [p for p in found if p.buyer.startswith("thief")]
    assert theirs == found[: len(theirs)]
    assert sum(p.quantity for p in theirs) == stock
    assert {p.ending for p in theirs} == {"never"}
    assert {p.sku for p in theirs} == {HOT_SKU}


def test_an_ordinary_day_has_an_evening_many_products_and_visitors_who_look_around() -> None:
    of = find("ordinary_day")
    found = plans(of)
    assert len({p.sku for p in found}) > 100
    wanted = Counter(p.sku for p in found if p.sku != HOT_SKU).most_common()
    assert sum(count for _, count in wanted[:25]) > 0.4 * COUNT  # an eighth of the products, nearly half of the sales
    assert all(p.looks and p.looks[-1] == p.sku for p in found)
    assert 0.2 * COUNT < sum(p.looks[0] == "" for p in found) < 0.3 * COUNT
    day = parse_arrivals(of.arrivals, 1000, 24)
    hours = Counter(day.due_us(n) // 1_000_000 for n in range(day.total))
    assert hours[20] > 8 * hours[3]


def test_late_payers_and_storms_are_mostly_what_they_are_named_after() -> None:
    assert sum(p.ending == "late" for p in plans(find("late_payers"))) > 0.45 * COUNT
    pay = Counter(p.callbacks for p in plans(find("pay_storm")))
    assert pay["twice"] + pay["twice_later"] > 0.35 * COUNT
    assert pay["started_after"] > 0.15 * COUNT
    assert sum(p.watch == "poll" for p in plans(find("poll_storm"))) > 0.85 * COUNT
    assert find("sold_out_storm").stage.stock_share <= 0.05
    groups_of = Counter(p.retries for p in plans(find("retry_storm")))
    assert set(groups_of) == {"budget", "no_budget"}
    assert min(groups_of.values()) > 0.45 * COUNT


def test_a_retry_budget_lets_a_fifth_through_when_everything_fails() -> None:
    """Without a budget every failure is asked again, just when the shop can bear it least."""
    budget, allowed = RetryBudget(saved=0.0), 0
    for _ in range(1_000):
        budget.deposit()
        allowed += budget.withdraw()
    assert 190 <= allowed <= 201


def test_a_group_beyond_its_budget_of_requests_is_told_and_so_is_one_that_never_came() -> None:
    first = _asked(10)
    asked = [msgspec.structs.replace(a, group="budget") for a in first]
    asked += [msgspec.structs.replace(a, group="budget", why="retry") for a in first[:6]]
    found = groups(asked)
    assert (found["budget"].arrivals, found["budget"].requests, found["budget"].requests_per_arrival) == (10, 16, 1.6)
    assert not list(amplified(Budgets(requests_per_arrival={"budget": 1.6}), found))
    assert "1.60" in next(iter(amplified(Budgets(requests_per_arrival={"budget": 1.5}), found)))
    assert "no client" in next(iter(amplified(Budgets(requests_per_arrival={"other": 9.0}), found)))


@pytest.mark.parametrize(("name", "near"), [("flashsale", "flash_sale"), ("pollstorm", "poll_storm"), ("xyz", None)])
def test_an_unknown_scenario_is_told_with_all_there_are_and_the_nearest(name: str, near: str | None) -> None:
    with pytest.raises(BadInput) as told:
        find(name)
    assert all(one in str(told.value) for one in NAMES)
    assert ("Did you mean" in str(told.value)) == (near is not None)
    assert near is None or f"Did you mean {near}?" in str(told.value)


def test_a_storm_of_retries_comes_with_its_kill_and_another_kill_leaves_the_budget_that_it_does_not_spoil() -> None:
    options = read_options(["--scenario", "retry_storm", "--seconds", "10"], "")
    assert options.kills == (Kill("valkey", 4.0),)
    assert options.budgets == find("retry_storm").budgets  # made for its own kill
    others = read_options(["--scenario", "retry_storm", "--kill", "serve@2"], "")
    assert others.kills == (Kill("serve", 2.0),)
    assert others.budgets == Budgets(requests_per_arrival={"budget": 1.25})


def test_the_defaults_are_the_scenarios_own_and_the_commands_options_stand_above_them() -> None:
    soak = find("soak")
    options = read_options(["--scenario", "soak"], "")
    assert (options.rate, options.seconds, options.arrivals, options.budgets) == (
        soak.rate,
        soak.seconds,
        soak.arrivals,
        soak.budgets,
    )
    told = read_options(["--scenario", "soak", "--arrivals", "ramp", "--rate", "9", "--p99-ms", "7"], "")
    assert (told.rate, told.arrivals, told.budgets.accepted_p99_us) == (9.0, "ramp", 7_000)
    assert told.budgets.rss_growth_bytes == soak.budgets.rss_growth_bytes
