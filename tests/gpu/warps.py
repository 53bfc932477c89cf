"""Warps of a device on the host: the text that NVRTC compiles, with its own threads and blocks.

The 32 threads of a warp are contexts that hand over to each other at every shuffle; warps and
blocks run one after another. So grid, block, thread and lane numbers, vector loads and shuffles
are those of the device, and what is left to it is its compiler. Its approximate root is a root.
"""

import ctypes
import re

from tangency.gpu.host import build

_ROOT = 'asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));'

_BEFORE = """
#include <cmath>
#include <cstdlib>
#include <ucontext.h>
#define __CUDACC__ 1
#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
struct dim_of { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) double2 { double x, y; };
static dim_of threadIdx, blockIdx, blockDim;
static ucontext_t outside, inside[32];
static double slots[2][32];
static int turns[32], lane_now;
static bool over[32];
static char stacks[32][1 << 18];

static void resume(int lane) {
    lane_now = lane;
    threadIdx.x = threadIdx.x / 32 * 32 + lane;
}
static void hand_over() {
    const int me = lane_now;
    int next = (me + 1) % 32;
    while (over[next] && next != me) next = (next + 1) % 32;
    if (over[next]) { setcontext(&outside); }
    if (next == me) return;
    resume(next);
    swapcontext(&inside[me], &inside[next]);
}
// A value of another lane: written by all before it is read by any, in two sets in turn.
template <class R> R exchange(R value, int from) {
    const int me = lane_now, set = turns[me]++ & 1;
    slots[set][me] = value;
    hand_over();
    return (R)slots[set][from];
}
template <class R> R __shfl_up_sync(unsigned mask, R v, int by) {
    if (mask != 0xffffffffu) abort();
    return exchange(v, lane_now < by ? lane_now : lane_now - by);
}
template <class R> R __shfl_down_sync(unsigned mask, R v, int by) {
    if (mask != 0xffffffffu) abort();
    return exchange(v, lane_now + by > 31 ? lane_now : lane_now + by);
}
template <class R> R __shfl_xor_sync(unsigned mask, R v, int by) {
    if (mask != 0xffffffffu) abort();
    return exchange(v, lane_now ^ by);
}
template <class R> R __ldg(const R* from) {
    if ((size_t)from % alignof(R)) abort();
    return *from;
}
"""

_AFTER = """
template <class A> A argument_of(void (*)(A));
static const void* argument;
static int kernel;
static void thread() {
    @CALLS@
    over[lane_now] = true;
    hand_over();
}
extern "C" int emulate(int which, const void* task, long long blocks, int block) {
    argument = task;
    kernel = which;
    blockDim = {(unsigned)block, 1, 1};
    for (long long b = 0; b < blocks; ++b)
        for (int warp = 0; warp < block / 32; ++warp) {
            blockIdx = {(unsigned)b, 0, 0};
            for (int i = 0; i < 32; ++i) {
                getcontext(&inside[i]);
                inside[i].uc_stack.ss_sp = stacks[i];
                inside[i].uc_stack.ss_size = sizeof(stacks[i]);
                inside[i].uc_link = 0;
                makecontext(&inside[i], thread, 0);
                over[i] = false;
                turns[i] = 0;
            }
            threadIdx = {(unsigned)(32 * warp), 0, 0};
            resume(0);
            swapcontext(&outside, &inside[0]);
            for (int i = 1; i < 32; ++i)
                if (turns[i] != turns[0]) return 1;  // a lane that others wait for
        }
    return 0;
}
"""


class Module:
    """``cupy.RawModule`` of sources whose kernels take one structure."""

    def __init__(self, code, options, backend):
        assert "-std=c++17" in options
        assert _ROOT in code
        self.names = re.findall(r"^SITES_KERNEL\((\w+)\)", code, re.M)
        self.names = [f"sites_{name}_kernel" for name in self.names] or ["stage_kernel"]
        call = "if (kernel == {}) {}((decltype(argument_of({})))argument);".format
        calls = "\n    ".join(call(i, name, name) for i, name in enumerate(self.names))
        text = _BEFORE + code.replace(_ROOT, "r = sqrtf(v);") + _AFTER.replace("@CALLS@", calls)
        self.library = build(text, options=("-O1",))
        kinds = ctypes.c_int, ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int
        self.library.emulate.argtypes = kinds

    def get_function(self, name):
        which = self.names.index(name)

        def launch(grid, block, arguments):
            (blocks,), (threads,), (task,) = grid, block, arguments
            assert threads % 32 == 0
            assert threads <= 1024
            assert 0 < blocks < 2**31
            assert self.library.emulate(which, task.ctypes.data, blocks, threads) == 0

        return launch
