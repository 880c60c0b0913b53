/* Calls libwinnow.so from C11. Without a GPU: versions, bad input, a workspace query. With one: a decode step of two
 * requests over a paged cache, in bf16 and in fp8, compared with plain loops. Exit 0 if all is as it should be. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "winnow_c.h"

#ifdef WINNOW_EXAMPLE_CUDA
#include <cuda_runtime_api.h>
#endif

enum { batch = 2, heads = 8, kv_heads = 2, head_dim = 64, pages = 8, page_size = 16, table_width = 3 };

static int failures = 0;

static void expect(int condition, const char* what) {
    printf("%-58s %s\n", what, condition ? "ok" : "FAILED");
    failures += !condition;
}

/* The status must have this code, and its text must name this. */
static void expect_status(winnow_status s, int32_t code, const char* names, const char* what) {
    char text[256];
    winnow_format_status(s, text, sizeof text);
    expect(s.code == code && strstr(text, names) != NULL, what);
    printf("    %s\n", text);
}

/* One new token for each of two requests; keys and values in pages of 16 tokens. The pointers are the device's. */
static winnow_attend_params decode_step(void* q, void* k, void* v, void* o, const int32_t* table,
                                        const int32_t* lengths) {
    winnow_attend_params p = winnow_attend_defaults();
    p.dtype = WINNOW_BF16;
    p.queries = winnow_packed(q, batch, 1, heads, head_dim);
    p.keys = winnow_packed(k, pages, page_size, kv_heads, head_dim);
    p.values = winnow_packed(v, pages, page_size, kv_heads, head_dim);
    p.kv.layout = WINNOW_BLOCK_TABLE;
    p.kv.length = lengths;
    p.kv.pages = table;
    p.kv.table_stride = table_width;
    p.kv.max_length = table_width * page_size;
    p.window.sinks = 4;
    p.window.recent = 24;
    p.output = winnow_packed(o, batch, 1, heads, head_dim);
    p.scale = 0.125f;
    return p;
}

/* What needs no device: any aligned pointer stands in for tensors. */
static void check_without_device(void) {
    static union {
        int32_t words[4];
        max_align_t aligned;
    } stand_in;
    void* const any = &stand_in;
    winnow_device device;
    winnow_example_device(&device);
    size_t bytes = 1;

    expect_status(winnow_check_abi(WINNOW_ABI_VERSION + 1), WINNOW_WRONG_ABI, "version",
                  "another ABI version is refused");

    winnow_attend_params p = decode_step(any, any, any, any, stand_in.words, stand_in.words);
    expect_status(winnow_attend_workspace(&p, &device, &bytes), WINNOW_OK, "ok", "a decode step is accepted");
    printf("    workspace: %zu bytes\n", bytes);

    winnow_attend_params bad = p;
    bad.struct_size -= 8;
    expect_status(winnow_attend_workspace(&bad, &device, &bytes), WINNOW_WRONG_ABI, "struct_size",
                  "a struct of another size is refused");
    bad = p;
    bad.keys.stride[3] = 2;
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_BAD_STRIDE, "keys.stride[3] must be 1, found 2",
                  "strided channels are refused");
    bad = p;
    bad.dtype = WINNOW_FP8_E4M3;
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_UNSUPPORTED, "dtype",
                  "an element type without kernels is refused");
    bad = p;
    bad.kv.layout = 17;
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_OUT_OF_RANGE, "kv.layout",
                  "a number that is no enumerator is refused");
    /* An fp8 cache with a scale for each KV head. */
    bad = p;
    bad.format.stored = WINNOW_AS_FP8_E4M3;
    bad.format.scale_heads = kv_heads;
    expect_status(winnow_attend_workspace(&bad, &device, &bytes), WINNOW_OK, "ok", "an fp8 cache is accepted");
    bad.format.scale_heads = 3;
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_BAD_EXTENT, "scales.heads",
                  "scales for another number of heads are refused");
    bad.format.scale_heads = 0;
    bad.queries = bad.output = winnow_packed(any, batch, 5, heads, head_dim);
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_UNSUPPORTED, "queries.extent[1]",
                  "a prefill over an fp8 cache is refused");
    bad = p;
    bad.format.stored = 2;
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_OUT_OF_RANGE, "format.stored",
                  "an unknown format is refused");
    bad = p;
    bad.format.key_scale = any;
    expect_status(winnow_attend(&bad, &device, NULL, 0, NULL), WINNOW_UNSUPPORTED, "scales",
                  "scales of a cache that is not fp8 are refused");
    expect_status(winnow_attend(NULL, &device, NULL, 0, NULL), WINNOW_NULL_POINTER, "params",
                  "missing params are refused");

    /* A method by name, changed; the cache that decode keeps its lists in; a prefill's workspace. */
    winnow_method method;
    expect_status(winnow_method_preset("hip_9k", &method), WINNOW_UNSUPPORTED, "name", "an unknown preset is refused");
    expect_status(winnow_method_preset("hip_3k", &method), WINNOW_OK, "ok", "hip_3k is a preset");
    method.sharing = WINNOW_PER_KV_GROUP;
    printf("    lists for 64 slots: %zu int32\n", winnow_stage_cache_entries(&method, 32, 8, 64));
    winnow_sparse_prefill_params prefill = winnow_sparse_prefill_defaults();
    prefill.dtype = WINNOW_FP16;
    prefill.queries = prefill.output = winnow_packed(any, 1, 16384, 32, 128);
    prefill.keys = prefill.values = winnow_packed(any, 1, 16384, 8, 128);
    prefill.method = method;
    prefill.scale = 0.0884f;
    expect_status(winnow_sparse_prefill_workspace(&prefill, &device, &bytes), WINNOW_OK, "ok",
                  "a sparse prefill of 16384 tokens is accepted");
    printf("    workspace: %zu bytes\n", bytes);
    expect_status(winnow_sparse_prefill(&prefill, &device, any, bytes - 1, NULL), WINNOW_WORKSPACE_TOO_SMALL,
                  "workspace", "a workspace that is too small is refused");

    winnow_delta_params corrected = winnow_delta_defaults();
    corrected.dtype = WINNOW_BF16;
    corrected.base.queries = corrected.base.output = winnow_packed(any, 1, 16384, 32, 128);
    corrected.base.keys = corrected.base.values = winnow_packed(any, 1, 16384, 8, 128);
    corrected.base.window.sinks = 1024;
    corrected.base.window.recent = 2048;
    corrected.base.scale = 0.0884f;
    expect_status(winnow_delta_workspace(&corrected, &device, &bytes), WINNOW_OK, "ok", "delta correction is accepted");
    corrected.base.format.stored = WINNOW_AS_FP8_E4M3;
    expect_status(winnow_delta_workspace(&corrected, &device, &bytes), WINNOW_UNSUPPORTED, "base.format.stored",
                  "delta correction over an fp8 cache is refused");
    corrected.base.format.stored = WINNOW_AS_DTYPE;
    corrected.options.gamma = 0;
    expect_status(winnow_delta(&corrected, &device, any, bytes, NULL), WINNOW_OUT_OF_RANGE, "options.gamma",
                  "a spacing of 0 is refused");

    /* The text is cut to the buffer, and its length is that of the whole. */
    char small[8];
    const winnow_status s = winnow_check_abi(0);
    expect(winnow_format_status(s, NULL, 0) == winnow_format_status(s, small, sizeof small) && strlen(small) == 7,
           "a text is cut to its buffer");
}

