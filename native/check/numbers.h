// Random numbers in the two formats of the kernels, and what a bfloat16 is worth.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace onepass::check {

inline float widened(uint16_t x) {
    const uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// To nearest, ties to even.
inline uint16_t rounded(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>((bits + (bits >> 16 & 1) + 0x7fff) >> 16);
}

inline double value(float x) { return x; }
inline double value(uint16_t x) { return widened(x); }

template <class Element>
constexpr bool is_bf16 = std::is_same_v<Element, uint16_t>;

template <class Element>
Element element(float x) {
    if constexpr (is_bf16<Element>) return rounded(x);
    else return x;
}

// What must not be read shows in every result; what must not be written stays as it is.
template <class Element>
Element not_a_number() {
    return element<Element>(std::numeric_limits<float>::quiet_NaN());
}

template <class Element>
std::vector<Element> normal_numbers(size_t count, double deviation = 1) {
    static std::mt19937 generator(0);
    std::normal_distribution<double> draw(0, deviation);
    std::vector<Element> numbers(count);
    for (Element& number : numbers) number = element<Element>(static_cast<float>(draw(generator)));
    return numbers;
}

inline int whole(int n, int step) { return (n + step - 1) / step * step; }

}  // namespace onepass::check
