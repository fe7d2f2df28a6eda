#include "heads.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "vectors.h"

namespace onepass {

// One sequence as the pooling sees it.
struct Head::Sequence {
    const int32_t* ids;
    int begin, tokens, skip, last_not_pad;
};

namespace {

bool reads_all(Pooling kind) {
    switch (kind) {
        case Pooling::mean:
        case Pooling::max:
        case Pooling::mean_sqrt:
        case Pooling::weighted_mean:
        case Pooling::max_by_token: return true;
        default: return false;
    }
}

bool gives_several(Pooling kind) {
    return kind == Pooling::tokens || kind == Pooling::spans || kind == Pooling::max_by_token;
}

int pooled_width(const std::vector<Pooling>& pool, int width) {
    if (pool.empty()) refuse("a head needs a pooling");
    if (pool.size() > 1 && std::any_of(pool.begin(), pool.end(), gives_several))
        refuse("a head that pools by tokens or spans cannot pool another way beside it");
    return width * (pool[0] == Pooling::spans ? 2 : static_cast<int>(pool.size()));
}

// Rows that steps take together: enough to read weights for some blocks, few enough that a row as wide as a vocabulary
// does not need a gigabyte.
int block_rows(int widest) {
    constexpr int floats = 4 << 20, fewest = 16, most = 128;
    return std::clamp(floats / widest, fewest, most);
}

void keep_largest(float* most, const float* x, int width) {
    for (int i = 0; i < width; ++i) most[i] = most[i] >= x[i] || most[i] != most[i] ? most[i] : x[i];
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

// The values of one sequence, while its tokens come by one after another.
struct Pool {
    const std::vector<Pooling>& kinds;
    Matrix out;  // a row for each value
    int width;   // of a token's state
    int tokens, skip, last_not_pad;
    const int32_t* value_ids;  // of a pooling by token id: [values], rising
    int values;

    template <class Change>
    void each_kind(const Change& change) const {
        for (size_t k = 0; k < kinds.size(); ++k) change(kinds[k], out.data + static_cast<ptrdiff_t>(k) * width);
    }

    void begin() const {
        const int columns = width * (kinds[0] == Pooling::spans ? 2 : static_cast<int>(kinds.size()));
        for (int v = 0; v < values; ++v) std::fill_n(out.row(v), columns, 0.0f);
        constexpr float least = -std::numeric_limits<float>::infinity();
        each_kind([&](Pooling kind, float* to) {
            if (kind == Pooling::max) std::fill_n(to, width, least);
            if (kind == Pooling::max_by_token)
                for (int v = 0; v < values; ++v) std::fill_n(out.row(v), width, least);
        });
    }

    // The state x of a token, the `index`th that is read.
    void take(int index, int token, int id, const float* x) const {
        const auto add = [&](float* to, float weight) {
            for (int i = 0; i < width; ++i) to[i] += weight * x[i];
        };
        each_kind([&](Pooling kind, float* to) {
            const bool kept = token >= skip;
            switch (kind) {
                case Pooling::first:
                    if (token == skip) std::copy_n(x, width, to);
                    return;
                case Pooling::last:
                    if (token == tokens - 1) std::copy_n(x, width, to);
                    return;
                case Pooling::last_not_pad:
                    if (token == last_not_pad) std::copy_n(x, width, to);
                    return;
                case Pooling::mean:
                case Pooling::mean_sqrt:
                    if (kept) add(to, 1.0f);
                    return;
                case Pooling::weighted_mean:
                    if (kept) add(to, static_cast<float>(token + 1));
                    return;
                case Pooling::max:
                    if (kept) keep_largest(to, x, width);
                    return;
                case Pooling::tokens: std::copy_n(x, width, out.row(index)); return;
                case Pooling::spans: std::copy_n(x, width, out.row(index / 2) + index % 2 * width); return;
                case Pooling::max_by_token:
                    if (kept)
                        keep_largest(out.row(std::lower_bound(value_ids, value_ids + values, id) - value_ids), x,
                                     width);
            }
        });
    }

    void end() const {
        const int kept = tokens - skip;
        each_kind([&](Pooling kind, float* to) {
            const auto divide = [&](float by) {
                for (int i = 0; i < width; ++i) to[i] /= by;
            };
            if (kind == Pooling::mean) divide(static_cast<float>(kept));
            if (kind == Pooling::mean_sqrt) divide(std::sqrt(static_cast<float>(kept)));
            if (kind == Pooling::weighted_mean) divide(static_cast<float>(0.5 * kept * (skip + 1.0 + tokens)));
        });
    }
};

void check_places(const char* what, const Numbers& places, const Numbers& offsets, int index, int each, int tokens) {
    const int begin = offsets[index], end = offsets[index + 1], count = places.count / each;
    if (begin < 0 || end < begin || end > count)
        refuse("a read's offsets must rise from 0 to its " + std::to_string(count) + " " + what + "s");
    for (int p = begin * each; p < end * each; ++p)
        if (places[p] < 0 || places[p] >= tokens)
            refuse(std::string("a read asks for ") + what + " " + std::to_string(places[p]) + " of a row of " +
                   std::to_string(tokens) + " tokens");
}

}  // namespace

Head::Head(const Kernels& kernels, int width, std::vector<Pooling> pool, int pad_id, bool skip_prompt,
           std::vector<Step> per_token, std::vector<Step> per_row, Finish finish)
    : kernels_(kernels),
      token_width_(width),
      pool_(std::move(pool)),
      pad_id_(pad_id),
      skip_prompt_(skip_prompt),
      per_token_(kernels, width, std::move(per_token)),
      per_row_(kernels, pooled_width(pool_, per_token_.width()), std::move(per_row)),
      finish_(finish) {}

Head Head::choosing(const Numbers& ids) const {
    return {kernels_,
            token_width_,
            pool_,
            pad_id_,
            skip_prompt_,
            per_token_.choosing(ids.values, ids.count),
            per_row_.choosing(ids.values, ids.count),
            finish_};
}

Head::Sequence Head::sequence(const Read& read, int index, const Batch& batch) const {
    const int row = read.rows[index], begin = batch.offsets[row], tokens = batch.length(row);
    int last_not_pad = tokens - 1;
    while (last_not_pad > 0 && batch.ids[begin + last_not_pad] == pad_id_) --last_not_pad;
    if (batch.ids[begin + last_not_pad] == pad_id_) last_not_pad = tokens - 1;
    return {batch.ids + begin, begin, tokens, skip_prompt_ && read.skip.given ? read.skip[index] : 0, last_not_pad};
}

// In the order in which the pooling wants them.
std::vector<int> Head::tokens_read(const Read& read, int index, const Sequence& sequence) const {
    std::vector<int> tokens;
    const auto named = [&](const Numbers& places, int each) {
        tokens.assign(places.values + read.offsets[index] * each, places.values + read.offsets[index + 1] * each);
    };
    if (pool_[0] == Pooling::spans) named(read.spans, 2);
    else if (pool_[0] == Pooling::tokens && read.positions.given) named(read.positions, 1);
    else if (pool_[0] == Pooling::tokens || std::any_of(pool_.begin(), pool_.end(), reads_all))
        for (int t = 0; t < sequence.tokens; ++t) tokens.push_back(t);
    else {
        for (Pooling kind : pool_)
            tokens.push_back(kind == Pooling::first  ? sequence.skip
                             : kind == Pooling::last ? sequence.tokens - 1
                                                     : sequence.last_not_pad);
        std::sort(tokens.begin(), tokens.end());
        tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    }
    return tokens;
}

Plan Head::plan(const Read& read, const Batch& batch) const {
    Plan plan;
    plan.offsets.push_back(0);
    if (pool_[0] == Pooling::spans && !read.spans.given) refuse("a head that pools spans needs a read that names them");
    for (int r = 0; r < read.rows.count; ++r) {
        const int row = read.rows[r];
        if (row < 0 || row >= batch.rows)
            refuse("a read asks for row " + std::to_string(row) + " of a batch of " + std::to_string(batch.rows));
        const Sequence s = sequence(read, r, batch);
        if (s.skip < 0 || s.skip >= s.tokens)
            refuse("a prompt of " + std::to_string(s.skip) + " tokens leaves nothing to pool of a row of " +
                   std::to_string(s.tokens));
        int values = 1;
        if (pool_[0] == Pooling::tokens && read.positions.given)
            check_places("position", read.positions, read.offsets, r, 1, s.tokens);
        if (pool_[0] == Pooling::spans) check_places("span position", read.spans, read.offsets, r, 2, s.tokens);
        if (pool_[0] == Pooling::tokens) values = static_cast<int>(tokens_read(read, r, s).size());
        if (pool_[0] == Pooling::spans) values = read.offsets[r + 1] - read.offsets[r];
        if (by_token()) {
            std::vector<int32_t> ids(s.ids + s.skip, s.ids + s.tokens);
            std::sort(ids.begin(), ids.end());
            ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
            plan.ids.insert(plan.ids.end(), ids.begin(), ids.end());
            values = static_cast<int>(ids.size());
        }
        plan.offsets.push_back(plan.offsets.back() + values);
    }
    return plan;
}

// The pooled states of every value; steps per token take the tokens of several rows together.
void Head::pool(const Read& read, const Plan& plan, const Batch& batch, Matrix hidden, Matrix pooled, Team& team,
                Workspace& workspace) const {
    const auto pool_of = [&](int index, const Sequence& s) {
        const int value = plan.offsets[static_cast<size_t>(index)];
        return Pool{pool_,
                    pooled.from(value),
                    per_token_.width(),
                    s.tokens,
                    s.skip,
                    s.last_not_pad,
                    by_token() ? plan.ids.data() + value : nullptr,
                    plan.offsets[static_cast<size_t>(index) + 1] - value};
    };
    if (per_token_.empty())
        return team.hand_out(read.rows.count, [&](int index, int) {
            const Sequence s = sequence(read, index, batch);
            const Pool values = pool_of(index, s);
            const std::vector<int> tokens = tokens_read(read, index, s);
            values.begin();
            for (size_t i = 0; i < tokens.size(); ++i)
                values.take(static_cast<int>(i), tokens[i], s.ids[tokens[i]], hidden.row(s.begin + tokens[i]));
            values.end();
        });

    // all tokens that are read, row after row
    struct Item {
        int index, place, token;  // of the read's rows, of the tokens read there, in the sequence
    };
    std::vector<Item> items;
    std::vector<Sequence> sequences;
    for (int index = 0; index < read.rows.count; ++index) {
        sequences.push_back(sequence(read, index, batch));
        const std::vector<int> tokens = tokens_read(read, index, sequences.back());
        for (size_t i = 0; i < tokens.size(); ++i) items.push_back({index, static_cast<int>(i), tokens[i]});
        pool_of(index, sequences.back()).begin();
    }
    const int most = block_rows(per_token_.widest()), count = static_cast<int>(items.size());
    const Steps::Room room = per_token_.room(std::min(most, std::max(count, 1)), workspace);
    for (int first = 0; first < count; first += most) {
        const int rows = std::min(most, count - first);
        const Item* block = items.data() + first;
        for (int r = 0; r < rows; ++r) {
            const int token = sequences[static_cast<size_t>(block[r].index)].begin + block[r].token;
            std::copy_n(hidden.row(token), token_width_, room.now.row(r));
        }
        const Matrix states = per_token_.run(room, rows, team);
        std::vector<int> edges = {0};  // where another row of the read begins
        for (int r = 1; r <= rows; ++r)
            if (r == rows || block[r].index != block[r - 1].index) edges.push_back(r);
        team.hand_out(static_cast<int>(edges.size()) - 1, [&](int part, int) {
            for (int r = edges[static_cast<size_t>(part)]; r < edges[static_cast<size_t>(part) + 1]; ++r) {
                const Sequence& s = sequences[static_cast<size_t>(block[r].index)];
                pool_of(block[r].index, s).take(block[r].place, block[r].token, s.ids[block[r].token], states.row(r));
            }
        });
    }
    for (int index = 0; index < read.rows.count; ++index) pool_of(index, sequences[static_cast<size_t>(index)]).end();
}

void Head::run(const Read& read, const Plan& plan, const Batch& batch, Matrix hidden, float* values, Team& team,
               Workspace& workspace) const {
    const int count = plan.offsets.back(), pooled_width = onepass::pooled_width(pool_, per_token_.width());
    if (count == 0) return;
    const Matrix out = {values, width()};
    const Matrix pooled = per_row_.empty() ? out : workspace.matrix(count, pooled_width);
    pool(read, plan, batch, hidden, pooled, team, workspace);
    if (!per_row_.empty()) {
        const int most = block_rows(per_row_.widest());
        const Steps::Room room = per_row_.room(std::min(most, count), workspace);
        for (int first = 0; first < count; first += most) {
            const int rows = std::min(most, count - first);
            for (int r = 0; r < rows; ++r) std::copy_n(pooled.row(first + r), pooled_width, room.now.row(r));
            const Matrix done = per_row_.run(room, rows, team);
            for (int r = 0; r < rows; ++r) std::copy_n(done.row(r), width(), out.row(first + r));
        }
    }
    team.share(count, 1, [&](int begin, int end) {
        for (int v = begin; v < end; ++v) finish_row(read.finish, out.row(v), width());
    });
}

}  // namespace onepass
