// What the machine's own arithmetic units can do, on registers alone: no memory, no kernel of ours.
//
//   peak CORES   one line per unit that the machine has, tab separated:
//                unit, type, operations per second of one core, the same of CORES cores together,
//                operations per cycle of one core, operations per cycle that the unit can do
//
// A cycle is measured, not read: a chain of dependent 64-bit multiplications takes three cycles a link on every x86
// processor of the last ten years. Chain and unit alternate in slices of some milliseconds, so that both see the same
// clock. What a unit can do is 1,024 bf16 operations per cycle for AMX; for vectors it is one or two instructions per
// cycle, whichever lies just above what was found.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr int slices = 150;
constexpr double slice_seconds = 3e-3;
constexpr int chain_links = 300'000;  // three cycles each
constexpr int sums_avx2 = 12, sums_avx512 = 24;  // independent, so that two units of four to six cycles stay busy

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A step runs the instruction once for each sum; asm, so that no compiler drops or joins what nobody reads.

__attribute__((target("avx2,fma"))) void avx2_steps(int steps) {
    __m256 sums[sums_avx2], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
    for (__m256& sum : sums) sum = a;
    for (int step = 0; step < steps; ++step)
#pragma GCC unroll 12
        for (__m256& sum : sums) __asm__ volatile("vfmadd231ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
}

__attribute__((target("avx512f"))) void avx512_steps(int steps) {
    __m512 sums[sums_avx512], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
    for (__m512& sum : sums) sum = a;
    for (int step = 0; step < steps; ++step)
#pragma GCC unroll 24
        for (__m512& sum : sums) __asm__ volatile("vfmadd231ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
}

__attribute__((target("avx512f,avx512bf16"))) void avx512_bf16_steps(int steps) {
    __m512 sums[sums_avx512], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
    for (__m512& sum : sums) sum = a;
    for (int step = 0; step < steps; ++step)
#pragma GCC unroll 24
        for (__m512& sum : sums) __asm__ volatile("vdpbf16ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
}

__attribute__((target("avx512f,avx512vnni"))) void avx512_vnni_steps(int steps) {
    __m512i sums[sums_avx512], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
    for (__m512i& sum : sums) sum = a;
    for (int step = 0; step < steps; ++step)
#pragma GCC unroll 24
        for (__m512i& sum : sums) __asm__ volatile("vpdpbusd %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
}

struct alignas(64) TileShape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Four sums, two left and two right operands: the blocking that a real kernel uses.
#define TILE_STEPS(name, instruction)                                          \
    void name(int steps) {                                                     \
        static const TileShape shape;                                          \
        __asm__ volatile("ldtilecfg %0" ::"m"(shape));                         \
        __asm__ volatile("tilezero %tmm0\n tilezero %tmm1\n tilezero %tmm2\n"  \
                         "tilezero %tmm3\n tilezero %tmm4\n tilezero %tmm5\n"  \
                         "tilezero %tmm6\n tilezero %tmm7");                   \
        for (int step = 0; step < steps; ++step)                               \
            __asm__ volatile(instruction " %tmm6, %tmm4, %tmm0\n" instruction  \
                             " %tmm7, %tmm4, %tmm1\n" instruction              \
                             " %tmm6, %tmm5, %tmm2\n" instruction              \
                             " %tmm7, %tmm5, %tmm3");                          \
        __asm__ volatile("tilerelease");                                       \
    }

TILE_STEPS(amx_bf16_steps, "tdpbf16ps")
TILE_STEPS(amx_int8_steps, "tdpbssd")

bool tiles_permitted() {
    constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

struct Unit {
    const char *name, *type;
    bool present;
    void (*steps)(int);
    double operations;   // of one step
    double instruction;  // operations of one instruction
    double per_cycle;    // operations per cycle that the unit can do, or 0: one or two instructions
};

double cycles_per_second() {
    const double started = now();
    uint64_t value = 3;
    for (int link = 0; link < chain_links; ++link) __asm__ volatile("imul %0, %0" : "+r"(value));
    return 3.0 * chain_links / (now() - started);
}

struct Found {
    double per_second, per_cycle;
};

// Of one thread: the best slice, and the median per cycle. The clock is measured right before and right after each.
Found one_core(const Unit& unit, int steps) {
    double best = 0;
    std::vector<double> per_cycle;
    for (int slice = 0; slice < slices; ++slice) {
        const double before = cycles_per_second(), started = now();
        unit.steps(steps);
        const double rate = unit.operations * steps / (now() - started), after = cycles_per_second();
        best = std::max(best, rate);
        if (std::abs(before - after) < 0.01 * before) per_cycle.push_back(rate / before);  // nobody ran in between
    }
    std::sort(per_cycle.begin(), per_cycle.end());
    return {best, per_cycle.empty() ? 0 : per_cycle[per_cycle.size() / 2]};
}

// All threads at once: operations of all over the time until the last has finished, at its best.
double all_cores(const Unit& unit, int steps, int cores) {
    double best = 0;
    for (int slice = 0; slice < slices; ++slice) {
        std::atomic<int> waiting{cores};
        std::vector<double> started(cores), ended(cores);
        std::vector<std::thread> threads;
        for (int core = 0; core < cores; ++core)
            threads.emplace_back([&, core] {
                for (--waiting; waiting;) continue;
                started[core] = now();
                unit.steps(steps);
                ended[core] = now();
            });
        for (std::thread& thread : threads) thread.join();
        const double seconds = *std::max_element(ended.begin(), ended.end()) -
                               *std::min_element(started.begin(), started.end());
        best = std::max(best, cores * unit.operations * steps / seconds);
    }
    return best;
}

int steps_in_a_slice(const Unit& unit) {
    int steps = 1000;
    for (;; steps *= 2) {
        const double started = now();
        unit.steps(steps);
        const double seconds = now() - started;
        if (seconds > slice_seconds / 4) return int(steps * slice_seconds / seconds);
    }
}

void measure(const Unit& unit, int cores) {
    const int steps = steps_in_a_slice(unit);
    const Found found = one_core(unit, steps);
    const double together = all_cores(unit, steps, cores);
    const int instructions = found.per_cycle > 1.05 * unit.instruction ? 2 : 1;
    std::printf("%s\t%s\t%.4g\t%.4g\t%.1f\t%.0f\n", unit.name, unit.type, found.per_second, together,
                found.per_cycle, unit.per_cycle ? unit.per_cycle : instructions * unit.instruction);
}

}  // namespace

int main(int count, char** arguments) {
    const int cores = count > 1 ? std::atoi(arguments[1]) : 1;
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f");
    const bool bf16 = __builtin_cpu_supports("avx512bf16"), vnni = __builtin_cpu_supports("avx512vnni");
    const bool tiles = __builtin_cpu_supports("amx-tile") && tiles_permitted();
    const bool tiles_bf16 = tiles && __builtin_cpu_supports("amx-bf16");
    const bool tiles_int8 = tiles && __builtin_cpu_supports("amx-int8");
    constexpr double tile = 16 * 16 * 32 * 2;  // operations of one bf16 tile product; int8 has twice as many
    const Unit units[] = {
        {"AVX2 FMA", "fp32", avx2, avx2_steps, sums_avx2 * 16.0, 16, 0},
        {"AVX-512 FMA", "fp32", avx512, avx512_steps, sums_avx512 * 32.0, 32, 0},
        {"AVX-512 vdpbf16ps", "bf16", bf16, avx512_bf16_steps, sums_avx512 * 64.0, 64, 0},
        {"AVX-512 vpdpbusd", "int8", vnni, avx512_vnni_steps, sums_avx512 * 128.0, 128, 0},
        {"AMX tdpbf16ps", "bf16", tiles_bf16, amx_bf16_steps, 4 * tile, tile, 1024},
        {"AMX tdpbssd", "int8", tiles_int8, amx_int8_steps, 8 * tile, 2 * tile, 2048},
    };
    for (const Unit& unit : units)
        if (unit.present) measure(unit, cores);
}
