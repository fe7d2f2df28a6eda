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

// weights[n] = e^(scale (score - largest)), then zeros to `keys`, over the scores themselves; returns one over their
// sum. The scale is positive.
inline float weights_of(const float* scores, uint16_t* weights, int n, int keys, float scale) {
    const int whole = n / width * width, rest = n - whole;
    Vec most = broadcast(-INFINITY);
    for (int i = 0; i < whole; i += width) most = maximum(most, load(scores + i));
    float top = largest(most);
    for (int i = whole; i < n; ++i) top = scores[i] > top ? scores[i] : top;

    const Vec slope = broadcast(1.44269504f * scale), shift = broadcast(-1.44269504f * scale * top);
    Vec total = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) {
        const Vec e = coarse_power_of_two(fma(load(scores + i), slope, shift));
        total = total + e;
        store(weights + i, e);
    }
    if (rest) {
        float last[width];
        store(last, coarse_power_of_two(fma(load(scores + whole), slope, shift)));
        const Vec e = load_first(last, rest);
        total = total + e;
        store(weights + whole, e);
    }
    for (int i = whole + (rest ? width : 0); i < keys; i += width) store(weights + i, broadcast(0.0f));
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

void attend_bf16(const Attention* task) {
    Multiplier multiply;
    const int keys = whole_panels(task->visible), depth = whole_panels(task->head_size);
    uint16_t* key_panel = reinterpret_cast<uint16_t*>(task->scratch);
    uint16_t* value_panel = key_panel + static_cast<ptrdiff_t>(keys) * depth;
    float* scores = task->scratch + static_cast<ptrdiff_t>(keys) * depth;
    uint16_t* weights = reinterpret_cast<uint16_t*>(scores);
    key_panels(*task, key_panel);
    value_panels(*task, value_panel);

    const uint16_t* queries = static_cast<const uint16_t*>(task->query);
    alignas(64) float sums[block_rows * panel_columns];
    const auto attend_block = [&](int first, int rows) {
        for (int key = 0; key < keys; key += panel_columns)
            multiply({queries + first * task->stride, task->stride, key_panel + static_cast<ptrdiff_t>(key) * depth,
                      rows, depth, scores + key, keys});
        float one_over_sum[block_rows];
        for (int r = 0; r < rows; ++r) {
            const ptrdiff_t row = static_cast<ptrdiff_t>(r) * keys;
            one_over_sum[r] = weights_of(scores + row, weights + 2 * row, task->visible, keys, task->scale);
        }
        for (int d = 0; d < task->head_size; d += panel_columns) {
            multiply(
                {weights, 2 * keys, value_panel + static_cast<ptrdiff_t>(d) * keys, rows, keys, sums, panel_columns});
            store_context(*task, sums, one_over_sum, first, rows, d);
        }
    };
    each_height(task->tokens, [&](int first, int blocks, int height) {
        for (int block = 0; block < blocks; ++block) attend_block(first + block * height, height);
    });
}
