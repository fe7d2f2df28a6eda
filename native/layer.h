// One layer: attention and feed-forwards, and where its norms stand.
#pragma once

#include <optional>
#include <vector>

#include "feed_forward.h"
#include "self_attention.h"

namespace onepass {

// MobileBERT's: attention and feed-forwards work on narrow states u = input_norm(input h).
struct Bottleneck {
    enum class Shares { all, query_key, none };  // BottleneckSpec in model/spec.py
    Shares shares;
    std::shared_ptr<const Linear> input, shared, output;  // shared: or null
    Norm input_norm;
    std::optional<Norm> shared_norm;
    Norm output_norm;
};

// A feed-forward with a residual and a norm of its own, before the last one.
struct Link {
    Dense feed_forward;
    Norm norm;
};

struct Layer {
    enum class Place { post, pre, sandwich, bottleneck };  // LayerSpec in model/spec.py
    Place place;
    SelfAttention attention;
    std::shared_ptr<const Linear> output;  // of attention
    std::vector<Link> chain;
    FeedForward feed_forward;
    std::optional<Norm> norm1, norm1_after;
    Norm norm2;
    std::optional<Norm> norm2_after;
    std::optional<Bottleneck> bottleneck;

    // What attention needs of a chunk's rows.
    void ask(const Chunk& chunk) const;

    // All that looks at one token at a time, from the context on.
    void feed(const Chunk& chunk) const;

  private:
    void ask_narrow(const Chunk& chunk) const;
    void feed_post(const Chunk& chunk, Matrix x) const;
    void feed_pre(const Chunk& chunk, Matrix x) const;
    void feed_sandwich(const Chunk& chunk, Matrix x) const;
};

// DeBERTa's, over the embeddings, joined after the first layer: h = norm(h + act(convolution)).
struct Convolution {
    std::shared_ptr<const Linear> weight;  // over the `kernel` neighbours' vectors side by side
    int kernel;
    Activation activation;
    Norm norm;

    void run(const Chunk& chunk) const;
};

}  // namespace onepass
