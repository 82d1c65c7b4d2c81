// Prints how many numbers of products in tiles differ from those in lanes, in any bit: a name and a number a line. Weights and
// activations go to the ends of their ranges, where sums come next to 2^24.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "isa/isa.h"

using namespace camelid;

namespace {

std::mt19937 generator(1);
constexpr int TOKENS = 43, ROOM = 48, COLUMNS = 768, GROUPS = 3;

std::vector<float> product(const Kernels& k, const Matrix& a, const std::vector<float>& x, bool int16, bool tiled) {
    const std::vector<uint8_t> strips(ROOM / STRIP, 1);
    ActivationLayout layout{strips.data(), COLUMNS, STRIP, sizeof(block_q16), 0, 0, 0};
    std::vector<tile_strip> tiles(ROOM / STRIP * COLUMNS / 32);
    std::vector<block_q16> blocks(ROOM * COLUMNS / 32);
    uint8_t* activations = (uint8_t*)blocks.data();
    for (int t = 0; t < TOKENS; t++) {
        k.quantize(x.data() + t * COLUMNS, FORM_Q8, layout, activations, t, int16);
        if (tiled)
            k.fill_tiles((const block_q16*)layout.blocks(activations, t), STRIP * sizeof(block_q16), COLUMNS / 32,
                         tiles.data() + t / STRIP * (COLUMNS / 32), t % STRIP);
    }
    if (tiled) layout.tiled = true, layout.block_room = sizeof(tile_strip) / STRIP, activations = (uint8_t*)tiles.data();
    const size_t stride = GROUPS * LANES;
    std::vector<float> out(TOKENS * stride, 1.0f);
    k.matmul(a, layout, activations, 0, TOKENS, 0, GROUPS, out.data(), stride, true);
    return out;
}

void compare(Kind kind, int weights, int numbers, bool int16) {
    const Traits& t = traits(kind);
    Matrix a{kind, GROUPS * LANES, COLUMNS, GROUPS, (block_at(t, COLUMNS / 32) + 63) / 64 * 64, nullptr, nullptr};
    std::vector<uint8_t> data(a.group_bytes * GROUPS + 8192);
    for (uint8_t& byte : data) byte = (uint8_t)generator() & 0x37;  // no scale is infinite
    for (int g = 0; g < GROUPS; g++)
        for (int b = 0; b < COLUMNS / 32; b++)
            for (int i = 0; i < t.payload_bytes; i++) {
                uint8_t& byte = data[(size_t)g * a.group_bytes + block_at(t, b) + (size_t)i];
                byte = weights == 0 ? (uint8_t)generator() : weights == 1 ? 0xff : weights == 2 ? 0x80 : 0;
            }
    a.data = data.data();
    std::normal_distribution<float> normal;
    std::vector<float> x(TOKENS * COLUMNS);
    for (float& value : x) value = numbers == 0 ? normal(generator) : numbers == 1 ? 1.0f : generator() % 9 ? -1.0f : -0.99f;
    const auto lanes = product(*avx512bf16_kernels(), a, x, int16, false), tiles = product(*amx_kernels(), a, x, int16, true);
    int different = 0;
    for (size_t i = 0; i < lanes.size(); i++) different += std::memcmp(&lanes[i], &tiles[i], 4) != 0;
    std::printf("%s-%d-%d-%d %d\n", t.name, weights, numbers, int16, different);
}

}  // namespace

int main() {
    usable_kernels();  // asks the system for the tiles
    for (Kind kind : {Kind::Q4_0, Kind::Q4_1, Kind::Q5_0, Kind::Q5_1, Kind::Q8_0, Kind::Q4_K, Kind::Q5_K, Kind::Q6_K})
        for (int weights = 0; weights < 4; weights++)
            for (int numbers = 0; numbers < 3; numbers++) compare(kind, weights, numbers, false), compare(kind, weights, numbers, true);
}
