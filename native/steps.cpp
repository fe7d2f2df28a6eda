#include "steps.h"

#include <algorithm>
#include <string>
#include <utility>

#include "batch.h"
#include "vectors.h"

namespace onepass {
namespace {

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
    if (const auto* vocabulary = std::get_if<VocabularyStep>(&step)) {
        expect(vocabulary->scores->inputs(), "vocabulary");
        return vocabulary->scores->outputs();
    }
    if (const auto* norm = std::get_if<Norm>(&step)) expect(norm->width(), "norm");
    if (const auto* truncate = std::get_if<TruncateStep>(&step)) return std::min(width, truncate->width);
    return width;
}

}  // namespace

Steps::Steps(const Kernels& kernels, int width, std::vector<Step> steps)
    : kernels_(kernels), steps_(std::move(steps)), first_width_(width), width_(width), widest_(width) {
    for (const Step& step : steps_) widest_ = std::max(widest_, width_ = width_after(step, width_));
}

int Steps::block_rows() const {
    constexpr int floats = 4 << 20, fewest = 16, most = 128;
    return std::clamp(floats / widest_, fewest, most);
}

std::vector<Step> Steps::choosing(const int32_t* ids, int count) const {
    std::vector<Step> steps = steps_;
    for (Step& step : steps)
        if (auto* vocabulary = std::get_if<VocabularyStep>(&step)) {
            for (int i = 0; i < count; ++i)
                if (ids[i] < 0 || ids[i] >= vocabulary->scores->outputs())
                    refuse("a read asks for token id " + std::to_string(ids[i]) + " of a vocabulary of " +
                           std::to_string(vocabulary->scores->outputs()));
            vocabulary->scores = std::make_shared<const Linear>(vocabulary->scores->selected({ids, ids + count}));
        }
    return steps;
}

Steps::Room Steps::room(int rows, Workspace& workspace) const {
    if (steps_.empty()) return {};
    int inputs = 0;  // of the widest layer in bfloat16
    for (const Step& step : steps_)
        if (const auto* vocabulary = std::get_if<VocabularyStep>(&step))
            if (vocabulary->scores->format() == Format::bfloat16)
                inputs = std::max(inputs, vocabulary->scores->inputs());
    return {workspace.matrix(rows, widest_), workspace.matrix(rows, widest_),
            inputs ? Rows(workspace, rows, inputs, Format::bfloat16) : Rows()};
}

void Steps::multiply(const Linear& linear, const Room& room, int rows, Activation activation, Team& team) const {
    Rows in = room.now;
    if (linear.format() == Format::bfloat16) {
        in = room.rounded;
        for (int r = 0; r < rows; ++r) kernels_.round_bf16(room.now.row(r), in.at(r).bf16(), linear.inputs());
    }
    linear.multiply({in, room.next, rows, {}, activation}, team);
}

Matrix Steps::run(Room room, int rows, Team& team) const {
    int width = first_width_;
    for (const Step& step : steps_) {
        const auto each_row = [&](const auto& change) {
            team.share(rows, 1, [&](int begin, int end) {
                for (int r = begin; r < end; ++r) change(room.now.row(r));
            });
        };
        if (const auto* linear = std::get_if<LinearStep>(&step)) {
            multiply(*linear->linear, room, rows, linear->activation, team);
            if (linear->residual_linear)
                linear->residual_linear->multiply({room.now, room.next, rows, room.next}, team);
            if (linear->residual)
                for (int r = 0; r < rows; ++r)
                    for (int i = 0; i < width; ++i) room.next.row(r)[i] += room.now.row(r)[i];
            std::swap(room.now, room.next);
        } else if (const auto* vocabulary = std::get_if<VocabularyStep>(&step)) {
            multiply(*vocabulary->scores, room, rows, Activation::identity, team);
            std::swap(room.now, room.next);
        } else if (const auto* activation = std::get_if<ActivationStep>(&step)) {
            each_row([&](float* x) { kernels_.activate(activation->kind, x, width); });
        } else if (const auto* norm = std::get_if<Norm>(&step)) {
            each_row([&](float* x) { norm->apply(kernels_, x); });
        } else if (std::holds_alternative<L2Step>(step)) {
            each_row([&](float* x) { normalise_l2(x, width); });
        }
        width = width_after(step, width);
    }
    return room.now;
}

}  // namespace onepass
