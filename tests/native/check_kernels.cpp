// Every bfloat16 kernel of every instruction set that this machine runs, against sums in double, over many shapes; AMX
// also emulated (emulated_tiles.h), so that its file is checked where there are no tiles.
//
//   make check-kernels

#include <math.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpu.h"

extern "C" const onepass::Kernels onepass_kernels_amx_emulated;

using namespace onepass;

namespace {

std::mt19937 generator(0);
int failures = 0;

uint16_t rounded(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>((bits + (bits >> 16 & 1) + 0x7fff) >> 16);
}

float widened(uint16_t x) {
    const uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

std::vector<float> numbers(int count) {
    std::normal_distribution<float> draw;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = draw(generator);
    return values;
}

std::vector<uint16_t> halves(int count) {
    std::vector<uint16_t> values;
    for (float value : numbers(count)) values.push_back(rounded(value));
    return values;
}

int whole(int n, int step) { return (n + step - 1) / step * step; }

// A NaN differs from everything.
void expect_near(const Kernels& kernels, const std::string& what, double got, double wanted, double tolerance) {
    if (fabs(got - wanted) <= tolerance) return;
    if (++failures <= 20) std::printf("FAILED %s, %s: %g, not %g\n", kernels.name, what.c_str(), got, wanted);
}

struct Shape {
    int rows, depth, columns;
    bool bias, residual;
    Format out;
};

double exact_gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }

void check_product(const Kernels& kernels, const Shape& shape) {
    const int step = kernels.panel_columns, depth = whole(shape.depth, step), columns = whole(shape.columns, step);
    const int stride = depth + 32, out_stride = columns + 8;
    const auto weights = halves(shape.columns * shape.depth), a = halves(shape.rows * stride);
    std::vector<uint16_t> panels(static_cast<size_t>(columns * depth));
    for (int column = 0; column < shape.columns; ++column)
        for (int k = 0; k < shape.depth; ++k)
            panels[static_cast<size_t>(column / step * step * depth + (k / 2 * step + column % step) * 2 + k % 2)] =
                weights[static_cast<size_t>(column * shape.depth + k)];
    const auto bias = numbers(columns), residual = numbers(shape.rows * out_stride);
    std::vector<float> floats(static_cast<size_t>(shape.rows * out_stride), 77.0f);
    std::vector<uint16_t> shorts(floats.size(), 77);

    Product p = {};
    p.a = a.data(), p.a_stride = stride, p.panels = panels.data();
    p.bias = shape.bias ? bias.data() : nullptr;
    p.residual = shape.residual ? residual.data() : nullptr, p.residual_stride = out_stride;
    const bool to_bf16 = shape.out == Format::bfloat16;
    p.out = to_bf16 ? static_cast<void*>(shorts.data()) : floats.data();
    p.out_stride = out_stride, p.out_format = shape.out;
    p.rows = shape.rows, p.depth = depth, p.columns = shape.columns;
    p.activation = to_bf16 ? Activation::gelu : Activation::identity;
    kernels.product_bf16(&p);

    const std::string what = "product of " + std::to_string(shape.rows) + " x " + std::to_string(shape.columns) +
                             " x " + std::to_string(shape.depth) + (to_bf16 ? " to bfloat16" : "");
    for (int r = 0; r < shape.rows; ++r)
        for (int c = 0; c < out_stride; ++c) {
            const auto at = static_cast<size_t>(r * out_stride + c);
            if (c >= (to_bf16 ? columns : shape.columns)) {  // what is not the product's
                expect_near(kernels, what + " beyond", to_bf16 ? shorts[at] : floats[at], 77, 0);
                continue;
            }
            if (c >= shape.columns) continue;
            double sum = shape.bias ? bias[static_cast<size_t>(c)] : 0, size = 1;
            for (int k = 0; k < shape.depth; ++k) {
                const double term = static_cast<double>(widened(a[static_cast<size_t>(r * stride + k)])) *
                                    widened(weights[static_cast<size_t>(c * shape.depth + k)]);
                sum += term, size += fabs(term);
            }
            if (shape.residual) sum += residual[at];
            const double wanted = to_bf16 ? exact_gelu(sum) : sum;
            const double got = to_bf16 ? widened(shorts[at]) : floats[at];
            expect_near(kernels, what, got, wanted, 1e-6 * size + (to_bf16 ? 2e-5 + 0.005 * fabs(wanted) : 0));
        }
}

void check_attention(const Kernels& kernels, int tokens, int visible, int head_size) {
    const int stride = 3 * head_size + 64, out_stride = head_size + 8;
    const auto states = halves(tokens * stride);
    std::vector<uint16_t> out(static_cast<size_t>(tokens * out_stride), 77);
    std::vector<float> scratch(kernels.attention_scratch(tokens, head_size) + 16);
    Attention task = {};
    task.query = states.data(), task.key = states.data() + head_size, task.value = states.data() + 2 * head_size;
    task.stride = stride, task.out = out.data(), task.out_stride = out_stride;
    task.tokens = tokens, task.visible = visible, task.head_size = head_size;
    task.scale = 1 / sqrtf(static_cast<float>(head_size));
    task.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64 / sizeof(float);
    kernels.attend_bf16(&task);

    const auto number = [&](int token, int column) {
        return static_cast<double>(widened(states[static_cast<size_t>(token * stride + column)]));
    };
    const std::string what = "attention of " + std::to_string(tokens) + " tokens, " + std::to_string(visible) +
                             " visible, head of " + std::to_string(head_size);
    std::vector<double> weights(static_cast<size_t>(visible));
    for (int query = 0; query < tokens; query += 1 + tokens / 40) {
        double total = 0;
        for (int key = 0; key < visible; ++key) {
            double score = 0;
            for (int d = 0; d < head_size; ++d) score += number(query, d) * number(key, head_size + d);
            total += weights[static_cast<size_t>(key)] = exp(score * task.scale);
        }
        for (int d = 0; d < out_stride; ++d) {
            const uint16_t bits = out[static_cast<size_t>(query * out_stride + d)];
            if (d >= head_size) {
                expect_near(kernels, what + " beyond", bits, 77, 0);
                continue;
            }
            double mixed = 0, size = 0;
            for (int key = 0; key < visible; ++key) {
                const double term = weights[static_cast<size_t>(key)] / total * number(key, 2 * head_size + d);
                mixed += term, size += fabs(term);
            }
            expect_near(kernels, what, widened(bits), mixed, 0.008 * size);
        }
    }
}

void check_rounding(const Kernels& kernels) {
    for (int n : {1, 2, 15, 16, 17, 31, 32, 33, 100}) {
        const auto x = numbers(n);
        std::vector<uint16_t> out(static_cast<size_t>(whole(n, kernels.panel_columns)), 77);
        kernels.round_bf16(x.data(), out.data(), n);
        for (size_t i = 0; i < out.size(); ++i)
            expect_near(kernels, "rounding", out[i], i < x.size() ? rounded(x[i]) : 0, 0);
    }
}

void check(const Kernels& kernels) {
    const int before = failures;
    for (int rows : {1, 2, 5, 13, 14, 15, 16, 17, 28, 31, 32, 33, 47, 64, 65, 100})
        for (int depth : {1, 31, 32, 33, 64, 100})
            for (int columns : {1, 16, 31, 32, 33, 96})
                for (bool more : {false, true}) {
                    check_product(kernels, {rows, depth, columns, more, more, Format::float32});
                    check_product(kernels, {rows, depth, columns, more, false, Format::bfloat16});
                }
    check_product(kernels, {60, 1536, 384, true, true, Format::float32});
    for (int tokens : {1, 2, 15, 16, 17, 31, 32, 33, 60, 90, 300})
        for (int head_size : {1, 8, 11, 16, 20, 31, 32, 33, 64, 80, 128}) {
            check_attention(kernels, tokens, tokens, head_size);
            check_attention(kernels, tokens, (tokens + 1) / 2, head_size);
        }
    check_attention(kernels, 2000, 1999, 32);
    check_rounding(kernels);
    std::printf("%-12s %s\n", kernels.name, failures == before ? "is right" : "FAILS");
}

}  // namespace

int main() {
    for (const InstructionSet& set : instruction_sets()) {
        if (set.obstacle.empty()) check(*set.kernels);
        else std::printf("%-12s not checked: %s\n", set.kernels->name, set.obstacle.c_str());
    }
    for (const InstructionSet& set : instruction_sets())
        if (set.kernels == &onepass_kernels_avx512bf16 && set.obstacle.empty()) {
            std::printf("with emulated tiles:\n");
            check(onepass_kernels_amx_emulated);
        }
    std::printf("%d failures\n", failures);
    return failures != 0;
}
