#include "similarity.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "linear.h"
#include "vectors.h"

namespace onepass {

void max_similarity(const Kernels& kernels, const float* query, int vectors, int width, const Documents& documents,
                    float* scores, Team& team) {
    constexpr int cached_floats = 16 * 1024, fewest = 16, most = 256;
    const Linear layer(kernels, Format::float32, width, {{query, nullptr, vectors}});
    const int rows = std::clamp(cached_floats / std::max(vectors, 1), fewest, most);
    Workspace workspace;
    std::vector<Matrix> products, largest;
    for (int member = 0; member < team.size(); ++member) {
        products.push_back(workspace.matrix(rows, vectors));
        largest.push_back(workspace.matrix(1, vectors));
    }
    team.hand_out(documents.count, [&](int document, int member) {
        const Matrix product = products[static_cast<size_t>(member)];
        float* best = largest[static_cast<size_t>(member)].data;
        std::fill_n(best, vectors, -std::numeric_limits<float>::infinity());
        const int end = documents.offsets[document + 1];
        for (int first = documents.offsets[document]; first < end; first += rows) {
            const int count = std::min(rows, end - first);
            layer.multiply_some({documents.vectors.from(first), product, count}, 0, vectors);
            for (int r = 0; r < count; ++r) keep_largest(best, product.row(r), vectors);
        }
        double total = 0;
        for (int vector = 0; vector < vectors; ++vector) total += best[vector];
        scores[document] = static_cast<float>(total);
    });
}

}  // namespace onepass
