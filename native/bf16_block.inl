// A block of a bfloat16 product: up to block_rows rows times a panel, or times its first half, nothing added.
struct Block {
    const uint16_t* a;
    ptrdiff_t a_stride;
    const uint16_t* panel;
    int rows, depth;  // depth a multiple of panel_columns
    float* out;       // [rows][columns]
    ptrdiff_t out_stride;
    int columns = panel_columns;  // or width
};
