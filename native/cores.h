#pragma once

namespace onepass {

// How many threads may compute in this process: the physical cores in its affinity mask, or the control group's
// processor quota (rounded up) where that is less; at least 1.
int compute_threads();

}  // namespace onepass
