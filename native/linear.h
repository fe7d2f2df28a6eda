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

enum class Format { float32, bfloat16 };

class Linear {
  public:
    // A part of the outputs: weight [outputs, inputs] and bias [outputs], or null for none.
    struct Part {
        const float* weight;
        const float* bias;
        int outputs;
    };

    // The parts' outputs lie side by side (query, key and value are one product). The panels are
    // [outputs / panel_columns][inputs][panel_columns], the last one filled up with zeros.
    Linear(const Kernels& kernels, Format format, int inputs, const std::vector<Part>& parts);

    int inputs() const { return inputs_; }
    int outputs() const { return outputs_; }
    size_t bytes() const { return panels_.bytes() + bias_.size() * sizeof(float); }

    struct Call {
        Matrix in, out;
        int rows;
        Matrix residual = {};  // added if there; may be `out`
        Activation activation = Activation::identity;
        float* rounded = nullptr;  // bfloat16 only: room for stride_for(inputs) floats a row
    };
    // out[rows, outputs] = act(in W^T + b + residual); the team divides the outputs.
    void multiply(const Call& call, Team& team) const;

  private:
    const Kernels& kernels_;
    Format format_;
    int inputs_, outputs_;
    Buffer panels_;
    std::vector<float> bias_;  // filled up to whole panels, or empty
};

}  // namespace onepass
