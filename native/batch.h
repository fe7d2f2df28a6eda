// One batch of sequences, laid end to end, and the tables by which their tokens know where they are.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace onepass {

struct Batch {
    const int32_t *ids, *types;  // [tokens]
    const int32_t* offsets;      // [rows + 1]
    const int32_t* visible;      // [rows]
    int rows, tokens;

    int length(int row) const { return offsets[row + 1] - offsets[row]; }
    int longest() const {
        int most = 0;
        for (int row = 0; row < rows; ++row) most = length(row) > most ? length(row) : most;
        return most;
    }
};

// One rotary scheme: token t of row r turns by the table's row starts[r] + t.
struct Rotary {
    const float *cosines, *sines;  // [rows, half]
    const int32_t* starts;         // [rows of the batch]
    int rows, half;
};

// A bias by head and distance: that of distance d lies at values[head][d + reach].
struct DistanceBias {
    const float* values;  // [heads, 2 reach + 1]
    int heads, reach;
};

// What a batch's lengths ask for: the layers name their entries by index.
struct PositionTables {
    std::vector<Rotary> rotary;
    std::vector<DistanceBias> distance;
};

[[noreturn]] inline void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

}  // namespace onepass
