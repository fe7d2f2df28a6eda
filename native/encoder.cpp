#include "encoder.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

namespace onepass {
namespace {

// Rows that go through a feed-forward together: few enough for what lies between its two products to stay in the second
// cache beside a panel of weights, many enough to read each panel for some tiles.
constexpr int chunk_floats = 96 * 1024, least_chunk = 28, largest_chunk = 112;

int chunk_rows(int feed_forward_width) {
    return std::clamp(chunk_floats / feed_forward_width / 14 * 14, least_chunk, largest_chunk);
}

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

}  // namespace

Encoder::Encoder(const Kernels& kernels, int width, std::shared_ptr<const Embedding> embedding,
                 std::vector<Layer> layers, std::vector<Head> heads)
    : kernels_(kernels),
      width_(width),
      embedding_(std::move(embedding)),
      layers_(std::move(layers)),
      heads_(std::move(heads)) {}

size_t Encoder::weight_bytes() const {
    const auto table = [](const Table& t) { return t.values.size() * sizeof(float); };
    size_t total = table(embedding_->word) + table(embedding_->types);
    if (embedding_->positions) total += table(embedding_->positions->table);
    if (embedding_->norm) total += embedding_->norm->bytes();
    if (embedding_->project) total += embedding_->project->bytes();
    std::set<const LayerWeights*> distinct;  // layers may share them
    for (const Layer& layer : layers_) distinct.insert(layer.weights.get());
    for (const LayerWeights* w : distinct)
        total += w->query_key_value->bytes() + w->output->bytes() + w->up->bytes() + w->down->bytes() +
                 w->norm1.bytes() + w->norm2.bytes();
    for (const Head& head : heads_) total += head.weight_bytes();
    return total;
}

void Encoder::check(const Batch& batch) const {
    if (batch.rows < 1 || batch.offsets[0] != 0 || batch.offsets[batch.rows] != batch.tokens)
        refuse("offsets must run from 0 to the number of tokens, " + std::to_string(batch.tokens));
    for (int row = 0; row < batch.rows; ++row) {
        const int length = batch.offsets[row + 1] - batch.offsets[row], visible = batch.visible[row];
        if (length < 1) refuse("row " + std::to_string(row) + " of the batch has no tokens");
        if (visible < 1 || visible > length)
            refuse("row " + std::to_string(row) + " shows " + std::to_string(visible) + " of its " +
                   std::to_string(length) + " tokens; it must be 1 to all of them");
    }
    for (int t = 0; t < batch.tokens; ++t) {
        if (batch.ids[t] < 0 || batch.ids[t] >= embedding_->word.rows)
            refuse("token id " + std::to_string(batch.ids[t]) + " is outside the vocabulary of " +
                   std::to_string(embedding_->word.rows));
        if (embedding_->types.rows && (batch.types[t] < 0 || batch.types[t] >= embedding_->types.rows))
            refuse("token type " + std::to_string(batch.types[t]) + " is outside the " +
                   std::to_string(embedding_->types.rows) + " types of this model");
    }
    if (!embedding_->positions) return;
    std::vector<int> rows;
    position_rows(batch, rows);
    for (int position : rows)
        if (position >= embedding_->positions->table.rows)
            refuse("a row needs position " + std::to_string(position) + ", the table has " +
                   std::to_string(embedding_->positions->table.rows) + " rows");
}

// The row of the position table that each token reads.
void Encoder::position_rows(const Batch& batch, std::vector<int>& rows) const {
    const Positions& positions = *embedding_->positions;
    rows.resize(static_cast<size_t>(batch.tokens));
    for (int row = 0; row < batch.rows; ++row) {
        int real = 0;
        for (int t = batch.offsets[row]; t < batch.offsets[row + 1]; ++t) {
            int position = positions.start;
            if (positions.rule == Positions::Rule::arange) position += t - batch.offsets[row];
            else if (batch.ids[t] != positions.start) position += ++real;
            rows[static_cast<size_t>(t)] = position;
        }
    }
}

Matrix Encoder::embed(const Batch& batch, Team& team, Workspace& workspace) const {
    const int width = embedding_->width;
    const auto rows_of = [&](int columns) {
        const ptrdiff_t stride = stride_for(columns);
        return Matrix{workspace.floats(static_cast<size_t>(batch.tokens * stride)), stride};
    };
    const Matrix embedded = rows_of(width);
    std::vector<int> positions;
    if (embedding_->positions) position_rows(batch, positions);

    team.share(batch.tokens, row_grain, [&](int begin, int end) {
        const auto row_of = [&](const Table& table, int row) {
            return table.values.data() + static_cast<ptrdiff_t>(row) * width;
        };
        for (int t = begin; t < end; ++t) {
            float* out = embedded.row(t);
            const auto add = [&](const float* values) {
                for (int i = 0; i < width; ++i) out[i] += values[i];
            };
            const float* word = row_of(embedding_->word, batch.ids[t]);
            for (int i = 0; i < width; ++i) out[i] = word[i] * embedding_->scale;
            if (embedding_->positions) add(row_of(embedding_->positions->table, positions[static_cast<size_t>(t)]));
            if (embedding_->types.rows) add(row_of(embedding_->types, batch.types[t]));
            if (embedding_->norm) embedding_->norm->apply(kernels_, out, width);
        }
    });
    if (!embedding_->project) return embedded;

    const Matrix projected = rows_of(width_);
    float* rounded = rows_of(width).data;
    embedding_->project->multiply({embedded, projected, batch.tokens, {}, Activation::identity, rounded}, team);
    return projected;
}

// One run of the layers over one batch, and its buffers.
struct Encoder::Pass {
    const Kernels& kernels;
    const std::vector<Layer>& layers;
    const Batch& batch;
    int width;
    Matrix hidden, query_key_value, context;  // one row per token

