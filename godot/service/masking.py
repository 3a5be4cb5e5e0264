"""Hides passwords in settings, status lines and errors before they are shown. Pure.

Law of this module: when in doubt it hides too much. It takes any text, since a URL or a DSN may stand in the middle of
another program's error.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

HIDDEN: Final = "***"

_SECRET: Final = re.compile("pass|pwd|secret|token|credential|api_?key|private_?key", re.IGNORECASE)

# Up to the LAST @ of the word: so a password is hidden as a whole even if it contains an @ that is not written as %40.
_LOGIN: Final = re.compile(r"(:/{1,3}[^\s:@/?#]*:)\S*@")
_QUERY: Final = re.compile(r"([?&;])([^\s=&;?#]+)=([^\s&;#]*)")
# As libpq reads it: blanks around the sign, quotes, and backslashes before characters that would end the value.
_WORD: Final = re.compile(
    r"(?<![?&;\w%.-])([\w%.-]+)(\s*=\s*)('(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|(?:\\.|[^\s\\])*)", re.DOTALL
)


def masked(text: str) -> str:
    """Return a text with `***` in place of each password, secret and token in it.

    These are the words between `:` and `@` in a URL, and the values of URL parameters and of `name=value` words whose
    names say so.
    """
    text = _LOGIN.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(lambda found: _parameter(found[1], found[2], "=", found[3]), text)
    return _WORD.sub(lambda found: _parameter("", found[1], found[2], found[3]), text)


def _parameter(before: str, name: str, sign: str, value: str) -> str:
    return f"{before}{name}{sign}{HIDDEN if value and _SECRET.search(unquote(name)) else value}"
