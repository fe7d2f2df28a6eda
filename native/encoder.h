// The trunk: token ids to one hidden state per token, for a batch of sequences laid end to end.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "heads.h"
#include "linear.h"

namespace onepass {

// A lookup table [rows, width]; no rows: there is none.
struct Table {
    int rows = 0;
    std::vector<float> values;
};

struct Positions {
    enum class Rule { arange, after_pad };  // PositionSpec in spec.py says what they mean
    Rule rule;
    int start;
    Table table;
};

struct Embedding {
    int width;
    Table word;
    float scale;
    std::optional<Positions> positions;
    Table types;
    std::optional<Norm> norm;
    std::shared_ptr<const Linear> project;  // after the norm; or null
};

struct LayerWeights {
    std::shared_ptr<const Linear> query_key_value, output, up, down;
    Norm norm1, norm2;
};

// h = norm1(h + attention(h)), then h = norm2(h + down(act(up(h)))).
struct Layer {
    std::shared_ptr<const LayerWeights> weights;
    int heads, head_size;
    float scale;
    Activation activation;
};

struct Batch {
    const int32_t *ids, *types;  // [tokens]
    const int32_t* offsets;      // [rows + 1]
    const int32_t* visible;      // [rows]
    int rows, tokens;
};

class Encoder {
  public:
    Encoder(const Kernels& kernels, int width, std::shared_ptr<const Embedding> embedding, std::vector<Layer> layers,
            std::vector<Head> heads);

    int width() const { return width_; }
    const Head& head(int index) const { return heads_[static_cast<size_t>(index)]; }
    int heads() const { return static_cast<int>(heads_.size()); }
    size_t weight_bytes() const;

    // Raises std::invalid_argument, which says what is wrong, if a row is empty or too long or an id is out of range.
    void check(const Batch& batch) const;

    // The batch and the reads have been checked.
    void run(const Batch& batch, const std::vector<HeadRead>& reads, int cores) const;

  private:
    struct Pass;

    Matrix embed(const Batch& batch, Team& team, Workspace& workspace) const;
    void position_rows(const Batch& batch, std::vector<int>& rows) const;

    const Kernels& kernels_;
    int width_;
    std::shared_ptr<const Embedding> embedding_;
    std::vector<Layer> layers_;
    std::vector<Head> heads_;
    mutable Workspaces workspaces_;
};

}  // namespace onepass
