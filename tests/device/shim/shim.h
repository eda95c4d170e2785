// Runs CUDA kernels on the CPU, for tests: one fibre per thread of a block, blocks one after the other.
//
// Known: threadIdx, blockIdx, blockDim, __shared__ (static), __syncthreads (checked: all threads of a block must meet), atomicAdd,
// __dp4a, __float2half_rn, vector types. Not known: warps, textures, dynamic shared memory, streams. The order of
// threads is a choice, so that a result which depends on it shows. Shared memory is filled with rubbish before each block.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <ucontext.h>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define STREAMER_SHIM
#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ __attribute__((section("shared_memory"))) static

using std::max;
using std::min;
struct Index { unsigned x, y, z; };
inline Index threadIdx, blockIdx, blockDim, gridDim;

struct uchar4 { uint8_t x, y, z, w; } __attribute__((aligned(4)));
inline uchar4 make_uchar4(uint8_t x, uint8_t y, uint8_t z, uint8_t w) { return {x, y, z, w}; }
struct float4 { float x, y, z, w; } __attribute__((aligned(16)));
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct __half { _Float16 value; };
inline __half __float2half_rn(float value) { return {(_Float16)value}; }
inline unsigned __dp4a(unsigned first, unsigned second, unsigned sum) {
    for (int at = 0; at < 32; at += 8) sum += (first >> at & 255) * (second >> at & 255);
    return sum;
}
template <typename Value>
Value atomicAdd(Value *place, Value value) { Value before = *place; *place = before + value; return before; }

namespace shim {
enum State { READY, WAITING, DONE };
struct Fibre { ucontext_t context; std::vector<char> stack; State state; void *fake; };
inline std::vector<Fibre> fibres;
inline ucontext_t scheduler;
inline unsigned running;
inline void (*body)(const void *);
inline const void *arguments;
inline const void *scheduler_stack;
inline size_t scheduler_size;
constexpr size_t STACK = 64 << 10;

inline void leave(State state) {  // from a fibre back to the scheduler
    Fibre &fibre = fibres[running];
    fibre.state = state;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(state == DONE ? nullptr : &fibre.fake, scheduler_stack, scheduler_size);
#endif
    swapcontext(&fibre.context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fibres[running].fake, &scheduler_stack, &scheduler_size);
#endif
}

inline void entry() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    body(arguments);
    leave(DONE);
}

inline void enter(unsigned thread) {  // from the scheduler into a fibre
    Fibre &fibre = fibres[thread];
    running = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fibre.stack.data(), STACK);
#endif
    swapcontext(&scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// 0, or 1 where some threads of a block wait at a barrier that others never reach.
inline int run_block(bool reversed) {
    unsigned count = blockDim.x * blockDim.y * blockDim.z;
    if (fibres.size() < count) fibres.resize(count);
    for (unsigned thread = 0; thread < count; thread++) {
        Fibre &fibre = fibres[thread];
        fibre.stack.resize(STACK);
        fibre.state = READY;
        fibre.fake = nullptr;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = STACK;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, entry, 0);
    }
    for (;;) {
        unsigned done = 0;
        for (unsigned at = 0; at < count; at++) {
            unsigned thread = reversed ? count - 1 - at : at;
            if (fibres[thread].state != DONE) enter(thread);
            done += fibres[thread].state == DONE;
        }
        if (done == count) return 0;
        if (done != 0) return 1;
    }
}
}  // namespace shim

inline void __syncthreads() { shim::leave(shim::WAITING); }

extern char __start_shared_memory[] __attribute__((weak)), __stop_shared_memory[] __attribute__((weak));

#define KERNEL(name, Args) \
    {#name, sizeof(Args), [](const void *given) { Args args; memcpy(&args, given, sizeof args); name(args); }}
struct Kernel { const char *name; size_t size; void (*body)(const void *); };

// 0; 1 divergent barrier; 2 no such kernel; 3 its argument has another size.
inline int launch(const Kernel *kernels, const char *name, const unsigned *grid, const unsigned *block, const void *arguments,
                  size_t size, bool reversed) {
    for (; kernels->name && strcmp(kernels->name, name); kernels++) {}
    if (!kernels->name) return 2;
    if (kernels->size != size) return 3;
    shim::body = kernels->body;
    shim::arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    unsigned blocks = grid[0] * grid[1] * grid[2];
    for (unsigned at = 0; at < blocks; at++) {
        unsigned place = reversed ? blocks - 1 - at : at;
        blockIdx = {place % grid[0], place / grid[0] % grid[1], place / (grid[0] * grid[1])};
        if (__start_shared_memory) memset(__start_shared_memory, 0xA5, (size_t)(__stop_shared_memory - __start_shared_memory));
        if (shim::run_block(reversed)) return 1;
    }
    return 0;
}
