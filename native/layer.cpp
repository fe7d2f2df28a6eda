#include "layer.h"

namespace onepass {
namespace {

void feed(const FeedForward& feed_forward, const Chunk& chunk, const States& in, Matrix out, Matrix residual) {
    std::visit([&](const auto& kind) { kind.run(chunk, in, out, residual); }, feed_forward);
}

}  // namespace

void Layer::ask(const Chunk& chunk) const {
    if (place == Place::bottleneck) return ask_narrow(chunk);
    const Matrix h = chunk.stage.hidden.from(chunk.first);
    const bool before = norm1 && place != Place::post;
    const Rows in = (before ? chunk.normalised(*norm1, h) : chunk.input(h, attention.query_key_value->inputs())).rows;
    attention.ask(chunk, in, in);
}

void Layer::ask_narrow(const Chunk& chunk) const {
    const Matrix h = chunk.stage.hidden.from(chunk.first), u = chunk.stage.narrow.from(chunk.first);
    const Rows wide = chunk.input(h, bottleneck->input->inputs()).rows;
    bottleneck->input->multiply({wide, u, chunk.rows}, chunk.helpers);
    chunk.normalise(bottleneck->input_norm, u);
    switch (bottleneck->shares) {
        case Bottleneck::Shares::none: return attention.ask(chunk, wide, wide);
        case Bottleneck::Shares::all: {
            const Rows in = chunk.input(u, bottleneck->input->outputs()).rows;
            return attention.ask(chunk, in, in);
        }
        case Bottleneck::Shares::query_key: {
            const Matrix shared = chunk.own.floats;
            bottleneck->shared->multiply({wide, shared, chunk.rows}, chunk.helpers);
            chunk.normalise(*bottleneck->shared_norm, shared);
            const Rows in = chunk.input(shared, bottleneck->shared->outputs(), chunk.own.rounded_too).rows;
            return attention.ask(chunk, in, wide);
        }
    }
}

void Layer::feed(const Chunk& chunk) const {
    const Matrix h = chunk.stage.hidden.from(chunk.first);
    switch (place) {
        case Place::post: return feed_post(chunk, h);
        case Place::pre: return feed_pre(chunk, h);
        case Place::sandwich: return feed_sandwich(chunk, h);
        case Place::bottleneck: {
            const Matrix u = chunk.stage.narrow.from(chunk.first);
            feed_post(chunk, u);
            const Rows in = chunk.input(u, bottleneck->output->inputs()).rows;
            bottleneck->output->multiply({in, h, chunk.rows, h}, chunk.helpers);
            return chunk.normalise(bottleneck->output_norm, h);
        }
    }
}

// x = norm1(x + attention), x = norm(x + F(x)) along the chain, x = norm2(x + F(x)).
void Layer::feed_post(const Chunk& chunk, Matrix x) const {
    const int width = output->outputs();
    output->multiply({chunk.stage.context.at(chunk.first), x, chunk.rows, x}, chunk.helpers);
    if (norm1) chunk.normalise(*norm1, x);
    for (const Link& link : chain) {
        link.feed_forward.run(chunk, chunk.input(x, width), x, x);
        chunk.normalise(link.norm, x);
    }
    onepass::feed(feed_forward, chunk, chunk.input(x, width), x, x);
    chunk.normalise(norm2, x);
}

// x = x + attention, x = x + F(norm2(x)).
void Layer::feed_pre(const Chunk& chunk, Matrix x) const {
    output->multiply({chunk.stage.context.at(chunk.first), x, chunk.rows, x}, chunk.helpers);
    onepass::feed(feed_forward, chunk, chunk.normalised(norm2, x), x, x);
}

// x = x + norm1_after(attention), x = x + norm2_after(F(norm2(x))).
void Layer::feed_sandwich(const Chunk& chunk, Matrix x) const {
    const int width = output->outputs();
    const Matrix more = chunk.own.floats;
    output->multiply({chunk.stage.context.at(chunk.first), more, chunk.rows}, chunk.helpers);
    chunk.normalise(*norm1_after, more);
    chunk.add(x, more, width);
    onepass::feed(feed_forward, chunk, chunk.normalised(norm2, x), more, {});
    chunk.normalise(*norm2_after, more);
    chunk.add(x, more, width);
}

void Convolution::run(const Chunk& chunk) const {
    const Stage& stage = chunk.stage;
    const int width = weight->outputs(), before = (kernel - 1) / 2;
    const Matrix around = chunk.own.neighbours;
    chunk.each_row([&](int r) {
        const int token = chunk.first + r, row = stage.row_of[static_cast<size_t>(token)];
        float* side_by_side = around.row(r);
        for (int k = 0; k < kernel; ++k, side_by_side += width) {
            const int neighbour = token + k - before;
            if (neighbour < stage.batch.offsets[row] || neighbour >= stage.batch.offsets[row + 1])
                std::fill_n(side_by_side, width, 0.0f);
            else std::copy_n(stage.embedded.row(neighbour), width, side_by_side);
        }
    });
    const Rows in = chunk.input(around, kernel * width, chunk.own.neighbours_rounded).rows;
    weight->multiply({in, chunk.own.floats, chunk.rows, {}, activation}, chunk.helpers);
    const Matrix h = stage.hidden.from(chunk.first);
    chunk.add(h, chunk.own.floats, width);
    chunk.normalise(norm, h);
}

}  // namespace onepass
