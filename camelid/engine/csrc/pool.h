// The threads of an engine. They walk the same phases of work; a phase ends when its pieces are done, not when all have come.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace camelid {

// The system takes threads away, for milliseconds, and a piece takes microseconds. So whoever has nothing left to take does a
// held piece again: a piece is computed into the thread's own memory, and only the one who then commits it writes it where
// others read. A thread that comes back late goes on computing from what later phases write meanwhile; it cannot commit
// that. Those reads are races by the letter of C++; their numbers are thrown away, and are masked where they are an index.
class Pool {
public:
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }
    // Runs task(0) here and task(1) … on the other threads; returns when all are done.
    void run(const std::function<void(int)>& task);
    // The same for a task that only walks phases: returns when they are over, wherever the other threads are, which have a copy
    // of it. What it reads between phases must be its own or stay as it is.
    void walk(const std::function<void(int)>& task);
    // Returns when no thread is in a task: before anything goes that a late one may still read.
    void settle();

    // Lanes have phases of their own: lane 0 is everybody's, lane 1 + t is thread t's first and helped by others. All threads
    // walk the same phases of a lane in the same order, each of at most `room()` pieces. work(piece, commit) computes a piece
    // and writes it if commit() is true; it may be called more than once, by several threads at a time. at_end() is called
    // when none is left to take.
    template <class Work, class AtEnd> void phase(int thread, int lane, int pieces, Work&& work, AtEnd&& at_end);
    template <class Work> void phase(int thread, int lane, int pieces, Work&& work) {
        phase(thread, lane, pieces, work, [] {});
    }
    void make_room(int pieces);
    int room() const { return room_; }

    // For tests: every so many pieces a thread sleeps in one; without redoing, others wait for it.
    void hold(int every, int microseconds);
    void set_redoing(bool redoing) { redoing_ = redoing; }
    uint64_t redone() const { return redone_.load(std::memory_order_relaxed); }  // pieces finished in another's place

private:
    using Word = std::atomic<uint64_t>;  // of a piece: the number of the last phase that has it, and how far it is
    enum : uint64_t { CLAIMED = 1, COMMITTING = 2, DONE = 3 };
    struct alignas(64) Lane {
        std::atomic<uint64_t> phase{1};
        std::vector<Word> words;
    };
    struct alignas(64) Member {
        std::vector<uint64_t> phases;         // of each lane, where the thread is
        std::chrono::nanoseconds patience{};  // that it has with a held piece
        uint64_t claims = 0;
        std::atomic<unsigned> finished{0};  // task
        std::atomic<bool> inside{false};    // a task
    };
    struct Task {
        std::function<void(int)> work;
        std::vector<uint64_t> phases;  // of each lane, the first
        unsigned number;
    };
    struct Walk {  // of a thread through a phase
        Lane& lane;
        const uint64_t number;
        const int pieces, shares, first_share;
        int shares_seen = 0, from = 0, to = 0;   // what is left of the share it takes from
        int shares_done = 0, done = 0;           // what it has found done
        Word* word = nullptr;                    // of the piece that it has
        bool again = false;                      // which another one holds
    };

    Walk enter(int thread, int lane, int pieces);
    bool is_over(const Walk& walk) const { return walk.lane.phase.load(std::memory_order_acquire) > walk.number; }
    int first_of(const Walk& walk, int share) const { return (int)((int64_t)walk.pieces * share / walk.shares); }
    Word& word_of(const Walk& walk, int share, int piece) const {
        return walk.lane.words[(size_t)(share * share_room_ + piece - first_of(walk, share))];
    }
    int claim(Walk& walk, bool own_lane);
    int held(Walk& walk, Member& member);
    bool may_redo(Walk& walk, Member& member, Word& word);
    bool commit(const Walk& walk) {
        uint64_t claimed = walk.number << 2 | CLAIMED;
        return walk.word->compare_exchange_strong(claimed, walk.number << 2 | COMMITTING, std::memory_order_acq_rel);
    }
    void finish(const Walk& walk, Member& member, bool committed);
    void sleep_in_piece(Member& member);
    void begin(std::function<void(int)> work);
    void work(int index);
    void wait_for_task(unsigned seen);

    const int size_;
    // Of each thread, where there are as many as threads: each has its own. Beside another busy program the system would let
    // two threads share one, and move them about; with fewer threads it is free to find the processor that is idle.
    std::vector<int> processors_;
    int room_ = 0, share_room_ = 0;
    std::vector<Lane> lanes_;
    std::vector<Member> members_;
    std::shared_ptr<const Task> task_;  // atomic
    int held_every_ = 0, held_for_ = 0;
    bool redoing_ = true;
    alignas(64) std::atomic<uint64_t> redone_{0};
    alignas(64) std::atomic<unsigned> task_number_{0};
    std::atomic<unsigned> returned_{0};  // task that the caller has come back from
    std::atomic<bool> ends_{false};
    std::atomic<int> sleeping_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

template <class Work, class AtEnd> void Pool::phase(int thread, int lane, int pieces, Work&& work, AtEnd&& at_end) {
    Walk walk = enter(thread, lane, pieces);
    if (is_over(walk)) return;
    Member& member = members_[(size_t)thread];
    const auto take = [&](int piece) {
        bool committed = false;
        if (held_every_) sleep_in_piece(member);
        work(piece, [&] { return committed = commit(walk); });
        finish(walk, member, committed);
    };
    for (int piece; (piece = claim(walk, lane == 0 || lane == thread + 1)) >= 0;) take(piece);
    at_end();
    for (int piece; (piece = held(walk, member)) >= 0;) take(piece);
}

// For tests: walks of sums that are known beforehand, in which threads sleep in every so many pieces. Returns how many pieces
// were done in another's place; throws where a number is wrong or was committed twice.
uint64_t rehearse(int threads, int walks, int phases, int pieces, int held_every, int microseconds);

}  // namespace camelid
