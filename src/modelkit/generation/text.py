"""Tokens into text as they come: never half a character, never half a string that would have ended the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

HALF = "\ufffd"
"""What the bytes of a character decode to as long as some are missing."""


class Writer:
    """The text of one answer, given out in pieces that are final."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        """`decode`: ids -> text."""
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._decoded, self._shown = "", 0
        self._held = ""
        self.stopped = False
        """Whether a stop string has ended the text."""

    def push(self, token: int) -> str:
        """The piece of text that is certain after `token`; often empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if not text.startswith(self._decoded):
            # A byte that fits nowhere can make a decoder take back the character before it; that one has been shown.
            self._ids, self._decoded, self._shown = self._ids[self._shown :], "", 0
            text = self._decode(self._ids)
        whole = text.rstrip(HALF)
        if len(whole) <= len(self._decoded):
            return ""
        self._shown = len(self._ids)
        return self._release(whole)

    def end(self) -> str:
        """The last piece, after the last token: what was held back and is no stop string after all."""
        if self.stopped:
            return ""
        piece = self._release(self._decode(self._ids)) + self._held
        self._held = ""
        return piece

    def _release(self, text: str) -> str:
        held = self._held + text[len(self._decoded) :]
        self._decoded = text
        found = [(at + len(stop), at) for stop in self._stop if (at := held.find(stop)) >= 0]
        if found:
            # The one that is complete first ends the text, however many characters a token brings.
            self.stopped, self._held = True, ""
            return held[: min(found)[1]]
        keep = max((beginning(held, stop) for stop in self._stop), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def beginning(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
