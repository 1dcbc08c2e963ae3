"""What schemes leave open about a model, as a space of recipes: the options of each, matrices by the sort of layer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from modelkit import graphs, kinds
from modelkit.vocabulary import Choice

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

STEPS = 10
"""From 0 to 1, of a share such as `smoothing`; a trial's parameter counts them."""
LEARNED = {"smoothing": 0.5, "rounding": "gptq"}
"""What a search begins with beside the standards: SmoothQuant's own alpha for most models, and rounding that learns."""


@dataclass(frozen=True)
class Space:
    """Every recipe that a search may draw."""

    schemes: tuple[str, ...]
    """Kinds of schemes."""
    groups: tuple[str, ...]
    """Patterns of matrices that may get more precision than the rest, the most sensitive first."""

    def drawn(self, trial: BaseTrial) -> Choice:
        """The recipe that `trial` suggests."""
        scheme = trial.suggest_categorical("scheme", self.schemes)
        options = kinds.load("schemes", scheme).Options
        return Choice(scheme, options(**{name: self._suggested(trial, f"{scheme}.{name}", hint)
                                         for name, hint in _open(options).items()}))  # fmt: skip

    def _suggested(self, trial: BaseTrial, name: str, hint: Any) -> Any:
        if hint is float:
            return trial.suggest_int(name, 0, STEPS) / STEPS
        found = {key: trial.suggest_categorical(key, values) for key, values in self._values(name, hint)}
        if get_origin(hint) is Literal:
            return found[name]
        return tuple(group for group in self.groups if found[f"{name}.{group}"])

    def read(self, parameters: Mapping[str, Any]) -> Choice:
        """The recipe that a trial with these `parameters` had."""
        from optuna.trial import FixedTrial  # noqa: PLC0415

        return self.drawn(FixedTrial(dict(parameters)))

    def neighbours(self, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Parameters that differ in one step of one option."""
        scheme = parameters["scheme"]
        for name, hint in _open(kinds.load("schemes", scheme).Options).items():
            for key, values in self._values(f"{scheme}.{name}", hint):
                at = values.index(parameters[key])
                for near in values[max(at - 1, 0) : at + 2]:
                    if near != parameters[key]:
                        yield {**parameters, key: near}

    def _values(self, name: str, hint: Any) -> Iterator[tuple[str, list[Any]]]:
        """Parameter -> its values in order."""
        if get_origin(hint) is Literal:
            yield name, list(get_args(hint))
        elif hint is float:
            yield name, list(range(STEPS + 1))
        else:
            yield from ((f"{name}.{group}", [False, True]) for group in self.groups)

    def starts(self, size: Callable[[Choice], int | None]) -> list[dict[str, Any]]:
        """Parameters of the first trials: each scheme's standard, what learns, and that with more precision of each
        kind, and of all, for the most sensitive group; what does not fit (has no `size`) is made coarser."""
        return [
            self._fitting(self._parameters(scheme, learned, finer), size)
            for scheme in self.schemes
            for learned, finer in [(False, []), (True, []), *((True, names) for names in _finer(scheme))]
        ]

    def _parameters(self, scheme: str, learned: bool, finer: Sequence[str]) -> dict[str, Any]:
        options = kinds.load("schemes", scheme).Options
        values = asdict(options()) | (
            {name: LEARNED[name] for name in {*LEARNED} & {*_open(options)}} if learned else {}
        )
        found: dict[str, Any] = {"scheme": scheme}
        for name, hint in _open(options).items():
            if _is_patterns(hint):
                found |= {f"{scheme}.{name}.{group}": name in finer and n == 0 for n, group in enumerate(self.groups)}
            else:
                found[f"{scheme}.{name}"] = round(values[name] * STEPS) if hint is float else values[name]
        return found

    def _fitting(self, start: dict[str, Any], size: Callable[[Choice], int | None]) -> dict[str, Any]:
        """`start` if it fits, or the largest that fits with larger numbers (of blocks), or `start` when none does."""
        if size(self.read(start)) is not None:
            return start
        hints = _open(kinds.load("schemes", start["scheme"]).Options)
        keys = {
            f"{start['scheme']}.{name}": get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal
        }
        larger = {key: [one for one in keys[key] if one >= start[key]] for key in keys if type(start[key]) is int}
        coarser = [start | dict(zip(larger, values, strict=True)) for values in itertools.product(*larger.values())]
        sizes = [(size(self.read(one)) or 0) for one in coarser]
        return coarser[sizes.index(max(sizes))] if max(sizes) else start


def tunable(kind: str) -> bool:
    """Whether a search can draw recipes of the scheme: it forecasts their size, and understands all its options."""
    module = kinds.load("schemes", kind)
    hints = get_type_hints(module.Options)
    return hasattr(module, "forecast") and {*hints} == {*_open(module.Options)}


def _open(options: type) -> dict[str, Any]:
    hints = get_type_hints(options)
    return {
        one.name: hints[one.name]
        for one in fields(options)
        if get_origin(hints[one.name]) is Literal or hints[one.name] is float or _is_patterns(hints[one.name])
    }


def _finer(scheme: str) -> list[list[str]]:
    """Each option that names matrices by itself, and all of them."""
    names = [name for name, hint in _open(kinds.load("schemes", scheme).Options).items() if _is_patterns(hint)]
    return [*([name] for name in names), *([names] if len(names) > 1 else [])]


def _is_patterns(hint: Any) -> bool:
    return get_origin(hint) is tuple and get_args(hint) == (str, ...)


def matrices(converted: Path) -> dict[str, int]:
    """Name -> number of weights of every stored matrix that something multiplies with, in all parts."""
    from modelkit.graphs import files, products  # noqa: PLC0415

    found: dict[str, int] = {}
    for part in graphs.parts(converted):
        model = files.load(graphs.checkpoint(converted, part))
        factors = (products.factor_of(node) for node in model.graph.all_nodes())
        found |= {str(one.stored.name): one.array().size for one in factors if one}
    return found


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Pattern -> the names it stands for: the same matrix of all layers."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    return found


def products(recipe: Choice, sizes: Mapping[str, int]) -> float:
    """Integer multiplications per weight of the matrices: one more where the activation gets 16 bits."""
    patterns: Sequence[str] = getattr(recipe.options, "activations_16bit", ())
    twice = sum(size for name, size in sizes.items() if any(fnmatchcase(name, pattern) for pattern in patterns))
    return 1 + twice / max(sum(sizes.values()), 1)
