// How weights are stored: a row's blocks in files (GGML's), and the one table of the kinds that the engine multiplies.
#pragma once
#include <cstddef>
#include <cstdint>

namespace camelid {

// Blocks lie at any address. d: scale; m, dmin: of the minimum; qs, ql: low bits of the weights; qh: the bits above them.
struct block_f32 { uint8_t bytes[4]; };
struct block_f16 { uint8_t bytes[2]; };
struct block_bf16 { uint8_t bytes[2]; };
struct block_q4_0 { block_f16 d; uint8_t qs[16]; };
struct block_q4_1 { block_f16 d, m; uint8_t qs[16]; };
struct block_q5_0 { block_f16 d; uint8_t qh[4], qs[16]; };
struct block_q5_1 { block_f16 d, m; uint8_t qh[4], qs[16]; };
struct block_q8_0 { block_f16 d; int8_t qs[32]; };
struct block_q4_K { block_f16 d, dmin; uint8_t scales[12], qs[128]; };
struct block_q5_K { block_f16 d, dmin; uint8_t scales[12], qh[32], qs[128]; };
struct block_q6_K { uint8_t ql[128], qh[64]; int8_t scales[16]; block_f16 d; };

static_assert(sizeof(block_f32) == 4);
static_assert(sizeof(block_f16) == 2);
static_assert(sizeof(block_bf16) == 2);
static_assert(sizeof(block_q4_0) == 18);
static_assert(sizeof(block_q4_1) == 20);
static_assert(sizeof(block_q5_0) == 22);
static_assert(sizeof(block_q5_1) == 24);
static_assert(sizeof(block_q8_0) == 34);
static_assert(sizeof(block_q4_K) == 144);
static_assert(sizeof(block_q5_K) == 176);
static_assert(sizeof(block_q6_K) == 210);

// Scales of 32 packed columns: none; one half; two halves (scale, minimum); two bytes of 6 bits times two halves of 256
// weights; two signed bytes (one for 16 weights each) times a half of 256 weights.
enum class Scales { NONE, ONE, TWO, SUPER, SUPER16 };

// The one table of kinds: name, a file's block and its columns, bits of a weight, the integer that means zero, scales. A new
// kind is a row here and a function in pack.cpp. The last has no name in files: F16 packed as bfloat16.
#define CAMELID_KINDS(KIND)                       \
    KIND(Q4_0, block_q4_0, 32, 4, 8, ONE)         \
    KIND(Q4_1, block_q4_1, 32, 4, 0, TWO)         \
    KIND(Q5_0, block_q5_0, 32, 5, 16, ONE)        \
    KIND(Q5_1, block_q5_1, 32, 5, 0, TWO)         \
    KIND(Q8_0, block_q8_0, 32, 8, 0, ONE)         \
    KIND(Q4_K, block_q4_K, 256, 4, 0, SUPER)      \
    KIND(Q5_K, block_q5_K, 256, 5, 0, SUPER)      \
    KIND(Q6_K, block_q6_K, 256, 6, 32, SUPER16)   \
    KIND(F32, block_f32, 1, 32, 0, NONE)          \
    KIND(BF16, block_bf16, 1, 16, 0, NONE)        \
    KIND(F16, block_f16, 1, 16, 0, NONE)          \
    KIND(F16_AS_BF16, block_f16, 1, 16, 0, NONE)

#define CAMELID_NAME_OF(NAME, ...) NAME,
enum class Kind : int { CAMELID_KINDS(CAMELID_NAME_OF) };
#undef CAMELID_NAME_OF
constexpr int N_FILE_KINDS = (int)Kind::F16_AS_BF16;

struct Traits {
    const char* name;
    int block_bytes, block_columns;  // of a block as files hold it
    int bits;                        // of a weight
    int zero_point;                  // the integer that means zero
    Scales scales;
    // Packed, of a group of 16 rows: the weights' bits of 32 columns (of 1 column where there are no scales), their scales,
    // and the scales of 256 columns.
    int payload_bytes, scale_bytes, super_bytes;
};

constexpr Traits make_traits(const char* name, size_t block_bytes, int columns, int bits, int zero_point, Scales scales) {
    const bool floats = scales == Scales::NONE;
    return {name, (int)block_bytes, columns, bits, zero_point, scales, floats ? 2 * bits : 64 * bits,
            floats ? 0 : scales == Scales::TWO ? 64 : 32, scales == Scales::SUPER ? 64 : scales == Scales::SUPER16 ? 32 : 0};
}

#define CAMELID_TRAITS_OF(NAME, BLOCK, COLUMNS, BITS, ZERO_POINT, SCALES) \
    make_traits(#NAME, sizeof(BLOCK), COLUMNS, BITS, ZERO_POINT, Scales::SCALES),
constexpr Traits TRAITS[] = {CAMELID_KINDS(CAMELID_TRAITS_OF)};
#undef CAMELID_TRAITS_OF

constexpr const Traits& traits(Kind kind) { return TRAITS[(int)kind]; }
constexpr bool is_float(Kind kind) { return traits(kind).scales == Scales::NONE; }

}  // namespace camelid
