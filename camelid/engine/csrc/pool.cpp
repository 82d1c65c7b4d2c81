#include "pool.h"

#include <algorithm>
#include <stdexcept>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace camelid {
namespace {

using Clock = std::chrono::steady_clock;

void pause_briefly() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr int SPINS = 4000;                             // then the core is offered to others
constexpr auto AWAKE = std::chrono::microseconds(500);  // between tasks: a sampler's time; then sleep
constexpr auto ABSENT = std::chrono::microseconds(50);  // the caller does not come back from a task that is over
constexpr std::chrono::nanoseconds PATIENCE = std::chrono::microseconds(20), MOST_PATIENCE = std::chrono::milliseconds(2);
constexpr int WORDS_A_LINE = 8, PIECES_A_THREAD = 64;

#if defined(__SANITIZE_THREAD__)
constexpr bool REDOES = false;  // what a late thread reads is a race by the letter
#else
constexpr bool REDOES = true;
#endif

// Processors that the calling thread may use; none where that cannot be asked.
std::vector<int> allowed() {
    std::vector<int> processors;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return processors;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) processors.push_back(i);
#endif
    return processors;
}

void keep_to(const std::vector<int>& processors) {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i : processors) CPU_SET(i, &set);
    sched_setaffinity(0, sizeof set, &set);
#else
    (void)processors;
#endif
}

// The caller, which is somebody else's thread, is kept to its processor only while a task lasts.
class Kept {
public:
    explicit Kept(const std::vector<int>& processors) : processors_(processors) {
        is_kept_ = !processors.empty() && allowed() == processors;
        if (is_kept_) keep_to({processors[0]});
    }
    ~Kept() {
        if (is_kept_) keep_to(processors_);
    }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;

private:
    const std::vector<int>& processors_;
    bool is_kept_;
};

}  // namespace

Pool::Pool(int threads)
    : size_(threads < 1 ? 1 : threads), lanes_((size_t)size_ + 1), members_((size_t)size_), redoing_(REDOES) {
    if (size_ > 1) processors_ = allowed();
    if ((int)processors_.size() != size_) processors_.clear();
    for (Member& member : members_) member.phases.resize(lanes_.size()), member.patience = PATIENCE;
    make_room(PIECES_A_THREAD * size_);
    for (int i = 1; i < size_; i++) threads_.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        ends_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
}

// Each thread's share of lane 0 has its own lines.
void Pool::make_room(int pieces) {
    if (pieces <= room_) return;
    settle();
    share_room_ = ((pieces + size_ - 1) / size_ + WORDS_A_LINE) / WORDS_A_LINE * WORDS_A_LINE;
    room_ = pieces;
    for (Lane& lane : lanes_) std::vector<Word>((size_t)(share_room_ * size_)).swap(lane.words);
}

// --- phases ----------------------------------------------------------------------------------------------------

Pool::Walk Pool::enter(int thread, int lane, int pieces) {
    Member& member = members_[(size_t)thread];
    const bool everybodys = lane == 0;
    Walk walk{lanes_[(size_t)lane], member.phases[(size_t)lane]++, pieces, everybodys ? size_ : 1, everybodys ? thread : 0};
    walk.from = first_of(walk, walk.first_share), walk.to = first_of(walk, walk.first_share + 1);
    return walk;
}

// A piece that nobody has taken: of the thread's own share from its front, so that it reads on where it was, then from the ends
// of others' shares. −1: all are taken.
int Pool::claim(Walk& walk, bool own_lane) {
    const uint64_t claimed = walk.number << 2 | CLAIMED;
    while (walk.shares_seen < walk.shares) {
        const int share = (walk.first_share + walk.shares_seen) % walk.shares;
        const bool own = own_lane && walk.shares_seen == 0;
        while (walk.from < walk.to) {
            const int piece = own ? walk.from++ : --walk.to;
            Word& word = word_of(walk, share, piece);
            uint64_t seen = word.load(std::memory_order_relaxed);
            if (seen >= claimed || !word.compare_exchange_strong(seen, claimed, std::memory_order_acq_rel)) continue;
            walk.word = &word;
            return piece;
        }
        if (++walk.shares_seen < walk.shares) {
            const int next = (share + 1) % walk.shares;
            walk.from = first_of(walk, next), walk.to = first_of(walk, next + 1);
        }
    }
    return -1;
}

