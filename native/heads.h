// Heads: steps per token, a pooling, steps per row, a finish. What each word means is said in model/heads.py.
#pragma once

#include <memory>
#include <vector>

#include "batch.h"
#include "steps.h"

namespace onepass {

enum class Pooling { first, last, last_not_pad, mean, max, mean_sqrt, weighted_mean, tokens, spans, max_by_token };
enum class Finish { none, l2, softmax, sigmoid };

// An optional argument of a read.
struct Numbers {
    const int32_t* values = nullptr;
    int count = 0;
    bool given = false;

    int operator[](int index) const { return values[index]; }
};

// `offsets` says which positions, or spans (first and last position in turn), belong to which of the rows.
struct Read {
    Numbers rows, positions, spans, offsets, skip;
    Finish finish;
};

struct Plan {
    std::vector<int32_t> offsets;  // [rows + 1], which values belong to which of the rows
    std::vector<int32_t> ids;      // of each value, where the head pools by token id
};

class Head {
  public:
    // Raises std::invalid_argument if a step does not fit the width before it.
    Head(const Kernels& kernels, int width, std::vector<Pooling> pool, int pad_id, bool skip_prompt,
         std::vector<Step> per_token, std::vector<Step> per_row, Finish finish);

    // The same with scores of these token ids only. Raises std::invalid_argument for an id that is not there.
    Head choosing(const Numbers& ids) const;

    int width() const { return per_row_.width(); }
    Finish finish() const { return finish_; }
    bool by_token() const { return pool_[0] == Pooling::max_by_token; }

    // Raises std::invalid_argument if the read does not fit.
    Plan plan(const Read& read, const Batch& batch) const;

    // values: [plan.offsets.back(), width]
    void run(const Read& read, const Plan& plan, const Batch& batch, Matrix hidden, float* values, Team& team,
             Workspace& workspace) const;

  private:
    struct Sequence;
    Sequence sequence(const Read& read, int index, const Batch& batch) const;
    std::vector<int> tokens_read(const Read& read, int index, const Sequence& sequence) const;
    void pool(const Read& read, const Plan& plan, const Batch& batch, Matrix hidden, Matrix pooled, Team& team,
              Workspace& workspace) const;

    const Kernels& kernels_;
    int token_width_;  // the trunk's
    std::vector<Pooling> pool_;
    int pad_id_;  // -1: none
    bool skip_prompt_;
    Steps per_token_, per_row_;
    Finish finish_;
};

}  // namespace onepass
