#include "state.h"

#include <algorithm>
#include <iterator>

namespace camelid {

KvCache::KvCache(const Config& config, const Heads& heads)
    : layers_(config.layers), kv_heads_(config.kv_heads), key_halves_((size_t)LANES * (size_t)heads.width),
      value_halves_((size_t)LANES * (size_t)heads.padded) {}

void KvCache::allocate(int pages) {
    n_pages_ = pages;
    const size_t runs = ((size_t)pages + KV_CHUNK_PAGES - 1) / KV_CHUNK_PAGES * (size_t)(layers_ * kv_heads_);
    const size_t halves = runs * KV_CHUNK_PAGES * (key_halves_ + value_halves_);
    memory_ = Arena();
    memory_ = Arena(halves * 2 + 8192, true);  // reading ahead may touch what lies behind
}

// Sixteen pages in line lie together: a head's keys, which are read in one run, then its values, then the next head's. All
// layers of them lie in one piece, so that large pages of memory are used from end to end.
KvCache::Page KvCache::page(int layer, int head, int number) const {
    const size_t run = (size_t)(number / KV_CHUNK_PAGES), place = (size_t)(number % KV_CHUNK_PAGES);
    const size_t index = (run * (size_t)layers_ + (size_t)layer) * (size_t)kv_heads_ + (size_t)head;
    uint16_t* keys = (uint16_t*)memory_.data() + index * KV_CHUNK_PAGES * (key_halves_ + value_halves_);
    return {keys + place * key_halves_, keys + KV_CHUNK_PAGES * key_halves_ + place * value_halves_};
}

void KvCache::copy_page(int source, int target) {
    for (int layer = 0; layer < layers_; layer++)
        for (int head = 0; head < kv_heads_; head++) {
            const Page from = page(layer, head, source), to = page(layer, head, target);
            std::memcpy(to.keys, from.keys, 2 * key_halves_), std::memcpy(to.values, from.values, 2 * value_halves_);
        }
}

State::State(const Config& config, const Heads& heads, int threads)
    : dim(padded(config.dim)), q(padded(config.heads * config.head_dim)), kv(padded(config.kv_heads * config.head_dim)),
      ffn(padded(config.ffn_dim)), vocab(padded(config.vocab)), widest(std::max({dim, q, ffn})), qkv_stride(q + 2 * kv),
      cache(config, heads), scratch((size_t)threads), config_(config), heads_(heads) {}

void State::start(const Batch& batch) {
    tokens = batch.tokens;
    const size_t n = (size_t)tokens;
    x.grow(n * dim), qkv.grow(n * qkv_stride), attn.grow(n * q), hidden.grow(n * ffn);
    if (config_.norms_after) added.grow(n * dim);
    if (vocab != config_.vocab) logits.grow(batch.logits_rows.size() * vocab);
    token_span.assign(n, 0), token_int16.resize(n);
    partial_at.assign(n, 0), n_partials.assign(n, 0);
    for (int s = 0; s < (int)batch.spans.size(); s++) {
        const Span& span = batch.spans[(size_t)s];
        for (int t = 0; t < span.length; t++) {
            token_span[(size_t)(span.first + t)] = s;
            token_int16[(size_t)(span.first + t)] = span.start + t < INT16_POSITIONS;
        }
    }
    wanted.clear(), logits_at.clear(), hidden_at.clear();
    std::set_union(batch.logits_rows.begin(), batch.logits_rows.end(), batch.hidden_rows.begin(), batch.hidden_rows.end(),
                   std::back_inserter(wanted));
    const auto place = [&](int row) { return (int)(std::lower_bound(wanted.begin(), wanted.end(), row) - wanted.begin()); };
    for (int row : batch.logits_rows) logits_at.push_back(place(row));
    for (int row : batch.hidden_rows) hidden_at.push_back(place(row));

    const size_t rows = (size_t)std::max(TASK_ROWS, heads_.group), padded_rows = rows * (size_t)heads_.padded;
    for (Scratch& s : scratch) {
        s.normed.grow((size_t)widest), s.row.grow((size_t)widest), s.gated.grow(2 * GATED_TOKENS * GATED_GROUPS * LANES);
        s.queries.grow(padded_rows), s.scores.grow(rows * KV_CHUNK), s.limits.grow(rows);
        s.row_max.grow(rows), s.row_sum.grow(rows), s.weighted.grow(padded_rows);
        s.total_max.grow(rows), s.total_sum.grow(rows), s.total_weighted.grow(padded_rows);
    }
}

}  // namespace camelid
