// Plain arithmetic on one vector.
#pragma once

#include <algorithm>
#include <cmath>

namespace onepass {

inline void softmax(float* x, int width) {
    const float most = *std::max_element(x, x + width);
    float total = 0;
    for (int i = 0; i < width; ++i) total += x[i] = std::exp(x[i] - most);
    for (int i = 0; i < width; ++i) x[i] /= total;
}

// A NaN stays.
inline void keep_largest(float* most, const float* x, int width) {
    for (int i = 0; i < width; ++i) most[i] = most[i] >= x[i] || most[i] != most[i] ? most[i] : x[i];
}

// To length 1.
inline void normalise_l2(float* x, int width) {
    double squares = 0;
    for (int i = 0; i < width; ++i) squares += static_cast<double>(x[i]) * x[i];
    const auto length = static_cast<float>(std::max(std::sqrt(squares), 1e-12));
    for (int i = 0; i < width; ++i) x[i] /= length;
}

}  // namespace onepass
