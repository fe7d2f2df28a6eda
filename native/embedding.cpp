#include "embedding.h"

#include <algorithm>

namespace onepass {
namespace {

void add(float* x, const float* more, int width) {
    for (int i = 0; i < width; ++i) x[i] += more[i];
}

}  // namespace

std::vector<int> Positions::rows_of(const Batch& batch) const {
    std::vector<int> rows;
    rows.reserve(static_cast<size_t>(batch.tokens));
    for (int row = 0; row < batch.rows; ++row) {
        int real = 0;
        for (int t = batch.offsets[row]; t < batch.offsets[row + 1]; ++t)
            if (rule == Rule::arange) rows.push_back(start + t - batch.offsets[row]);
            else rows.push_back(batch.ids[t] == start ? start : start + ++real);
    }
    return rows;
}

void Embedding::check(const Batch& batch) const {
    for (int t = 0; t < batch.tokens; ++t) {
        if (batch.ids[t] < 0 || batch.ids[t] >= word.rows)
            refuse("token id " + std::to_string(batch.ids[t]) + " is outside the vocabulary of " +
                   std::to_string(word.rows));
        if (types.rows && (batch.types[t] < 0 || batch.types[t] >= types.rows))
            refuse("token type " + std::to_string(batch.types[t]) + " is outside the " + std::to_string(types.rows) +
                   " types of this model");
    }
    if (!positions) return;
    for (int position : positions->rows_of(batch))
        if (position >= positions->table.rows)
            refuse("a row needs position " + std::to_string(position) + ", the table has " +
                   std::to_string(positions->table.rows) + " rows");
}

// Every token's vector of the word table, with its neighbours' where they count.
Matrix Embedding::words(const Batch& batch, Team& team, Workspace& workspace) const {
    const int width = word.width;
    const Matrix x = workspace.matrix(batch.tokens, ngram * width);
    const auto copy = [&](int token, float* out) {
        const float* vector = word.row(batch.ids[token]);
        for (int i = 0; i < width; ++i) out[i] = vector[i] * scale;
    };
    if (ngram == 1) {
        team.share(batch.tokens, row_grain, [&](int begin, int end) {
            for (int t = begin; t < end; ++t) copy(t, x.row(t));
        });
        return x;
    }
    for (int row = 0; row < batch.rows; ++row)
        for (int t = batch.offsets[row]; t < batch.offsets[row + 1]; ++t)
            for (int place = 0; place < ngram; ++place) {
                const int token = t + ngram / 2 - place;  // the next one first
                float* out = x.row(t) + place * width;
                if (token >= batch.offsets[row] && token < batch.offsets[row + 1]) copy(token, out);
                else std::fill_n(out, width, 0.0f);
            }
    return x;
}

Matrix Embedding::widened(const Kernels& kernels, Matrix x, int tokens, Team& team, Workspace& workspace) const {
    const Matrix wide = workspace.matrix(tokens, project->outputs());
    Rows in = x;
    if (project->format() == Format::bfloat16) {
        in = Rows(workspace, tokens, project->inputs(), Format::bfloat16);
        team.share(tokens, row_grain, [&](int begin, int end) {
            for (int t = begin; t < end; ++t) kernels.round_bf16(x.row(t), in.at(t).bf16(), project->inputs());
        });
    }
    project->multiply({in, wide, tokens}, team);
    return wide;
}

Matrix Embedding::run(const Kernels& kernels, const Batch& batch, Team& team, Workspace& workspace) const {
    const auto widen = [&](Matrix x) { return widened(kernels, x, batch.tokens, team, workspace); };
    Matrix x = words(batch, team, workspace);
    int width = ngram * word.width;
    if (project && place == Widen::word) x = widen(x), width = project->outputs();

    const std::vector<int> rows = positions ? positions->rows_of(batch) : std::vector<int>();
    const bool norm_here = norm && !(project && place == Widen::sum);
    team.share(batch.tokens, row_grain, [&](int begin, int end) {
        for (int t = begin; t < end; ++t) {
            if (positions) add(x.row(t), positions->table.row(rows[static_cast<size_t>(t)]), width);
            if (types.rows) add(x.row(t), types.row(batch.types[t]), width);
            if (task.rows) add(x.row(t), task.row(0), width);
            if (norm_here) norm->apply(kernels, x.row(t));
        }
    });
    if (!project || place == Widen::word) return x;

    x = widen(x);
    if (norm && !norm_here)
        team.share(batch.tokens, row_grain, [&](int begin, int end) {
            for (int t = begin; t < end; ++t) norm->apply(kernels, x.row(t));
        });
    return x;
}

}  // namespace onepass
