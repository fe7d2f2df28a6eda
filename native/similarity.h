// ColBERT's MaxSim of one query with many documents.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "memory.h"
#include "threads.h"

namespace onepass {

// Vectors of documents, end to end: those of document d are rows offsets[d] to offsets[d + 1].
struct Documents {
    Matrix vectors;
    const int32_t* offsets;  // [count + 1]
    int count;
};

// scores[documents]: the sum over the query's vectors [vectors, width] of the largest product with one of the
// document's, in float32. What it takes in memory does not depend on the number of documents.
void max_similarity(const Kernels& kernels, const float* query, int vectors, int width, const Documents& documents,
                    float* scores, Team& team);

}  // namespace onepass
