#include "linear.h"

#include <algorithm>
#include <cstring>

namespace onepass {
namespace {

// To nearest, ties to even.
uint16_t bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>((bits + (bits >> 16 & 1) + 0x7fff) >> 16);
}

float as(float x, float) { return x; }
uint16_t as(float x, uint16_t) { return bfloat16(x); }

template <class Element>
void pack(const std::vector<Linear::Part>& parts, int inputs, int panel_columns, Element* panels) {
    int column = 0;
    for (const Linear::Part& part : parts)
        for (int row = 0; row < part.outputs; ++row, ++column) {
            const float* weight = part.weight + static_cast<ptrdiff_t>(row) * inputs;
            const ptrdiff_t panel = column / panel_columns;
            Element* out = panels + panel * inputs * panel_columns + column % panel_columns;
            for (int k = 0; k < inputs; ++k) out[static_cast<ptrdiff_t>(k) * panel_columns] = as(weight[k], Element{});
        }
}

int total_outputs(const std::vector<Linear::Part>& parts) {
    int total = 0;
    for (const Linear::Part& part : parts) total += part.outputs;
    return total;
}

}  // namespace

Linear::Linear(const Kernels& kernels, Format format, int inputs, const std::vector<Part>& parts)
    : kernels_(kernels), format_(format), inputs_(inputs), outputs_(total_outputs(parts)) {
    const int columns = kernels.panel_columns;
    const size_t whole = static_cast<size_t>((outputs_ + columns - 1) / columns) * static_cast<size_t>(columns);
    const size_t element = format == Format::float32 ? sizeof(float) : sizeof(uint16_t);
    panels_ = Buffer(whole * static_cast<size_t>(inputs) * element);
    std::memset(panels_.as<char>(), 0, panels_.bytes());
    if (format == Format::float32) pack(parts, inputs, columns, panels_.as<float>());
    else pack(parts, inputs, columns, panels_.as<uint16_t>());

    if (std::none_of(parts.begin(), parts.end(), [](const Part& part) { return part.bias; })) return;
    bias_.assign(whole, 0.0f);
    float* out = bias_.data();
    for (const Part& part : parts) {
        if (part.bias) std::copy_n(part.bias, part.outputs, out);
        out += part.outputs;
    }
}

void Linear::multiply(const Call& call, Team& team) const {
    Matrix in = call.in;
    if (format_ == Format::bfloat16) {
        in = {call.rounded, stride_for(inputs_)};
        team.share(call.rows, row_grain, [&](int begin, int end) {
            for (int r = begin; r < end; ++r) kernels_.round_bf16(call.in.row(r), in.row(r), inputs_);
        });
    }
    const int columns = kernels_.panel_columns;
    team.share((outputs_ + columns - 1) / columns, 1, [&](int begin, int end) {
        const ptrdiff_t first = static_cast<ptrdiff_t>(begin) * columns;
        Product product = {};
        product.a = in.data, product.a_stride = in.stride;
        product.bias = bias_.empty() ? nullptr : bias_.data() + first;
        product.residual = call.residual.data ? call.residual.data + first : nullptr;
        product.residual_stride = call.residual.stride;
        product.out = call.out.data + first, product.out_stride = call.out.stride;
        product.rows = call.rows, product.depth = inputs_;
        product.columns = std::min(outputs_, end * columns) - static_cast<int>(first);
        product.activation = call.activation;
        if (format_ == Format::float32) {
            product.panels = panels_.as<float>() + first * inputs_;
            kernels_.product_f32(&product);
        } else {
            product.panels = panels_.as<uint16_t>() + first * inputs_;
            kernels_.product_bf16(&product);
        }
    });
}

}  // namespace onepass
