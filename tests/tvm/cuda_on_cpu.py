"""A GPU of the processor's: kernels are compiled as C++, a thread of the processor for each of a block, and launched by
a library with the functions of the CUDA driver that are used.
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
extern thread_local Place threadIdx, blockIdx;
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
extern "C" const bool %(name)s_waits = %(waits)s;
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
#include <barrier>
#include <cstdint>
#include <dlfcn.h>
#include <string>
#include <thread>
#include <vector>
struct Place { int64_t x; };
thread_local Place threadIdx, blockIdx;
static std::barrier<> *meeting;
struct Kernel { bool waits; void (*thread)(void **); };
// Blocks come one after another. Threads that need not wait for each other do so too.
static void run(Kernel kernel, int64_t blocks, int64_t threads, void **table) {
  if (!kernel.waits) {
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
      for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel.thread(table);
    return;
  }
  std::barrier<> all(threads);
  meeting = &all;
  std::vector<std::thread> team;
  for (int64_t t = 0; t < threads; ++t) team.emplace_back([=] {
    threadIdx.x = t;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) { kernel.thread(table); meeting->arrive_and_wait(); }
  });
  for (auto &one : team) one.join();
}
static thread_local int current = 0;
static int known;
static const CUresult FINE = (CUresult)0, INVALID = (CUresult)1, NO_DEVICE = (CUresult)101, NO_CONTEXT = (CUresult)201;
extern "C" {
void __syncthreads() { meeting->arrive_and_wait(); }
int64_t launches = 0;
void *last_stream = nullptr;
CUresult cuInit(unsigned) { return FINE; }
CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == NO_DEVICE ? "invalid device ordinal" : error == NO_CONTEXT ? "no context" : "invalid argument";
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
  void *thread = dlsym((void *)module, (std::string(name) + "_thread").c_str());
  if (!thread) return INVALID;
  bool waits = *(bool *)dlsym((void *)module, (std::string(name) + "_waits").c_str());
  *function = (CUfunction) new Kernel{waits, (void (*)(void **))thread};
  return FINE;
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned v,
                        unsigned w, unsigned shared, CUstream stream, void **table, void **extra) {
  if (!current) return NO_CONTEXT;
  if (!x || x > 2147483647u || y != 1 || z != 1 || !threads || threads > 1024 || v != 1 || w != 1) return INVALID;
  if (shared || extra) return INVALID;
  ++launches;
  last_stream = (void *)stream;
  run(*(Kernel *)function, x, threads, table);
  return FINE;
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
    command = ["g++", "-std=c++20", "-ffp-contract=off", "-shared", "-fPIC", "-pthread", "-I/usr/local/cuda/include"]
    subprocess.run([*command, "-o", library, path], check=True)
    return library


def compiled(source):
    """What :func:`driver` loads for CUDA source."""
    body = source[source.index('extern "C"') :].replace("__shared__ alignas(64)", "static")
    code = KERNELS + body
    for name, listed in parameters(source).items():
        arguments = [f"*({kind.replace('__restrict__', '')}*)table[{place}]" for place, (kind, _) in enumerate(listed)]
        text = body[body.index(f" {name}({', '.join(' '.join(one) for one in listed)}) {{") :]
        text = text[: text.index("\n}\n")]
        waits = "true" if "__syncthreads" in text else "false"
        code += ENTRY % {"name": name, "waits": waits, "arguments": ", ".join(arguments)}
    return str(built(code)).encode()


@lru_cache(maxsize=1)
def library():
    return ctypes.CDLL(str(built(DRIVER)), mode=ctypes.RTLD_GLOBAL)  # kernels are linked against it


@lru_cache(maxsize=1)
def driver():
    return Driver(library(), 0)
