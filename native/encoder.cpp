#include "encoder.h"

#include <algorithm>
#include <utility>

namespace onepass {
namespace {

// Rows that go through a feed-forward together: few enough for what lies between its two products to stay in the second
// cache beside a panel of weights, many enough to read each panel for some blocks, and whole blocks.
int chunk_rows(int feed_forward_width, int block_rows) {
    constexpr int cached_floats = 96 * 1024, fewest = 28, most = 112;
    return std::max(std::clamp(cached_floats / feed_forward_width, fewest, most) / block_rows, 1) * block_rows;
}

// Experts divide a chunk among them: it has to be larger for each to read its weights for some rows.
constexpr int expert_chunks = 8;

// Products and attention read whole panels: what lies behind the last column must be numbers.
void clear_behind(const Rows& rows, int count, int width) {
    if (rows.format == Format::float32) return;
    for (int r = 0; r < count; ++r) std::fill(rows.at(r, width).bf16(), rows.at(r, rows.stride).bf16(), uint16_t{0});
}

// The widths that buffers must have.
struct Widths {
    int hidden = 0, narrow = 0, inner = 1, head_size = 0;
    int asked = 0, least_asked = INT32_MAX, context = 0, least_context = INT32_MAX;
    bool experts = false, relative = false, floats = false, projected = false;

    Widths(int width, const std::vector<Layer>& layers) : hidden(width) {
        for (const Layer& layer : layers) {
            const SelfAttention& attention = layer.attention;
            head_size = std::max(head_size, attention.head_size);
            asked = std::max(asked, attention.width());
            least_asked = std::min(least_asked, attention.width());
            context = std::max(context, attention.query_width());
            least_context = std::min(least_context, attention.query_width());
            inner =
                std::max(inner, std::visit([](const auto& kind) { return kind.inner_width(); }, layer.feed_forward));
            for (const Link& link : layer.chain) inner = std::max(inner, link.feed_forward.inner_width());
            if (layer.bottleneck) narrow = std::max(narrow, layer.bottleneck->input->outputs());
            experts = experts || std::holds_alternative<Experts>(layer.feed_forward);
            relative = relative || attention.relative;
            floats = floats || layer.place != Layer::Place::post;
            projected = projected || attention.placed();
        }
    }
};

std::vector<int> rows_of_tokens(const Batch& batch) {
    std::vector<int> rows;
    rows.reserve(static_cast<size_t>(batch.tokens));
    for (int row = 0; row < batch.rows; ++row) rows.insert(rows.end(), static_cast<size_t>(batch.length(row)), row);
    return rows;
}

}  // namespace

Encoder::Encoder(const Kernels& kernels, int width, Embedding embedding, std::vector<Layer> layers,
                 std::optional<Convolution> convolution, std::optional<Norm> final_norm)
    : kernels_(kernels),
      width_(width),
      embedding_(std::move(embedding)),
      layers_(std::move(layers)),
      convolution_(std::move(convolution)),
      final_norm_(std::move(final_norm)) {}

void Encoder::check(const Batch& batch, const PositionTables& tables) const {
    if (batch.rows < 1 || batch.offsets[0] != 0 || batch.offsets[batch.rows] != batch.tokens)
        refuse("offsets must run from 0 to the number of tokens, " + std::to_string(batch.tokens));
    for (int row = 0; row < batch.rows; ++row) {
        const int length = batch.length(row), visible = batch.visible[row];
        if (length < 1) refuse("row " + std::to_string(row) + " of the batch has no tokens");
        if (visible < 1 || visible > length)
            refuse("row " + std::to_string(row) + " shows " + std::to_string(visible) + " of its " +
                   std::to_string(length) + " tokens; it must be 1 to all of them");
        for (const Rotary& table : tables.rotary)
            if (table.starts[row] < 0 || table.starts[row] > table.rows - length)
                refuse("row " + std::to_string(row) + " has " + std::to_string(length) +
                       " tokens, more than its rotary table");
    }
    for (const DistanceBias& bias : tables.distance)
        if (bias.reach < batch.longest() - 1)
            refuse("a row of " + std::to_string(batch.longest()) + " tokens reaches beyond its table of " +
                   std::to_string(bias.reach) + " distances");
    for (const Layer& layer : layers_) {
        const auto there = [](int index, size_t count) { return index < static_cast<int>(count); };
        const SelfAttention& attention = layer.attention;
        if (!there(attention.rotary, tables.rotary.size()) || !there(attention.distance_bias, tables.distance.size()))
            refuse("the batch comes without a table of positions that a layer reads");
        if (attention.rotary >= 0 &&
            2 * tables.rotary[static_cast<size_t>(attention.rotary)].half > attention.head_size)
            refuse("a rotary table turns more numbers than a head has");
        if (attention.distance_bias >= 0 &&
            tables.distance[static_cast<size_t>(attention.distance_bias)].heads < attention.heads)
            refuse("a table of distances has fewer heads than a layer");
    }
    embedding_.check(batch);
}

// One run of the layers over one batch, with its buffers.
struct Encoder::Pass {
    Pass(const Encoder& encoder, const Batch& batch, const PositionTables& tables, Matrix hidden, Team& team,
         Workspace& workspace);

