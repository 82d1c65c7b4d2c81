// How the threads share attention: by key/value heads and tokens, and by chunks of positions where tokens are few.
#include <algorithm>
#include <cmath>

#include "forward.h"

namespace camelid {

void Model::plan_attention(Pass& pass) const {
    const int threads = pool_.size(), width = std::max(1, TASK_ROWS / heads_.group);
    pass.writes_with_attention = !split_by_token(pass.tokens);
    int plenty = 0;
    for (const Span& span : pass.spans) {
        pass.writes_with_attention &= span.length == 1;
        plenty += config.kv_heads * ((span.length + width - 1) / width);
    }
    const bool splits = plenty < 8 * threads;
    for (int number = 0; number < (int)pass.spans.size(); number++) {
        const Span& span = pass.spans[(size_t)number];
        for (int t = 0; t < span.length; t += width) {
            const int last = std::min(span.length, t + width);
            const int chunks = (span.start + last + KV_CHUNK - 1) / KV_CHUNK;
            const bool split = splits && chunks > 1 && last - t <= 4;
            for (int head = 0; head < config.kv_heads; head++) {
                for (int n = split ? chunks : 1; n > 0; n--)
                    pass.tasks.push_back({number, head, t, last, split ? n - 1 : 0, split ? n : chunks, split});
            }
            if (split)
                for (int i = span.first + t; i < span.first + last; i++)
                    pass.partial_at[(size_t)i] = pass.partials, pass.n_partials[(size_t)i] = chunks, pass.partials += chunks;
        }
    }
}

void Model::attention(const Worker& w, int layer) {
    const std::vector<AttentionTask>& tasks = w.pass.tasks;
    const int n = (int)tasks.size();
    pool_.phase(w.thread, 0, n, [&](int i, auto&& commit) {
        const AttentionTask &task = tasks[(size_t)i], &next = tasks[(size_t)std::min(i + 1, n - 1)];
        const Span& span = w.pass.spans[(size_t)task.span];
        const bool writes = w.pass.writes_with_attention && task.end * KV_CHUNK >= span.start + task.last;
        const int token = span.first, kv_head = state_.q + task.head * heads_.width;
        const float* value = state_.qkv.data() + (size_t)token * state_.qkv_stride + state_.kv + kv_head;
        float rotated[1024];
        KvCache::Page page{}, own{};
        if (writes) {  // a copy of the token's page, until the piece is committed
            page = page_of(w.pass, layer, token, task.head);
            own = {w.scratch.page.data(), w.scratch.page.data() + state_.cache.key_halves()};
            std::copy_n(page.keys, state_.cache.key_halves(), own.keys);
            std::copy_n(page.values, state_.cache.value_halves(), own.values);
            rotate_key(w.pass, token, task.head, rotated);
            write_key(rotated, value, own, span.start);
        }
        attend(w, layer, task, next, writes ? &own : nullptr);
        if (!commit()) return;
        if (writes) write_key(rotated, value, page, span.start);
        task.split ? store_partials(w.pass, task, w.scratch) : store_attention(w.pass, task, w.scratch);
    });
}

// Before attention, where tokens of one batch read each other's keys.
void Model::write_all_keys(const Worker& w, int layer) {
    const int width = heads_.width;
    const size_t row = (size_t)(config.kv_heads * width);
    each_run(w, tokens_of(w, w.pass.tokens), [&](int first, int n, auto&& commit) {
        float* rotated = w.scratch.results.grow((size_t)n * row);
        for (int t = 0; t < n; t++)
            for (int head = 0; head < config.kv_heads; head++)
                rotate_key(w.pass, first + t, head, rotated + (size_t)t * row + head * width);
        if (!commit()) return;
        for (int t = first; t < first + n; t++) {
            const Span& span = w.pass.spans[(size_t)w.pass.token_span[(size_t)t]];
            const float* values = state_.qkv.data() + (size_t)t * state_.qkv_stride + state_.q + state_.kv;
            for (int head = 0; head < config.kv_heads; head++)
                write_key(rotated + (size_t)(t - first) * row + head * width, values + head * width,
                          page_of(w.pass, layer, t, head), span.start + t - span.first);
        }
    });
}

void Model::rotate_key(const Pass& pass, int token, int head, float* rotated) const {
    const int width = heads_.width, half = width / 2;
    const float* key = state_.qkv.data() + (size_t)token * state_.qkv_stride + state_.q + head * width;
    k_.rope(key, pass.cos.data() + (size_t)token * half, pass.sin.data() + (size_t)token * half, width, 1.0f, rotated);
}

KvCache::Page Model::page_of(const Pass& pass, int layer, int token, int head) const {
    const Span& span = pass.spans[(size_t)pass.token_span[(size_t)token]];
    return state_.cache.page(layer, head, span.pages[(span.start + token - span.first) / LANES]);
}

void Model::write_key(const float* rotated, const float* value, const KvCache::Page& page, int position) const {
    k_.write_key(rotated, heads_, page.keys, position % LANES);
    k_.write_value(value, heads_, page.values, position % LANES);
}

void Model::gather_queries(const Worker& w, const AttentionTask& task) {
    Scratch& scratch = w.scratch;
    const Span& span = w.pass.spans[(size_t)task.span];
    const int width = heads_.width, half = width / 2, group = heads_.group;
    const float scale = 1.0f / std::sqrt((float)width);
    for (int t = task.first, r = 0; t < task.last; t++) {
        const size_t token = (size_t)(span.first + t);
        const float* row = state_.qkv.data() + token * state_.qkv_stride + task.head * group * width;
        for (int g = 0; g < group; g++, r++) {
            float* query = scratch.queries.data() + (size_t)r * heads_.padded;
            k_.rope(row + g * width, w.pass.cos.data() + token * half, w.pass.sin.data() + token * half, width, scale, query);
            k_.pack_query(heads_, query);
            scratch.limits[(size_t)r] = span.start + t + 1;
        }
    }
}

// Page `p` of the keys that are probably read next: a chunk of the same task, or the first of another one.
const uint16_t* Model::next_keys(const Pass& pass, int layer, const AttentionTask& task, int chunk, int p) const {
    const Span& span = pass.spans[(size_t)task.span];
    if (chunk < task.begin || chunk >= task.end) chunk = task.begin;
    return state_.cache.page(layer, task.head, span.pages[std::min(chunk * KV_CHUNK_PAGES + p, span.n_pages - 1)]).keys;
}

// Leaves a task's results in the thread's scratch. `newest`: a copy of the last page, with the keys of the token itself.
void Model::attend(const Worker& w, int layer, const AttentionTask& task, const AttentionTask& next,
                   const KvCache::Page* newest) {
    const Span& span = w.pass.spans[(size_t)task.span];
    Scratch& s = w.scratch;
    const int padded = heads_.padded, rows = (task.last - task.first) * heads_.group, end = span.start + task.last;
    gather_queries(w, task);
    std::fill_n(s.total_sum.data(), rows, 0.0f);
    for (int chunk = task.begin; chunk < task.end; chunk++) {
        const int begin = chunk * KV_CHUNK, n = std::min(KV_CHUNK, end - begin);
        const uint16_t *key_pages[KV_CHUNK_PAGES + AHEAD], *value_pages[KV_CHUNK_PAGES + AHEAD];
        const int pages = (n + LANES - 1) / LANES;
        for (int p = 0; p < pages; p++) {
            const bool last = newest && begin / LANES + p == (end - 1) / LANES;
            const KvCache::Page page = last ? *newest : state_.cache.page(layer, task.head, span.pages[begin / LANES + p]);
            key_pages[p] = page.keys, value_pages[p] = page.values;
        }
        for (int p = 0; p < AHEAD; p++) {  // what is read after the keys, and after the values
            key_pages[pages + p] = value_pages[std::min(p, pages - 1)];
            value_pages[pages + p] = next_keys(w.pass, layer, chunk + 1 < task.end ? task : next, chunk + 1, p);
        }
        k_.attention(heads_, s.queries.data(), rows, s.limits.data(), key_pages, value_pages, begin, n, s.scores.data(),
                     s.row_max.data(), s.row_sum.data(), s.weighted.data());
        if (task.split) return;  // it has one chunk
        for (int r = 0; r < rows; r++)
            k_.merge(padded, s.total_max[(size_t)r], s.total_sum[(size_t)r], s.total_weighted.data() + (size_t)r * padded,
                     s.row_max[(size_t)r], s.row_sum[(size_t)r], s.weighted.data() + (size_t)r * padded);
    }
}

// Where a chunk's result of a token's query head lies: the largest score, the sum of powers, and from LANES on the values.
float* Model::partial(const Pass& pass, int token, int head, int chunk) const {
    const size_t index = (size_t)(pass.partial_at[(size_t)token] + chunk) * config.heads + head;
    return state_.partials.data() + index * (heads_.padded + LANES);
}

void Model::store_partials(const Pass& pass, const AttentionTask& task, const Scratch& s) const {
    const int group = heads_.group, rows = (task.last - task.first) * group;
    const int first = pass.spans[(size_t)task.span].first + task.first;
    for (int r = 0; r < rows; r++) {
        float* to = partial(pass, first + r / group, task.head * group + r % group, task.begin);
        to[0] = s.row_max[(size_t)r], to[1] = s.row_sum[(size_t)r];
        std::copy_n(s.weighted.data() + (size_t)r * heads_.padded, heads_.padded, to + LANES);
    }
}

void Model::store_attention(const Pass& pass, const AttentionTask& task, const Scratch& s) const {
    const int group = heads_.group, rows = (task.last - task.first) * group;
    const int first = pass.spans[(size_t)task.span].first + task.first;
    for (int r = 0; r < rows; r++) {
        const int head = task.head * group + r % group;
        float* out = state_.attn.data() + (size_t)(first + r / group) * state_.q + head * heads_.width;
        const float inverse = 1.0f / s.total_sum[(size_t)r], *weighted = s.total_weighted.data() + (size_t)r * heads_.padded;
        for (int i = 0; i < heads_.width; i++) out[i] = weighted[i] * inverse;
    }
}

// A token's attention of all heads; chunks that were summed apart are folded together in their order.
const float* Model::attention_row(const Worker& w, int token) const {
    const int chunks = w.pass.n_partials[(size_t)token], width = heads_.width;
    if (!chunks) return state_.attn.data() + (size_t)token * state_.q;
    float* row = w.scratch.row.data();
    for (int head = 0; head < config.heads; head++) {
        float row_max = 0, row_sum = 0, *weighted = w.scratch.total_weighted.data();
        for (int i = 0; i < chunks; i++) {
            const float* part = partial(w.pass, token, head, i);
            k_.merge(heads_.padded, row_max, row_sum, weighted, part[0], part[1], part + LANES);
        }
        const float inverse = 1.0f / row_sum;
        for (int i = 0; i < width; i++) row[head * width + i] = weighted[i] * inverse;
    }
    return row;
}

}  // namespace camelid
