#include "cpu.h"

#include <cstdint>
#include <stdexcept>

#if defined(ONEPASS_X86)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace onepass {
namespace {

#if defined(ONEPASS_X86)

struct Feature {
    const char* name;
    unsigned leaf, reg, bit;  // register 0 to 3: eax, ebx, ecx, edx
    unsigned subleaf = 0;
};

constexpr Feature osxsave = {"osxsave", 1, 2, 27};
constexpr Feature avx2_features[] = {{"avx", 1, 2, 28}, {"fma", 1, 2, 12}, {"avx2", 7, 1, 5}};
constexpr Feature avx512_features[] = {
    {"fma", 1, 2, 12},      {"avx2", 7, 1, 5},      {"avx512f", 7, 1, 16},
    {"avx512dq", 7, 1, 17}, {"avx512bw", 7, 1, 30}, {"avx512vl", 7, 1, 31},
};
constexpr Feature bf16_features[] = {{"avx512_bf16", 7, 0, 5, 1}};
constexpr Feature amx_features[] = {{"amx_tile", 7, 3, 24}, {"amx_bf16", 7, 3, 22}};
constexpr uint64_t ymm_state = 0x06, zmm_state = 0xe6, tile_state = 0x60000;  // bits of XCR0

bool has(const Feature& feature) {
    unsigned regs[4] = {};
    if (!__get_cpuid_count(feature.leaf, feature.subleaf, &regs[0], &regs[1], &regs[2], &regs[3])) return false;
    return regs[feature.reg] >> feature.bit & 1;
}

bool system_saves(uint64_t state) {
    if (!has(osxsave)) return false;
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t{high} << 32 | low) & state) == state;
}

// Why this machine cannot run what needs these features and that state of the registers; empty if it can.
template <size_t n>
std::string obstacle(const Feature (&needed)[n], uint64_t state) {
    std::string missing;
    for (const Feature& feature : needed)
        if (!has(feature)) missing += (missing.empty() ? "" : ", ") + std::string(feature.name);
    if (!missing.empty()) return "this processor lacks " + missing;
    return system_saves(state) ? "" : "the operating system does not save its registers";
}

// Linux gives a process tiles when it asks for them, once for all its threads.
std::string tiles_refused() {
#if defined(__linux__)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0 ? "" : "the operating system refuses tiles";
#else
    return "tiles are used on Linux only";
#endif
}

std::string first_of(const std::string& obstacle, const std::string& another) {
    return obstacle.empty() ? another : obstacle;
}

#endif

std::vector<InstructionSet> detect() {
#if defined(ONEPASS_X86)
    const std::string avx512 = obstacle(avx512_features, zmm_state);
    const std::string avx512bf16 = first_of(avx512, obstacle(bf16_features, zmm_state));
    std::string amx = first_of(avx512bf16, obstacle(amx_features, tile_state));
    if (amx.empty()) amx = tiles_refused();
#endif
    return {
#if defined(ONEPASS_X86)
        {&onepass_kernels_amx, amx},       {&onepass_kernels_avx512bf16, avx512bf16},
        {&onepass_kernels_avx512, avx512}, {&onepass_kernels_avx2, obstacle(avx2_features, ymm_state)},
#endif
        {&onepass_kernels_portable, ""},
    };
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> sets = detect();
    return sets;
}

const Kernels& kernels_named(const std::string& name) {
    for (const InstructionSet& set : instruction_sets())
        if (set.kernels->name == name) {
            if (!set.obstacle.empty()) throw std::invalid_argument(name + ": " + set.obstacle);
            return *set.kernels;
        }
    throw std::invalid_argument(name + ": not built");
}

}  // namespace onepass
