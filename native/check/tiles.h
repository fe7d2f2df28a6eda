// The AMX tile instructions in plain C++, for machines without them: included ahead of kernels_amx.cpp (-include), so
// that the file itself stays as it is. What the processor would refuse ends the program with a sentence.
//
// Written from the operation sections of Intel's manual for LDTILECFG, TILELOADD, TILEZERO, TDPBF16PS and TILESTORED.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace emulated {
namespace {

constexpr int tiles = 8, most_rows = 16, most_bytes = 64, most_words = most_bytes / 4;

struct Tile {
    int rows, bytes;  // as configured; 0 and 0: not in use
    uint32_t words[most_rows][most_words];
};

thread_local Tile tile[tiles];
thread_local bool configured;

void demand(bool met, const char* what) {
    if (met) return;
    fprintf(stderr, "emulated tiles: it must be that %s\n", what);
    abort();
}

Tile& in_use(int index) {
    demand(configured, "tiles are configured before they are used");
    demand(index >= 0 && index < tiles && tile[index].rows, "a tile in use has rows");
    return tile[index];
}

void release() {
    memset(tile, 0, sizeof tile);
    configured = false;
}

// 64 bytes: palette, first row, 14 reserved, bytes per row of 16 tiles as 16 bits each, rows of 16 tiles.
void load_config(const void* memory) {
    uint8_t bytes[64];
    memcpy(bytes, memory, sizeof bytes);
    release();
    if (bytes[0] == 0) return;
    demand(bytes[0] == 1, "the palette is 1");
    demand(bytes[1] == 0, "the first row is 0");
    for (int i = 2; i < 16; ++i) demand(bytes[i] == 0, "reserved bytes are zero");
    for (int i = 0; i < 16; ++i) {
        const int row_bytes = bytes[16 + 2 * i] + 256 * bytes[17 + 2 * i], rows = bytes[48 + i];
        demand(i < tiles || (!rows && !row_bytes), "only tiles 0 to 7 are configured");
        demand(rows <= most_rows && row_bytes <= most_bytes, "a tile has at most 16 rows of 64 bytes");
        demand((rows == 0) == (row_bytes == 0), "a tile has rows and columns or neither");
        if (i < tiles) tile[i].rows = rows, tile[i].bytes = row_bytes;
    }
    configured = true;
}

void zero(int index) { memset(in_use(index).words, 0, sizeof(Tile::words)); }

// What lies beyond a tile's rows and columns becomes zero.
void load(int index, const void* memory, size_t stride) {
    Tile& t = in_use(index);
    const char* from = static_cast<const char*>(memory);
    memset(t.words, 0, sizeof t.words);
    for (int r = 0; r < t.rows; ++r, from += stride) memcpy(t.words[r], from, static_cast<size_t>(t.bytes));
}

void store(int index, void* memory, size_t stride) {
    const Tile& t = in_use(index);
    char* to = static_cast<char*>(memory);
    for (int r = 0; r < t.rows; ++r, to += stride) memcpy(to, t.words[r], static_cast<size_t>(t.bytes));
}

float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Denormal numbers count as zero, before and after.
float flushed(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x; }

float fused(float a, float b, float sum) { return flushed(__builtin_fmaf(flushed(a), flushed(b), sum)); }

// sums += a b: rows of `a` are pairs of bfloat16, rows of `b` such pairs for every column. The first numbers of all
// pairs are summed up in one chain, the second ones in another; both are added together and then to what was there.
void multiply(int sums_index, int a_index, int b_index) {
    Tile& sums = in_use(sums_index);
    const Tile &a = in_use(a_index), &b = in_use(b_index);
    demand(sums_index != a_index && sums_index != b_index && a_index != b_index, "a product's tiles are three");
    demand(sums.bytes % 4 == 0 && a.bytes % 4 == 0 && b.bytes % 4 == 0, "the rows of a product are whole words");
    demand(a.rows == sums.rows, "sums have as many rows as a");
    demand(b.bytes == sums.bytes, "sums have as many columns as b");
    demand(a.bytes / 4 == b.rows, "b has a row for every pair of a");
    for (int m = 0; m < sums.rows; ++m) {
        float first[most_words] = {}, second[most_words] = {};
        for (int k = 0; k < a.bytes / 4; ++k)
            for (int n = 0; n < sums.bytes / 4; ++n) {
                const uint32_t x = a.words[m][k], y = b.words[k][n];
                first[n] = fused(from_bits(x << 16), from_bits(y << 16), first[n]);
                second[n] = fused(from_bits(x & 0xffff0000u), from_bits(y & 0xffff0000u), second[n]);
            }
        for (int n = 0; n < sums.bytes / 4; ++n) {
            const float sum = flushed(flushed(from_bits(sums.words[m][n])) + flushed(first[n] + second[n]));
            memcpy(&sums.words[m][n], &sum, sizeof sum);
        }
    }
    // rows and columns beyond the tile's own are zero since it was zeroed or loaded
}

}  // namespace
}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated::load_config
#define _tile_release emulated::release
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stream_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbf16ps emulated::multiply
