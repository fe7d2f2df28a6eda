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

// store(panel, row, column, number): every weight at its place, rows and columns counted inside its panel.
template <class Store>
void each_weight(const std::vector<Linear::Part>& parts, int inputs, int panel_columns, const Store& store) {
    int column = 0;
    for (const Linear::Part& part : parts)
        for (int row = 0; row < part.outputs; ++row, ++column) {
            const float* weight = part.weight + static_cast<ptrdiff_t>(row) * inputs;
            for (int k = 0; k < inputs; ++k) store(column / panel_columns, k, column % panel_columns, weight[k]);
        }
}

int total_outputs(const std::vector<Linear::Part>& parts) {
    int total = 0;
    for (const Linear::Part& part : parts) total += part.outputs;
    return total;
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

Linear::Linear(const Kernels& kernels, Format format, int inputs, const std::vector<Part>& parts)
    : kernels_(kernels), format_(format), inputs_(inputs), outputs_(total_outputs(parts)) {
    const int columns = kernels.panel_columns;
    depth_ = format == Format::float32 ? inputs : whole(inputs, columns);
    const auto outputs = static_cast<size_t>(whole(outputs_, columns));
    const ptrdiff_t panel_size = static_cast<ptrdiff_t>(depth_) * columns;
    panels_ = Buffer(outputs * static_cast<size_t>(depth_) * bytes_of(format));
    std::memset(panels_.as<char>(), 0, panels_.bytes());
    if (format == Format::float32)
        each_weight(parts, inputs, columns, [&](int panel, int k, int column, float weight) {
            panels_.as<float>()[panel * panel_size + k * columns + column] = weight;
        });
    else
        each_weight(parts, inputs, columns, [&](int panel, int k, int column, float weight) {
            panels_.as<uint16_t>()[panel * panel_size + (k / 2 * columns + column) * 2 + k % 2] = bfloat16(weight);
        });

    if (std::none_of(parts.begin(), parts.end(), [](const Part& part) { return part.bias; })) return;
    bias_.assign(outputs, 0.0f);
    float* out = bias_.data();
    for (const Part& part : parts) {
        if (part.bias) std::copy_n(part.bias, part.outputs, out);
        out += part.outputs;
    }
}

void Linear::multiply(const Call& call, Team& team) const {
    const int columns = kernels_.panel_columns;
    team.share((outputs_ + columns - 1) / columns, 1, [&](int begin, int end) {
        const ptrdiff_t first = static_cast<ptrdiff_t>(begin) * columns;
        Product product = {};
        product.a = call.in.data, product.a_stride = call.in.stride;
        product.panels = panels_.as<char>() + first * depth_ * static_cast<ptrdiff_t>(bytes_of(format_));
        product.bias = bias_.empty() ? nullptr : bias_.data() + first;
        product.residual = call.residual.data ? call.residual.data + first : nullptr;
        product.residual_stride = call.residual.stride;
        product.out = call.out.at(0, first).data, product.out_stride = call.out.stride;
        product.out_format = call.out.format;
        product.rows = call.rows, product.depth = depth_;
        product.columns = std::min(outputs_, end * columns) - static_cast<int>(first);
        product.activation = call.activation;
        if (format_ == Format::float32) kernels_.product_f32(&product);
        else kernels_.product_bf16(&product);
    });
}

}  // namespace onepass
