// What an instruction set does for the forward pass: the table of its kernels, and the shapes of what they work on.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kinds.h"

namespace camelid {

constexpr int LANES = 16;  // output rows side by side in a packed matrix; positions in a page

// Where block b of 32 columns begins in a group: blocks follow each other, payload and scales together, and the scales
// of 256 columns stand before their eight blocks. A product reads a matrix from its first byte to its last.
constexpr size_t super_at(const Traits& t, int b) {
    return (size_t)(b / 8) * (size_t)(8 * (t.payload_bytes + t.scale_bytes) + t.super_bytes);
}
constexpr size_t block_at(const Traits& t, int b) {
    if (!t.super_bytes) return (size_t)b * (size_t)(t.payload_bytes + t.scale_bytes);
    return super_at(t, b) + (size_t)t.super_bytes + (size_t)(b % 8) * (size_t)(t.payload_bytes + t.scale_bytes);
}

// A matrix (rows, columns) packed by groups of 16 rows: lane i of every register belongs to the group's row i.
struct Matrix {
    Kind kind;
    int rows, columns, groups;
    size_t group_bytes;
    uint8_t* data;
    const float* bias;  // padded to whole groups, or none
    const uint8_t* group(int g) const { return data + (size_t)g * group_bytes; }
};

// 32 activations of a token, each scale · (byte + 256 · high byte). Only one group of four (columns side by side), the
// largest of the block, has high bytes. For weights with a zero point: the integers' sum times −8, as Q4_0 wants it and
// others shift it, and the halves' sums times −32, as Q6_K does; for weights with minima: scale · sum.
struct block_q8 {
    int8_t bytes[32];
    int8_t high[4];
    int32_t group_of_four, in_first;  // whose high bytes they are, times 64; all bits set where it lies in the first half
    float scale, scaled_sum;
    int32_t minus8, minus32[2];
};
static_assert(sizeof(block_q8) == 64);
// int16 activations: every column has a high byte. A token of 8 bits gives the same sums from it as from a block_q8: its high
// bytes are 0 but in the largest group of four.
struct block_q16 : block_q8 {
    int8_t high_bytes[32];
};
static_assert(sizeof(block_q16) == 96);

constexpr int STRIP = 12;  // tokens side by side where there are many; every kernel's tiles fill it
// A block of a strip for instructions that multiply whole tiles: as bfloat16, (token, column), high bytes times 256.
struct tile_strip {
    uint16_t low[STRIP][32], high[STRIP][32];
    float scale[16], scaled_sum[16], unused[16];
};
static_assert(sizeof(tile_strip) == 1728 && sizeof(tile_strip) % STRIP == 0);

// Activations in the forms that matrices multiply: `side` tokens beside each other (a strip) for every block, or pair, or
// column, so that a kernel reads its tokens from one place.
struct ActivationLayout {
    const uint8_t* int16;  // of each strip: whether its blocks are block_q16, as they must be where any of its tokens is int16
    int width, side;
    size_t block_room;                 // for a block of any strip
    size_t bf16_begin, f32_begin, end;  // where forms begin, and the last one's end; block_q8 and block_q16 begin at 0
    bool tiled = false;                 // strips hold a tile_strip for every 32 columns, instead of theirs
    size_t at(int token, int n) const { return (size_t)(token / side) * (size_t)(side * n) + (size_t)(token % side); }
    bool is_int16(int token) const { return int16[token / side]; }
    size_t block_bytes(int token) const {
        return tiled ? block_room : is_int16(token) ? sizeof(block_q16) : sizeof(block_q8);
    }
    uint8_t* blocks(const uint8_t* base, int token) const {
        const size_t strip = (size_t)(token / side) * (size_t)side * (size_t)(width / 32) * block_room;
        return (uint8_t*)base + strip + (size_t)(token % side) * block_bytes(token);
    }
    uint32_t* bf16(const uint8_t* base, int token) const {  // in pairs
        return (uint32_t*)(base + bf16_begin) + at(token, (width + 1) / 2);
    }
    float* f32(const uint8_t* base, int token) const { return (float*)(base + f32_begin) + at(token, width); }
};
enum Form : int { FORM_Q8 = 1, FORM_BF16 = 2, FORM_F32 = 4 };
constexpr int form_of(Kind kind) {
    return kind == Kind::F16_AS_BF16 ? FORM_BF16 : is_float(kind) ? FORM_F32 : FORM_Q8;
}

// Keys of a page: (width, 16 positions); values: (16 positions, padded width). In halves, or in bfloat16, two that are
// multiplied together side by side: keys (width / 2, 16 positions, 2), values (8, padded width, 2 positions).
struct Heads {
    int width, padded;  // of a head; padded to whole registers
    int group;          // query heads that share keys and values
    bool bf16;          // only where the instruction set has it
};

constexpr int AHEAD = 4;  // pages further on that are fetched while one is read

// Passes over a row of n logits; blocks are of 64, the last one filled up with −∞.
constexpr int LOGITS = 64;
constexpr double LEAST_POWER = 708;  // e^−708 is about the smallest normal number: what is below counts as it
struct SamplingKernels {
    bool (*block_maxima)(const float* row, int n, float* maxima);  // false where NaN or +∞ stands
    // Σ e^((x − highest) · inverse), powers in float32: good to 5e-6.
    double (*sum_of_powers)(const float* row, int n, float highest, float inverse);
    // Of each block Σ e^d and, where asked, Σ e^d · d, with d = (x − highest) · inverse; in float64.
    void (*block_sums)(const float* row, int n, double highest, double inverse, double* sums, double* weighted);
    void (*powers_of)(double* x, int n);  // e^x in place, x up to 0
    int (*count_above)(const float* row, int n, float bound);
};

struct Kernels {
    const char* name;
    bool has_bf16;

