"""Full-text search: how the text of a search box is read, and how a message is split into words. Pure: no driver."""

from __future__ import annotations

import re
from typing import Final

import attrs

from godot.errors import EntryRejected
from godot.json.structure import shown

SEARCHED_CHARS: Final = 65_536
"""How much of a message the full-text index covers (`log_search_vector` in schema/0001_logs.sql)."""

_WORD: Final = re.compile("[0-9A-Za-z\x80-\ud7ff\ue000-\U0010ffff]+")
"""ASCII punctuation separates words. Other characters are left to PostgreSQL, in messages and in searches."""

_TERM: Final = re.compile(r'(-?)"([^"]*)"?|(-?)([^\s"]+)')


def words(text: str) -> list[str]:
    """Split a text into the words that full-text search compares, in lower case."""
    return _WORD.findall(text.lower())


@attrs.frozen
class Term:
    """Words that stand next to each other in a message, or must not."""

    words: tuple[str, ...]
    negated: bool = False


@attrs.frozen
class Search:
    """A full-text search: every term of at least one alternative has to hold."""

    alternatives: tuple[tuple[Term, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Search:
        """Read the text of a search box: `"a phrase"`, `-without`, `this or that`.

        A word with punctuation inside (`tools/call`, `server.js`) is a phrase, because messages are
        indexed that way.

        :raises EntryRejected: it has no word.
        """
        alternatives: list[list[Term]] = [[]]
        for minus_phrase, phrase, minus_word, word in _TERM.findall(text):
            if word.lower() == "or" and not minus_word:
                alternatives.append([])
            elif found := words(phrase or word):
                alternatives[-1].append(Term(tuple(found), negated=bool(minus_phrase or minus_word)))
        kept = tuple(tuple(terms) for terms in alternatives if terms)
        if not kept:
            raise EntryRejected(
                f'search: must contain a word; it takes words, "a phrase", -without and or, not {shown(text)}'
            )
        return cls(kept)

    def websearch(self) -> str:
        """Word it for PostgreSQL's `websearch_to_tsquery`: each term becomes a phrase."""
        return " or ".join(
            " ".join(f'{"-" * term.negated}"{" ".join(term.words)}"' for term in terms) for terms in self.alternatives
        )
