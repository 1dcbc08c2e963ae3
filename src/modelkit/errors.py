"""One exception per actor: the class says who must act, the exit code says it to scripts."""

from __future__ import annotations

from pathlib import Path

from modelkit.vocabulary import Place

CONFORMING, NOT_CONFORMING, USAGE, COULD_NOT_RUN = 0, 1, 2, 3
"""Exit codes of every command."""
INTERRUPTED = 130
"""That of a command that Ctrl-C ended, as shells have it (128 and the number of SIGINT): no verdict."""


class ModelkitError(Exception):
    """Something a user can act on, told in one line: where, what, and what to do."""

    exit_code = COULD_NOT_RUN

    def __init__(self, message: str, *, where: Place | Path | str | None = None, hint: str | None = None) -> None:
        self.message, self.where, self.hint = message, where, hint
        super().__init__(message)

    def __str__(self) -> str:
        line = f"{self.where}: {self.message}" if self.where else self.message
        return f"{line}; {self.hint}" if self.hint else line


class ManifestError(ModelkitError):
    """The author of a manifest or of its lock must act. Carries every mistake of the file, one line each."""

    exit_code = USAGE

    def __init__(
        self,
        message: str,
        *,
        where: Place | Path | str | None = None,
        hint: str | None = None,
        mistakes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.mistakes = mistakes or (super().__str__(),)

    def __str__(self) -> str:
        return "\n".join(self.mistakes)


class SourceError(ModelkitError):
    """A place that should serve the weights did not, or served other bytes."""


class StageError(ModelkitError):
    """A tool failed while building; `log` keeps what it printed."""

    def __init__(
        self,
        message: str,
        *,
        where: Place | Path | str | None = None,
        hint: str | None = None,
        log: str = "",
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.log = log


class MissingFileError(StageError):
    """A source lacks a file that building needs.

    `hint` is for a manifest that does not want the file; `make` says how one comes by it where the place has none, and
    is None where the hint is right even so.
    """

    def __init__(
        self, name: str, *, besides: str = "", hint: str = "add it to `source.files`", make: str | None = ""
    ) -> None:
        super().__init__(f"no {name} in the source{f', but {besides}' if besides else ''}", hint=hint)
        self.name, self.make = name, make


class ArtifactError(ModelkitError):
    """A finished folder is not what modelkit put there."""

    exit_code = NOT_CONFORMING


class CheckError(ModelkitError):
    """A check could not run. A model that breaks a promise is a failed verdict, never this."""


class InputError(ModelkitError, ValueError):
    """The caller of a loaded model must act: what it was given is nothing it can answer.

    A prompt that is empty or too long, a text where a list belongs, no labels, an image cut short. It is a
    `ValueError`, too.
    """

    exit_code = USAGE
