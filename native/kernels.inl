// The kernels, written once over what the file that includes this one has defined: the vector type Vec of `width`
// floats, the heights of tiles and blocks, and the Multiplier of bfloat16 blocks.

inline int least(int a, int b) { return a < b ? a : b; }
inline int most(int a, int b) { return a > b ? a : b; }
constexpr int whole_panels(int n) { return (n + panel_columns - 1) / panel_columns * panel_columns; }
// Of the columns that are left, those that the next panel is multiplied for: half of it or all.
inline int next_columns(int left) { return left <= width ? width : panel_columns; }

#include "math.inl"
#include "product.inl"
#include "scores.inl"
#include "relative.inl"
#include "attention.inl"
#include "bf16_product.inl"
#include "bf16_attention.inl"

void layer_norm(float* x, const float* weight, const float* bias, float eps, int n) {
    const int whole = n / width * width, rest = n - whole;
    Vec total = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) total = total + load(x + i);
    if (rest) total = total + load_first(x + whole, rest);
    const float mean = sum(total) / static_cast<float>(n);

    Vec squares = broadcast(0.0f);
    const Vec centre = broadcast(mean);
    for (int i = 0; i < whole; i += width) {
        const Vec d = load(x + i) - centre;
        squares = fma(d, d, squares);
    }
    float square = sum(squares);
    for (int i = whole; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
    const Vec slope = broadcast(1.0f / sqrtf(square / static_cast<float>(n) + eps));

    const auto normalised = [&](Vec value, Vec gain, Vec shift) { return fma((value - centre) * slope, gain, shift); };
    const Vec none = broadcast(0.0f);
    for (int i = 0; i < whole; i += width)
        store(x + i, normalised(load(x + i), load(weight + i), bias ? load(bias + i) : none));
    if (rest) {
        const Vec shift = bias ? load_first(bias + whole, rest) : none;
        store_first(x + whole, normalised(load_first(x + whole, rest), load_first(weight + whole, rest), shift), rest);
    }
}

void rms_norm(float* x, const float* weight, float eps, int n) {
    const int whole = n / width * width, rest = n - whole;
    Vec squares = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) squares = fma(load(x + i), load(x + i), squares);
    if (rest) squares = fma(load_first(x + whole, rest), load_first(x + whole, rest), squares);
    const Vec slope = broadcast(1.0f / sqrtf(sum(squares) / static_cast<float>(n) + eps));
    for (int i = 0; i < whole; i += width) store(x + i, load(x + i) * slope * load(weight + i));
    if (rest) store_first(x + whole, load_first(x + whole, rest) * slope * load_first(weight + whole, rest), rest);
}

void rotate(float* x, const float* cosines, const float* sines, int half) {
    const int whole = half / width * width, rest = half - whole;
    const auto turn = [&](int i, const auto& get, const auto& put) {
        const Vec a = get(x + i), b = get(x + half + i), cosine = get(cosines + i), sine = get(sines + i);
        put(x + i, a * cosine - b * sine);
        put(x + half + i, b * cosine + a * sine);
    };
    for (int i = 0; i < whole; i += width)
        turn(i, [](const float* p) { return load(p); }, [](float* p, Vec value) { store(p, value); });
    if (rest)
        turn(
            whole, [&](const float* p) { return load_first(p, rest); },
            [&](float* p, Vec value) { store_first(p, value, rest); });
}

float sum_exponentials(const float* x, int n, float* most) {
    const int whole = n / width * width, rest = n - whole;
    *most = largest(x, n);
    const Vec shift = broadcast(*most);
    Vec total = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) total = total + exponential(load(x + i) - shift);
    float lanes[width] = {};
    if (rest) store_first(lanes, exponential(load_first(x + whole, rest) - shift), rest);
    return sum(total + load(lanes));
}

size_t attention_scratch(int tokens, int head_size, bool disentangled) {
    const size_t f32 = attention_scratch_f32(tokens, head_size), bf16 = attention_scratch_bf16(tokens, head_size);
    return (f32 > bf16 ? f32 : bf16) + (disentangled ? relative_scratch(tokens) : 0);
}

constexpr Kernels table(const char* name, bool bf16_products) {
    return {name,         panel_columns, highest_block, bf16_products,     product_f32,
            product_bf16, attend_f32,    attend_bf16,   attention_scratch, layer_norm,
            rms_norm,     rotate,        activate,      sum_exponentials,  round_bf16};
}
