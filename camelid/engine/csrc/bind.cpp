// The engine as Python sees it; no other file knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "forward.h"
#include "isa/isa.h"
#include "measure.h"
#include "pack.h"
#include "sampling/sampler.h"

namespace nb = nanobind;
using namespace camelid;

using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out2 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Places = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bools = nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

namespace {

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

const Kernels& kernels_called(const std::string& name) {
    const auto usable = usable_kernels();
    for (const Kernels* kernels : usable)
        if (name.empty() || name == kernels->name) return *kernels;
    throw std::invalid_argument("no such instruction set on this machine");
}

Kind kind_called(const Model& model, const std::string& name, bool exact) {
    const auto kind = packed_kind(name, model.kernels().has_bf16 && !exact);
    if (!kind) throw std::invalid_argument("this kind is not packed");
    return *kind;
}

void require_blocks(const Matrix& matrix, const Bytes& blocks) {
    const bool fits = matrix.data && blocks.shape(0) == (size_t)matrix.rows;
    require(fits && blocks.shape(1) == row_bytes_of(matrix.kind, matrix.columns), "fill: shape");
}

Layer& layer_of(Model& model, int layer) {
    require(layer >= 0 && layer < model.config.layers, "no such layer");
    return model.weights.layers[(size_t)layer];
}

std::vector<int> rows_in_order(const Ints& rows, int tokens) {
    std::vector<int> all;
    for (size_t i = 0; i < rows.size(); i++) {
        require(rows(i) > (i ? rows(i - 1) : -1) && rows(i) < tokens, "rows: no such row, or not in order");
        all.push_back(rows(i));
    }
    return all;
}

// New ids of a batch, embedded: `lengths[i]` of span i from position `starts[i]`, on `n_pages[i]` of the pages in line, with
// `adapters[i]`.
void forward(Model& model, Floats2 embedded, Ints lengths, Ints starts, Ints n_pages, Ints pages, Ints adapters, Floats2 cos, Floats2 sin,
             Ints logits_rows, Out2 logits, Ints hidden_rows, Out2 hidden) {
    Batch batch{embedded.data(), (int)embedded.shape(0), {}, {}, {}, cos.data(), sin.data(), logits.data(), hidden.data()};
    const Config& config = model.config;
    require((int)embedded.shape(1) == config.dim, "embedded: width");
    require((int)cos.shape(1) == config.head_dim / 2 && cos.shape(0) == sin.shape(0) && sin.shape(1) == cos.shape(1), "tables");
    require(lengths.size() == starts.size() && lengths.size() == n_pages.size(), "spans: lengths differ");
    require(adapters.size() == lengths.size(), "adapters: lengths differ");
    int first = 0, page = 0;
    for (size_t i = 0; i < lengths.size(); i++) {
        const int length = lengths(i), start = starts(i), n = n_pages(i);
        require(length > 0 && start >= 0 && n > 0, "span: empty");
        require((start + length + LANES - 1) / LANES <= n && (size_t)(start + length) <= cos.shape(0), "span: no room");
        require((size_t)(page + n) <= pages.size(), "pages: too few");
        for (int p = 0; p < n; p++) require(model.cache().has_page(pages(page + p)), "pages: no such page");
        require(adapters(i) >= 0 && adapters(i) <= model.weights.n_adapters(), "adapters: no such adapter");
        batch.spans.push_back({first, length, start, pages.data() + page, n, adapters(i)});
        first += length, page += n;
    }
    require(first == batch.tokens, "embedded: rows");
    batch.logits_rows = rows_in_order(logits_rows, batch.tokens);
    batch.hidden_rows = rows_in_order(hidden_rows, batch.tokens);
    require(logits.shape(0) == logits_rows.size() && (int)logits.shape(1) == config.vocab, "logits: shape");
    require(hidden.shape(0) == hidden_rows.size() && (int)hidden.shape(1) == config.dim, "hidden: shape");
    nb::gil_scoped_release release;
    model.forward(batch);
}

// What each row of logits exceeds its log-probabilities by, and its likeliest id.
void log_sums(const std::string& isa, Floats2 rows, Sums sums, Places best) {
    const Kernels& kernels = kernels_called(isa);
    const int width = (int)rows.shape(1);
    require(width > 0 && sums.size() == rows.shape(0) && best.size() == rows.shape(0), "log_sums: shape");
    nb::gil_scoped_release release;
    for (size_t i = 0; i < rows.shape(0); i++) {
        int id = 0;
        sums(i) = kernels.log_sum(rows.data() + i * (size_t)width, width, &id);
        best(i) = id;
    }
}

// The kinds by their names in files, with the columns and bytes of a block.
nb::dict kinds() {
    nb::dict blocks;
    for (int i = 0; i < N_FILE_KINDS; i++) blocks[TRAITS[i].name] = nb::make_tuple(TRAITS[i].block_columns, TRAITS[i].block_bytes);
    return blocks;
}

Step step_called(const std::string& name) {
    const auto place = std::find(std::begin(STEPS), std::end(STEPS), name);
    require(place != std::end(STEPS), "no such step");
    return (Step)(place - std::begin(STEPS));
}

// Brings a chain to the end of its text, a list of ids that grows.
void look_back(Chain& chain, const nb::list& text) {
    if (chain.seen.size() > text.size()) chain.forget();
    for (size_t i = chain.seen.size(); i < text.size(); i++) chain.see(nb::cast<int32_t>(text[i]));
}

nb::object as_tuple(const Choice& choice, const Chain& chain) {
    if (!choice.is_sure) return nb::none();
    if (chain.alternatives < 0) return nb::make_tuple(choice.id, choice.sampled_logprob, nb::none(), nb::none(), nb::tuple());
    nb::list likeliest;
    for (const Likely& each : choice.likeliest) {
        const bool is_left = each.sampled_logprob > -INFINITY;
        likeliest.append(nb::make_tuple(each.id, each.logprob, is_left ? nb::cast(each.sampled_logprob) : nb::none()));
    }
    return nb::make_tuple(choice.id, choice.sampled_logprob, choice.logprob, choice.rank, nb::tuple(likeliest));
}

// The next id of each text, chosen from its row.
nb::list choose(Sampler& sampler, const std::vector<Floats1>& rows, const nb::list& chains, const nb::list& texts,
                const nb::list& masks) {
    const size_t n = rows.size();
    require(chains.size() == n && texts.size() == n && masks.size() == n, "choose: lengths differ");
    std::vector<const Chain*> of;
    std::vector<Bools> mask(n);
    std::vector<size_t> n_written;
    for (size_t i = 0; i < n; i++) {
        Chain& chain = nb::cast<Chain&>(chains[i]);
        const nb::list text = nb::cast<nb::list>(texts[i]);
        require(rows[i].size() > 0 && text.size() >= chain.n_prompt, "choose: empty");
        if (!masks[i].is_none()) mask[i] = nb::cast<Bools>(masks[i]);
        require(masks[i].is_none() || mask[i].size() == rows[i].size(), "choose: mask");
        if (chain.looks_back()) look_back(chain, text);
        of.push_back(&chain), n_written.push_back(text.size() - chain.n_prompt);
    }
    std::vector<Choice> choices(n);
    {
        nb::gil_scoped_release release;
        for (size_t i = 0; i < n; i++) {
            const uint8_t* allowed = mask[i].is_valid() ? (const uint8_t*)mask[i].data() : nullptr;
            choices[i] = sampler.choose(rows[i].data(), (int)rows[i].size(), *of[i], n_written[i], allowed);
        }
    }
    nb::list all;
    for (size_t i = 0; i < n; i++) all.append(as_tuple(choices[i], *of[i]));
    return all;
}

template <int N> nb::tuple names(const char* const (&table)[N]) {
    nb::list all;
    for (const char* name : table) all.append(name);
    return nb::tuple(all);
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
    m.def("log_sums", &log_sums, nb::arg("isa"), nb::arg("rows"), nb::arg("sums"), nb::arg("best"));
    m.def("rehearse", &rehearse, nb::arg("threads"), nb::arg("walks"), nb::arg("phases"), nb::arg("pieces"),
          nb::arg("held_every"), nb::arg("microseconds"), nb::call_guard<nb::gil_scoped_release>());
    m.def("chance", &chance, nb::arg("seed"), nb::arg("sample"), nb::arg("index"), nb::arg("purpose"));
    nb::class_<Chain>(m, "Chain")
        .def("__init__",
             [](Chain* self, const std::vector<std::pair<std::string, double>>& steps, std::vector<std::pair<int32_t, double>> bias,
                std::vector<int32_t> banned, std::vector<int32_t> banned_early, size_t min_tokens, bool is_greedy, bool keeps_ties,
                bool counts_prompt, size_t window, size_t n_prompt, uint64_t seed, uint64_t sample, int alternatives) {
                 Chain chain{};
                 for (const auto& [name, value] : steps) chain.steps.push_back({step_called(name), value});
                 std::sort(bias.begin(), bias.end());
                 chain.bias = std::move(bias), chain.banned = std::move(banned), chain.banned_early = std::move(banned_early);
                 chain.min_tokens = min_tokens, chain.is_greedy = is_greedy, chain.keeps_ties = keeps_ties;
                 chain.counts_prompt = counts_prompt, chain.window = window, chain.n_prompt = n_prompt;
                 chain.seed = seed, chain.sample = sample, chain.alternatives = alternatives;
                 new (self) Chain(std::move(chain));
             },
             nb::kw_only(), nb::arg("steps"), nb::arg("bias"), nb::arg("banned"), nb::arg("banned_early"), nb::arg("min_tokens"),
             nb::arg("is_greedy"), nb::arg("keeps_ties"), nb::arg("counts_prompt"), nb::arg("window"), nb::arg("n_prompt"),
             nb::arg("seed"), nb::arg("sample"), nb::arg("alternatives"));
    nb::class_<Sampler>(m, "Sampler")
        .def("__init__", [](Sampler* self, const std::string& isa) { new (self) Sampler(*kernels_called(isa).sampling); },
             nb::arg("isa"))
        .def("choose", &choose, nb::arg("rows"), nb::arg("chains"), nb::arg("texts"), nb::arg("masks"));
    m.attr("KINDS") = kinds();
    m.attr("MATRICES") = names(MATRICES);
    m.attr("NORMS") = names(NORMS);
    nb::class_<Model>(m, "Model")
        .def("__init__",
             [](Model* self, int dim, int layers, int heads, int kv_heads, int head_dim, int ffn_dim, int vocab, float eps,
                bool layer_norm, bool norms_after, bool qk_norm, float clip_qkv, const std::string& isa, int threads, bool int16) {
                 require(head_dim <= 1024, "head_dim: above 1024");
                 const Config config{dim, layers, heads, kv_heads, head_dim, ffn_dim, vocab,
                                     eps, layer_norm, norms_after, qk_norm, clip_qkv};
                 new (self) Model(config, kernels_called(isa), threads, int16);
             },
             nb::kw_only(), nb::arg("dim"), nb::arg("layers"), nb::arg("heads"), nb::arg("kv_heads"), nb::arg("head_dim"),
             nb::arg("ffn_dim"), nb::arg("vocab"), nb::arg("eps"), nb::arg("layer_norm"), nb::arg("norms_after"),
             nb::arg("qk_norm"), nb::arg("clip_qkv"), nb::arg("isa"), nb::arg("threads"), nb::arg("int16"))
        .def("plan", [](Model& self, int layer, int slot, const std::string& kind, bool exact, int rows, int columns) {
            require(slot >= 0 && slot < N_MATRICES && rows > 0 && columns > 0, "plan");
            layer_of(self, layer).matrix[slot] = shape_of(kind_called(self, kind, exact), rows, columns);
        })
        .def("plan_head", [](Model& self, const std::string& kind, bool exact, int rows, int columns) {
            require(rows > 0 && columns > 0, "plan_head");
            self.weights.head = shape_of(kind_called(self, kind, exact), rows, columns);
        })
        .def("reserve", &Model::reserve)
        .def("fill", [](Model& self, int layer, const std::vector<Bytes>& matrices) {
            const Layer& to = layer_of(self, layer);
            require(matrices.size() <= N_MATRICES, "fill: too many");
            for (size_t slot = 0; slot < matrices.size(); slot++) require_blocks(to.matrix[slot], matrices[slot]);
            nb::gil_scoped_release release;
            size_t rounded = 0;
            for (size_t slot = 0; slot < matrices.size(); slot++)
                rounded += self.fill(to.matrix[slot], matrices[slot].data(), matrices[slot].shape(1));
            return rounded;
        })
        .def("fill_head", [](Model& self, Bytes blocks) {
            require_blocks(self.weights.head, blocks);
            nb::gil_scoped_release release;
            return self.fill(self.weights.head, blocks.data(), blocks.shape(1));
        })
        .def("set_bias", [](Model& self, int layer, int slot, Floats1 bias) {
            require(slot >= 0 && slot < N_MATRICES, "set_bias");
            require((size_t)layer_of(self, layer).matrix[slot].rows == bias.shape(0), "set_bias: shape");
            self.weights.set_bias(layer, slot, bias.data());
        })
        .def("set_norm", [](Model& self, int layer, int slot, Floats1 weight) {
            require(slot >= 0 && slot < N_NORMS, "set_norm");
            layer_of(self, layer);
            self.weights.set_norm(layer, slot, weight.data(), (int)weight.shape(0));
        })
        .def("set_final_norm", [](Model& self, Floats1 weight) {
            self.weights.set_final_norm(weight.data(), (int)weight.shape(0));
        })
        .def("add_adapter", &Model::add_adapter)
        .def("set_low_rank", [](Model& self, int adapter, int layer, int slot, Floats2 down, Floats2 up) {
            require(adapter > 0 && adapter <= self.weights.n_adapters() && slot >= 0 && slot < N_MATRICES, "set_low_rank");
            const Matrix& matrix = layer_of(self, layer).matrix[slot];
            const bool fits = down.shape(0) == up.shape(1) && down.shape(0) > 0;
            require(fits && (int)down.shape(1) == matrix.columns && (int)up.shape(0) == matrix.rows, "set_low_rank: shape");
            self.weights.set_low_rank(adapter, layer, slot, down.data(), up.data(), (int)down.shape(0));
        })
        .def("allocate", &Model::allocate, nb::call_guard<nb::gil_scoped_release>())
        .def("copy_page", [](Model& self, int source, int target) {
            require(self.cache().has_page(source) && self.cache().has_page(target), "copy_page: no such page");
            self.cache().copy_page(source, target);
        })
        .def("read_weights", &Model::read_weights, nb::call_guard<nb::gil_scoped_release>())
        .def("forward", &forward, nb::arg("embedded"), nb::arg("lengths"), nb::arg("starts"), nb::arg("n_pages"),
             nb::arg("pages"), nb::arg("adapters"), nb::arg("cos"), nb::arg("sin"), nb::arg("logits_rows"), nb::arg("logits"),
             nb::arg("hidden_rows"), nb::arg("hidden"))
        .def("hold", [](Model& self, int every, int microseconds) { self.pool().hold(every, microseconds); })
        .def_prop_ro("redone", [](Model& self) { return self.pool().redone(); })
        .def_prop_ro("isa", [](const Model& self) { return std::string(self.kernels().name); })
        .def_prop_ro("threads", &Model::threads)
        .def_prop_ro("weight_bytes", [](const Model& self) { return self.weights.bytes(); });
}