// When all pieces are taken: waits for those that are held, or gives one to be done again. −1: the phase is over.
int Pool::held(Walk& walk, Member& member) {
    const uint64_t done = walk.number << 2 | DONE;
    for (; walk.shares_done < walk.shares; walk.shares_done++, walk.done = 0) {
        const int share = (walk.first_share + walk.shares_done) % walk.shares;
        const int first = first_of(walk, share), n = first_of(walk, share + 1) - first;
        for (; walk.done < n; walk.done++) {
            Word& word = word_of(walk, share, first + walk.done);
            if (word.load(std::memory_order_acquire) >= done) continue;
            if (may_redo(walk, member, word)) return first + walk.done;
            if (is_over(walk)) return -1;
        }
    }
    uint64_t number = walk.number;
    walk.lane.phase.compare_exchange_strong(number, walk.number + 1, std::memory_order_acq_rel);
    return -1;
}

// Waits for a piece until it is done (false), or until patience ends.
bool Pool::may_redo(Walk& walk, Member& member, Word& word) {
    const uint64_t claimed = walk.number << 2 | CLAIMED, done = walk.number << 2 | DONE;
    Clock::time_point start{};
    for (int spins = 1;; spins++) {
        pause_briefly();
        const uint64_t seen = word.load(std::memory_order_acquire);
        if (seen >= done) return false;
        if (spins == 16) start = Clock::now();
        if (spins % 32 == 0 && redoing_ && seen == claimed && Clock::now() - start > member.patience) {
            walk.word = &word, walk.again = true;
            return true;
        }
        if (spins > SPINS) std::this_thread::yield();
    }
}

void Pool::finish(const Walk& walk, Member& member, bool committed) {
    if (committed) walk.word->store(walk.number << 2 | DONE, std::memory_order_release);
    if (!walk.again) return;
    if (committed) redone_.fetch_add(1, std::memory_order_relaxed);
    // Who held it may have been at work: then pieces take longer than patience.
    const auto patience = committed ? member.patience * 15 / 16 : member.patience * 2;
    member.patience = std::clamp<std::chrono::nanoseconds>(patience, PATIENCE, MOST_PATIENCE);
}

void Pool::sleep_in_piece(Member& member) {
    if (++member.claims % (uint64_t)held_every_ == 0) std::this_thread::sleep_for(std::chrono::microseconds(held_for_));
}

// --- tasks -----------------------------------------------------------------------------------------------------

void Pool::begin(std::function<void(int)> work) {
    auto task = std::make_shared<Task>();
    task->work = std::move(work), task->number = task_number_.load() + 1;
    for (const Lane& lane : lanes_) task->phases.push_back(lane.phase.load(std::memory_order_acquire));
    members_[0].phases = task->phases;
    std::atomic_store(&task_, std::shared_ptr<const Task>(std::move(task)));
    task_number_.fetch_add(1);
    if (!sleeping_.load()) return;
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
}

void Pool::run(const std::function<void(int)>& task) {
    settle();
    const Kept kept(processors_);
    begin(task);
    task(0);
    const unsigned number = task_number_.load();
    returned_.store(number, std::memory_order_relaxed);
    for (int i = 1; i < size_; i++)
        for (int spins = 0; members_[(size_t)i].finished.load(std::memory_order_acquire) != number; spins++)
            spins < SPINS ? pause_briefly() : std::this_thread::yield();
}

void Pool::walk(const std::function<void(int)>& task) {
    const Kept kept(processors_);
    begin(task);
    task(0);
    returned_.store(task_number_.load(), std::memory_order_relaxed);
}

