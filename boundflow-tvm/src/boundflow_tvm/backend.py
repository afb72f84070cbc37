"""Everything that is taken from TVM, under names of our own: its API moves, and importing it takes seconds.

Nothing is imported before it is used. Code that was compiled before is loaded without TVM's compiler: :func:`load`
takes the foreign function interface and a linker for object files alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = [
    "Tir",
    "compile_module",
    "compile_template",
    "joined",
    "load",
    "prepared",
    "processor",
    "tir",
    "unavailable",
    "versions",
]

DISTRIBUTIONS = ("apache-tvm", "apache-tvm-ffi", "apache-tvm-ffi-orcjit")


def unavailable() -> str | None:
    """Why nothing can be compiled here, or None."""
    missing = [name for name in ("tvm", "tvm_ffi", "tvm_ffi_orcjit") if find_spec(name) is None]
    return f"{' and '.join(missing)} cannot be found: pip install boundflow-tvm" if missing else None


@lru_cache(maxsize=1)
def versions() -> str:
    """Versions of what compiles and loads, on which compiled code depends."""
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name}={version(name)}")
        except PackageNotFoundError:
            found.append(f"{name}=?")
    return " ".join(found)


@lru_cache(maxsize=1)
def processor() -> str:
    """What tells this machine's instruction set from others', without asking LLVM."""
    lines: list[str] = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():
                    break
                if line.split(":")[0].strip() in ("vendor_id", "cpu family", "model", "flags", "Features"):
                    lines.append(" ".join(line.split()))
    except OSError:
        lines.append(platform.processor())
    return "\n".join([platform.system(), platform.machine(), *lines])


# -- loading ----------------------------------------------------------------------------------------------------------

_LOADING = threading.RLock()


@contextmanager
def _without_torch() -> Iterator[None]:
    """tvm_ffi imports torch where it is installed, which takes a second; nothing here passes tensors of torch to it."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get("torch", "") is None:
            del sys.modules["torch"]


@lru_cache(maxsize=1)
def _linker() -> Any:
    """The session that links object files into this process."""
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    with _without_torch():
        import tvm_ffi
        import tvm_ffi_orcjit

    del tvm_ffi
    runtime = find_spec("tvm")
    for place in runtime.submodule_search_locations or () if runtime else ():
        for library in sorted((Path(place) / "lib").glob("libtvm_runtime.*")):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # kernels take workspace from it
    return tvm_ffi_orcjit.ExecutionSession(None)


def joined(objects: Sequence[bytes]) -> bytes:
    """Object files as one piece of code."""
    return struct.pack(f"<{1 + len(objects)}Q", len(objects), *map(len, objects)) + b"".join(objects)


def load(code: bytes) -> Callable[[str], Callable[..., Any]]:
    """The functions of :func:`joined` object files, by name.

    Raises:
        ValueError: they are no object files of this machine.
    """
    objects = []
    (count,) = struct.unpack_from("<Q", code)
    at = 8 * (1 + count)
    for length in struct.unpack_from(f"<{count}Q", code, 8):
        objects.append(code[at : at + length])
        at += length
    if any(one[:4] not in (b"\x7fELF", b"\xcf\xfa\xed\xfe") and one[:2] != b"\x64\x86" for one in objects):
        raise ValueError("no object file")
    with _LOADING:
        try:
            module = _linker().load_module(objects)
        except Exception as error:
            raise ValueError(f"the object files cannot be linked: {error}") from error
    return lambda name: module.get_function(name)


def prepared(array: Any) -> Any:
    """A NumPy array in the form in which compiled functions take it fastest; they share its memory."""
    _linker()
    import tvm_ffi

    return tvm_ffi.from_dlpack(array)


# -- compiling --------------------------------------------------------------------------------------------------------


