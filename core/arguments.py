"""The command line's grammar: `argparse`, whose complaint is one line that says where to read on."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Arguments(argparse.ArgumentParser):
    """A parser that does not print its whole usage before the one line that helps."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with 2, which ``core.__main__`` makes 64."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` shows what there is\n")
