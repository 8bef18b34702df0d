"""The one command: ``flashproof VERB``. A verb's module is loaded only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, NamedTuple

from core.errors import BadInput, BadSetting, FlashproofError

EXIT_USAGE: Final = 64


class Verb(NamedTuple):
    """Where a verb lives and what it is for. ``module:function`` takes the arguments and returns an exit code."""

    target: str
    meaning: str


VERBS: Final[dict[str, Verb]] = {
    "prove": Verb("loadtests.prove:main", "run a whole flash sale, check everything, print the verdict"),
    "sweep": Verb("loadtests.sweep:main", "find the highest rate that keeps a budget, and why not double"),
    "verify": Verb("loadtests.verify:main", "judge a finished run again from its raw files"),
    "compare": Verb("loadtests.compare:main", "set two runs side by side: effect, interval, verdict"),
    "ceiling": Verb("benchmarks.ceiling.run:main", "measure the hot path beside nginx and aiohttp, as ratios"),
    "local": Verb("core.local.command:main", "start a real Valkey and PostgreSQL under .local/"),
    "migrate": Verb("core.web.admin:migrate", "bring the PostgreSQL schema up to date"),
    "product": Verb("core.web.admin:product", "add a product or give it new terms"),
    "keys": Verb("core.web.admin:keys", "import a file of card keys"),
    "serve": Verb("core.web.server:main", "serve buyers and payment callbacks"),
    "work": Verb("core.workers.work:main", "project, deliver, and release what was not paid"),
    "sandbox": Verb("core.web.admin:sandbox", "pay an order through the sandbox gateway, as a rehearsal"),
}
_HIDDEN: Final[dict[str, Verb]] = {"serve-worker": Verb("core.web.worker:main", "one worker of serve")}


def usage() -> str:
    """Return the overview of verbs."""
    lines = [f"  {name:<9} {verb.meaning}" for name, verb in VERBS.items()]
    return "usage: flashproof VERB [options]      (flashproof VERB --help tells more)\n\n" + "\n".join(lines) + "\n"


def choose(program: str, verbs: Mapping[str, Verb], overview: str, arguments: Sequence[str]) -> int:
    """Run the verb that stands first and return the exit code: its own, 64 for bad usage, 1 for a fault.

    ``overview`` is said when it is asked for, or when there is no such verb.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview)
        return 0 if arguments else EXIT_USAGE
    verb = verbs.get(arguments[0])
    if verb is None:
        sys.stderr.write(f"{program}: there is no verb {arguments[0]!r}\n\n{overview}")
        return EXIT_USAGE
    module, _, function = verb.target.partition(":")
    try:
        code: int = getattr(import_module(module), function)(arguments[1:])
    except KeyboardInterrupt:
        return 130
    except FlashproofError as error:
        sys.stderr.write(f"{program} {arguments[0]}: {error}\n")
        return EXIT_USAGE if isinstance(error, BadInput | BadSetting) else 1
    except SystemExit as stop:  # argparse leaves with 2 on bad usage; here 2 means an invariant is broken
        return EXIT_USAGE if stop.code == 2 else int(stop.code or 0)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: its own, 64 for bad usage, 1 for a fault."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["-V"], ["--version"]):
        from core import __version__

        sys.stdout.write(f"flashproof {__version__}\n")
        return 0
    return choose("flashproof", {**VERBS, **_HIDDEN}, usage(), arguments)


if __name__ == "__main__":
    sys.exit(main())
