"""Print the Python of this machine that Flashproof should be installed with: the fastest that can make its .venv.

One interpreter may be half as fast again as another of the same version. Debian's is built with profile-guided
optimisation; one that pyenv compiled, unless told so, is not. The choice made a whole shop a tenth faster. No flag of
the build tells it on all systems, so a short piece of Python's everyday work is timed with each.

Run before anything is installed, so it needs nothing, and any Python 3 can run it.
"""

import os
import shutil
import subprocess
import sys

LEAST = (3, 11)
WORTH = 1.1  # the first on the path is taken unless another is so much faster
NAMES = ("python3", "/usr/bin/python3", "/usr/local/bin/python3")
ROUNDS = 6
_TIMED = """
import ensurepip, sys, time, venv
class Thing:
    __slots__ = ("kept",)
    def keep(self, value):
        self.kept = value
        return value
def piece(rounds):
    thing, seen = Thing(), {}
    for number in range(rounds):
        seen[number & 1023] = thing.keep((number, str(number)))
piece(20000)
began = time.process_time()
piece(200000)
print(sys.version_info >= %r, time.process_time() - began)
"""


def seconds(python: str) -> "float | None":
    """Return what the piece of work takes with an interpreter; None: it is missing, too old, or cannot make a .venv."""
    if shutil.which(python) is None:
        return None
    try:
        said = subprocess.run([python, "-c", _TIMED % (LEAST,)], capture_output=True, text=True, timeout=30, check=True)
        fit, took = said.stdout.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return float(took) if fit == "True" else None


def choose(took: "dict[str, float]") -> str:
    """Return the best of the interpreters, which stand in the order of preference; "" if there are none."""
    names = list(took)
    if not names:
        return ""
    fastest = min(names, key=lambda name: took[name])
    return fastest if took[names[0]] > WORTH * took[fastest] else names[0]


def main() -> int:
    """Print the choice; the first name where none is fit, so that whoever installs says what is wrong with it."""
    names, seen = [], set()
    for name in NAMES:
        where = os.path.realpath(shutil.which(name) or name)
        if where not in seen:
            seen.add(where)
            names.append(name)
    took = {}
    for _ in range(ROUNDS):  # in turns: a noisy moment of the machine must not fall on one alone
        for name in names:
            found = seconds(name)
            if found is not None:
                took[name] = min(found, took.get(name, found))
    sys.stdout.write((choose(took) or NAMES[0]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
