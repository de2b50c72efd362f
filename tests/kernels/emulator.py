"""Run the PTX of a CUDA kernel on the CPU, and find what a GPU would do silently.

All threads of some blocks are one NumPy array; of those that have not finished, the ones at the
first instruction go on together. Found are: accesses out of bounds or misaligned, races in shared
memory between barriers, reads of what nobody wrote, elements of the result that are written twice
or read back, threads of a block that wait at different barriers, and shuffles that
part of a warp does not reach. Times, caches and the order of blocks it knows nothing of.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WARP = 32
_BANK = {"p": np.bool_, "rs": np.uint16, "r": np.uint32, "rd": np.uint64, "f": np.float32}
_BANK["fd"] = np.float64
_TYPES = {
    f"{k}{8 * n}": np.dtype(f"{c}{n}")
    for n in (1, 2, 4, 8)
    for k, c in zip("usb", "uiu", strict=True)
}
_TYPES |= {"f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8")}
_TYPES["pred"] = np.dtype(bool)


class KernelError(AssertionError):
    """What the kernel may not do."""


class Memory:
    """The device's memory: arrays far apart, each of whose bytes knows whether it was written."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.known: list[np.ndarray | None] = []  # whether each byte holds a value
        self.written: list[np.ndarray] = []  # bytes that the running kernel wrote

    def add(self, array: np.ndarray, known: bool = True) -> int:
        """Take a flat array, of which ``known`` bytes may be read; return its address."""
        data = array.view(np.uint8)
        self.arrays.append(data)
        self.known.append(None if known else np.zeros(len(data), bool))
        self.written.append(np.zeros(0 if known else len(data), bool))
        return len(self.arrays) << 40

    def start(self) -> None:
        """Forget what the last kernel wrote."""
        for written in self.written:
            written[:] = False

    def _find(self, address: np.ndarray, size: int, what: str) -> tuple[int, np.ndarray]:
        which, at = address >> np.uint64(40), address & np.uint64((1 << 40) - 1)
        k = int(which[0]) - 1
        if (which != which[0]).any() or not 0 <= k < len(self.arrays):
            raise KernelError(f"{what} outside of any array")
        if (at + np.uint64(size) > np.uint64(len(self.arrays[k]))).any():
            raise KernelError(f"{what} out of bounds: byte {at.max()} of {len(self.arrays[k])}")
        if (at % np.uint64(size)).any():
            raise KernelError(f"{what} misaligned")
        return k, at.astype(np.int64)

    def load(self, address: np.ndarray, dtype: np.dtype) -> np.ndarray:
        k, at = self._find(address, dtype.itemsize, "read")
        known = self.known[k]
        if known is not None and not known[at].all():
            raise KernelError("read of what nobody wrote")
        if len(self.written[k]) and self.written[k][at].any():
            raise KernelError("read of what this kernel wrote")
        return self.arrays[k].view(dtype)[at // dtype.itemsize]

    def store(self, address: np.ndarray, values: np.ndarray) -> None:
        k, at = self._find(address, values.dtype.itemsize, "write")
        known, written = self.known[k], self.written[k]
        if known is None:
            raise KernelError("write to an input")
        if written[at].any() or len(np.unique(at)) < len(at):
            raise KernelError("written twice")
        for i in range(values.dtype.itemsize):
            known[at + i] = written[at + i] = True
        self.arrays[k].view(values.dtype)[at // values.dtype.itemsize] = values


class Shared:
    """The shared memory of some blocks; each word knows who read and wrote it since a barrier."""

    def __init__(self, blocks: int, size: int) -> None:
        self.data = np.full((blocks, max(size, 8)), 0xA5, np.uint8)
        words = blocks, max(size, 8) // 4
        self.wrote, self.writer = np.full(words, -1), np.full(words, -1)  # epoch, thread
        self.read, self.reader = np.full(words, -1), np.full(words, -1)
        self.epoch = np.zeros(blocks, int)

    def _at(self, address: np.ndarray, size: int) -> np.ndarray:
        at = address.astype(np.int64)
        if (at < 0).any() or (at + size > self.data.shape[1]).any() or (at % size).any():
            raise KernelError("shared memory: out of bounds or misaligned")
        return at

    def load(
        self, block: np.ndarray, thread: np.ndarray, address: np.ndarray, dtype: np.dtype
    ) -> np.ndarray:
        at, now = self._at(address, dtype.itemsize), self.epoch[block]
        word = block, at // 4
        if (self.wrote[word] < 0).any():
            raise KernelError("shared memory: read of what nobody wrote")
        if ((self.wrote[word] == now) & (self.writer[word] != thread)).any():
            raise KernelError("shared memory: race between a write and a read")
        before = np.where(self.read[word] == now, self.reader[word], thread)
        self.read[word], self.reader[word] = now, thread
        many = (self.reader[word] != thread) | (before != thread)
        self.reader[block[many], at[many] // 4] = -1
        return self.data.view(dtype)[block, at // dtype.itemsize]

    def store(
        self, block: np.ndarray, thread: np.ndarray, address: np.ndarray, values: np.ndarray
    ) -> None:
        at, now = self._at(address, values.dtype.itemsize), self.epoch[block]
        word = block, at // 4
        others = (self.wrote[word] == now) & (self.writer[word] != thread)
        others |= (self.read[word] == now) & (self.reader[word] != thread)
        if others.any() or len(np.unique(block << 32 | at)) < len(at):
            raise KernelError("shared memory: race of a write")
        self.wrote[word], self.writer[word] = now, thread
        self.data.view(values.dtype)[block, at // values.dtype.itemsize] = values


_COMPARE: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _minmax(name: str, kind: str) -> Callable[..., Any]:
    numbers = {"min": np.fmin, "max": np.fmax}  # a NaN yields to a number
    return numbers[name] if kind == "f" else {"min": np.minimum, "max": np.maximum}[name]


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = np.abs(a) // np.abs(b) if a.dtype.kind == "i" else a // b
    return np.where((a < 0) != (b < 0), -quotient, quotient) if a.dtype.kind == "i" else quotient


def _high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    wide = [int(x) * int(y) >> 64 for x, y in zip(*np.broadcast_arrays(a, b), strict=True)]
    return np.array(wide, np.int64)


_PLAIN: dict[str, Callable[..., Any]] = {
    "mov": lambda a: a, "cvta": lambda a: a, "abs": np.abs, "neg": np.negative,
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide,
    "mad": lambda a, b, c: a * b + c, "rcp": lambda a: np.float32(1) / a,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": lambda a, n: a << n.astype(a.dtype), "shr": lambda a, n: a >> n.astype(a.dtype),
}  # fmt: skip


class Program:
    """One kernel, translated; :meth:`run` counts as it goes.

    Attributes:
        counts: instructions, loads and stores (in global memory) of all threads of all runs.
        flight: the most loads of a thread between two branches or barriers, which the assembler may
            all issue before it waits for the first.
        uneven: the most instructions of a thread over the mean, in the last run.
    """

    def __init__(self, ptx: str) -> None:
        self.reset()
        self._offsets: dict[str, int] = {}
        self.shared = 0
        for align, name, size in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", ptx):
            self._offsets[name] = -(-self.shared // int(align)) * int(align)
            self.shared = self._offsets[name] + int(size)
        self.parameters = re.findall(r"\.param \.(\w+) \w+_param_\d+", ptx)
        body = ptx[ptx.index("{", ptx.index(".entry")) + 1 : ptx.rindex("}")]
        self._lengths = {n: int(c) for n, c in re.findall(r"\.reg \.\w+\s+%(\w+?)<(\d+)>;", body)}
        self._code: list[tuple[str, list[str], list[str]]] = []  # predicate, operator, operands
        self._labels: dict[str, int] = {}
        for line in (raw.split("//")[0].strip() for raw in body.splitlines()):
            if line.endswith(":"):
                self._labels[line[:-1]] = len(self._code)
            elif found := re.match(r"(?:@(!?%p\d+)\s+)?([a-z][\w.]*)\s*(.*);", line):
                operands = re.split(r",\s*(?![^\[]*\])", found[3]) if found[3] else []
                self._code.append((found[1] or "", found[2].split("."), operands))

    def reset(self) -> None:
        """Count from 0."""
        self.counts = {"instructions": 0, "loads": 0, "stores": 0}
        self.flight, self.uneven = 0, 1.0

    def run(
        self, memory: Memory, grid: Sequence[int], threads: int, values: Sequence[Any],
        blocks: Sequence[int] | None = None, together: int = 32,
    ) -> None:  # fmt: skip
        """Run blocks, by default all of the grid, some at a time."""
        memory.start()
        x, y, z = (*grid, 1, 1)[:3]
        if not (0 < x < 1 << 31 and 0 < y < 65536 and 0 < z < 65536):
            raise KernelError(f"a grid of {x} x {y} x {z} blocks")
        given = [
            np.array([value]).astype(_TYPES[kind])
            for kind, value in zip(self.parameters, values, strict=True)
        ]
        chosen = np.arange(x * y * z) if blocks is None else np.asarray(blocks)
        for i in range(0, len(chosen), together):
            _Run(self, memory, (x, y, z), threads, given, chosen[i : i + together]).go()


class _Run:
    """Some blocks that run together."""

    def __init__(
        self, program: Program, memory: Memory, grid: tuple[int, int, int], threads: int,
        given: list[np.ndarray], blocks: np.ndarray,
    ) -> None:  # fmt: skip
        self.program, self.memory, self.given = program, memory, given
        count = len(blocks) * threads
        self.thread = np.tile(np.arange(threads), len(blocks))
        self.block = np.repeat(np.arange(len(blocks)), threads)
        self.shared = Shared(len(blocks), program.shared)
        numbers = blocks[self.block]
        x, y, z = grid
        self.special = {
            "%tid.x": self.thread, "%laneid": self.thread % WARP,
            "%ctaid.x": numbers % x, "%ctaid.y": numbers // x % y, "%ctaid.z": numbers // (x * y),
            "%nctaid.x": np.full(count, x), "%ntid.x": np.full(count, threads),
        }  # fmt: skip
        lengths = program._lengths.items()
        self.registers = {n: np.zeros((length, count), _BANK[n]) for n, length in lengths}
        self.pc, self.waits = np.zeros(count, int), np.zeros(count, bool)
        self.steps = np.zeros(count, int)
        self.end = len(program._code)

    def go(self) -> None:
        with np.errstate(all="ignore"):
            while True:
                ready = (self.pc < self.end) & ~self.waits
                if not ready.any():
                    if not self.waits.any():
                        break
                    self._barrier()
                    continue
                first = self.pc[ready].min()
                mine = ready & (self.pc == first)
                others = self.pc[ready & ~mine]
                self._straight(first, mine, others.min() if len(others) else self.end)
        self.program.uneven = float(self.steps.max() / self.steps.mean())

    def _barrier(self) -> None:
        for block in range(len(self.shared.epoch)):
            at = self.pc[(self.block == block) & self.waits]
            if len(np.unique(at)) > 1:
                raise KernelError("threads of a block wait at different barriers")
        self.waits[:] = False
        self.shared.epoch += 1

    def _straight(self, pc: int, mine: np.ndarray, stop: int) -> None:
        """Run the threads that are ``mine`` until they part, wait or come to ``stop``."""
        self.index: Any = slice(None) if mine.all() else np.flatnonzero(mine)
        size, start, self.loads = int(mine.sum()), pc, 0
        while True:
            predicate, operator, operands = self.program._code[pc]
            pc += 1
            if operator[0] == "bra":
                taken = np.ones(size, bool)
                if predicate:
                    taken = self._get(predicate.strip("!"), "pred") ^ (predicate[0] == "!")
                self.pc[self.index] = np.where(taken, self.program._labels[operands[0]], pc)
                break
            if predicate:
                raise NotImplementedError(f"a predicate before {'.'.join(operator)}")
            if operator[0] == "ret":
                self.pc[self.index] = self.end
                break
            if operator[:2] == ["bar", "warp"]:
                self._lanes(size)
                continue
            if operator[0] == "bar":
                self.pc[self.index], self.waits[self.index] = pc, True
                break
            self._do(operator, operands, size)
            if pc >= stop:
                self.pc[self.index] = pc
                break
        self.steps[self.index] += pc - start
        self.program.counts["instructions"] += (pc - start) * size
        self.program.flight = max(self.program.flight, self.loads)

    def _get(self, name: str, kind: str) -> np.ndarray:
        """Return an operand's value for the threads that run, as the type ``kind``."""
        dtype = _TYPES[kind]
        if name in self.special:
            return self.special[name][self.index].astype(dtype)
        if found := re.fullmatch(r"%(p|rs|rd|r|fd|f)(\d+)", name):
            values = self.registers[found[1]][int(found[2])][self.index]
            if values.dtype.itemsize != dtype.itemsize:
                values = values.astype(f"u{dtype.itemsize}")
            return values.view(dtype)
        if name[:2] in ("0f", "0d"):
            form = ">f" if name[1] == "f" else ">d"
            return np.array([struct.unpack(form, bytes.fromhex(name[2:]))[0]], dtype)
        number = self.program._offsets.get(name)
        number = int(name) if number is None else number
        if dtype.kind == "b":
            return np.array([bool(number)])
        return np.array([number & (1 << 8 * dtype.itemsize) - 1], f"u{dtype.itemsize}").view(dtype)

    def _set(self, name: str, values: np.ndarray) -> None:
        bank, number = re.fullmatch(r"%(p|rs|rd|r|fd|f)(\d+)", name).groups()  # type: ignore[union-attr]
        registers = self.registers[bank][int(number)]
        if values.dtype.itemsize == registers.dtype.itemsize:
            registers[self.index] = values.view(registers.dtype)
        else:  # signed values keep their sign
            registers[self.index] = values.astype(registers.dtype)

    def _address(self, operand: str, size: int) -> np.ndarray:
        name, _, offset = operand.strip("[]").partition("+")
        base = self._get(name, "u64") + np.array([int(offset or 0)]).view(np.uint64)
        return np.broadcast_to(base, size)

    def _do(self, operator: list[str], operands: list[str], size: int) -> None:
        name, kind = operator[0], operator[-1]
        if name in ("ld", "st"):
            self._move(operator, operands, size)
        elif name == "setp":
            a, b = (self._get(o, kind) for o in operands[1:])
            test = operator[1]
            found = _COMPARE[test[:2]](a, b)
            if kind[0] == "f":
                unordered = np.isnan(a) | np.isnan(b)
                found = found | unordered if test.endswith("u") else found & ~unordered
            self._set(operands[0], np.broadcast_to(found, size))
        elif name == "selp":
            a, b = (self._get(o, kind) for o in operands[1:3])
            c = self._get(operands[3], "pred")
            self._set(operands[0], np.where(c, a, b))
        elif name == "cvt":
            self._set(operands[0], self._convert(operator, operands[1], size))
        elif name == "shfl":
            self._shuffle(operator[2], operands, size)
        elif name in ("min", "max"):
            a, b = (self._get(o, kind) for o in operands[1:])
            self._set(operands[0], _minmax(name, kind[0])(a, b))
        elif name == "fma":  # its single rounding, for float32 by way of float64
            a, b, c = (self._get(o, kind).astype(np.float64) for o in operands[1:])
            self._set(operands[0], (a * b + c).astype(_TYPES[kind]))
        elif operator[:2] == ["mul", "hi"]:
            self._set(operands[0], _high(*(self._get(o, kind) for o in operands[1:])))
        elif operator[:2] == ["mul", "wide"]:
            wide = _TYPES[kind[0] + "64"]
            a, b = (self._get(o, kind).astype(wide) for o in operands[1:])
            self._set(operands[0], a * b)
        elif name in ("shl", "shr"):
            a, b = self._get(operands[1], kind), self._get(operands[2], "u32")
            self._set(operands[0], _PLAIN[name](a, b))
        elif name in _PLAIN:
            values = _PLAIN[name](*(self._get(o, kind) for o in operands[1:]))
            self._set(operands[0], np.broadcast_to(values, size))
        else:
            raise NotImplementedError(".".join(operator))

    def _move(self, operator: list[str], operands: list[str], size: int) -> None:
        name, space, kind = operator[0], operator[1], operator[-1]
        if space == "param":
            number = int(re.search(r"_param_(\d+)", operands[1])[1])  # type: ignore[index]
            return self._set(operands[0], np.broadcast_to(self.given[number], size))
        where = self.block[self.index], self.thread[self.index]
        if name == "ld":
            address = self._address(operands[1], size)
            if space == "global":
                self.program.counts["loads"] += size
                values = self.memory.load(address, _TYPES[kind])
                self._set(operands[0], values)
                self.loads += 1
            else:
                self._set(operands[0], self.shared.load(*where, address, _TYPES[kind]))
            return None
        address = self._address(operands[0], size)
        values = np.broadcast_to(self._get(operands[1], kind), size)
        if space == "global":
            self.program.counts["stores"] += size
            return self.memory.store(address, values)
        return self.shared.store(*where, address, values)

    def _convert(self, operator: list[str], operand: str, size: int) -> np.ndarray:
        to, kind = _TYPES[operator[-2]], operator[-1]
        values = self._get(operand, kind)
        if "sat" in operator:
            return np.nan_to_num(np.clip(values, 0, 1), nan=0.0)
        if "rzi" in operator:  # limits where the value has no place; 0 of a NaN
            least, most = np.iinfo(to).min, np.iinfo(to).max
            inside = np.where((values > least) & (values < most), values, 0).astype(to)
            limited = np.where(values <= least, to.type(least), inside)
            return np.where(values >= most, to.type(most), limited).astype(to)
        return values.astype(to)

    def _lanes(self, size: int) -> None:
        """Refuse warps that are not whole."""
        lanes = np.arange(len(self.thread))[self.index]
        if size % WARP or (lanes.reshape(-1, WARP) % WARP != np.arange(WARP)).any():
            raise KernelError("part of a warp does not reach what the whole does together")

    def _shuffle(self, how: str, operands: list[str], size: int) -> None:
        self._lanes(size)
        value, other = self._get(operands[1], "u32"), self._get(operands[2], "u32")
        value, other = np.broadcast_to(value, size), np.broadcast_to(other, size)
        lane = np.arange(size) % WARP
        source = lane ^ other if how == "bfly" else other % WARP
        found = value[np.arange(size) - lane + source.astype(int)]
        self._set(operands[0].partition("|")[0], found)
