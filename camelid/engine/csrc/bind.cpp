// The engine as Python sees it; no other file knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "forward.h"
#include "isa.h"
#include "measure.h"
#include "pack.h"

namespace nb = nanobind;
using namespace camelid;

using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out2 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

namespace {

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

const Kernels& kernels_called(const std::string& name) {
    const auto found = usable_kernels();
    for (const Kernels* kernels : found)
        if (name.empty() || name == kernels->name) return *kernels;
    throw std::invalid_argument("no such instruction set on this machine");
}

Kind kind_of(const Model& model, const std::string& quant, bool exact) {
    const auto kind = packed_kind(quant, model.kernels().has_bf16 && !exact);
    if (!kind) throw std::invalid_argument("this quant is not packed");
    return *kind;
}

// Rows of a batch: `lengths[i]` new ids of span i from position `starts[i]`, on `n_pages[i]` of the pages in line.
void forward(Model& model, Floats2 embedded, Ints lengths, Ints starts, Ints n_pages, Ints pages, Ints wanted,
             Floats2 cos, Floats2 sin, Out2 out, bool hidden) {
    Batch batch{embedded.data(), (int)embedded.shape(0), {}, {}, cos.data(), sin.data(), nullptr, nullptr};
    (hidden ? batch.hidden : batch.logits) = out.data();
    const Shape& shape = model.shape();
    require((int)embedded.shape(1) == shape.dim, "embedded: width");
    require((int)cos.shape(1) == shape.head_dim / 2 && cos.shape(0) == sin.shape(0) && sin.shape(1) == cos.shape(1), "tables");
    require(lengths.size() == starts.size() && lengths.size() == n_pages.size(), "spans: lengths differ");
    int first = 0, page = 0;
    for (size_t i = 0; i < lengths.size(); i++) {
        const int length = lengths(i), start = starts(i), n = n_pages(i);
        require(length > 0 && start >= 0 && n > 0, "span: empty");
        require((start + length + LANES - 1) / LANES <= n && (size_t)(start + length) <= cos.shape(0), "span: no room");
        require((size_t)(page + n) <= pages.size(), "pages: too few");
        for (int p = 0; p < n; p++) require(model.has_page(pages(page + p)), "pages: no such page");
        batch.spans.push_back({first, length, start, pages.data() + page, n});
        first += length, page += n;
    }
    require(first == batch.tokens, "embedded: rows");
    for (size_t i = 0; i < wanted.size(); i++) {
        require(wanted(i) > (i ? wanted(i - 1) : -1) && wanted(i) < batch.tokens, "wanted: no such row, or not in order");
        batch.wanted.push_back(wanted(i));
    }
    require(out.shape(0) == wanted.size() && (int)out.shape(1) == (hidden ? shape.dim : shape.vocab), "out: shape");
    nb::gil_scoped_release release;
    model.forward(batch);
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.def("keep_freed_memory", [] {
#ifdef __GLIBC__
        mallopt(M_MMAP_THRESHOLD, 32 << 20);
        mallopt(M_TRIM_THRESHOLD, 64 << 20);
        mallopt(M_TOP_PAD, 4 << 20);
#endif
    });
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : usable_kernels()) names.push_back(kernels->name);
        return names;
    });
    m.def("read_bandwidth", [](const std::string& isa, int threads, size_t megabytes) {
        const Kernels& kernels = kernels_called(isa);
        nb::gil_scoped_release release;
        return read_bandwidth(kernels, threads, megabytes);
    });
    m.def("multiply_peak", [](const std::string& isa, int what, int threads) {
        const Kernels& kernels = kernels_called(isa);
        nb::gil_scoped_release release;
        return multiply_peak(kernels, what, threads);
    });
    nb::class_<Model>(m, "Model")
        .def("__init__",
             [](Model* self, int dim, int layers, int heads, int kv_heads, int head_dim, int ffn_dim, int vocab, float eps,
                bool layer_norm, bool norms_after, bool qk_norm, float clip_qkv, const std::string& isa, int threads, bool fine) {
                 require(head_dim <= 1024, "head_dim: above 1024");
                 const Shape shape{dim, layers, heads, kv_heads, head_dim, ffn_dim, vocab,
                                   eps, layer_norm, norms_after, qk_norm, clip_qkv};
                 new (self) Model(shape, kernels_called(isa), threads, fine);
             },
             nb::kw_only(), nb::arg("dim"), nb::arg("layers"), nb::arg("heads"), nb::arg("kv_heads"), nb::arg("head_dim"),
             nb::arg("ffn_dim"), nb::arg("vocab"), nb::arg("eps"), nb::arg("layer_norm"), nb::arg("norms_after"),
             nb::arg("qk_norm"), nb::arg("clip_qkv"), nb::arg("isa"), nb::arg("threads"),
             nb::arg("fine"))
        .def("plan", [](Model& self, int layer, int slot, const std::string& quant, bool exact, int rows, int columns) {
            require(layer < self.shape().layers && slot >= 0 && slot < N_SLOTS && rows > 0 && columns > 0, "plan");
            self.plan(layer, slot, kind_of(self, quant, exact), rows, columns);
        })
        .def("reserve", &Model::reserve)
        .def("fill", [](Model& self, int layer, const std::vector<Bytes>& matrices) {
            for (int slot = 0; slot < (int)matrices.size(); slot++)
                require(self.fits(layer, slot, matrices[slot].shape(0), matrices[slot].shape(1)), "fill: shape");
            nb::gil_scoped_release release;
            size_t rounded = 0;
            for (int slot = 0; slot < (int)matrices.size(); slot++)
                rounded += self.fill(layer, slot, matrices[slot].data(), matrices[slot].shape(1));
            return rounded;
        })
        .def("set_bias", [](Model& self, int layer, int slot, Floats1 bias) {
            require(layer >= 0 && self.has_rows(layer, slot, bias.shape(0)), "set_bias: shape");
            self.set_bias(layer, slot, bias.data());
        })
        .def("set_norm", [](Model& self, int layer, int slot, Floats1 weight) {
            self.set_norm(layer, slot, weight.data(), (int)weight.shape(0));
        })
        .def("allocate", &Model::allocate)
        .def("copy_page", [](Model& self, int source, int target) {
            require(self.has_page(source) && self.has_page(target), "copy_page: no such page");
            self.copy_page(source, target);
        })
        .def("read_weights", &Model::read_weights, nb::call_guard<nb::gil_scoped_release>())
        .def("forward", &forward, nb::arg("embedded"), nb::arg("lengths"), nb::arg("starts"), nb::arg("n_pages"),
             nb::arg("pages"), nb::arg("wanted"), nb::arg("cos"), nb::arg("sin"), nb::arg("out"), nb::arg("hidden") = false)
        .def_prop_ro("isa", [](const Model& self) { return std::string(self.kernels().name); })
        .def_prop_ro("threads", &Model::threads)
        .def_prop_ro("weight_bytes", &Model::weight_bytes);
}
