// One head of one sequence in bfloat16. Keys and values are laid out as panels once; then a block of queries at a time
// sees all keys. Scores and softmax are float32; the weights of the values are rounded where the scores were.

size_t attention_scratch_bf16(int tokens, int head_size) {
    const size_t keys = static_cast<size_t>(whole_panels(tokens)), depth = static_cast<size_t>(whole_panels(head_size));
    return keys * depth + keys * block_rows;  // two bfloat16 panels are one of floats
}

// panels[keys / panel_columns][depth / 2][panel_columns][2] = key^T, zero beyond the last key and the last number.
void key_panels(const Attention& task, uint16_t* panels) {
    const int depth = whole_panels(task.head_size), words = depth / 2, used = (task.head_size + 1) / 2;
    const uint16_t* keys = static_cast<const uint16_t*>(task.key);
    for (int key = 0; key < whole_panels(task.visible); key += width) {
        const ptrdiff_t before = static_cast<ptrdiff_t>(key / panel_columns) * panel_columns * depth;
        float* panel = reinterpret_cast<float*>(panels + before);
        for (int word = 0; word < words; word += width) {
            const int there = used - word;
            Vec square[width];
            for (int i = 0; i < width; ++i) {
                const float* row = reinterpret_cast<const float*>(keys + (key + i) * task.stride + 2 * word);
                if (key + i >= task.visible || there <= 0) square[i] = broadcast(0.0f);
                else square[i] = there < width ? load_first(row, there) : load(row);
            }
            transpose(square);
            for (int i = 0; i < width; ++i) {
                // an odd head's last word holds a number of the next one
                const bool half = 2 * (word + i) + 1 == task.head_size;
                if (half) square[i] = pairs(first_of_pairs(square[i]), broadcast(0.0f));
                store(panel + (word + i) * panel_columns + key % panel_columns, square[i]);
            }
        }
    }
}

// panels[head_size / panel_columns][keys / 2][panel_columns][2] = value, zero beyond the last key. Beyond the head's
// own columns lie those of the next; what comes of them is not stored.
void value_panels(const Attention& task, uint16_t* panels) {
    const int keys = whole_panels(task.visible);
    for (int d = 0; d < task.head_size; d += panel_columns) {
        const uint16_t* values = static_cast<const uint16_t*>(task.value) + d;
        float* panel = reinterpret_cast<float*>(panels + static_cast<ptrdiff_t>(d) * keys);
        for (int key = 0; key < keys; key += 2, panel += panel_columns)
            for (int c = 0; c < panel_columns; c += width) {
                const auto row = [&](int k) {
                    return k < task.visible ? load(values + k * task.stride + c) : broadcast(0.0f);
                };
                store(panel + c, pairs(row(key), row(key + 1)));
            }
    }
}

// weights[n] = e^(scale (score - largest)), then zeros to `room`, over the scores themselves and up to a vector beyond;
// returns one over their sum. The scale is positive.
inline float weights_of(const float* scores, uint16_t* weights, int n, int room, float scale) {
    const int whole = n / width * width, rest = n - whole;
    const float top = largest(scores, n);
    const Vec slope = broadcast(1.44269504f * scale), shift = broadcast(-1.44269504f * scale * top);
    Vec total = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) {
        const Vec e = coarse_power_of_two(fma(load(scores + i), slope, shift));
        total = total + e;
        store(weights + i, e);
    }
    if (rest) {
        float last[width];
        store(last, coarse_power_of_two(fma(load_first(scores + whole, rest), slope, shift)));
        const Vec e = load_first(last, rest);
        total = total + e;
        store(weights + whole, e);
    }
    for (int i = whole + (rest ? width : 0); i < room; i += width) store(weights + i, broadcast(0.0f));
    return 1.0f / sum(total);
}

// A panel's columns of the context of some rows.
void store_context(const Attention& task, const float* sums, const float* one_over_sum, int first, int rows, int d) {
    for (int r = 0; r < rows; ++r)
        for (int c = d; c < task.head_size && c < d + panel_columns; c += width) {
            const Vec mixed = load(sums + r * panel_columns + c - d) * broadcast(one_over_sum[r]);
            uint16_t* out = static_cast<uint16_t*>(task.out) + (first + r) * task.out_stride + c;
            const int rest = task.head_size - c;
            if (rest < width) store_first(out, mixed, rest);
            else store(out, mixed);
        }
}

// Plain: as is_plain says, where nothing is spent on what is not asked for.
template <bool plain>
void attend_bf16_as(const Attention& task) {
    Multiplier block_multiplier;
    const int all_keys = whole_panels(task.visible), size = whole_panels(task.head_size);
    const uint16_t* queries = static_cast<const uint16_t*>(task.query);
    uint16_t* keys = reinterpret_cast<uint16_t*>(task.scratch);
    uint16_t* values = keys + static_cast<ptrdiff_t>(all_keys) * size;
    float* scores = task.scratch + static_cast<ptrdiff_t>(all_keys) * size;
    uint16_t* weights = reinterpret_cast<uint16_t*>(scores);
    key_panels(task, keys);
    value_panels(task, values);

    const auto multiply = [&](const uint16_t* a, int rows, const uint16_t* panel, int columns, float* out,
                              ptrdiff_t out_stride) {
        each_height(rows, block_rows, [&](int first, int blocks, int height) {
            for (int r = first; r < first + blocks * height; r += height)
                block_multiplier(
                    {a + r * task.stride, task.stride, panel, height, size, out + r * out_stride, out_stride, columns});
        });
    };
    alignas(64) float sums[block_rows * panel_columns];
    float* behind = scores + static_cast<ptrdiff_t>(all_keys) * block_rows;
    Relative<uint16_t, decltype(multiply)> relative(task, size, behind, multiply);
    relative.each_block(block_rows, [&](int first, int rows) {
        const Span seen = plain ? Span{0, task.visible} : seen_by(task, first, rows);
        const int begin = seen.first / panel_columns * panel_columns, keys_seen = seen.last - begin;
        const int depth = whole_panels(keys_seen);
        for (int key = 0; key < depth; key += panel_columns)
            block_multiplier({queries + first * task.stride, task.stride,
                              keys + static_cast<ptrdiff_t>(begin + key) * size, rows, size, scores + key, depth,
                              next_columns(keys_seen - key)});

        float one_over_sum[block_rows];
        for (int r = 0; r < rows; ++r) {
            const Span own = plain ? Span{0, task.visible} : seen_by(task, first + r);
            const int before = own.first - begin;
            float* products = scores + static_cast<ptrdiff_t>(r) * depth + before;
            uint16_t* row = weights + static_cast<ptrdiff_t>(r) * 2 * depth;
            if (!plain)
                finish_scores(task, relative.of_query(first + r, own.first), relative.of_key(first + r, own.first),
                              first + r, own, products);
            const float one_over =
                weights_of(products, row + before, own.count(), depth - before, plain ? task.scale : 1.0f);
            one_over_sum[r] = own.count() ? one_over : 0.0f;
            for (int i = 0; i < before; ++i) row[i] = 0;
        }

        for (int d = 0; d < task.head_size; d += panel_columns) {
            const uint16_t* panel = values + static_cast<ptrdiff_t>(d) * all_keys + begin * panel_columns;
            block_multiplier({weights, 2 * depth, panel, rows, depth, sums, panel_columns});
            store_context(task, sums, one_over_sum, first, rows, d);
        }
    });
}

void attend_bf16(const Attention* task) {
    if (is_plain(*task)) attend_bf16_as<true>(*task);
    else attend_bf16_as<false>(*task);
}
