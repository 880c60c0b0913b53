// The C interface: checks what only a C caller can get wrong, picks the element type, and hands on.
#include "winnow_c.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <winnow/winnow.hpp>

#include "convert.hpp"
#include "launch.hpp"

namespace {

using namespace winnow;
using namespace winnow::c_api;

template <dtype>
struct element;
template <>
struct element<dtype::bf16> {
    using type = bf16;
};
template <>
struct element<dtype::fp16> {
    using type = fp16;
};
template <>
struct element<dtype::fp32> {
    using type = float;
};

/// What stands before every check of an operator: the pointer and the size of the caller's struct.
template <class C>
status check_struct(C const* params) {
    if (params == nullptr) return fail(errc::null_pointer, "params", "must not be null", 0);
    if (params->struct_size != sizeof(C))
        return fail(wrong_abi, "struct_size", "must be the size in the library's winnow_c.h", params->struct_size);
    return {};
}

/// Calls f(T{}, KV{}) for the element type that `params` names, and for what its cache holds.
template <class C, class F>
status with_elements(C const& params, F&& f) {
    return dispatch(typename dtypes_of<C>::list{}, static_cast<dtype>(params.dtype), "dtype", [&](auto type) {
        typename element<decltype(type)::value>::type const zero{};
        if constexpr (has_format<C>) {
            if (params.format.stored == WINNOW_AS_FP8_E4M3) return f(zero, fp8_e4m3{});
            if (params.format.stored != WINNOW_AS_DTYPE)
                return fail(errc::out_of_range, "format.stored", "must be one of the enumerators",
                            params.format.stored);
        }
        return f(zero, zero);
    });
}

/// What an operator refuses that its params in C++ cannot even say.
template <class C>
status check_format(C const&) {
    return {};
}
status check_format(winnow_delta_params const& c) {
    if (c.base.format.stored == WINNOW_AS_DTYPE) return {};
    return fail(errc::unsupported, "base.format.stored", "must be WINNOW_AS_DTYPE", c.base.format.stored);
}

template <class C>
winnow_status query_workspace(C const* params, winnow_device const* device, std::size_t* bytes) {
    if (auto s = check_struct(params); !s) return to_c(s);
    if (device == nullptr) return to_c(fail(errc::null_pointer, "device", "must not be null", 0));
    if (bytes == nullptr) return to_c(fail(errc::null_pointer, "bytes", "must not be null", 0));
    if (auto s = check_format(*params); !s) return to_c(s);
    return to_c(with_elements(*params, [&](auto zero, auto stored) {
        auto const made = plan(call_of<decltype(zero), decltype(stored)>(*params), from(*device));
        if (made) *bytes = made.workspace_bytes;
        return made.why;
    }));
}

template <class C>
winnow_status run(C const* params, winnow_device const* device, void* scratch, std::size_t bytes, void* stream) {
    if (auto s = check_struct(params); !s) return to_c(s);
    if (device == nullptr) return to_c(fail(errc::null_pointer, "device", "must not be null", 0));
    if (auto s = check_format(*params); !s) return to_c(s);
    return to_c(with_elements(*params, [&](auto zero, auto stored) {
        return launch_as<decltype(zero), decltype(stored)>(*params, from(*device), {scratch, bytes},
                                                           static_cast<CUstream_st*>(stream));
    }));
}

/// Calls f(T{}) for the element type of a cache.
template <class F>
status with_cache(winnow_cascade_cache const* cache, std::int32_t type, F&& f) {
    if (cache == nullptr) return fail(errc::null_pointer, "cache", "must not be null", 0);
    return dispatch(dtypes_of<winnow_cascade_cache>::list{}, static_cast<dtype>(type), "dtype",
                    [&](auto t) { return f(typename element<decltype(t)::value>::type{}); });
}

winnow_status change(winnow_cascade_cache const* cache, std::int32_t type, sequence_change what, std::int32_t from,
                     std::int32_t to, void* stream) {
    return to_c(with_cache(cache, type, [&](auto zero) {
        return change_sequence<decltype(zero)>(*cache, what, from, to, static_cast<CUstream_st*>(stream));
    }));
}

/// A value that has a name.
template <class T>
struct named {
    char const* name;
    T const& value;
};

template <class T, std::size_t Count, class C>
winnow_status find_preset(named<T> const (&presets)[Count], char const* name, C* out, char const* field) {
    if (name == nullptr) return to_c(fail(errc::null_pointer, "name", "must not be null", 0));
    if (out == nullptr) return to_c(fail(errc::null_pointer, field, "must not be null", 0));
    for (auto const& preset : presets)
        if (std::strcmp(preset.name, name) == 0) return *out = to_c(preset.value), to_c(status{});
    return to_c(fail(errc::unsupported, "name", "must be a preset's", 0));
}

}  // namespace

