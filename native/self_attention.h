// Attention of a sequence to itself: queries, keys and values of some rows, then the context of every token.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "stage.h"

namespace onepass {

// DeBERTa's relative tables: of each head the rows by distance, -reach..reach. Empty: the term is not there.
struct RelativeScores {
    int reach;
    std::vector<std::shared_ptr<const Linear>> content_to_position, position_to_content;
};

// AttentionSpec in model/spec.py says what the options mean.
struct SelfAttention {
    std::shared_ptr<const Linear> query_key_value;
    std::shared_ptr<const Linear> value;       // where values are made of something else than queries and keys; or null
    std::optional<Norm> query_norm, key_norm;  // of a head, or of all heads together
    std::shared_ptr<const RelativeScores> relative;  // or null
    int heads, kv_heads, head_size;
    float scale;
    bool causal;
    int window;         // 0: none
    float softcap;      // 0: none
    int rotary;         // index into the batch's tables; -1: none
    int distance_bias;  // likewise

    int query_width() const { return heads * head_size; }
    int width() const { return (heads + 2 * kv_heads) * head_size; }
    bool placed() const { return rotary >= 0 || query_norm; }

    // Queries and keys of a chunk's rows, made of `in`, and values, made of `value_in`.
    void ask(const Chunk& chunk, const Rows& in, const Rows& value_in) const;

    // The context of every token, from the queries, keys and values of its sequence. One `scratch` for each member.
    void attend(const Stage& stage, Team& team, const std::vector<Scratch>& scratch) const;

  private:
    void place(const Stage& stage, int token, float* x) const;
};

}  // namespace onepass
