// AMX tiles in plain C++, so that kernels_amx.cpp can be checked on machines without them. Included before that file,
// with -include; then its instructions are these. It is as strict as the processor: what that refuses ends the program.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace emulated {

constexpr int tiles = 8;

inline thread_local uint8_t heights[tiles];
inline thread_local uint32_t words[tiles][16][16];

inline void demand(bool met, const char* what) {
    if (met) return;
    fprintf(stderr, "emulated tiles: %s\n", what);
    abort();
}

inline void load_config(const void* memory) {
    const uint8_t* bytes = static_cast<const uint8_t*>(memory);
    uint16_t row_bytes[16];
    memcpy(row_bytes, bytes + 16, sizeof row_bytes);
    const uint8_t* rows = bytes + 48;
    demand(bytes[0] == 1 && bytes[1] == 0, "palette 1, starting at row 0");
    for (int i = 2; i < 16; ++i) demand(bytes[i] == 0, "reserved bytes are zero");
    for (int tile = 0; tile < 16; ++tile) {
        demand(tile < tiles || (!rows[tile] && !row_bytes[tile]), "there are eight tiles");
        demand(rows[tile] <= 16 && row_bytes[tile] <= 64, "a tile has 16 rows of 64 bytes");
        demand(!rows[tile] == !row_bytes[tile], "a tile has rows and columns, or neither");
        demand(!rows[tile] || row_bytes[tile] == 64, "rows of less than 64 bytes are not emulated");
        if (tile < tiles) heights[tile] = rows[tile];
    }
    memset(words, 0, sizeof words);
}

inline void release() { memset(heights, 0, sizeof heights); }

inline void zero(int tile) {
    demand(heights[tile], "a tile in use is configured");
    memset(words[tile], 0, sizeof words[tile]);
}

inline void load(int tile, const void* memory, size_t stride) {
    zero(tile);
    const char* row = static_cast<const char*>(memory);
    for (int r = 0; r < heights[tile]; ++r, row += stride) memcpy(words[tile][r], row, 64);
}

inline void store(int tile, void* memory, size_t stride) {
    demand(heights[tile], "a tile in use is configured");
    char* row = static_cast<char*>(memory);
    for (int r = 0; r < heights[tile]; ++r, row += stride) memcpy(row, words[tile][r], 64);
}

inline float number(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline void multiply(int sum, int a, int b) {
    demand(heights[sum] == heights[a] && heights[b] == 16, "the tiles of a product fit together");
    for (int m = 0; m < heights[sum]; ++m)
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 16; ++n) {
                const uint32_t x = words[a][m][k], y = words[b][k][n];
                const float before = number(words[sum][m][n]);
                const float after =
                    before + number(x << 16) * number(y << 16) + number(x & 0xffff0000u) * number(y & 0xffff0000u);
                memcpy(&words[sum][m][n], &after, sizeof after);
            }
}

}  // namespace emulated

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated::load_config
#define _tile_release emulated::release
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbf16ps emulated::multiply
