"""The flash sale: most want one product that runs out, and everybody comes as fast as the plan lets them.

    FLASHPROOF_SECRET=… FLASHPROOF_SANDBOX_SECRET=… python -m locust -f loadtests/scenarios/flash_sale.py \
        --headless --only-summary --loglevel WARNING --host http://127.0.0.1:8080 \
        --fp-rate 5000 --fp-seconds 20 --fp-seed 1 --fp-out out/run
"""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="flash_sale",
    story="one hot product runs out under a crowd that clicks twice, pays late, never pays and comes again",
    wanted=("sold_out", "replay", "conflict", "expiry", "resale", "late_payment", "limit", "delivery"),
    manners=Manners(hot=0.9),
    rate=5_000.0,
    stage=Stage(stock_share=0.01),
    budgets=Budgets(
        accepted_p99_us=100_000,
        accepted_after_retry_p99_us=4_000_000,
        sold_out_p99_us=100_000,
        paid_to_delivered_p99_us=750_000,
        unserved_share=0.01,
    ),
)

FlashSale = visitors(SCENARIO)
