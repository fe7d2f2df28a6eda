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

// How sums are finished: which of the things that may be added are, the activation, and whether a partner is
// multiplied.
struct Finish {
    bool bias, residual;
    Activation activation;
    bool gated = false;
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

// Runs of `length` elements from both in turn.
template <class Element>
std::vector<Element> in_turn(const std::vector<Element>& a, const std::vector<Element>& b, int length) {
    std::vector<Element> both;
    for (auto i = a.begin(), j = b.begin(); i != a.end(); i += length, j += length) {
        both.insert(both.end(), i, i + length);
        both.insert(both.end(), j, j + length);
    }
    return both;
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
          a_(normal_numbers<In>(size(shape.rows, a_stride_))),
          plain_(part()),
          partner_(part()),
          panels_(in_turn(plain_.panels, partner_.panels, depth_ * kernels.panel_columns)),
          bias_(in_turn(plain_.bias, partner_.bias, kernels.panel_columns)),
          residual_(normal_numbers<float>(size(shape.rows, out_stride_))) {
        for (int r = 0; r < shape.rows; ++r) std::fill_n(a_.begin() + r * a_stride_ + depth_, gap, not_a_number<In>());
        a_.resize(a_.size() - gap);
    }

    void with(Finish finish, Record& record) {
        finish_ = finish;
        record.at(name());
        const std::vector<Out> out = multiplied();
        near_the_sums(out, record);
        if (has_residual()) in_place(out, record);
        row_by_row(out, record);
        panel_by_panel(out, record);
    }

  private:
    static constexpr int gap = 5;  // from row to row, beyond what is read

    // The columns' weights, packed, their bias and their sums [rows][columns], nothing added.
    struct Part {
        std::vector<In> panels;
        std::vector<float> bias;
        std::vector<Exact> sums;
    };

    Part part() const {
        const auto weights = normal_numbers<In>(size(shape_.columns, shape_.depth), 1 / std::sqrt(shape_.depth));
        Part part = {panels_of(weights, shape_, kernels_.panel_columns),
                     normal_numbers<float>(static_cast<size_t>(shape_.columns)),
                     {}};
        part.bias.resize(static_cast<size_t>(whole(shape_.columns, kernels_.panel_columns)));
        for (int r = 0; r < shape_.rows; ++r)
            for (int c = 0; c < shape_.columns; ++c)
                part.sums.push_back(dot(&a_[size(r, a_stride_)], &weights[size(c, shape_.depth)], shape_.depth));
        return part;
    }

    static size_t size(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

    std::vector<Out> untouched() const { return std::vector<Out>(size(shape_.rows, out_stride_), not_a_number<Out>()); }

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
        product.panels = finish_.gated ? &panels_[2 * size(column, depth_)] : &plain_.panels[size(column, depth_)];
        if (finish_.bias)
            product.bias =
                finish_.gated ? &bias_[static_cast<size_t>(2 * column)] : &plain_.bias[static_cast<size_t>(column)];
        product.residual = has_residual() ? residual + corner : nullptr;
        product.residual_stride = out_stride_;
        product.out = out + corner, product.out_stride = out_stride_;
        product.rows = rows, product.depth = depth_, product.columns = columns;
        product.activation = finish_.activation, product.gated = finish_.gated;
        product.out_format = is_bf16<Out> ? Format::bfloat16 : Format::float32;
        (is_bf16<In> ? kernels_.product_bf16 : kernels_.product_f32)(&product);
    }

    bool has_residual() const { return finish_.residual && !finish_.gated && !is_bf16<Out>; }

    Exact biased(const Part& part, int row, int column) const {
        Exact sum = part.sums[size(row, shape_.columns) + static_cast<size_t>(column)];
        if (finish_.bias) add(sum, part.bias[static_cast<size_t>(column)]);
        return sum;
    }

    void near_the_sums(const std::vector<Out>& out, Record& record) const {
        const std::vector<Out> before = untouched();
        for (int r = 0; r < shape_.rows; ++r) {
            const Out* row = &out[size(r, out_stride_)];
            for (int c = 0; c < shape_.columns; ++c) {
                Exact sum = biased(plain_, r, c);
                if (has_residual()) add(sum, residual_[size(r, out_stride_) + static_cast<size_t>(c)]);
                const Exact finished = activated(finish_.activation, sum);
                record.near(finish_.gated ? finished * biased(partner_, r, c) : finished, value(row[c]));
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
               (finish_.residual ? ", residual" : "") + (finish_.gated ? ", gated" : "");
    }

    const Kernels& kernels_;
    ProductShape shape_;
    int depth_, a_stride_, written_, out_stride_;
    std::vector<In> a_;
    Part plain_, partner_;
    std::vector<In> panels_;  // of both in turn, and their biases
    std::vector<float> bias_, residual_;
    Finish finish_ = {};
};

}  // namespace onepass::check
