// The steps that remove ids.
#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <functional>

#include "sampler.h"

namespace camelid {

bool Sampler::apply(Step step, double value, const Chain& chain) {
    double total, weighted;
    switch (step) {
        case Step::TEMPERATURE:
            for (auto* some : {&ids_, &changed_})
                for (Id& each : *some) each.logit /= value;
            temperature_ = value;
            return true;
        case Step::TOP_N_SIGMA: return top_n_sigma(value);
        case Step::TOP_K: return top_k((size_t)value, chain.keeps_ties);
        case Step::TOP_P: return top_p(value);
        case Step::MIN_P: return keep_from(highest() + value, 0);
        case Step::TYPICAL: return typical(value, chain.keeps_ties);
        case Step::EPSILON: return at_least(value, sum());
        case Step::ETA:
            total = sum(&weighted);
            return at_least(std::min(value, std::sqrt(value) * std::exp(weighted / total) / total), total);
        default: return true;  // was done by `change`
    }
}

// Keeps ids whose logits reach a bound, and the likeliest; false where one lies so near that it cannot be said.
bool Sampler::keep_from(double bound, double doubt) {
    const double most = highest();
    become_list(std::min(most, bound - doubt));
    for (const Id& each : ids_)
        if (doubt && each.logit != most && std::abs(each.logit - bound) <= doubt) return false;
    const auto leaves = [=](const Id& each) { return each.logit < bound && each.logit != most; };
    ids_.erase(std::remove_if(ids_.begin(), ids_.end(), leaves), ids_.end());
    return true;
}

// Σ e^d of a row, good to SHORT.
constexpr double SHORT = 1e-5;
double Sampler::fast_total() {
    const double most = highest();
    double total = 0;
    for (const Id& each : changed_) total += std::exp(each.logit - most);
    if (row_highest_ > -INFINITY) {
        const double scale = std::exp(wide(row_highest_) - most);
        total += scale * kernels_.sum_of_powers(row_, n_, row_highest_, (float)(1 / temperature_));
    }
    return total;
}

// Which items are taken, by falling keys, until their masses reach the goal, the first in any case: found as `nth_element` does.
Sampler::Cut Sampler::cut(std::vector<Mass>& items, double goal, double doubt) {
    size_t low = 0, high = items.size();
    double before = 0;
    const auto mass = [&](size_t from, size_t to) {
        double all = 0;
        for (size_t i = from; i < to; i++) all += items[i].mass;
        return all;
    };
    while (high - low > 24) {
        const double a = items[low].key, b = items[low + (high - low) / 2].key, c = items[high - 1].key;
        const double pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        size_t first = low, last = high;  // those of the pivot's key
        for (size_t i = low; i < last;) {
            if (items[i].key > pivot) std::swap(items[first++], items[i++]);
            else if (items[i].key < pivot) std::swap(items[i], items[--last]);
            else i++;
        }
        const double above = before + mass(low, first), with_equal = above + mass(first, last);
        if (above >= goal) high = first;
        else if (with_equal < goal && last < high) before = with_equal, low = last;
        else {
            before = above, low = first, high = last;
            break;
        }
    }
    std::sort(items.begin() + (long)low, items.begin() + (long)high,
              [](const Mass& a, const Mass& b) { return a.key != b.key ? a.key > b.key : a.id < b.id; });
    size_t n = low;
    double before_last = 0;
    for (; n < high && (n == low || before < goal); n++) before_last = before, before += items[n].mass;
    const bool surely_takes = n == 1 || before_last < goal - doubt;
    return {items[n - 1].key, items[n - 1].id, surely_takes && before >= goal + doubt};
}

bool Sampler::top_k(size_t k, bool keeps_ties) {
    if (k >= (size_t)n_) return true;
    if (!is_list_) become_list(wide(reached_by(maxima_, k)));
    if (ids_.size() <= k) return true;
    powers_.resize(ids_.size());
    for (size_t i = 0; i < ids_.size(); i++) powers_[i] = ids_[i].logit;
    const auto place = powers_.begin() + (long)k - 1;
    std::nth_element(powers_.begin(), place, powers_.end(), std::greater<double>());
    const double kth = *place;
    const auto above = std::count_if(powers_.begin(), place, [=](double x) { return x > kth; });
    size_t equal = keeps_ties ? SIZE_MAX : k - (size_t)above;
    const auto leaves = [&](const Id& each) {
        if (each.logit == kth && equal) return equal--, false;
        return each.logit <= kth;
    };
    ids_.erase(std::remove_if(ids_.begin(), ids_.end(), leaves), ids_.end());
    return true;
}

// Cuts the list, of falling probability, where its masses reach the goal.
bool Sampler::cut_at(double goal, double doubt) {
    items_.clear();
    for (size_t i = 0; i < ids_.size(); i++) items_.push_back({ids_[i].logit, powers_[i], ids_[i].id});
    const Cut found = cut(items_, goal, doubt);
    if (!found.is_sure) return false;
    const auto leaves = [&](const Id& each) { return !found.keeps(each.logit, each.id); };
    ids_.erase(std::remove_if(ids_.begin(), ids_.end(), leaves), ids_.end());
    return true;
}

bool Sampler::top_p(double p) {
    if (is_list_) {
        const double total = sum();
        return cut_at(p * total, doubt() * total);
    }
    const double most = highest();
    for (const bool exactly : {false, true}) {
        if (!exactly && 1 - p < 4 * SHORT) continue;
        const double share = exactly ? doubt() : SHORT, total = exactly ? sum() : fast_total();
        for (const double depth : {4.0, 10.0, 30.0, 100.0}) {
            list(most - depth);
            powers_.resize(ids_.size());
            for (size_t i = 0; i < ids_.size(); i++) powers_[i] = ids_[i].logit - most;
            kernels_.powers_of(powers_.data(), (int)powers_.size());
            double held = 0;
            for (double power : powers_) held += power;
            if (held < (p + share) * total) continue;
            if (cut_at(p * total, share * total)) return is_list_ = true;
            break;
        }
    }
    return false;
}

bool Sampler::top_n_sigma(double n) {
    double total = 0, squares = 0;
    size_t count = 0;
    const auto each_of = [&](auto&& of) {
        if (!is_list_)
            for (int i = 0; i < n_; i++)
                if (row_[i] > -INFINITY) of(wide(row_[i]));
        for (const Id& each : is_list_ ? ids_ : changed_) of(each.logit);
    };
    each_of([&](double x) { total += x, count++; });
    const double mean = total / (double)count, most = highest();
    each_of([&](double x) { squares += (x - mean) * (x - mean); });
    const double deviation = std::sqrt(squares / (double)count);
    return keep_from(most - n * deviation, 1e-10 * n * deviation + 1e-12 * (1 + n) * (std::abs(most) + std::abs(mean)));
}

bool Sampler::typical(double share, bool keeps_ties) {
    become_list(NOTHING);
    double weighted;
    const double total = sum(&weighted), most = highest(), log_total = std::log(total), entropy = log_total - weighted / total;
    items_.clear();
    for (size_t i = 0; i < ids_.size(); i++) {
        const double surprise = most - ids_[i].logit + log_total;
        items_.push_back({-std::abs(surprise - entropy), powers_[i], ids_[i].id});
    }
    Cut found = cut(items_, share * total, doubt() * total);
    if (!found.is_sure) return false;
    const auto last = std::lower_bound(ids_.begin(), ids_.end(), found.id, [](const Id& a, int id) { return a.id < id; });
    if (keeps_ties) found.id = INT_MAX;
    const double limit = last->logit, near = 40 * doubt();
    const auto key = [&](const Id& each) { return -std::abs(most - each.logit + log_total - entropy); };
    for (const Id& each : ids_)
        if (each.logit != limit && std::abs(key(each) - found.key) <= near) return false;
    const auto leaves = [&](const Id& each) { return !found.keeps(key(each), each.id); };
    ids_.erase(std::remove_if(ids_.begin(), ids_.end(), leaves), ids_.end());
    return true;
}

bool Sampler::at_least(double probability, double total) {
    return keep_from(highest() + std::log(probability * total), 40 * doubt());
}

}  // namespace camelid
