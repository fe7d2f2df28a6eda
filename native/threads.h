// The process's compute threads, and the team of them that one call works with.
#pragma once

#include <algorithm>

namespace onepass {

// The calling thread, and as many workers as were asked for and are there. The workers belong to one team at a time: a
// team made while another has them works alone. Workers are started by the first team that wants them, spin for 20
// microseconds between tasks and then sleep; a forked child starts its own.
class Team {
  public:
    Team() = default;  // alone
    explicit Team(int cores);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return size_; }

    // work(item, member): members take items one by one, so nobody waits for a worker that is slow to wake. Returns
    // when all items are done.
    template <class Work>
    void hand_out(int items, const Work& work) {
        if (size_ == 1 || items == 1) {
            for (int item = 0; item < items; ++item) work(item, 0);
            return;
        }
        const auto take_items = [&](int member) {
            for (int item; (item = next_item()) < items;) work(item, member);
        };
        run([](const void* context, int member) { (*static_cast<decltype(&take_items)>(context))(member); },
            &take_items);
    }

    // work(begin, end): the items in contiguous parts of at least `grain`, a few for each member.
    template <class Work>
    void share(int items, int grain, const Work& work) {
        constexpr int parts_each = 4;
        const int parts = size_ == 1 ? 1 : std::clamp(items / grain, 1, parts_each * size_);
        hand_out(parts, [&](int part, int) {
            const auto edge = [&](int p) { return static_cast<int>(static_cast<long long>(items) * p / parts); };
            work(edge(part), edge(part + 1));
        });
    }

  private:
    void run(void (*work)(const void*, int), const void* context);
    int next_item();

    int size_ = 1;
};

}  // namespace onepass
