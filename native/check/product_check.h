// A matrix product beside plain loops, and beside itself with its rows and columns divided otherwise.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "record.h"

namespace onepass::check {

struct ProductShape {
    int rows, depth, columns;
};

// How sums are finished: which of the things that may be added are, and the activation.
struct Finish {
    bool bias, residual;
    Activation activation;
};

// Weights [columns][depth] as the engine packs them: in panels, pairs of successive k side by side in bfloat16.
template <class Element>
std::vector<Element> panels_of(const std::vector<Element>& weights, ProductShape shape, int panel_columns) {
    const int group = is_bf16<Element> ? 2 : 1;
    const int depth = is_bf16<Element> ? whole(shape.depth, panel_columns) : shape.depth;
    std::vector<Element> panels(static_cast<size_t>(whole(shape.columns, panel_columns)) * static_cast<size_t>(depth));
    for (int column = 0; column < shape.columns; ++column)
        for (int k = 0; k < shape.depth; ++k) {
            const int panel = column / panel_columns * panel_columns * depth;
            const int place = (k / group * panel_columns + column % panel_columns) * group + k % group;
            panels[static_cast<size_t>(panel + place)] = weights[static_cast<size_t>(column * shape.depth + k)];
        }
    return panels;
}

template <class In, class Out>
class ProductCheck {
  public:
    ProductCheck(const Kernels& kernels, ProductShape shape)
        : kernels_(kernels),
          shape_(shape),
          depth_(is_bf16<In> ? whole(shape.depth, kernels.panel_columns) : shape.depth),
          a_stride_(depth_ + gap),
          written_(is_bf16<Out> ? whole(shape.columns, kernels.panel_columns) : shape.columns),
          out_stride_(written_ + 3),
          weights_(normal_numbers<In>(size(shape.columns, shape.depth), 1 / std::sqrt(shape.depth))),
          panels_(panels_of(weights_, shape, kernels.panel_columns)),
          a_(normal_numbers<In>(size(shape.rows, a_stride_))),
          bias_(normal_numbers<float>(static_cast<size_t>(shape.columns))),
          residual_(normal_numbers<float>(size(shape.rows, out_stride_))) {
        bias_.resize(static_cast<size_t>(whole(shape.columns, kernels.panel_columns)));
        for (int r = 0; r < shape.rows; ++r)
            std::fill_n(a_.begin() + r * a_stride_ + depth_, gap, not_a_number<In>());
        a_.resize(a_.size() - gap);
        for (int r = 0; r < shape.rows; ++r)
            for (int c = 0; c < shape.columns; ++c)
                sums_.push_back(dot(&a_[size(r, a_stride_)], &weights_[size(c, shape.depth)], shape.depth));
    }

    void with(Finish finish, Record& record) {
        finish_ = finish;
        record.at(name());
        const std::vector<Out> out = multiplied();
        near_the_sums(out, record);
        if (!is_bf16<Out> && finish.residual) in_place(out, record);
        row_by_row(out, record);
        panel_by_panel(out, record);
    }

  private:
    static constexpr int gap = 5;  // from row to row, beyond what is read

    static size_t size(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

    std::vector<Out> untouched() const {
        return std::vector<Out>(size(shape_.rows, out_stride_), not_a_number<Out>());
    }

    std::vector<Out> multiplied() const {
        std::vector<Out> out = untouched();
        multiply(0, shape_.rows, 0, shape_.columns, residual_.data(), out.data());
        return out;
    }

    // Some rows and, from the start of a panel on, some columns.
    void multiply(int row, int rows, int column, int columns, const float* residual, Out* out) const {
        const ptrdiff_t corner = row * static_cast<ptrdiff_t>(out_stride_) + column;
        Product product = {};
        product.a = a_.data() + size(row, a_stride_), product.a_stride = a_stride_;
        product.panels = panels_.data() + size(column, depth_);
        product.bias = finish_.bias ? bias_.data() + column : nullptr;
        product.residual = finish_.residual && !is_bf16<Out> ? residual + corner : nullptr;
        product.residual_stride = out_stride_;
        product.out = out + corner, product.out_stride = out_stride_;
        product.rows = rows, product.depth = depth_, product.columns = columns;
        product.activation = finish_.activation;
        product.out_format = is_bf16<Out> ? Format::bfloat16 : Format::float32;
        (is_bf16<In> ? kernels_.product_bf16 : kernels_.product_f32)(&product);
    }

    void near_the_sums(const std::vector<Out>& out, Record& record) const {
        const std::vector<Out> before = untouched();
        for (int r = 0; r < shape_.rows; ++r) {
            const Out* row = &out[size(r, out_stride_)];
            for (int c = 0; c < shape_.columns; ++c) {
                Exact sum = sums_[size(r, shape_.columns) + static_cast<size_t>(c)];
                if (finish_.bias) add(sum, bias_[static_cast<size_t>(c)]);
                if (finish_.residual && !is_bf16<Out>)
                    add(sum, residual_[size(r, out_stride_) + static_cast<size_t>(c)]);
                record.near(activated(finish_.activation, sum), value(row[c]));
            }
            for (int c = shape_.columns; c < written_; ++c)
                record.holds(std::isfinite(value(row[c])), "the panel's rest is finite");
            record.same(row + written_, &before[static_cast<size_t>(written_)], 3 * sizeof(Out), "beyond the columns");
        }
    }

    void in_place(const std::vector<Out>& out, Record& record) const {
        std::vector<float> both = residual_;
        multiply(0, shape_.rows, 0, shape_.columns, both.data(), reinterpret_cast<Out*>(both.data()));
        for (int r = 0; r < shape_.rows; ++r)
            record.same(&both[size(r, out_stride_)], &out[size(r, out_stride_)], row_bytes(), "over its residual");
    }

    void row_by_row(const std::vector<Out>& out, Record& record) const {
        std::vector<Out> alone = untouched();
        for (int r = 0; r < shape_.rows; ++r) multiply(r, 1, 0, shape_.columns, residual_.data(), alone.data());
        for (int r = 0; r < shape_.rows; ++r)
            record.same(&alone[size(r, out_stride_)], &out[size(r, out_stride_)], row_bytes(), "for a row alone");
    }

    void panel_by_panel(const std::vector<Out>& out, Record& record) const {
        std::vector<Out> divided = untouched();
        for (int c = 0; c < shape_.columns; c += kernels_.panel_columns)
            multiply(0, shape_.rows, c, std::min(kernels_.panel_columns, shape_.columns - c), residual_.data(),
                     divided.data());
        for (int r = 0; r < shape_.rows; ++r)
            record.same(&divided[size(r, out_stride_)], &out[size(r, out_stride_)], row_bytes(), "for a panel alone");
    }

    size_t row_bytes() const { return static_cast<size_t>(shape_.columns) * sizeof(Out); }

    std::string name() const {
        return std::to_string(shape_.rows) + " rows, depth " + std::to_string(shape_.depth) + ", " +
               std::to_string(shape_.columns) + " columns, activation " +
               std::to_string(static_cast<int>(finish_.activation)) + (finish_.bias ? ", bias" : "") +
               (finish_.residual ? ", residual" : "");
    }

    const Kernels& kernels_;
    ProductShape shape_;
    int depth_, a_stride_, written_, out_stride_;
    std::vector<In> weights_, panels_, a_;
    std::vector<float> bias_, residual_;
    std::vector<Exact> sums_;  // [rows][columns], nothing added
    Finish finish_ = {};
};

}  // namespace onepass::check
