// Heads: steps per token, a pooling, steps per row, a finish. What each word means is said in model/heads.py.
#pragma once

#include <memory>
#include <vector>

#include "batch.h"
#include "pooling.h"
#include "steps.h"
#include "vocabulary.h"

namespace onepass {

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
    Numbers rows, positions, spans, offsets, skip, targets;
    Finish finish;
};

// What is pooled, and where its values go.
struct Plan {
    std::vector<Piece> pieces;
    std::vector<int32_t> offsets;  // [rows + 1], which values belong to which of the rows
    std::vector<int32_t> ids;      // of each value, where the head pools by token id
};

struct Values {
    int width = 1;
    std::vector<int32_t> offsets;      // [rows + 1]
    std::vector<int32_t> ids;          // of each value, where the head gives them
    std::unique_ptr<float[]> numbers;  // [offsets.back(), width]
};

class Head {
  public:
    // without: ids, rising, that a pooling by token id leaves out.  sparse: only values above 0 come out, with their
    // columns.
    struct Options {
        int pad_id = -1;
        bool skip_prompt = false;
        std::vector<int32_t> without;
        bool sparse = false;
        Finish finish = Finish::none;
    };

    // Raises std::invalid_argument if a step does not fit the width before it.
    Head(const Kernels& kernels, int width, std::vector<Pooling> pool, std::vector<Step> per_token,
         std::vector<Step> per_row, Options options);

    // The same with scores of these token ids only. Raises std::invalid_argument for an id that is not there.
    Head choosing(const Numbers& ids) const;

    Finish finish() const { return options_.finish; }
    bool gives_ids() const { return by_token() || options_.sparse; }

    // Raises std::invalid_argument if the read does not fit.
    Plan plan(const Read& read, const Batch& batch) const;

    Values run(const Read& read, Plan plan, Matrix hidden, Team& team, Workspace& workspace) const;

  private:
    bool by_token() const { return pool_[0] == Pooling::max_by_token; }
    std::vector<Piece> pieces(const Read& read, int index, const Batch& batch) const;
    std::vector<int> tokens_read(const Read& read, const Piece& piece) const;
    std::vector<Item> items(const Read& read, const Plan& plan) const;
    std::vector<int32_t> distinct_ids(const Piece& piece) const;
    void check_targets(const Read& read, const Plan& plan) const;
    Pool pool_of(const Plan& plan, const Piece& piece, Matrix out) const;

    Values dense(const Read& read, Plan plan, Matrix hidden, Team& team, Workspace& workspace) const;
    void pool(const Read& read, const Plan& plan, Matrix hidden, Matrix pooled, Team& team, Workspace& workspace) const;
    Values log_probabilities(const Read& read, Plan plan, Matrix hidden, Team& team, Workspace& workspace) const;

    const Kernels& kernels_;
    int token_width_;  // the trunk's
    std::vector<Pooling> pool_;
    Steps per_token_, per_row_;
    Options options_;
    std::unique_ptr<const VocabularyScores> pooled_scores_;  // of a sparse head that pools a vocabulary's scores
    std::unique_ptr<const VocabularyScores> token_scores_;   // of a head that gives every token's scores
};

}  // namespace onepass
