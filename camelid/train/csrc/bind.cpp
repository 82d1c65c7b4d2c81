// Softmaxes as Python sees them; no other file knows Python. T: how a number is computed with; Held: how Python has it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "softmax.h"

namespace nb = nanobind;
using namespace camelid;

namespace {

template <class T, int DIMENSIONS>
using Array = nb::ndarray<T, nb::ndim<DIMENSIONS>, nb::c_contig, nb::device::cpu>;

CAMELID_CLONES void maxima(const float* s, int64_t rows, int64_t n, float* out) { largest_of_columns(s, rows, n, out); }
CAMELID_CLONES void maxima(const Bf16* s, int64_t rows, int64_t n, float* out) { largest_of_columns(s, rows, n, out); }
CAMELID_CLONES void powers(float* scores, int64_t rows, int64_t n, const float* maxima, double* sums, float* scratch) {
    powers_of_columns(scores, rows, n, maxima, sums, scratch);
}
CAMELID_CLONES void powers(Bf16* scores, int64_t rows, int64_t n, const float* maxima, double* sums, float* scratch) {
    powers_of_columns(scores, rows, n, maxima, sums, scratch);
}
CAMELID_CLONES void weights(float* scores, int64_t n, float* powers) { weights_row(scores, n, powers); }
CAMELID_CLONES void weights(Bf16* scores, int64_t n, float* powers) { weights_row(scores, n, powers); }
CAMELID_CLONES void gradient(float* grad, const float* weights, int64_t n) { weights_gradient_row(grad, weights, n); }
CAMELID_CLONES void gradient(Bf16* grad, const Bf16* weights, int64_t n) { weights_gradient_row(grad, weights, n); }

constexpr int64_t BLOCK = 256;  // rows that a thread takes at once; sums do not depend on the number of threads

template <class T, class Held>
void power_columns(Array<Held, 2> scores, Array<float, 1> largest, Array<double, 1> totals, int threads) {
    static_assert(sizeof(T) == sizeof(Held));
    const int64_t V = scores.shape(0), n = scores.shape(1), blocks = (V + BLOCK - 1) / BLOCK;
    if ((int64_t)largest.size() != n || (int64_t)totals.size() != n)
        throw std::invalid_argument("an array has another number of columns");
    T* first = (T*)scores.data();
    float* maximum = largest.data();
    double* total = totals.data();
    nb::gil_scoped_release unlocked;
    std::vector<float> maxima_of(blocks * n);
    std::vector<double> sums_of(blocks * n);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t block = 0; block < blocks; block++)
        maxima(first + block * BLOCK * n, std::min(BLOCK, V - block * BLOCK), n, maxima_of.data() + block * n);
    std::fill(maximum, maximum + n, -INFINITY);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t i = 0; i < n; i++) maximum[i] = std::max(maximum[i], maxima_of[block * n + i]);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scratch(n);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++)
            powers(first + block * BLOCK * n, std::min(BLOCK, V - block * BLOCK), n, maximum,
                   sums_of.data() + block * n, scratch.data());
    }
    std::fill(total, total + n, 0.0);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t i = 0; i < n; i++) total[i] += sums_of[block * n + i];
}

// Numbers (B, Q, n) of queries at the places start … of R rows and of keys at first …; begins (R, T): where the document
// of each query begins. Rows share B evenly, and queries Q. work(at, low, high, scratch) gets the place of a query's numbers
// and which of them it sees, low … high - 1.
template <class Held, class Work>
void seen_rows(const Array<Held, 3>& numbers, const Array<const int64_t, 2>& begins, int64_t start, int64_t first,
               int threads, Work work) {
    const int64_t B = numbers.shape(0), Q = numbers.shape(1), n = numbers.shape(2);
    const int64_t R = begins.shape(0), T_ = begins.shape(1), *begin = begins.data();
    if (!R || !T_ || B % R || Q % T_ || n != start + T_ - first) throw std::invalid_argument("the shapes do not fit");
    for (int64_t i = 0; i < R * T_; i++)
        if (begin[i] < first || begin[i] > start + i % T_) throw std::invalid_argument("a query does not see itself");
    nb::gil_scoped_release unlocked;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scratch(n);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < B * Q; row++) {
            const int64_t token = row % Q / (Q / T_), low = begin[row / Q / (B / R) * T_ + token] - first;
            work(row * n, low, start + token + 1 - first, scratch.data());
        }
    }
}

// From low to high, wider: loops over whole vectors have no rest, which takes as long as they do in short rows.
constexpr int64_t VECTOR = 32;
int64_t down(int64_t low) { return low / VECTOR * VECTOR; }
int64_t up(int64_t high, int64_t n) { return std::min((high + VECTOR - 1) / VECTOR * VECTOR, n); }

template <class T, class Held>
void attention_rows(Array<Held, 3> scores, Array<const int64_t, 2> begins, int64_t start, int64_t first, int threads) {
    static_assert(sizeof(T) == sizeof(Held));
    T* data = (T*)scores.data();
    const int64_t n = scores.shape(2);
    T lowest;
    from_float(-INFINITY, lowest);
    seen_rows(scores, begins, start, first, threads, [=](int64_t at, int64_t low, int64_t high, float* powers) {
        T* own = data + at;
        const int64_t from = down(low), to = up(high, n);
        std::fill(own + from, own + low, lowest);
        std::fill(own + high, own + to, lowest);
        weights(own + from, to - from, powers);
        std::fill(own, own + low, T{});
        std::fill(own + high, own + n, T{});
    });
}

template <class T, class Held>
void attention_gradient_rows(Array<Held, 3> grad, Array<const Held, 3> of, Array<const int64_t, 2> begins,
                             int64_t start, int64_t first, int threads) {
    static_assert(sizeof(T) == sizeof(Held));
    for (int i = 0; i < 3; i++)
        if (grad.shape(i) != of.shape(i)) throw std::invalid_argument("the gradient has another shape");
    T* data = (T*)grad.data();
    const T* weights = (const T*)of.data();
    const int64_t n = grad.shape(2);
    seen_rows(grad, begins, start, first, threads, [=](int64_t at, int64_t low, int64_t high, float*) {
        T* own = data + at;
        const int64_t from = down(low), to = up(high, n);
        std::fill(own, own + low, T{});
        std::fill(own + high, own + n, T{});
        gradient(own + from, weights + at + from, to - from);
    });
}

template <class T, class Held>
void define(nb::module_& m) {
    m.def("power_columns", &power_columns<T, Held>, nb::arg("scores").noconvert(), nb::arg("maxima").noconvert(),
          nb::arg("totals").noconvert(), nb::arg("threads"),
          "Turn scores (V, n) into e^(score - largest of its column); fill in the columns' largest scores and sums.");
    m.def("attention_rows", &attention_rows<T, Held>, nb::arg("scores").noconvert(), nb::arg("begins"),
          nb::arg("start"), nb::arg("first"), nb::arg("threads"),
          "Turn scores (B, Q, n) into weights, 0 where a query does not see a key.");
    m.def("attention_gradient_rows", &attention_gradient_rows<T, Held>, nb::arg("grad").noconvert(),
          nb::arg("weights").noconvert(), nb::arg("begins"), nb::arg("start"), nb::arg("first"), nb::arg("threads"),
          "Turn the gradient of weights (B, Q, n) into that of their scores.");
}

}  // namespace

NB_MODULE(_softmax, m) {
    define<float, float>(m);
    define<Bf16, uint16_t>(m);
}
