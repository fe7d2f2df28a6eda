// VocabularyScores of tokens against a vocabulary, without room for all of them: the vocabulary comes by in blocks that
// stay in the cache, each block meets every token, and what is kept of its scores is their pooling or their sum.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "pooling.h"
#include "steps.h"

namespace onepass {

// Some columns of a row, rising, and their values.
struct Entries {
    std::vector<int32_t> columns;
    std::vector<float> values;

    // Of x, which begins at `column`, what is not 0 or less: a NaN is kept, to be noticed.
    void keep(const float* x, int column, int width);
};

class VocabularyScores {
  public:
    // None unless the steps are any, the vocabulary's, and activations.
    static std::unique_ptr<const VocabularyScores> of(const Kernels& kernels, int width,
                                                      const std::vector<Step>& steps);

    int columns() const { return vocabulary_->outputs(); }

    // The tokens of the items, pooled by piece: of each piece what is not 0 or less. Any pooling that reads all tokens
    // but the one by token id.
    std::vector<Entries> pooled(Pooling kind, const std::vector<Piece>& pieces, const std::vector<Item>& items,
                                Matrix hidden, Team& team, Workspace& workspace) const;

    // out[items]: of each token's scores the logarithm of the target's share.
    void log_probabilities(const std::vector<Piece>& pieces, const std::vector<Item>& items, const int32_t* targets,
                           Matrix hidden, float* out, Team& team, Workspace& workspace) const;

  private:
    VocabularyScores(const Kernels& kernels, Steps before, std::shared_ptr<const Linear> vocabulary,
                     std::vector<Activation> after);

    // What the vocabulary multiplies, of the items' tokens.
    Rows inputs(const std::vector<Piece>& pieces, const std::vector<Item>& items, Matrix hidden, Team& team,
                Workspace& workspace) const;

    // Some of the vocabulary.
    struct Block {
        int place;  // among those that the team works on
        int begin, width;
        Matrix room;  // for the scores of some rows
    };
    // work(block) for each in parts that the team takes together, and then(first, end), the columns of a part.
    template <class Work, class Then>
    void each_block(int places, Team& team, Workspace& workspace, const Work& work, const Then& then) const;

    // take(row, scores) for every row, the scores activated unless they will be later.
    template <class Take>
    void each_row(const Block& block, Rows in, int rows, bool activated, const Take& take) const;

    int block_columns() const;
    void activate(float* x, int width) const;

    const Kernels& kernels_;
    Steps before_;
    std::shared_ptr<const Linear> vocabulary_;
    std::vector<Activation> after_;
};

}  // namespace onepass
