"""Full-text search: what a person types into a search box, and the words that it is compared with. Pure: no driver."""

from __future__ import annotations

import re
from typing import Final

import attrs

from godot.errors import EntryRejected
from godot.json.structure import shown

SEARCHED_CHARS: Final = 65_536
"""How much of a message the full-text index sees (`log_search_vector` in schema/0001_logs.sql)."""

_WORD: Final = re.compile("[0-9A-Za-z\x80-\ud7ff\ue000-\U0010ffff]+")
"""ASCII punctuation separates words; what lies beyond ASCII is left to PostgreSQL, on both sides."""

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
    """A full-text search: one of the alternatives, every term of it."""

    alternatives: tuple[tuple[Term, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Search:
        """Read what a person types into a search box: `"a phrase"`, `-without`, `this or that`.

        A word with punctuation inside (`tools/call`, `server.js`) is a phrase, because that is how the
        messages are indexed.

        :raises EntryRejected: when there is no word in it.
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
        """Word it for PostgreSQL's `websearch_to_tsquery`, every term as a phrase."""
        return " or ".join(
            " ".join(f'{"-" * term.negated}"{" ".join(term.words)}"' for term in terms) for terms in self.alternatives
        )
