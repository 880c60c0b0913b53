// An engine in small: requests of different length join and leave a batch that shares one paged cache of keys and values.
//
// Prompts are read in chunks by sparse_prefill, one ragged call for all that are waiting. Decode steps are one CUDA graph,
// captured once and replayed while lengths, page table and slots change in place. All that changes travels in one struct,
// step_inputs. In place of a model stands a recording of one (examples/data): each token has the queries, keys and values
// of a recorded one. Every result is compared with the double-precision reference, which follows on the host.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <winnow/reference/sparse.hpp>
#include <winnow/winnow.cuh>

#include "01_quickstart/recording.hpp"

using winnow::bf16;

namespace {

constexpr int recorded_tokens = 3072, heads = 9, kv_heads = 3, head_dim = 64;
constexpr int slots = 4;         // requests that run at a time: rows of the batch
constexpr int page_size = 16;    // tokens
constexpr int table_width = 64;  // pages of a request, at most: 1024 tokens
constexpr int pool_pages = 150;  // of all requests; four long ones would need 256
constexpr int chunk = 192;       // rows of a prompt that one call takes
constexpr winnow::prune_method method{.stages = {{32, 2, 64, 8}, {32, 1, 8, 32}},
                                      .stage_count = 2,
                                      .window = {.sinks = 16, .recent = 128},
                                      .sharing = winnow::sharing::per_kv_group};

void must(winnow::status const& s, char const* call) {
    if (s) return;
    std::fprintf(stderr, "%s: %s: %s %s, found %lld\n", call, winnow::name(s.code), s.field, s.rule,
                 static_cast<long long>(s.value));
    std::exit(1);
}
void must(cudaError_t error, char const* call) { must(winnow::cuda_status(error, call), "CUDA"); }

/// What changes from step to step, in one piece so that one copy brings it to the device. Row s of the batch is slot s.
struct step_inputs {
    std::int32_t length[slots];              // keys in the cache, those of this step's rows included
    std::int32_t start[slots + 1];           // prefill: first packed row of each slot
    std::int32_t slot[slots];                // decode: s, or -1 where slot s has nothing to decode
    std::int32_t table[slots][table_width];  // pages of each slot, in order
    std::int32_t token[slots * chunk];       // recorded token behind each row
    std::int64_t place[slots * chunk];       // where the row's key and value go: page * page_size + offset; -1: no row
};

/// Everything there is, once in device memory for the engine and once in host memory for the reference.
struct memory {
    alignas(256) bf16 recorded_queries[recorded_tokens][heads][head_dim];
    alignas(256) bf16 recorded_keys[recorded_tokens][kv_heads][head_dim];
    alignas(256) bf16 recorded_values[recorded_tokens][kv_heads][head_dim];
    alignas(256) bf16 queries[slots * chunk][heads][head_dim];
    alignas(256) bf16 output[slots * chunk][heads][head_dim];
    alignas(256) bf16 keys[pool_pages * page_size][kv_heads][head_dim];  // the cache: [page, token, kv_head, channel]
    alignas(256) bf16 values[pool_pages * page_size][kv_heads][head_dim];
    std::int32_t step[slots];  // decode's lists, see stage_cache
    std::int32_t lists[winnow::stage_cache_entries(method, heads, kv_heads, slots)];
    step_inputs inputs;
};

/// The paged cache as both calls see it. The bound max_length, not the lengths, is what plans are made from.
winnow::kv_index index_of(memory* m) {
    return {.layout = winnow::kv_layout::block_table,
            .length = m->inputs.length,  // an address, on either side: nothing is read here
            .pages = m->inputs.table[0],
            .table_stride = table_width,
            .max_length = table_width * page_size};
}

/// One chunk of each prompt that is being read: ragged rows, 0 of them for the other slots.
winnow::sparse_prefill_params<bf16> prefill_of(memory* m) {
    return {.queries = winnow::packed_view<bf16 const>(m->queries[0][0], {1, slots * chunk, heads, head_dim}),
            .keys = winnow::packed_view<bf16 const>(m->keys[0][0], {pool_pages, page_size, kv_heads, head_dim}),
            .values = winnow::packed_view<bf16 const>(m->values[0][0], {pool_pages, page_size, kv_heads, head_dim}),
            .kv = index_of(m),
            .rows = {.start = m->inputs.start, .batch = slots, .max_length = chunk},
            .method = method,
            .output = winnow::packed_view(m->output[0][0], {1, slots * chunk, heads, head_dim}),
            .scale = 0.125f};
}

/// One new token of each request that decodes.
winnow::sparse_decode_params<bf16> decode_of(memory* m) {
    return {.queries = winnow::packed_view<bf16 const>(m->queries[0][0], {slots, 1, heads, head_dim}),
            .keys = winnow::packed_view<bf16 const>(m->keys[0][0], {pool_pages, page_size, kv_heads, head_dim}),
            .values = winnow::packed_view<bf16 const>(m->values[0][0], {pool_pages, page_size, kv_heads, head_dim}),
            .kv = index_of(m),
            .method = method,
            .cache = {.step = m->step, .lists = m->lists, .slot = m->inputs.slot, .slots = slots},
            .output = winnow::packed_view(m->output[0][0], {slots, 1, heads, head_dim}),
            .scale = 0.125f};
}

/// One channel of one row of the "model": queries to the step's rows, key and value to their place in the cache.
__host__ __device__ void read_token(memory* m, int row, int channel) {
    std::int64_t const token = m->inputs.token[row], place = m->inputs.place[row];
    if (place < 0) return;
    for (int h = 0; h < heads; ++h) m->queries[row][h][channel] = m->recorded_queries[token][h][channel];
    for (int h = 0; h < kv_heads; ++h) {
        m->keys[place][h][channel] = m->recorded_keys[token][h][channel];
        m->values[place][h][channel] = m->recorded_values[token][h][channel];
    }
}

__global__ void read_tokens(memory* m) { read_token(m, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x)); }

