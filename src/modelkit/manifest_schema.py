"""The JSON Schema by which editors complete and check a manifest, made from what validates it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeAlias

from modelkit import kinds
from modelkit.manifest_keys import ExcuseKeys, ManifestKeys, SignatureKeys, SourceKeys
from modelkit.validation import adapter

Schema: TypeAlias = dict[str, Any]


def schema() -> Schema:
    """JSON Schema, draft 2020-12, from the keys of a manifest and the `Options` of every module on the shelves.

    A project's own checks are not in it, for they differ by project: `limits` takes any mapping for a kind it does not
    know. What needs the whole file (dates, loose limits, names that refer to each other) only `load` knows.
    """
    defs: Schema = {}
    top = _of(ManifestKeys, "manifest", defs)
    top["properties"]["source"] |= {"anyOf": _sources(defs)}
    top["properties"]["signature"] |= {"anyOf": _signatures(defs)}
    top["properties"]["export"] |= {"anyOf": _choices("exporters", defs)}
    variant = defs["manifest.VariantKeys"]["properties"]
    variant["scheme"] |= {"anyOf": _choices("schemes", defs)}
    variant["limits"] |= {"properties": _limits(defs), "additionalProperties": {"type": "object"}}
    _add_tasks(top, defs)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "modelkit manifest"}
    return head | {key: _tidy(part) for key, part in top.items() if key != "title"} | {"$defs": _tidy(defs)}


def _of(options: type, name: str, defs: Schema) -> Schema:
    """The schema of one dataclass; those inside it go to `defs` under names of their own."""
    found: Schema = adapter(options).json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    defs |= {f"{name}.{inner}": body for inner, body in found.pop("$defs", {}).items()}
    return found


def _modules(shelf: str) -> list[tuple[str, str, type]]:
    """Kind, first line of the module's docstring and `Options` of everything on `shelf`."""
    found = [(kind, kinds.load(shelf, kind)) for kind in kinds.names(shelf)]
    return [(kind, (module.__doc__ or "").partition("\n")[0], module.Options) for kind, module in found]


def _choices(shelf: str, defs: Schema) -> list[Schema]:
    """A kind by itself, where its options have defaults, or with them in a mapping."""
    choices: list[Schema] = []
    for kind, description, options in _modules(shelf):
        body = _of(options, f"{shelf}.{kind}", defs)
        if not body.get("required"):
            choices.append({"const": kind, "description": description})
        choices.append(_closed({kind: body}, [kind], description))
    return choices


def _signatures(defs: Schema) -> list[Schema]:
    """One signature, or one for each part by its name."""
    defs["signature.Keys"] = _of(SignatureKeys, "signature", defs)
    one = {"$ref": "#/$defs/signature.Keys"}
    return [one, {"type": "object", "minProperties": 1, "additionalProperties": one}]


def _sources(defs: Schema) -> list[Schema]:
    beside = _of(SourceKeys, "source", defs)["properties"]
    plain = [
        _of(options, f"sources.{kind}", defs) | {"description": text} for kind, text, options in _modules("sources")
    ]
    defs["source.Mirror"] = {"anyOf": plain}
    beside["mirrors"]["items"] = {"$ref": "#/$defs/source.Mirror"}
    return [body | {"properties": body["properties"] | beside} for body in plain]


def _limits(defs: Schema) -> Schema:
    excuse = _of(ExcuseKeys, "excuse", defs)["properties"]
    found = {}
    for kind, description, options in _modules("checks"):
        body = _of(options, f"checks.{kind}", defs)
        found[kind] = _closed(body.get("properties", {}) | excuse, body.get("required", []), description)
    return found


def _add_tasks(top: Schema, defs: Schema) -> None:
    """Which further keys the file has depends on its task."""
    tasks = _modules("tasks")
    own = {item.name for _, _, options in tasks for item in fields(options)}
    top["properties"] |= dict.fromkeys(sorted(own), True)
    top["properties"]["task"]["enum"] = [kind for kind, _, _ in tasks]
    top["allOf"] = []
    for kind, _, options in tasks:
        body = _of(options, f"tasks.{kind}", defs)
        others = dict.fromkeys(sorted(own - {item.name for item in fields(options)}), False)
        then = {"properties": body.get("properties", {}) | others, "required": body.get("required", [])}
        top["allOf"].append({"if": {"properties": {"task": {"const": kind}}, "required": ["task"]}, "then": then})


def _closed(properties: Schema, required: list[str], description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _tidy(part: Any) -> Any:
    """Without what pydantic adds and nobody reads: titles made of names, and null as the default of a left-out key.

    Mappings whose keys have a pattern are closed; pydantic leaves them open to keys of any other form.
    """
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    closed = {"additionalProperties": False} if "patternProperties" in part else {}
    return {key: _tidy(value) for key, value in part.items() if not _is_noise(key, value)} | closed


def _is_noise(key: str, value: object) -> bool:
    # A property may be called title; then its value is a schema.
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
