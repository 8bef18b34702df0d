"""Measurements that are no flash sale: ``python -m loadtests VERB``. A verb's module is loaded only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from core.__main__ import Verb, choose

VERBS: Final[dict[str, Verb]] = {
    "generator-ceiling": Verb(
        "loadtests.trials.generator_ceiling:main", "the lean user beside Locust's FastHttpUser on a null server"
    ),
    "hostile": Verb(
        "loadtests.trials.hostile:main", "hold thousands of connections and give nothing, measure who notices"
    ),
    "overload": Verb(
        "loadtests.trials.overload:main", "ask for many times what can be sold, see what is still sold and how"
    ),
    "picture": Verb("loadtests.report.picture:main", "take a picture of a run's report for a README"),
    "rolling": Verb(
        "loadtests.trials.rolling:main", "replace the workers under load again and again, count who noticed"
    ),
}


def usage() -> str:
    """Return the overview of verbs."""
    lines = [f"  {name:<18} {verb.meaning}" for name, verb in VERBS.items()]
    head = "usage: python -m loadtests VERB [options]      (python -m loadtests VERB --help tells more)\n\n"
    return head + "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: its own, 64 for bad usage, 1 for a fault."""
    return choose("loadtests", VERBS, usage(), list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
