// What a layer works on: one batch on its way through the layers, and some rows of it with the buffers they need.
#pragma once

#include <algorithm>
#include <vector>

#include "batch.h"
#include "linear.h"
#include "norm.h"

namespace onepass {

// The same numbers twice: in float32, and in the weights' format as products take them.
struct States {
    Matrix floats;
    Rows rows;
};

// The hidden states are float32; what products take and give is in the weights' format.
struct Stage {
    const Kernels& kernels;
    const Batch& batch;
    const PositionTables& tables;
    Format format;
    Matrix hidden;                  // [tokens, width]
    Matrix narrow;                  // [tokens, width of the bottleneck], where there is one
    Matrix embedded;                // [tokens, width], a copy of the first hidden states where a convolution reads them
    Rows query_key_value, context;  // [tokens, ...]
    std::vector<int> row_of;        // [tokens], the sequence that a token belongs to
};

// What one member of the team, or all of it together, needs for some rows of one layer.
struct Scratch {
    Rows inner;                 // of a feed-forward
    Rows rounded, rounded_too;  // inputs of products, in bfloat16
    Matrix floats;              // what is normalised before it is used or added
    Matrix projected;           // queries, keys and values before they are rounded
    int expert_rows;            // that an expert takes at a time
    Rows taken;                 // their inputs
    Matrix expert, sum;         // what one gives, and what all give
    Matrix neighbours;          // of a convolution
    Rows neighbours_rounded;
    float* attention;
};

// Some rows of the batch in one layer, and who divides the work on them.
struct Chunk {
    const Stage& stage;
    int first, rows;
    const Scratch& own;
    Team& helpers;

    // change(row), rows counted in the chunk.
    template <class Change>
    void each_row(const Change& change) const {
        helpers.share(rows, row_grain, [&](int begin, int end) {
            for (int r = begin; r < end; ++r) change(r);
        });
    }

    void normalise(const Norm& norm, Matrix x) const {
        each_row([&](int r) { norm.apply(stage.kernels, x.row(r)); });
    }

    void add(Matrix x, Matrix more, int width) const {
        each_row([&](int r) {
            for (int i = 0; i < width; ++i) x.row(r)[i] += more.row(r)[i];
        });
    }

    // As products take it; in bfloat16 the numbers are in `room`.
    States input(Matrix x, int width, const Rows& room) const {
        if (stage.format == Format::float32) return {x, x};
        each_row([&](int r) { stage.kernels.round_bf16(x.row(r), room.at(r).bf16(), width); });
        return {x, room};
    }
    States input(Matrix x, int width) const { return input(x, width, own.rounded); }

    // norm(x), in buffers of the chunk's own.
    States normalised(const Norm& norm, Matrix x) const {
        each_row([&](int r) {
            std::copy_n(x.row(r), norm.width(), own.floats.row(r));
            norm.apply(stage.kernels, own.floats.row(r));
        });
        return input(own.floats, norm.width());
    }
};

}  // namespace onepass
