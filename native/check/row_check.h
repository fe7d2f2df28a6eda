// The functions over one row: norms, rotation, activations, rounding.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "record.h"

namespace onepass::check {

inline void check_layer_norm(const Kernels& kernels, int n, bool with_bias, Record& record) {
    record.at(std::to_string(n) + " numbers" + (with_bias ? ", bias" : ""));
    const auto count = static_cast<size_t>(n);
    std::vector<float> x = normal_numbers<float>(count, 3), weight = normal_numbers<float>(count);
    const std::vector<float> bias = normal_numbers<float>(count);
    for (float& number : x) number += 2;
    constexpr float eps = 1e-12f;
    const std::vector<Exact> exact = normalised(x, weight.data(), with_bias ? bias.data() : nullptr, eps);
    kernels.layer_norm(x.data(), weight.data(), with_bias ? bias.data() : nullptr, eps, n);
    for (size_t i = 0; i < count; ++i) record.near(exact[i], x[i]);
}

inline void check_rms_norm(const Kernels& kernels, int n, Record& record) {
    record.at(std::to_string(n) + " numbers");
    const auto count = static_cast<size_t>(n);
    std::vector<float> x = normal_numbers<float>(count, 3);
    const std::vector<float> weight = normal_numbers<float>(count);
    constexpr float eps = 1e-6f;
    const std::vector<Exact> exact = rms_normalised(x, weight.data(), eps);
    kernels.rms_norm(x.data(), weight.data(), eps, n);
    for (size_t i = 0; i < count; ++i) record.near(exact[i], x[i]);
}

// Pairs of x[half] and of what lies behind it, each turned by an angle of its own.
inline void check_rotation(const Kernels& kernels, int half, Record& record) {
    record.at(std::to_string(half) + " pairs");
    const auto pairs = static_cast<size_t>(half);
    const std::vector<float> before = normal_numbers<float>(2 * pairs), angles = normal_numbers<float>(pairs, 3);
    std::vector<float> x = before, cosines, sines;
    for (const float angle : angles) cosines.push_back(std::cos(angle)), sines.push_back(std::sin(angle));
    kernels.rotate(x.data(), cosines.data(), sines.data(), half);
    for (size_t i = 0; i < pairs; ++i) {
        const double a = before[i], b = before[pairs + i], cosine = cosines[i], sine = sines[i];
        Exact first = {0, 0}, second = {0, 0};
        add(first, a * cosine), add(first, -b * sine);
        add(second, b * cosine), add(second, a * sine);
        record.near(first, x[i]);
        record.near(second, x[pairs + i]);
    }
}

inline void check_activation(const Kernels& kernels, Activation kind, int n, Record& record) {
    record.at("activation " + std::to_string(static_cast<int>(kind)) + " of " + std::to_string(n) + " numbers");
    std::vector<float> x = normal_numbers<float>(static_cast<size_t>(n), 4);
    if (n > 8) x[0] = 0, x[1] = -0.0f, x[2] = 100, x[3] = -100, x[4] = 1e-20f, x[5] = -1e-20f, x[6] = 12, x[7] = -12;
    std::vector<float> all = x;
    kernels.activate(kind, all.data(), n);
    for (int i = 0; i < n; ++i) {
        float alone = x[static_cast<size_t>(i)];
        record.near(activated(kind, Exact{alone, std::fabs(alone)}), all[static_cast<size_t>(i)]);
        kernels.activate(kind, &alone, 1);
        record.same(&all[static_cast<size_t>(i)], &alone, sizeof alone, "for a number alone");
    }
}

inline void check_sum_exponentials(const Kernels& kernels, int n, Record& record) {
    record.at(std::to_string(n) + " numbers");
    std::vector<float> x = normal_numbers<float>(static_cast<size_t>(n), 4);
    if (n > 2) x[1] = -500;
    const float largest = *std::max_element(x.begin(), x.end());
    Exact exact = {0, 0};
    for (const float number : x) add(exact, std::exp(static_cast<double>(number) - largest));
    float most = 0;
    record.near(exact, kernels.sum_exponentials(x.data(), n, &most));
    record.holds(most == largest, "the largest number is the largest");
}

// Exact: to the nearest, halves to even, zeros up to a whole panel.
inline void check_rounding(const Kernels& kernels, int n, Record& record) {
    record.at(std::to_string(n) + " numbers");
    std::vector<float> x = normal_numbers<float>(static_cast<size_t>(n), 100);
    const float halves[] = {0.0f, -0.0f, 1.00390625f, 1.01171875f, -1.00390625f, -1.01171875f, 1e-30f, 3e38f, 1.99999f};
    std::copy_n(halves, std::min(n, 9), x.begin());
    std::vector<uint16_t> expected, out(static_cast<size_t>(whole(n, kernels.panel_columns)), not_a_number<uint16_t>());
    for (const float number : x) expected.push_back(rounded(number));
    expected.resize(out.size());
    kernels.round_bf16(x.data(), out.data(), n);
    for (int i = 0; i < n; ++i) {
        const double number = x[static_cast<size_t>(i)];
        record.near({number, std::fabs(number)}, value(out[static_cast<size_t>(i)]));
    }
    record.same(out.data(), expected.data(), out.size() * sizeof(uint16_t), "than the nearest");
}

}  // namespace onepass::check
