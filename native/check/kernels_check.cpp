// Every function of the kernel tables on many shapes, beside plain loops in double; and whether a row alone has the
// bits that it has among others. Needs no Python, so that it runs under emulators and sanitizers.
//
//   kernels_check                  every table that this machine can run
//   kernels_check avx2 portable    these
//   kernels_check --few            fewer shapes, in seconds everywhere
//
// Says how large the largest error of each function was; exits 1 where one is too large or bits differ, 2 where a table
// cannot run here.

#include <cstdio>
#include <string>
#include <vector>

#include "attention_check.h"
#include "cpu.h"
#include "product_check.h"
#include "row_check.h"

namespace {

using namespace onepass;
using namespace onepass::check;

constexpr int activations = static_cast<int>(Activation::relu_log1p) + 1;

// A float's rounding errors, some in a row; half a step of bfloat16, beside what sums and cheaper exponentials lose.
constexpr double float32_error = 1e-6, bfloat16_error = 1.0 / 256 + 2e-4;

struct Shapes {
    std::vector<int> rows, depths, columns, tokens, head_sizes, lengths, long_tokens;
};

std::vector<int> up_to(int last, std::vector<int> more) {
    std::vector<int> numbers;
    for (int n = 1; n <= last; ++n) numbers.push_back(n);
    numbers.insert(numbers.end(), more.begin(), more.end());
    return numbers;
}

Shapes many() {
    return {up_to(70, {}),
            {1, 2, 3, 7, 31, 32, 33, 64, 100, 384},
            {1, 3, 8, 15, 16, 17, 31, 32, 33, 40, 65, 96, 100},
            {1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 100, 512},
            {8, 11, 16, 20, 31, 32, 33, 40, 64, 80, 96, 128},
            up_to(70, {384, 768, 1000}),
            {1, 2, 3, 17, 64, 100, 300}};
}

Shapes few() {
    return {{1, 2, 5, 14, 16, 17, 33, 70},
            {1, 33, 100},
            {1, 16, 17, 33, 100},
            {1, 2, 3, 17, 33, 64},
            {8, 11, 20, 32, 80},
            {1, 2, 7, 8, 15, 16, 17, 33, 100, 384},
            {1, 3, 17, 150}};
}

// Every combination of shape with the next way to finish it: over the shapes all ways meet all remainders.
template <class In, class Out>
bool check_products(const Kernels& kernels, const Shapes& shapes, const char* name) {
    Record record(name, is_bf16<Out> ? bfloat16_error : float32_error, is_bf16<Out> ? 0.005 : 1);
    int turn = 0;
    for (const int rows : shapes.rows)
        for (const int depth : shapes.depths)
            for (const int columns : shapes.columns) {
                ProductCheck<In, Out> product(kernels, {rows, depth, columns});
                const auto activation = static_cast<Activation>(turn % activations);
                product.with({turn % 2 == 1, turn / 2 % 2 == 1, Activation::identity}, record);
                product.with({turn / 4 % 2 == 1, turn / 8 % 2 == 1, activation}, record);
                product.with({turn / 2 % 2 == 1, false, activation, true}, record);
                ++turn;
            }
    return record.print();
}

template <class Element>
bool check_attention(const Kernels& kernels, const Shapes& shapes, const char* name) {
    // In bfloat16 the weights of the values are rounded, too, each by half a step at most.
    Record record(name, is_bf16<Element> ? bfloat16_error : 2 * float32_error, 1);
    for (const int tokens : shapes.tokens)
        for (const int head_size : shapes.head_sizes) {
            AttentionCheck<Element>(kernels, {tokens, tokens, head_size}).run(record);
            if (tokens > 1) AttentionCheck<Element>(kernels, {tokens, (tokens + 1) / 2, head_size}).run(record);
            if (tokens > 2) AttentionCheck<Element>(kernels, {tokens, 1, head_size}).run(record);
        }
    return record.print();
}

// Every way to score with all and with some of the keys visible, over heads of whole and of odd sizes.
template <class Element>
bool check_scoring(const Kernels& kernels, const Shapes& shapes, const char* name) {
    Record record(name, is_bf16<Element> ? bfloat16_error : 3 * float32_error, 1);
    std::vector<Scoring> ways;
    for (const int window : {0, 1, 2, 9, 40, 1000})
        for (const bool causal : {false, true}) ways.push_back({causal, window, 0, false, 0, false, false});
    for (const int window : {0, 20})
        for (const float softcap : {0.0f, 2.0f}) ways.push_back({window > 0, window, softcap, true, 0, false, false});
    ways.push_back({false, 0, 2, false, 0, false, false});
    for (const int reach : {1, 5, 40, 512})
        for (const int tables : {1, 2, 3}) ways.push_back({false, 0, 0, false, reach, tables != 2, tables != 1});
    ways.push_back({true, 0, 0, true, 12, true, true});
    ways.push_back({false, 10, 3, true, 30, true, true});

    int turn = 0;
    for (const int tokens : shapes.long_tokens)
        for (const Scoring& way : ways) {
            const int head_size = shapes.head_sizes[static_cast<size_t>(turn++) % shapes.head_sizes.size()];
            AttentionCheck<Element>(kernels, {tokens, tokens, head_size}, way).run(record);
            if (tokens > 1) AttentionCheck<Element>(kernels, {tokens, (tokens + 1) / 2, head_size}, way).run(record);
        }
    return record.print();
}

bool check_rows(const Kernels& kernels, const Shapes& shapes) {
    Record norm("layer_norm", float32_error, 1), rms("rms_norm", float32_error, 1), turn("rotate", float32_error, 1),
        activate("activate", float32_error, 1), exponentials("sum_exponentials", float32_error, 0),
        round("round_bf16", bfloat16_error, 0);
    for (const int n : shapes.lengths) {
        check_layer_norm(kernels, n, n % 3 != 0, norm);
        check_rms_norm(kernels, n, rms);
        check_rotation(kernels, n, turn);
        for (int kind = 0; kind < activations; ++kind)
            check_activation(kernels, static_cast<Activation>(kind), n, activate);
        check_sum_exponentials(kernels, n, exponentials);
        check_rounding(kernels, n, round);
    }
    bool right = true;
    for (const Record* record : {&norm, &rms, &turn, &activate, &exponentials, &round}) right &= record->print();
    return right;
}

bool check_table(const Kernels& kernels, const Shapes& shapes) {
    std::printf("%s\n", kernels.name);
    bool right = check_products<float, float>(kernels, shapes, "product_f32");
    right &= check_products<uint16_t, float>(kernels, shapes, "product_bf16");
    right &= check_products<uint16_t, uint16_t>(kernels, shapes, "product_bf16 to bf16");
    right &= check_attention<float>(kernels, shapes, "attend_f32");
    right &= check_attention<uint16_t>(kernels, shapes, "attend_bf16");
    right &= check_scoring<float>(kernels, shapes, "attend_f32, scored");
    right &= check_scoring<uint16_t>(kernels, shapes, "attend_bf16, scored");
    return check_rows(kernels, shapes) && right;
}

// With emulated tiles "amx" needs no more than AVX-512 BF16.
std::string obstacle(const InstructionSet& set) {
#if defined(ONEPASS_EMULATED_TILES)
    if (std::string(set.kernels->name) == "amx")
        for (const InstructionSet& other : instruction_sets())
            if (std::string(other.kernels->name) == "avx512bf16") return other.obstacle;
#endif
    return set.obstacle;
}

}  // namespace

int main(int count, char** arguments) {
    std::vector<std::string> names;
    Shapes shapes = many();
    for (int i = 1; i < count; ++i) {
        if (std::string(arguments[i]) == "--few") shapes = few();
        else names.push_back(arguments[i]);
    }
    if (names.empty())
        for (const InstructionSet& set : instruction_sets())
            if (obstacle(set).empty()) names.push_back(set.kernels->name);

    bool right = true;
    for (const std::string& name : names) {
        const InstructionSet* chosen = nullptr;
        for (const InstructionSet& set : instruction_sets())
            if (set.kernels->name == name) chosen = &set;
        const std::string why_not = chosen ? obstacle(*chosen) : "not built";
        if (!why_not.empty()) {
            std::fprintf(stderr, "%s: %s\n", name.c_str(), why_not.c_str());
            return 2;
        }
        right &= check_table(*chosen->kernels, shapes);
    }
    return right ? 0 : 1;
}
