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

// How a head scores: a window, or what DeBERTa's positions add.
struct Scoring {
    int window = 0;
    bool content_to_position = false, position_to_content = false;
};

double attention_seconds(const Subject& subject, int tokens, int head_size, Scoring scoring) {
    constexpr int heads = 12;
    const int times = std::max(1, 5000 / tokens * 90 / tokens);
    const int stride = 3 * heads * head_size + 96, all = heads * head_size, reach = 512;
    const auto states = subject.operands(static_cast<size_t>(tokens * stride + 64));
    auto out = states;
    const size_t table = static_cast<size_t>((2 * reach + 64) * (head_size + 32));
    const auto tables = subject.operands(2 * heads * table);
    const bool disentangled = scoring.content_to_position || scoring.position_to_content;
    std::vector<float> scratch(subject.kernels.attention_scratch(tokens, head_size, disentangled));
    const ptrdiff_t element = subject.bf16() ? sizeof(uint16_t) : sizeof(float);
    const auto column = [&](const std::vector<float>& matrix, size_t index) {
        return const_cast<char*>(reinterpret_cast<const char*>(matrix.data())) +
               static_cast<ptrdiff_t>(index) * element;
    };
    return fastest([&](int) {
               for (int i = 0; i < heads * times; ++i) {
                   const int head = i % heads;
                   const auto part = [&](int p) {
                       return column(states, static_cast<size_t>(p * all + head * head_size));
                   };
                   Disentangled positions = {reach, nullptr, nullptr};
                   const size_t pair = 2 * static_cast<size_t>(head);
                   if (scoring.content_to_position) positions.content_to_position = column(tables, pair * table);
                   if (scoring.position_to_content) positions.position_to_content = column(tables, (pair + 1) * table);
                   Attention task = {};
                   task.query = part(0), task.key = part(1), task.value = part(2);
                   task.stride = task.out_stride = stride;
                   task.out = column(out, static_cast<size_t>(head * head_size));
                   task.tokens = task.visible = tokens, task.head_size = head_size, task.scale = 0.2f;
                   task.window = scoring.window;
                   task.disentangled = disentangled ? &positions : nullptr;
                   task.scratch = scratch.data();
                   subject.attend(task);
               }
           }) /
           (heads * times);
}

void attention(const Subject& subject, int tokens, int head_size, double top) {
    const double seconds = attention_seconds(subject, tokens, head_size, {});
    const double rate = 4.0 * tokens * tokens * head_size / seconds;
    std::printf("attention, %3d tokens, head of %3d: %4.0f GFLOP/s, %3.0f %% of the peak\n", tokens, head_size,
                rate / 1e9, 100 * rate / top);
}

void windowed_attention(const Subject& subject, int tokens) {
    const double seconds = attention_seconds(subject, tokens, 64, {65, false, false});
    std::printf("attention, %4d tokens, head of 64, window of 65: %5.2f us a token\n", tokens, 1e6 * seconds / tokens);
}

void disentangled_attention(const Subject& subject, int tokens) {
    const double plain = attention_seconds(subject, tokens, 64, {});
    const auto times = [&](bool content_to_position, bool position_to_content) {
        return attention_seconds(subject, tokens, 64, {0, content_to_position, position_to_content}) / plain;
    };
    std::printf(
        "attention, %3d tokens, head of 64, in the time of the plain one: %.2f with content to position, %.2f with "
        "position to content, %.2f with both\n",
        tokens, times(true, false), times(false, true), times(true, true));
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
    for (int tokens : {1024, 8192}) windowed_attention(subject, tokens);
    for (int tokens : {12, 90, 512}) disentangled_attention(subject, tokens);
}

}  // namespace

int main(int count, char** arguments) {
    const auto& sets = instruction_sets();
    const auto widest = std::find_if(sets.begin(), sets.end(), [](const auto& set) { return set.obstacle.empty(); });
    const Kernels& kernels = count > 1 ? kernels_named(arguments[1]) : *widest->kernels;
    if (count != 3) measure({kernels, Format::float32});
    if (count != 2) measure({kernels, Format::bfloat16});
}
