// What an instruction set does for the forward pass: the table of its kernels, and the shapes of what they work on.
#pragma once
#include <cstddef>
#include <cstdint>

namespace camelid {

constexpr int LANES = 16;  // output rows side by side in a packed matrix; positions in a page

// How a packed matrix stores its weights. A new kind is a row in `TRAITS` and a function in pack.cpp.
enum class Kind : int { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, F32, BF16, F16, F16_AS_BF16 };

// Scales of a block of 32: one half; two halves (scale, minimum); two bytes of 6 bits times two halves of 256 weights;
// two signed bytes (one for 16 weights each) times a half of 256 weights.
enum class Scales { NONE, ONE, TWO, SUPER, SUPER16 };

struct Traits {
    int bits;        // of a weight
    int middle;      // the integer that means zero
    Scales scales;
    int block_bytes;  // of a group's payload for 32 columns (for 1 column where scales are NONE)
    int scale_bytes;  // of a group's scales for 32 columns
    int super_bytes;  // of a group's scales for 256 columns
};

constexpr Traits TRAITS[] = {
    {4, 8, Scales::ONE, 256, 32, 0},      {4, 0, Scales::TWO, 256, 64, 0},   {5, 16, Scales::ONE, 320, 32, 0},
    {5, 0, Scales::TWO, 320, 64, 0},      {8, 0, Scales::ONE, 512, 32, 0},   {4, 0, Scales::SUPER, 256, 32, 64},
    {5, 0, Scales::SUPER, 320, 32, 64},   {6, 32, Scales::SUPER16, 384, 32, 32},
    {32, 0, Scales::NONE, 64, 0, 0},      {16, 0, Scales::NONE, 32, 0, 0},   {16, 0, Scales::NONE, 32, 0, 0},
    {16, 0, Scales::NONE, 32, 0, 0},
};
constexpr const Traits& traits(Kind kind) { return TRAITS[(int)kind]; }
constexpr bool is_float(Kind kind) { return traits(kind).scales == Scales::NONE; }

// Where block b of 32 columns begins in a group: blocks follow each other, payload and scales together, and the scales
// of 256 columns stand before their eight blocks. A product reads a matrix from its first byte to its last.
constexpr size_t super_at(const Traits& t, int b) {
    return (size_t)(b / 8) * (size_t)(8 * (t.block_bytes + t.scale_bytes) + t.super_bytes);
}
constexpr size_t block_at(const Traits& t, int b) {
    if (!t.super_bytes) return (size_t)b * (size_t)(t.block_bytes + t.scale_bytes);
    return super_at(t, b) + (size_t)t.super_bytes + (size_t)(b % 8) * (size_t)(t.block_bytes + t.scale_bytes);
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

// 32 activations of a token, each scale · (byte + 256 · over): every block has room for what goes beyond its bytes in one
// of its quads (four columns side by side), the largest. For weights with a zero point: the whole numbers' sum times −8, as
// Q4_0 wants it and others shift it, and the halves' sums times −32, as Q6_K does; for weights with minima: scale · sum.
struct Record {
    int8_t bytes[32];
    int8_t over[4];
    int32_t quad, in_first;  // whose `over` it is; all bits set where it lies in the first half
    float scale, scaled_sum;
    int32_t minus8, minus32[2];
};
// A token with few bits gives the same sums from it as from a Record: what lies beyond its bytes is 0 but in its largest quad.
struct FineRecord : Record {
    int8_t overs[32];  // of every quad
};

// Activations in the forms that matrices multiply: `side` tokens beside each other (a strip) for every block, or pair, or
// column, so that a kernel reads its tokens from one place.
struct RowLayout {
    const uint8_t* fine;  // of each strip: whether its records are fine, as they must be where any of its tokens has fifteen bits
    int width, side;
    size_t record_room;  // for a record of any strip
    size_t brain, floats, bytes;  // where forms begin, and their end
    size_t at(int token, int n) const { return (size_t)(token / side) * (size_t)(side * n) + (size_t)(token % side); }
    bool is_fine(int token) const { return fine[token / side]; }
    size_t record_bytes(int token) const { return is_fine(token) ? sizeof(FineRecord) : sizeof(Record); }
    uint8_t* records(const uint8_t* base, int token) const {
        const size_t strip = (size_t)(token / side) * (size_t)side * (size_t)(width / 32) * record_room;
        return (uint8_t*)base + strip + (size_t)(token % side) * record_bytes(token);
    }
    uint32_t* pairs(const uint8_t* base, int token) const { return (uint32_t*)(base + brain) + at(token, (width + 1) / 2); }
    float* numbers(const uint8_t* base, int token) const { return (float*)(base + floats) + at(token, width); }
};
constexpr int STRIP = 12;  // tokens side by side where there are many; every kernel's tiles fill it
enum Form : int { FORM_BYTES = 1, FORM_BRAIN = 2, FORM_FLOATS = 4 };

// Keys of a page: (width, 16 positions); values: (16 positions, padded width); both in halves. In `pairs` both are bfloat16,
// two that are multiplied together side by side: keys (width / 2, 16 positions, 2), values (8, padded width, 2 positions).
struct Heads {
    int width, padded;  // of a head; padded to whole registers
    int group;          // query heads that share keys and values
    bool pairs;         // only where the instruction set has bf16
};

constexpr int AHEAD = 4;  // pages further on that are fetched while one is read

struct Kernels {
    const char* name;
    bool has_bf16;

    // x (padded, zeros behind `width`) → x / rms(x) · weight, or (x − mean) / deviation where `centred`.
    void (*norm)(const float* x, const float* weight, int width, float eps, bool centred, float* out);
    // The forms of a token's x that `forms` asks for; x is padded with zeros to whole registers. `fine`: with fifteen bits,
    // which takes a fine strip.
    void (*prepare)(const float* x, int forms, const RowLayout& layout, uint8_t* rows, int token, bool fine);
    // out[t · stride + 16 · (g − first)] = rows of groups first … last − 1 times tokens token + t; added to what is there
    // where `adds`. `token` begins a strip.
    void (*multiply)(const Matrix& a, const RowLayout& layout, const uint8_t* rows, int token, int tokens, int first,
                     int last, float* out, size_t stride, bool adds);
    void (*silu)(const float* gate, const float* up, int n, float* out);  // n: whole registers
    // Rotary embedding of one head, times `scale`; pairs (i, i + width / 2).
    void (*rotate)(const float* x, const float* cos, const float* sin, int width, float scale, float* out);
    void (*write_key)(const float* key, const Heads& heads, uint16_t* page, int place);
    void (*write_value)(const float* value, const Heads& heads, uint16_t* page, int place);
    // A query (padded), in place, to what attention reads: the numbers themselves, or pairs in the first half of their room.
    void (*ready)(const Heads& heads, float* query);
    // Attention of `rows` queries over positions [begin, begin + n) of the pages, each row up to its own limit:
    // sets peak[r], mass[r] and mixed[r · padded] of this stretch alone. AHEAD more pages stand behind the keys
    // and behind the values: what is read after them.
    void (*attend)(const Heads& heads, const float* queries, int rows, const int* limits, const uint16_t* const* keys,
                   const uint16_t* const* values, int begin, int n, float* scores, float* peak, float* mass,
                   float* mixed);
    // Fold a stretch into what came before it.
    void (*merge)(int padded, float& peak, float& mass, float* mixed, float next_peak, float next_mass,
                  const float* next_mixed);
    void (*prefetch)(const uint8_t* p, size_t bytes);
    uint64_t (*read)(const uint8_t* p, size_t bytes);  // every byte, for the memory's limit; whole lines of 1024
    double (*busy)(int what, long rounds);  // operations done: 0 fp32, 1 bf16, 2 int8; 0 where there is no instruction
};

const Kernels* scalar_kernels();
const Kernels* avx2_kernels();
const Kernels* avxvnni_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512bf16_kernels();
const Kernels* neon_kernels();

}  // namespace camelid