class Tir:
    """TVM's tensor IR as far as it is used here: expressions and statements are TVM's own objects.

    Arithmetic on numbers that are not known keeps NaN and infinities as NumPy does: nothing is folded.
    """

    def __init__(self) -> None:
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        os.environ.setdefault("TVM_NUM_THREADS", "1")
        _linker()
        import tvm
        from tvm import ir, tirx

        self.tvm, self.ir, self.t = tvm, ir, tirx

    # expressions

    def number(self, value: float | int | bool, dtype: str) -> Any:
        if dtype.startswith("float"):
            return self.t.FloatImm(dtype, float(value))
        return self.t.IntImm(dtype, int(value))

    def int(self, value: Any) -> Any:
        return self.t.IntImm("int64", value)

    def var(self, name: str, dtype: str = "int64") -> Any:
        return self.t.Var(name, dtype)

    def pointer(self, name: str, dtype: str) -> Any:
        return self.t.Var(name, self.ir.PointerType(self.ir.PrimType(dtype)))

    def buffer(self, name: str, count: Any, dtype: str) -> Any:
        return self.t.decl_buffer((count,), dtype, name=name, data_alignment=64)

    def same(self, one: Any, other: Any) -> Any:
        return self.t.EQ(one, other)

    def load(self, buffer: Any, at: Any) -> Any:
        return self.t.BufferLoad(buffer, [at])

    def select(self, condition: Any, yes: Any, no: Any) -> Any:
        # of a Select, TVM's analysis of integer sets takes the product with another one, and fails on floats
        return self.t.if_then_else(condition, yes, no)

    def call(self, name: str, dtype: str, *arguments: Any) -> Any:
        """A function of the C library."""
        return self.t.call_pure_extern(dtype, name, *arguments)

    def unary(self, name: str, x: Any, dtype: str) -> Any:
        """ "abs", "floor" or "sqrt" of a number of ``dtype``."""
        return getattr(self.t, name)(x)

    # statements

    def copy_memory(self, to: Any, source: Any, count: Any) -> Any:
        return self.t.Evaluate(self.t.call_extern("handle", "memcpy", to, source, count))

    def store(self, buffer: Any, at: Any, value: Any) -> Any:
        return self.t.BufferStore(buffer, value, [at])

    def bind(self, var: Any, value: Any) -> Any:
        return self.t.Bind(var, value)

    def seq(self, *statements: Any) -> Any:
        flat: list[Any] = []
        for one in statements:
            flat.extend(one if isinstance(one, list) else [one])
        if not flat:  # a window that lies outside of the image everywhere
            return self.t.Evaluate(self.int(0))
        return flat[0] if len(flat) == 1 else self.t.SeqStmt(flat)

    def loop(self, extent: Any, body: Callable[[Any], Any], name: str = "i", kind: str = "SERIAL") -> Any:
        var = self.var(name)
        extent = self.int(extent) if isinstance(extent, int) else extent
        return self.t.For(var, self.int(0), extent, self.t.ForKind[kind], self.seq(body(var)))

    def when(self, condition: Any, body: Any, otherwise: Any = None) -> Any:
        return self.t.IfThenElse(condition, body, otherwise)

    def at(self, buffer: Any, pointer: Any) -> Any:
        """Says where ``buffer`` lies."""
        return self.t.DeclBuffer(buffer, data=pointer)

    def local(self, name: str, count: Any, dtype: str) -> tuple[Any, Any]:
        """A small array on the stack: the buffer, and the statement that allocates it."""
        buffer = self.t.decl_buffer((count,), dtype, name=name)  # of scope "local" TVM takes it from a pool
        return buffer, self.t.AllocBuffer(buffer)

    # functions

    def function(self, parameters: Sequence[Any], body: Any) -> Any:
        """A function; without it being said where it runs, TVM allocates nothing in it."""
        attrs = self.ir.make_node("ir.DictAttrs", **{"tirx.noalias": True})
        return self.placed(self.t.PrimFunc(list(parameters), body, attrs=attrs))

    def placed(self, function: Any) -> Any:
        """``function`` with its body on the CPU. Passes may move allocations out of what was placed before."""
        body = function.body
        for key, number in (("device_type", 1), ("device_id", 0)):
            body = self.t.AttrStmt(self.ir.StringImm("default"), key, self.t.IntImm("int32", number), body)
        return function.with_body(body)

    def on_pointers(self, function: Any) -> tuple[Any, list[list[Any]], list[Any]]:
        """A function of buffers as one of plain pointers and sizes.

        Returns the function, the shape of each buffer, and the variables of these shapes, which are the function's
        further parameters in this order.
        """
        buffers = [_buffer_of(function, parameter) for parameter in function.params]
        pointers = [self.pointer(f"p{i}", str(buffer.dtype)) for i, buffer in enumerate(buffers)]
        shapes = [list(buffer.shape) for buffer in buffers]
        sizes: list[Any] = []
        for dim in (dim for shape in shapes for dim in shape):
            if isinstance(dim, self.t.Var) and not any(dim.same_as(size) for size in sizes):
                sizes.append(dim)
        declared = [self.t.DeclBuffer(buffer, data=p) for buffer, p in zip(buffers, pointers, strict=True)]
        return self.function([*pointers, *sizes], self.seq(*declared, function.body)), shapes, sizes

    def is_var(self, item: Any) -> bool:
        return isinstance(item, self.t.Var)

    def is_number(self, item: Any) -> bool:
        return isinstance(item, (self.t.IntImm, self.t.FloatImm))

    def invoke(self, function: Any, arguments: Sequence[Any]) -> Any:
        """A call of a function of the same module, or by its symbol of one of another object file."""
        if isinstance(function, str):
            return self.t.Evaluate(self.t.call_extern("void", function, *arguments))
        return self.t.Evaluate(function(*arguments))

    def name(self, name: str) -> Any:
        return self.ir.GlobalVar(name)

    def handle(self, address: Any) -> Any:
        return self.t.reinterpret("handle", address)


