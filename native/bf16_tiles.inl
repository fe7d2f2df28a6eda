// Blocks of bfloat16 products by AMX tiles. A tile is up to 16 rows of 64 bytes: 16 sums, 32 numbers of `a`, or 16
// pairs of a panel. Tiles 0 to 3 are the sums, 4 and 5 the upper and lower rows of `a`, 6 and 7 the panel's left and
// right columns.

#include "bf16_block.inl"

// GCC does not know what memory the tile instructions read, all of it: it must have been written before.
inline void finish_writing(const void* memory) { __asm__ volatile("" ::"r"(memory) : "memory"); }

// What each thread's tiles look like, as the processor wants it. A tile without rows has no columns, either.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int height) {
        rows[tile] = static_cast<uint8_t>(height);
        row_bytes[tile] = height ? 64 : 0;
    }
};

// Lives as long as one kernel call: between two calls another library may have used this thread's tiles.
class Multiplier {
  public:
    Multiplier() = default;
    Multiplier(const Multiplier&) = delete;
    Multiplier& operator=(const Multiplier&) = delete;
    ~Multiplier() {
        if (upper_) _tile_release();
    }

    void operator()(const Block& block) {
        const int upper = block.rows < tile_height ? block.rows : tile_height, lower = block.rows - upper;
        if (upper != upper_ || lower != lower_) configure(upper, lower);
        finish_writing(block.a);
        const bool right = block.columns > width;
        if (lower) right ? multiply<true, true>(block) : multiply<true, false>(block);
        else right ? multiply<false, true>(block) : multiply<false, false>(block);
    }

  private:
    static constexpr int tile_height = 16, depth_step = 32;

    void configure(int upper, int lower) {
        TileConfig config;
        config.set(0, upper), config.set(1, upper), config.set(4, upper);
        config.set(2, lower), config.set(3, lower), config.set(5, lower);
        config.set(6, tile_height), config.set(7, tile_height);
        finish_writing(&config);
        _tile_loadconfig(&config);
        upper_ = upper, lower_ = lower;
    }

    template <bool lower, bool right>
    static void multiply(const Block& block) {
        constexpr size_t panel_bytes = 2 * panel_columns * sizeof(uint16_t);  // from one pair of k to the next
        const size_t a_bytes = static_cast<size_t>(block.a_stride) * sizeof(uint16_t);
        const size_t out_bytes = static_cast<size_t>(block.out_stride) * sizeof(float);
        const uint16_t *a = block.a, *b = block.panel;
        _tile_zero(0);
        if (right) _tile_zero(1);
        if (lower) _tile_zero(2);
        if (lower && right) _tile_zero(3);
        for (int k = 0; k < block.depth; k += depth_step, b += depth_step * panel_columns) {
            _tile_loadd(6, b, panel_bytes);
            _tile_loadd(4, a + k, a_bytes);
            _tile_dpbf16ps(0, 4, 6);
            if (right) {
                _tile_loadd(7, b + 2 * width, panel_bytes);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (lower) {
                _tile_loadd(5, a + tile_height * block.a_stride + k, a_bytes);
                _tile_dpbf16ps(2, 5, 6);
                if (right) _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, block.out, out_bytes);
        if (right) _tile_stored(1, block.out + width, out_bytes);
        float* below = block.out + tile_height * block.out_stride;
        if (lower) _tile_stored(2, below, out_bytes);
        if (lower && right) _tile_stored(3, below + width, out_bytes);
    }

    int upper_ = 0, lower_ = 0;  // the heights that are configured
};
