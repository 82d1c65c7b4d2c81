// The next id of an answer: the steps of `steps.py`, without sorting a vocabulary.
//
// `steps.py` is the definition, with NumPy's sums and powers. Ours differ from them in the last bits, so every decision
// in which a sum takes part has a doubt, far larger than those bits: where it lies within, nothing is decided, and the
// caller asks `steps.py`. What is decided is therefore what it would have decided.
#pragma once
#include <cmath>
#include <vector>

#include "../kernels.h"
#include "chain.h"

namespace camelid {

constexpr double NOTHING = -INFINITY;  // the logit of an id that may not come

struct Likely {
    int id;
    double logprob, sampled_logprob;  // sampled: −∞ where a step removed it
};

struct Choice {
    bool is_sure = false;  // false: `steps.py` is to be asked, which may find an error
    int id = 0;
    double sampled_logprob = 0;
    double logprob = 0;  // this and the rest only where log-probabilities are asked for
    int rank = 0;
    std::vector<Likely> likeliest;
};

// A number that at least k of a row reach: the k-th largest of its blocks' largest; the least one, if there are fewer blocks.
float reached_by(std::vector<float> maxima, size_t k);

// Chooses ids, one row after the other. What is left of a vocabulary is a whole row, or a list of ids.
class Sampler {
public:
    explicit Sampler(const SamplingKernels& kernels) : kernels_(kernels) {}
    // `mask`: which ids may come, or none. `n_written` ids stand in the answer.
    Choice choose(const float* row, int n, const Chain& chain, size_t n_written, const uint8_t* mask);

private:
    struct Id {
        int id;
        double logit;
    };
    struct Mass {
        double key, mass;  // ids come in the order of falling keys
        int id;
    };
    struct Cut {  // ids before it stay: those with larger keys, and of the same key up to this id
        double key;
        int id;
        bool is_sure;
        bool keeps(double other, int other_id) const { return other > key || (other == key && other_id <= id); }
    };

    bool begin(const float* row, int n, const Chain& chain, size_t n_written, const uint8_t* mask);
    bool change(const Chain& chain);
    float* copied();
    bool apply(Step step, double value, const Chain& chain);
    int greedy() const;
    bool draw(double share, Choice& choice);
    bool draw_of_row(double share, Choice& choice);
    bool report(const float* raw, const Chain& chain, Choice& choice);
    bool sampled(int id, double& logprob) const;

    double wide(float x) const { return temperature_ == 1 ? (double)x : (double)x / temperature_; }
    double highest() const;
    double doubt() const;
    void list(double bound);
    void become_list(double bound);
    bool keep_from(double bound, double doubt);
    double sum(double* weighted = nullptr);
    double fast_total();
    bool cut_at(double goal, double doubt);
    static Cut cut(std::vector<Mass>& items, double goal, double doubt);

    bool top_k(size_t k, bool keeps_ties);
    bool top_p(double p);
    bool top_n_sigma(double n);
    bool typical(double share, bool keeps_ties);
    bool at_least(double probability, double total);

    const SamplingKernels& kernels_;
    const float* row_ = nullptr;
    int n_ = 0;
    float row_highest_ = 0;
    double temperature_ = 1;
    bool is_list_ = false;
    std::vector<Id> ids_;      // what is left, where it is a list; ids ascend
    std::vector<Id> changed_;  // beside the row: ids with a logit of their own, for which −∞ stands there
    std::vector<float> copy_, maxima_, raw_maxima_;
    std::vector<double> block_sums_, block_weighted_, powers_;
    std::vector<int> found_;
    std::vector<Mass> items_;
    double total_ = 1;  // of what was drawn from, relative to the likeliest
};

}  // namespace camelid