def _buffer_of(function: Any, parameter: Any) -> Any:
    table = getattr(function, "buffer_map", None)
    return table[parameter] if table is not None and parameter in table else parameter


@lru_cache(maxsize=1)
def tir() -> Tir:
    return Tir()


def compile_module(generated: Mapping[Any, Any], public: Mapping[Any, Any]) -> bytes:
    """An object file of functions by name.

    Args:
        generated: functions in which nothing is simplified: TVM takes x * 0 for 0, also where x is NaN or infinite.
        public: functions that call these, with the calling convention of the foreign function interface.
    """
    t = tir()
    tvm, passes = t.tvm, t.t.transform
    callers = {name: f.with_attr("global_symbol", name.name_hint) for name, f in public.items()}
    plain = [passes.FlattenBuffer(), passes.VectorizeLoop(True), passes.UnrollLoop(), passes.MakePackedAPI()]
    module = tvm.transform.Sequential([_bind(t), *plain])(tvm.IRModule({**generated, **callers}))
    return _object(t, module)


def compile_template(function: Any, symbol: str) -> bytes:
    """An object file of a template's function of pointers and sizes, which others may call as ``symbol``.

    It goes through those passes of TVM's own pipeline that concern loops on a CPU. The most expensive one of all, which
    looks for smaller allocations, is left out: templates allocate what they need.
    """
    t = tir()
    from tvm.s_tir import transform as blocks

    passes = t.t.transform
    chosen = [
        _bind(t),
        blocks.PlanAndUpdateBufferAllocationLocation(),
        blocks.ConvertBlocksToOpaque(),
        blocks.LowerMatchBuffer(),
        blocks.StmtSimplify(),
        blocks.LowerOpaqueBlock(),
        passes.FlattenBuffer(),
        passes.NarrowDataType(32),
        passes.VectorizeLoop(True),
        passes.StorageRewrite(),
        passes.UnrollLoop(),
        blocks.RenormalizeSplitPattern(),
        passes.StmtSimplify(),
        passes.RemoveNoOp(),
        blocks.RewriteUnsafeSelect(),
        passes.CommonSubexprElim(),
    ]
    ready = t.tvm.transform.Sequential(chosen)(t.tvm.IRModule({t.name(symbol): function}))
    return _object(t, t.tvm.IRModule({t.name(symbol): t.placed(ready[symbol]).with_attr("global_symbol", symbol)}))


@lru_cache(maxsize=1)
def _target(t: Tir) -> Any:
    target = t.tvm.target
    # Level 3 takes a third longer to compile, and its code is no faster.
    return target.Target({"kind": "llvm", "mcpu": target.codegen.llvm_get_system_cpu(), "opt-level": 2})


def _bind(t: Tir) -> Any:
    target = _target(t)
    return t.t.transform.BindTarget(target.with_host(target))


def _object(t: Tir, module: Any) -> bytes:
    _, finalize, _ = t.t.get_default_tir_pipeline(_target(t))
    code = t.tvm.get_global_func("target.build.llvm")(finalize()(module), _target(t))
    with tempfile.TemporaryDirectory(prefix="boundflow-") as folder:
        path = Path(folder) / "kernels.o"
        code.write_to_file(str(path), "o")
        return path.read_bytes()
