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
      cache(config, heads), scratch((size_t)threads), config_(config), heads_(heads) {
    const size_t rows = (size_t)std::max(TASK_ROWS, heads_.group), padded_rows = rows * (size_t)heads_.padded;
    for (Scratch& s : scratch) {
        s.normed.grow((size_t)widest), s.row.grow((size_t)widest), s.gated.grow(2 * GATED_TOKENS * GATED_GROUPS * LANES);
        s.queries.grow(padded_rows), s.scores.grow(rows * KV_CHUNK), s.limits.grow(rows);
        s.row_max.grow(rows), s.row_sum.grow(rows), s.weighted.grow(padded_rows);
        s.total_max.grow(rows), s.total_sum.grow(rows), s.total_weighted.grow(padded_rows);
        s.page.grow(cache.key_halves() + cache.value_halves());
    }
}

Pass State::plan(const Batch& batch) const {
    Pass pass;
    pass.tokens = batch.tokens, pass.spans = batch.spans, pass.logits = batch.logits, pass.hidden = batch.hidden;
    const size_t n = (size_t)batch.tokens, half = (size_t)heads_.width / 2;
    pass.token_span.reserve(n), pass.token_int16.reserve(n), pass.token_adapter.reserve(n), pass.cos.reserve(n * half), pass.sin.reserve(n * half);
    pass.partial_at.assign(n, 0), pass.n_partials.assign(n, 0);
    for (int s = 0; s < (int)batch.spans.size(); s++) {
        const Span& span = batch.spans[(size_t)s];
        const size_t begin = (size_t)span.start * half, end = begin + (size_t)span.length * half;
        pass.cos.insert(pass.cos.end(), batch.cos + begin, batch.cos + end);
        pass.sin.insert(pass.sin.end(), batch.sin + begin, batch.sin + end);
        pass.pages.insert(pass.pages.end(), span.pages, span.pages + span.n_pages);
        pass.token_adapter.insert(pass.token_adapter.end(), (size_t)span.length, span.adapter);
        pass.adapts |= span.adapter > 0;
        for (int t = 0; t < span.length; t++)
            pass.token_span.push_back(s), pass.token_int16.push_back(span.start + t < INT16_POSITIONS);
    }
    const int32_t* pages = pass.pages.data();
    for (Span& span : pass.spans) span.pages = pages, pages += span.n_pages;
    std::set_union(batch.logits_rows.begin(), batch.logits_rows.end(), batch.hidden_rows.begin(), batch.hidden_rows.end(),
                   std::back_inserter(pass.wanted));
    const auto place = [&](int row) {
        return (int)(std::lower_bound(pass.wanted.begin(), pass.wanted.end(), row) - pass.wanted.begin());
    };
    for (int row : batch.logits_rows) pass.logits_at.push_back(place(row));
    for (int row : batch.hidden_rows) pass.hidden_at.push_back(place(row));
    return pass;
}

void State::make_room(const Pass& pass, Pool& pool) {
    const size_t n = (size_t)pass.tokens;
    const auto room = [&](Buffer<float>& buffer, size_t size) {
        if (buffer.size() < size) pool.settle(), buffer.grow(size);
    };
    room(x, n * dim), room(qkv, n * qkv_stride), room(attn, n * q), room(hidden, n * ffn);
    if (config_.norms_after) room(added, n * dim);
    if (pass.wanted.size() < n) room(asked, pass.wanted.size() * dim);
    room(partials, (size_t)pass.partials * config_.heads * (heads_.padded + LANES));
    pool.make_room((int)std::max(pass.tasks.size(), n));
}

}  // namespace camelid
