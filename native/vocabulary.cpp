#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace onepass {
namespace {

constexpr int chunk_rows = 64;  // that meet a block together
constexpr int blocks_each = 4;  // that a member of the team takes of a part

// Whether the largest number stays the largest.
bool keeps_order(Activation kind) {
    switch (kind) {
        case Activation::identity:
        case Activation::relu:
        case Activation::tanh:
        case Activation::sigmoid:
        case Activation::relu_log1p: return true;
        default: return false;
    }
}

// The largest of some numbers, and the sum of e^(x - most).
struct Mass {
    double most = -std::numeric_limits<double>::infinity(), total = 0;

    void add(const Mass& other) {
        const double highest = std::max(most, other.most);
        total = total * std::exp(most - highest) + other.total * std::exp(other.most - highest);
        most = highest;
    }
};

Mass mass_of(const Kernels& kernels, const float* x, int width) {
    float most;
    const float total = kernels.sum_exponentials(x, width, &most);
    return {most, total};
}

}  // namespace

void Entries::keep(const float* x, int column, int width) {
    for (int i = 0; i < width; ++i) {
        if (x[i] <= 0) continue;
        columns.push_back(column + i);
        values.push_back(x[i]);
    }
}

std::unique_ptr<const VocabularyScores> VocabularyScores::of(const Kernels& kernels, int width,
                                                             const std::vector<Step>& steps) {
    const auto is_vocabulary = [](const Step& step) { return std::holds_alternative<VocabularyStep>(step); };
    const auto vocabulary = std::find_if(steps.begin(), steps.end(), is_vocabulary);
    if (vocabulary == steps.end()) return nullptr;
    std::vector<Activation> after;
    for (auto step = vocabulary + 1; step != steps.end(); ++step) {
        const auto* activation = std::get_if<ActivationStep>(&*step);
        if (!activation) return nullptr;
        after.push_back(activation->kind);
    }
    return std::unique_ptr<const VocabularyScores>(
        new VocabularyScores(kernels, Steps(kernels, width, {steps.begin(), vocabulary}),
                             std::get<VocabularyStep>(*vocabulary).scores, std::move(after)));
}

VocabularyScores::VocabularyScores(const Kernels& kernels, Steps before, std::shared_ptr<const Linear> vocabulary,
                                   std::vector<Activation> after)
    : kernels_(kernels), before_(std::move(before)), vocabulary_(std::move(vocabulary)), after_(std::move(after)) {}

int VocabularyScores::block_columns() const {
    constexpr size_t cached_bytes = 384 * 1024;
    const size_t each = vocabulary_->bytes() / static_cast<size_t>(std::max(columns(), 1));
    const int panels = static_cast<int>(cached_bytes / std::max(each, size_t{1})) / kernels_.panel_columns;
    return std::clamp(panels, 1, 32) * kernels_.panel_columns;
}

void VocabularyScores::activate(float* x, int width) const {
    for (Activation kind : after_) kernels_.activate(kind, x, width);
}

Rows VocabularyScores::inputs(const std::vector<Piece>& pieces, const std::vector<Item>& items, Matrix hidden,
                              Team& team, Workspace& workspace) const {
    const int count = static_cast<int>(items.size()), width = vocabulary_->inputs();
    const Rows in(workspace, count, width, vocabulary_->format());
    const auto state = [&](int item) {
        const Item& read = items[static_cast<size_t>(item)];
        return hidden.row(pieces[static_cast<size_t>(read.piece)].begin + read.token);
    };
    const auto keep = [&](int item, const float* x) {
        if (in.format == Format::float32) std::copy_n(x, width, in.at(item).floats());
        else kernels_.round_bf16(x, in.at(item).bf16(), width);
    };
    if (before_.empty()) {
        team.share(count, row_grain, [&](int begin, int end) {
            for (int item = begin; item < end; ++item) keep(item, state(item));
        });
        return in;
    }
    const int most = std::min(before_.block_rows(), count);
    const Steps::Room room = before_.room(most, workspace);
    for (int first = 0; first < count; first += most) {
        const int rows = std::min(most, count - first);
        for (int r = 0; r < rows; ++r) std::copy_n(state(first + r), before_.first_width(), room.now.row(r));
        const Matrix states = before_.run(room, rows, team);
        for (int r = 0; r < rows; ++r) keep(first + r, states.row(r));
    }
    return in;
}