    void run() {
        each_chunk(layers[0], [&](const Chunk& chunk) { layers[0].ask(chunk); });
        for (size_t index = 0; index < layers.size(); ++index) {
            layers[index].attention.attend(stage, team, scratch);
            each_chunk(layers[index], [&](const Chunk& chunk) {
                layers[index].feed(chunk);
                if (index == 0 && encoder.convolution_) encoder.convolution_->run(chunk);
                if (index + 1 < layers.size()) layers[index + 1].ask(chunk);
            });
        }
    }

    // Enough chunks of rows: each member takes whole chunks through all products. Too few: all divide each product.
    template <class Step>
    void each_chunk(const Layer& layer, const Step& step) {
        const int rows = std::holds_alternative<Experts>(layer.feed_forward) ? expert_chunks * chunk_size : chunk_size;
        const int tokens = stage.batch.tokens, block = stage.kernels.block_rows;
        const int chunks = (tokens + rows - 1) / rows, blocks = (tokens + block - 1) / block;
        const auto take = [&](int index, const Scratch& own, Team& helpers) {
            const auto edge = [&](int i) {
                return std::min(tokens, static_cast<int>(static_cast<long long>(blocks) * i / chunks) * block);
            };
            step(Chunk{stage, edge(index), edge(index + 1) - edge(index), own, helpers});
        };
        if (chunks >= 2 * team.size())
            team.hand_out(chunks, [&](int index, int member) {
                Team alone;
                take(index, scratch[static_cast<size_t>(member)], alone);
            });
        else
            for (int index = 0; index < chunks; ++index) take(index, scratch[0], team);
    }

    const Encoder& encoder;
    const std::vector<Layer>& layers;
    Team& team;
    Stage stage;
    int chunk_size;
    std::vector<Scratch> scratch;  // one per member
};

Encoder::Pass::Pass(const Encoder& encoder, const Batch& batch, const PositionTables& tables, Matrix hidden, Team& team,
                    Workspace& workspace)
    : encoder(encoder),
      layers(encoder.layers_),
      team(team),
      stage{encoder.kernels_,     batch, tables, layers[0].output->format(), hidden, {}, {}, {}, {},
            rows_of_tokens(batch)} {
    const Widths widths(encoder.width_, layers);
    const Kernels& kernels = stage.kernels;
    const Format format = stage.format;
    chunk_size = chunk_rows(widths.inner, kernels.block_rows);

    stage.query_key_value = Rows(workspace, batch.tokens, widths.asked, format);
    stage.context = Rows(workspace, batch.tokens, widths.context, format);
    clear_behind(stage.query_key_value, batch.tokens, widths.least_asked);
    clear_behind(stage.context, batch.tokens, widths.least_context);
    if (widths.narrow) stage.narrow = workspace.matrix(batch.tokens, widths.narrow);
    if (encoder.convolution_) {
        stage.embedded = workspace.matrix(batch.tokens, widths.hidden);
        for (int t = 0; t < batch.tokens; ++t) std::copy_n(hidden.row(t), widths.hidden, stage.embedded.row(t));
    }
    const int rows = chunk_size * (widths.experts ? expert_chunks : 1);
    const int widest = std::max(widths.hidden, widths.narrow);
    const auto matrix = [&](bool wanted, int count, int width) {
        return wanted ? workspace.matrix(count, width) : Matrix();
    };
    const auto rounded = [&](bool wanted, int width) {
        return wanted && format == Format::bfloat16 ? Rows(workspace, rows, width, format) : Rows();
    };
    for (int member = 0; member < team.size(); ++member) {
        Scratch own = {};
        own.inner = Rows(workspace, chunk_size, widths.inner, format);
        own.rounded = rounded(true, widest);
        own.rounded_too = rounded(widths.narrow, widest);
        own.floats = matrix(widths.floats || encoder.convolution_, rows, widest);
        own.projected = matrix(widths.projected && format == Format::bfloat16, rows, widths.asked);
        own.expert_rows = chunk_size;
        if (widths.experts) own.taken = Rows(workspace, chunk_size, widest, format);
        own.expert = matrix(widths.experts, chunk_size, widest);
        own.sum = matrix(widths.experts, rows, widest);
        if (encoder.convolution_) {
            const int neighbours = encoder.convolution_->weight->inputs();
            own.neighbours = matrix(true, rows, neighbours);
            own.neighbours_rounded = rounded(true, neighbours);
        }
        own.attention = workspace.floats(kernels.attention_scratch(batch.longest(), widths.head_size, widths.relative));
        scratch.push_back(own);
    }
}

std::vector<Values> Encoder::run(const Batch& batch, const PositionTables& tables, std::vector<Task> tasks,
                                 int cores) const {
    std::unique_ptr<Workspace> workspace = workspaces_.take();
    Team team(cores);
    const Matrix hidden = embedding_.run(kernels_, batch, team, *workspace);
    if (!layers_.empty()) Pass(*this, batch, tables, hidden, team, *workspace).run();
    if (final_norm_)
        team.share(batch.tokens, row_grain, [&](int begin, int end) {
            for (int t = begin; t < end; ++t) final_norm_->apply(kernels_, hidden.row(t));
        });
    std::vector<Values> values;
    for (Task& task : tasks)
        values.push_back(task.head->run(task.read, std::move(task.plan), hidden, team, *workspace));
    workspaces_.give_back(std::move(workspace));
    return values;
}

}  // namespace onepass
