"""A GPU of the processor's: kernels are compiled as C++, and launched by a library with those functions of the CUDA
driver that are used. The threads of a block run in turns from barrier to barrier, up or down: a missing one shows.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from boundflow_tvm.cuda.driver import Driver

KERNELS = """
#include <math.h>
#include <stdint.h>
struct Place { int64_t x; };
extern Place threadIdx, blockIdx;
extern "C" void __syncthreads();
#define __global__
#define __launch_bounds__(n)
#define __longlong_as_double(x) __builtin_bit_cast(double, (int64_t)(x))
#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN
static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
"""
ENTRY = """
extern "C" void %(name)s_thread(void **table) { %(name)s(%(arguments)s); }
"""
# With the declarations of CUDA where they are, so that the compiler compares.
DRIVER = """
#if __has_include(<cuda.h>)
#include <cuda.h>
#else
typedef int CUresult, CUdevice;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream;
extern "C" {
CUresult cuCtxPushCurrent_v2(CUcontext);
CUresult cuCtxPopCurrent_v2(CUcontext *);
}
#endif
#include <cstdint>
#include <dlfcn.h>
#include <string>
#include <ucontext.h>
#include <vector>
struct Place { int64_t x; };
Place threadIdx, blockIdx;
typedef void (*Kernel)(void **);
struct Turn { ucontext_t at; std::vector<char> stack; bool done; };
static std::vector<Turn> turns;
static ucontext_t caller;
static Kernel kernel;
static void **arguments;
static void whole() { kernel(arguments); turns[threadIdx.x].done = true; }
// Whether all threads of each block came to the same barriers.
static bool run(int64_t blocks, int64_t threads) {
  turns.resize(threads);
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (auto &turn : turns) {
      turn.stack.resize(1 << 16);
      turn.done = false;
      getcontext(&turn.at);
      turn.at.uc_stack.ss_sp = turn.stack.data();
      turn.at.uc_stack.ss_size = turn.stack.size();
      turn.at.uc_link = &caller;
      makecontext(&turn.at, whole, 0);
    }
    for (int64_t round = 0, done = 0; done < threads; ++round) {
      for (int64_t t = 0; t < threads; ++t) {
        threadIdx.x = (round + blockIdx.x) % 2 == 0 ? threads - 1 - t : t;
        Turn &turn = turns[threadIdx.x];
        swapcontext(&caller, &turn.at);
        done += turn.done;
      }
      if (done && done < threads) return false;
    }
  }
  return true;
}
static thread_local int current = 0;
static int known;
static const CUresult FINE = (CUresult)0, INVALID = (CUresult)1, NO_DEVICE = (CUresult)101, NO_CONTEXT = (CUresult)201,
                      DIVERGED = (CUresult)719;
extern "C" {
void __syncthreads() { swapcontext(&turns[threadIdx.x].at, &caller); }
int64_t launches = 0;
void *last_stream = nullptr;
CUresult cuInit(unsigned) { return FINE; }
CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == NO_DEVICE ? "invalid device ordinal" : error == NO_CONTEXT ? "no context" : "invalid argument";
  if (error == DIVERGED) *text = "some threads wait where others do not";
  return FINE;
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return ordinal ? NO_DEVICE : FINE; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) { *context = (CUcontext)&known; return FINE; }
CUresult cuCtxPushCurrent_v2(CUcontext context) { ++current; return context == (CUcontext)&known ? FINE : INVALID; }
CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  *context = (CUcontext)&known;
  return current-- > 0 ? FINE : NO_CONTEXT;
}
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  if (!current) return NO_CONTEXT;
  *module = (CUmodule)dlopen((const char *)image, RTLD_NOW | RTLD_LOCAL);
  return *module ? FINE : INVALID;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  *function = (CUfunction)dlsym((void *)module, (std::string(name) + "_thread").c_str());
  return *function ? FINE : INVALID;
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned v,
                        unsigned w, unsigned shared, CUstream stream, void **table, void **extra) {
  if (!current) return NO_CONTEXT;
  if (!x || x > 2147483647u || y != 1 || z != 1 || !threads || threads > 1024 || v != 1 || w != 1) return INVALID;
  if (shared || extra) return INVALID;
  ++launches;
  last_stream = (void *)stream;
  kernel = (Kernel)function;
  arguments = table;
  return run(x, threads) ? FINE : DIVERGED;
}
}
"""
SIGNATURE = re.compile(r'extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\(([^)]*)\) \{')


def parameters(source):
    """The parameters (type, name) of each kernel in ``source``."""
    return {
        name: [tuple(part.strip().rsplit(" ", 1)) for part in listed.split(",")]
        for name, listed in SIGNATURE.findall(source)
    }


@lru_cache(maxsize=1)
def folder():
    return tempfile.TemporaryDirectory(prefix="boundflow-")


def built(code):
    """A library of C++ code: its path."""
    place = Path(tempfile.mkdtemp(dir=folder().name))
    path, library = place / "code.cpp", place / "code.so"
    path.write_text(code)
    command = ["g++", "-std=c++20", "-ffp-contract=off", "-shared", "-fPIC", "-I/usr/local/cuda/include"]
    subprocess.run([*command, "-o", library, path], check=True)
    return library


def compiled(source):
    """What :func:`driver` loads for CUDA source."""
    body = source[source.index('extern "C"') :].replace("__shared__ alignas(64)", "static")
    code = KERNELS + body
    for name, listed in parameters(source).items():
        arguments = [f"*({kind.replace('__restrict__', '')}*)table[{place}]" for place, (kind, _) in enumerate(listed)]
        code += ENTRY % {"name": name, "arguments": ", ".join(arguments)}
    return str(built(code)).encode()


@lru_cache(maxsize=1)
def library():
    return ctypes.CDLL(str(built(DRIVER)), mode=ctypes.RTLD_GLOBAL)  # kernels are linked against it


@lru_cache(maxsize=1)
def driver():
    return Driver(library(), 0)
