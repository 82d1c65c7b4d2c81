// How the threads share attention: by key/value heads and tokens, and by stretches of positions where tokens are few.
#include <algorithm>
#include <cmath>

#include "forward.h"

namespace camelid {

void Model::plan_attention() {
    const Batch& batch = *batch_;
    const int threads = pool_.size(), width = std::max(1, ITEM_ROWS / heads_.group);
    items_.clear();
    token_span_.assign((size_t)batch.tokens, 0);
    parts_at_.assign((size_t)batch.tokens, 0), n_parts_.assign((size_t)batch.tokens, 0);
    writes_with_attention_ = !parted(batch.tokens);
    int plenty = 0, parts = 0;
    for (const Span& span : batch.spans) {
        writes_with_attention_ &= span.length == 1;
        plenty += shape_.kv_heads * ((span.length + width - 1) / width);
    }
    const bool splits = plenty < 8 * threads;
    for (int s = 0; s < (int)batch.spans.size(); s++) {
        const Span& span = batch.spans[(size_t)s];
        for (int t = 0; t < span.length; t++) token_span_[(size_t)(span.first + t)] = s;
        for (int t = 0; t < span.length; t += width) {
            const int last = std::min(span.length, t + width);
            const int stretches = (span.start + last + STRETCH - 1) / STRETCH;
            const bool split = splits && stretches > 1 && last - t <= 4;
            for (int head = 0; head < shape_.kv_heads; head++) {
                // The last stretch comes first: where keys are written with it, others do not wait for its end.
                for (int n = split ? stretches : 1; n > 0; n--)
                    items_.push_back({s, head, t, last, split ? n - 1 : 0, split ? n : stretches, split});
            }
            if (split)
                for (int i = t; i < last; i++)
                    parts_at_[(size_t)(span.first + i)] = parts, n_parts_[(size_t)(span.first + i)] = stretches, parts += stretches;
        }
    }
    parts_.grow((size_t)parts * shape_.heads * (heads_.padded + LANES));
}

void Model::write_keys(int layer, int token, int head) {
    const Span& span = batch_->spans[(size_t)token_span_[(size_t)token]];
    const int position = span.start + token - span.first, width = heads_.width, half = width / 2;
    const float* row = qkv_.data() + (size_t)token * (q_ + 2 * kv_) + q_ + head * width;
    float turned[1024];
    k_.rotate(row, batch_->cos + (size_t)position * half, batch_->sin + (size_t)position * half, width, 1.0f, turned);
    const Page page = page_of(layer, head, span.pages[position / LANES]);
    k_.write_key(turned, heads_, page.keys, position % LANES);
    k_.write_value(row + kv_, heads_, page.values, position % LANES);
}

void Model::attend(int layer, int thread) {
    if (!writes_with_attention_) {
        each_token(thread, batch_->tokens, [&](int t) {
            for (int head = 0; head < shape_.kv_heads; head++) write_keys(layer, t, head);
        });
        pool_.barrier();
    }
    const int n = (int)items_.size();
    const auto turn_to = [&](int i, int next) {
        attend_item(layer, thread, items_[(size_t)i], items_[(size_t)std::min(next, n - 1)]);
    };
    if (parted(batch_->tokens))
        for (int i, end; pool_.take(thread, n, 1, i, end);) turn_to(i, i + 1);  // its own tokens first
    else
        for (int i = thread; i < n; i = pool_.ticket()) turn_to(i, i + pool_.size());
}

void Model::gather_queries(const Item& item, Scratch& scratch) {
    const Span& span = batch_->spans[(size_t)item.span];
    const int width = heads_.width, half = width / 2, group = heads_.group;
    const float scale = 1.0f / std::sqrt((float)width);
    for (int t = item.first, r = 0; t < item.last; t++) {
        const int position = span.start + t;
        const float* row = qkv_.data() + (size_t)(span.first + t) * (q_ + 2 * kv_) + item.head * group * width;
        for (int g = 0; g < group; g++, r++) {
            float* query = scratch.queries.data() + (size_t)r * heads_.padded;
            k_.rotate(row + g * width, batch_->cos + (size_t)position * half, batch_->sin + (size_t)position * half, width,
                      scale, query);
            k_.ready(heads_, query);
            scratch.limits[(size_t)r] = position + 1;
        }
    }
}

// Page `p` of the keys that are probably read next: a stretch of the same item, or the first of another one.
const uint16_t* Model::follow(int layer, const Item& item, int stretch, int p) const {
    const Span& span = batch_->spans[(size_t)item.span];
    if (stretch < item.begin || stretch >= item.end) stretch = item.begin;
    return page_of(layer, item.head, span.pages[std::min(stretch * STRETCH_PAGES + p, span.n_pages - 1)]).keys;
}

void Model::attend_item(int layer, int thread, const Item& item, const Item& next) {
    const Span& span = batch_->spans[(size_t)item.span];
    Scratch& s = scratch_[(size_t)thread];
    const int group = heads_.group, padded = heads_.padded, rows = (item.last - item.first) * group;
    const int end = span.start + item.last;
    if (writes_with_attention_ && item.end * STRETCH >= end) write_keys(layer, span.first, item.head);
    gather_queries(item, s);
    std::fill_n(s.sum_mass.data(), rows, 0.0f);
    for (int stretch = item.begin; stretch < item.end; stretch++) {
        const int begin = stretch * STRETCH, n = std::min(STRETCH, end - begin);
        const uint16_t *key_pages[STRETCH_PAGES + AHEAD], *value_pages[STRETCH_PAGES + AHEAD];
        const int pages = (n + LANES - 1) / LANES;
        for (int p = 0; p < pages; p++) {
            const Page page = page_of(layer, item.head, span.pages[begin / LANES + p]);
            key_pages[p] = page.keys, value_pages[p] = page.values;
        }
        for (int p = 0; p < AHEAD; p++) {  // what is read after the keys, and after the values
            key_pages[pages + p] = value_pages[std::min(p, pages - 1)];
            value_pages[pages + p] = follow(layer, stretch + 1 < item.end ? item : next, stretch + 1, p);
        }
        k_.attend(heads_, s.queries.data(), rows, s.limits.data(), key_pages, value_pages, begin, n, s.scores.data(),
                  s.peak.data(), s.mass.data(), s.mixed.data());
        for (int r = 0; r < rows; r++) {
            const float* mixed = s.mixed.data() + (size_t)r * padded;
            if (item.splits) {
                const int token = span.first + item.first + r / group, head = item.head * group + r % group;
                const size_t index = (size_t)(parts_at_[(size_t)token] + stretch) * shape_.heads + head;
                float* part = parts_.data() + index * (padded + LANES);
                part[0] = s.peak[(size_t)r], part[1] = s.mass[(size_t)r];
                std::copy_n(mixed, padded, part + LANES);
            } else {
                k_.merge(padded, s.sum_peak[(size_t)r], s.sum_mass[(size_t)r], s.sum_mixed.data() + (size_t)r * padded,
                         s.peak[(size_t)r], s.mass[(size_t)r], mixed);
            }
        }
    }
    if (item.splits) return;
    for (int r = 0; r < rows; r++) {
        const int token = span.first + item.first + r / group, head = item.head * group + r % group;
        float* out = mixed_.data() + (size_t)token * q_ + head * heads_.width;
        const float inverse = 1.0f / s.sum_mass[(size_t)r], *mixed = s.sum_mixed.data() + (size_t)r * padded;
        for (int i = 0; i < heads_.width; i++) out[i] = mixed[i] * inverse;
    }
}

// What attention mixed for a token; stretches that were summed apart are folded together in their order.
const float* Model::mixed_row(int token, Scratch& s) {
    const int padded = heads_.padded, width = heads_.width;
    if (!n_parts_[(size_t)token]) return mixed_.data() + (size_t)token * q_;
    float* row = s.row.data();
    for (int head = 0; head < shape_.heads; head++) {
        float peak = 0, mass = 0, *mixed = s.sum_mixed.data();
        for (int i = 0; i < n_parts_[(size_t)token]; i++) {
            const float* part = parts_.data() + ((size_t)(parts_at_[(size_t)token] + i) * shape_.heads + head) * (padded + LANES);
            k_.merge(padded, peak, mass, mixed, part[0], part[1], part + LANES);
        }
        const float inverse = 1.0f / mass;
        for (int i = 0; i < width; i++) row[head * width + i] = mixed[i] * inverse;
    }
    return row;
}

}  // namespace camelid