void Pool::hold(int every, int microseconds) {
    settle();
    held_every_ = every, held_for_ = microseconds;
}

void Pool::settle() {
    std::atomic_store(&task_, std::shared_ptr<const Task>());
    for (Member& member : members_)
        for (int spins = 0; member.inside.load(); spins++) spins < SPINS ? pause_briefly() : std::this_thread::yield();
}

// Awake for a moment; not so where the caller has been taken away, which may go on where this thread makes room.
void Pool::wait_for_task(unsigned seen) {
    const auto start = Clock::now();
    for (int spins = 1;; spins++) {
        if (task_number_.load(std::memory_order_acquire) != seen || ends_) return;
        pause_briefly();
        if (spins % 256) continue;
        const auto waited = Clock::now() - start;
        if (waited > AWAKE || (waited > ABSENT && returned_.load(std::memory_order_relaxed) != seen)) break;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1);
    wake_.wait(lock, [&] { return task_number_.load() != seen || ends_; });
    sleeping_.fetch_sub(1);
}

void Pool::work(int index) {
    if (!processors_.empty()) keep_to({processors_[(size_t)index]});
    Member& member = members_[(size_t)index];
    for (unsigned seen = 0;;) {
        wait_for_task(seen);
        if (ends_) return;
        member.inside.store(true);
        seen = task_number_.load();
        if (const auto task = std::atomic_load(&task_)) {
            seen = task->number, member.phases = task->phases;
            task->work(index);
        }
        member.inside.store(false);
        member.finished.store(seen, std::memory_order_release);
    }
}

// --- a rehearsal -----------------------------------------------------------------------------------------------

namespace {

struct Sums {  // number p of a row is the sum of p and p + 1 of the row before it
    Sums(int phases, int pieces) : pieces((size_t)pieces), rows((size_t)(phases + 1) * this->pieces), commits(rows.size()) {
        for (size_t p = 0; p < this->pieces; p++) rows[p] = p;
    }
    uint64_t sum(size_t phase, size_t p) const { return rows[phase * pieces + p] + rows[phase * pieces + (p + 1) % pieces]; }

    const size_t pieces;
    std::vector<uint64_t> rows;
    std::vector<int> commits;
};

// Phases in turns in lane 0 and in everybody's own lane.
void walk_sums(Pool& pool, Sums& sums, int phases, int thread) {
    const int threads = pool.size(), pieces = (int)sums.pieces;
    for (int phase = 0; phase < phases; phase++)
        for (int i = 0; i < (phase % 2 ? threads : 1); i++) {
            const int lane = phase % 2 ? 1 + (thread + i) % threads : 0;
            const int first = lane ? pieces * (lane - 1) / threads : 0, last = lane ? pieces * lane / threads : pieces;
            pool.phase(thread, lane, last - first, [&](int piece, auto&& commit) {
                const uint64_t sum = sums.sum((size_t)phase, (size_t)(first + piece));
                if (!commit()) return;
                const size_t at = (size_t)(phase + 1) * sums.pieces + (size_t)(first + piece);
                sums.rows[at] = sum, sums.commits[at]++;
            });
        }
}

}  // namespace

uint64_t rehearse(int threads, int walks, int phases, int pieces, int held_every, int microseconds) {
    Pool pool(threads);
    pool.make_room(pieces);
    pool.hold(held_every, microseconds);
    pool.set_redoing(true);
    for (int walk = 0; walk < walks; walk++) {
        const auto sums = std::make_shared<Sums>(phases, pieces);
        pool.walk([&pool, sums, phases](int thread) { walk_sums(pool, *sums, phases, thread); });
        for (size_t phase = 0; phase < (size_t)phases; phase++)
            for (size_t p = 0; p < sums->pieces; p++) {
                const size_t at = (phase + 1) * sums->pieces + p;
                if (sums->rows[at] != sums->sum(phase, p) || sums->commits[at] != 1) throw std::logic_error("a piece is wrong");
            }
    }
    return pool.redone();
}

}  // namespace camelid
