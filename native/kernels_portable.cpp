// Any processor: the compiler's own vectors of 4 floats, which become SSE2, NEON or plain arithmetic.

#include <string.h>

#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using namespace onepass;

typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));

constexpr int width = 4, panel_columns = 8;
#if defined(__aarch64__)
constexpr int tile_rows = 10, block_rows = 8;  // 32 registers
#else
constexpr int tile_rows = 6, block_rows = 4;  // 16 registers
#endif

struct Vec {
    Floats v;
};

inline Vec broadcast(float x) { return {Floats{x, x, x, x}}; }
inline Vec load(const float* p) {
    Vec a;
    memcpy(&a, p, sizeof a);
    return a;
}
inline Vec load(const uint16_t* p) { return {reinterpret_cast<Floats>(Words{p[0], p[1], p[2], p[3]} << 16)}; }
inline Vec load_first(const float* p, int n) {
    Vec a = broadcast(0.0f);
    memcpy(&a, p, sizeof(float) * static_cast<size_t>(n));
    return a;
}
inline void store(float* p, Vec a) { memcpy(p, &a, sizeof a); }
inline void store_first(float* p, Vec a, int n) { memcpy(p, &a, sizeof(float) * static_cast<size_t>(n)); }

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__aarch64__)
    return {vfmaq_f32(c.v, a.v, b.v)};
#else
    return {a.v * b.v + c.v};
#endif
}
inline Vec select_less(Vec a, Vec b, Vec yes, Vec no) { return {a.v < b.v ? yes.v : no.v}; }
inline Vec maximum(Vec a, Vec b) { return select_less(b, a, a, b); }
inline Vec minimum(Vec a, Vec b) { return select_less(a, b, a, b); }
inline Vec magnitude(Vec a) { return {reinterpret_cast<Floats>(reinterpret_cast<Words>(a.v) & 0x7fffffffu)}; }
inline Vec nearest_integer(Vec a) {
    // Adding 1.5 * 2^23 leaves no bits below one; right for |a| < 2^22, and exponents stay below 2^8.
    const Floats shift = broadcast(12582912.0f).v;
    return {(a.v + shift) - shift};
}
inline Vec times_power_of_two(Vec a, Vec integer) {
    const Ints exponent = __builtin_convertvector(integer.v, Ints) << 23;
    return {reinterpret_cast<Floats>(reinterpret_cast<Ints>(a.v) + exponent)};
}
inline float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float largest(Vec a) {
    const float even = a.v[0] > a.v[2] ? a.v[0] : a.v[2], odd = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
    return even > odd ? even : odd;
}

inline void store_first(uint16_t* p, Vec a, int n) {
    const Words bits = reinterpret_cast<Words>(a.v), rounded = (bits + ((bits >> 16) & 1u) + 0x7fffu) >> 16;
    for (int i = 0; i < n; ++i) p[i] = static_cast<uint16_t>(rounded[i]);
}
inline void store(uint16_t* p, Vec a) { store_first(p, a, width); }

inline Vec first_of_pairs(Vec a) { return {reinterpret_cast<Floats>(reinterpret_cast<Words>(a.v) << 16)}; }
inline Vec second_of_pairs(Vec a) { return {reinterpret_cast<Floats>(reinterpret_cast<Words>(a.v) & 0xffff0000u)}; }
// Of two vectors of bfloat16 in the upper halves of their words: pairs, a's number first.
inline Vec pairs(Vec a, Vec b) {
    return {reinterpret_cast<Floats>(reinterpret_cast<Words>(a.v) >> 16 | reinterpret_cast<Words>(b.v))};
}

// a0 b0 a1 b1 of the lower, then of the upper halves.
inline Vec interleave_low(Vec a, Vec b) { return {Floats{a.v[0], b.v[0], a.v[1], b.v[1]}}; }
inline Vec interleave_high(Vec a, Vec b) { return {Floats{a.v[2], b.v[2], a.v[3], b.v[3]}}; }

#include "bf16_emulated.inl"
#include "bf16_pairs.inl"
#include "kernels.inl"

}  // namespace

extern "C" const Kernels onepass_kernels_portable = table("portable", false);
