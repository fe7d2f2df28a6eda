// The trunk: token ids to one hidden state per token, which heads then read.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "batch.h"
#include "embedding.h"
#include "heads.h"
#include "layer.h"

namespace onepass {

// One read of one head.
struct Task {
    std::shared_ptr<const Head> head;
    Read read;
    Plan plan;
};

class Encoder {
  public:
    Encoder(const Kernels& kernels, int width, Embedding embedding, std::vector<Layer> layers,
            std::optional<Convolution> convolution, std::optional<Norm> final_norm);

    // Raises std::invalid_argument, which says what is wrong, if a row is empty or too long for a table or an id is out
    // of range.
    void check(const Batch& batch, const PositionTables& tables) const;

    // What each task gives; the batch, the tables and the tasks have been checked.
    std::vector<Values> run(const Batch& batch, const PositionTables& tables, std::vector<Task> tasks, int cores) const;

  private:
    struct Pass;

    const Kernels& kernels_;
    int width_;
    Embedding embedding_;
    std::vector<Layer> layers_;
    std::optional<Convolution> convolution_;
    std::optional<Norm> final_norm_;
    mutable Workspaces workspaces_;
};

}  // namespace onepass
