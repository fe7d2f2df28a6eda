// How near the kernels come to the arithmetic peak of one core, in processor time (a busy machine disturbs it less).
//
//   cmake -S . -B /tmp/onepass -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$PWD/.venv/bin/python
//   cmake --build /tmp/onepass --target kernels
//   c++ -std=c++17 -O3 -I native benchmarks/kernels.cpp /tmp/onepass/CMakeFiles/kernels.dir/native/*.o -o /tmp/kernels
//   /tmp/kernels [portable|avx2|avx512]      (x86-64)

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels.h"

using namespace onepass;

namespace {

double processor_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Work>
double fastest(const Work& work) {
    double best = 1e9;
    for (int repeat = 0; repeat < 12; ++repeat) {
        const double start = processor_seconds();
        work(repeat);
        best = std::min(best, processor_seconds() - start);
    }
    return best;
}

std::vector<float> numbers(size_t count) {
    std::mt19937 random(0);
    std::uniform_real_distribution<float> draw(-0.5f, 0.5f);
    std::vector<float> values(count);
    for (float& value : values) value = draw(random);
    return values;
}

// The same kernel on a tile that never leaves the first cache: what the arithmetic alone allows.
double peak(const Kernels& kernels) {
    constexpr int rows = 28, depth = 192;
    const auto a = numbers(rows * depth), panel = numbers(static_cast<size_t>(kernels.panel_columns * (depth + 300)));
    std::vector<float> out(static_cast<size_t>(rows * kernels.panel_columns));
    Product p = {};
    p.a = a.data(), p.a_stride = depth, p.panels = panel.data(), p.out = out.data(),
    p.out_stride = kernels.panel_columns;
    p.rows = rows, p.depth = depth, p.columns = kernels.panel_columns;
    constexpr int calls = 3000;
    const double seconds = fastest([&](int) {
        for (int i = 0; i < calls; ++i) kernels.product_f32(&p);
    });
    return 2.0 * rows * depth * kernels.panel_columns * calls / seconds;
}

void product(const Kernels& kernels, int rows, int columns, int depth, Activation activation, int matrices,
             double top) {
    const auto a = numbers(static_cast<size_t>(rows * (depth + 16))), bias = numbers(static_cast<size_t>(columns + 64));
    const size_t panel_floats = static_cast<size_t>(columns) * static_cast<size_t>(depth);
    const auto panels = numbers(panel_floats * static_cast<size_t>(matrices) + 16384);
    std::vector<float> out(static_cast<size_t>(rows * (columns + 16)));
    const double seconds = fastest([&](int repeat) {
        Product p = {};
        p.a = a.data(), p.a_stride = depth + 16;
        p.panels = panels.data() + panel_floats * static_cast<size_t>(repeat % matrices), p.bias = bias.data();
        p.out = out.data(), p.out_stride = columns + 16;
        p.rows = rows, p.depth = depth, p.columns = columns, p.activation = activation;
        kernels.product_f32(&p);
    });
    const double rate = 2.0 * rows * columns * depth / seconds;
    std::printf("product %3d x %4d x %4d%s%s: %4.0f GFLOP/s, %3.0f %% of the peak\n", rows, columns, depth,
                activation == Activation::gelu ? " with gelu" : "", matrices > 1 ? " from memory" : "", rate / 1e9,
                100 * rate / top);
}

void attention(const Kernels& kernels, int tokens, int head_size, double top) {
    constexpr int heads = 12, times = 20;
    const int stride = 3 * heads * head_size + 48;
    auto states = numbers(static_cast<size_t>(tokens * stride + 64)), out = states;
    std::vector<float> scratch(kernels.attention_scratch(tokens, head_size));
    const double seconds = fastest([&](int) {
        for (int i = 0; i < heads * times; ++i) {
            Attention task = {};
            task.query = states.data() + i % heads * head_size;
            task.key = task.query + heads * head_size, task.value = task.key + heads * head_size;
            task.stride = task.out_stride = stride;
            task.out = out.data() + i % heads * head_size;
            task.tokens = task.visible = tokens, task.head_size = head_size, task.scale = 0.2f;
            task.scratch = scratch.data();
            kernels.attend(&task);
        }
    });
    const double rate = 4.0 * tokens * tokens * head_size * heads * times / seconds;
    std::printf("attention, %3d tokens, head of %3d: %4.0f GFLOP/s, %3.0f %% of the peak\n", tokens, head_size,
                rate / 1e9, 100 * rate / top);
}

}  // namespace

int main(int count, char** arguments) {
    const Kernels* kernels = &onepass_kernels_avx512;
    if (count > 1 && !std::strcmp(arguments[1], "avx2")) kernels = &onepass_kernels_avx2;
    if (count > 1 && !std::strcmp(arguments[1], "portable")) kernels = &onepass_kernels_portable;
    const double top = peak(*kernels);
    std::printf("%s, one core: %.0f GFLOP/s inside the first cache\n", kernels->name, top / 1e9);
    product(*kernels, 56, 384, 384, Activation::identity, 1, top);
    product(*kernels, 56, 1152, 384, Activation::identity, 1, top);
    product(*kernels, 56, 1536, 384, Activation::gelu, 1, top);
    product(*kernels, 56, 384, 1536, Activation::identity, 1, top);
    product(*kernels, 12, 1536, 384, Activation::identity, 40, top);
    for (int tokens : {12, 90, 512}) attention(*kernels, tokens, 32, top);
    attention(*kernels, 128, 64, top);
}
