// What a layer does to one token at a time: a feed-forward, or several of which each token takes a few.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "stage.h"

namespace onepass {

// down(act(up x)); gated, where `up` is: down(act(gate x) * up x).
struct Dense {
    std::shared_ptr<const Linear> up, down;
    Activation activation;

    int inner_width() const { return up->outputs(); }

    // out = F(in) + residual; `out` may be either of them, `residual` nothing.
    void run(const Chunk& chunk, const States& in, Matrix out, Matrix residual) const;
};

// The sum of the `top` experts that the router likes best, each weighted by the router's softmax over all; then bias.
struct Experts {
    std::shared_ptr<const Linear> router;  // float32
    std::vector<Dense> experts;
    std::vector<float> bias;  // or empty
    int top;

    int inner_width() const { return experts[0].inner_width(); }

    // As Dense::run.
    void run(const Chunk& chunk, const States& in, Matrix out, Matrix residual) const;

  private:
    std::vector<float> shares(const Chunk& chunk, Matrix x) const;
};

using FeedForward = std::variant<Dense, Experts>;

}  // namespace onepass
