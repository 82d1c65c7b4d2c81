// How the threads share attention: by key/value heads and tokens, and by chunks of positions where tokens are few.
#include <algorithm>
#include <cmath>

#include "forward.h"

namespace camelid {

void Model::plan_attention(const Batch& batch) {
    State& s = state_;
    const int threads = pool_.size(), width = std::max(1, TASK_ROWS / heads_.group);
    s.tasks.clear();
    s.writes_with_attention = !split_by_token(batch.tokens);
    int plenty = 0, parts = 0;
    for (const Span& span : batch.spans) {
        s.writes_with_attention &= span.length == 1;
        plenty += config.kv_heads * ((span.length + width - 1) / width);
    }
    const bool splits = plenty < 8 * threads;
    for (int number = 0; number < (int)batch.spans.size(); number++) {
        const Span& span = batch.spans[(size_t)number];
        for (int t = 0; t < span.length; t += width) {
            const int last = std::min(span.length, t + width);
            const int chunks = (span.start + last + KV_CHUNK - 1) / KV_CHUNK;
            const bool split = splits && chunks > 1 && last - t <= 4;
            for (int head = 0; head < config.kv_heads; head++) {
                // The last chunk comes first: where keys are written with it, others do not wait for its end.
                for (int n = split ? chunks : 1; n > 0; n--)
                    s.tasks.push_back({number, head, t, last, split ? n - 1 : 0, split ? n : chunks, split});
            }
            if (split)
                for (int i = span.first + t; i < span.first + last; i++)
                    s.partial_at[(size_t)i] = parts, s.n_partials[(size_t)i] = chunks, parts += chunks;
        }
    }
    s.partials.grow((size_t)parts * config.heads * (heads_.padded + LANES));
}

void Model::write_keys(const Batch& batch, int layer, int token, int head) {
    const Span& span = batch.spans[(size_t)state_.token_span[(size_t)token]];
    const int position = span.start + token - span.first, width = heads_.width, half = width / 2;
    const float* key = state_.qkv.data() + (size_t)token * state_.qkv_stride + state_.q + head * width;
    float rotated[1024];
    k_.rope(key, batch.cos + (size_t)position * half, batch.sin + (size_t)position * half, width, 1.0f, rotated);
    const KvCache::Page page = state_.cache.page(layer, head, span.pages[position / LANES]);
    k_.write_key(rotated, heads_, page.keys, position % LANES);
    k_.write_value(key + state_.kv, heads_, page.values, position % LANES);
}

void Model::attention(const Batch& batch, int layer, int thread) {
    const std::vector<AttentionTask>& tasks = state_.tasks;
    if (!state_.writes_with_attention) {
        each_token(thread, batch.tokens, [&](int t) {
            for (int head = 0; head < config.kv_heads; head++) write_keys(batch, layer, t, head);
        });
        pool_.barrier();
    }
    const int n = (int)tasks.size();
    const auto run_task = [&](int i, int next) {
        attention_task(batch, layer, thread, tasks[(size_t)i], tasks[(size_t)std::min(next, n - 1)]);
    };
    if (split_by_token(batch.tokens))
        for (int i, end; pool_.take(thread, n, 1, i, end);) run_task(i, i + 1);  // its own tokens first
    else
        for (int i = thread; i < n; i = pool_.ticket()) run_task(i, i + pool_.size());
}

void Model::gather_queries(const Batch& batch, const AttentionTask& task, Scratch& scratch) {
    const Span& span = batch.spans[(size_t)task.span];
    const int width = heads_.width, half = width / 2, group = heads_.group;
    const float scale = 1.0f / std::sqrt((float)width);
    for (int t = task.first, r = 0; t < task.last; t++) {
        const int position = span.start + t;
        const float* row = state_.qkv.data() + (size_t)(span.first + t) * state_.qkv_stride + task.head * group * width;
        for (int g = 0; g < group; g++, r++) {
            float* query = scratch.queries.data() + (size_t)r * heads_.padded;
            k_.rope(row + g * width, batch.cos + (size_t)position * half, batch.sin + (size_t)position * half, width, scale,
                    query);
            k_.pack_query(heads_, query);
            scratch.limits[(size_t)r] = position + 1;
        }
    }
}

// Page `p` of the keys that are probably read next: a chunk of the same task, or the first of another one.
const uint16_t* Model::next_keys(const Batch& batch, int layer, const AttentionTask& task, int chunk, int p) const {
    const Span& span = batch.spans[(size_t)task.span];
    if (chunk < task.begin || chunk >= task.end) chunk = task.begin;
    return state_.cache.page(layer, task.head, span.pages[std::min(chunk * KV_CHUNK_PAGES + p, span.n_pages - 1)]).keys;
}

void Model::attention_task(const Batch& batch, int layer, int thread, const AttentionTask& task, const AttentionTask& next) {
    const Span& span = batch.spans[(size_t)task.span];
    Scratch& s = state_.scratch[(size_t)thread];
    const int padded = heads_.padded, rows = (task.last - task.first) * heads_.group, end = span.start + task.last;
    if (state_.writes_with_attention && task.end * KV_CHUNK >= end) write_keys(batch, layer, span.first, task.head);
    gather_queries(batch, task, s);
    std::fill_n(s.total_sum.data(), rows, 0.0f);
    for (int chunk = task.begin; chunk < task.end; chunk++) {
        const int begin = chunk * KV_CHUNK, n = std::min(KV_CHUNK, end - begin);
        const uint16_t *key_pages[KV_CHUNK_PAGES + AHEAD], *value_pages[KV_CHUNK_PAGES + AHEAD];
        const int pages = (n + LANES - 1) / LANES;
        for (int p = 0; p < pages; p++) {
            const KvCache::Page page = state_.cache.page(layer, task.head, span.pages[begin / LANES + p]);
            key_pages[p] = page.keys, value_pages[p] = page.values;
        }
        for (int p = 0; p < AHEAD; p++) {  // what is read after the keys, and after the values
            key_pages[pages + p] = value_pages[std::min(p, pages - 1)];
            value_pages[pages + p] = next_keys(batch, layer, chunk + 1 < task.end ? task : next, chunk + 1, p);
        }
        k_.attention(heads_, s.queries.data(), rows, s.limits.data(), key_pages, value_pages, begin, n, s.scores.data(),
                     s.row_max.data(), s.row_sum.data(), s.weighted.data());
        if (task.split) {
            store_partials(span, task, chunk, s);
            continue;
        }
        for (int r = 0; r < rows; r++)
            k_.merge(padded, s.total_max[(size_t)r], s.total_sum[(size_t)r], s.total_weighted.data() + (size_t)r * padded,
                     s.row_max[(size_t)r], s.row_sum[(size_t)r], s.weighted.data() + (size_t)r * padded);
    }
    if (!task.split) store_attention(span, task, s);
}

// Where a chunk's result of a token's query head lies: the largest score, the sum of powers, and from LANES on the values.
float* Model::partial(int token, int head, int chunk) const {
    const size_t index = (size_t)(state_.partial_at[(size_t)token] + chunk) * config.heads + head;
    return state_.partials.data() + index * (heads_.padded + LANES);
}

void Model::store_partials(const Span& span, const AttentionTask& task, int chunk, const Scratch& s) {
    const int group = heads_.group, rows = (task.last - task.first) * group;
    for (int r = 0; r < rows; r++) {
        float* to = partial(span.first + task.first + r / group, task.head * group + r % group, chunk);
        to[0] = s.row_max[(size_t)r], to[1] = s.row_sum[(size_t)r];
        std::copy_n(s.weighted.data() + (size_t)r * heads_.padded, heads_.padded, to + LANES);
    }
}

void Model::store_attention(const Span& span, const AttentionTask& task, const Scratch& s) {
    const int group = heads_.group, rows = (task.last - task.first) * group;
    for (int r = 0; r < rows; r++) {
        const int token = span.first + task.first + r / group, head = task.head * group + r % group;
        float* out = state_.attn.data() + (size_t)token * state_.q + head * heads_.width;
        const float inverse = 1.0f / s.total_sum[(size_t)r], *weighted = s.total_weighted.data() + (size_t)r * heads_.padded;
        for (int i = 0; i < heads_.width; i++) out[i] = weighted[i] * inverse;
    }
}

// A token's attention of all heads; chunks that were summed apart are folded together in their order.
const float* Model::attention_row(int token, Scratch& s) {
    const int chunks = state_.n_partials[(size_t)token], width = heads_.width;
    if (!chunks) return state_.attn.data() + (size_t)token * state_.q;
    float* row = s.row.data();
    for (int head = 0; head < config.heads; head++) {
        float row_max = 0, row_sum = 0, *weighted = s.total_weighted.data();
        for (int i = 0; i < chunks; i++) {
            const float* part = partial(token, head, i);
            k_.merge(heads_.padded, row_max, row_sum, weighted, part[0], part[1], part + LANES);
        }
        const float inverse = 1.0f / row_sum;
        for (int i = 0; i < width; i++) row[head * width + i] = weighted[i] * inverse;
    }
    return row;
}

}  // namespace camelid
