// Rows of floats, and memory aligned to cache lines: buffers for weights, workspaces that calls take and give back.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace onepass {

// Rows of floats, `stride` apart.
struct Matrix {
    float* data = nullptr;
    ptrdiff_t stride = 0;

    float* row(ptrdiff_t index) const { return data + index * stride; }
    Matrix from(ptrdiff_t index) const { return {row(index), stride}; }
};

// Rows an odd number of cache lines apart do not fall into the same few sets of the first cache.
inline ptrdiff_t stride_for(int width) {
    const ptrdiff_t lines = (width + 15) / 16;
    return 16 * (lines % 2 ? lines : lines + 1);
}

class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes) : bytes_((bytes + 63) / 64 * 64), memory_(std::aligned_alloc(64, bytes_)) {
        if (!memory_) throw std::bad_alloc();
    }
    size_t bytes() const { return bytes_; }
    template <class T>
    T* as() const {
        return static_cast<T*>(memory_.get());
    }

  private:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    size_t bytes_ = 0;
    std::unique_ptr<void, Free> memory_;
};

// Hands out floats one piece after another; all go back at once. It keeps one buffer as large as the last use needed.
class Workspace {
  public:
    float* floats(size_t count) {
        const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
        wanted_ += bytes;
        if (buffers_.empty() || used_ + bytes > buffers_.back().bytes()) {
            buffers_.emplace_back(bytes);
            used_ = 0;
        }
        float* piece = buffers_.back().as<float>() + used_ / sizeof(float);
        used_ += bytes;
        return piece;
    }

    Matrix matrix(int rows, int width) {
        const ptrdiff_t stride = stride_for(width);
        return {floats(static_cast<size_t>(rows) * static_cast<size_t>(stride)), stride};
    }

    void clear() {
        if (buffers_.size() > 1) {
            buffers_.clear();
            buffers_.emplace_back(wanted_);
        }
        used_ = wanted_ = 0;
    }

    size_t bytes() const { return buffers_.empty() ? 0 : buffers_.back().bytes(); }

  private:
    std::vector<Buffer> buffers_;
    size_t used_ = 0, wanted_ = 0;
};

// A few workspaces for calls to reuse. Without locks, so that a fork in the middle of a call leaves nothing locked.
class Workspaces {
  public:
    ~Workspaces() {
        for (auto& place : places_) delete place.load();
    }

    std::unique_ptr<Workspace> take() {
        for (auto& place : places_)
            if (Workspace* workspace = place.exchange(nullptr)) return std::unique_ptr<Workspace>(workspace);
        return std::make_unique<Workspace>();
    }

    // One that a huge batch made large is not kept.
    void give_back(std::unique_ptr<Workspace> workspace) {
        workspace->clear();
        if (workspace->bytes() > largest_kept) return;
        for (auto& place : places_) {
            Workspace* empty = nullptr;
            if (place.compare_exchange_strong(empty, workspace.get())) {
                workspace.release();
                return;
            }
        }
    }

  private:
    static constexpr size_t largest_kept = size_t{64} << 20;
    std::array<std::atomic<Workspace*>, 16> places_{};
};

}  // namespace onepass
