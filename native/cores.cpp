#include "cores.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

namespace onepass {
namespace {

#if defined(__linux__)

constexpr int unlimited = std::numeric_limits<int>::max();

int number_in(const std::string& path, int otherwise) {
    int value;
    return std::ifstream(path) >> value ? value : otherwise;
}

int physical_cores() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return unlimited;
    std::set<std::pair<int, int>> cores;  // (package, core); siblings share one
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        const int core = number_in(topology + "core_id", -1);
        cores.emplace(core < 0 ? -1 : number_in(topology + "physical_package_id", 0), core < 0 ? cpu : core);
    }
    return static_cast<int>(cores.size());
}

// The quota that one control group sets: version 2 writes "max 100000" or "150000 100000", version 1 two files.
int quota_of(const std::string& group) {
    double quota = -1, period = 0;
    std::ifstream both(group + "/cpu.max");
    if (!(both >> quota >> period)) {
        quota = number_in(group + "/cpu.cfs_quota_us", -1);
        period = number_in(group + "/cpu.cfs_period_us", 0);
    }
    return quota > 0 && period > 0 ? static_cast<int>(std::ceil(quota / period)) : unlimited;
}

// The least quota of this process's control group and those above it.
int quota() {
    int least = unlimited;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        // "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
        const size_t name = line.find(':') + 1, path = line.find(':', name);
        if (name == 0 || path == std::string::npos) continue;
        const std::string controllers = "," + line.substr(name, path - name) + ",";
        if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
        const std::string root = controllers == ",," ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
        for (std::string group = line.substr(path + 1);; group.resize(group.rfind('/'))) {
            if (group == "/") group.clear();
            least = std::min(least, quota_of(root + group));
            if (group.empty()) break;
        }
    }
    return least;
}

#endif

}  // namespace

int compute_threads() {
#if defined(__linux__)
    const int cores = std::min(physical_cores(), quota());
    if (cores != unlimited) return std::max(cores, 1);
#endif
    return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

}  // namespace onepass
