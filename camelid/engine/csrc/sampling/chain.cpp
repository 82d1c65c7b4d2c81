#include "chain.h"

#include <algorithm>

namespace camelid {
namespace {

Counts::iterator place_of(Counts& counts, int32_t id) {
    return std::lower_bound(counts.begin(), counts.end(), id, [](const auto& entry, int32_t id) { return entry.first < id; });
}

void count(Counts& counts, int32_t id) {
    const auto place = place_of(counts, id);
    if (place != counts.end() && place->first == id) place->second++;
    else counts.insert(place, {id, 1});
}

void discount(Counts& counts, int32_t id) {
    const auto place = place_of(counts, id);
    if (--place->second == 0) counts.erase(place);
}

}  // namespace

double chance(uint64_t seed, uint64_t sample, uint64_t index, uint64_t purpose) {
    // Philox 4x64-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". NumPy raises the counter first.
    uint64_t counter[4] = {index + 1, purpose + (index == UINT64_MAX), 0, 0}, key[2] = {seed, sample};
    const auto high = [](uint64_t a, uint64_t b, uint64_t& low) {
        const uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
        const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & 0xffffffff);
        low = a * b;
        return a1 * b1 + (middle >> 32) + (other >> 32);
    };
    for (int round = 0; round < 10; round++) {
        uint64_t low0, low1;
        const uint64_t high0 = high(0xD2E7470EE14C6C93, counter[0], low0), high1 = high(0xCA5A826395121157, counter[2], low1);
        counter[0] = high1 ^ counter[1] ^ key[0], counter[2] = high0 ^ counter[3] ^ key[1];
        counter[1] = low1, counter[3] = low0;
        key[0] += 0x9E3779B97F4A7C15, key[1] += 0xBB67AE8584CAA73B;
    }
    return (double)(counter[0] >> 11) * 0x1p-53;
}

bool Chain::has(Step step) const {
    return std::any_of(steps.begin(), steps.end(), [=](const auto& each) { return each.first == step; });
}

void Chain::see(int32_t id) {
    seen.push_back(id);
    const size_t first = counts_prompt ? 0 : n_prompt;  // whose ids are counted
    const bool leaves = window && seen.size() > window;
    const size_t left = leaves ? seen.size() - 1 - window : 0;
    if (has(Step::REPETITION)) {
        count(recent, id);
        if (leaves) discount(recent, seen[left]);
    }
    if ((has(Step::PRESENCE) || has(Step::FREQUENCY)) && seen.size() > first) {
        count(counted, id);
        if (leaves && left >= first) discount(counted, seen[left]);
    }
}

void Chain::forget() { seen.clear(), recent.clear(), counted.clear(); }

}  // namespace camelid
