// The emulated tiles themselves: the order of elements, heights and widths, and that they refuse what the processor
// refuses.

#include "tiles.h"

#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "numbers.h"

namespace {

using namespace onepass::check;

int misses = 0;

void expect(bool condition, const char* what) {
    if (condition) return;
    std::printf("tiles: not so: %s\n", what);
    ++misses;
}

struct alignas(64) Config {
    uint8_t bytes[64] = {1};

    Config& set(int index, int rows, int row_bytes) {
        bytes[16 + 2 * index] = static_cast<uint8_t>(row_bytes), bytes[48 + index] = static_cast<uint8_t>(rows);
        return *this;
    }
};

// sums[rows][columns] = a[rows][depth] b[depth][columns], `b` in pairs of rows: every element in its place.
void check_product(int rows, int depth, int columns) {
    const auto a = normal_numbers<uint16_t>(static_cast<size_t>(rows * depth));
    const auto b = normal_numbers<uint16_t>(static_cast<size_t>(depth * columns));
    std::vector<uint16_t> pairs(b.size());
    for (int k = 0; k < depth; ++k)
        for (int n = 0; n < columns; ++n)
            pairs[static_cast<size_t>((k / 2 * columns + n) * 2 + k % 2)] = b[static_cast<size_t>(k * columns + n)];
    std::vector<float> sums(static_cast<size_t>(rows * columns), 1.0f);

    Config config;
    config.set(0, rows, 4 * columns).set(1, rows, 2 * depth).set(2, depth / 2, 4 * columns);
    _tile_loadconfig(&config);
    _tile_loadd(0, sums.data(), static_cast<size_t>(4 * columns));
    _tile_stream_loadd(1, a.data(), static_cast<size_t>(2 * depth));
    _tile_loadd(2, pairs.data(), static_cast<size_t>(4 * columns));
    _tile_dpbf16ps(0, 1, 2);
    _tile_stored(0, sums.data(), static_cast<size_t>(4 * columns));
    _tile_zero(0);
    _tile_release();

    for (int m = 0; m < rows; ++m)
        for (int n = 0; n < columns; ++n) {
            double exact = 1, size = 1;
            for (int k = 0; k < depth; ++k) {
                const double term = value(a.data()[m * depth + k]) * value(b.data()[k * columns + n]);
                exact += term, size += std::fabs(term);
            }
            const double error = std::fabs(sums.data()[m * columns + n] - exact);
            expect(error <= 1e-6 * size, "sums are those of the plain loop");
        }
}

void check_denormals() {
    Config config;
    config.set(0, 1, 4).set(1, 1, 4).set(2, 1, 4);
    const uint16_t tiny[] = {rounded(1e-20f), rounded(1e-39f)}, factors[] = {rounded(1e-19f), rounded(1e20f)};
    float sum = -0.0f;
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_loadd(1, tiny, 4);
    _tile_loadd(2, factors, 4);
    _tile_dpbf16ps(0, 1, 2);
    _tile_stored(0, &sum, 4);
    _tile_release();
    expect(sum == 0, "denormal factors and products count as zero");
}

// In a child process, because it should end it.
template <class Mistake>
void refused(const char* what, const Mistake& mistake) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        std::fclose(stderr);
        mistake();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, what);
}

void check_refusals() {
    const auto configure = [](Config config) { _tile_loadconfig(&config); };
    const auto with_byte = [&](int place, uint8_t byte) {
        Config config;
        config.bytes[place] = byte;
        configure(config);
    };
    refused("a palette of 2 is refused", [&] { with_byte(0, 2); });
    refused("a first row of 1 is refused", [&] { with_byte(1, 1); });
    refused("a reserved byte is refused", [&] { with_byte(9, 1); });
    refused("17 rows are refused", [&] { configure(Config().set(3, 17, 64)); });
    refused("68 bytes a row are refused", [&] { configure(Config().set(3, 16, 68)); });
    refused("rows without columns are refused", [&] { configure(Config().set(3, 16, 0)); });
    refused("columns without rows are refused", [&] { configure(Config().set(3, 0, 64)); });
    refused("tile 8 is refused", [&] { configure(Config().set(8, 16, 64)); });
    refused("use without a configuration is refused", [&] { _tile_zero(0); });
    refused("use after release is refused", [&] {
        configure(Config().set(0, 16, 64));
        _tile_release();
        _tile_zero(0);
    });
    refused("a tile without rows is refused", [&] {
        configure(Config().set(0, 16, 64));
        _tile_zero(1);
    });
    const auto product = [&](Config config) { configure(config); _tile_dpbf16ps(0, 1, 2); };
    refused("other rows of sums than of a", [&] { product(Config().set(0, 8, 64).set(1, 9, 64).set(2, 16, 64)); });
    refused("other columns of sums than of b", [&] { product(Config().set(0, 8, 64).set(1, 8, 64).set(2, 16, 32)); });
    refused("other pairs of a than rows of b", [&] { product(Config().set(0, 8, 64).set(1, 8, 64).set(2, 15, 64)); });
    refused("half a word", [&] { product(Config().set(0, 8, 62).set(1, 8, 64).set(2, 16, 62)); });
    refused("one tile twice", [&] {
        configure(Config().set(0, 16, 64).set(1, 16, 64));
        _tile_dpbf16ps(0, 1, 1);
    });
}

}  // namespace

int main() {
    for (int rows = 1; rows <= 16; ++rows)
        for (int depth = 2; depth <= 32; depth += 2)
            for (const int columns : {1, 3, 15, 16}) check_product(rows, depth, columns);
    check_denormals();
    check_refusals();
    std::printf("emulated tiles: %d misses\n", misses);
    return misses != 0;
}
