"""Runs CUDA source without a GPU: compiled as C++, each thread of a block as a thread of the processor."""

from __future__ import annotations

import ctypes
import re
import subprocess

import numpy as np

PREAMBLE = """
#include <barrier>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>
struct Place { int64_t x; };
static thread_local Place threadIdx, blockIdx;
static std::barrier<> *meeting;
#define __global__
#define __launch_bounds__(n)
#define __syncthreads() meeting->arrive_and_wait()
#define CUDART_INF_F INFINITY
#define CUDART_INF ((double)INFINITY)
#define CUDART_NAN_F NAN
using std::isnan;
"""
LAUNCH = """
extern "C" void launch(void **pointers, int64_t *sizes, int64_t blocks, int64_t threads) {
  std::barrier<> all(threads);
  meeting = &all;
  std::vector<std::thread> team;
  for (int64_t t = 0; t < threads; ++t) team.emplace_back([=] {
    threadIdx.x = t;
    for (int64_t b = 0; b < blocks; ++b) { blockIdx.x = b; %s(%s); meeting->arrive_and_wait(); }
  });
  for (auto &one : team) one.join();
}
"""
SIGNATURE = re.compile(r'extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\(([^)]*)\) \{')


def parameters(source):
    """Name and parameters (type, name) of the only kernel in ``source``."""
    ((name, listed),) = SIGNATURE.findall(source)
    return name, [tuple(part.strip().rsplit(" ", 1)) for part in listed.split(",")]


def run(source, arrays, sizes, blocks, threads, folder):
    """Runs the kernel on ``arrays``, which are its pointers p0, p1..., with the values of symbols."""
    name, listed = parameters(source)
    symbols = sorted(sizes)
    given = []
    for kind, one in listed:
        if one.startswith("size_"):
            given.append(f"sizes[{symbols.index(one.removeprefix('size_'))}]")
        else:
            given.append(f"({kind.replace('__restrict__', '')})pointers[{int(one.removeprefix('p'))}]")
    body = source[source.index('extern "C"') :].replace("__shared__ alignas(64)", "static")
    code = PREAMBLE + body + LAUNCH % (name, ", ".join(given))
    path, library = folder / "kernel.cpp", folder / f"{name}.so"
    path.write_text(code)
    subprocess.run(["g++", "-std=c++20", "-O0", "-shared", "-fPIC", "-pthread", "-o", library, path], check=True)
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    numbers = np.array([sizes[symbol] for symbol in symbols] or [0], dtype=np.int64)
    ctypes.CDLL(str(library)).launch(
        pointers, ctypes.c_void_p(numbers.ctypes.data), ctypes.c_int64(blocks), ctypes.c_int64(threads)
    )
