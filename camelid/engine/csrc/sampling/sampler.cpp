#include "sampler.h"

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <functional>

namespace camelid {
namespace {

int blocks_of(int n) { return (n + LOGITS - 1) / LOGITS; }

// f(entry's logit, what stands beside its id) for each id of `beside`, all of which are among the entries.
template <class Entries, class Beside, class Change> void for_each_of(Entries& entries, const Beside& beside, Change&& change) {
    auto entry = entries.begin();
    for (const auto& [id, value] : beside) {
        while (entry->id < id) ++entry;
        change(entry->logit, value);
    }
}

// Places of the row's numbers from `bound` on, in order.
void collect(const float* row, int n, const std::vector<float>& maxima, float bound, std::vector<int>& found) {
    size_t size = 0;
    for (int block = 0; block < blocks_of(n); block++) {
        if (!(maxima[(size_t)block] >= bound)) continue;
        if (found.size() < size + LOGITS) found.resize(2 * found.size() + LOGITS);
        const int last = std::min(n, (block + 1) * LOGITS);
        for (int i = block * LOGITS; i < last; i++) {
            found[size] = i;
            size += row[i] >= bound;
        }
    }
    found.resize(size);
}

}  // namespace

float reached_by(std::vector<float> maxima, size_t k) {
    if (k > maxima.size()) return -FLT_MAX;
    std::nth_element(maxima.begin(), maxima.begin() + (long)k - 1, maxima.end(), std::greater<float>());
    return std::max(maxima[k - 1], -FLT_MAX);
}

Choice Sampler::choose(const float* row, int n, const Chain& chain, size_t n_written, const uint8_t* mask) {
    Choice choice;
    if (!begin(row, n, chain, n_written, mask) || !change(chain) || highest() == NOTHING) return choice;
    if (chain.is_greedy) {
        choice.id = greedy();
    } else {
        for (const auto& [step, value] : chain.steps)
            if (!apply(step, value, chain)) return choice;
        if (!draw(chance(chain.seed, chain.sample, n_written, 0), choice)) return choice;
    }
    choice.is_sure = chain.alternatives < 0 || report(row, chain, choice);
    return choice;
}

// Takes a row with what may not come at −∞; false where a logit is NaN or +∞, or all are −∞.
bool Sampler::begin(const float* row, int n, const Chain& chain, size_t n_written, const uint8_t* mask) {
    row_ = row, n_ = n, temperature_ = 1, total_ = 1, is_list_ = false;
    ids_.clear(), changed_.clear();
    if (mask) {
        copy_.resize((size_t)n);
        for (int i = 0; i < n; i++) copy_[(size_t)i] = mask[i] ? row[i] : -INFINITY;
        row_ = copy_.data();
    } else {
        const auto ban = [&](const std::vector<int32_t>& ids) {
            for (int32_t id : ids)
                if (id >= 0 && id < n) copied()[id] = -INFINITY;
        };
        ban(chain.banned);
        if (n_written < chain.min_tokens) ban(chain.banned_early);
    }
    maxima_.resize((size_t)blocks_of(n));
    if (!kernels_.block_maxima(row_, n, maxima_.data())) return false;
    row_highest_ = *std::max_element(maxima_.begin(), maxima_.end());
    return row_highest_ > -INFINITY;
}

// A copy of the row to write in.
float* Sampler::copied() {
    if (row_ != copy_.data()) {
        copy_.assign(row_, row_ + n_);
        row_ = copy_.data();
    }
    return copy_.data();
}

// Bias and penalties, which come first in every order: their ids leave the row.
bool Sampler::change(const Chain& chain) {
    std::vector<int32_t> ids;
    for (const auto& [step, value] : chain.steps) {
        const auto add = [&](const auto& more) { for (const auto& entry : more) ids.push_back(entry.first); };
        if (step == Step::BIAS) add(chain.bias);
        if (step == Step::REPETITION) add(chain.recent);
        if (step == Step::PRESENCE || (step == Step::FREQUENCY && !chain.has(Step::PRESENCE))) add(chain.counted);
    }
    if (ids.empty()) return true;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    if (ids.front() < 0 || ids.back() >= n_) return false;
    for (int32_t id : ids) changed_.push_back({id, (double)row_[id]});
    for (const auto& [step, value] : chain.steps) {
        const double by = value;
        if (step == Step::BIAS) for_each_of(changed_, chain.bias, [](double& x, double more) { x += more; });
        if (step == Step::REPETITION)
            for_each_of(changed_, chain.recent, [by](double& x, int) { x = x > 0 ? x / by : x * by; });
        if (step == Step::PRESENCE) for_each_of(changed_, chain.counted, [by](double& x, int) { x -= by; });
        if (step == Step::FREQUENCY) for_each_of(changed_, chain.counted, [by](double& x, int n) { x -= (double)n * by; });
    }
    float* copy = copied();
    for (int32_t id : ids) copy[id] = -INFINITY;
    int done = -1;
    for (int32_t id : ids)
        if (id / LOGITS != done) {
            done = id / LOGITS;
            kernels_.block_maxima(copy + done * LOGITS, std::min(LOGITS, n_ - done * LOGITS), &maxima_[(size_t)done]);
        }
    row_highest_ = *std::max_element(maxima_.begin(), maxima_.end());
    changed_.erase(std::remove_if(changed_.begin(), changed_.end(), [](const Id& each) { return each.logit == NOTHING; }),
                   changed_.end());
    return true;
}

int Sampler::greedy() const {
    int best = INT_MAX;
    double most = NOTHING;
    if (row_highest_ > -INFINITY) {
        best = (int)(std::find(maxima_.begin(), maxima_.end(), row_highest_) - maxima_.begin()) * LOGITS;
        while (row_[best] != row_highest_) best++;
        most = (double)row_highest_;
    }
    for (const Id& each : changed_)
        if (each.logit > most || (each.logit == most && each.id < best)) best = each.id, most = each.logit;
    return best;
}

double Sampler::highest() const {
    double most = NOTHING;
    if (!is_list_) most = wide(row_highest_);
    for (const Id& each : is_list_ ? ids_ : changed_) most = std::max(most, each.logit);
    return most;
}

// How far probabilities of here and of `steps.py` may differ, as a share: far more than sums and powers lose. Differences of
// large logits lose more. Ids 750 below the likeliest have no probability.
double Sampler::doubt() const { return 1e-11 + 4e-16 * n_ + 1e-15 * (std::abs(highest()) + 750); }

// Lists the ids whose logits reach a bound, or all that are left of the row; the row stays what is left.
void Sampler::list(double bound) {
    const double least = std::min(std::max(bound * temperature_, (double)-FLT_MAX), (double)FLT_MAX);
    float from = (float)least;
    if (bound > NOTHING)  // divided by the temperature, the number before may reach it too
        for (int i = 0; i < 2; i++) from = std::max(std::nextafter(from, -INFINITY), -FLT_MAX);
    collect(row_, n_, maxima_, from, found_);
    ids_.clear();
    auto other = changed_.begin();
    const auto add = [&](int id, double logit) {
        if (logit >= bound) ids_.push_back({id, logit});
    };
    for (int id : found_) {
        for (; other != changed_.end() && other->id < id; ++other) add(other->id, other->logit);
        add(id, wide(row_[id]));
    }
    for (; other != changed_.end(); ++other) add(other->id, other->logit);
}

void Sampler::become_list(double bound) {
    if (!is_list_) list(bound);
    is_list_ = true;
}

// Σ e^d and Σ e^d · d of what is left, d being what a logit lies above the highest. A list's powers stay in `powers_`, a row's
// sums of blocks in `block_sums_`.
double Sampler::sum(double* weighted) {
    const double most = highest();
    const std::vector<Id>& some = is_list_ ? ids_ : changed_;
    double total = 0, unused;
    if (!weighted) weighted = &unused;
    *weighted = 0;
    powers_.resize(some.size());
    for (size_t i = 0; i < some.size(); i++) powers_[i] = some[i].logit - most;
    kernels_.powers_of(powers_.data(), (int)powers_.size());
    for (size_t i = 0; i < some.size(); i++) {
        total += powers_[i];
        *weighted += powers_[i] * std::max(some[i].logit - most, -LEAST_POWER);
    }
    if (is_list_) return total;
    const double of_row = wide(row_highest_), below = of_row - most;
    block_sums_.assign(maxima_.size(), 0), block_weighted_.assign(maxima_.size(), 0);
    if (!(below > -LEAST_POWER)) return total;
    kernels_.block_sums(row_, n_, row_highest_, 1 / temperature_, block_sums_.data(),
                        weighted == &unused ? nullptr : block_weighted_.data());
    const double scale = std::exp(below);
    for (size_t i = 0; i < maxima_.size(); i++) {
        *weighted += scale * (block_weighted_[i] + below * block_sums_[i]);
        total += block_sums_[i] *= scale;
    }
    return total;
}

bool Sampler::draw(double share, Choice& choice) {
    if (!is_list_) return draw_of_row(share, choice);
    if (ids_.size() == 1) {
        choice.id = ids_[0].id, total_ = 1;
        return true;
    }
    double before = 0;
    total_ = sum();
    const double goal = share * total_, unsure = doubt() * total_;
    for (size_t i = 0; i < ids_.size(); before += powers_[i++]) {
        const double after = before + powers_[i];
        if (after <= goal) continue;
        if ((i && goal - before <= unsure) || (i + 1 < ids_.size() && after - goal <= unsure)) return false;
        choice.id = ids_[i].id;
        return sampled(choice.id, choice.sampled_logprob);
    }
    return false;
}

// The same from a whole row: first its block, then the id.
bool Sampler::draw_of_row(double share, Choice& choice) {
    total_ = sum();
    for (size_t i = 0; i < changed_.size(); i++) block_sums_[(size_t)(changed_[i].id / LOGITS)] += powers_[i];
    const double goal = share * total_, unsure = doubt() * total_, most = highest();
    double before = 0;
    int block = 0;
    const int last_block = blocks_of(n_) - 1;
    while (block < last_block && before + block_sums_[(size_t)block] <= goal - unsure) before += block_sums_[(size_t)block++];
    auto other = std::lower_bound(changed_.begin(), changed_.end(), block * LOGITS, [](const Id& a, int id) { return a.id < id; });
    for (int id = block * LOGITS; id < n_; id++) {
        const bool is_changed = other != changed_.end() && other->id == id;
        const double logit = is_changed ? (other++)->logit : wide(row_[id]);
        const double after = before + std::exp(logit - most);
        if (after > goal) {
            if ((id && goal - before <= unsure) || (id + 1 < n_ && after - goal <= unsure)) return false;
            choice.id = id;
            choice.sampled_logprob = logit - most - std::log(total_);
            return true;
        }
        before = after;
    }
    return false;
}

// The log-probability that an id was drawn with, −∞ if it was not possible; false where that cannot be said.
bool Sampler::sampled(int id, double& logprob) const {
    const std::vector<Id>& some = is_list_ ? ids_ : changed_;
    const auto found = std::lower_bound(some.begin(), some.end(), id, [](const Id& a, int id) { return a.id < id; });
    double logit = NOTHING;
    if (found != some.end() && found->id == id) logit = found->logit;
    else if (!is_list_) logit = wide(row_[id]);
    const double below = logit - highest();
    logprob = below < -760 ? NOTHING : below - std::log(total_);
    return below < -760 || below > -700;  // between them numbers become so small that they are 0
}

bool Sampler::report(const float* raw, const Chain& chain, Choice& choice) {
    raw_maxima_.resize(maxima_.size());
    if (!kernels_.block_maxima(raw, n_, raw_maxima_.data())) return false;
    const double most = *std::max_element(raw_maxima_.begin(), raw_maxima_.end());
    block_sums_.resize(maxima_.size());
    kernels_.block_sums(raw, n_, most, 1, block_sums_.data(), nullptr);
    double total = 0;
    for (double block : block_sums_) total += block;
    const double log_sum = most + std::log(total);
    choice.logprob = (double)raw[choice.id] - log_sum;
    choice.rank = kernels_.count_above(raw, n_, raw[choice.id]) + 1;
    const size_t n = std::min((size_t)chain.alternatives, (size_t)n_);
    if (!n) return true;
    collect(raw, n_, raw_maxima_, reached_by(raw_maxima_, n), found_);
    const size_t told = std::min(n, found_.size());
    std::partial_sort(found_.begin(), found_.begin() + (long)told, found_.end(),
                      [=](int a, int b) { return raw[a] != raw[b] ? raw[a] > raw[b] : a < b; });
    for (size_t i = 0; i < told; i++) {
        const int id = found_[i];
        double logprob = id == choice.id ? 0 : NOTHING;
        if (!chain.is_greedy && !sampled(id, logprob)) return false;
        choice.likeliest.push_back({id, (double)raw[id] - log_sum, logprob});
    }
    return true;
}

}  // namespace camelid
