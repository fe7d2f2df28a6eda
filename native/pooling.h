// Poolings: the states of some tokens to a value, or to several. What each word means is said in model/heads.py.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.h"
#include "memory.h"

namespace onepass {

enum class Pooling { first, last, last_not_pad, mean, sum, max, mean_sqrt, weighted_mean, tokens, spans, max_by_token };

bool reads_all(Pooling kind);
bool gives_several(Pooling kind);

// The tokens that are pooled together: those of a sequence, or of a span in it.
struct Piece {
    int row;             // of the read
    const int32_t* ids;  // [tokens]
    int begin, tokens;   // in the batch
    int skip;            // leading tokens that are left out
    int last_not_pad;
    int value, values;  // which of the read's values are its own
};

// A token that is read.
struct Item {
    int piece;  // of the plan's
    int place;  // among the tokens read of the piece
    int token;  // of the piece
};

// The values of one piece, while its tokens come by one after another.
struct Pool {
    const std::vector<Pooling>& kinds;
    Matrix out;  // a row for each value
    int width;   // of a token's state
    const Piece& piece;
    const int32_t* value_ids;  // of a pooling by token id: [piece.values], rising

    void begin() const;
    void take(const Item& item, const float* x) const;
    void end() const;
};

}  // namespace onepass
