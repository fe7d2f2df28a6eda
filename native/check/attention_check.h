// Attention beside plain loops, and beside itself among other neighbours.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "product_check.h"
#include "record.h"

namespace onepass::check {

struct AttentionShape {
    int tokens, visible, head_size;
};

// What a head may do beside the plain softmax; reach 0: no tables of positions.
struct Scoring {
    bool causal = false;
    int window = 0;
    float softcap = 0;
    bool distance_bias = false;
    int reach = 0;
    bool content_to_position = false, position_to_content = false;
};

template <class Element>
class AttentionCheck {
  public:
    AttentionCheck(const Kernels& kernels, AttentionShape shape, Scoring scoring = {})
        : kernels_(kernels),
          shape_(shape),
          scoring_(scoring),
          query_(part()),
          key_(part()),
          value_(part()),
          bias_(normal_numbers<float>(static_cast<size_t>(2 * shape.tokens - 1))),
          of_query_(table()),
          of_key_(table()) {}

    void run(Record& record) const {
        record.at(name());
        const Elements out = attend(0, shape_.tokens, record);
        const Element* got = out.data();
        for (int t = 0; t < shape_.tokens; ++t)
            for (const Exact& exact : attended(scores(t), value_.data(), shape_.head_size))
                record.near(exact, value(*got++));
        const Elements elsewhere = attend(7, shape_.tokens + 40, record);
        record.same(elsewhere.data(), out.data(), out.size() * sizeof(Element), "among other neighbours");
    }

  private:
    using Elements = std::vector<Element>;
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };

    size_t all_tokens(int stride) const { return static_cast<size_t>(shape_.tokens) * static_cast<size_t>(stride); }
    Elements part() const { return normal_numbers<Element>(all_tokens(shape_.head_size)); }
    const Element* row(const Elements& part, int token) const { return part.data() + token * shape_.head_size; }
    // [2 reach + 1, head_size]
    Elements table() const {
        return normal_numbers<Element>(static_cast<size_t>((2 * scoring_.reach + 1) * shape_.head_size), 0.5);
    }
    float scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_size)); }

    std::vector<double> scores(int token) const {
        const int reach = scoring_.reach, size = shape_.head_size;
        std::vector<double> scores;
        for (int key = 0; key < shape_.visible; ++key) {
            const int back = token - key;
            const bool seen = (!scoring_.causal || back >= 0) && (!scoring_.window || std::abs(back) < scoring_.window);
            double score = dot(row(query_, token), row(key_, key), size).value;
            if (scoring_.content_to_position)
                score += dot(row(query_, token), row(of_query_, std::clamp(-back + reach, 0, 2 * reach)), size).value;
            if (scoring_.position_to_content)
                score += dot(row(key_, key), row(of_key_, std::clamp(back + reach, 0, 2 * reach)), size).value;
            score *= scale();
            if (scoring_.distance_bias) score += bias_[static_cast<size_t>(shape_.tokens - 1 - back)];
            if (scoring_.softcap) score = scoring_.softcap * std::tanh(score / scoring_.softcap);
            scores.push_back(seen ? score : -INFINITY);
        }
        return scores;
    }

    std::string name() const {
        const auto with = [](bool there, const std::string& what) { return there ? ", " + what : ""; };
        return std::to_string(shape_.tokens) + " tokens, " + std::to_string(shape_.visible) + " visible, head of " +
               std::to_string(shape_.head_size) + with(scoring_.causal, "causal") +
               with(scoring_.window, "window " + std::to_string(scoring_.window)) + with(scoring_.softcap, "softcap") +
               with(scoring_.distance_bias, "distance bias") +
               with(scoring_.reach, "reach " + std::to_string(scoring_.reach)) +
               with(scoring_.content_to_position, "content to position") +
               with(scoring_.position_to_content, "position to content");
    }

    // [tokens, head_size], from rows that lie `gap` elements further apart than they must, in a workspace that would do
    // for `most` tokens. Rows are query, key, value and a panel's columns of something else.
    Elements attend(int gap, int most, Record& record) const {
        const int size = shape_.head_size, stride = 3 * size + kernels_.panel_columns + gap, out_stride = size + 3;
        Elements rows = normal_numbers<Element>(all_tokens(stride));
        for (int t = 0; t < shape_.tokens; ++t) {
            Element* at = rows.data() + t * stride;
            for (const Elements* part : {&query_, &key_, &value_}) at = std::copy_n(row(*part, t), size, at);
            if (!is_bf16<Element>) std::fill_n(at, kernels_.panel_columns, not_a_number<Element>());
        }
        rows.resize(rows.size() - static_cast<size_t>(gap));
        Elements out(all_tokens(out_stride), not_a_number<Element>());
        const Elements before = out;
        const std::unique_ptr<float, Free> scratch = workspace(most);

        Attention task = {};
        task.query = rows.data(), task.key = rows.data() + size, task.value = rows.data() + 2 * size;
        task.stride = stride, task.out = out.data(), task.out_stride = out_stride;
        task.tokens = shape_.tokens, task.visible = shape_.visible, task.head_size = size;
        task.scale = scale(), task.scratch = scratch.get();
        task.causal = scoring_.causal, task.window = scoring_.window, task.softcap = scoring_.softcap;
        task.distance_bias = scoring_.distance_bias ? bias_.data() : nullptr;
        const ProductShape table = {0, size, 2 * scoring_.reach + 1};
        const Elements of_query = panels_of(of_query_, table, kernels_.panel_columns);
        const Elements of_key = panels_of(of_key_, table, kernels_.panel_columns);
        Disentangled tables = {scoring_.reach, nullptr, nullptr};
        if (scoring_.content_to_position) tables.content_to_position = of_query.data();
        if (scoring_.position_to_content) tables.position_to_content = of_key.data();
        task.disentangled = scoring_.reach ? &tables : nullptr;
        (is_bf16<Element> ? kernels_.attend_bf16 : kernels_.attend_f32)(&task);

        Elements heads;
        for (int t = 0; t < shape_.tokens; ++t) {
            const Element* at = out.data() + t * out_stride;
            heads.insert(heads.end(), at, at + size);
            record.same(at + size, before.data(), 3 * sizeof(Element), "beyond the head");
        }
        return heads;
    }

    // Exactly as large as the table says, so that a sanitizer sees the first step beyond; full of what is no number.
    std::unique_ptr<float, Free> workspace(int tokens) const {
        const size_t floats = kernels_.attention_scratch(tokens, shape_.head_size, scoring_.reach > 0);
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, floats * sizeof(float)) != 0) std::abort();
        std::fill_n(static_cast<float*>(memory), floats, not_a_number<float>());
        return std::unique_ptr<float, Free>(static_cast<float*>(memory));
    }

    const Kernels& kernels_;
    AttentionShape shape_;
    Scoring scoring_;
    Elements query_, key_, value_;  // [tokens, head_size]
    std::vector<float> bias_;       // by key - query + tokens - 1
    Elements of_query_, of_key_;    // [2 reach + 1, head_size]
};

}  // namespace onepass::check
