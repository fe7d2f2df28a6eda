#include "heads.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "encoder.h"

namespace onepass {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw std::invalid_argument(sentence); }

int width_after(const Step& step, int width) {
    const auto expect = [&](int inputs, const char* what) {
        if (inputs != width)
            refuse(std::string("a head's ") + what + " takes " + std::to_string(inputs) + " numbers and gets " +
                   std::to_string(width));
    };
    if (const auto* linear = std::get_if<LinearStep>(&step)) {
        expect(linear->linear->inputs(), "linear step");
        const int outputs = linear->linear->outputs();
        if (linear->residual_linear) expect(linear->residual_linear->inputs(), "residual");
        if (linear->residual_linear && linear->residual_linear->outputs() != outputs)
            refuse("a head's residual gives " + std::to_string(linear->residual_linear->outputs()) +
                   " numbers and its linear step " + std::to_string(outputs));
        if (linear->residual) expect(outputs, "residual");
        return outputs;
    }
    if (const auto* norm = std::get_if<Norm>(&step)) expect(static_cast<int>(norm->weight.size()), "norm");
    if (const auto* truncate = std::get_if<TruncateStep>(&step)) return std::min(width, truncate->width);
    return width;
}

size_t bytes_of(const Step& step) {
    if (const auto* norm = std::get_if<Norm>(&step)) return norm->bytes();
    if (const auto* linear = std::get_if<LinearStep>(&step))
        return linear->linear->bytes() + (linear->residual_linear ? linear->residual_linear->bytes() : 0);
    return 0;
}

void normalise_l2(float* x, int width) {
    double squares = 0;
    for (int i = 0; i < width; ++i) squares += static_cast<double>(x[i]) * x[i];
    const auto length = static_cast<float>(std::max(std::sqrt(squares), 1e-12));
    for (int i = 0; i < width; ++i) x[i] /= length;
}

void softmax(float* x, int width) {
    const float most = *std::max_element(x, x + width);
    float total = 0;
    for (int i = 0; i < width; ++i) total += x[i] = std::exp(x[i] - most);
    for (int i = 0; i < width; ++i) x[i] /= total;
}

// Two buffers that the steps use in turn.
struct States {
    Matrix now, next;
    int width;
};

void apply(const Kernels& kernels, const std::vector<Step>& steps, States& states, int rows, Team& team) {
    for (const Step& step : steps) {
        const auto each_row = [&](const auto& change) {
            for (int r = 0; r < rows; ++r) change(states.now.row(r));
        };
        const int width = states.width;
        if (const auto* linear = std::get_if<LinearStep>(&step)) {
            linear->linear->multiply({states.now, states.next, rows, {}, linear->activation}, team);
            if (linear->residual_linear)
                linear->residual_linear->multiply({states.now, states.next, rows, states.next}, team);
            if (linear->residual)
                for (int r = 0; r < rows; ++r)
                    for (int i = 0; i < width; ++i) states.next.row(r)[i] += states.now.row(r)[i];
            std::swap(states.now, states.next);
        } else if (const auto* activation = std::get_if<ActivationStep>(&step)) {
            each_row([&](float* x) { kernels.activate(activation->kind, x, width); });
        } else if (const auto* norm = std::get_if<Norm>(&step)) {
            each_row([&](float* x) { norm->apply(kernels, x, width); });
        } else if (std::holds_alternative<L2Step>(step)) {
            each_row([&](float* x) { normalise_l2(x, width); });
        }
        states.width = width_after(step, width);
    }
}

// One sequence as the pooling sees it.
struct Sequence {
    Matrix states;
    const int32_t* ids;
    int tokens, skip, width;
};

void pool_sum(const Sequence& s, bool weighted, float* out) {
    std::fill_n(out, s.width, 0.0f);
    for (int t = s.skip; t < s.tokens; ++t) {
        const float weight = weighted ? static_cast<float>(t + 1) : 1.0f;
        const float* x = s.states.row(t);
        for (int i = 0; i < s.width; ++i) out[i] += weight * x[i];
    }
}

void divide(float* x, int width, float by) {
    for (int i = 0; i < width; ++i) x[i] /= by;
}

int last_not_pad(const Sequence& s, int pad_id) {
    for (int t = s.tokens - 1; t >= 0; --t)
        if (s.ids[t] != pad_id) return t;
    return s.tokens - 1;
}

// Every kind but `tokens`, which has more than one row to give.
void pool_one(Pooling kind, const Sequence& s, int pad_id, float* out) {
    const auto pick = [&](int token) { std::copy_n(s.states.row(token), s.width, out); };
    const int kept = s.tokens - s.skip;
    switch (kind) {
        case Pooling::first: return pick(s.skip);
        case Pooling::last: return pick(s.tokens - 1);
        case Pooling::last_not_pad: return pick(last_not_pad(s, pad_id));
        case Pooling::mean: pool_sum(s, false, out); return divide(out, s.width, static_cast<float>(kept));
        case Pooling::mean_sqrt:
            pool_sum(s, false, out);
            return divide(out, s.width, std::sqrt(static_cast<float>(kept)));
        case Pooling::weighted_mean: {
            pool_sum(s, true, out);
            const double weights = 0.5 * kept * (s.skip + 1.0 + s.tokens);
            return divide(out, s.width, static_cast<float>(weights));
        }
        case Pooling::max:
            pick(s.skip);
            for (int t = s.skip + 1; t < s.tokens; ++t)
                for (int i = 0; i < s.width; ++i) out[i] = std::max(out[i], s.states.row(t)[i]);
            return;
        case Pooling::tokens: return;
    }
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

}  // namespace

