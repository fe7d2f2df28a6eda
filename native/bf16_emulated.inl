// sum + a0 b0 + a1 b1 of pairs, where the processor has no such instruction.
inline Vec dot(Vec a, Vec b, Vec sum) {
    sum = fma(first_of_pairs(a), first_of_pairs(b), sum);
    return fma(second_of_pairs(a), second_of_pairs(b), sum);
}
