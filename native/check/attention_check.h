// Attention beside plain loops, and beside itself among other neighbours.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "record.h"

namespace onepass::check {

struct AttentionShape {
    int tokens, visible, head_size;
};

template <class Element>
class AttentionCheck {
  public:
    AttentionCheck(const Kernels& kernels, AttentionShape shape)
        : kernels_(kernels), shape_(shape), query_(part()), key_(part()), value_(part()) {}

    void run(Record& record) const {
        record.at(std::to_string(shape_.tokens) + " tokens, " + std::to_string(shape_.visible) + " visible, head of " +
                  std::to_string(shape_.head_size));
        const Elements out = attend(0, shape_.tokens, record);
        const Element* got = out.data();
        for (int t = 0; t < shape_.tokens; ++t)
            for (const Exact& exact :
                 attended(row(query_, t), key_.data(), value_.data(), shape_.visible, shape_.head_size, scale()))
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
    float scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_size)); }

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
        const size_t floats = kernels_.attention_scratch(tokens, shape_.head_size);
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, floats * sizeof(float)) != 0) std::abort();
        std::fill_n(static_cast<float*>(memory), floats, not_a_number<float>());
        return std::unique_ptr<float, Free>(static_cast<float*>(memory));
    }

    const Kernels& kernels_;
    AttentionShape shape_;
    Elements query_, key_, value_;  // [tokens, head_size]
};

}  // namespace onepass::check
