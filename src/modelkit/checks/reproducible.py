"""Built again from its source, the artifact is the same to the byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelkit.errors import CheckError, ModelkitError
from modelkit.vocabulary import FileDigest, Subject, Verdict

VERSION = 1
PROMISE = "converted, quantized and finalized again from the same source, every file has the same bytes"
PROFILE = "full"
REBUILDS = True
WORST = 5


@dataclass(frozen=True)
class Options:
    """No limits: bytes are equal or they are not."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Build once more outside the store. Raises `CheckError` when that fails."""
    try:
        again = subject.again()
    except CheckError:
        raise
    except ModelkitError as error:
        raise CheckError(f"it could not be built again: {error.message}", hint=error.hint) from error
    files = subject.artifact.files
    measured = {"files": len(files), "bytes": sum(entry.size for entry in files.values())}
    different = [name for name in sorted({*files, *again}) if files.get(name) != again.get(name)]
    if different:
        worst = tuple({"file": name, "was": _sha256(files, name), "again": _sha256(again, name)} for name in different)
        sentence = f"built again, {different[0]} has other bytes ({len(different)} of {len(files)} files differ)"
        return Verdict(
            "reproducible", "failed", sentence, {**measured, "different": len(different)}, worst=worst[:WORST]
        )
    return Verdict("reproducible", "passed", f"{len(files)} files, the same bytes again", {**measured, "different": 0})


def _sha256(files: Mapping[str, FileDigest], name: str) -> str | None:
    return files[name].sha256 if name in files else None
