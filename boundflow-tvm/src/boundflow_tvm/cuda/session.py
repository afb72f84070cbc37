"""Executor `cuda`: torch on a GPU, with chains, reductions and steps through activations as kernels of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import CDLL
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import torch

from boundflow_core.errors import OptionError
from boundflow_core.executors.steps import Call, Kernel
from boundflow_core.executors.torch import TRAITS as TORCH_TRAITS
from boundflow_core.executors.torch import TorchBackend, TorchSession, full_precision
from boundflow_core.ir.program import Op, Value
from boundflow_core.planner.plan import PlanBundle
from boundflow_tvm.backend import versions
from boundflow_tvm.backend_cuda import cuda_source
from boundflow_tvm.cache import KERNELS, KernelCounts, cache_folder
from boundflow_tvm.cuda.blocks import THREADS
from boundflow_tvm.cuda.compiler import compiled
from boundflow_tvm.cuda.driver import LIBRARY, Arguments, Driver
from boundflow_tvm.cuda.executor import NAME
from boundflow_tvm.cuda.kernels import STEPS, CudaKernel, kernel_of
from boundflow_tvm.fused import FUSED

__all__ = ["TRAITS", "CudaSession", "Gpu", "gpu_of", "open_session"]

CODE_VERSION = 1
"""Part of every key: to be raised when other code is written for the same operation."""

# Kernels read arrays in order only, which are written to by nobody else.
TRAITS = replace(
    TORCH_TRAITS, into=TORCH_TRAITS.into | {FUSED.name, *STEPS}, strided=False, inplace=False, arranged=frozenset()
)


@dataclass(frozen=True)
class Gpu:
    """Where kernels run.

    Attributes:
        device: where their tensors lie.
        driver: loads and launches.
        compile: source to code that ``driver`` loads.
        target: what such code depends on beside its source.
        stream: ``stream()``: what torch has the device do goes there now.
    """

    device: torch.device
    driver: Driver
    compile: Callable[[str], bytes]
    target: str
    stream: Callable[[], int]


def gpu_of(device: Any) -> Gpu:
    """The GPU that ``device`` names; None: torch's current one.

    Raises:
        OptionError: it is no GPU that torch can use.
    """
    if not torch.cuda.is_available():
        raise OptionError("executor 'cuda' cannot run here: torch finds no GPU (torch.cuda.is_available() is false)")
    target = torch.device("cuda" if device is None else device)
    if target.type != "cuda":
        raise OptionError(f"executor 'cuda' cannot run on arrays on {target}")
    return _gpu(torch.cuda.current_device() if target.index is None else target.index)


@cache
def _gpu(ordinal: int) -> Gpu:
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(ordinal))
    device = torch.device("cuda", ordinal)
    try:
        library = CDLL(LIBRARY)
    except OSError as error:
        raise OptionError(f"executor 'cuda' cannot run here: {error}") from error
    return Gpu(
        device,
        Driver(library, ordinal),
        partial(compiled, architecture=architecture),
        architecture,
        lambda: int(torch.cuda.current_stream(device).cuda_stream),
    )


def open_session(plan: PlanBundle, device: Any = None, find: Callable[[Any], Gpu] = gpu_of) -> CudaSession:
    """``plan`` ready to run on tensors of ``device``; from arrays on the CPU (None) they go to a GPU and back.

    Products of float32 numbers are full float32 products, as on executor `torch`.

    Raises:
        OptionError: the GPU cannot be used, or kernels cannot be compiled; says why.
    """
    with torch.no_grad(), full_precision():
        gpu = find(device)
        with gpu.driver.current():
            return CudaSession(plan, gpu, torch.device("cpu") if device is None else gpu.device)


class CudaSession(TorchSession):
    """A plan with its memory on a GPU and its kernels. Not for use by two threads at once.

    Args:
        home: where results are wanted.
    """

    def __init__(self, plan: PlanBundle, gpu: Gpu, home: torch.device) -> None:
        self.counts = KernelCounts()
        self._gpu, self._home, self._stream = gpu, home, 0
        self._launched: dict[Op, tuple[CudaKernel, Any]] = {}
        super().__init__(plan, TorchBackend(gpu.device, False))

    def prepared_kernels(self) -> Mapping[str, int]:
        return asdict(self.counts)

    def _make_tasks(
        self, plan: PlanBundle, bound_ops: Mapping[Op, Op], known: set[Value]
    ) -> dict[str, tuple[Call, ...]]:
        ops = [
            entry.op
            for entries in plan.lowering.entries.values()
            for entry in entries
            if entry.lowering.strategy == NAME and entry.op.outputs[0] not in known
        ]
        self._launched = _loaded(self._gpu, {op: kernel_of(op) for op in ops}, self.counts)
        return super()._make_tasks(plan, bound_ops, known)

    def _kernel(self, op: Op, bound_ops: Mapping[Op, Op], known: set[Value]) -> Kernel:
        return _launches if op in self._launched else super()._kernel(op, bound_ops, known)

    def _calls(self, plan: PlanBundle, op: Op, kernel: Kernel, known: set[Value]) -> list[Call]:
        if op not in self._launched:
            return super()._calls(plan, op, kernel, known)
        if plan.storage.views[op.outputs[0]].base is not op.outputs[0]:
            return []  # a view of the arena
        kernel_code, handle = self._launched[op]
        blocks = kernel_code.blocks(plan.sizes)
        if not blocks:
            return []  # which a GPU does not take
        for value in known.intersection(op.inputs):
            slot = self._number[value]
            self._slots[slot] = self._slots[slot].contiguous()
        arrays = [self._slots[self._number[value]] for value in (*op.inputs, *op.outputs)]
        sizes = [plan.sizes[symbol] for symbol in kernel_code.symbols]
        # what lies elsewhere in every run: live weights, and what torch allocates itself
        moving = [
            (place, self._number[value])
            for place, value in enumerate(op.inputs)
            if value not in known and (value not in plan.storage.home or self._is_own(plan.storage, value))
        ]
        absent = {place for place, _ in moving}
        addresses = [0 if place in absent else array.data_ptr() for place, array in enumerate(arrays)]
        return [self._launch(handle, blocks, Arguments([*addresses, *sizes]), moving)]

    def _launch(self, handle: Any, blocks: int, arguments: Arguments, moving: Sequence[tuple[int, int]]) -> Call:
        launch, slots = self._gpu.driver.launch, self._slots

        def call() -> None:
            for place, slot in moving:
                slots[slot] = slots[slot].contiguous()
                arguments.values[place] = slots[slot].data_ptr()
            launch(handle, blocks, THREADS, self._stream, arguments)

        return call

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(super().running())
            stack.enter_context(self._gpu.driver.current())
            self._stream = self._gpu.stream()
            yield

    def results(self) -> dict[str, Any]:
        return {name: array.to(self._home) for name, array in super().results().items()}


def _launches(*arrays: Any, out: Any = None) -> Any:
    raise AssertionError("launched by address")


def _loaded(gpu: Gpu, kernels: Mapping[Op, CudaKernel], counts: KernelCounts) -> dict[Op, tuple[CudaKernel, Any]]:
    """``kernels`` with what launches them; those of a program are compiled together, and once for all its sizes."""
    builds = {kernel.key: kernel.build for kernel in kernels.values()}
    if not builds:
        return {}
    names = {key: f"kernel_{number}" for number, key in enumerate(sorted(builds))}

    def make() -> bytes:
        counts.compiled += 1
        return gpu.compile(cuda_source({name: builds[key]() for key, name in names.items()}))

    key = "\n".join([f"cuda {CODE_VERSION}", versions(), gpu.target, *names])
    function = gpu.driver.load(KERNELS.part(key, make, cache_folder()))
    return {op: (kernel, function(names[kernel.key])) for op, kernel in kernels.items()}
