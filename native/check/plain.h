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

inline Exact operator*(Exact a, Exact b) {
    return {a.value * b.value, a.size * std::fabs(b.value) + std::fabs(a.value) * b.size};
}

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

// mixed[head_size] = the mean of the values [keys, head_size], weighted by the softmax of the scores; a key that is not
// seen has the score -infinity. Zeros if none is seen.
template <class Element>
std::vector<Exact> attended(std::vector<double> scores, const Element* values, int head_size) {
    const double largest = *std::max_element(scores.begin(), scores.end());
    std::vector<Exact> mixed(static_cast<size_t>(head_size));
    if (std::isinf(largest)) return mixed;
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - largest);
    for (const double weight : scores)
        for (Exact& sum : mixed) add(sum, weight / total * value(*values++));
    return mixed;
}

inline std::vector<Exact> rms_normalised(const std::vector<float>& x, const float* weight, double eps) {
    double squares = 0;
    for (const double number : x) squares += number * number / static_cast<double>(x.size());
    std::vector<Exact> result;
    for (const double number : x) {
        const double normalised = number / std::sqrt(squares + eps) * *weight++;
        result.push_back({normalised, std::fabs(normalised)});
    }
    return result;
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
