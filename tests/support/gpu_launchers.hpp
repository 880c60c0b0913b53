// Every launch that the GPU tests make, as plain functions: kernels are compiled once, tests by the host compiler.
#pragma once

#include <cuda_runtime_api.h>

#include "winnow/core/contents_fault.hpp"
#include "winnow/op/append.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/cascade.hpp"
#include "winnow/op/convert.hpp"
#include "winnow/op/delta.hpp"
#include "winnow/op/merge.hpp"
#include "winnow/op/prune.hpp"
#include "winnow/op/sparse.hpp"
#include "winnow/op/summarise.hpp"

namespace winnow::testing {

status gpu_query_device(device_info& out, int ordinal);

status gpu_launch(append_params<bf16, fp8_e4m3> const& p, append_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(append_params<bf16> const& p, append_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(append_params<fp16, fp8_e4m3> const& p, append_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(append_params<fp16> const& p, append_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(attend_params<bf16, fp8_e4m3> const& p, attend_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(attend_params<bf16> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(attend_params<fp16, fp8_e4m3> const& p, attend_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(attend_params<fp16> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(delta_params<bf16> const& p, delta_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(delta_params<fp16> const& p, delta_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(prune_params<bf16, fp8_e4m3> const& p, prune_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(prune_params<bf16> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(prune_params<fp16, fp8_e4m3> const& p, prune_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(prune_params<fp16> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(summarise_params<bf16> const& p, summarise_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(summarise_params<fp16> const& p, summarise_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(merge_params<bf16> const& p, merge_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(merge_params<fp16> const& p, merge_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(merge_params<float> const& p, merge_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(cascade_attend_params<bf16> const& p, cascade_attend_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(cascade_insert_params<bf16> const& p, cascade_insert_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(cascade_prefill_params<bf16> const& p, cascade_prefill_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(cascade_attend_params<fp16> const& p, cascade_attend_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(cascade_insert_params<fp16> const& p, cascade_insert_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(cascade_prefill_params<fp16> const& p, cascade_prefill_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_cascade_reset(cascade_cache<bf16> const& cache, std::int32_t sequence, cudaStream_t stream);
status gpu_cascade_clear(cascade_cache<bf16> const& cache, std::int32_t sequence, cudaStream_t stream);
status gpu_cascade_fork(cascade_cache<bf16> const& cache, std::int32_t from, std::int32_t to, cudaStream_t stream);
status gpu_launch(sparse_prefill_params<bf16> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(sparse_prefill_params<fp16> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(sparse_decode_params<bf16, fp8_e4m3> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(sparse_decode_params<bf16> const& p, sparse_plan const& plan, workspace scratch, cudaStream_t stream);
status gpu_launch(sparse_decode_params<fp16, fp8_e4m3> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(sparse_decode_params<fp16> const& p, sparse_plan const& plan, workspace scratch, cudaStream_t stream);

status gpu_launch(convert_params<block_selection, bsr_buffer> const& p, convert_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(convert_params<block_selection, block_lists_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(convert_params<block_selection, block_bits_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(convert_params<block_selection, block_flags_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(convert_params<block_selection, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(convert_params<bsr, block_selection_buffer> const& p, convert_plan const& plan, workspace scratch,
                  cudaStream_t stream);
status gpu_launch(convert_params<block_lists, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(convert_params<block_bits, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(convert_params<block_flags, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream);
status gpu_launch(pack_pages_params const& p, convert_plan const& plan, workspace scratch, cudaStream_t stream);

/// launch<attend_problem{128, attend_rows::large}>.
status gpu_launch_128_large(attend_params<bf16> const& p, attend_plan const& plan, workspace scratch,
                            cudaStream_t stream);

status gpu_contents_check(attend_params<bf16> const& p, contents_fault* fault, cudaStream_t stream);
status gpu_contents_check(attend_params<bf16, fp8_e4m3> const& p, contents_fault* fault, cudaStream_t stream);

}  // namespace winnow::testing
