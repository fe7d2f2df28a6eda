// A linear layer y = x W^T + b, its weight packed for the kernels of one instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "threads.h"

namespace onepass {

// Fewer rows than this are not worth dividing where each takes less than a microsecond.
constexpr int row_grain = 32;

// Rows of what a product takes or gives: floats or bfloat16, `stride` elements apart.
struct Rows {
    void* data = nullptr;
    ptrdiff_t stride = 0;
    Format format = Format::float32;

    Rows() = default;
    Rows(Matrix floats) : data(floats.data), stride(floats.stride) {}
    // Room for rows of `width` elements and some more, up to a whole panel.
    Rows(Workspace& workspace, int rows, int width, Format format);

    Rows at(ptrdiff_t row, ptrdiff_t column = 0) const;
    float* floats() const { return static_cast<float*>(data); }
    uint16_t* bf16() const { return static_cast<uint16_t*>(data); }
};

class Linear {
  public:
    // A part of the outputs: weight [outputs, inputs] and bias [outputs], or null for none.
    struct Part {
        const float* weight;
        const float* bias;
        int outputs;
    };

    // The parts' outputs lie side by side (query, key and value are one product).
    Linear(const Kernels& kernels, Format format, int inputs, const std::vector<Part>& parts);

    // One whose product is act(in Wg^T + bg) * (in W^T + b); both parts have as many outputs as the layer.
    static Linear gated(const Kernels& kernels, Format format, int inputs, const Part& gate, const Part& up);

    int inputs() const { return inputs_; }
    int outputs() const { return outputs_; }
    Format format() const { return format_; }
    size_t bytes() const { return panels_.bytes() + bias_.size() * sizeof(float); }
    const void* panels() const { return panels_.as<void>(); }

    // A layer of only these outputs, in this order; each gives the bits that it gives here.
    Linear selected(const std::vector<int>& outputs) const;

    struct Call {
        Rows in, out;  // in: of this layer's format
        int rows;
        Matrix residual = {};  // added if there; may be `out`
        Activation activation = Activation::identity;
    };
    // out[rows, outputs] = act(in W^T + b + residual); the team divides the outputs.
    void multiply(const Call& call, Team& team) const;
    // The outputs from `begin`, where a panel begins, to `end` only: the first becomes column 0 of `out`.
    void multiply_some(const Call& call, int begin, int end) const;

  private:
    Linear(const Kernels& kernels, Format format, int inputs, int outputs, bool gated, bool biased);
    void pack(const Part& part, int output, int column);
    ptrdiff_t panel_bytes() const;

    const Kernels& kernels_;
    Format format_;
    int inputs_, outputs_;
    int depth_;  // of the panels: the inputs, in bfloat16 filled up to a whole panel
    bool gated_;
    Buffer panels_;
    std::vector<float> bias_;  // filled up to whole panels, or empty
};

}  // namespace onepass