#ifdef WINNOW_EXAMPLE_CUDA

static void must(cudaError_t error, const char* call) {
    if (error == cudaSuccess) return;
    fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
    exit(1);
}

static void* to_device(const void* host, size_t bytes) {
    void* data = NULL;
    must(cudaMalloc(&data, bytes), "cudaMalloc");
    must(cudaMemcpy(data, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    return data;
}

static float from_bf16(uint16_t bits) {
    const uint32_t word = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

/* Numbers of so many bits in [-1, 1), which bf16 holds exactly. */
static void fill(uint16_t* values, size_t count, int bits) {
    static uint32_t state = 1;
    for (size_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        const float x = (float)(state >> (32 - bits)) / (float)(1 << (bits - 1)) - 1;
        uint32_t word;
        memcpy(&word, &x, sizeof word);
        values[i] = (uint16_t)(word >> 16);
    }
}

/* Largest distance of `o` from attention by plain loops over the keys that a decode step sees. */
static double largest_error(const uint16_t* q, const uint16_t* k, const uint16_t* v, const uint16_t* o,
                            const int32_t* table, const int32_t* lengths, const winnow_attend_params* p) {
    double worst = 0;
    for (int row = 0; row < batch * heads; ++row) {
        const int b = row / heads, kv_head = row % heads / (heads / kv_heads);
        double sum = 0, output[head_dim] = {0};
        for (int key = 0; key < lengths[b]; ++key) {
            if (key >= p->window.sinks && key < lengths[b] - p->window.recent) continue;
            const int page = table[b * table_width + key / page_size];
            const size_t at = (((size_t)page * page_size + key % page_size) * kv_heads + kv_head) * head_dim;
            double score = 0;
            for (int c = 0; c < head_dim; ++c) score += from_bf16(q[row * head_dim + c]) * from_bf16(k[at + c]);
            const double weight = exp(score * p->scale); /* scores are at most 8 */
            sum += weight;
            for (int c = 0; c < head_dim; ++c) output[c] += weight * from_bf16(v[at + c]);
        }
        for (int c = 0; c < head_dim; ++c)
            worst = fmax(worst, fabs(output[c] / sum - from_bf16(o[row * head_dim + c])));
    }
    return worst;
}

/* Runs the step and compares the output with plain loops. */
static void run_step(const winnow_attend_params* p, const winnow_device* device, const uint16_t* q, const uint16_t* k,
                     const uint16_t* v, const int32_t* table, const int32_t* lengths, const char* what) {
    static uint16_t o[batch * heads * head_dim];
    size_t bytes = 0;
    expect_status(winnow_attend_workspace(p, device, &bytes), WINNOW_OK, "ok", "the workspace is known");
    void* workspace = NULL;
    if (bytes > 0) must(cudaMalloc(&workspace, bytes), "cudaMalloc");
    must(cudaMemset(p->output.data, 0xff, sizeof o), "cudaMemset");
    cudaStream_t stream;
    must(cudaStreamCreate(&stream), "cudaStreamCreate");
    expect_status(winnow_attend(p, device, workspace, bytes, stream), WINNOW_OK, "ok", "the step is launched");
    must(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    must(cudaMemcpy(o, p->output.data, sizeof o, cudaMemcpyDeviceToHost), "cudaMemcpy");
    const double error = largest_error(q, k, v, o, table, lengths, p);
    /* Outputs are below 1: half a step of bf16 is 2^-9, and rounding the weights costs as much. */
    expect(error <= 1.0 / 128, what);
    printf("    largest error %.1e\n", error);
}

static void check_on_device(const winnow_device* device) {
    static uint16_t q[batch * heads * head_dim], k[pages * page_size * kv_heads * head_dim], v[sizeof k / 2];
    static int64_t slots[pages * page_size];
    /* Request 0 has 40 keys in pages 5, 1, 7; request 1 has 16 keys in page 2. */
    const int32_t table[batch * table_width] = {5, 1, 7, 2, 0, 0}, lengths[batch] = {40, 16};
    fill(q, sizeof q / 2, 7);
    fill(k, sizeof k / 2, 4); /* so that fp8 holds them, and a power of two of them, too */
    fill(v, sizeof v / 2, 4);
    for (int i = 0; i < pages * page_size; ++i) slots[i] = i;
    void *const device_k = to_device(k, sizeof k), *const device_v = to_device(v, sizeof v);
    winnow_attend_params p = decode_step(to_device(q, sizeof q), device_k, device_v, to_device(q, sizeof q),
                                         to_device(table, sizeof table), to_device(lengths, sizeof lengths));
    run_step(&p, device, q, k, v, table, lengths, "the output is that of plain loops");

    /* The same rows appended to an fp8 cache, with scales for each KV head. */
    const float key_scale[kv_heads] = {0.5f, 2}, value_scale[kv_heads] = {1, 0.25f};
    winnow_cache_format format = {WINNOW_AS_FP8_E4M3, kv_heads, NULL, NULL};
    format.key_scale = to_device(key_scale, sizeof key_scale);
    format.value_scale = to_device(value_scale, sizeof value_scale);
    void *key_cache = NULL, *value_cache = NULL;
    must(cudaMalloc(&key_cache, sizeof k / 2), "cudaMalloc");
    must(cudaMalloc(&value_cache, sizeof v / 2), "cudaMalloc");
    winnow_append_params a = winnow_append_defaults();
    a.dtype = WINNOW_BF16;
    a.keys = winnow_packed(device_k, pages * page_size, kv_heads, head_dim, 1);
    a.values = winnow_packed(device_v, pages * page_size, kv_heads, head_dim, 1);
    a.key_cache = p.keys = winnow_packed(key_cache, pages, page_size, kv_heads, head_dim);
    a.value_cache = p.values = winnow_packed(value_cache, pages, page_size, kv_heads, head_dim);
    a.slot = to_device(slots, sizeof slots);
    a.format = p.format = format;
    expect_status(winnow_append(&a, device, NULL, 0, NULL), WINNOW_OK, "ok", "rows are appended to an fp8 cache");
    must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    run_step(&p, device, q, k, v, table, lengths, "the output over the fp8 cache is the same");
}

#endif

int main(void) {
    const winnow_status abi = winnow_check_abi(WINNOW_ABI_VERSION);
    expect_status(abi, WINNOW_OK, "ok", "header and library are of one ABI version");
    if (abi.code != WINNOW_OK) return 1;
    printf("    winnow %s, ABI version %d\n", winnow_version(), (int)winnow_abi_version());
    check_without_device();

    winnow_device device;
    const winnow_status found = winnow_query_device(0, &device);
    if (found.code != WINNOW_OK) {
        char text[256];
        winnow_format_status(found, text, sizeof text);
        printf("no device, so no launch (%s)\n", text);
    } else {
#ifdef WINNOW_EXAMPLE_CUDA
        check_on_device(&device);
#else
        printf("a device, but this program was built without the CUDA runtime's header: no launch\n");
#endif
    }
    printf(failures == 0 ? "all as it should be\n" : "%d FAILED\n", failures);
    return failures == 0 ? 0 : 1;
}
