// A head's steps over rows of vectors. What each word means is said in model/heads.py.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "linear.h"
#include "norm.h"

namespace onepass {

struct LinearStep {
    std::shared_ptr<const Linear> linear;
    Activation activation;
    bool residual;                                  // y += x, after the activation
    std::shared_ptr<const Linear> residual_linear;  // y += x R^T, after the activation; or null
};
struct ActivationStep {
    Activation kind;
};
struct VocabularyStep {
    std::shared_ptr<const Linear> scores;
};
struct L2Step {};
struct TruncateStep {
    int width;
};
using Step = std::variant<LinearStep, ActivationStep, Norm, VocabularyStep, L2Step, TruncateStep>;

// Steps one after another, and the widths between them.
class Steps {
  public:
    // Raises std::invalid_argument if a step does not fit the width before it.
    Steps(const Kernels& kernels, int width, std::vector<Step> steps);

    const std::vector<Step>& steps() const { return steps_; }
    bool empty() const { return steps_.empty(); }
    int first_width() const { return first_width_; }
    int width() const { return width_; }  // after the last
    int widest() const { return widest_; }
    // Rows that are best taken together: enough to read weights for some blocks, few enough that rows as wide as a
    // vocabulary do not need a gigabyte.
    int block_rows() const;

    // The steps with scores of these token ids only. Raises std::invalid_argument for an id that is not there.
    std::vector<Step> choosing(const int32_t* ids, int count) const;

    // Two matrices that the steps use in turn, `widest` wide, and room for inputs in bfloat16.
    struct Room {
        Matrix now, next;
        Rows rounded;
    };
    Room room(int rows, Workspace& workspace) const;

    // Of the first `rows` rows of `now`; returns where they are afterwards.
    Matrix run(Room room, int rows, Team& team) const;

  private:
    void multiply(const Linear& linear, const Room& room, int rows, Activation activation, Team& team) const;

    const Kernels& kernels_;
    std::vector<Step> steps_;
    int first_width_, width_, widest_;
};

}  // namespace onepass
