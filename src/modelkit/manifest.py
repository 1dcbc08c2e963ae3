"""One YAML file -> `Manifest`, or every mistake in it at once, each with its line and column.

Three steps: `yaml_marks` reads nodes, `validation` holds them against `manifest_keys` and the shelves' `Options`, and
what only this module can know is judged here: which shelf a key names, which limits are loose, what refers to what.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from modelkit import check_modules, kinds, yaml_marks
from modelkit.errors import ManifestError
from modelkit.manifest_keys import (
    ExcuseKeys,
    KnownFailureKeys,
    ManifestKeys,
    SignatureKeys,
    SourceKeys,
    VariantKeys,
    expand,
)
from modelkit.manifest_schema import schema
from modelkit.marks import Mistakes, Node, Trail, one_line, places
from modelkit.validation import got, validate
from modelkit.vocabulary import (
    UNCHANGED,
    WHOLE,
    Choice,
    KnownFailure,
    Manifest,
    Place,
    Signature,
    Source,
    TensorSpec,
    Variant,
)

PART = r"[a-z][a-z0-9_]*"
"""A part's name becomes a file's name."""

__all__ = ["find", "load", "schema"]


def load(path: Path) -> Manifest:
    """The manifest at `path`. Imports its shelf modules, but fetches and builds nothing.

    Raises `ManifestError` with one line `file:line:column: key: problem` per mistake, in the order of the file.
    """
    mistakes = Mistakes(path)
    return _Reading(path, mistakes, yaml_marks.read(path, mistakes)).manifest()


def find(paths: Iterable[Path]) -> list[Path]:
    """The manifests that `paths` name: files as they are, folders as the `.yaml` and `.yml` files below them, sorted.

    Raises `ManifestError` that names every path that does not exist.
    """
    paths = list(paths)
    if missing := [f"{path}: no such file or folder" for path in paths if not path.exists()]:
        raise ManifestError("no such file or folder", mistakes=tuple(missing))
    found = [file for path in paths for file in (_below(path) if path.is_dir() else [path])]
    return list(dict.fromkeys(found))


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".yaml", ".yml"} and path.is_file())


@dataclass
class _Reading:
    """One file on its way to a manifest. Every method adds to `mistakes` what is wrong and goes on."""

    path: Path
    mistakes: Mistakes
    root: Node

    @cached_property
    def project(self) -> Path | None:
        return kinds.project_of(self.path)

    @cached_property
    def checks(self) -> tuple[str, ...]:
        return kinds.names("checks", self.project)

    def manifest(self) -> Manifest:
        top, keys = self.root.items(), {item.name for item in fields(ManifestKeys)}
        file = validate(ManifestKeys, self.root.only(keys), (), self.mistakes)
        task = self._task(top.get("task"), self.root.only(top.keys() - keys), keys)
        source = self._source(top.get("source"))
        export = self._choice("exporters", top.get("export"), ("export",))
        signatures = self._signatures(top.get("signature"))
        schemes, limits = {}, {}
        for name, node in _items(top.get("variants")).items():
            scheme = node.items().get("scheme", Node(UNCHANGED, node.line, node.column))
            schemes[name] = self._choice("schemes", scheme, ("variants", name, "scheme"))
            limits[name] = self._limits(node.items().get("limits"), ("variants", name, "limits"))
        self._known_failures(top.get("known_failures"), schemes)
        self.mistakes.raise_any()
        # Whatever is None has left a mistake; this is for the type checker.
        assert file is not None
        assert task is not None
        assert source is not None
        assert export is not None
        where = places(self.root, self.path)
        return Manifest(
            path=self.path,
            name=file.name,
            license=file.license,
            task=task,
            source=source,
            export=export,
            signatures=signatures,
            variants={name: _variant(name, keys, schemes[name], limits[name]) for name, keys in file.variants.items()},
            runtimes=file.runtimes,
            known_failures=tuple(_known_failure(item, index, where) for index, item in enumerate(file.known_failures)),
            places=where,
        )

    def _module(self, shelf: str, kind: str, node: Node, trail: Trail) -> ModuleType | None:
        try:
            return check_modules.load(kind, self.project) if shelf == "checks" else kinds.load(shelf, kind)
        except ManifestError as error:
            # A project's file that is wrong says so itself: the manifest only named it.
            self.mistakes.add(node, trail, str(error) if error.where else error.message)
            return None

    def _choice(self, shelf: str, node: Node | None, trail: Trail) -> Choice | None:
        """`direct`, or `{direct: {option: value}}`."""
        if node is None:  # reported as missing
            return None
        if isinstance(node.value, str):
            kind, options = node.value, Node({}, node.line, node.column)
        elif isinstance(node.value, dict) and len(node.value) == 1:
            [(kind, options)] = node.value.items()
            trail = (*trail, kind)
        else:
            problem = f"expected a kind, or one kind with its options in a mapping, got {got(node, 'text')}"
            self.mistakes.add(node, trail, problem)
            return None
        if (module := self._module(shelf, kind, options, trail)) is None:
            return None
        value = validate(module.Options, options, trail, self.mistakes)
        return Choice(kind, value) if value is not None else None

    def _task(self, node: Node | None, rest: Node, keys: set[str]) -> Choice | None:
        """The task's options stand at the top of the file, because they say what the model is."""
        module = None
        if node and isinstance(node.value, str):
            module = self._module("tasks", node.value, node, ("task",))
        modules = [module] if module else [kinds.load("tasks", kind) for kind in kinds.names("tasks")]
        own = {item.name for each in modules for item in fields(each.Options)}
        for key, child in rest.items().items():
            if key not in own:
                self.mistakes.add(child, (key,), f"unknown key{kinds.did_you_mean(key, keys | own)}")
        if module is None or node is None:
            return None
        value = validate(module.Options, rest.only(own), (), self.mistakes)
        return Choice(str(node.value), value) if value is not None else None

    def _source(self, node: Node | None) -> Source | None:
        if node is None:
            return None
        own = {item.name for item in fields(SourceKeys)}
        first = self._from(node, ("source",), own)
        keys = validate(SourceKeys, node.only(own), ("source",), self.mistakes)
        listed = node.items().get("mirrors")
        mirrors = [
            self._from(mirror, ("source", "mirrors", index))
            for index, mirror in enumerate(listed.value if listed and isinstance(listed.value, list) else [])
        ]
        return Source(first, tuple(filter(None, mirrors)), keys.files) if first and keys else None

    def _from(self, node: Node, trail: Trail, beside: Collection[str] = ()) -> Choice | None:
        """A mapping in which one key is the kind; that key and its neighbours are the kind's options."""
        if not isinstance(node.value, dict):
            self.mistakes.add(node, trail, f"expected a mapping, got {got(node, 'a mapping')}")
            return None
        known = kinds.names("sources")
        named = [key for key in node.value if key in known]
        for key in named[1:]:
            problem = f"a source has one kind and this one is '{named[0]}' already; other places go under mirrors"
            self.mistakes.add(node.value[key], (*trail, key), problem)
        if len(named) != 1:
            if not named:
                self._no_kind(node, trail, known)
            return None
        if (module := self._module("sources", named[0], node, trail)) is None:
            return None
        value = validate(module.Options, node.only(node.value.keys() - set(beside)), trail, self.mistakes, beside)
        return Choice(named[0], value) if value is not None else None

    def _no_kind(self, node: Node, trail: Trail, known: tuple[str, ...]) -> None:
        """Without its kind a source's other keys cannot be judged; one that nearly is a kind most likely is it."""
        near = [(key, hint) for key in node.items() if (hint := kinds.did_you_mean(key, known)).endswith("?")]
        for key, hint in near:
            self.mistakes.add(node.items()[key], (*trail, key), f"unknown key{hint}")
        if not near:
            self.mistakes.add(node, trail, f"expected one of the keys {', '.join(known)}")

    def _signatures(self, node: Node | None) -> dict[str, Signature]:
        """One signature, or one for each part of the model by its name."""
        if node is None:
            return {}
        own = {item.name for item in fields(SignatureKeys)}
        if not isinstance(node.value, dict) or not node.value or own & node.value.keys():
            found = {WHOLE: self._signature(node, ("signature",))}
        else:
            found = {part: self._signature(child, ("signature", part)) for part, child in node.items().items()}
            for part in (part for part in found if not re.fullmatch(PART, part)):
                problem = "expected inputs and outputs, or parts with names such as 'text_model'"
                self.mistakes.add(node.items()[part], ("signature", part), problem)
        return {part: signature for part, signature in found.items() if signature is not None}

    def _signature(self, node: Node, trail: Trail) -> Signature | None:
        keys = validate(SignatureKeys, node, trail, self.mistakes)
        if keys is None:
            return None
        for side, tensors in (("inputs", keys.inputs), ("outputs", keys.outputs)):
            names = Counter(name for key in tensors for name in expand(key))
            for name in (name for name, count in names.items() if count > 1):
                self.mistakes.add(node.items()[side], (*trail, side), f"'{name}' is named {names[name]} times")
        return Signature(_tensors(keys.inputs), _tensors(keys.outputs))

    def _limits(self, node: Node | None, trail: Trail) -> dict[str, Any]:
        found = {kind: self._limit(kind, child, (*trail, kind)) for kind, child in _items(node).items()}
        return {kind: options for kind, options in found.items() if options is not None}

    def _limit(self, kind: str, node: Node, trail: Trail) -> Any:
        if (module := self._module("checks", kind, node, trail)) is None:
            return None
        if not isinstance(node.value, dict):
            self.mistakes.add(node, trail, f"expected a mapping, got {got(node, 'a mapping')}")
            return None
        beside = [item.name for item in fields(ExcuseKeys)]
        excuse = validate(ExcuseKeys, node.only(beside), trail, self.mistakes)
        options = validate(module.Options, node.only(node.value.keys() - set(beside)), trail, self.mistakes, beside)
        if excuse and excuse.until and excuse.until < _today():
            self.mistakes.add(
                node.value["until"], (*trail, "until"), f"expired on {excuse.until}: take it out, or give a later day"
            )
        if excuse and options is not None:
            self._excused(node, options, [name for name in beside if getattr(excuse, name) is None], trail)
        return options

    def _excused(self, node: Node, limits: Any, lacking: list[str], trail: Trail) -> None:
        """A looser limit is a debt: it says why, and until when."""
        for name, standard in _looser(limits):
            if lacking and name in node.items():
                needs = " and ".join(f"'{key}'" for key in lacking)
                problem = (
                    f"{node.items()[name].text} is looser than the standard ({standard}) and needs {needs} beside it"
                )
                self.mistakes.add(node.items()[name], (*trail, name), problem)

    def _known_failures(self, node: Node | None, variants: Collection[str]) -> None:
        listed = node.value if node and isinstance(node.value, list) else []
        said = set()
        for index, item in enumerate(listed):
            both = tuple(str(one.value) if (one := item.items().get(key)) else "" for key in ("variant", "check"))
            if both in said:
                self.mistakes.add(item, ("known_failures", index), f"{' '.join(both)} is excused above already")
            said.add(both)
            for key, what, known in (("variant", "variant", variants), ("check", "check", self.checks)):
                name = item.items().get(key)
                if name and isinstance(name.value, str) and name.value not in known:
                    problem = f"unknown {what} '{one_line(name.value)}'{kinds.did_you_mean(name.value, known)}"
                    self.mistakes.add(name, ("known_failures", index, key), problem)


