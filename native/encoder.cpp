#include "encoder.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

namespace onepass {
namespace {

// Rows that go through a feed-forward together: few enough for what lies between its two products to stay in the second
// cache beside a panel of weights, many enough to read each panel for some blocks, and whole blocks.
int chunk_rows(int feed_forward_width, int block_rows) {
    constexpr int cached_floats = 96 * 1024, fewest = 28, most = 112;
    return std::max(std::clamp(cached_floats / feed_forward_width, fewest, most) / block_rows, 1) * block_rows;
}

// Products and attention read whole panels: what lies behind the last column must be numbers.
void clear_behind(const Rows& rows, int count, int width) {
    if (rows.format == Format::float32) return;
    for (int r = 0; r < count; ++r) std::fill(rows.at(r, width).bf16(), rows.at(r, rows.stride).bf16(), uint16_t{0});
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
    const Matrix embedded = workspace.matrix(batch.tokens, width);
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

    const Matrix projected = workspace.matrix(batch.tokens, width_);
    Rows in = embedded;
    if (embedding_->project->format() == Format::bfloat16) {
        in = Rows(workspace, batch.tokens, width, Format::bfloat16);
        for (int t = 0; t < batch.tokens; ++t) kernels_.round_bf16(embedded.row(t), in.at(t).bf16(), width);
    }
    embedding_->project->multiply({in, projected, batch.tokens}, team);
    return projected;
}

// One run of the layers over one batch, with its buffers. The hidden states are float32; what products take and give is
// in the weights' format.
struct Encoder::Pass {
    // What one member of the team, or all of it together, needs for some rows of one layer.
    struct Scratch {
        Rows inner, rounded;
        float* attention;
    };

    Pass(const Encoder& encoder, const Batch& batch, Matrix hidden, Team& team, Workspace& workspace);

    void run() {
        each_chunk([&](int first, int rows, const Scratch& scratch, Team& helpers) {
            ask(0, first, rows, input(first, rows, scratch, helpers), helpers);
        });
        for (size_t layer = 0; layer < layers.size(); ++layer) {
            attend(layers[layer]);
            each_chunk([&](int first, int rows, const Scratch& scratch, Team& helpers) {
                feed(layer, first, rows, scratch, helpers);
            });
        }
    }

    // Enough chunks of rows: each member takes whole chunks through all products. Too few: all divide each product.
    template <class Step>
    void each_chunk(const Step& step) {
        const int chunks = (batch.tokens + chunk - 1) / chunk, block = kernels.block_rows;
        const int blocks = (batch.tokens + block - 1) / block;
        const auto take = [&](int index, const Scratch& own, Team& helpers) {
            const auto edge = [&](int i) {
                return std::min(batch.tokens, static_cast<int>(static_cast<long long>(blocks) * i / chunks) * block);
            };
            step(edge(index), edge(index + 1) - edge(index), own, helpers);
        };
        if (chunks >= 2 * team.size())
            team.hand_out(chunks, [&](int index, int member) {
                Team alone;
                take(index, scratch[static_cast<size_t>(member)], alone);
            });
        else
            for (int index = 0; index < chunks; ++index) take(index, scratch[0], team);
    }

    // The hidden states of some rows as products take them.
    Rows input(int first, int rows, const Scratch& own, Team& helpers) const {
        if (format == Format::float32) return hidden.from(first);
        helpers.share(rows, row_grain, [&](int begin, int end) {
            for (int r = begin; r < end; ++r)
                kernels.round_bf16(hidden.row(first + r), own.rounded.at(r).bf16(), width);
        });
        return own.rounded;
    }

    // The queries, keys and values of some rows.
    void ask(size_t layer, int first, int rows, const Rows& in, Team& helpers) const {
        layers[layer].weights->query_key_value->multiply({in, query_key_value.at(first), rows}, helpers);
    }