extern "C" {

char const* winnow_code_name(std::int32_t code) {
    return code == WINNOW_WRONG_ABI ? "wrong ABI" : name(static_cast<errc>(code));
}

std::size_t winnow_format_status(winnow_status s, char* buffer, std::size_t bytes) {
    int const length = s.code == WINNOW_OK ? std::snprintf(buffer, bytes, "%s", winnow_code_name(s.code))
                                           : std::snprintf(buffer, bytes, "%s: %s %s, found %lld",
                                                           winnow_code_name(s.code), s.field ? s.field : "",
                                                           s.rule ? s.rule : "", static_cast<long long>(s.value));
    return length < 0 ? 0 : static_cast<std::size_t>(length);
}

std::int32_t winnow_abi_version() { return WINNOW_ABI_VERSION; }

winnow_status winnow_check_abi(std::int32_t version) {
    if (version == WINNOW_ABI_VERSION) return to_c(status{});
    return to_c(fail(wrong_abi, "version", "must be the library's WINNOW_ABI_VERSION", version));
}

char const* winnow_version() {
    static_assert(version_major < 100 && version_minor < 100 && version_patch < 100, "two digits each");
    static constexpr struct text {
        char data[9] = {};
        constexpr text() {
            char* at = data;
            int const parts[] = {version_major, version_minor, version_patch};
            for (int const part : parts) {
                if (at != data) *at++ = '.';
                if (part >= 10) *at++ = static_cast<char>('0' + part / 10);
                *at++ = static_cast<char>('0' + part % 10);
            }
        }
    } version;
    return version.data;
}

winnow_status winnow_query_device(std::int32_t ordinal, winnow_device* device) {
    if (device == nullptr) return to_c(fail(errc::null_pointer, "device", "must not be null", 0));
    device_info found;
    auto const s = device_of(ordinal, found);
    if (s) *device = to_c(found);
    return to_c(s);
}

void winnow_example_device(winnow_device* device) {
    if (device != nullptr) *device = to_c(device_info{});
}

winnow_status winnow_method_preset(char const* name, winnow_method* method) {
    static constexpr named<prune_method> presets[] = {{"hip_3k", hip_3k},
                                                      {"hip_3k_early_layer", hip_3k_early_layer},
                                                      {"hip_5k", hip_5k},
                                                      {"hip_v1", hip_v1},
                                                      {"hip_tiny", hip_tiny}};
    return find_preset(presets, name, method, "method");
}

winnow_status winnow_intervals_preset(char const* name, winnow_intervals* intervals) {
    static constexpr named<refresh_intervals> presets[] = {
        {"default", refresh_default}, {"fast", refresh_fast}, {"flash", refresh_flash}};
    return find_preset(presets, name, intervals, "intervals");
}

std::size_t winnow_stage_cache_entries(winnow_method const* method, std::int32_t heads, std::int32_t kv_heads,
                                       std::int32_t slots) {
    if (method == nullptr || heads < 1 || kv_heads < 1 || slots < 1) return 0;
    prune_method const m = from(*method);
    return check(m) ? stage_cache_entries(m, heads, kv_heads, slots) : 0;
}

std::size_t winnow_summary_elements(winnow_method const* method, std::int32_t kv_heads, std::int32_t head_dim,
                                    std::int32_t rows, std::int32_t max_keys) {
    if (method == nullptr || kv_heads < 1 || head_dim < 1 || rows < 1 || max_keys < 0) return 0;
    prune_method const m = from(*method);
    return check(m) ? summary_elements(m, kv_heads, head_dim, rows, max_keys) : 0;
}

winnow_status winnow_cascade_layout_even(std::int32_t sinks, std::int32_t slots, std::int32_t levels,
                                         winnow_cascade_layout* layout) {
    if (layout == nullptr) return to_c(fail(errc::null_pointer, "layout", "must not be null", 0));
    if (levels < 1 || levels > max_cascade_levels)
        return to_c(fail(errc::out_of_range, "levels", "must lie in [1, WINNOW_MAX_LEVELS]", levels));
    if (slots % levels != 0) return to_c(fail(errc::out_of_range, "slots", "must be a multiple of levels", slots));
    cascade_layout const even = even_cascade(sinks, slots, levels);
    auto const s = check(even);
    if (s) *layout = to_c(even);
    return to_c(s);
}

std::size_t winnow_cascade_cache_bytes(winnow_cascade_cache const* cache, std::int32_t type) {
    std::size_t bytes = 0;
    auto const s = with_cache(cache, type, [&](auto zero) {
        auto c = cache_of<decltype(zero)>(*cache);
        alignas(workspace_alignment) static char somewhere[1];  // a cache that has memory
        c.memory = somewhere;
        auto const valid = check(c);
        if (valid) bytes = cascade_bytes(c);
        return valid;
    });
    return s ? bytes : 0;
}

winnow_status winnow_cascade_reset(winnow_cascade_cache const* cache, std::int32_t type, std::int32_t sequence,
                                   void* stream) {
    return change(cache, type, sequence_change::reset, 0, sequence, stream);
}
winnow_status winnow_cascade_clear(winnow_cascade_cache const* cache, std::int32_t type, std::int32_t sequence,
                                   void* stream) {
    return change(cache, type, sequence_change::clear, 0, sequence, stream);
}
winnow_status winnow_cascade_fork(winnow_cascade_cache const* cache, std::int32_t type, std::int32_t from,
                                  std::int32_t to, void* stream) {
    return change(cache, type, sequence_change::fork, from, to, stream);
}

winnow_status winnow_prune_extents(winnow_prune_params const* params, std::int32_t extents[4]) {
    if (auto s = check_struct(params); !s) return to_c(s);
    if (extents == nullptr) return to_c(fail(errc::null_pointer, "extents", "must not be null", 0));
    return to_c(with_elements(*params, [&](auto zero, auto stored) {
        auto const p = params_of<decltype(zero), decltype(stored)>(*params);
        if (auto s = check_queries_and_keys(p.queries, p.rows, stored_view<decltype(zero)>(p.keys), p.kv); !s) return s;
        if (auto s = check(p.method); !s) return s;
        selection_extents const e = selection_extents_of(p.method, p.shape());
        extents[0] = e.batch, extents[1] = e.list_heads, extents[2] = e.query_blocks, extents[3] = e.capacity;
        return status{};
    }));
}

// --- Operators: two lines each ---------------------------------------------------------------------------------------

winnow_status winnow_attend_workspace(winnow_attend_params const* params, winnow_device const* device,
                                      std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_attend(winnow_attend_params const* params, winnow_device const* device, void* workspace,
                            std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_prune_workspace(winnow_prune_params const* params, winnow_device const* device,
                                     std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_prune(winnow_prune_params const* params, winnow_device const* device, void* workspace,
                           std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_delta_workspace(winnow_delta_params const* params, winnow_device const* device,
                                     std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_delta(winnow_delta_params const* params, winnow_device const* device, void* workspace,
                           std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_sparse_prefill_workspace(winnow_sparse_prefill_params const* params, winnow_device const* device,
                                              std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_sparse_prefill(winnow_sparse_prefill_params const* params, winnow_device const* device,
                                    void* workspace, std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_sparse_decode_workspace(winnow_sparse_decode_params const* params, winnow_device const* device,
                                             std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_sparse_decode(winnow_sparse_decode_params const* params, winnow_device const* device,
                                   void* workspace, std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_summarise_workspace(winnow_summarise_params const* params, winnow_device const* device,
                                         std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_summarise(winnow_summarise_params const* params, winnow_device const* device, void* workspace,
                               std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_merge_workspace(winnow_merge_params const* params, winnow_device const* device,
                                     std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_merge(winnow_merge_params const* params, winnow_device const* device, void* workspace,
                           std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_append_workspace(winnow_append_params const* params, winnow_device const* device,
                                      std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_append(winnow_append_params const* params, winnow_device const* device, void* workspace,
                            std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_cascade_attend_workspace(winnow_cascade_attend_params const* params, winnow_device const* device,
                                              std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_cascade_attend(winnow_cascade_attend_params const* params, winnow_device const* device,
                                    void* workspace, std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_cascade_insert_workspace(winnow_cascade_insert_params const* params, winnow_device const* device,
                                              std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_cascade_insert(winnow_cascade_insert_params const* params, winnow_device const* device,
                                    void* workspace, std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

winnow_status winnow_cascade_prefill_workspace(winnow_cascade_prefill_params const* params, winnow_device const* device,
                                               std::size_t* bytes) {
    return query_workspace(params, device, bytes);
}
winnow_status winnow_cascade_prefill(winnow_cascade_prefill_params const* params, winnow_device const* device,
                                     void* workspace, std::size_t workspace_bytes, void* stream) {
    return run(params, device, workspace, workspace_bytes, stream);
}

}  // extern "C"
