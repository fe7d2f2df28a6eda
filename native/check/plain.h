// What the kernels compute, as plain loops in double. Every value comes with its size, the sum of the magnitudes that
// were added up to it: rounding errors are relative to that.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "numbers.h"

namespace onepass::check {

struct Exact {
    double value, size;
};

inline double logistic(double x) { return 1 / (1 + std::exp(-x)); }

inline double activated(Activation kind, double x) {
    const double gelu = 0.5 * x * std::erfc(-x / std::sqrt(2.0)), positive = std::max(x, 0.0);
    switch (kind) {
        case Activation::identity: return x;
        case Activation::gelu: return gelu;
        case Activation::gelu_tanh: return x * logistic(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
        case Activation::quick_gelu: return x * logistic(1.702 * x);
        case Activation::gelu_clipped: return std::clamp(gelu, -10.0, 10.0);
        case Activation::silu: return x * logistic(x);
        case Activation::relu: return positive;
        case Activation::relu2: return positive * positive;
        case Activation::tanh: return std::tanh(x);
        case Activation::sigmoid: return logistic(x);
        case Activation::relu_log1p: return std::log1p(positive);
    }
    return NAN;
}

// An error in x is passed on as it is, but by relu2, which is as steep as 2 x.
inline Exact activated(Activation kind, Exact x) {
    const double steepness = kind == Activation::relu2 ? std::max(1.0, 2 * std::fabs(x.value)) : 1;
    return {activated(kind, x.value), x.size * steepness};
}

template <class Element>
Exact dot(const Element* a, const Element* b, int n) {
    Exact sum = {0, 0};
    for (int i = 0; i < n; ++i) {
        const double term = value(a[i]) * value(b[i]);
        sum.value += term, sum.size += std::fabs(term);
    }
    return sum;
}

inline void add(Exact& sum, double term) { sum.value += term, sum.size += std::fabs(term); }

// mixed[head_size] = softmax(scale q k^T) v for one query; keys and values [visible, head_size].
template <class Element>
std::vector<Exact> attended(const Element* query, const Element* keys, const Element* values, int visible,
                            int head_size, double scale) {
    std::vector<double> weights;
    for (int key = 0; key < visible; ++key)
        weights.push_back(scale * dot(query, keys + static_cast<ptrdiff_t>(key) * head_size, head_size).value);
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - largest);

    std::vector<Exact> mixed(static_cast<size_t>(head_size));
    for (const double weight : weights)
        for (Exact& sum : mixed) add(sum, weight / total * value(*values++));
    return mixed;
}

inline std::vector<Exact> normalised(const std::vector<float>& x, const float* weight, const float* bias, double eps) {
    const auto n = static_cast<double>(x.size());
    double mean = 0, variance = 0;
    for (const double number : x) mean += number / n;
    for (const double number : x) variance += (number - mean) * (number - mean) / n;
    const double slope = 1 / std::sqrt(variance + eps);

    std::vector<Exact> result;
    for (const double number : x) {
        const double gain = slope * *weight++;
        Exact sum = {(number - mean) * gain, (std::fabs(number) + std::fabs(mean)) * std::fabs(gain)};
        if (bias) add(sum, *bias++);
        result.push_back(sum);
    }
    return result;
}

}  // namespace onepass::check
