#include "self_attention.h"

namespace onepass {

void SelfAttention::ask(const Chunk& chunk, const Rows& in, const Rows& value_in) const {
    const Stage& stage = chunk.stage;
    const Rows out = stage.query_key_value.at(chunk.first);
    // queries and keys are normalised and turned before they are rounded
    const bool rounded_later = placed() && stage.format == Format::bfloat16;
    const Rows made = rounded_later ? Rows(chunk.own.projected) : out;
    query_key_value->multiply({in, made, chunk.rows}, chunk.helpers);
    if (value) value->multiply({value_in, made.at(0, (heads + kv_heads) * head_size), chunk.rows}, chunk.helpers);
    if (!placed()) return;
    chunk.each_row([&](int r) {
        float* x = made.at(r).floats();
        place(stage, chunk.first + r, x);
        if (rounded_later) stage.kernels.round_bf16(x, out.at(r).bf16(), width());
    });
}

// Norms and turns the queries and keys of one token.
void SelfAttention::place(const Stage& stage, int token, float* x) const {
    const auto each_head = [&](int first, int count, const auto& change) {
        for (int head = first; head < first + count; ++head) change(x + head * head_size);
    };
    if (query_norm) {
        const auto normalise = [&](const Norm& norm, int first, int count) {
            if (norm.width() == head_size)
                each_head(first, count, [&](float* part) { norm.apply(stage.kernels, part); });
            else norm.apply(stage.kernels, x + first * head_size);
        };
        normalise(*query_norm, 0, heads);
        normalise(*key_norm, heads, kv_heads);
    }
    if (rotary >= 0) {
        const Rotary& table = stage.tables.rotary[static_cast<size_t>(rotary)];
        const int row = stage.row_of[static_cast<size_t>(token)];
        const ptrdiff_t angle = table.starts[row] + token - stage.batch.offsets[row];
        const float *cosines = table.cosines + angle * table.half, *sines = table.sines + angle * table.half;
        each_head(0, heads + kv_heads, [&](float* part) { stage.kernels.rotate(part, cosines, sines, table.half); });
    }
}

void SelfAttention::attend(const Stage& stage, Team& team, const std::vector<Scratch>& scratch) const {
    const Batch& batch = stage.batch;
    const auto run = stage.format == Format::float32 ? stage.kernels.attend_f32 : stage.kernels.attend_bf16;
    const int kv_width = kv_heads * head_size;
    team.hand_out(batch.rows * heads, [&](int item, int member) {
        const int row = item / heads, head = item % heads, first = batch.offsets[row];
        const int kv_column = head / (heads / kv_heads) * head_size;
        Attention task = {};
        task.query = stage.query_key_value.at(first, head * head_size).data;
        task.key = stage.query_key_value.at(first, query_width() + kv_column).data;
        task.value = stage.query_key_value.at(first, query_width() + kv_width + kv_column).data;
        task.stride = stage.query_key_value.stride;
        task.out = stage.context.at(first, head * head_size).data;
        task.out_stride = stage.context.stride;
        task.tokens = batch.length(row);
        task.visible = batch.visible[row];
        task.head_size = head_size;
        task.scale = scale;
        task.causal = causal;
        task.window = window;
        task.softcap = softcap;
        if (distance_bias >= 0) {
            const DistanceBias& bias = stage.tables.distance[static_cast<size_t>(distance_bias)];
            const ptrdiff_t head_begin = static_cast<ptrdiff_t>(head) * (2 * bias.reach + 1);
            task.distance_bias = bias.values + head_begin + bias.reach - (task.tokens - 1);
        }
        Disentangled disentangled = {};
        if (relative) {
            const auto panels = [&](const auto& heads_of) {
                return heads_of.empty() ? nullptr : heads_of[static_cast<size_t>(head)]->panels();
            };
            disentangled.reach = relative->reach;
            disentangled.content_to_position = panels(relative->content_to_position);
            disentangled.position_to_content = panels(relative->position_to_content);
            task.disentangled = &disentangled;
        }
        task.scratch = scratch[static_cast<size_t>(member)].attention;
        run(&task);
    });
}

}  // namespace onepass
