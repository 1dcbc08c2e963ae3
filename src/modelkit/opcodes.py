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
        # A key or a place that is not there says nothing by itself.
        what = str(error) if isinstance(error, ValueError) else "its pickle breaks off or makes no sense"
        raise Damaged(what) from error


class _Reading:
    """One pickle being read: a stack of values, and those that it means to use again."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def value(self, file: IO[bytes]) -> Any:
        while (opcode := _OPCODES[file.read(1)]).name != "STOP":
            # Refused before its argument is looked at.
            if (action := _ACTIONS.get(opcode.name)) is None:
                raise self._refusal(f"uses the pickle opcode {opcode.name}")
            action(self, _argument(opcode, file))
        return self.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._last(1)[0]

    def keep(self, number: int | None) -> None:
        """Remember the value on top under `number`, or under the next."""
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def recall(self, number: int) -> None:
        self.push(self._memo[number])

    def tuple(self, count: int | None = None) -> None:
        self.push(tuple(self._marked() if count is None else self._last(count)))

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

    def append(self, *, several: bool) -> None:
        values = self._marked() if several else self._last(1)
        if type(self._stack[-1]) is not list:
            raise ValueError("items for what is no list")
        self._stack[-1].extend(values)

    def set(self, *, several: bool) -> None:
        items = self._marked() if several else self._last(2)
        # Hashing a tuple of tuples of tuples could exhaust the machine's own stack.
        if type(self._stack[-1]) is not dict or not all(type(key) in {str, int} for key in items[::2]):
            raise ValueError("items for what is no dictionary, or keys that are neither text nor numbers")
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def drop_attributes(self) -> None:
        """torch hangs `_metadata` on a state_dict: versions of its own classes, which no tensor needs."""
        self.pop()
        if type(self._stack[-1]) is not dict:
            raise self._refusal("gives attributes to what is no dictionary")

    def name(self, module: Any, name: Any) -> None:
        # Anything but text could be a structure that takes for ever to print.
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        full = f"{module}.{name}"
        if full not in {ORDERED, PARAMETER, *TENSORS} and not (module in MODULES and name in DTYPES):
            raise self._refusal(f"asks to run {re.sub(r'[^ -~]', '?', full)[:100]}")
        self.push(_Name(full))

    def stacked_name(self) -> None:
        self.name(*self._last(2))

    def rebuild(self) -> None:
        """What a call would give: a dictionary, a tensor; nothing is called."""
        name, arguments = self._last(2)
        if not isinstance(name, _Name) or type(arguments) is not tuple:
            raise ValueError("a call of what is no function")
        if name.full == ORDERED and arguments == ():
            self.push({})
        elif name.full == PARAMETER and arguments and isinstance(arguments[0], Tensor):
            self.push(arguments[0])
        elif name.full in TENSORS:
            self.push(_tensor(*arguments[:4]))
        else:
            raise self._refusal(f"asks to run {name.full} in a way that torch does not")

    def _refusal(self, what: str) -> StageError:
        return StageError(
            f"{self._source} {what}, which no dictionary of tensors needs; nothing of it was run",
            hint="do not load this file with anything else; convert a checkpoint you trust to safetensors",
        )


def _argument(opcode: pickletools.OpcodeInfo, file: IO[bytes]) -> Any:
    if opcode.name == "GLOBAL":
        # pickletools would resolve the escapes of a string here, which a name does not have.
        lines = file.readline(), file.readline()
        return [line.removesuffix(b"\n").decode() for line in lines]
    return opcode.arg.reader(file) if opcode.arg else None


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


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
)
_ACTIONS: Mapping[str, Callable[[_Reading, Any], None]] = {
    **dict.fromkeys(_LITERALS, lambda it, value: it.push(value)),
    **dict.fromkeys(("PROTO", "FRAME"), lambda _, __: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda it, number: it.keep(number)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda it, number: it.recall(number)),
    "NONE": lambda it, _: it.push(None),
    "NEWTRUE": lambda it, _: it.push(True),
    "NEWFALSE": lambda it, _: it.push(False),
    "EMPTY_DICT": lambda it, _: it.push({}),
    "EMPTY_LIST": lambda it, _: it.push([]),
    "EMPTY_TUPLE": lambda it, _: it.push(()),
    "MARK": lambda it, _: it.push(_Mark()),
    "TUPLE": lambda it, _: it.tuple(),
    "TUPLE1": lambda it, _: it.tuple(1),
    "TUPLE2": lambda it, _: it.tuple(2),
    "TUPLE3": lambda it, _: it.tuple(3),
    "APPEND": lambda it, _: it.append(several=False),
    "APPENDS": lambda it, _: it.append(several=True),
    "SETITEM": lambda it, _: it.set(several=False),
    "SETITEMS": lambda it, _: it.set(several=True),
    "GLOBAL": lambda it, names: it.name(*names),
    "STACK_GLOBAL": lambda it, _: it.stacked_name(),
    "BINPERSID": lambda it, _: it.push(_storage(it.pop())),
    "REDUCE": lambda it, _: it.rebuild(),
    "BUILD": lambda it, _: it.drop_attributes(),
}
"""What each opcode does; one that is not here is refused."""
