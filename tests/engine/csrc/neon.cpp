// Prints how far each NEON kernel is from its scalar twin, relative to the twin: a name and a number a line.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "kernels.h"

using namespace camelid;

namespace {

std::mt19937 generator(1);
using Floats = std::vector<float>;

Floats numbers(size_t n, float heavy = 0) {
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> chance;
    Floats x(n);
    for (float& value : x) value = normal(generator) * (chance(generator) < heavy ? 20.0f : 1.0f);
    return x;
}

void compare(const char* name, int what, const std::function<Floats(const Kernels&)>& run) {
    const Floats right = run(*scalar_kernels()), neon = run(*neon_kernels());
    double off = 0, size = 0;
    for (size_t i = 0; i < right.size(); i++) off += std::pow(right[i] - neon[i], 2), size += std::pow(right[i], 2);
    std::printf("%s-%d %.3g\n", name, what, std::sqrt(off / size));
}

Floats product(const Kernels& k, const Matrix& a, bool int16, const std::vector<Floats>& tokens) {
    const int n = (int)tokens.size(), room = (n + STRIP - 1) / STRIP * STRIP;
    const uint8_t strips[] = {int16, int16};
    ActivationLayout layout{strips, a.columns, STRIP, sizeof(block_q16), 0, 0, 0};
    layout.f32_begin = (size_t)room * (size_t)(a.columns / 32) * layout.block_room;
    std::vector<uint8_t> activations(layout.f32_begin + (size_t)room * (size_t)a.columns * 4);
    for (int t = 0; t < n; t++) k.quantize(tokens[(size_t)t].data(), FORM_Q8 | FORM_F32, layout, activations.data(), t, int16);
    const size_t stride = (size_t)a.groups * LANES;
    Floats out((size_t)n * stride);
    k.matmul(a, layout, activations.data(), 0, n, 0, a.groups, out.data(), stride, false);
    return out;
}

void compare_products(Kind kind, bool int16) {
    const Traits& t = traits(kind);
    Matrix a{kind, 3 * LANES, 512, 3, 0, nullptr, nullptr};
    a.group_bytes = is_float(kind) ? (size_t)a.columns * (size_t)t.payload_bytes : block_at(t, a.columns / 32);
    std::vector<uint8_t> data(a.group_bytes * 3 + 8192);
    for (uint8_t& byte : data) byte = (uint8_t)generator() & 0x37;  // no scale is infinite
    a.data = data.data();
    std::vector<Floats> tokens;
    for (int i = 0; i < 19; i++) tokens.push_back(numbers((size_t)a.columns, 0.02f));
    compare(int16 ? "int16" : "product", (int)kind, [&](const Kernels& k) { return product(k, a, int16, tokens); });
}

Floats attended(const Kernels& k, const Heads& heads, int rows, int n, const Floats& q, const Floats& keys, const Floats& values) {
    const int pages = (n + LANES - 1) / LANES;
    const size_t key_page = (size_t)LANES * heads.width, value_page = (size_t)LANES * heads.padded;
    std::vector<uint16_t> key_data(key_page * (pages + 2)), value_data(value_page * (pages + 2));
    std::vector<const uint16_t*> key_pages, value_pages;
    for (int p = 0; p < pages + 2; p++)
        key_pages.push_back(key_data.data() + key_page * p), value_pages.push_back(value_data.data() + value_page * p);
    for (int i = 0; i < n; i++) {
        k.write_key(keys.data() + (size_t)i * heads.padded, heads, key_data.data() + key_page * (i / LANES), i % LANES);
        k.write_value(values.data() + (size_t)i * heads.padded, heads, value_data.data() + value_page * (i / LANES), i % LANES);
    }
    std::vector<int> limits;
    for (int r = 0; r < rows; r++) limits.push_back(n - rows + r + 1);
    Floats scores((size_t)rows * 256), row_max((size_t)rows), row_sum((size_t)rows), weighted((size_t)rows * heads.padded);
    k.attention(heads, q.data(), rows, limits.data(), key_pages.data(), value_pages.data(), 0, n, scores.data(),
                row_max.data(), row_sum.data(), weighted.data());
    weighted.insert(weighted.end(), row_sum.begin(), row_sum.end());
    return weighted;
}

}  // namespace

int main() {
    for (Kind kind : {Kind::Q4_0, Kind::Q4_1, Kind::Q5_0, Kind::Q5_1, Kind::Q8_0, Kind::Q4_K, Kind::Q5_K, Kind::Q6_K})
        compare_products(kind, false), compare_products(kind, true);
    for (Kind kind : {Kind::F32, Kind::BF16, Kind::F16}) compare_products(kind, false);
    for (int width : {48, 64, 80}) {
        const Heads heads{width, (width + LANES - 1) / LANES * LANES, 3, false};
        const int n = 100 + width, rows = 9;
        const Floats q = numbers((size_t)rows * heads.padded), keys = numbers((size_t)n * heads.padded);
        const Floats values = numbers((size_t)n * heads.padded);
        compare("attention", width, [&](const Kernels& k) { return attended(k, heads, rows, n, q, keys, values); });
    }
    const Floats x = numbers(512), y = numbers(512), angles = numbers(64);
    compare("norm", 0, [&](const Kernels& k) {
        Floats out(512);
        k.norm(x.data(), y.data(), 512, 1e-5f, false, out.data());
        return out;
    });
    compare("silu", 0, [&](const Kernels& k) {
        Floats out(512);
        k.silu(x.data(), y.data(), 512, out.data());
        return out;
    });
    compare("rope", 0, [&](const Kernels& k) {
        Floats out(128);
        k.rope(x.data(), angles.data(), y.data(), 128, 0.5f, out.data());
        return out;
    });
}