    // What one member of the team, or all of it together, needs for some rows of one layer.
    struct Scratch {
        float *inner, *rounded, *attention;
    };

    // The context of every token, from the queries, keys and values of its sequence.
    void attend(const Layer& layer, Team& team, const std::vector<Scratch>& scratch) const {
        const ptrdiff_t size = layer.head_size, all_heads = layer.heads * size;
        team.hand_out(batch.rows * layer.heads, [&](int item, int member) {
            const int row = item / layer.heads, head = item % layer.heads, first = batch.offsets[row];
            Attention task = {};
            task.query = query_key_value.row(first) + head * size;
            task.key = task.query + all_heads;
            task.value = task.key + all_heads;
            task.stride = query_key_value.stride;
            task.out = context.row(first) + head * size, task.out_stride = context.stride;
            task.tokens = batch.offsets[row + 1] - first;
            task.visible = batch.visible[row];
            task.head_size = layer.head_size;
            task.scale = layer.scale;
            task.scratch = scratch[static_cast<size_t>(member)].attention;
            kernels.attend(&task);
        });
    }

    // All of a layer that looks at one token at a time, from the context on, and the next layer's queries, keys, values.
    void feed(size_t index, int first, int rows, const Scratch& scratch, Team& team) const {
        const Layer& layer = layers[index];
        const LayerWeights& weights = *layer.weights;
        const Matrix h = hidden.from(first), inner = {scratch.inner, stride_for(weights.up->outputs())};

        weights.output->multiply({context.from(first), h, rows, h, Activation::identity, scratch.rounded}, team);
        normalise(weights.norm1, h, rows, team);
        weights.up->multiply({h, inner, rows, {}, layer.activation, scratch.rounded}, team);
        weights.down->multiply({inner, h, rows, h, Activation::identity, scratch.rounded}, team);
        normalise(weights.norm2, h, rows, team);
        if (index + 1 < layers.size()) ask(index + 1, first, rows, scratch, team);
    }

