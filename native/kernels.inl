// The kernels, written once over the vector type of the file that includes this one: Vec, width, tile_rows.

constexpr int panel_columns = 2 * width;

#include "math.inl"
#include "product.inl"
#include "attention.inl"

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

void round_bf16(const float* x, float* out, int n) {
    const int whole = n / width * width, rest = n - whole;
    for (int i = 0; i < whole; i += width) store(out + i, to_bf16(load(x + i)));
    if (rest) store_first(out + whole, to_bf16(load_first(x + whole, rest)), rest);
}

constexpr Kernels table(const char* name) {
    return {name,       panel_columns, product<float>, product<uint16_t>, attend, attention_scratch,
            layer_norm, activate,      round_bf16};
}
