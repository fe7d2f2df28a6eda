// One head of one sequence in float32. Keys are transposed into panels once; then a few queries at a time see all keys,
// so that memory grows with the length and not with its square.

inline int whole_panels(int n) { return (n + panel_columns - 1) / panel_columns * panel_columns; }

size_t attention_scratch_f32(int tokens, int head_size) {
    const size_t keys = static_cast<size_t>(whole_panels(tokens));
    return keys * static_cast<size_t>(head_size) + keys * tile_rows + 2 * panel_columns;
}

// A square of width x width floats: stages of interleaving row i with row i + width / 2.
inline void transpose(Vec (&rows)[width]) {
    for (int stage = 1; stage < width; stage *= 2) {
        Vec next[width];
        for (int i = 0; i < width / 2; ++i) {
            next[2 * i] = interleave_low(rows[i], rows[i + width / 2]);
            next[2 * i + 1] = interleave_high(rows[i], rows[i + width / 2]);
        }
        for (int i = 0; i < width; ++i) rows[i] = next[i];
    }
}

// panels[visible / panel_columns][head_size][panel_columns] = scale * key^T, zero beyond the last key.
void transpose_keys(const Attention& task, float* panels) {
    const Vec scale = broadcast(task.scale);
    for (int key = 0; key < task.visible; key += width) {
        float* panel = panels + static_cast<ptrdiff_t>(key / panel_columns) * panel_columns * task.head_size;
        for (int d = 0; d < task.head_size; d += width) {
            const int depth = task.head_size - d < width ? task.head_size - d : width;
            Vec square[width];
            for (int i = 0; i < width; ++i) {
                const float* row = static_cast<const float*>(task.key) + (key + i) * task.stride + d;
                if (key + i >= task.visible) square[i] = broadcast(0.0f);
                else square[i] = scale * (depth == width ? load(row) : load_first(row, depth));
            }
            transpose(square);
            for (int i = 0; i < depth; ++i) store(panel + (d + i) * panel_columns + key % panel_columns, square[i]);
        }
    }
    // The last panel's second vector, if no key reached it.
    if ((task.visible + width - 1) / width % 2)
        for (int d = 0; d < task.head_size; ++d) {
            const ptrdiff_t last = whole_panels(task.visible) - panel_columns;
            store(panels + last * task.head_size + d * panel_columns + width, broadcast(0.0f));
        }
}

// scores[n] becomes e^(score - largest); returns one over their sum.
inline float exponentials(float* scores, int n) {
    const int whole = n / width * width, rest = n - whole;
    const Vec low = broadcast(-INFINITY);
    Vec most = low;
    for (int i = 0; i < whole; i += width) most = maximum(most, load(scores + i));
    float top = largest(most);
    for (int i = whole; i < n; ++i) top = scores[i] > top ? scores[i] : top;

    const Vec peak = broadcast(top);
    Vec total = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) {
        const Vec e = exponential(load(scores + i) - peak);
        store(scores + i, e);
        total = total + e;
    }
    if (rest) {
        store_first(scores + whole, exponential(load_first(scores + whole, rest) - peak), rest);
        total = total + load_first(scores + whole, rest);
    }
    return 1.0f / sum(total);
}

void attend_f32(const Attention* task) {
    const int keys = whole_panels(task->visible);
    float* key_panels = task->scratch;
    float* scores = key_panels + static_cast<ptrdiff_t>(keys) * task->head_size;
    transpose_keys(*task, key_panels);

    const int blocks = (task->tokens + tile_rows - 1) / tile_rows;
    int first = 0;
    for (int block = 0; block < blocks; ++block) {
        const int rows = task->tokens / blocks + (block < task->tokens % blocks ? 1 : 0);

        Tile score = {};
        score.a = static_cast<const float*>(task->query) + first * task->stride, score.a_stride = task->stride;
        score.b_stride = panel_columns, score.depth = task->head_size;
        score.out_stride = keys, score.columns = panel_columns;
        for (int key = 0; key < keys; key += panel_columns) {
            score.b = key_panels + static_cast<ptrdiff_t>(key) * task->head_size;
            score.out = scores + key;
            multiply_up_to(rows, score);
        }

        float one_over_sum[tile_rows];
        for (int r = 0; r < rows; ++r)
            one_over_sum[r] = exponentials(scores + static_cast<ptrdiff_t>(r) * keys, task->visible);

        Tile mix = {};
        mix.a = scores, mix.a_stride = keys;
        mix.b_stride = task->stride, mix.depth = task->visible;
        mix.row_scale = one_over_sum;
        mix.out_stride = task->out_stride;
        for (int d = 0; d < task->head_size; d += panel_columns) {
            // reads past the head's own columns are within the buffer, and what comes of them is not stored
            mix.b = static_cast<const float*>(task->value) + d;
            mix.out = static_cast<float*>(task->out) + first * task->out_stride + d;
            mix.columns = task->head_size - d < panel_columns ? task->head_size - d : panel_columns;
            multiply_up_to(rows, mix);
        }
        first += rows;
    }
}
