// Vectors of GCC and Clang, and numbers as float32, bfloat16 or rounded to the steps of 8 bits.

#pragma once

#include <cstdint>

#ifdef __AVX__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

using Bfloat16 = uint16_t;
// They may be loaded from and stored in numbers of any other kind.
using Floats = float __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
using Ints = int32_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
using Shorts = uint16_t __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
using Bytes = uint8_t __attribute__((vector_size(LANES), aligned(1), may_alias));

inline Floats all(float value) { return value - Floats{}; }

inline Floats load(const float *from) { return *reinterpret_cast<const Floats *>(from); }

inline Floats load(const Bfloat16 *from) {
    const auto bits = *reinterpret_cast<const Shorts *>(from);
    return reinterpret_cast<Floats>(__builtin_convertvector(bits, Ints) << 16);
}

inline void store(float *to, Floats x) { *reinterpret_cast<Floats *>(to) = x; }

inline void store(Bfloat16 *to, Floats x) {  // rounded to the nearest, ties to even
    Ints bits = reinterpret_cast<Ints>(x);
    bits = x == x ? bits + 0x7fff + ((bits >> 16) & 1) : bits | 0x400000;
    *reinterpret_cast<Shorts *>(to) = __builtin_convertvector(bits >> 16, Shorts);
}

// The larger and the smaller of two; the second where one is not a number. Compilers do not find
// these instructions by themselves.
#ifdef __AVX512F__
inline Floats larger(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm512_max_ps(a, b)); }
inline Floats smaller(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm512_min_ps(a, b)); }
#elif defined(__AVX__)
inline Floats larger(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm256_max_ps(a, b)); }
inline Floats smaller(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm256_min_ps(a, b)); }
#else
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
#endif

// How to round to steps: `factor` steps to one of each column, and the step of zero and a half.
struct Rounding {
    const float *factor;
    float half;
};

template <typename Out>
inline void give(Out *to, Floats x, int64_t, const Rounding &) {
    store(to, x);
}

inline void give(uint8_t *to, Floats x, int64_t column, const Rounding &rounding) {
    const Floats step = x * load(rounding.factor + column) + rounding.half;
    const Ints whole = __builtin_convertvector(smaller(larger(step, all(0)), all(255)), Ints);
    *reinterpret_cast<Bytes *>(to) = __builtin_convertvector(whole, Bytes);
}

}  // namespace
