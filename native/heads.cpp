#include "heads.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "vectors.h"

namespace onepass {
namespace {

int pooled_width(const std::vector<Pooling>& pool, int width) {
    if (pool.empty()) refuse("a head needs a pooling");
    if (pool.size() > 1 && std::any_of(pool.begin(), pool.end(), gives_several))
        refuse("a head that pools by tokens or spans cannot pool another way beside it");
    return width * (pool[0] == Pooling::spans ? 2 : static_cast<int>(pool.size()));
}

void finish_row(Finish finish, float* x, int width) {
    switch (finish) {
        case Finish::none: return;
        case Finish::l2: return normalise_l2(x, width);
        case Finish::softmax: return softmax(x, width);
        case Finish::sigmoid:
            for (int i = 0; i < width; ++i) x[i] = 1.0f / (1.0f + std::exp(-x[i]));
    }
}

void check_places(const char* what, const Numbers& places, const Numbers& offsets, int index, int each, int tokens) {
    const int begin = offsets[index], end = offsets[index + 1], count = places.count / each;
    if (begin < 0 || end < begin || end > count)
        refuse("a read's offsets must rise from 0 to its " + std::to_string(count) + " " + what + "s");
    for (int p = begin * each; p < end * each; ++p)
        if (places[p] < 0 || places[p] >= tokens)
            refuse(std::string("a read asks for ") + what + " " + std::to_string(places[p]) + " of a row of " +
                   std::to_string(tokens) + " tokens");
}

std::vector<Step> joined(std::vector<Step> steps, const std::vector<Step>& more) {
    steps.insert(steps.end(), more.begin(), more.end());
    return steps;
}

Values sparse(const Plan& plan, const std::vector<Entries>& entries) {
    Values result;
    result.offsets = {0};
    for (size_t row = 0; row + 1 < plan.offsets.size(); ++row) {
        const Entries& own = entries[row];
        result.ids.insert(result.ids.end(), own.columns.begin(), own.columns.end());
        result.offsets.push_back(static_cast<int32_t>(result.ids.size()));
    }
    result.numbers.reset(new float[result.ids.size()]);
    float* to = result.numbers.get();
    for (const Entries& own : entries) to = std::copy(own.values.begin(), own.values.end(), to);
    return result;
}

}  // namespace

Head::Head(const Kernels& kernels, int width, std::vector<Pooling> pool, std::vector<Step> per_token,
           std::vector<Step> per_row, Options options)
    : kernels_(kernels),
      token_width_(width),
      pool_(std::move(pool)),
      per_token_(kernels, width, std::move(per_token)),
      per_row_(kernels, pooled_width(pool_, per_token_.width()), std::move(per_row)),
      options_(std::move(options)) {
    if (options_.sparse && gives_several(pool_[0])) refuse("a head that is sparse cannot pool by tokens or spans");
    if (options_.sparse && pool_.size() == 1 && reads_all(pool_[0]) && per_row_.empty())
        pooled_scores_ = VocabularyScores::of(kernels, width, per_token_.steps());
    if (pool_[0] == Pooling::tokens)
        token_scores_ = VocabularyScores::of(kernels, width, joined(per_token_.steps(), per_row_.steps()));
}

Head Head::choosing(const Numbers& ids) const {
    return {kernels_,
            token_width_,
            pool_,
            per_token_.choosing(ids.values, ids.count),
            per_row_.choosing(ids.values, ids.count),
            options_};
}

// What is pooled of one of the read's rows: all of it, or span by span.
std::vector<Piece> Head::pieces(const Read& read, int index, const Batch& batch) const {
    const int row = read.rows[index];
    if (row < 0 || row >= batch.rows)
        refuse("a read asks for row " + std::to_string(row) + " of a batch of " + std::to_string(batch.rows));
    const int tokens = batch.length(row), skip = options_.skip_prompt && read.skip.given ? read.skip[index] : 0;
    if (skip < 0 || skip >= tokens)
        refuse("a prompt of " + std::to_string(skip) + " tokens leaves nothing to pool of a row of " +
               std::to_string(tokens));

    const auto piece = [&](int first, int last, int skipped) {
        const int begin = batch.offsets[row] + first, length = last - first + 1;
        const int32_t* ids = batch.ids + begin;
        int last_not_pad = length - 1;
        while (last_not_pad > 0 && ids[last_not_pad] == options_.pad_id) --last_not_pad;
        if (ids[last_not_pad] == options_.pad_id) last_not_pad = length - 1;
        return Piece{index, ids, begin, length, skipped, last_not_pad, 0, 1};
    };
    const bool several = gives_several(pool_[0]);
    if (read.spans.given) check_places("span position", read.spans, read.offsets, index, 2, tokens);
    if (!read.spans.given || pool_[0] == Pooling::tokens || pool_[0] == Pooling::spans)
        return {piece(0, tokens - 1, skip)};

    if (several || options_.sparse)
        refuse("a head that gives several values for each span cannot pool spans one by one");
    std::vector<Piece> pieces;
    for (int span = read.offsets[index]; span < read.offsets[index + 1]; ++span) {
        const int first = read.spans[2 * span], last = read.spans[2 * span + 1];
        if (first > last)
            refuse("a read's span from " + std::to_string(first) + " to " + std::to_string(last) + " has no tokens");
        pieces.push_back(piece(first, last, 0));
    }
    return pieces;
}

// In the order in which the pooling wants them.
std::vector<int> Head::tokens_read(const Read& read, const Piece& piece) const {
    std::vector<int> tokens;
    const auto named = [&](const Numbers& places, int each) {
        tokens.assign(places.values + read.offsets[piece.row] * each,
                      places.values + read.offsets[piece.row + 1] * each);
    };
    if (pool_[0] == Pooling::spans) named(read.spans, 2);
    else if (pool_[0] == Pooling::tokens && read.positions.given) named(read.positions, 1);
    else if (pool_[0] == Pooling::tokens || std::any_of(pool_.begin(), pool_.end(), reads_all))
        for (int t = 0; t < piece.tokens; ++t) tokens.push_back(t);
    else {
        for (Pooling kind : pool_)
            tokens.push_back(kind == Pooling::first  ? piece.skip
                             : kind == Pooling::last ? piece.tokens - 1
                                                     : piece.last_not_pad);
        std::sort(tokens.begin(), tokens.end());
        tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    }
    return tokens;
}

// All tokens that are read, piece after piece.
std::vector<Item> Head::items(const Read& read, const Plan& plan) const {
    std::vector<Item> items;
    for (size_t piece = 0; piece < plan.pieces.size(); ++piece) {
        const std::vector<int> tokens = tokens_read(read, plan.pieces[piece]);
        for (size_t i = 0; i < tokens.size(); ++i)
            items.push_back({static_cast<int>(piece), static_cast<int>(i), tokens[i]});
    }
    return items;
}

std::vector<int32_t> Head::distinct_ids(const Piece& piece) const {
    std::vector<int32_t> found(piece.ids + piece.skip, piece.ids + piece.tokens), ids;
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    std::set_difference(found.begin(), found.end(), options_.without.begin(), options_.without.end(),
                        std::back_inserter(ids));
    return ids;
}

void Head::check_targets(const Read& read, const Plan& plan) const {
    if (!token_scores_) refuse("a read has targets, and its head does not end in every token's scores of a vocabulary");
    const int count = plan.offsets.back(), columns = token_scores_->columns();
    if (read.targets.count != count)
        refuse("a read has " + std::to_string(read.targets.count) + " targets for " + std::to_string(count) +
               " positions");
    for (int t = 0; t < count; ++t)
        if (read.targets[t] < 0 || read.targets[t] >= columns)
            refuse("a read's target " + std::to_string(read.targets[t]) + " is outside the vocabulary of " +
                   std::to_string(columns));
}

Plan Head::plan(const Read& read, const Batch& batch) const {
    Plan plan;
    plan.offsets = {0};
    if (pool_[0] == Pooling::spans && !read.spans.given) refuse("a head that pools spans needs a read that names them");
    for (int index = 0; index < read.rows.count; ++index) {
        int value = plan.offsets.back();
        for (Piece& piece : pieces(read, index, batch)) {
            if (pool_[0] == Pooling::tokens && read.positions.given)
                check_places("position", read.positions, read.offsets, index, 1, piece.tokens);
            if (pool_[0] == Pooling::tokens) piece.values = static_cast<int>(tokens_read(read, piece).size());
            if (pool_[0] == Pooling::spans) piece.values = read.offsets[index + 1] - read.offsets[index];
            if (by_token()) {
                const std::vector<int32_t> ids = distinct_ids(piece);
                plan.ids.insert(plan.ids.end(), ids.begin(), ids.end());
                piece.values = static_cast<int>(ids.size());
            }
            piece.value = value;
            value += piece.values;
            plan.pieces.push_back(piece);
        }
        plan.offsets.push_back(value);
    }
    if (read.targets.given) check_targets(read, plan);
    return plan;
}

Values Head::run(const Read& read, Plan plan, Matrix hidden, Team& team, Workspace& workspace) const {
    if (read.targets.given) return log_probabilities(read, std::move(plan), hidden, team, workspace);
    if (pooled_scores_ && read.finish == Finish::none)
        return sparse(plan, pooled_scores_->pooled(pool_[0], plan.pieces, items(read, plan), hidden, team, workspace));
    Values values = dense(read, plan, hidden, team, workspace);
    if (!options_.sparse) return values;
    std::vector<Entries> entries(plan.pieces.size());
    for (size_t row = 0; row < entries.size(); ++row)
        entries[row].keep(values.numbers.get() + row * static_cast<size_t>(values.width), 0, values.width);
    return sparse(plan, entries);
}

Values Head::log_probabilities(const Read& read, Plan plan, Matrix hidden, Team& team, Workspace& workspace) const {
    Values values;
    values.numbers.reset(new float[static_cast<size_t>(plan.offsets.back())]);
    token_scores_->log_probabilities(plan.pieces, items(read, plan), read.targets.values, hidden, values.numbers.get(),
                                     team, workspace);
    values.offsets = std::move(plan.offsets);
    return values;
}

Values Head::dense(const Read& read, Plan plan, Matrix hidden, Team& team, Workspace& workspace) const {
    Values values;
    const int count = plan.offsets.back(), width = per_row_.width();
    values.width = width;
    values.numbers.reset(new float[static_cast<size_t>(count) * static_cast<size_t>(width)]);
    const Matrix out = {values.numbers.get(), width};
    const int pooled_width = onepass::pooled_width(pool_, per_token_.width());
    const Matrix pooled = per_row_.empty() ? out : workspace.matrix(count, pooled_width);
    pool(read, plan, hidden, pooled, team, workspace);
    if (!per_row_.empty() && count) {
        const int most = std::min(per_row_.block_rows(), count);
        const Steps::Room room = per_row_.room(most, workspace);
        for (int first = 0; first < count; first += most) {
            const int rows = std::min(most, count - first);
            for (int r = 0; r < rows; ++r) std::copy_n(pooled.row(first + r), pooled_width, room.now.row(r));
            const Matrix done = per_row_.run(room, rows, team);
            for (int r = 0; r < rows; ++r) std::copy_n(done.row(r), width, out.row(first + r));
        }
    }
    team.share(count, 1, [&](int begin, int end) {
        for (int v = begin; v < end; ++v) finish_row(read.finish, out.row(v), width);
    });
    values.offsets = std::move(plan.offsets);
    values.ids = std::move(plan.ids);
    return values;
}

Pool Head::pool_of(const Plan& plan, const Piece& piece, Matrix out) const {
    return {pool_, out.from(piece.value), per_token_.width(), piece,
            by_token() ? plan.ids.data() + piece.value : nullptr};
}

// The pooled states of every value; steps per token take the tokens of several pieces together.
void Head::pool(const Read& read, const Plan& plan, Matrix hidden, Matrix pooled, Team& team,
                Workspace& workspace) const {
    const int pieces = static_cast<int>(plan.pieces.size());
    const auto piece = [&](int index) -> const Piece& { return plan.pieces[static_cast<size_t>(index)]; };
    const auto pool = [&](int index) { return pool_of(plan, piece(index), pooled); };
    if (per_token_.empty())
        return team.hand_out(pieces, [&](int index, int) {
            const std::vector<int> tokens = tokens_read(read, piece(index));
            pool(index).begin();
            for (size_t i = 0; i < tokens.size(); ++i)
                pool(index).take({index, static_cast<int>(i), tokens[i]}, hidden.row(piece(index).begin + tokens[i]));
            pool(index).end();
        });

    const std::vector<Item> every = items(read, plan);
    const int count = static_cast<int>(every.size()), most = std::min(per_token_.block_rows(), count);
    for (int index = 0; index < pieces; ++index) pool(index).begin();
    const Steps::Room room = per_token_.room(most, workspace);
    for (int first = 0; first < count; first += most) {
        const int rows = std::min(most, count - first);
        const Item* block = every.data() + first;
        for (int r = 0; r < rows; ++r)
            std::copy_n(hidden.row(piece(block[r].piece).begin + block[r].token), token_width_, room.now.row(r));
        const Matrix states = per_token_.run(room, rows, team);
        std::vector<int> edges = {0};  // where another piece begins
        for (int r = 1; r <= rows; ++r)
            if (r == rows || block[r].piece != block[r - 1].piece) edges.push_back(r);
        team.hand_out(static_cast<int>(edges.size()) - 1, [&](int part, int) {
            for (int r = edges[static_cast<size_t>(part)]; r < edges[static_cast<size_t>(part) + 1]; ++r)
                pool(block[r].piece).take(block[r], states.row(r));
        });
    }
    for (int index = 0; index < pieces; ++index) pool(index).end();
}

}  // namespace onepass