/// The reference: the same steps on host memory, whose inputs are what the engine fills and sends.
class oracle {
public:
    explicit oracle(memory* m) : m_(m) {}
    void reset(int slot) { m_->step[slot] = 0; }
    void prefill() {
        read(slots * chunk);
        must(winnow::reference::sparse_prefill(prefill_of(m_), &exact_, nullptr, threads_), "reference");
    }
    void decode() {
        read(slots);
        must(winnow::reference::sparse_decode(decode_of(m_), &exact_, threads_), "reference");
    }
    /// Norm of the difference over the norm of the exact result, over `count` rows from `first`.
    double error(std::vector<bf16> const& output, int first, int count) const {
        double off = 0, size = 0;
        for (std::size_t i = first * heads * head_dim; i < std::size_t(first + count) * heads * head_dim; ++i) {
            double const exact = exact_.output[i], found = winnow::to_float(output[i]);
            off += (found - exact) * (found - exact), size += exact * exact;
        }
        return std::isfinite(off) ? std::sqrt(off / size) : HUGE_VAL;
    }

private:
    void read(int rows) {
        for (int i = 0; i < rows * head_dim; ++i) read_token(m_, i / head_dim, i % head_dim);
    }
    memory* m_;
    winnow::reference::attend_result exact_;
    winnow::reference::run_options threads_{.threads = static_cast<int>(std::thread::hardware_concurrency())};
};