Head::Head(const Kernels& kernels, int width, std::vector<Pooling> pool, int pad_id, bool skip_prompt,
           std::vector<Step> per_token, std::vector<Step> per_row, Finish finish)
    : kernels_(kernels),
      token_width_(width),
      widest_(width),
      pool_(std::move(pool)),
      pad_id_(pad_id),
      skip_prompt_(skip_prompt),
      per_token_(std::move(per_token)),
      per_row_(std::move(per_row)),
      finish_(finish) {
    if (pool_.empty()) refuse("a head needs a pooling");
    if (pool_.size() > 1 && std::count(pool_.begin(), pool_.end(), Pooling::tokens))
        refuse("a head that pools by tokens cannot pool another way beside it");
    int now = width;
    const auto follow = [&](const std::vector<Step>& steps) {
        for (const Step& step : steps) widest_ = std::max(widest_, now = width_after(step, now));
    };
    follow(per_token_);
    now *= static_cast<int>(pool_.size());
    widest_ = std::max(widest_, now);
    pooled_width_ = now;
    follow(per_row_);
    width_ = now;
}

size_t Head::weight_bytes() const {
    size_t total = 0;
    for (const Step& step : per_token_) total += bytes_of(step);
    for (const Step& step : per_row_) total += bytes_of(step);
    return total;
}

std::vector<int32_t> Head::plan(const HeadRead& read, const Batch& batch) const {
    std::vector<int32_t> offsets(1, 0);
    for (int r = 0; r < read.count; ++r) {
        const int row = read.rows[r];
        if (row < 0 || row >= batch.rows)
            refuse("a read asks for row " + std::to_string(row) + " of a batch of " + std::to_string(batch.rows));
        const int tokens = batch.offsets[row + 1] - batch.offsets[row];
        const int skip = skip_prompt_ && read.skip ? read.skip[r] : 0;
        if (skip < 0 || skip >= tokens)
            refuse("a prompt of " + std::to_string(skip) + " tokens leaves nothing to pool of a row of " +
                   std::to_string(tokens));
        int values = 1;
        if (pool_[0] == Pooling::tokens) {
            values = tokens;
            if (read.positions) {
                const int begin = read.offsets[r], end = read.offsets[r + 1];
                if (begin < 0 || end < begin || end > read.positions_count)
                    refuse("a read's offsets must rise from 0 to its " + std::to_string(read.positions_count) +
                           " positions");
                for (int p = begin; p < end; ++p)
                    if (read.positions[p] < 0 || read.positions[p] >= tokens)
                        refuse("a read asks for position " + std::to_string(read.positions[p]) + " of a row of " +
                               std::to_string(tokens) + " tokens");
                values = end - begin;
            }
        }
        offsets.push_back(offsets.back() + values);
    }
    return offsets;
}

void Head::run(const HeadRead& read, const Batch& batch, Matrix hidden, Team& team, Workspace& workspace) const {
    const auto rows_of = [&](int rows) { return workspace.matrix(rows, widest_); };
    const int values = read.value_offsets[read.count];
    if (values == 0) return;
    States pooled = {rows_of(values), rows_of(values), pooled_width_};

    int longest = 0;
    for (int r = 0; r < read.count; ++r)
        longest = std::max(longest, batch.offsets[read.rows[r] + 1] - batch.offsets[read.rows[r]]);
    std::vector<std::pair<Matrix, Matrix>> scratch;
    if (!per_token_.empty())
        for (int member = 0; member < team.size(); ++member) scratch.emplace_back(rows_of(longest), rows_of(longest));

    team.hand_out(read.count, [&](int r, int member) {
        const int row = read.rows[r], begin = batch.offsets[row], tokens = batch.offsets[row + 1] - begin;
        States states = {hidden.from(begin), {}, token_width_};
        if (!per_token_.empty()) {
            const auto& [now, next] = scratch[static_cast<size_t>(member)];
            for (int t = 0; t < tokens; ++t) std::copy_n(states.now.row(t), token_width_, now.row(t));
            states = {now, next, token_width_};
            Team alone;
            apply(kernels_, per_token_, states, tokens, alone);
        }
        const int skip = skip_prompt_ && read.skip ? read.skip[r] : 0;
        const Sequence sequence = {states.now, batch.ids + begin, tokens, skip, states.width};
        const Matrix out = pooled.now.from(read.value_offsets[r]);
        if (pool_[0] == Pooling::tokens) {
            const int count = read.value_offsets[r + 1] - read.value_offsets[r];
            for (int v = 0; v < count; ++v) {
                const int token = read.positions ? read.positions[read.offsets[r] + v] : v;
                std::copy_n(states.now.row(token), states.width, out.row(v));
            }
        } else {
            for (size_t k = 0; k < pool_.size(); ++k)
                pool_one(pool_[k], sequence, pad_id_, out.data + static_cast<ptrdiff_t>(k) * states.width);
        }
    });
    apply(kernels_, per_row_, pooled, values, team);
    for (int v = 0; v < values; ++v) {
        float* out = read.values + static_cast<ptrdiff_t>(v) * width_;
        std::copy_n(pooled.now.row(v), width_, out);
        finish_row(read.finish, out, width_);
    }
}

}  // namespace onepass
