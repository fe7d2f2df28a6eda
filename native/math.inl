// exp, the normal distribution's tail, tanh and the activations. The coefficients come from native/fit.py, which also
// measures the errors stated here (in float32, without the fused multiply-add).

template <int terms>
inline Vec polynomial(const float (&coefficients)[terms], Vec x) {
    Vec result = broadcast(coefficients[terms - 1]);
    for (int i = terms - 2; i >= 0; --i) result = fma(result, x, broadcast(coefficients[i]));
    return result;
}

// e^x with a relative error of 7e-8 (about 1 ulp). Arguments are clipped to where float has normal numbers; the
// constant stands first in minimum and maximum because then a NaN comes through.
inline Vec exponential(Vec x) {
    constexpr float p[] = {0.49999994f, 0.166665211f, 0.041668389f, 0.00836871006f, 0.00138146128f};
    x = maximum(broadcast(-87.33f), minimum(broadcast(88.37f), x));
    const Vec n = nearest_integer(x * broadcast(1.44269504f));
    // ln 2 in two parts, the first with so few bits that n times it is exact
    Vec r = fma(n, broadcast(-0.693359375f), x);
    r = fma(n, broadcast(2.12194440e-4f), r);
    const Vec value = broadcast(1.0f) + fma(r * r, polynomial(p, r), r);
    return times_power_of_two(value, n);
}

// x Phi(x), where Phi is the normal distribution function: Phi(-|x|) = e^p(|x|) with an absolute error of 9e-8.
// Beyond the fit's end at 5.5 the polynomial keeps falling.
inline Vec gelu_exact(Vec x) {
    constexpr float p[] = {-0.693147123f,    -0.797887444f,    -0.318280697f,   -0.036444582f,   0.00498103769f,
                           -0.000161758886f, -0.000100777586f, 2.12380146e-05f, -1.45186357e-06f};
    const Vec tail = exponential(polynomial(p, minimum(broadcast(20.0f), magnitude(x))));
    return x * select_less(x, broadcast(0.0f), tail, broadcast(1.0f) - tail);
}

// 2^x with a relative error of 8e-5, for what is rounded to bfloat16 next (which alone makes 4e-3).
inline Vec coarse_power_of_two(Vec x) {
    constexpr float p[] = {0.999928057f, 0.693260968f, 0.242611125f, 0.0551716648f};
    x = maximum(broadcast(-126.0f), x);
    const Vec n = nearest_integer(x);
    return times_power_of_two(polynomial(p, x - n), n);
}

// x Phi(x), likewise: Phi(-|x|) = 2^q(|x|), an absolute error of 8e-6 and near zero a relative one of 1e-4.
inline Vec coarse_gelu(Vec x) {
    constexpr float q[] = {-1.00007987f, -1.14926791f, -0.465307325f, -0.0455452949f, 0.00412897533f};
    const Vec tail = coarse_power_of_two(polynomial(q, minimum(broadcast(6.0f), magnitude(x))));
    return x * select_less(x, broadcast(0.0f), tail, broadcast(1.0f) - tail);
}

inline Vec logistic(Vec x) { return broadcast(1.0f) / (broadcast(1.0f) + exponential(broadcast(0.0f) - x)); }

// Relative error 8e-8 below 0.625; above, 1 - 2 / (e^2|x| + 1) loses nothing.
inline Vec hyperbolic_tangent(Vec x) {
    constexpr float p[] = {-0.333332807f, 0.133314416f, -0.0537397154f, 0.0206390861f, -0.0057049864f};
    const Vec one = broadcast(1.0f), two = broadcast(2.0f), square = x * x, size = magnitude(x);
    const Vec small = fma(x * square, polynomial(p, square), x);
    const Vec large = one - two / (exponential(two * size) + one);
    const Vec signed_large = select_less(x, broadcast(0.0f), broadcast(0.0f) - large, large);
    return select_less(size, broadcast(0.625f), small, signed_large);
}

template <Activation kind>
inline Vec activated(Vec x) {
    const Vec zero = broadcast(0.0f), ten = broadcast(10.0f);
    if constexpr (kind == Activation::gelu) return gelu_exact(x);
    if constexpr (kind == Activation::gelu_tanh) {
        const Vec cube = x * x * x;
        return x * logistic(broadcast(1.59576912f) * fma(cube, broadcast(0.044715f), x));
    }
    if constexpr (kind == Activation::quick_gelu) return x * logistic(broadcast(1.702f) * x);
    if constexpr (kind == Activation::gelu_clipped) return maximum(broadcast(-10.0f), minimum(ten, gelu_exact(x)));
    if constexpr (kind == Activation::silu) return x * logistic(x);
    if constexpr (kind == Activation::relu) return maximum(zero, x);
    if constexpr (kind == Activation::relu2) return maximum(zero, x) * maximum(zero, x);
    if constexpr (kind == Activation::tanh) return hyperbolic_tangent(x);
    if constexpr (kind == Activation::sigmoid) return logistic(x);
    if constexpr (kind == Activation::relu_log1p) {
        const Vec positive = maximum(zero, x);
        if (largest(positive) == 0.0f) return positive;  // most often: few words of a vocabulary have something to say
        float lanes[width];
        store(lanes, positive);
        for (float& lane : lanes) lane = log1pf(lane);
        return load(lanes);
    }
    return x;
}

// For what is rounded to bfloat16 next.
template <Activation kind>
inline Vec coarsely_activated(Vec x) {
    if constexpr (kind == Activation::gelu) return coarse_gelu(x);
    return activated<kind>(x);
}

// work(Kind<kind>()): a loop compiled for each activation.
template <Activation kind>
struct Kind {
    static constexpr Activation value = kind;
};
template <class Work>
inline void with_kind(Activation kind, const Work& work) {
    switch (kind) {
        case Activation::identity: return work(Kind<Activation::identity>());
        case Activation::gelu: return work(Kind<Activation::gelu>());
        case Activation::gelu_tanh: return work(Kind<Activation::gelu_tanh>());
        case Activation::quick_gelu: return work(Kind<Activation::quick_gelu>());
        case Activation::gelu_clipped: return work(Kind<Activation::gelu_clipped>());
        case Activation::silu: return work(Kind<Activation::silu>());
        case Activation::relu: return work(Kind<Activation::relu>());
        case Activation::relu2: return work(Kind<Activation::relu2>());
        case Activation::tanh: return work(Kind<Activation::tanh>());
        case Activation::sigmoid: return work(Kind<Activation::sigmoid>());
        case Activation::relu_log1p: return work(Kind<Activation::relu_log1p>());
    }
}

void activate(Activation kind, float* x, int n) {
    if (kind == Activation::identity) return;
    const int whole = n / width * width, rest = n - whole;
    with_kind(kind, [&](auto kind) {
        for (int i = 0; i < whole; i += width) store(x + i, activated<kind.value>(load(x + i)));
        if (rest) store_first(x + whole, activated<kind.value>(load_first(x + whole, rest)), rest);
    });
}
