"""Hides passwords in what is shown: settings, status lines, errors. Pure.

Law of this module: when in doubt it hides too much. It takes any text, since a URL or a DSN may stand in the middle of
an error of somebody else's.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

HIDDEN: Final = "***"

_SECRET: Final = re.compile("pass|pwd|secret|token|credential|api_?key|private_?key", re.IGNORECASE)

# Up to the LAST @ of the word: a password in which it was not written as %40 is hidden as a whole.
_LOGIN: Final = re.compile(r"(:/{1,3}[^\s:@/?#]*:)\S*@")
_QUERY: Final = re.compile(r"([?&;])([^\s=&;?#]+)=([^\s&;#]*)")
# As libpq reads it: blanks around the sign, quotes, and backslashes before what would end the value.
_WORD: Final = re.compile(
    r"(?<![?&;\w%.-])([\w%.-]+)(\s*=\s*)('(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|(?:\\.|[^\s\\])*)", re.DOTALL
)


def masked(text: str) -> str:
    """Return a text with `***` in place of each password, secret and token in it.

    That is what stands between `:` and `@` in a URL, a parameter of a URL or a `name=value` word whose name says so.
    """
    text = _LOGIN.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(lambda found: _parameter(found[1], found[2], "=", found[3]), text)
    return _WORD.sub(lambda found: _parameter("", found[1], found[2], found[3]), text)


def _parameter(before: str, name: str, sign: str, value: str) -> str:
    return f"{before}{name}{sign}{HIDDEN if value and _SECRET.search(unquote(name)) else value}"