    void ask(size_t index, int first, int rows, const Scratch& scratch, Team& team) const {
        const Linear& linear = *layers[index].weights->query_key_value;
        linear.multiply(
            {hidden.from(first), query_key_value.from(first), rows, {}, Activation::identity, scratch.rounded}, team);
    }

    void normalise(const Norm& norm, Matrix h, int rows, Team& team) const {
        team.share(rows, row_grain, [&](int begin, int end) {
            for (int r = begin; r < end; ++r) norm.apply(kernels, h.row(r), width);
        });
    }
};

Matrix Encoder::trunk(const Batch& batch, Team& team, Workspace& workspace) const {
    const Matrix hidden = embed(batch, team, workspace);
    if (layers_.empty()) return hidden;

    int heads_width = 0, inner_width = 0, head_size = 0, length = 0;
    for (const Layer& layer : layers_) {
        heads_width = std::max(heads_width, layer.heads * layer.head_size);
        head_size = std::max(head_size, layer.head_size);
        inner_width = std::max(inner_width, layer.weights->up->outputs());
    }
    for (int row = 0; row < batch.rows; ++row) length = std::max(length, batch.offsets[row + 1] - batch.offsets[row]);

    // Attention reads whole panels of values: room for one beyond the last head.
    const ptrdiff_t qkv_stride = stride_for(3 * heads_width + kernels_.panel_columns), context_stride = stride_for(heads_width);
    const auto tokens = static_cast<size_t>(batch.tokens);
    const Pass pass = {kernels_, layers_, batch, width_, hidden,
                       {workspace.floats(tokens * static_cast<size_t>(qkv_stride)), qkv_stride},
                       {workspace.floats(tokens * static_cast<size_t>(context_stride)), context_stride}};

    // Enough chunks: every member takes whole chunks through all products. Too few: all of them divide each product.
    const int limit = chunk_rows(inner_width), chunks = (batch.tokens + limit - 1) / limit;
    const bool together = team.size() > 1 && chunks < 2 * team.size();
    std::vector<Pass::Scratch> scratch;
    for (int member = 0; member < team.size(); ++member) {
        const auto rows = static_cast<size_t>(limit);
        const auto widest = static_cast<size_t>(stride_for(std::max({width_, heads_width, inner_width})));
        scratch.push_back({workspace.floats(rows * widest), workspace.floats(rows * widest),
                           workspace.floats(kernels_.attention_scratch(length, head_size))});
    }
    const auto each_chunk = [&](const auto& step) {
        const auto chunk = [&](int index, const Pass::Scratch& own, Team& helpers) {
            const int begin = static_cast<int>(static_cast<long long>(batch.tokens) * index / chunks);
            const int end = static_cast<int>(static_cast<long long>(batch.tokens) * (index + 1) / chunks);
            step(begin, end - begin, own, helpers);
        };
        if (together) {
            for (int index = 0; index < chunks; ++index) chunk(index, scratch[0], team);
        } else {
            team.hand_out(chunks, [&](int index, int member) {
                Team alone;
                chunk(index, scratch[static_cast<size_t>(member)], alone);
            });
        }
    };

    each_chunk([&](int first, int rows, const Pass::Scratch& own, Team& helpers) { pass.ask(0, first, rows, own, helpers); });
    for (size_t index = 0; index < layers_.size(); ++index) {
        pass.attend(layers_[index], team, scratch);
        each_chunk([&](int first, int rows, const Pass::Scratch& own, Team& helpers) {
            pass.feed(index, first, rows, own, helpers);
        });
    }
    return hidden;
}

void Encoder::run(const Batch& batch, const std::vector<HeadRead>& reads, int cores) const {
    std::unique_ptr<Workspace> workspace = workspaces_.take();
    Team team(cores);
    const Matrix hidden = trunk(batch, team, *workspace);
    for (const HeadRead& read : reads) heads_[static_cast<size_t>(read.head)].run(read, batch, hidden, team, *workspace);
    workspaces_.give_back(std::move(workspace));
}

}  // namespace onepass
