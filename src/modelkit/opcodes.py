"""Pickles without running them: the opcodes of a state_dict, turned into plain values by this module alone.

A pickle is a program. Python's own `Unpickler` looks names up and calls what it finds; this interpreter knows neither
imports nor calls, but the few opcodes that a dictionary of tensors is written with (pickle protocols 2 to 5,
`pickletools` explains each), and the few names that torch puts there. Whatever else a pickle asks for is refused.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from modelkit.errors import StageError

DTYPES: Mapping[str, str] = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""torch's class of a storage -> the type of its elements, by safetensors' names."""
MODULES = ("torch", "torch.cuda")
"""Where those classes are: a tensor that was saved on a GPU names `torch.cuda`."""
ORDERED, PARAMETER = "collections.OrderedDict", "torch._utils._rebuild_parameter"
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")

_VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, MemoryError)


@dataclass(frozen=True)
class Storage:
    """Where elements lie, as a pickle has it: `count` of them under `key`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A name that a pickle looks up: here no more than that."""

    full: str


class _Mark:
    """Where the items of a list, tuple or dictionary begin on the stack."""


class Damaged(Exception):  # noqa: N818
    """No complete pickle; the message says what is wrong with it."""


def load(file: IO[bytes], source: str) -> Any:
    """The value of the pickle that begins at `file`'s position; afterwards that is the byte behind it.

    Raises `StageError`, with `source` as the name of the file, for a pickle that asks for anything but tensors, and
    `Damaged` for what is no complete pickle.
    """
    try:
        return _Reading(source).value(file)
    except _DAMAGE as error:
        raise Damaged(str(error) or type(error).__name__) from error


class _Reading:
    """One pickle being read: a stack of values, and those that it means to use again."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def value(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                break
            self._do(opcode.name, argument)
        return self._stack.pop()

    def _do(self, name: str, argument: Any) -> None:  # noqa: PLR0912  one branch per opcode, as a table would have it
        stack = self._stack
        if name in _VALUES:
            stack.append(_CONSTANTS.get(name, argument))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_Mark())
        elif name in {"BINPUT", "LONG_BINPUT"}:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            stack.append(self._memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in _TUPLES:
            stack.append(tuple(self._last(_TUPLES[name])))
        elif name in {"APPEND", "APPENDS"}:
            self._append(self._marked() if name == "APPENDS" else self._last(1))
        elif name in {"SETITEM", "SETITEMS"}:
            self._set(self._marked() if name == "SETITEMS" else self._last(2))
        elif name == "GLOBAL":
            stack.append(self._name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(self._name(*self._last(2)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            stack.append(self._rebuilt(*self._last(2)))
        elif name == "BUILD":
            self._drop_attributes()
        elif name not in {"PROTO", "FRAME"}:
            raise self._refusal(f"uses the pickle opcode {name}")

    def _last(self, count: int) -> list[Any]:
        taken = [self._stack.pop() for _ in range(count)][::-1]
        if any(isinstance(value, _Mark) for value in taken):
            raise ValueError("a mark where a value should be")
        return taken

    def _marked(self) -> list[Any]:
        taken: list[Any] = []
        while not isinstance(value := self._stack.pop(), _Mark):
            taken.append(value)
        return taken[::-1]

    def _append(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("items for what is no list")
        self._stack[-1].extend(values)

    def _set(self, items: list[Any]) -> None:
        # Hashing a tuple of tuples of tuples could exhaust the machine's own stack.
        if type(self._stack[-1]) is not dict or not all(type(key) in {str, int} for key in items[::2]):
            raise ValueError("items for what is no dictionary, or keys that are neither text nor numbers")
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _drop_attributes(self) -> None:
        """torch hangs `_metadata` on a state_dict: versions of its own classes, which no tensor needs."""
        self._last(1)
        if type(self._stack[-1]) is not dict:
            raise self._refusal("gives attributes to what is no dictionary")

    def _name(self, module: str, name: str) -> _Name:
        full = f"{module}.{name}"
        if full in {ORDERED, PARAMETER, *TENSORS} or (module in MODULES and name in DTYPES):
            return _Name(full)
        raise self._refusal(f"asks to run {re.sub(r'[^ -~]', '?', full)[:100]}")

    def _rebuilt(self, name: Any, arguments: Any) -> Any:
        if not isinstance(name, _Name) or type(arguments) is not tuple:
            raise ValueError("a call of what is no function")
        if name.full == ORDERED and arguments == ():
            return {}
        if name.full == PARAMETER and isinstance(arguments[0], Tensor):
            return arguments[0]
        if name.full in TENSORS:
            return _tensor(*arguments[:4])
        raise self._refusal(f"asks to run {name.full} in a way that torch does not")

    def _refusal(self, what: str) -> StageError:
        return StageError(
            f"{self._source} {what}, which no dictionary of tensors needs; nothing of it was run",
            hint="do not load this file with anything else; convert a checkpoint you trust to safetensors",
        )


def _storage(parts: Any) -> Storage:
    """From `('storage', torch.FloatStorage, key, device, count)`; before torch 1.6 a sixth part said of what it is a
    view, and nothing has written one since 0.4."""
    word, kind, key, _, count, *view = parts
    if word != "storage" or not isinstance(kind, _Name) or type(key) is not str or type(count) is not int:
        raise ValueError("a storage without type, key or size")
    if view not in ([], [None]) or count < 0:
        raise ValueError("a storage that is a view of another")
    return Storage(DTYPES[kind.full.rpartition(".")[2]], key, count)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """What `torch._utils._rebuild_tensor_v2` would make; refuses a view that leaves its storage."""
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError("a tensor without storage, shape or strides")
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("a tensor whose shape and strides are no whole numbers")
    tensor = Tensor(storage, offset, shape, strides)
    if offset + extent(tensor) > storage.count:
        raise ValueError(f"a tensor that ends behind its storage of {storage.count} elements")
    return tensor


def extent(tensor: Tensor) -> int:
    """How many elements of the storage lie from the tensor's first to its last, both counted."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
