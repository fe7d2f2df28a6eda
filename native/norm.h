// A norm of one row. What each word means is said in model/spec.py.
#pragma once

#include <vector>

#include "kernels.h"

namespace onepass {

struct Norm {
    enum class Kind { layer, rms, affine };
    Kind kind;
    std::vector<float> weight, bias;  // bias may be empty
    float eps;

    int width() const { return static_cast<int>(weight.size()); }

    // x[width] in place.
    void apply(const Kernels& kernels, float* x) const {
        const float* shift = bias.empty() ? nullptr : bias.data();
        switch (kind) {
            case Kind::layer: return kernels.layer_norm(x, weight.data(), shift, eps, width());
            case Kind::rms: kernels.rms_norm(x, weight.data(), eps, width()); break;
            case Kind::affine:
                for (int i = 0; i < width(); ++i) x[i] *= weight[static_cast<size_t>(i)];
        }
        if (shift)
            for (int i = 0; i < width(); ++i) x[i] += shift[i];
    }
};

}  // namespace onepass
