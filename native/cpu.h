// Which instruction sets this build holds, and which of them this machine can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace onepass {

struct InstructionSet {
    const Kernels* kernels;
    std::string obstacle;  // why this machine cannot run it; empty if it can
};

// Every one that was built, the widest first; the last, "portable", has no obstacle.
const std::vector<InstructionSet>& instruction_sets();

// Raises std::invalid_argument if the name is not built or not usable here.
const Kernels& kernels_named(const std::string& name);

}  // namespace onepass
