"""Reads the files that real shops upload: one card key a line, ``card----password`` too, with or without BOM or CRLF.

Blank lines are passed over. Whatever cannot be a key stops the reading with its line number; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from core.errors import BadInput
from core.settings import KEY_BYTES_MOST, KEY_LINES_MOST

_BOM: Final = b"\xef\xbb\xbf"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_LINE_BYTES_MOST: Final = len(_BOM) + KEY_BYTES_MOST + len(b"\r\n") + 1  # one more than a good line can have
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_SPLIT: Final = "----"


class BadKeyFile(BadInput):
    """The key file cannot be imported; nothing was."""

    code = "bad_key_file"


def read_keys(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, card key) of a file, in order.

    Raises:
        BadKeyFile: the file cannot be read, is too long, or a line is no key; the message names the line and why.
    """
    try:
        with path.open("rb") as file:
            yield from _lines(file)
    except OSError as error:
        raise BadKeyFile(f"{path}: {error.strerror}") from error


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    count = 0
    for number, raw in enumerate(iter(lambda: file.readline(_LINE_BYTES_MOST), b""), 1):
        if number == 1:
            if raw.startswith(_WIDE_BOMS):
                raise BadKeyFile("line 1: the file is UTF-16; save it as UTF-8")
            raw = raw.removeprefix(_BOM)
        key = _key(number, raw)
        if not key:
            continue
        count += 1
        if count > KEY_LINES_MOST or number >= 2**20:
            raise BadKeyFile(f"line {number}: more than {KEY_LINES_MOST:,} keys; split the file")
        yield number, key
    if not count:
        raise BadKeyFile("the file holds no key")


def _key(number: int, raw: bytes) -> str:
    line = raw.rstrip(b"\r\n")
    if len(line) > KEY_BYTES_MOST:
        raise BadKeyFile(f"line {number}: longer than {KEY_BYTES_MOST:,} bytes")
    try:
        key = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadKeyFile(f"line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from error
    if _CONTROL.search(key):
        raise BadKeyFile(f"line {number}: holds a control character")
    card, split, password = key.partition(_SPLIT)
    if split and not (card.strip() and password.strip()):
        raise BadKeyFile(f"line {number}: one side of {_SPLIT} is empty")
    return key


def hash_keys(path: Path, key_hash: Callable[[str], bytes]) -> tuple[list[tuple[int, str]], list[bytes]]:
    """Return the (line number, key) pairs of a file and their keyed hashes, all different.

    Raises:
        BadKeyFile: as ``read_keys``; or a key stands twice, with both line numbers (the first ten such lines).
    """
    keys: list[tuple[int, str]] = []
    hashes: list[bytes] = []
    first: dict[bytes, int] = {}
    twice: list[str] = []
    for number, key in read_keys(path):
        hashed = key_hash(key)
        seen = first.setdefault(hashed, number)
        if seen != number:
            twice.append(f"line {number} repeats line {seen}")
            continue
        keys.append((number, key))
        hashes.append(hashed)
    if twice:
        raise BadKeyFile("; ".join(twice[:10]) + (f"; and {len(twice) - 10} more" if len(twice) > 10 else ""))
    return keys, hashes
