// How far each function of a table was from what it should give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "plain.h"

namespace onepass::check {

// Errors are relative to |exact| + of_size x size; the largest must stay within the tolerance.
class Record {
  public:
    Record(const char* function, double tolerance, double of_size)
        : function_(function), tolerance_(tolerance), of_size_(of_size) {}

    // What is being compared, for the messages about misses.
    void at(const std::string& place) { place_ = place; }

    void near(Exact exact, double got) {
        const double error = std::fabs(got - exact.value), scale = std::fabs(exact.value) + of_size_ * exact.size;
        ++compared_;
        if (error > 0) largest_ = std::max(largest_, error / scale);
        if (!(error <= tolerance_ * scale)) missed(std::to_string(got) + " is not near " + std::to_string(exact.value));
    }

    void same(const void* got, const void* expected, size_t bytes, const char* when) {
        if (std::memcmp(got, expected, bytes) != 0) missed(std::string("other bits ") + when);
    }

    void holds(bool condition, const char* what) {
        if (!condition) missed(std::string("not so: ") + what);
    }

    bool print() const {
        std::printf("  %-22s largest relative error %8.2g of %7.2g allowed, %9ld numbers%s\n", function_, largest_,
                    tolerance_, compared_, misses_ ? ", MISSED" : "");
        return misses_ == 0 && compared_ > 0;
    }

  private:
    void missed(const std::string& what) {
        constexpr int told = 5;
        if (++misses_ <= told) std::printf("  %s, %s: %s\n", function_, place_.c_str(), what.c_str());
    }

    const char* function_;
    double tolerance_, of_size_, largest_ = 0;
    std::string place_;
    long compared_ = 0, misses_ = 0;
};

}  // namespace onepass::check
