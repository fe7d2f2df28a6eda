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

size_t bytes_of(Format format) { return format == Format::float32 ? sizeof(float) : sizeof(uint16_t); }

int whole(int n, int columns) { return (n + columns - 1) / columns * columns; }

int total_outputs(const std::vector<Linear::Part>& parts) {
    int total = 0;
    for (const Linear::Part& part : parts) total += part.outputs;
    return total;
}

bool any_bias(const std::vector<Linear::Part>& parts) {
    return std::any_of(parts.begin(), parts.end(), [](const Linear::Part& part) { return part.bias; });
}

}  // namespace

Rows::Rows(Workspace& workspace, int rows, int width, Format format) : format(format) {
    constexpr int widest_panel = 32;
    const auto per_float = static_cast<int>(sizeof(float) / bytes_of(format));
    const Matrix floats = workspace.matrix(rows, (width + widest_panel) / per_float);
    data = floats.data;
    stride = floats.stride * per_float;
}

Rows Rows::at(ptrdiff_t row, ptrdiff_t column) const {
    Rows result = *this;
    if (data)
        result.data = static_cast<char*>(data) + (row * stride + column) * static_cast<ptrdiff_t>(bytes_of(format));
    return result;
}

// The panels, all zero, and room for the biases.
Linear::Linear(const Kernels& kernels, Format format, int inputs, int outputs, bool gated, bool biased)
    : kernels_(kernels),
      format_(format),
      inputs_(inputs),
      outputs_(outputs),
      depth_(format == Format::float32 ? inputs : whole(inputs, kernels.panel_columns)),
      gated_(gated) {
    const auto columns = static_cast<size_t>(whole(outputs, kernels.panel_columns) * (gated ? 2 : 1));
    panels_ = Buffer(columns * static_cast<size_t>(depth_) * bytes_of(format));
    std::memset(panels_.as<char>(), 0, panels_.bytes());
    if (biased) bias_.assign(columns, 0.0f);
}

Linear::Linear(const Kernels& kernels, Format format, int inputs, const std::vector<Part>& parts)
    : Linear(kernels, format, inputs, total_outputs(parts), false, any_bias(parts)) {
    int first = 0;
    for (const Part& part : parts) {
        for (int output = 0; output < part.outputs; ++output) pack(part, output, first + output);
        first += part.outputs;
    }
}

Linear Linear::gated(const Kernels& kernels, Format format, int inputs, const Part& gate, const Part& up) {
    const int columns = kernels.panel_columns;
    Linear result(kernels, format, inputs, up.outputs, true, any_bias({gate, up}));
    for (int output = 0; output < up.outputs; ++output) {
        const int column = 2 * (output / columns) * columns + output % columns;
        result.pack(gate, output, column);
        result.pack(up, output, column + columns);
    }
    return result;
}

// The part's output becomes this column of the panels.
void Linear::pack(const Part& part, int output, int column) {
    const int columns = kernels_.panel_columns;
    const float* weight = part.weight + static_cast<ptrdiff_t>(output) * inputs_;
    char* panel = panels_.as<char>() + column / columns * panel_bytes();
    const int place = column % columns;
    for (int k = 0; k < inputs_; ++k)
        if (format_ == Format::float32) reinterpret_cast<float*>(panel)[k * columns + place] = weight[k];
        else reinterpret_cast<uint16_t*>(panel)[(k / 2 * columns + place) * 2 + k % 2] = bfloat16(weight[k]);
    if (part.bias) bias_[static_cast<size_t>(column)] = part.bias[output];
}

ptrdiff_t Linear::panel_bytes() const {
    return static_cast<ptrdiff_t>(depth_) * kernels_.panel_columns * static_cast<ptrdiff_t>(bytes_of(format_));
}

Linear Linear::selected(const std::vector<int>& outputs) const {
    Linear result(kernels_, format_, inputs_, static_cast<int>(outputs.size()), false, !bias_.empty());
    const int columns = kernels_.panel_columns;
    const int words = format_ == Format::float32 ? depth_ : depth_ / 2;  // of 4 bytes, in a column
    for (size_t to = 0; to < outputs.size(); ++to) {
        const auto place = [&](const Linear& linear, int column) {
            return reinterpret_cast<uint32_t*>(linear.panels_.as<char>() + column / columns * panel_bytes()) +
                   column % columns;
        };
        const uint32_t* source = place(*this, outputs[to]);
        uint32_t* target = place(result, static_cast<int>(to));
        for (int word = 0; word < words; ++word) target[word * columns] = source[word * columns];
        if (!bias_.empty()) result.bias_[to] = bias_[static_cast<size_t>(outputs[to])];
    }
    return result;
}

void Linear::multiply(const Call& call, Team& team) const {
    const int columns = kernels_.panel_columns;
    team.share((outputs_ + columns - 1) / columns, 1, [&](int begin, int end) {
        const int first = begin * columns;
        Call part = call;
        part.out = call.out.at(0, first);
        if (call.residual.data) part.residual.data += first;
        multiply_some(part, first, std::min(outputs_, end * columns));
    });
}

void Linear::multiply_some(const Call& call, int begin, int end) const {
    const int columns = kernels_.panel_columns;
    const ptrdiff_t panel = begin / columns * (gated_ ? 2 : 1);
    Product product = {};
    product.a = call.in.data, product.a_stride = call.in.stride;
    product.panels = panels_.as<char>() + panel * panel_bytes();
    product.bias = bias_.empty() ? nullptr : bias_.data() + panel * columns;
    product.residual = call.residual.data, product.residual_stride = call.residual.stride;
    product.out = call.out.data, product.out_stride = call.out.stride;
    product.out_format = call.out.format;
    product.rows = call.rows, product.depth = depth_;
    product.columns = end - begin;
    product.activation = call.activation;
    product.gated = gated_;
    if (format_ == Format::float32) kernels_.product_f32(&product);
    else kernels_.product_bf16(&product);
}

}  // namespace onepass
