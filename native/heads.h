// Heads: steps per token, a pooling, steps per row, a finish. What each word means is said in model/heads.py.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "linear.h"

namespace onepass {

struct Batch;

struct Norm {
    std::vector<float> weight, bias;  // bias may be empty
    float eps;

    void apply(const Kernels& kernels, float* x, int width) const {
        kernels.layer_norm(x, weight.data(), bias.empty() ? nullptr : bias.data(), eps, width);
    }
    size_t bytes() const { return (weight.size() + bias.size()) * sizeof(float); }
};

struct LinearStep {
    std::shared_ptr<const Linear> linear;
    Activation activation;
    bool residual;                                  // y += x, after the activation
    std::shared_ptr<const Linear> residual_linear;  // y += x R^T, after the activation; or null
};
struct ActivationStep {
    Activation kind;
};
struct L2Step {};
struct TruncateStep {
    int width;
};
using Step = std::variant<LinearStep, ActivationStep, Norm, L2Step, TruncateStep>;

enum class Pooling { first, last, last_not_pad, mean, max, mean_sqrt, weighted_mean, tokens };
enum class Finish { none, l2, softmax, sigmoid };

// Arguments of one read, checked by Head::plan, and where its values go.
struct HeadRead {
    int head;
    const int32_t* rows;       // [count], rows of the batch
    const int32_t* positions;  // token positions, or null for all tokens
    const int32_t* offsets;    // [count + 1], which positions belong to which row
    const int32_t* skip;       // [count], or null
    int count, positions_count;
    Finish finish;
    const int32_t* value_offsets;  // [count + 1], from Head::plan
    float* values;                 // [value_offsets[count], width]
};

class Head {
  public:
    // Raises std::invalid_argument if a step does not fit the width before it.
    Head(const Kernels& kernels, int width, std::vector<Pooling> pool, int pad_id, bool skip_prompt,
         std::vector<Step> per_token, std::vector<Step> per_row, Finish finish);

    int width() const { return width_; }
    Finish finish() const { return finish_; }
    size_t weight_bytes() const;

    // How many values each row of the read gives, as offsets. Raises std::invalid_argument if the read does not fit.
    std::vector<int32_t> plan(const HeadRead& read, const Batch& batch) const;

    void run(const HeadRead& read, const Batch& batch, Matrix hidden, Team& team, Workspace& workspace) const;

  private:
    const Kernels& kernels_;
    int token_width_;   // the trunk's
    int pooled_width_;  // before the steps per row
    int widest_;        // of any state in between
    int width_;         // of the values
    std::vector<Pooling> pool_;
    int pad_id_;  // -1: none
    bool skip_prompt_;
    std::vector<Step> per_token_, per_row_;
    Finish finish_;
};

}  // namespace onepass
