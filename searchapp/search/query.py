"""What a question's marks mean where its words count: "phrases" and -excluded words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from searchapp import errors

# A mark begins a word: 12" and state-of-the-art have none. A quote that is not closed is no mark either.
_MARKED = re.compile(
    r"""(?<!\S)(?P<without>-?)(?:"(?P<phrase>[^"]*)"|“(?P<curly>[^“”]*)”)|(?<!\S)-(?P<word>[^\s"“-]\S*)"""
)


# Each is a condition of its own.
MAX_MARKS = 100


@dataclass(frozen=True, slots=True)
class Query:
    """A question, read: a hit must have each of the ``phrases`` and none of the ``excluded`` words and phrases.

    ``text`` is what is encoded, and whose words count: the phrases are in it, what is excluded is not.
    """

    text: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def read(typed: str) -> Query:
    """Read a question as it was typed.

    :raises errors.InvalidInput: it says only what is not wanted, or has more than a hundred marks.

    >>> read('jaguar "top speed" -car -"sports car"')
    Query(text='jaguar top speed', phrases=('top speed',), excluded=('car', 'sports car'))
    """
    phrases: list[str] = []
    excluded: list[str] = []

    def note(mark: re.Match[str]) -> str:
        words = (mark["word"] or mark["phrase"] or mark["curly"] or "").strip()
        if mark["word"] or mark["without"]:
            excluded.append(words)
            return " "
        phrases.append(words)
        return f"{words} "

    text = " ".join(_MARKED.sub(note, typed).split()) if _MARKED.search(typed) else typed
    if not text:
        raise errors.InvalidInput("the query has nothing to look for; add words beside those that are excluded")
    if len(phrases) + len(excluded) > MAX_MARKS:
        raise errors.InvalidInput(
            f"the query has {len(phrases) + len(excluded):,} phrases and exclusions; at most {MAX_MARKS} can be asked"
        )
    return Query(text, tuple(filter(None, phrases)), tuple(filter(None, excluded)))
