"""The one place that spells LLVM IR: a kernel under construction, as text.

Text, because building the same 6x16 micro-kernel through llvmlite.ir costs 57 times as much.
Addresses and counts are i64 ``Value``s or Python ints (these fold to constants); offsets are bytes.
Control flow is structured: ``with k.loop(...)`` and ``with k.when(...)`` carry values in SSA form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Type, Value, f32, i1, i8, i16, i32, i64, literal, ptr, vec

Size = int | Value
Kind = Literal["ptr", "int", "float", "scratch"]


class Params:
    """The argument block of a kernel: ``Params("x:ptr n:int alpha:float tmp:scratch")``.

    A pointer takes two i64 slots (base index, byte offset), scratch three (base index, byte offset,
    bytes per thread), an int or float one (a float lies in the slot's low four bytes).
    """

    SLOTS: ClassVar = {"ptr": 2, "int": 1, "float": 1, "scratch": 3}

    def __init__(self, declaration: str) -> None:
        self.kinds: dict[str, str] = dict(item.split(":") for item in declaration.split())
        self.offsets: dict[str, int] = {}
        self.slots = 0
        for name, kind in self.kinds.items():
            self.offsets[name] = self.slots
            self.slots += self.SLOTS[kind]


@dataclass
class Region:
    """Inside of a loop or branch: ``i`` counts, ``v`` are carried, ``next`` the values after."""

    i: Value
    v: list[Value]
    next: list[Value] = field(default_factory=list)


KERNEL = {"args": ptr, "bases": ptr, "begin": i64, "end": i64, "thread": i64}


class Builder:
    """One function, by default a kernel ``void name(args, bases, begin, end, thread)``.

    ``arguments`` are its values by name; a kernel's ``begin``, ``end``, ``thread`` are attributes.
    """

    def __init__(
        self, name: str, params: Params, isa: Isa, signature: dict[str, Type] = KERNEL
    ) -> None:
        self.name, self.isa, self._signature = name, isa, signature
        self.arguments = {n: Value(t, f"%{n}") for n, t in signature.items()}
        self._lines: list[str] = []
        self._entry: list[str] = []
        self._declarations: dict[str, str] = {}
        self._count = 0
        self._block = "entry"
        if signature is KERNEL:
            self.begin, self.end, self.thread = (Value(i64, f"%{n}") for n in list(KERNEL)[2:])
        self.p: Any = SimpleNamespace(**{n: self._parameter(n, params) for n in params.kinds})

    def module(self) -> str:
        """The finished function as the text of an LLVM module."""
        signature = ", ".join(f"{t.text} %{n}" for n, t in self._signature.items())
        attributes = f'nounwind "tune-cpu"="{self.isa.tune}"'
        return "\n".join(
            [
                f'target triple = "{self.isa.triple}"',
                *self._declarations.values(),
                f'define void @"{self.name}"({signature}) {attributes} {{\nentry:',
                *self._entry,
                *self._lines,
                "  ret void\n}\n",
            ]
        )

    # ---- integers -------------------------------------------------------------------------

    def add(self, a: Size, b: Size) -> Size:
        """``a + b``."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        return self._value(i64, f"add i64 {_text(a)}, {_text(b)}")

    def sub(self, a: Size, b: Size) -> Size:
        """``a - b``."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self._value(i64, f"sub i64 {_text(a)}, {_text(b)}")

    def mul(self, a: Size, b: Size) -> Size:
        """``a * b``."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self._value(i64, f"mul i64 {_text(a)}, {_text(b)}")

    def udiv(self, a: Size, b: Size) -> Size:
        """``a / b`` rounded down, both non-negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return a if b == 1 else self._value(i64, f"udiv i64 {_text(a)}, {_text(b)}")

    def urem(self, a: Size, b: Size) -> Size:
        """The remainder of ``a / b``, both non-negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        return 0 if b == 1 else self._value(i64, f"urem i64 {_text(a)}, {_text(b)}")

    def ceil_div(self, a: Size, b: Size) -> Size:
        """``a / b`` rounded up, both non-negative."""
        return self.udiv(self.add(a, self.sub(b, 1)), b)

    def min(self, a: Size, b: Size) -> Size:
        """The smaller of two signed sizes."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.call("llvm.smin", i64, [self.size(a), self.size(b)])

    def max(self, a: Size, b: Size) -> Size:
        """The larger of two signed sizes."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.call("llvm.smax", i64, [self.size(a), self.size(b)])

    def size(self, a: Size) -> Value:
        """A size as an i64 value."""
        return Value(i64, str(a)) if isinstance(a, int) else a

    def icmp(self, predicate: str, a: Value | int, b: Value | int) -> Value:
        """Integer comparison (eq ne slt sle sgt sge ult ...), scalar or vector."""
        type_ = a.type if isinstance(a, Value) else b.type if isinstance(b, Value) else i64
        x, y = self._like(type_, a), self._like(type_, b)
        return self._value(vec(i1, type_.lanes), f"icmp {predicate} {type_.text} {x}, {y}")

    # ---- memory ---------------------------------------------------------------------------

    def at(self, base: Value, *offsets: Size) -> Value:
        """``base`` plus byte offsets; the constant part last, so that it folds into the access."""
        static = sum(o for o in offsets if isinstance(o, int))
        for offset in [o for o in offsets if isinstance(o, Value)] + ([static] if static else []):
            base = self._value(ptr, f"getelementptr i8, ptr {base.text}, i64 {_text(offset)}")
        return base

    def load(self, type_: Type, base: Value, *offsets: Size) -> Value:
        """The value of ``type_`` at ``base`` plus byte offsets (element aligned)."""
        where = self.at(base, *offsets)
        return self._value(type_, f"load {type_.text}, ptr {where.text}, align {type_.bytes}")

    def store(self, value: Value, base: Value, *offsets: Size) -> None:
        """Store ``value`` at ``base`` plus byte offsets (element aligned)."""
        where, type_ = self.at(base, *offsets), value.type
        self._line(f"store {type_.text} {value.text}, ptr {where.text}, align {type_.bytes}")

    def broadcast(self, type_: Type, base: Value, *offsets: Size) -> Value:
        """The scalar at ``base`` plus byte offsets in every lane of ``type_``."""
        return self.splat(self.load(type_.scalar, base, *offsets), type_.lanes)

    def masked_load(self, type_: Type, mask: Value, base: Value, *offsets: Size) -> Value:
        """Lanes where ``mask`` from memory, zero elsewhere (and not touched in memory)."""
        where, zero = self.at(base, *offsets), self.const(type_, 0)
        name = f"llvm.masked.load.{type_.mangled}.p0"
        return self._call(name, type_, [where, Value(i32, str(type_.bytes)), mask, zero])

    def masked_store(self, value: Value, mask: Value, base: Value, *offsets: Size) -> None:
        """Store the lanes of ``value`` where ``mask``."""
        where, type_ = self.at(base, *offsets), value.type
        name = f"llvm.masked.store.{type_.mangled}.p0"
        self._call(name, None, [value, where, Value(i32, str(type_.bytes)), mask])

    def tail_mask(self, count: Size, lanes: int) -> Value:
        """The mask whose lanes below ``count`` are set."""
        wanted = self.splat(self.cast(self.size(count), i32), lanes)
        index = Value(vec(i32, lanes), _vector(i32, range(lanes)))
        return self.icmp("slt", index, wanted)

    def prefetch(self, base: Value, *offsets: Size, locality: int = 3) -> None:
        """Ask for the cache line at ``base`` plus byte offsets."""
        args = [self.at(base, *offsets), *(Value(i32, str(n)) for n in (0, locality, 1))]
        self._call("llvm.prefetch.p0", None, args)

    def alloca(self, size: int) -> Value:
        """``size`` bytes on the stack, 64-byte aligned, for the whole kernel."""
        self._count += 1
        self._entry.append(f"  %v{self._count} = alloca i8, i64 {size}, align 64")
        return Value(ptr, f"%v{self._count}")

    # ---- vectors --------------------------------------------------------------------------

    def const(self, type_: Type, value: float) -> Value:
        """A constant, the same in every lane."""
        text = literal(type_.scalar, value)
        return Value(type_, f"splat ({type_.scalar.text} {text})" if type_.lanes else text)

    def lanes_const(self, element: Type, values: Sequence[float]) -> Value:
        """A vector constant, lane by lane."""
        return Value(vec(element, len(values)), _vector(element, values))

    def splat(self, scalar: Value, lanes: int) -> Value:
        """``scalar`` in every lane (itself for 0 lanes)."""
        if not lanes:
            return scalar
        type_ = vec(scalar.type, lanes)
        one = self.insert(Value(type_, "poison"), scalar, 0)
        return self.shuffle(one, [0] * lanes)

    def shuffle(self, a: Value, lanes: Sequence[int], b: Value | None = None) -> Value:
        """The lanes of ``a`` (then ``b``) picked by number."""
        type_ = a.type
        other = b.text if b else "poison"
        pick = Value(vec(i32, len(lanes)), _vector(i32, lanes))
        return self._value(
            vec(type_.scalar, len(lanes)),
            f"shufflevector {type_.text} {a.text}, {type_.text} {other}, "
            f"{pick.type.text} {pick.text}",
        )

    def extract(self, vector: Value, lane: int) -> Value:
        """One lane as a scalar."""
        return self._value(
            vector.type.scalar, f"extractelement {vector.type.text} {vector.text}, i32 {lane}"
        )

    def insert(self, vector: Value, scalar: Value, lane: int) -> Value:
        """``vector`` with one lane replaced."""
        return self._value(
            vector.type,
            f"insertelement {vector.type.text} {vector.text}, "
            f"{scalar.type.text} {scalar.text}, i32 {lane}",
        )

    def op(self, name: str, a: Value, b: Value) -> Value:
        """A two-operand instruction by name (fadd, fmul, frem, and, or, xor, shl, add ...)."""
        return self._value(a.type, f"{name} {a.type.text} {a.text}, {b.text}")

    def fadd(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        return self.op("fadd", a, b)

    def fsub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        return self.op("fsub", a, b)

    def fmul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        return self.op("fmul", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        """``a / b``."""
        return self.op("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        """``-a``."""
        return self._value(a.type, f"fneg {a.type.text} {a.text}")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once."""
        return self.call("llvm.fma", a.type, [a, b, c])

    def dot(self, activations: Value, weights: Value, sums: Value) -> Value:
        """``sums`` plus four products of bytes a lane, all i32 vectors; see ``isa.Dot``."""
        dot = self.isa.dot
        assert dot is not None, self.isa.name
        bytes_ = vec(dot.element, self.isa.lanes(dot.element))
        a, w = self.bitcast(activations, bytes_), self.bitcast(weights, bytes_)
        first, *second = dot.intrinsics
        if not second:
            return self._call(first, sums.type, [sums, a, w])
        pairs = self._call(first, vec(i16, self.isa.lanes(i16)), [a, w])
        fours = self._call(second[0], sums.type, [pairs, self.const(pairs.type, 1)])
        return self.op("add", sums, fours)

    def fcmp(self, predicate: str, a: Value, b: Value) -> Value:
        """Floating comparison (oeq olt ogt ole oge one, u.. forms true on NaN, uno, ord)."""
        text = f"fcmp {predicate} {a.type.text} {a.text}, {b.text}"
        return self._value(vec(i1, a.type.lanes), text)

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """``a`` where ``mask``, else ``b``; a scalar mask picks whole vectors."""
        text = (
            f"select {mask.type.text} {mask.text}, {a.type.text} {a.text}, {b.type.text} {b.text}"
        )
        return self._value(a.type, text)

    def call(self, intrinsic: str, type_: Type, args: Sequence[Value]) -> Value:
        """An intrinsic overloaded on its result type: ``k.call("llvm.sqrt", v.type, [v])``."""
        return self._call(f"{intrinsic}.{type_.mangled}", type_, args)

    def call_exact(self, intrinsic: str, type_: Type, args: Sequence[Value]) -> Value:
        """An intrinsic whose full name is given (``llvm.x86.avx2.pmadd.wd``)."""
        return self._call(intrinsic, type_, args)

    def external(self, name: str, type_: Type | None, args: Sequence[Value]) -> Value:
        """A call of a C function that the JIT resolves by name."""
        return self._call(name, type_, args)

    def address_of(self, name: str, signature: dict[str, Type]) -> Value:
        """The address of another generated function."""
        types = ", ".join(t.text for t in signature.values())
        self._declarations.setdefault(name, f"declare void @{name}({types})")
        return Value(ptr, f"@{name}")

    def call_pointer(self, function: Value, args: Sequence[Value]) -> None:
        """Call a ``void`` function by its address."""
        self._line(
            f"call void {function.text}({', '.join(f'{a.type.text} {a.text}' for a in args)})"
        )

    def reduce_add(self, vector: Value) -> Value:
        """The sum over lanes, as a tree."""
        element, name = vector.type.scalar, f"llvm.vector.reduce.fadd.{vector.type.mangled}"
        if not element.is_float:
            return self._call(f"llvm.vector.reduce.add.{vector.type.mangled}", element, [vector])
        return self._call(name, element, [self.const(element, -0.0), vector], "reassoc ")

    def any(self, mask: Value) -> Value:
        """Whether any lane of an i1 vector is set."""
        if not mask.type.lanes:
            return mask
        return self._call(f"llvm.vector.reduce.or.{mask.type.mangled}", i1, [mask])

    def cast(self, value: Value, type_: Type) -> Value:
        """Convert numerically, lane by lane; i1 is unsigned, other integers signed."""
        source = value.type
        if source.scalar == type_.scalar:
            return value
        wider = type_.bits > source.bits
        match source.is_float, type_.is_float:
            case True, True:
                if source.bits == type_.bits or {source.bits, type_.bits} == {16, 64}:
                    return self.cast(self.cast(value, vec(f32, source.lanes)), type_)
                name = "fpext" if wider else "fptrunc"
            case True, False:
                name = "fptosi"
            case False, True:
                name = "uitofp" if source.bits == 1 else "sitofp"
            case _:
                name = ("zext" if source.bits == 1 else "sext") if wider else "trunc"
        target = vec(type_.scalar, source.lanes)
        return self._value(target, f"{name} {source.text} {value.text} to {target.text}")

    def bitcast(self, value: Value, type_: Type) -> Value:
        """The same bits as another type of the same size."""
        return self._value(type_, f"bitcast {value.type.text} {value.text} to {type_.text}")

    # ---- control flow ---------------------------------------------------------------------

    @contextmanager
    def loop(
        self, start: Size, stop: Size, step: Size = 1, carry: Sequence[Value] = ()
    ) -> Iterator[Region]:
        """``for i in range(start, stop, step)``, carrying values; ``v`` after it are the last."""
        before, (body, after) = self._block, self._labels("body", "after")
        known = isinstance(start, int) and isinstance(stop, int) and start < stop
        if known:
            self._line(f"br label %{body}")
        else:
            enter = self.icmp("slt", self.size(start), self.size(stop))
            self._line(f"br i1 {enter.text}, label %{body}, label %{after}")
        self._start(body)
        phis = len(self._lines)
        index = Value(i64, f"%{body}.i")
        carried = [Value(v.type, f"%{body}.c{n}") for n, v in enumerate(carry)]
        region = Region(index, list(carried), list(carried))
        yield region
        following = self.add(index, step)
        latch = self._block
        again = self.icmp("slt", following, stop)
        self._line(f"br i1 {again.text}, label %{body}, label %{after}")
        self._lines[phis:phis] = [
            _phi(index, (_text(start), before), (_text(following), latch)),
            *(
                _phi(c, (v.text, before), (n.text, latch))
                for c, v, n in zip(carried, carry, region.next, strict=True)
            ),
        ]
        self._start(after)
        region.v = region.next if known else self._merge(list(carry), before, region.next, latch)

    @contextmanager
    def when(self, condition: Value, carry: Sequence[Value] = ()) -> Iterator[Region]:
        """Run the inside where ``condition`` holds; ``v`` after it are ``next``, else ``carry``."""
        before, (body, after) = self._block, self._labels("then", "after")
        self._line(f"br i1 {condition.text}, label %{body}, label %{after}")
        self._start(body)
        region = Region(Value(i64, "0"), list(carry), list(carry))
        yield region
        latch = self._block
        self._line(f"br label %{after}")
        self._start(after)
        region.v = self._merge(list(carry), before, region.next, latch)

    # ---- emission -------------------------------------------------------------------------

    def _merge(self, a: list[Value], from_a: str, b: list[Value], from_b: str) -> list[Value]:
        merged = []
        for x, y in zip(a, b, strict=True):
            self._count += 1
            value = Value(x.type, f"%v{self._count}")
            self._lines.append(_phi(value, (x.text, from_a), (y.text, from_b)))
            merged.append(value)
        return merged

    def _parameter(self, name: str, params: Params) -> Value:
        kind, offset = params.kinds[name], params.offsets[name] * 8
        args = Value(ptr, "%args")
        if kind == "int":
            return self.load(i64, args, offset)
        if kind == "float":
            return self.load(f32, args, offset)
        base = self.load(ptr, Value(ptr, "%bases"), self.mul(self.load(i64, args, offset), 8))
        where = self.at(base, self.load(i64, args, offset + 8))
        if kind == "scratch":
            where = self.at(where, self.mul(self.load(i64, args, offset + 16), self.thread))
        return where

    def _labels(self, *names: str) -> tuple[str, ...]:
        self._count += 1
        return tuple(f"{name}{self._count}" for name in names)

    def _start(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._block = label

    def _line(self, text: str) -> None:
        self._lines.append("  " + text)

    def _value(self, type_: Type, text: str) -> Value:
        self._count += 1
        self._lines.append(f"  %v{self._count} = {text}")
        return Value(type_, f"%v{self._count}")

    def _call(self, name: str, type_: Type | None, args: Sequence[Value], flags: str = "") -> Value:
        result = type_.text if type_ else "void"
        types = ", ".join(a.type.text for a in args)
        self._declarations.setdefault(name, f"declare {result} @{name}({types})")
        text = f"call {flags}{result} @{name}({', '.join(f'{a.type.text} {a.text}' for a in args)})"
        if type_ is None:
            self._line(text)
            return Value(i8, "undef")
        return self._value(type_, text)

    def _like(self, type_: Type, a: Value | int) -> str:
        return a.text if isinstance(a, Value) else self.const(type_, a).text


def _text(a: Size) -> str:
    return str(a) if isinstance(a, int) else a.text


def _vector(element: Type, values: Sequence[float] | range) -> str:
    return "<" + ", ".join(f"{element.text} {literal(element, v)}" for v in values) + ">"


def _phi(value: Value, a: tuple[str, str], b: tuple[str, str]) -> str:
    return f"  {value.text} = phi {value.type.text} [{a[0]}, %{a[1]}], [{b[0]}, %{b[1]}]"
