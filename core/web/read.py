"""What both lanes read from a request the same way: the token, the seconds to wait."""

from __future__ import annotations

import re
from typing import Final

from core.errors import InvalidWait, TokenRequired
from core.settings import WAIT_MOST_S

_TOKEN_CHARS_MOST: Final = 128
_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,9})?")  # float() alone would also read nan, 1_0 and ٣


def read_token(authorization: str) -> str:
    """Return the bearer token of an Authorization header.

    Raises:
        TokenRequired: there is none.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _TOKEN_CHARS_MOST:
        raise TokenRequired
    return token.strip()


def read_wait(text: str | None) -> float:
    """Return the seconds of the query's ``wait``, 0 when there is none.

    Raises:
        InvalidWait: it is no number of seconds from 0 to ``WAIT_MOST_S``.
    """
    if text is None:
        return 0.0
    if not _SECONDS.fullmatch(text) or float(text) > WAIT_MOST_S:
        raise InvalidWait
    return float(text)
