#include "pooling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "vectors.h"

namespace onepass {
namespace {

template <class Change>
void each_kind(const Pool& pool, const Change& change) {
    float* to = pool.out.data;
    for (Pooling kind : pool.kinds) {
        change(kind, to);
        to += pool.width;
    }
}

}  // namespace

bool reads_all(Pooling kind) {
    switch (kind) {
        case Pooling::mean:
        case Pooling::sum:
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

void Pool::begin() const {
    const int columns = width * (kinds[0] == Pooling::spans ? 2 : static_cast<int>(kinds.size()));
    for (int v = 0; v < piece.values; ++v) std::fill_n(out.row(v), columns, 0.0f);
    constexpr float least = -std::numeric_limits<float>::infinity();
    each_kind(*this, [&](Pooling kind, float* to) {
        if (kind == Pooling::max) std::fill_n(to, width, least);
        if (kind == Pooling::max_by_token)
            for (int v = 0; v < piece.values; ++v) std::fill_n(out.row(v), width, least);
    });
}

void Pool::take(const Item& item, const float* x) const {
    const int index = item.place, token = item.token;
    const auto add = [&](float* to, float weight) {
        for (int i = 0; i < width; ++i) to[i] += weight * x[i];
    };
    each_kind(*this, [&](Pooling kind, float* to) {
        const bool kept = token >= piece.skip;
        switch (kind) {
            case Pooling::first:
                if (token == piece.skip) std::copy_n(x, width, to);
                return;
            case Pooling::last:
                if (token == piece.tokens - 1) std::copy_n(x, width, to);
                return;
            case Pooling::last_not_pad:
                if (token == piece.last_not_pad) std::copy_n(x, width, to);
                return;
            case Pooling::mean:
            case Pooling::sum:
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
            case Pooling::max_by_token: {
                const int32_t* end = value_ids + piece.values;
                const int32_t* place = std::lower_bound(value_ids, end, piece.ids[token]);
                if (kept && place != end && *place == piece.ids[token])
                    keep_largest(out.row(place - value_ids), x, width);
            }
        }
    });
}

void Pool::end() const {
    const int kept = piece.tokens - piece.skip;
    each_kind(*this, [&](Pooling kind, float* to) {
        const auto divide = [&](float by) {
            for (int i = 0; i < width; ++i) to[i] /= by;
        };
        if (kind == Pooling::mean) divide(static_cast<float>(kept));
        if (kind == Pooling::mean_sqrt) divide(std::sqrt(static_cast<float>(kept)));
        if (kind == Pooling::weighted_mean) divide(static_cast<float>(0.5 * kept * (piece.skip + 1.0 + piece.tokens)));
    });
}

}  // namespace onepass
