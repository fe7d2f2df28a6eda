// How near the kernels come to the arithmetic peak of one core, in processor time (a busy machine disturbs it less).
//
//   make bench-kernels, then build/bench/bench_kernels [portable|avx2|avx512|avx512bf16|amx] [bf16]
//
// Without arguments: what this machine's widest instruction set does in float32 and in bfloat16.

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "cpu.h"

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

// Products and attention of one instruction set in one format.
struct Subject {
    const Kernels& kernels;
    Format format;

    bool bf16() const { return format == Format::bfloat16; }
    void product(const Product& p) const { (bf16() ? kernels.product_bf16 : kernels.product_f32)(&p); }
    void attend(const Attention& task) const { (bf16() ? kernels.attend_bf16 : kernels.attend_f32)(&task); }
    // As many elements of this format. In bfloat16 what lies in 32 bits of a float is two of them, both near it.
    std::vector<float> operands(size_t elements) const {
        std::vector<float> values = numbers(bf16() ? elements / 2 : elements);
        if (bf16())
            for (float& value : values) {
                uint32_t bits;
                std::memcpy(&bits, &value, sizeof bits);
                bits = (bits & 0xffff0000u) | bits >> 16;
                std::memcpy(&value, &bits, sizeof bits);
            }
        return values;
    }
};

// The same kernel on a tile that never leaves the first cache: what the arithmetic alone allows.
double peak(const Subject& subject) {
    constexpr int rows = 28, depth = 192;
    const int columns = subject.kernels.panel_columns;
    const auto a = subject.operands(rows * depth);
    const auto panel = subject.operands(static_cast<size_t>(columns * (depth + 600)));
    std::vector<float> out(static_cast<size_t>(rows * columns));
    Product p = {};
    p.a = a.data(), p.a_stride = depth, p.panels = panel.data(), p.out = out.data(), p.out_stride = columns;
    p.rows = rows, p.depth = depth, p.columns = columns;
    constexpr int calls = 3000;
    const double seconds = fastest([&](int) {
        for (int i = 0; i < calls; ++i) subject.product(p);
    });
    return 2.0 * rows * depth * columns * calls / seconds;
}

void product(const Subject& subject, int rows, int columns, int depth, Activation activation, int matrices,
             double top) {
    // rows an odd number of cache lines apart, as the engine's
    const int a_stride = depth + (subject.bf16() ? 32 : 16), out_stride = columns + 32;
    const auto a = subject.operands(static_cast<size_t>(rows * a_stride));
    const auto bias = numbers(static_cast<size_t>(columns + 64));
    const size_t matrix = static_cast<size_t>(columns) * static_cast<size_t>(depth);
    const auto panels = subject.operands(matrix * static_cast<size_t>(matrices) + 16384);
    std::vector<float> out(static_cast<size_t>(rows * out_stride));
    const size_t bytes = matrix * (subject.bf16() ? sizeof(uint16_t) : sizeof(float));
    const char* weights = reinterpret_cast<const char*>(panels.data());
    const double seconds = fastest([&](int repeat) {
        Product p = {};
        p.a = a.data(), p.a_stride = a_stride, p.panels = weights + bytes * static_cast<size_t>(repeat % matrices);
        p.bias = bias.data(), p.out = out.data(), p.out_stride = out_stride;
        p.rows = rows, p.depth = depth, p.columns = columns, p.activation = activation;
        if (activation != Activation::identity) p.out_format = subject.format;
        subject.product(p);
    });
    const double rate = 2.0 * rows * columns * depth / seconds;
    std::printf("product %3d x %4d x %4d%s%s: %4.0f GFLOP/s, %3.0f %% of the peak\n", rows, columns, depth,
                activation == Activation::gelu ? " with gelu" : "", matrices > 1 ? " from memory" : "", rate / 1e9,
                100 * rate / top);
}

void attention(const Subject& subject, int tokens, int head_size, double top) {
    constexpr int heads = 12, times = 20;
    const int stride = 3 * heads * head_size + 96, all = heads * head_size;
    const auto states = subject.operands(static_cast<size_t>(tokens * stride + 64));
    auto out = states;
    std::vector<float> scratch(subject.kernels.attention_scratch(tokens, head_size, false));
    const ptrdiff_t element = subject.bf16() ? sizeof(uint16_t) : sizeof(float);
    const auto column = [&](const std::vector<float>& matrix, int index) {
        return const_cast<char*>(reinterpret_cast<const char*>(matrix.data())) + index * element;
    };
    const double seconds = fastest([&](int) {
        for (int i = 0; i < heads * times; ++i) {
            const int first = i % heads * head_size;
            Attention task = {};
            task.query = column(states, first);
            task.key = column(states, all + first), task.value = column(states, 2 * all + first);
            task.stride = task.out_stride = stride;
            task.out = column(out, first);
            task.tokens = task.visible = tokens, task.head_size = head_size, task.scale = 0.2f;
            task.scratch = scratch.data();
            subject.attend(task);
        }
    });
    const double rate = 4.0 * tokens * tokens * head_size * heads * times / seconds;
    std::printf("attention, %3d tokens, head of %3d: %4.0f GFLOP/s, %3.0f %% of the peak\n", tokens, head_size,
                rate / 1e9, 100 * rate / top);
}

void measure(const Subject& subject) {
    const double top = peak(subject);
    std::printf("%s in %s, one core: %.0f GFLOP/s inside the first cache\n", subject.kernels.name,
                subject.bf16() ? "bfloat16" : "float32", top / 1e9);
    product(subject, 56, 384, 384, Activation::identity, 1, top);
    product(subject, 56, 1152, 384, Activation::identity, 1, top);
    product(subject, 56, 1536, 384, Activation::gelu, 1, top);
    product(subject, 56, 384, 1536, Activation::identity, 1, top);
    product(subject, 12, 1536, 384, Activation::identity, 40, top);
    for (int tokens : {12, 90, 512}) attention(subject, tokens, 32, top);
    attention(subject, 128, 64, top);
}

}  // namespace

int main(int count, char** arguments) {
    const auto& sets = instruction_sets();
    const auto widest = std::find_if(sets.begin(), sets.end(), [](const auto& set) { return set.obstacle.empty(); });
    const Kernels& kernels = count > 1 ? kernels_named(arguments[1]) : *widest->kernels;
    if (count != 3) measure({kernels, Format::float32});
    if (count != 2) measure({kernels, Format::bfloat16});
}
