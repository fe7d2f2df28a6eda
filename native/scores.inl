// What attention in both formats shares: which keys a token sees, and what becomes of its scores before the softmax.

// Keys first to last - 1.
struct Span {
    int first, last;
    int count() const { return last - first; }
};

// The keys that a token sees; if there are none, an empty span at the end of those that there are.
inline Span seen_by(const Attention& task, int token) {
    const int window = task.window ? least(task.window, task.tokens) : task.tokens;
    const int last = least(task.visible, token + (task.causal ? 1 : window));
    return {least(most(0, token - window + 1), last), last};
}

// The keys that any of these tokens sees. Neither end ever goes back from one token to the next.
inline Span seen_by(const Attention& task, int first, int tokens) {
    return {seen_by(task, first).first, seen_by(task, first + tokens - 1).last};
}

// A square of width x width floats: stages of interleaving row i with row i + width / 2.
inline void transpose(Vec (&rows)[width]) {
    for (int stage = 1; stage < width; stage *= 2) {
        Vec next[width];
        for (int i = 0; i < width / 2; ++i) {
            next[2 * i] = interleave_low(rows[i], rows[i + width / 2]);
            next[2 * i + 1] = interleave_high(rows[i], rows[i + width / 2]);
        }
        for (int i = 0; i < width; ++i) rows[i] = next[i];
    }
}

inline float largest(const float* x, int n) {
    const int whole = n / width * width;
    Vec most = broadcast(-INFINITY);
    for (int i = 0; i < whole; i += width) most = maximum(most, load(x + i));
    float top = largest(most);
    for (int i = whole; i < n; ++i) top = x[i] > top ? x[i] : top;
    return top;
}

// Whether every token sees every key and the scores are the products times the scale.
inline bool is_plain(const Attention& task) {
    return !task.causal && !task.window && task.softcap == 0.0f && !task.distance_bias && !task.disentangled;
}

// products[n] of one token with the keys of a span become its scores. The rows beside them are of those keys, or null.
inline void finish_scores(const Attention& task, const float* to_position, const float* to_content, int token,
                          Span keys, float* products) {
    const int n = keys.count(), whole = n / width * width, rest = n - whole;
    const float* bias = task.distance_bias ? task.distance_bias + task.tokens - 1 + keys.first - token : nullptr;
    const Vec scale = broadcast(task.scale);
    const auto score = [&](const auto& from) {
        Vec sum = from(products);
        if (to_position) sum = sum + from(to_position);
        if (to_content) sum = sum + from(to_content);
        sum = bias ? fma(sum, scale, from(bias)) : sum * scale;
        if (task.softcap == 0.0f) return sum;
        return broadcast(task.softcap) * hyperbolic_tangent(sum / broadcast(task.softcap));
    };
    for (int i = 0; i < whole; i += width) store(products + i, score([&](const float* row) { return load(row + i); }));
    if (rest)
        store_first(products + whole, score([&](const float* row) { return load_first(row + whole, rest); }), rest);
}
