"""The documents say what the code says: commands, settings, codes, paths, moves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from core.__main__ import VERBS
from core.errors import refusals
from core.sale.orders.order import MOVES
from core.settings import Settings, variable
from loadtests import checkers
from loadtests.scenarios import NAMES, find

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE: Final = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MAKEFILE: Final = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_two_commands_are_the_first_thing_in_the_readme() -> None:
    """A newcomer types what stands first."""
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]
    assert lines[:2] == ["make prove", "make test"]


def test_every_make_word_that_is_named_exists() -> None:
    """A README whose commands do not run is not believed again."""
    words = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README + ARCHITECTURE)) - {"them"} <= words


def test_every_verb_that_is_named_exists_and_every_verb_is_named() -> None:
    """A verb nobody documents is a verb nobody finds."""
    named = set(re.findall(r"flashproof ([a-z]+)\b", README)) - {"is"}
    assert named <= set(VERBS)
    assert set(VERBS) <= named


def test_every_setting_is_in_the_readme_and_the_other_way_round() -> None:
    """A setting that only the code knows is set wrong."""
    in_code = {variable(field) for field in Settings.__struct_fields__}
    in_readme = set(re.findall(r"`(FLASHPROOF_[A-Z_]+)`", README))
    assert in_readme == in_code


def test_every_refusal_code_is_listed_with_its_status() -> None:
    """Clients are written against these."""
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", ARCHITECTURE, re.MULTILINE))
    assert listed == {code: str(kind.status) for code, kind in refusals().items()}


@pytest.mark.parametrize("path", re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", ARCHITECTURE, re.MULTILINE))
def test_every_where_is_row_points_at_something(path: str) -> None:
    """A map with a missing room is worse than none."""
    assert (ROOT / path).exists()


def test_the_where_is_table_is_not_empty() -> None:
    """Otherwise the test above tests nothing."""
    assert len(re.findall(r"^\| [^|]+ \| `(?:core|loadtests|tests)/[^`]+` \|$", ARCHITECTURE, re.MULTILINE)) > 30


def test_every_move_of_an_order_is_drawn() -> None:
    """The diagram is the table."""
    drawn = set(re.findall(r"^\| `([a-z_]+|—)` \| `([a-z_]+)` \|", ARCHITECTURE, re.MULTILINE))
    assert drawn == {(move.before.value if move.before else "—", move.after.value) for move in MOVES}


def test_the_readme_names_as_many_invariants_as_there_are() -> None:
    """A check that is promised must run."""
    text = README.split("histories known to be wrong:")[1].split("\n\n")[0]
    assert text.count("·") + 1 + 1 == len(checkers.CHECKERS), "stock is one line for two checkers"


def test_the_table_of_scenarios_says_what_their_files_say() -> None:
    """A story in the README that no file tells."""
    rows = dict(
        re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", README.split("## Ten scenarios")[1], re.MULTILINE)[: len(NAMES)]
    )
    said = {name: find(name) for name in NAMES}
    assert rows == {
        name: f"{one.story} | {one.arrivals}, {one.rate:g}/s, {one.seconds:g} s" for name, one in said.items()
    }


@pytest.mark.parametrize(
    "name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "pyproject.toml", "requirements.lock"]
)
def test_no_text_names_a_registry_host_or_a_path_of_somebodys_machine(name: str) -> None:
    """A lock that names a mirror installs nowhere else."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"pypi\.org|pythonhosted|--index-url|find-links|file://", text)
    assert not re.search(r"(?<![\w.])/(home|root|Users|work)/", text)