def _looser(limits: Any) -> Iterator[tuple[str, str]]:
    """Name and standard of every limit that lets more through than the field's default, which is the standard."""
    for item in fields(limits):
        sense, standard, value = item.metadata.get("sense"), item.default, getattr(limits, item.name)
        if sense is None or standard is MISSING or standard is None or value == standard:
            continue
        # No limit at all is the loosest one.
        if value is None or (value < standard) == (sense == ">="):
            yield item.name, f"{sense} {standard}"


def _items(node: Node | None) -> dict[str, Node]:
    return node.items() if node else {}


def _today() -> date:
    # The same day for everyone who reads the same file at the same moment.
    return datetime.now(UTC).date()


def _tensors(found: Mapping[str, tuple[str, tuple[int | str, ...]]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, *tensor) for key, tensor in found.items() for name in expand(key))


def _variant(name: str, keys: VariantKeys, scheme: Choice | None, limits: Mapping[str, Any]) -> Variant:
    assert scheme is not None
    channel = keys.channel or ("prod" if name.startswith("int4") else "dev")
    return Variant(name, scheme, channel, keys.budget, limits)


def _known_failure(item: KnownFailureKeys, index: int, where: Mapping[str, Place]) -> KnownFailure:
    return KnownFailure(item.variant, item.check, item.because, item.until, where[f"known_failures.{index}"])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