    // x (padded, zeros behind `width`) → x / rms(x) · weight, or (x − mean) / deviation where `centred`.
    void (*norm)(const float* x, const float* weight, int width, float eps, bool centred, float* out);
    // log Σ e^x of n logits and the first of the largest, good to 1e-7; not finite where the row is not of numbers.
    double (*log_sum)(const float* row, int n, int* best);
    // The forms of a token's x that `forms` asks for; x is padded with zeros to whole registers. `int16`: with fifteen bits,
    // which takes a strip of block_q16.
    void (*quantize)(const float* x, int forms, const ActivationLayout& layout, uint8_t* activations, int token, bool int16);
    // out[t · stride + 16 · (g − first)] = rows of groups first … last − 1 times tokens token + t; added to what is there
    // where `adds`. `token` begins a strip.
    void (*matmul)(const Matrix& a, const ActivationLayout& layout, const uint8_t* activations, int token, int tokens,
                   int first, int last, float* out, size_t stride, bool adds);
    void (*silu)(const float* gate, const float* up, int n, float* out);  // n: whole registers
    // Rotary embedding of one head, times `scale`; pairs (i, i + width / 2).
    void (*rope)(const float* x, const float* cos, const float* sin, int width, float scale, float* out);
    void (*write_key)(const float* key, const Heads& heads, uint16_t* page, int place);
    void (*write_value)(const float* value, const Heads& heads, uint16_t* page, int place);
    // A query (padded), in place, to what attention reads: float32, or bfloat16 in the first half of its room.
    void (*pack_query)(const Heads& heads, float* query);
    // Attention of `rows` queries over positions [begin, begin + n) of the pages, each row up to its own limit: sets row_max[r],
    // row_sum[r] (of softmax) and weighted[r · padded], the weighted sum of values, of this chunk alone. AHEAD more pages
    // stand behind the keys and behind the values: what is read after them.
    void (*attention)(const Heads& heads, const float* queries, int rows, const int* limits, const uint16_t* const* keys,
                      const uint16_t* const* values, int begin, int n, float* scores, float* row_max, float* row_sum,
                      float* weighted);
    // Fold a chunk into what came before it.
    void (*merge)(int padded, float& row_max, float& row_sum, float* weighted, float next_max, float next_sum,
                  const float* next_weighted);
    void (*prefetch)(const uint8_t* p, size_t bytes);
    uint64_t (*read)(const uint8_t* p, size_t bytes);  // every byte, for the memory's limit; whole lines of 1024
    double (*multiply_loop)(int what, long rounds);  // operations done: 0 fp32, 1 bf16, 2 int8; 0 where there is no instruction
    const SamplingKernels* sampling;
    // Of an instruction set with tiles: a token's blocks, `stride` bytes from each to the next, into those of a strip, for
    // products of so many tokens or more.
    void (*fill_tiles)(const block_q16* from, size_t stride, int blocks, tile_strip* to, int place) = nullptr;
    int tiles_from = 0;
};

const Kernels* scalar_kernels();
const Kernels* avx2_kernels();
const Kernels* avxvnni_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512bf16_kernels();
const Kernels* amx_kernels();
const Kernels* neon_kernels();

}  // namespace camelid
