// Token ids to the first hidden states.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "batch.h"
#include "linear.h"
#include "norm.h"

namespace onepass {

// A lookup table [rows, width]; no rows: there is none.
struct Table {
    int rows = 0, width = 0;
    std::vector<float> values;

    const float* row(int index) const { return values.data() + static_cast<ptrdiff_t>(index) * width; }
};

struct Positions {
    enum class Rule { arange, after_pad };  // PositionSpec in spec.py says what they mean
    Rule rule;
    int start;
    Table table;

    // The table's row that each token reads.
    std::vector<int> rows_of(const Batch& batch) const;
};

// Where a narrow table's vectors are widened: before anything is added to them, after that, or after the norm.
enum class Widen { word, sum, after };

struct Embedding {
    Table word;
    float scale;
    int ngram;  // 3: a token's word is [the next one's, its own, the one's before] inside its sequence; or 1
    std::optional<Positions> positions;
    Table types;
    Table task;  // its row 0 is added to every token
    std::optional<Norm> norm;
    std::shared_ptr<const Linear> project;  // or null
    Widen place;                            // of `project`

    // Raises std::invalid_argument if an id, a type or a position is outside its table.
    void check(const Batch& batch) const;

    // [tokens, width of the model]
    Matrix run(const Kernels& kernels, const Batch& batch, Team& team, Workspace& workspace) const;

  private:
    Matrix words(const Batch& batch, Team& team, Workspace& workspace) const;
    Matrix widened(const Kernels& kernels, Matrix x, int tokens, Team& team, Workspace& workspace) const;
};

}  // namespace onepass
