"""The scenarios, one a file: each is one story with its own crowd, stage, budgets and proof that it was told."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Final

from core.errors import BadInput
from loadtests.generator.scenario import Scenario

NAMES: Final = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"))


def find(name: str) -> Scenario:
    """Return a scenario by its name.

    Raises:
        BadInput: there is none of this name; the message lists them and suggests the nearest.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, 1, 0.5)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise BadInput(f"there is no scenario {name!r}.{meant} There are {', '.join(NAMES)}")
    found: Scenario = import_module(f"loadtests.scenarios.{name}").SCENARIO
    return found
