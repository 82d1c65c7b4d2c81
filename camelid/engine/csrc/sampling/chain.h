// How the ids of an answer are chosen, and the random numbers for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace camelid {

enum class Step { BIAS, REPETITION, PRESENCE, FREQUENCY, TEMPERATURE, TOP_N_SIGMA, TOP_K, TOP_P, MIN_P, TYPICAL, EPSILON, ETA };
constexpr const char* STEPS[] = {"bias",  "repetition", "presence", "frequency", "temperature", "top_n_sigma",
                                 "top_k", "top_p",      "min_p",    "typical",   "epsilon",     "eta"};

using Counts = std::vector<std::pair<int32_t, int32_t>>;  // ids, which ascend, and how often each stands there

// How the ids of one answer are chosen, and what was read and written so far.
struct Chain {
    std::vector<std::pair<Step, double>> steps;    // that do something, in order, with what steers them (min-p: its logarithm)
    std::vector<std::pair<int32_t, double>> bias;  // ids ascend
    std::vector<int32_t> banned, banned_early;     // where there is no mask: at any time; before `min_tokens` are written
    bool is_greedy, keeps_ties, counts_prompt;
    size_t n_prompt, window, min_tokens;  // window 0: penalties look at all ids
    uint64_t seed, sample;
    int alternatives;  // how many likely ids are told; −1: no log-probabilities at all

    Counts recent, counted;  // ids that are repeated; ids that were counted
    std::vector<int32_t> seen;

    bool has(Step step) const;
    bool looks_back() const { return has(Step::REPETITION) || has(Step::PRESENCE) || has(Step::FREQUENCY); }
    void see(int32_t id);  // the text's next id
    void forget();
};

// A random number below 1: numpy.random.Generator(numpy.random.Philox(key=[seed, sample], counter=[index, purpose, 0, 0])).random()
double chance(uint64_t seed, uint64_t sample, uint64_t index, uint64_t purpose);

}  // namespace camelid
