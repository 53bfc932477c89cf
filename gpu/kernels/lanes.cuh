// One source, two compilers. Under nvcc or NVRTC a `lanes<R>` is one number and a warp is a warp;
// under g++ it is a vector of 32 numbers and the warp runs in lockstep on the host, shuffles,
// masks and addresses included.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define ON_DEVICE 1
#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define KEEP_LOOP _Pragma("unroll 1")

template <class R> struct lanes_of { typedef R type; };
typedef int lane_index;
typedef bool lane_mask;

DEVICE lane_index lane_number() { return threadIdx.x & 31; }

template <class R> DEVICE R fetch(const R* from, lane_index at) { return from[at]; }
DEVICE float2 load_two(const float* from) { return __ldg((const float2*)from); }
DEVICE double2 load_two(const double* from) { return __ldg((const double2*)from); }
// An address a lane, so that rows of a table are one addition apart.
template <class R> struct lane_address { const R* at; };
template <class R> DEVICE lane_address<R> address(const R* from, lane_index at) { return {from + at}; }
template <class R> DEVICE lane_address<R> moved(lane_address<R> a, int by) { return {a.at + by}; }
// Two numbers that lie side by side, in one load.
template <class R> DEVICE void fetch_two(lane_address<R> from, int row, R& first, R& second) {
    const auto both = load_two(from.at + row);
    first = both.x;
    second = both.y;
}
// Numbers of another type, one an address of each lane.
template <class V, class R> DEVICE V fetch_as(const R* from, lane_index at) { return (V)from[at]; }
template <class R, class V> DEVICE void store_as(R* to, lane_index at, V v, lane_mask mask) {
    if (mask) to[at] = (R)v;
}
template <class R> DEVICE R choose(bool mask, R yes, R no) { return mask ? yes : no; }
DEVICE float shuffle_up(float v) { return __shfl_up_sync(0xffffffffu, v, 1); }
DEVICE float shuffle_down(float v) { return __shfl_down_sync(0xffffffffu, v, 1); }
DEVICE double shuffle_up(double v) { return __shfl_up_sync(0xffffffffu, v, 1); }
DEVICE double shuffle_down(double v) { return __shfl_down_sync(0xffffffffu, v, 1); }

// The approximate root is right to 1 in 2^23 and maps 0 to 0: one instruction instead of eight.
DEVICE float root(float v) {
    float r;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}
DEVICE double root(double v) { return sqrt(v); }
DEVICE float lesser(float a, float b) { return fminf(a, b); }
DEVICE double lesser(double a, double b) { return fmin(a, b); }
DEVICE float greater(float a, float b) { return fmaxf(a, b); }
DEVICE double greater(double a, double b) { return fmax(a, b); }

// The sum over the lanes, in float64 and in one order.
template <class R> DEVICE double total_of(R v) {
    double sum = v;
    UNROLL for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    return sum;
}
DEVICE bool first_lane() { return (threadIdx.x & 31) == 0; }

#else
#include <cmath>

#define DEVICE inline __attribute__((always_inline))
#define UNROLL
#define KEEP_LOOP

typedef float lanes_float __attribute__((vector_size(128)));
typedef double lanes_double __attribute__((vector_size(256)));
typedef int lane_index __attribute__((vector_size(128)));
typedef long lane_wide __attribute__((vector_size(256)));
typedef lane_index lane_mask;

template <class R> struct lanes_of;
template <> struct lanes_of<float> { typedef lanes_float type; };
template <> struct lanes_of<double> { typedef lanes_double type; };

