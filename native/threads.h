// The process's compute threads, and the team of them that one call works with.
#pragma once

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

    // work(begin, end, member): each member gets one contiguous share of the items. Returns when all are done.
    template <class Work>
    void share(int items, const Work& work) {
        each([&](int member) {
            const int begin = static_cast<int>(static_cast<long long>(items) * member / size_);
            const int end = static_cast<int>(static_cast<long long>(items) * (member + 1) / size_);
            if (begin < end) work(begin, end, member);
        });
    }

    // work(item, member): members take items one by one, so that long ones do not hold up the rest.
    template <class Work>
    void hand_out(int items, const Work& work) {
        restart_items();
        each([&](int member) {
            for (int item; (item = next_item()) < items;) work(item, member);
        });
    }

  private:
    template <class Work>
    void each(const Work& work) {
        if (size_ == 1) return work(0);
        run([](const void* context, int member) { (*static_cast<const Work*>(context))(member); }, &work);
    }
    void run(void (*work)(const void*, int), const void* context);
    void restart_items();
    int next_item();

    int size_ = 1;
    int item_ = 0;  // the next item of a team of one; a larger team counts in the workers' own
};

}  // namespace onepass