template <class Work, class Then>
void VocabularyScores::each_block(int places, Team& team, Workspace& workspace, const Work& work,
                                  const Then& then) const {
    const int width = block_columns(), blocks = (columns() + width - 1) / width;
    std::vector<Matrix> rooms;
    for (int member = 0; member < team.size(); ++member) rooms.push_back(workspace.matrix(chunk_rows, width));
    for (int first = 0; first < blocks; first += places) {
        const int count = std::min(places, blocks - first);
        const auto edge = [&](int block) { return std::min((first + block) * width, columns()); };
        team.hand_out(count, [&](int place, int member) {
            work(Block{place, edge(place), edge(place + 1) - edge(place), rooms[static_cast<size_t>(member)]});
        });
        then(edge(0), edge(count));
    }
}

template <class Take>
void VocabularyScores::each_row(const Block& block, Rows in, int rows, bool activated, const Take& take) const {
    for (int first = 0; first < rows; first += chunk_rows) {
        const int count = std::min(chunk_rows, rows - first);
        vocabulary_->multiply_some({in.at(first), block.room, count}, block.begin, block.begin + block.width);
        for (int r = 0; r < count; ++r) {
            if (activated) activate(block.room.row(r), block.width);
            take(first + r, block.room.row(r));
        }
    }
}

std::vector<Entries> VocabularyScores::pooled(Pooling kind, const std::vector<Piece>& pieces,
                                              const std::vector<Item>& items, Matrix hidden, Team& team,
                                              Workspace& workspace) const {
    const bool later = kind == Pooling::max && std::all_of(after_.begin(), after_.end(), keeps_order);
    const int places = blocks_each * team.size(), width = block_columns();
    const std::vector<Pooling> kinds = {kind};
    const Rows in = inputs(pieces, items, hidden, team, workspace);
    const Matrix part = workspace.matrix(static_cast<int>(pieces.size()), places * width);
    std::vector<Entries> entries(pieces.size());

    const auto pool_block = [&](const Block& block) {
        const auto of = [&](int piece) {
            const Matrix row = {part.row(piece) + block.place * width, part.stride};
            return Pool{kinds, row, block.width, pieces[static_cast<size_t>(piece)], nullptr};
        };
        const int count = static_cast<int>(pieces.size());
        for (int piece = 0; piece < count; ++piece) of(piece).begin();
        each_row(block, in, static_cast<int>(items.size()), !later, [&](int row, const float* scores) {
            const Item& item = items[static_cast<size_t>(row)];
            of(item.piece).take(item, scores);
        });
        for (int piece = 0; piece < count; ++piece) {
            of(piece).end();
            if (later) activate(of(piece).out.data, block.width);
        }
    };
    const auto keep = [&](int begin, int end) {
        for (size_t piece = 0; piece < pieces.size(); ++piece)
            entries[piece].keep(part.row(static_cast<ptrdiff_t>(piece)), begin, end - begin);
    };
    each_block(places, team, workspace, pool_block, keep);
    return entries;
}

void VocabularyScores::log_probabilities(const std::vector<Piece>& pieces, const std::vector<Item>& items,
                                         const int32_t* targets, Matrix hidden, float* out, Team& team,
                                         Workspace& workspace) const {
    const int count = static_cast<int>(items.size()), places = blocks_each * team.size();
    const Rows in = inputs(pieces, items, hidden, team, workspace);
    std::vector<Mass> all(items.size()), parts(items.size() * static_cast<size_t>(places));

    const auto weigh_block = [&](const Block& block) {
        Mass* part = parts.data() + static_cast<ptrdiff_t>(block.place) * count;
        each_row(block, in, count, true, [&](int row, const float* scores) {
            part[row] = mass_of(kernels_, scores, block.width);
            const int target = targets[row] - block.begin;
            if (target >= 0 && target < block.width) out[row] = scores[target];
        });
    };
    const auto add_up = [&](int begin, int end) {
        const int blocks = (end - begin + block_columns() - 1) / block_columns();
        team.share(count, row_grain, [&](int first, int last) {
            for (int block = 0; block < blocks; ++block)
                for (int row = first; row < last; ++row)
                    all[static_cast<size_t>(row)].add(parts[static_cast<size_t>(block * count + row)]);
        });
    };
    each_block(places, team, workspace, weigh_block, add_up);
    for (int row = 0; row < count; ++row) {
        const Mass& mass = all[static_cast<size_t>(row)];
        out[row] = static_cast<float>(out[row] - mass.most - std::log(mass.total));
    }
}

}  // namespace onepass