DEVICE lane_index lane_number() {
    lane_index v = {};
    for (int i = 0; i < 32; ++i) v[i] = i;
    return v;
}
DEVICE lanes_float fetch(const float* from, const lane_index& at) {
    lanes_float v = {};
    for (int i = 0; i < 32; ++i) v[i] = from[at[i]];
    return v;
}
DEVICE lanes_double fetch(const double* from, const lane_index& at) {
    lanes_double v = {};
    for (int i = 0; i < 32; ++i) v[i] = from[at[i]];
    return v;
}
template <class R> struct lane_address { const R* from; lane_index at; };
template <class R> DEVICE lane_address<R> address(const R* from, const lane_index& at) {
    return {from, at};
}
template <class R> DEVICE lane_address<R> moved(const lane_address<R>& a, int by) {
    return {a.from + by, a.at};
}
template <class R, class V>
DEVICE void fetch_two(const lane_address<R>& from, int row, V& first, V& second) {
    first = fetch(from.from + row, from.at);
    second = fetch(from.from + row + 1, from.at);
}
template <class V, class R> DEVICE V fetch_as(const R* from, const lane_index& at) {
    V v = {};
    for (int i = 0; i < 32; ++i) v[i] = from[at[i]];
    return v;
}
template <class R, class V>
DEVICE void store_as(R* to, const lane_index& at, const V& v, const lane_mask& mask) {
    for (int i = 0; i < 32; ++i)
        if (mask[i]) to[at[i]] = (R)v[i];
}
DEVICE lane_wide widened(const lane_index& m) { return __builtin_convertvector(m, lane_wide); }
DEVICE lane_wide widened(const lane_wide& m) { return m; }
DEVICE lanes_float choose(const lane_index& m, const lanes_float& a, const lanes_float& b) {
    return m ? a : b;
}
template <class M>
DEVICE lanes_double choose(const M& m, const lanes_double& a, const lanes_double& b) {
    return widened(m) ? a : b;
}
DEVICE float choose(bool mask, float yes, float no) { return mask ? yes : no; }
DEVICE double choose(bool mask, double yes, double no) { return mask ? yes : no; }

// As on the device, the lane at the end keeps its own number.
template <class V> DEVICE V shuffle_up_any(const V& v) {
    V r = v;
    for (int i = 31; i > 0; --i) r[i] = v[i - 1];
    return r;
}
template <class V> DEVICE V shuffle_down_any(const V& v) {
    V r = v;
    for (int i = 0; i < 31; ++i) r[i] = v[i + 1];
    return r;
}
DEVICE lanes_float shuffle_up(const lanes_float& v) { return shuffle_up_any(v); }
DEVICE lanes_float shuffle_down(const lanes_float& v) { return shuffle_down_any(v); }
DEVICE lanes_double shuffle_up(const lanes_double& v) { return shuffle_up_any(v); }
DEVICE lanes_double shuffle_down(const lanes_double& v) { return shuffle_down_any(v); }

DEVICE float root(float v) { return __builtin_sqrtf(v); }
DEVICE double root(double v) { return __builtin_sqrt(v); }
template <class V> DEVICE V root(const V& v) {
    V r = v;
    for (int i = 0; i < 32; ++i) r[i] = root(v[i]);
    return r;
}
DEVICE float lesser(float a, float b) { return a < b ? a : b; }
DEVICE double lesser(double a, double b) { return a < b ? a : b; }
DEVICE float greater(float a, float b) { return a > b ? a : b; }
DEVICE double greater(double a, double b) { return a > b ? a : b; }
template <class V> DEVICE V lesser(const V& a, const V& b) { return a < b ? a : b; }
template <class V> DEVICE V greater(const V& a, const V& b) { return a > b ? a : b; }

template <class V> DEVICE double total_of(const V& v) {
    double part[32];
    for (int i = 0; i < 32; ++i) part[i] = v[i];
    for (int step = 16; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) part[i] += part[i + step];
    return part[0];
}
DEVICE bool first_lane() { return true; }
#endif

template <class V> struct real_of { typedef V type; };
#ifndef ON_DEVICE
template <> struct real_of<lanes_float> { typedef float type; };
template <> struct real_of<lanes_double> { typedef double type; };
template <class V> struct constant_of {
    static V make(typename real_of<V>::type value) {
        V v = {};
        return v + value;
    }
};
template <> struct constant_of<float> { static float make(float v) { return v; } };
template <> struct constant_of<double> { static double make(double v) { return v; } };
template <class V> DEVICE V constant(typename real_of<V>::type value) {
    return constant_of<V>::make(value);
}
#else
template <class V> DEVICE V constant(V value) { return value; }
#endif
