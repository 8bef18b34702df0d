"""``python -m loadtests.faults.plant FAULT VERB …``: run a verb of the shop with a fault planted in it."""

from __future__ import annotations

import sys

from core.errors import BadInput
from loadtests.faults import plant


def main() -> int:
    """Plant, then run the verb."""
    if len(sys.argv) < 3:
        sys.stderr.write("usage: python -m loadtests.faults.plant FAULT VERB [options]\n")
        return 64
    try:
        plant(sys.argv[1])
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 64
    from core.__main__ import main as core_main  # after the planting: its verbs load the edited texts

    return core_main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
