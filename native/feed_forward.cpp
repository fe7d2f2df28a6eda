#include "feed_forward.h"

#include "vectors.h"

namespace onepass {
namespace {

// All but the `top` largest become 0; of equal ones the first stay.
void keep_largest(float* x, int width, int top) {
    std::vector<int> order(static_cast<size_t>(width));
    for (int i = 0; i < width; ++i) order[static_cast<size_t>(i)] = i;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
    for (int i = top; i < width; ++i) x[order[static_cast<size_t>(i)]] = 0;
}

}  // namespace

void Dense::run(const Chunk& chunk, const States& in, Matrix out, Matrix residual) const {
    up->multiply({in.rows, chunk.own.inner, chunk.rows, {}, activation}, chunk.helpers);
    down->multiply({chunk.own.inner, out, chunk.rows, residual}, chunk.helpers);
}

// [rows, experts]: by how much each counts for each token, 0 for those that it does not take.
std::vector<float> Experts::shares(const Chunk& chunk, Matrix x) const {
    const int count = static_cast<int>(experts.size());
    std::vector<float> shares(static_cast<size_t>(chunk.rows) * experts.size());
    router->multiply({x, Matrix{shares.data(), count}, chunk.rows}, chunk.helpers);
    for (int r = 0; r < chunk.rows; ++r) {
        float* share = shares.data() + static_cast<ptrdiff_t>(r) * count;
        softmax(share, count);
        keep_largest(share, count, top);
    }
    return shares;
}

// Each expert takes the tokens that want it together; a token's sum runs over its experts in their order.
void Experts::run(const Chunk& chunk, const States& in, Matrix out, Matrix residual) const {
    const int width = experts[0].down->outputs(), inputs = experts[0].up->inputs();
    const std::vector<float> share = shares(chunk, in.floats);
    const Matrix sum = chunk.own.sum;
    chunk.each_row([&](int r) {
        if (bias.empty()) std::fill_n(sum.row(r), width, 0.0f);
        else std::copy_n(bias.data(), width, sum.row(r));
    });
    for (size_t e = 0; e < experts.size(); ++e) {
        std::vector<int> takers;
        for (int r = 0; r < chunk.rows; ++r)
            if (share[static_cast<size_t>(r) * experts.size() + e] > 0) takers.push_back(r);
        for (size_t begin = 0; begin < takers.size(); begin += static_cast<size_t>(chunk.own.expert_rows)) {
            const int* taker = takers.data() + begin;
            const Chunk some = {chunk.stage, chunk.first,
                                std::min(chunk.own.expert_rows, static_cast<int>(takers.size() - begin)), chunk.own,
                                chunk.helpers};
            const Rows taken = chunk.own.taken;
            some.each_row([&](int i) {
                if (taken.format == Format::float32)
                    std::copy_n(in.rows.at(taker[i]).floats(), inputs, taken.at(i).floats());
                else chunk.stage.kernels.round_bf16(in.floats.row(taker[i]), taken.at(i).bf16(), inputs);
            });
            experts[e].run(some, {{}, taken}, chunk.own.expert, {});
            some.each_row([&](int i) {
                const float weight = share[static_cast<size_t>(taker[i]) * experts.size() + e];
                float* to = sum.row(taker[i]);
                const float* from = chunk.own.expert.row(i);
                for (int c = 0; c < width; ++c) to[c] += weight * from[c];
            });
        }
    }
    chunk.each_row([&](int r) {
        for (int c = 0; c < width; ++c) out.row(r)[c] = sum.row(r)[c] + (residual.data ? residual.row(r)[c] : 0.0f);
    });
}

}  // namespace onepass
