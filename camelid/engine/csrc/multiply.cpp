// How the threads share products: one token takes single groups of rows, many tokens take panels that are unpacked once.
#include <algorithm>

#include "forward.h"

namespace camelid {
namespace {

constexpr int PIECES = 8;                     // of a product for each thread at least, so that all end together
constexpr size_t PREFETCH_BYTES = 16 << 10;  // of the next phase's weights, fetched before a barrier
constexpr size_t PIECE_BYTES = 32 << 10;     // taken at once, so that a slow core holds nobody up

}  // namespace

void Model::multiply(int thread, const Job* jobs, int n_jobs, const Rows& in, int tokens) {
    if (tokens == 1) return multiply_one(thread, jobs, n_jobs, in);
    const int slots = k_.tile_groups;
    auto panels_of = [&](const Job& job) { return job.up ? job.a->groups : (job.a->groups + slots - 1) / slots; };
    int panels = 0;
    for (int j = 0; j < n_jobs; j++) panels += panels_of(jobs[j]);
    const int strips = (tokens + STRIP - 1) / STRIP, wished = (PIECES * pool_.size() + panels - 1) / panels;
    const int chunk = (strips + wished - 1) / wished * STRIP, chunks = (tokens + chunk - 1) / chunk;
    for (int i = thread; i < panels * chunks; i = pool_.ticket()) {
        int panel = i % panels, j = 0;
        while (panel >= panels_of(jobs[j])) panel -= panels_of(jobs[j++]);
        const int first = i / panels * chunk;
        multiply_panel(thread, jobs[j], panel, in, first, std::min(chunk, tokens - first));
    }
}

void Model::multiply_one(int thread, const Job* jobs, int n_jobs, const Rows& in) {
    int groups = 0;
    for (int j = 0; j < n_jobs; j++) groups += jobs[j].a->groups;
    const int step = (int)std::max<size_t>(1, PIECE_BYTES / jobs[0].a->group_bytes);
    for (int first, last; pool_.take(thread, groups, step, first, last);) {
        int end = 0;
        for (int j = 0; j < n_jobs && first < last; j++) {
            const int begin = end, stop = std::min(last, end += jobs[j].a->groups);
            if (first >= stop) continue;
            multiply_groups(thread, jobs[j], in, first - begin, stop - first);
            first = stop;
        }
    }
}

void Model::multiply_groups(int thread, const Job& job, const Rows& in, int first, int n) {
    constexpr int room = 64;  // groups in half of the tile
    float* tile = scratch_[(size_t)thread].tile.data();
    for (const int end = first + n; first < end; first += room) {
        const int some = std::min(room, end - first), last = first + some;
        float* out = job.out + (size_t)first * LANES;
        if (job.up) {
            k_.multiply_one(*job.a, in.layout, in.base, first, last, tile);
            k_.multiply_one(*job.up, in.layout, in.base, first, last, tile + room * LANES);
            k_.silu(tile, tile + room * LANES, some * LANES, out);
        } else if (job.adds) {
            k_.multiply_one(*job.a, in.layout, in.base, first, last, tile);
            for (int i = 0; i < some * LANES; i++) out[i] += tile[i];
        } else {
            k_.multiply_one(*job.a, in.layout, in.base, first, last, out);
        }
    }
}

void Model::multiply_panel(int thread, const Job& job, int panel, const Rows& in, int first, int tokens) {
    Scratch& s = scratch_[(size_t)thread];
    const Panel room{s.weights.data(), s.scales.data(), s.minima.data()};
    const int slots = k_.tile_groups, width = slots * LANES;
    const Matrix& a = *job.a;
    if (!job.up) {
        const int g = panel * slots, n = std::min(slots, a.groups - g);
        for (int slot = 0; slot < n; slot++) k_.unpack(a, g + slot, room, slot);
        float* out = job.out + (size_t)first * job.stride + (size_t)g * LANES;
        if (n == slots) return k_.multiply(a.kind, room, in.layout, in.base, first, tokens, out, job.stride, job.adds);
        float* tile = s.tile.data();
        k_.multiply(a.kind, room, in.layout, in.base, first, tokens, tile, (size_t)width, false);
        for (int t = 0; t < tokens; t++)
            for (int i = 0; i < n * LANES; i++) {
                float& to = out[(size_t)t * job.stride + i];
                to = tile[(size_t)t * width + i] + (job.adds ? to : 0.0f);
            }
        return;
    }
    constexpr size_t stride = 2 * LANES;  // of a token's row in the tile
    float *gate = s.tile.data(), *up = gate + LANES;
    k_.unpack(a, panel, room, 0);
    if (slots == 2 && a.kind == job.up->kind) {
        k_.unpack(*job.up, panel, room, 1);
        k_.multiply(a.kind, room, in.layout, in.base, first, tokens, gate, stride, false);
    } else {  // a kernel may write all of the row
        k_.multiply(a.kind, room, in.layout, in.base, first, tokens, gate, stride, false);
        k_.unpack(*job.up, panel, room, 0);
        up = gate + (size_t)tokens * stride;
        k_.multiply(job.up->kind, room, in.layout, in.base, first, tokens, up, stride, false);
    }
    for (int t = 0; t < tokens; t++)
        k_.silu(gate + (size_t)t * stride, up + (size_t)t * stride, LANES,
                job.out + (size_t)(first + t) * job.stride + (size_t)panel * LANES);
}

// The thread's own first piece of the next phase, fetched while the others finish this one.
void Model::prefetch(const Matrix& matrix, int thread) {
    if (batch_->tokens > 1) return;
    const int first = (int)((int64_t)matrix.groups * thread / pool_.size());  // as Pool::take shares them out
    const size_t rest = (size_t)(matrix.groups - first) * matrix.group_bytes;
    k_.prefetch(matrix.group(first), std::min(PREFETCH_BYTES, rest));
}

}  // namespace camelid
