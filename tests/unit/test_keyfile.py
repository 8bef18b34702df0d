"""The key file's reader: takes what shops upload, names the line of what it cannot take, guesses nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sale.catalog import keyfile
from core.sale.catalog.keyfile import BadKeyFile, hash_keys, read_keys
from core.settings import KEY_BYTES_MOST, KEY_LINES_MOST

BOM = b"\xef\xbb\xbf"
LETTERS = st.text(st.sampled_from("abcXYZ019-_密码é "), min_size=1, max_size=12).map(str.strip).filter(bool)
KEYS = st.lists(LETTERS.filter(lambda key: "----" not in key), min_size=1, max_size=20, unique=True)


def read(content: bytes) -> list[tuple[int, str]]:
    """Return what the reader makes of a file's bytes."""
    return list(keyfile._lines(io.BytesIO(content)))


def hashed(path: Path, content: bytes) -> list[tuple[int, str]]:
    """Return the keys of a file whose hash is its own text."""
    file = path / "keys.txt"
    file.write_bytes(content)
    return hash_keys(file, str.encode)[0]


@given(KEYS, st.sampled_from([b"\n", b"\r\n"]), st.sampled_from([b"", BOM]), st.booleans())
def test_every_way_of_saving_a_text_file_gives_the_same_keys(
    keys: list[str], end: bytes, bom: bytes, last: bool
) -> None:
    """Stops: a BOM or a carriage return sold as part of a key; a last line without its end that is lost."""
    content = bom + end.join(key.encode() for key in keys) + (end if last else b"")
    assert read(content) == list(enumerate(keys, 1))


def test_blank_lines_are_passed_over_and_still_counted() -> None:
    """Stops: line numbers that do not fit what the uploader sees in an editor."""
    assert read(b"\n  \r\nA\r\n\t\n\n B \n") == [(3, "A"), (6, "B")]


def test_a_card_with_its_password_is_one_key() -> None:
    """Stops: the password cut off, or the pair sold as two keys."""
    assert read("card----密码\nA B----C----D\n".encode()) == [(1, "card----密码"), (2, "A B----C----D")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no key"),
        (b"\n \r\n\n", "holds no key"),
        (BOM, "holds no key"),
        ("A\nB\n".encode("utf-16"), "line 1: the file is UTF-16"),
        ("A\nB\n".encode("utf-16-be"), "line 1: holds a control"),
        (b"\xfe\xff\x00A", "line 1: the file is UTF-16"),
        (b"A\nB\xff\n", "line 2: not UTF-8 (byte 2)"),
        ("A\n密\n".encode("gbk"), "line 2: not UTF-8"),
        (b"A\n\nB\x00C\n", "line 3: holds a control"),
        (b"A\rB\rC", "line 1: holds a control"),
        (b"A\x1bB\n", "line 1: holds a control"),
        ("A\u0085B\n".encode(), "line 1: holds a control"),
        (b"ok\n----secret\n", "line 2: one side of ----"),
        (b"ok\ncard----\n", "line 2: one side of ----"),
        (b"A\n" + b"x" * (KEY_BYTES_MOST + 1) + b"\nB\n", "line 2: longer than 1,024 bytes"),
        (b"x" * 10_000_000, "line 1: longer than 1,024 bytes"),
    ],
)
def test_what_cannot_be_a_key_is_named_by_line_and_reason(content: bytes, says: str) -> None:
    """Stops: a wrongly saved file imported as garbage; a refusal that does not say where to look."""
    with pytest.raises(
        BadKeyFile, match="^" + says.replace("(", r"\(").replace(")", r"\)") if "line" in says else says
    ):
        read(content)


@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("length", range(KEY_BYTES_MOST - 3, KEY_BYTES_MOST + 1))
def test_the_longest_key_fits_with_every_ending_and_shifts_no_line(bom: bytes, end: bytes, length: int) -> None:
    """Stops: a first line with a BOM that is read in two pieces, after which every line number is one too high."""
    assert read(bom + b"x" * length + end + b"B" + end) == [(1, "x" * length), (2, "B")]


def test_a_refusal_never_quotes_the_key() -> None:
    """Stops: card keys in an operator's terminal log."""
    for content in (b"SECRET\x00KEY\n", b"SECRET----\n", b"SECRET\xff\n"):
        with pytest.raises(BadKeyFile) as caught:
            read(content)
        assert "SECRET" not in str(caught.value)


def test_duplicates_inside_the_file_are_named_with_both_lines(tmp_path: Path) -> None:
    """Stops: one key sold twice because it stands in the file twice, with other blanks around it."""
    with pytest.raises(BadKeyFile, match=r"^line 4 repeats line 1; line 5 repeats line 3$"):
        hashed(tmp_path, b"A\n\nB\n A \r\nB\nC")


def test_of_many_duplicates_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    """Stops: a message of a million lines."""
    with pytest.raises(BadKeyFile, match=r"line 11 repeats line 1; and 90 more$"):
        hashed(tmp_path, b"A\n" * 101)


def test_exactly_the_limit_is_read_and_one_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a limit that is off by one, or none at all."""
    assert KEY_LINES_MOST == 1_000_000
    monkeypatch.setattr(keyfile, "KEY_LINES_MOST", 5)
    assert len(read(b"".join(b"%d\n\n" % n for n in range(5)))) == 5
    with pytest.raises(BadKeyFile, match=r"^line 6: more than 5 keys; split the file$"):
        read(b"".join(b"%d\n" % n for n in range(6)))


def test_a_line_number_always_fits_its_place_in_the_id_of_a_key() -> None:
    """Stops: blank lines that push a key's line number into the import's part of its id: two rows, one id."""

    class Blanks(io.BytesIO):
        """A file of so many blank lines, then one key."""

        def __init__(self, blanks: int) -> None:
            super().__init__(b"KEY\n")
            self.left = blanks

        def readline(self, size: int | None = -1, /) -> bytes:
            self.left -= 1
            return b"\n" if self.left >= 0 else super().readline(size)

    with pytest.raises(BadKeyFile, match=r"^line 1048576: "):
        list(keyfile._lines(Blanks(2**20 - 1)))


def test_a_file_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    """Stops: a traceback for a mistyped name or a folder."""
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(BadKeyFile, match=str(path)) as caught:
            list(read_keys(path))
        assert "\n" not in str(caught.value)
