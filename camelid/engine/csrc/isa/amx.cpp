// avx512bf16 with Intel's tiles for products of several tokens. A tile multiplies a block's columns of up to twelve tokens by
// those of sixteen rows as bfloat16, which holds the integers of both, and adds up in float32, which holds their sums: all
// are whole numbers below 2^24, so nothing is rounded. The lanes scale them as they do their own: the bits are avx512bf16's.
#define CAMELID_ISA amx
#define CAMELID_NAME "amx"
#define CAMELID_BF16
#include "simd_avx512.h"

#include "kernels.inl.h"

namespace camelid::amx {
namespace {

constexpr int CHUNK = 12;         // blocks whose weights are opened together, so that they stay near
constexpr int TILED = 5 * STRIP;  // tokens that meet opened weights
constexpr int TILES_FROM = 24;    // tokens; of fewer, opening the weights costs what tiles save
constexpr int PAIRS = 16 * 2 * LANES;  // an opened block: sixteen rows of a tile, of two columns of sixteen rows each

// The compilers' own names for these take no number that a template gives.
template <int TILE> inline INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(TILE)); }
template <int TILE> inline INLINE void tile_load(const void* p, long stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(TILE));
}
template <int TILE> inline INLINE void tile_store(void* p, long stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(TILE) : "memory");
}
template <int TO, int A, int B> inline INLINE void tile_multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(TO), "i"(A), "i"(B));
}

// How the products of a block and of G groups share tiles: sums have a tile for each group, and two where the halves of its
// columns have scales of their own, or where bytes would make one sum too large for float32. A step multiplies low or high
// bytes by one group.
template <Kind K, int G> struct Plan {
    static constexpr int halves = 8 / FOURS<K>, columns = 32 / halves, steps = 4 * halves;
    static constexpr bool apart = false;
    static constexpr int tiles = halves == 2 || apart ? 4 : 2;
    static constexpr int half(int step) { return step / 4; }
    static constexpr bool high(int step) { return step % 4 >= 2; }
    static constexpr int group(int step) { return step % 2; }
    static constexpr bool begins(int step) { return group(step) < G && (apart || !high(step)); }
    static constexpr int tile(int step) { return group(step) + 2 * (halves == 2 ? half(step) : apart && high(step)); }
};

struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0 … 3 hold sums, 4 and 5 low and high bytes of tokens, 6 and 7 weights of two groups.
void configure(int tokens, int columns) {
    Config config;
    for (int i = 0; i < 8; i++) {
        config.rows[i] = (uint8_t)(i < 6 ? tokens : columns / 2);
        config.row_bytes[i] = (uint16_t)(i == 4 || i == 5 ? 2 * columns : 64);
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
}

// Weights of two groups as bfloat16, and their scales and minima as floats.
struct alignas(64) Opened {
    uint16_t weights[CHUNK][2][PAIRS];
    float scales[CHUNK][2][2][LANES];  // the second: of the second half's columns, or minima
};

// Two of the four columns in each lane, as bfloat16.
template <Kind K, int SECOND> inline INLINE I pairs_of(I fours, const uint16_t* table) {
    if constexpr (traits(K).bits == 8) {
        const F first = to_float(_mm512_srai_epi32(shl<SECOND ? 8 : 24>(fours), 24));
        const F second = to_float(_mm512_srai_epi32(shl<SECOND ? 0 : 16>(fours), 24));
        return ior(shr<16>(bits_of(first)), iand(bits_of(second), iset1((int32_t)0xffff0000)));
    } else {
        // Bytes 0 and 1, or 2 and 3, of each lane, with zeros between.
        constexpr int64_t left = (int64_t)0x8005800480018000, right = (int64_t)0x800d800c80098008, two = 0x0002000200020002;
        constexpr int64_t a = left + SECOND * two, b = right + SECOND * two;
        const I numbers = _mm512_shuffle_epi8(fours, _mm512_set4_epi64(b, a, b, a));
        if constexpr (traits(K).bits == 6) return _mm512_permutex2var_epi16(iload(table), numbers, iload(table + 32));
        else return _mm512_permutexvar_epi16(numbers, iload(table));
    }
}

template <Kind K> void open(const uint8_t* group, int first, int blocks, int g, Opened& opened) {
    constexpr Traits T = traits(K);
    alignas(64) uint16_t table[64];
    for (int i = 0; i < 64; i++) table[i] = to_bf16((float)(i - T.zero_point));
    for (int b = 0; b < blocks; b++) {
        const uint8_t* block = group + block_at(T, first + b);
        prefetch_ahead<T.payload_bytes + T.scale_bytes, 2>(block);
        I w[8];
        F scale[2] = {zero(), zero()};
        if constexpr (T.bits == 8) each<8>([&](auto q) INLINE { w[q] = iload(block + 64 * q); });
        else unpack_block<T.bits>(block, w);
        unpack_scales<K>(block + T.payload_bytes, group + super_at(T, first + b), scale, scale[1]);
        uint16_t* to = opened.weights[b][g];
        each<8>([&](auto q) INLINE {
            istore(to + 64 * q, pairs_of<K, 0>(w[q], table)), istore(to + 64 * q + 32, pairs_of<K, 1>(w[q], table));
        });
        store(opened.scales[b][g][0], scale[0]), store(opened.scales[b][g][1], scale[1]);
    }
}

template <Kind K, int G, int STEP> inline INLINE void multiply(const tile_strip& x, const uint16_t (*w)[PAIRS]) {
    using P = Plan<K, G>;
    constexpr int half = P::half(STEP), g = P::group(STEP), tile = P::tile(STEP);
    constexpr bool high = P::high(STEP);
    if constexpr (g < G) {
        if constexpr (g == 0) tile_load<4 + high>((high ? x.high[0] : x.low[0]) + 16 * half, 64);
        if constexpr (!high) tile_load<6 + g>(w[g] + half * PAIRS / 2, 64);
        if constexpr (P::begins(STEP)) tile_zero<tile>();
        tile_multiply<tile, 4 + high, 6 + g>();
    }
}

// A chunk's blocks of T tokens and G groups, whose sums so far are at `sums_at`. While the lanes scale block b, the tiles of
// b + 1 are stored, each just before it takes what is of b + 2: in turns, storing and multiplying go on together.
template <Kind K, int T, int G>
void strip_of(const Opened& opened, int blocks, const tile_strip* x, bool begins, float* sums_at) {
    using P = Plan<K, G>;
    alignas(64) float sums[2][P::tiles][STRIP * LANES];
    F acc[T][G];
    each<T>([&](auto t) INLINE {
        each<G>([&](auto g) INLINE { acc[t][g] = begins ? zero() : load(sums_at + (t * 2 + g) * LANES); });
    });
    const auto step = [&](auto s, int block) INLINE {  // stores what is of the block before
        if constexpr (P::begins(s))
            if (block > 0 && block <= blocks) tile_store<P::tile(s)>(sums[(block - 1) % 2][P::tile(s)], 64);
        if (block < blocks) multiply<K, G, s()>(x[block], opened.weights[block]);
    };
    each<P::steps>([&](auto s) INLINE { step(s, 0); });
    each<P::steps>([&](auto s) INLINE { step(s, 1); });
    for (int b = 0; b < blocks; b++) {
        const auto& now = sums[b % 2];
        F scale[G][2];
        each<G>([&](auto g) INLINE { scale[g][0] = load(opened.scales[b][g][0]), scale[g][1] = load(opened.scales[b][g][1]); });
        each<T>([&](auto t) INLINE {
            each<P::steps>([&](auto s) INLINE {
                if constexpr (s * T / P::steps == t) step(s, b + 2);
            });
            const F token_scale = set1(x[b].scale[t]);
            each<G>([&](auto g) INLINE {
                F number = load(now[g] + t * LANES);
                if constexpr (P::apart) number = add(number, load(now[2 + g] + t * LANES));
                F product = mul(number, scale[g][0]);
                if constexpr (P::halves == 2) product = fma(load(now[2 + g] + t * LANES), scale[g][1], product);
                acc[t][g] = fma(product, token_scale, acc[t][g]);
            });
            if constexpr (HAS_MINIMA<K>) {
                const F sum = set1(x[b].scaled_sum[t]);
                each<G>([&](auto g) INLINE { acc[t][g] = fma(scale[g][1], sum, acc[t][g]); });
            }
        });
    }
    each<T>([&](auto t) INLINE { each<G>([&](auto g) INLINE { store(sums_at + (t * 2 + g) * LANES, acc[t][g]); }); });
}

// G groups from g on times up to TILED tokens.
template <Kind K, int G>
void groups_of(const Matrix& a, const tile_strip* strips, int tokens, int g, float* out, size_t stride, bool adds) {
    Opened opened;
    alignas(64) float sums[TILED][2][LANES];
    const int blocks = a.columns / 32, chunks = (blocks + CHUNK - 1) / CHUNK;
    int configured = 0;
    for (int i = 0; i < chunks; i++) {
        const int first = blocks * i / chunks, n = blocks * (i + 1) / chunks - first;
        for (int j = 0; j < G; j++) open<K>(a.group(g + j), first, n, j, opened);
        asm volatile("" ::: "memory");  // what tiles read is written: nothing else tells the compiler
        for (int t = 0; t < tokens; t += STRIP) {
            const int width = std::min(STRIP, (tokens - t + 3) / 4 * 4);
            if (width != configured) configure(configured = width, Plan<K, G>::columns);
            const auto run = width == 12 ? strip_of<K, 12, G> : width == 8 ? strip_of<K, 8, G> : strip_of<K, 4, G>;
            run(opened, n, strips + t / STRIP * blocks + first, i == 0, sums[t][0]);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int j = 0; j < G; j++) put(out + (size_t)t * stride + LANES * j, load(sums[t][j]), adds);
}

template <Kind K>
void multiply_all(const Matrix& a, const tile_strip* strips, int tokens, int first, int last, float* out, size_t stride, bool adds) {
    for (int g = first; g < last; g += 2, out += 2 * LANES)
        for (int t = 0; t < tokens; t += TILED) {
            const auto run = g + 1 < last ? groups_of<K, 2> : groups_of<K, 1>;
            run(a, strips + t / STRIP * (a.columns / 32), std::min(TILED, tokens - t), g, out + (size_t)t * stride, stride, adds);
        }
}

void matmul_tiled(const Matrix& a, const ActivationLayout& layout, const uint8_t* activations, int token, int tokens, int first,
                  int last, float* out, size_t stride, bool adds) {
    if (!layout.tiled || is_float(a.kind))
        return matmul(a, layout, activations, token, tokens, first, last, out, stride, adds);
    const tile_strip* strips = (const tile_strip*)layout.blocks(activations, token);
    switch (a.kind) {
#define CAMELID_CASE(NAME, ...)              \
    case Kind::NAME:                         \
        if constexpr (!is_float(Kind::NAME)) \
            multiply_all<Kind::NAME>(a, strips, tokens, first, last, out, stride, adds); \
        break;
        CAMELID_KINDS(CAMELID_CASE)
#undef CAMELID_CASE
    }
    asm volatile("tilerelease");
}

void fill_tiles(const block_q16* from, size_t stride, int blocks, tile_strip* to, int place) {
    for (int b = 0; b < blocks; b++, to++, from = (const block_q16*)((const uint8_t*)from + stride)) {
        for (int i = 0; i < 32; i += LANES) {
            store_bf16(to->low[place] + i, load_s8((const uint8_t*)from->bytes + i));
            store_bf16(to->high[place] + i, mul(load_s8((const uint8_t*)from->high_bytes + i), set1(256)));
        }
        to->scale[place] = from->scale, to->scaled_sum[place] = from->scaled_sum;
    }
}

}  // namespace
}  // namespace camelid::amx

namespace camelid {
const Kernels* amx_kernels() {
    static const Kernels table = [] {
        Kernels kernels = amx::TABLE;
        kernels.matmul = amx::matmul_tiled, kernels.fill_tiles = amx::fill_tiles, kernels.tiles_from = amx::TILES_FROM;
        return kernels;
    }();
    return &table;
}
}  // namespace camelid
