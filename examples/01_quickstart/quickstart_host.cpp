// Sparse attention next to dense attention on a real model's queries, keys and values, by the reference.
#include <memory>

#include "quickstart.hpp"

namespace {

class host_backend : public quickstart::backend {
public:
    explicit host_backend(int threads) : threads_(threads) {}

    std::string device() const override {
        return "CPU, " + std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads") + " (reference)";
    }

    winnow::status attend(winnow::attend_params<winnow::bf16> const& p, quickstart::progress& stage,
                          double& time) override {
        double const start = quickstart::seconds();
        auto const s = winnow::reference::attend(p, nullptr, stage.options(threads_));
        time = quickstart::seconds() - start;
        return s;
    }

    /// The two halves of reference::sparse_prefill, so that the lists stay with the caller.
    winnow::status sparse_prefill(winnow::sparse_prefill_params<winnow::bf16> const& p,
                                  winnow::block_selection_buffer const& chosen, quickstart::progress& stage,
                                  double& time) override {
        double const start = quickstart::seconds();
        if (auto s = winnow::reference::prune(prune_part(p, chosen), nullptr, stage.options(threads_)); !s) return s;
        double const pruned = quickstart::seconds() - start;
        auto const s = attend(attend_part(p, chosen), stage, time);
        time += pruned;
        return s;
    }

private:
    int threads_;
};

}  // namespace

int main(int count, char** words) {
    return quickstart::run(count, words,
                           [](quickstart::options const& o) { return std::make_unique<host_backend>(o.threads); });
}