/// The device's side: memory, two plans with a workspace each, and the decode graph. All of it ends with the program.
class gpu {
public:
    gpu(winnow::device_info const& device, memory const& start) : m_(static_cast<memory*>(allocate(sizeof(memory)))) {
        must(cudaMemcpy(m_, &start, sizeof(memory), cudaMemcpyHostToDevice), "cudaMemcpy");
        must(cudaStreamCreate(&stream_), "cudaStreamCreate");
        // Extents and maxima are the same in every step, so plans and workspaces are made once.
        prefill_plan_ = winnow::plan(prefill_of(m_), device);
        prefill_scratch_ = {allocate(prefill_plan_.workspace_bytes), prefill_plan_.workspace_bytes};
        auto const decode_plan = winnow::plan(decode_of(m_), device);
        winnow::workspace const scratch{allocate(decode_plan.workspace_bytes), decode_plan.workspace_bytes};
        cudaGraph_t graph = nullptr;
        must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
        read_tokens<<<slots, head_dim, 0, stream_>>>(m_);
        must(winnow::launch(decode_of(m_), decode_plan, scratch, stream_), "sparse_decode");
        must(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
        must(cudaGraphInstantiate(&decode_, graph, 0), "cudaGraphInstantiate");
    }
    /// A request enters a slot: what the slot's lists were made for is gone.
    void reset(int slot) { must(cudaMemsetAsync(&m_->step[slot], 0, 4, stream_), "cudaMemsetAsync"); }
    std::vector<bf16> const& prefill(step_inputs const& inputs, int rows) {
        send(inputs);
        read_tokens<<<rows, head_dim, 0, stream_>>>(m_);
        must(cudaGetLastError(), "read_tokens");
        must(winnow::launch(prefill_of(m_), prefill_plan_, prefill_scratch_, stream_), "sparse_prefill");
        return receive(rows);
    }
    std::vector<bf16> const& decode(step_inputs const& inputs) {
        send(inputs);
        must(cudaGraphLaunch(decode_, stream_), "cudaGraphLaunch");
        return receive(slots);
    }

private:
    static void* allocate(std::size_t bytes) {
        void* data = nullptr;
        must(cudaMalloc(&data, bytes), "cudaMalloc");
        return data;
    }
    void send(step_inputs const& in) {
        must(cudaMemcpyAsync(&m_->inputs, &in, sizeof in, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
    }
    std::vector<bf16> const& receive(int rows) {
        std::size_t const bytes = rows * sizeof m_->output[0];
        must(cudaMemcpyAsync(output_.data(), m_->output, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
        must(cudaStreamSynchronize(stream_), "a step");  // the next step's inputs may be filled
        return output_;
    }
    memory* m_;
    cudaStream_t stream_ = nullptr;
    winnow::sparse_plan prefill_plan_;
    winnow::workspace prefill_scratch_;
    cudaGraphExec_t decode_ = nullptr;
    std::vector<bf16> output_ = std::vector<bf16>(slots * chunk * heads * head_dim);
};

struct request {
    int first_token, prompt, generate;  // what is asked for: recorded token of position 0, tokens to read and to make
    int length = 0;                     // keys in the cache
    int id = 0, joined = 0, chunks = 0;
    std::vector<std::int32_t> pages = {};
    double prefill_error = 0, decode_error = 0;  // largest of any chunk or step
    int most_pages() const { return winnow::ceil_div(prompt + generate, page_size); }
};

class engine {
public:
    engine(gpu& device, oracle& reference, step_inputs& inputs) : device_(device), reference_(reference), in_(inputs) {
        for (int i = 0; i < pool_pages; ++i) free_pages_.push_back(i * 37 % pool_pages);  // any order will do
    }

    /// Runs until all have been served; returns the largest error.
    double serve(std::deque<request> waiting) {
        std::printf("request  prompt  chunks  generated  slot      ticks  prefill error  decode error\n");
        for (;; ++tick_) {
            join(waiting);
            if (std::none_of(running_, running_ + slots, [](auto const& r) { return r.has_value(); })) break;
            read_prompts();
            decode();
            leave();
        }
        std::printf("%d ticks; one graph, replayed %d times\n", tick_, replays_);
        return worst_;
    }

private:
    /// Requests enter while there is a slot, and pages for all they may need.
    void join(std::deque<request>& waiting) {
        for (int s = 0; s < slots && !waiting.empty(); ++s) {
            if (running_[s] || promised_pages_ + waiting.front().most_pages() > pool_pages) continue;
            running_[s] = waiting.front();
            waiting.pop_front();
            running_[s]->id = joined_++, running_[s]->joined = tick_;
            promised_pages_ += running_[s]->most_pages();
            device_.reset(s), reference_.reset(s);
        }
    }

    /// The next chunk of every prompt, packed one after the other.
    void read_prompts() {
        std::fill(std::begin(in_.place), std::end(in_.place), -1);
        int rows = 0;
        for (int s = 0; s < slots; ++s) {
            in_.start[s] = rows;
            int const left = running_[s] ? running_[s]->prompt - running_[s]->length : 0;
            for (int i = 0; i < std::min(left, chunk); ++i) add_token(s, rows++);
        }
        in_.start[slots] = rows;
        if (rows == 0) return;
        auto const& output = device_.prefill(in_, rows);
        reference_.prefill();
        for (int s = 0; s < slots; ++s) {
            if (in_.start[s] == in_.start[s + 1]) continue;
            double const error = reference_.error(output, in_.start[s], in_.start[s + 1] - in_.start[s]);
            running_[s]->prefill_error = std::max(running_[s]->prefill_error, error);
            ++running_[s]->chunks;
        }
    }

    /// One token of every request whose prompt was read in an earlier tick. Other rows are padding, all of them perhaps.
    void decode() {
        std::fill(std::begin(in_.place), std::end(in_.place), -1);
        for (int s = 0; s < slots; ++s) {
            bool const decodes = running_[s] && in_.start[s] == in_.start[s + 1];
            in_.slot[s] = decodes ? s : -1;
            if (decodes) add_token(s, s);
        }
        auto const& output = device_.decode(in_);
        reference_.decode();
        ++replays_;
        for (int const s : in_.slot)
            if (s >= 0) running_[s]->decode_error = std::max(running_[s]->decode_error, reference_.error(output, s, 1));
    }

    /// Finished requests go; their pages are for whoever comes next.
    void leave() {
        for (int s = 0; s < slots; ++s) {
            if (!running_[s] || running_[s]->length < running_[s]->prompt + running_[s]->generate) continue;
            request const& r = *running_[s];
            std::printf("%7d  %6d  %6d  %9d  %4d  %3d to %3d  %11.2f %%  %10.2f %%\n", r.id, r.prompt, r.chunks,
                        r.generate, s, r.joined, tick_, 100 * r.prefill_error, 100 * r.decode_error);
            worst_ = std::max({worst_, r.prefill_error, r.decode_error});
            free_pages_.insert(free_pages_.end(), r.pages.begin(), r.pages.end());
            promised_pages_ -= r.most_pages();
            running_[s].reset();
        }
    }

    /// The next token of slot `s` becomes `row` of the step; a page is taken where the last one is full.
    void add_token(int s, int row) {
        request& r = *running_[s];
        int const position = r.length++;
        if (position % page_size == 0) {
            in_.table[s][r.pages.size()] = free_pages_.back();
            r.pages.push_back(free_pages_.back());
            free_pages_.pop_back();
        }
        in_.token[row] = r.first_token + position;
        in_.place[row] = std::int64_t{r.pages.back()} * page_size + position % page_size;
        in_.length[s] = r.length;
    }

    gpu& device_;
    oracle& reference_;
    step_inputs& in_;  // the reference's own
    std::optional<request> running_[slots];
    std::vector<std::int32_t> free_pages_;
    int promised_pages_ = 0, joined_ = 0, tick_ = 0, replays_ = 0;
    double worst_ = 0;
};

}  // namespace

int main() {
    winnow::device_info device;
    if (auto s = winnow::query_device(device, 0); !s) {
        std::printf("no device: nothing was run (%s, error %lld)\n", s.field, static_cast<long long>(s.value));
        return 0;
    }
    quickstart::recording r;
    std::string problem;
    static memory host;
    if (!quickstart::read_recording(WINNOW_EXAMPLES_DATA, r, problem) ||
        r.queries.data.size() * sizeof(bf16) != sizeof host.recorded_queries) {
        std::fprintf(stderr, "%s\n", problem.empty() ? "made for examples/data" : problem.c_str());
        return 1;
    }
    std::copy(r.queries.data.begin(), r.queries.data.end(), host.recorded_queries[0][0]);
    std::copy(r.keys.data.begin(), r.keys.data.end(), host.recorded_keys[0][0]);
    std::copy(r.values.data.begin(), r.values.data.end(), host.recorded_values[0][0]);
    gpu side(device, host);
    oracle reference(&host);
    // Recorded token of position 0, tokens to read, tokens to make.
    std::deque<request> const requests{{0, 700, 40},   {1000, 333, 24}, {2000, 512, 30}, {1500, 1, 60},
                                       {400, 450, 20}, {2500, 191, 33}, {0, 900, 16}};
    double const error = engine(side, reference, host.inputs).serve(requests);
    constexpr double allowed = 0.02;  // bf16's 8 bits cost about 0.3 %; a wrong page, length or list 10 % and up
    std::printf("largest error %.2f %%: %s\n", 100 * error, error <= allowed ? "ok" : "too large");
    return error <= allowed ? 0 : 1;
}
