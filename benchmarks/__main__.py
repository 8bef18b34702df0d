"""Performance, a row at a time: ``python -m benchmarks VERB``. A verb's module is loaded only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from core.__main__ import Verb, choose

VERBS: Final[dict[str, Verb]] = {
    "ceiling": Verb("benchmarks.ceiling.run:main", "the hot path beside nginx, a bare protocol and aiohttp"),
    "durability": Verb("benchmarks.durability:main", "orders with an fsync before each answer beside one a second"),
    "crowded": Verb("benchmarks.crowded:main", "orders with a million there beside none; Valkey's bytes an order"),
    "commands": Verb("benchmarks.commands:main", "Valkey calls and PostgreSQL round trips an order"),
    "projector": Verb(
        "benchmarks.record.projector:main", "how closely PostgreSQL follows a sale; how fast a backlog goes"
    ),
    "delivery": Verb("benchmarks.record.delivery:main", "from the payment to the key, at 1,000 payments a second"),
    "waiters": Verb("benchmarks.record.waiters:main", "20,000 buyers who wait on one worker, and when each is woken"),
}
_AFTER: Final = """
Each verb starts shops of its own with private stores, gives the server one core and everything else another, measures
in rounds that are told with their spread, and judges ratios against bars. It takes at most four minutes, says what it
does on standard error, and writes out/VERB/<time>/VERB.json, out/VERB/latest being the newest.
Exit code 0: every bar is met; 1: one is missed, or the run failed; 64: bad usage.
The ratios are worth something on a machine that does nothing else meanwhile; single figures are worth less.
"""


def usage() -> str:
    """Return the overview of verbs."""
    lines = [f"  {name:<12} {verb.meaning}" for name, verb in VERBS.items()]
    head = "usage: python -m benchmarks VERB [options]      (python -m benchmarks VERB --help tells more)\n\n"
    return head + "\n".join(lines) + "\n" + _AFTER


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code."""
    return choose("benchmarks", VERBS, usage(), list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
