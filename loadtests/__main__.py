"""Measurements that are no flash sale: ``python -m loadtests VERB``. A verb's module is loaded only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from core.__main__ import EXIT_USAGE, Verb
from core.errors import BadInput, FlashproofError

VERBS: Final[dict[str, Verb]] = {
    "hostile": Verb("loadtests.hostile:main", "hold thousands of connections and give nothing, measure who notices"),
    "overload": Verb("loadtests.overload:main", "ask for many times what can be sold, see what is still sold and how"),
    "rolling": Verb("loadtests.rolling:main", "replace the workers under load again and again, count who noticed"),
}


def usage() -> str:
    """Return the overview of verbs."""
    lines = [f"  {name:<18} {verb.meaning}" for name, verb in VERBS.items()]
    head = "usage: python -m loadtests VERB [options]      (python -m loadtests VERB --help tells more)\n\n"
    return head + "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: its own, 64 for bad usage, 1 for a fault."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0 if arguments else EXIT_USAGE
    verb = VERBS.get(arguments[0])
    if verb is None:
        sys.stderr.write(f"loadtests: there is no verb {arguments[0]!r}\n\n{usage()}")
        return EXIT_USAGE
    module, _, function = verb.target.partition(":")
    try:
        code: int = getattr(import_module(module), function)(arguments[1:])
    except KeyboardInterrupt:
        return 130
    except FlashproofError as error:
        sys.stderr.write(f"loadtests {arguments[0]}: {error}\n")
        return EXIT_USAGE if isinstance(error, BadInput) else 1
    except SystemExit as stop:  # argparse leaves with 2 on bad usage
        return EXIT_USAGE if stop.code == 2 else int(stop.code or 0)
    return code


if __name__ == "__main__":
    sys.exit(main())
