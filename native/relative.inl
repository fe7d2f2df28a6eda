// DeBERTa's scores by distance. A table's column c is for the distance c - reach, so what one token has for successive
// others lies in successive columns. Queries are multiplied with their table block by block, and each row is added from
// where it has to start. What a key gives is for a row of queries, and is transposed; so that little is wasted of the
// panels at both ends, that is done for a group of many queries at a time.
constexpr int group_rows = 128;
constexpr int highest_block = block_rows > tile_rows ? block_rows : tile_rows;

// From row to row: of products with successive columns of a table and some more at both ends; of what keys give, an odd
// number of cache lines, because whole columns are written at a time.
constexpr ptrdiff_t relative_stride(int columns) { return whole_panels(columns) + panel_columns; }
constexpr ptrdiff_t strip_stride = relative_stride(group_rows + 2 * width);
constexpr ptrdiff_t by_key_stride(int keys) { return (whole_panels(keys) + 31) / 32 * 32 + 16; }

// Floats of scratch for any sequence of up to `tokens` tokens.
size_t relative_scratch(int tokens) {
    return static_cast<size_t>(group_rows * by_key_stride(tokens) + width * strip_stride +
                               highest_block * relative_stride(tokens + highest_block));
}

template <class Element, class Multiply>
class Relative {
  public:
    // multiply(a, rows, panel, columns, out, out_stride): rows of queries or keys times a panel, or half of one, of a
    // table that is `depth` deep.
    Relative(const Attention& task, int depth, float* scratch, const Multiply& multiply)
        : task_(task),
          tables_(task.disentangled ? *task.disentangled : Disentangled{}),
          depth_(depth),
          multiply_(multiply),
          by_key_(scratch),
          strip_(scratch + group_rows * by_key_stride(task.visible)),
          by_query_(strip_ + width * strip_stride) {}

    // work(first, rows) for all queries, in blocks of nearly equal height.
    template <class Work>
    void each_block(int most_rows, const Work& work) {
        const int most_queries = tables_.position_to_content ? group_rows : task_.tokens;
        each_height(task_.tokens, most_queries, [&](int start, int groups, int queries) {
            for (int group = start; group < start + groups * queries; group += queries) {
                if (tables_.position_to_content) multiply_keys(group, queries);
                each_height(queries, most_rows, [&](int first, int blocks, int rows) {
                    for (int block = group + first; block < group + first + blocks * rows; block += rows) {
                        if (tables_.content_to_position) multiply_queries(block, rows);
                        work(block, rows);
                    }
                });
            }
        });
    }

    // Of the present block, what a token's products with `key` and those behind it get added; or null.
    const float* of_query(int token, int key) const {
        if (!tables_.content_to_position) return nullptr;
        const int row = token - block_.first;
        return queries_ + row * queries_stride_ + (block_.count() - 1 - row) + (key - first_key_);
    }
    const float* of_key(int token, int key) const {
        if (!tables_.position_to_content) return nullptr;
        return by_key_ + (token - group_) * by_key_stride(keys_.count()) + (key - keys_.first);
    }

  private:
    static constexpr int pair = sizeof(float) / sizeof(Element);  // how many k lie side by side in a panel

    // Rows of `a` times the columns from `lowest` on, those beyond an end of the table being the outermost ones.
    // Returns where the first of them lies in the first row of `out`.
    const float* multiply(const Element* a, int rows, const void* table, int lowest, int columns, float* out,
                          ptrdiff_t out_stride) const {
        const int outermost = 2 * tables_.reach;
        if (lowest > outermost) lowest = outermost;       // all columns are the last one
        if (lowest + columns <= 0) lowest = 1 - columns;  // all are the first one
        const int begin = lowest & -width, end = lowest + columns, last = least(end, outermost + 1);
        for (int column = most(begin, 0), next; column < last; column += next) {
            const int inside = column % panel_columns;
            next = inside ? width : next_columns(last - column);
            const ptrdiff_t place = static_cast<ptrdiff_t>(column - inside) * depth_ + inside * pair;
            multiply_(a, rows, static_cast<const Element*>(table) + place, next, out + column - begin, out_stride);
        }
        for (int r = 0; r < rows; ++r) {
            float* row = out + r * out_stride;
            for (int column = begin; column < 0; ++column) row[column - begin] = row[-begin];
            for (int column = outermost + 1; column < end; ++column) row[column - begin] = row[outermost - begin];
        }
        return out + lowest - begin;
    }

    // Every query of a block with the keys that the block sees.
    void multiply_queries(int first, int rows) {
        const Span keys = seen_by(task_, first, rows);
        const int columns = keys.count() + rows - 1;
        block_ = {first, first + rows}, first_key_ = keys.first, queries_stride_ = relative_stride(columns);
        queries_ =
            multiply(static_cast<const Element*>(task_.query) + first * task_.stride, rows, tables_.content_to_position,
                     keys.first - (first + rows - 1) + tables_.reach, columns, by_query_, queries_stride_);
    }

    // by_key_[queries][keys]: every key that the group sees with the group's queries, transposed.
    void multiply_keys(int first, int queries) {
        const Span seen = seen_by(task_, first, queries);
        const int begin = seen.first / panel_columns * panel_columns;
        group_ = first, keys_ = {begin, begin + whole_panels(seen.last - begin)};
        const ptrdiff_t stride = by_key_stride(keys_.count());
        for (int key = begin; key < seen.last; key += width) {
            const int rows = least(width, seen.last - key);
            const float* products =
                multiply(static_cast<const Element*>(task_.key) + key * task_.stride, rows, tables_.position_to_content,
                         first - (key + width - 1) + tables_.reach, queries + width - 1, strip_, strip_stride);
            for (int query = 0; query < queries; query += width) {
                Vec square[width];
                for (int i = 0; i < width; ++i) square[i] = load(products + i * strip_stride + width - 1 - i + query);
                transpose(square);
                float* out = by_key_ + query * stride + (key - begin);
                for (int i = 0; i < least(width, queries - query); ++i) store(out + i * stride, square[i]);
            }
        }
    }

    const Attention& task_;
    const Disentangled tables_;
    const int depth_;
    const Multiply& multiply_;
    float *const by_key_, *const strip_, *const by_query_;
    Span block_ = {}, keys_ = {};    // the present block of queries; the keys of its group, in whole panels
    int group_ = 0, first_key_ = 0;  // the group's first query; the first key that the block sees
    const float* queries_ = nullptr;
    ptrdiff_t queries_stride_ = 0;
};
