#include "forward.h"

#include <algorithm>
#include <cmath>

#include "pack.h"

namespace camelid {
namespace {

constexpr int PRIVATE_TOKENS = 2;   // so few are prepared by every thread for itself, which saves a barrier
constexpr int OWN_TOKENS = 16, OWN_TOKENS_A_THREAD = 4;  // where each has so many, it goes on with its own

int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

int side_of(int tokens) { return tokens <= PRIVATE_TOKENS ? tokens : STRIP; }

RowLayout layout_of(int width, int forms, const uint8_t* fine_strips, bool any_fine, int tokens) {
    RowLayout layout{fine_strips, width, side_of(tokens), any_fine ? sizeof(FineRecord) : sizeof(Record), 0, 0, 0};
    const size_t room = (size_t)((tokens + layout.side - 1) / layout.side * layout.side);
    size_t end = 0;
    auto place = [&](int form, size_t bytes) {
        const size_t start = end;
        if (forms & form) end = (end + room * bytes + 63) / 64 * 64;
        return start;
    };
    place(FORM_BYTES, layout.record_room * (size_t)(width / 32));
    layout.brain = place(FORM_BRAIN, 2 * (size_t)(width + 1));
    layout.floats = place(FORM_FLOATS, 4 * (size_t)width);
    layout.bytes = end;
    return layout;
}

int form_of(Kind kind) { return kind == Kind::F16_AS_BF16 ? FORM_BRAIN : is_float(kind) ? FORM_FLOATS : FORM_BYTES; }

}  // namespace

Model::Model(const Shape& shape, const Kernels& kernels, int threads, bool fine)
    : shape_(shape), k_(kernels), fine_(fine), pool_(threads), layers_((size_t)shape.layers), scratch_((size_t)pool_.size()) {
    heads_ = {shape.head_dim, padded(shape.head_dim), shape.heads / shape.kv_heads, kernels.has_bf16 && !fine};
    dim_ = padded(shape.dim), ffn_ = padded(shape.ffn_dim), vocab_ = padded(shape.vocab);
    q_ = padded(shape.heads * shape.head_dim), kv_ = padded(shape.kv_heads * shape.head_dim);
    key_halves_ = (size_t)LANES * (size_t)heads_.width, value_halves_ = (size_t)LANES * (size_t)heads_.padded;
    ones_.grow((size_t)dim_);
    std::fill(ones_.data(), ones_.data() + shape.dim, 1.0f);
}

// --- weights ---------------------------------------------------------------------------------------------------

void Model::plan(int layer, int slot, Kind kind, int rows, int columns) {
    (layer < 0 ? head_ : layers_[(size_t)layer].matrix[slot]) = shape_of(kind, rows, columns);
    // Where any matrix keeps its activations' 24 bits, keys and values keep eleven.
    if (layer >= 0 && form_of(kind) == FORM_FLOATS) heads_.pairs = false;
}

void Model::reserve() {
    reserved_ = 0;
    auto each = [&](auto&& visit) {
        for (auto& layer : layers_)
            for (auto& matrix : layer.matrix) visit(matrix);
        visit(head_);
    };
    each([&](Matrix& matrix) { reserved_ += matrix.groups * matrix.group_bytes; });
    weights_ = Arena(reserved_ + 4096, true);
    uint8_t* next = weights_.data();
    each([&](Matrix& matrix) { matrix.data = next, next += matrix.groups * matrix.group_bytes; });
}

bool Model::fits(int layer, int slot, size_t rows, size_t row_bytes) const {
    if (layer >= shape_.layers || slot < 0 || slot >= N_SLOTS) return false;
    const Matrix& matrix = at(layer, slot);
    return matrix.data && (size_t)matrix.rows == rows && row_bytes == row_bytes_of(matrix.kind, matrix.columns);
}

size_t Model::fill(int layer, int slot, const uint8_t* blocks, size_t row_bytes) {
    const Matrix& matrix = at(layer, slot);
    const int step = std::max(1, matrix.groups / (pool_.size() * 4));
    std::atomic<size_t> rounded{0};
    pool_.run([&](int thread) {
        for (int i = thread; i * step < matrix.groups; i = pool_.ticket())
            rounded += pack(matrix, blocks, row_bytes, i * step, std::min(matrix.groups, (i + 1) * step));
    });
    return rounded;
}

void Model::set_bias(int layer, int slot, const float* bias) {
    Layer& l = layers_[(size_t)layer];
    Matrix& matrix = l.matrix[slot];
    float* own = l.bias[slot].grow((size_t)matrix.groups * LANES);
    std::fill(own, own + matrix.groups * LANES, 0.0f);
    std::copy(bias, bias + matrix.rows, own);
    matrix.bias = own;
}

void Model::set_norm(int layer, int slot, const float* weight, int width) {
    Buffer<float>& norm = layer < 0 ? final_norm_ : layers_[(size_t)layer].norm[slot];
    std::copy(weight, weight + width, norm.grow((size_t)padded(width)));
}

const float* Model::norm_of(int layer, int slot) const {
    const float* weight = layer < 0 ? final_norm_.data() : layers_[(size_t)layer].norm[slot].data();
    return weight ? weight : ones_.data();
}

uint64_t Model::read_weights() {
    std::atomic<uint64_t> sink{0};
    const size_t share = reserved_ / (size_t)pool_.size() / 1024 * 1024;
    pool_.run([&](int thread) { sink += k_.read(weights_.data() + (size_t)thread * share, share); });
    return sink;
}

// --- pages -----------------------------------------------------------------------------------------------------

void Model::allocate(int pages) {
    n_pages_ = pages;
    const size_t stretches = ((size_t)pages + STRETCH_PAGES - 1) / STRETCH_PAGES * (size_t)(shape_.layers * shape_.kv_heads);
    const size_t halves = stretches * STRETCH_PAGES * (key_halves_ + value_halves_);
    pages_ = Arena();
    pages_ = Arena(halves * 2 + 8192, true);  // reading ahead may touch what lies behind
}

// Sixteen pages in line lie together: a head's keys, which are read in one run, then its values, then the next head's. All
// layers of them lie in one piece, so that large pages of memory are used from end to end.
Model::Page Model::page_of(int layer, int head, int number) const {
    const size_t run = (size_t)(number / STRETCH_PAGES), place = (size_t)(number % STRETCH_PAGES);
    const size_t index = (run * (size_t)shape_.layers + (size_t)layer) * (size_t)shape_.kv_heads + (size_t)head;
    uint16_t* keys = (uint16_t*)pages_.data() + index * STRETCH_PAGES * (key_halves_ + value_halves_);
    return {keys + place * key_halves_, keys + STRETCH_PAGES * key_halves_ + place * value_halves_};
}

void Model::copy_page(int source, int target) {
    for (int layer = 0; layer < shape_.layers; layer++)
        for (int head = 0; head < shape_.kv_heads; head++) {
            const Page from = page_of(layer, head, source), to = page_of(layer, head, target);
            std::memcpy(to.keys, from.keys, 2 * key_halves_), std::memcpy(to.values, from.values, 2 * value_halves_);
        }
}

// --- the pass --------------------------------------------------------------------------------------------------

void Model::forward(const Batch& batch) {
    batch_ = &batch;
    make_room(batch);
    plan_attention();
    pool_.run([&](int thread) {
        for (int layer = 0; layer < shape_.layers; layer++) {
            attention_block(layer, thread);
            feed_forward_block(layer, thread);
        }
        output(thread);
    });
}

void Model::make_room(const Batch& batch) {
    const size_t tokens = (size_t)batch.tokens;
    x_.grow(tokens * dim_);
    for (size_t t = 0; t < tokens; t++)
        std::copy_n(batch.embedded + t * shape_.dim, shape_.dim, x_.data() + t * dim_);
    qkv_.grow(tokens * (q_ + 2 * kv_)), mixed_.grow(tokens * q_), hidden_.grow(tokens * ffn_);
    if (shape_.norms_after) added_.grow(tokens * dim_);
    if (batch.logits && vocab_ != shape_.vocab) wide_.grow(batch.wanted.size() * vocab_);
    const int widest = std::max({dim_, q_, ffn_}), all = FORM_BYTES | FORM_BRAIN | FORM_FLOATS;
    token_fine_.resize(tokens);
    for (const Span& span : batch.spans)
        for (int t = 0; t < span.length; t++) token_fine_[(size_t)(span.first + t)] = span.start + t < FINE_POSITIONS;
    share_tokens();
    const auto room_for = [&](int tokens) {
        for (int thread = 0; thread < pool_.size(); thread++) {
            const Part part = part_of(thread, tokens);
            const size_t bytes = layout_of(widest, all, nullptr, true, part.count).bytes;
            Scratch& s = scratch_[(size_t)thread];
            (part.alone ? s.rows : rows_).grow(bytes), s.fine_strips.grow((size_t)part.count / STRIP + 1);
        }
    };
    room_for(batch.tokens), room_for(std::max(1, (int)batch.wanted.size()));
    const int rows = std::max(ITEM_ROWS, heads_.group);
    for (Scratch& s : scratch_) {
        s.normed.grow((size_t)widest);
        s.gated.grow(2 * GATED_TOKENS * GATED_GROUPS * LANES), s.row.grow((size_t)widest);
        s.queries.grow((size_t)rows * heads_.padded), s.scores.grow((size_t)rows * STRETCH), s.limits.grow((size_t)rows);
        s.peak.grow((size_t)rows), s.mass.grow((size_t)rows), s.mixed.grow((size_t)rows * heads_.padded);
        s.sum_peak.grow((size_t)rows), s.sum_mass.grow((size_t)rows), s.sum_mixed.grow((size_t)rows * heads_.padded);
    }
}

// Whether each thread goes on with its own tokens. Each reads all weights then: more threads need more tokens, or memory would
// hold them up.
bool Model::parted(int tokens) const {
    return tokens >= pool_.size() * std::max(OWN_TOKENS, OWN_TOKENS_A_THREAD * pool_.size());
}

Model::Part Model::part_of(int thread, int tokens) const {
    if (!parted(tokens)) return {0, tokens, tokens <= PRIVATE_TOKENS, false};
    const bool all = tokens == batch_->tokens;  // else those of the last layer, which cost the same
    const auto start = [&](int i) { return all ? shares_[(size_t)i] : (int)((int64_t)tokens * i / pool_.size()); };
    return {start(thread), start(thread + 1) - start(thread), true, true};
}

// Where each thread's own tokens begin, so that all have as much to do: a fine token costs a third more.
void Model::share_tokens() {
    constexpr int64_t cost = 3, fine_cost = 4;
    const int threads = pool_.size(), tokens = batch_->tokens;
    int64_t total = 0, sum = 0;
    for (int t = 0; t < tokens; t++) total += is_fine(t, fine_) ? fine_cost : cost;
    shares_.assign(1, 0);
    for (int t = 0; t < tokens; t++) {
        sum += is_fine(t, fine_) ? fine_cost : cost;
        while ((int)shares_.size() < threads && sum * threads >= total * (int64_t)shares_.size()) shares_.push_back(t + 1);
    }
    shares_.push_back(tokens);
}

// Lets a thread go on when all tokens are there that it will read: at once if they are its own.
void Model::meet(int tokens) {
    if (!parted(tokens)) pool_.barrier();
}

RowLayout Model::layout_for(int thread, const Part& part, int width, int forms, bool fine) {
    uint8_t* strips = scratch_[(size_t)thread].fine_strips.data();
    const int side = side_of(part.count);
    bool any = false;
    for (int t = 0; t < part.count; t++) {
        if (t % side == 0) strips[t / side] = 0;
        if (is_fine(part.first + t, fine)) strips[t / side] = 1, any = true;
    }
    return layout_of(width, forms, strips, any, part.count);
}

// row(t, thread's scratch) gives the numbers of token t; they are prepared for the matrices of the next phase.
template <class Row> Model::Rows Model::prepare(int thread, int tokens, int width, int forms, bool fine, Row&& row) {
    const Part part = part_of(thread, tokens);
    const RowLayout layout = layout_for(thread, part, width, forms, fine);
    Scratch& scratch = scratch_[(size_t)thread];
    uint8_t* base = part.alone ? scratch.rows.data() : rows_.data();
    const auto put = [&](int t) { k_.prepare(row(part.first + t, scratch), forms, layout, base, t, is_fine(part.first + t, fine)); };
    if (part.alone) {
        for (int t = 0; t < part.count; t++) put(t);
    } else {
        const int run = std::min(STRIP, (tokens + pool_.size() - 1) / pool_.size());  // neighbours share lines
        for (int first = thread * run; first < tokens; first += run * pool_.size())
            for (int t = first; t < std::min(first + run, tokens); t++) put(t);
        pool_.barrier();
    }
    return {part, base, layout};
}

void Model::attention_block(int layer, int thread) {
    const Batch& batch = *batch_;
    const int tokens = batch.tokens, stride = q_ + 2 * kv_;
    Layer& l = layers_[(size_t)layer];
    const Matrix &q = l.matrix[Q_PROJ], &k = l.matrix[K_PROJ], &v = l.matrix[V_PROJ], &o = l.matrix[O_PROJ];

    const Rows h = prepare(thread, tokens, shape_.dim, form_of(q.kind) | form_of(k.kind) | form_of(v.kind), fine_,
                           [&](int t, Scratch& s) -> const float* {
                               const float* x = x_.data() + (size_t)t * dim_;
                               if (shape_.norms_after) return x;
                               k_.norm(x, norm_of(layer, NORM_INPUT), shape_.dim, shape_.eps, shape_.layer_norm, s.normed.data());
                               return s.normed.data();
                           });
    const Job projections[] = {{&q, nullptr, qkv_.data(), (size_t)stride, false},
                               {&k, nullptr, qkv_.data() + q_, (size_t)stride, false},
                               {&v, nullptr, qkv_.data() + q_ + kv_, (size_t)stride, false}};
    multiply(thread, projections, 3, h);
    prefetch(o, thread);
    meet(tokens);
    if (shape_.qk_norm || shape_.clip_qkv > 0) adjust_qkv(layer, thread);
    attend(layer, thread);
    pool_.barrier();

    // In the last layer only the wanted rows go on: so few that fifteen bits for all cost little, where no later layer evens
    // out what is rounded. The output matrix too.
    const bool last = layer + 1 == shape_.layers;
    const int left = last ? (int)batch.wanted.size() : tokens;
    if (!left) return;
    if (last && left < tokens) keep_wanted(thread);
    const Rows mixed = prepare(thread, left, shape_.heads * shape_.head_dim, form_of(o.kind), fine_ || last,
                               [&](int t, Scratch& s) { return mixed_row(last ? batch.wanted[(size_t)t] : t, s); });
    const bool after = shape_.norms_after;
    const Job out{&o, nullptr, after ? added_.data() : x_.data(), (size_t)dim_, !after};
    multiply(thread, &out, 1, mixed);
    prefetch(l.matrix[GATE_PROJ], thread);
    meet(left);
    if (after) add_normed(layer, NORM_ATTENTION, left, thread);
}

void Model::feed_forward_block(int layer, int thread) {
    const bool last = layer + 1 == shape_.layers, fine = fine_ || last;
    const int tokens = last ? (int)batch_->wanted.size() : batch_->tokens;
    if (!tokens) return;
    Layer& l = layers_[(size_t)layer];
    const Matrix &gate = l.matrix[GATE_PROJ], &up = l.matrix[UP_PROJ], &down = l.matrix[DOWN_PROJ];

    const Rows h = prepare(thread, tokens, shape_.dim, form_of(gate.kind) | form_of(up.kind), fine,
                           [&](int t, Scratch& s) -> const float* {
                               const float* x = x_.data() + (size_t)t * dim_;
                               if (shape_.norms_after) return x;
                               k_.norm(x, norm_of(layer, NORM_ATTENTION), shape_.dim, shape_.eps, shape_.layer_norm, s.normed.data());
                               return s.normed.data();
                           });
    const Job gated{&gate, &up, hidden_.data(), (size_t)ffn_, false};
    multiply(thread, &gated, 1, h);
    prefetch(down, thread);
    meet(tokens);

    const Rows hidden = prepare(thread, tokens, shape_.ffn_dim, form_of(down.kind), fine,
                                [&](int t, Scratch&) { return hidden_.data() + (size_t)t * ffn_; });
    const bool after = shape_.norms_after;
    const Job out{&down, nullptr, after ? added_.data() : x_.data(), (size_t)dim_, !after};
    multiply(thread, &out, 1, hidden);
    prefetch(layer + 1 < shape_.layers ? layers_[(size_t)layer + 1].matrix[Q_PROJ] : head_, thread);
    meet(tokens);
    if (after) add_normed(layer, NORM_FEED_FORWARD, tokens, thread);
}

void Model::output(int thread) {
    const Batch& batch = *batch_;
    const int rows = (int)batch.wanted.size();
    if (!rows) return;
    auto normed = [&](int t, Scratch& s) -> const float* {
        k_.norm(x_.data() + (size_t)t * dim_, norm_of(-1, 0), shape_.dim, shape_.eps, shape_.layer_norm, s.normed.data());
        return s.normed.data();
    };
    if (batch.hidden) {
        each_token(thread, rows, [&](int t) {
            std::copy_n(normed(t, scratch_[(size_t)thread]), shape_.dim, batch.hidden + (size_t)t * shape_.dim);
        });
        return;
    }
    const Rows h = prepare(thread, rows, shape_.dim, form_of(head_.kind), true, normed);
    const bool direct = vocab_ == shape_.vocab;
    const Job logits{&head_, nullptr, direct ? batch.logits : wide_.data(), (size_t)vocab_, false};
    multiply(thread, &logits, 1, h);
    if (direct) return;
    meet(rows);
    each_token(thread, rows, [&](int t) {
        std::copy_n(wide_.data() + (size_t)t * vocab_, shape_.vocab, batch.logits + (size_t)t * shape_.vocab);
    });
}

// Brings the stream's wanted rows to the front, in order.
void Model::keep_wanted(int thread) {
    if (thread == 0)
        for (size_t i = 0; i < batch_->wanted.size(); i++)
            std::copy_n(x_.data() + (size_t)batch_->wanted[i] * dim_, dim_, x_.data() + i * dim_);
    pool_.barrier();
}

// OLMo's switches on what the projections gave: norms over all of q and k, and the clamp.
void Model::adjust_qkv(int layer, int thread) {
    const int stride = q_ + 2 * kv_;
    each_token(thread, batch_->tokens, [&](int t) {
        float* row = qkv_.data() + (size_t)t * stride;
        if (shape_.qk_norm) {
            k_.norm(row, norm_of(layer, NORM_Q), shape_.heads * shape_.head_dim, shape_.eps, false, row);
            k_.norm(row + q_, norm_of(layer, NORM_K), shape_.kv_heads * shape_.head_dim, shape_.eps, false, row + q_);
        }
        if (shape_.clip_qkv > 0)
            for (int i = 0; i < stride; i++) row[i] = std::clamp(row[i], -shape_.clip_qkv, shape_.clip_qkv);
    });
    meet(batch_->tokens);
}

void Model::add_normed(int layer, int slot, int tokens, int thread) {
    float* normed = scratch_[(size_t)thread].normed.data();
    each_token(thread, tokens, [&](int t) {
        k_.norm(added_.data() + (size_t)t * dim_, norm_of(layer, slot), shape_.dim, shape_.eps, shape_.layer_norm, normed);
        float* x = x_.data() + (size_t)t * dim_;
        for (int i = 0; i < shape_.dim; i++) x[i] += normed[i];
    });
    meet(tokens);
}

}  // namespace camelid