    // The context of every token, from the queries, keys and values of its sequence.
    void attend(const Layer& layer) {
        const auto run = format == Format::float32 ? kernels.attend_f32 : kernels.attend_bf16;
        const int size = layer.head_size, all_heads = layer.heads * size;
        team.hand_out(batch.rows * layer.heads, [&](int item, int member) {
            const int row = item / layer.heads, head = item % layer.heads, first = batch.offsets[row];
            Attention task = {};
            task.query = query_key_value.at(first, head * size).data;
            task.key = query_key_value.at(first, all_heads + head * size).data;
            task.value = query_key_value.at(first, 2 * all_heads + head * size).data;
            task.stride = query_key_value.stride;
            task.out = context.at(first, head * size).data;
            task.out_stride = context.stride;
            task.tokens = batch.offsets[row + 1] - first;
            task.visible = batch.visible[row];
            task.head_size = size;
            task.scale = layer.scale;
            task.scratch = scratch[static_cast<size_t>(member)].attention;
            run(&task);
        });
    }

    // All of a layer that looks at one token at a time, from the context on; then what the next layer asks.
    void feed(size_t index, int first, int rows, const Scratch& own, Team& helpers) const {
        const LayerWeights& weights = *layers[index].weights;
        const Matrix h = hidden.from(first);

        weights.output->multiply({context.at(first), h, rows, h}, helpers);
        Rows in = normalise(weights.norm1, first, rows, own, helpers);
        weights.up->multiply({in, own.inner, rows, {}, layers[index].activation}, helpers);
        weights.down->multiply({own.inner, h, rows, h}, helpers);
        in = normalise(weights.norm2, first, rows, own, helpers);
        if (index + 1 < layers.size()) ask(index + 1, first, rows, in, helpers);
    }

    // In place; also returns the normalised rows as products take them.
    Rows normalise(const Norm& norm, int first, int rows, const Scratch& own, Team& helpers) const {
        helpers.share(rows, row_grain, [&](int begin, int end) {
            for (int r = begin; r < end; ++r) norm.apply(kernels, hidden.row(first + r), width);
        });
        return input(first, rows, own, helpers);
    }

    const Kernels& kernels;
    const std::vector<Layer>& layers;
    const Batch& batch;
    Team& team;
    int width, chunk;
    Format format;
    Matrix hidden;  // one row per token
    Rows query_key_value, context;
    std::vector<Scratch> scratch;  // one per member
};

Encoder::Pass::Pass(const Encoder& encoder, const Batch& batch, Matrix hidden, Team& team, Workspace& workspace)
    : kernels(encoder.kernels_),
      layers(encoder.layers_),
      batch(batch),
      team(team),
      width(encoder.width_),
      format(layers[0].weights->query_key_value->format()),
      hidden(hidden) {
    int heads_width = 0, inner_width = 1, head_size = 0, length = 0;
    for (const Layer& layer : layers) {
        heads_width = std::max(heads_width, layer.heads * layer.head_size);
        head_size = std::max(head_size, layer.head_size);
        inner_width = std::max(inner_width, layer.weights->up->outputs());
    }
    for (int row = 0; row < batch.rows; ++row) length = std::max(length, batch.offsets[row + 1] - batch.offsets[row]);
    chunk = chunk_rows(inner_width, kernels.block_rows);

    query_key_value = Rows(workspace, batch.tokens, 3 * heads_width, format);
    context = Rows(workspace, batch.tokens, heads_width, format);
    clear_behind(query_key_value, batch.tokens, 3 * heads_width);
    clear_behind(context, batch.tokens, heads_width);
    for (int member = 0; member < team.size(); ++member)
        scratch.push_back({Rows(workspace, chunk, inner_width, format), Rows(workspace, chunk, width, format),
                           workspace.floats(kernels.attention_scratch(length, head_size, false))});
}

void Encoder::run(const Batch& batch, const std::vector<HeadRead>& reads, int cores) const {
    std::unique_ptr<Workspace> workspace = workspaces_.take();
    Team team(cores);
    const Matrix hidden = embed(batch, team, *workspace);
    if (!layers_.empty()) Pass(*this, batch, hidden, team, *workspace).run();
    for (const HeadRead& read : reads)
        heads_[static_cast<size_t>(read.head)].run(read, batch, hidden, team, *workspace);
    workspaces_.give_back(std::move(workspace));
}

}  // namespace onepass
