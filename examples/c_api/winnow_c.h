/* The C interface of libwinnow.so: plain structs of pointers, extents and strides, a workspace query and a launch for
 * each operator. Needs neither C++ nor the CUDA headers. The C++ headers it stands for explain every field at length.
 *
 * A call takes four steps:
 *   1. winnow_check_abi(WINNOW_ABI_VERSION), once, after the library is loaded;
 *   2. fill a params struct, best from its winnow_..._defaults();
 *   3. winnow_..._workspace(&params, &device, &bytes): host arithmetic, no CUDA call, reads no tensor. The bytes depend
 *      on extents, maxima and options alone, so one query serves every call with the same ones. Pointers are checked;
 *      before there are tensors, any pointer aligned to 16 bytes may stand in;
 *   4. winnow_...(&params, &device, workspace, bytes, stream): enqueues the work. Allocates nothing, synchronises
 *      nothing, may be captured in a CUDA graph.
 *
 * Every call may come from any thread; the library keeps no state. Tensor pointers, lengths, page tables and lists are
 * device memory. Strides and extents count elements. A call that a check refuses writes nothing.
 */
#ifndef WINNOW_C_H
#define WINNOW_C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define WINNOW_API __attribute__((visibility("default")))
#else
#define WINNOW_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Number of this interface. A change of any struct, enumerator or signature below raises it. */
#define WINNOW_ABI_VERSION 4

/* --- Status ------------------------------------------------------------------------------------------------------ */

/* Kinds of failure. Fields of this type are int32_t, as are all enumerations here: C leaves an enum's size open. */
typedef enum winnow_code {
    WINNOW_OK = 0,
    WINNOW_NULL_POINTER,        /* a required pointer is null */
    WINNOW_BAD_EXTENT,          /* an extent is negative, zero where it may not be, or disagrees with another field */
    WINNOW_BAD_STRIDE,          /* a stride the kernels cannot use */
    WINNOW_MISALIGNED,          /* a pointer or stride is not a multiple of the access width */
    WINNOW_UNSUPPORTED,         /* a valid request that no instance serves */
    WINNOW_OUT_OF_RANGE,        /* a scalar lies outside its range, or is no enumerator */
    WINNOW_NOT_ASCENDING,       /* a list is not ascending and unique */
    WINNOW_WORKSPACE_TOO_SMALL, /* the workspace holds fewer bytes than the query said */
    WINNOW_WRONG_PLAN,          /* cannot come from this interface, which plans in every call */
    WINNOW_CUDA_ERROR,          /* a launch or driver call failed; `value` is the cudaError_t */
    WINNOW_WRONG_ABI = 100      /* caller and library were built from different versions of this header */
} winnow_code;

/* Result of every call. The strings are constants of the library and never null. */
typedef struct winnow_status {
    int32_t code;      /* winnow_code */
    const char* field; /* the field that broke the rule, e.g. "keys.stride[3]" */
    const char* rule;  /* the rule, e.g. "must be 1" */
    int64_t value;     /* the value found */
} winnow_status;

/* Name of a code, e.g. "bad stride". Never null. */
WINNOW_API const char* winnow_code_name(int32_t code);

/* Writes "bad stride: keys.stride[3] must be 1, found 2" to `buffer`, cut to `bytes` - 1 characters and terminated.
 * Returns the length of the whole text, as snprintf does. `buffer` may be null if `bytes` is 0. */
WINNOW_API size_t winnow_format_status(winnow_status status, char* buffer, size_t bytes);

/* --- Versions ---------------------------------------------------------------------------------------------------- */

/* WINNOW_ABI_VERSION of the header that the library was built with. */
WINNOW_API int32_t winnow_abi_version(void);

/* WINNOW_WRONG_ABI unless `version` is the library's. Call it first. Beyond that, every params struct carries its size,
 * and a call refuses one of another size. */
WINNOW_API winnow_status winnow_check_abi(int32_t version);

/* Version of Winnow, e.g. "0.1.0". */
WINNOW_API const char* winnow_version(void);

/* --- Device ------------------------------------------------------------------------------------------------------ */

/* What planning needs to know of a device. */
typedef struct winnow_device {
    int32_t compute_capability; /* major * 10 + minor */
    int32_t multiprocessors;
    int32_t shared_memory_per_block; /* bytes, opt-in maximum */
    int64_t l2_bytes;
    int32_t instructions; /* 90: kernels for Hopper may run; 80: only portable ones; see winnow::device_info */
} winnow_device;

/* Asks CUDA for device `ordinal`. Once at start-up, not per call. */
WINNOW_API winnow_status winnow_query_device(int32_t ordinal, winnow_device* device);

/* An H100 SXM, to size workspaces where there is no device. */
WINNOW_API void winnow_example_device(winnow_device* device);

/* --- Parts of params --------------------------------------------------------------------------------------------- */

typedef enum winnow_dtype { WINNOW_BF16 = 0, WINNOW_FP16, WINNOW_FP8_E4M3, WINNOW_FP32 } winnow_dtype;

/* A strided tensor. Each field's comment gives its axes; where they are fewer than four, what stands behind them is
 * not read. */
typedef struct winnow_tensor {
    void* data;
    int64_t extent[4];
    int64_t stride[4]; /* elements, not bytes */
} winnow_tensor;

typedef enum winnow_kv_layout {
    WINNOW_CONTIGUOUS = 0, /* [batch, token, kv_head, channel] */
    WINNOW_RAGGED,         /* [1, packed token, kv_head, channel]; request b owns rows [start[b], start[b + 1]) */
    WINNOW_BLOCK_TABLE,    /* [page, token in page, kv_head, channel]; pages[b * table_stride + t / page size] */
    WINNOW_PAGE_LIST       /* same pages; request b owns entries [start[b], start[b + 1]) of `pages` */
} winnow_kv_layout;

/* Where the tokens of each request live in keys and values. All zero: contiguous, whole extent. NHD and HND caches are a
 * matter of the tensors' strides. */
typedef struct winnow_kv_index {
    int32_t layout;                  /* winnow_kv_layout */
    int32_t max_length;              /* bound of every length; contiguous may leave 0, which takes the extent */
    const int32_t* length;           /* [batch] keys per request; contiguous, ragged and page lists may leave it out */
    const int32_t* start;            /* [batch + 1], ragged and page list */
    const int32_t* pages;            /* page ids */
    int64_t table_stride;            /* entries between two requests of a block table */
    const int32_t* last_page_length; /* [batch], page list: tokens in the last page */
} winnow_kv_index;

/* Ragged queries. All zero: queries are [batch, token, head, channel]. */
typedef struct winnow_query_index {
    const int32_t* start; /* [batch + 1] first packed row of each request; queries are [1, rows, head, channel] */
    int32_t batch;        /* requests, with `start` */
    int32_t max_length;   /* bound of every request's rows, with `start` */
} winnow_query_index;

#define WINNOW_WHOLE_CONTEXT INT32_MAX /* window.recent: every earlier key is in the window, attention is dense */
#define WINNOW_END_ALIGNED INT32_MIN   /* mask.offset: the queries are the last rows of the context */

/* Keys that are always attended. */
typedef struct winnow_window {
    int32_t sinks;  /* first keys of the context */
    int32_t recent; /* the row's own position and the recent - 1 keys before it, or WINNOW_WHOLE_CONTEXT */
} winnow_window;

typedef enum winnow_mask_kind { WINNOW_CAUSAL = 0, WINNOW_FULL } winnow_mask_kind;

typedef struct winnow_mask {
    int32_t kind;   /* winnow_mask_kind */
    int32_t offset; /* position of row 0 in the context, or WINNOW_END_ALIGNED */
} winnow_mask;

/* For every query block a counted, ascending list of key blocks. block_size 0: none. */
typedef struct winnow_selection {
    winnow_tensor blocks;    /* int32 [batch, list head, query block, entry]; list heads: 1, kv_heads or heads */
    winnow_tensor counts;    /* int32 [batch, list head, query block] */
    int32_t block_size;      /* keys per block: 8, 16, 32, 64 or 128 */
    int32_t query_block;     /* query rows that share a list */
    const int32_t* list_row; /* [batch] index on axis 0 of each request; null: its own */
} winnow_selection;

typedef enum winnow_lse_base { WINNOW_NATURAL = 0, WINNOW_BASE_2 } winnow_lse_base;

/* Log-sum-exp of the scores, an output; data null: not wanted. */
typedef struct winnow_lse {
    winnow_tensor values; /* fp32 [batch, token, head], any strides, so [head, token] layouts too */
    int32_t base;         /* winnow_lse_base */
} winnow_lse;

typedef enum winnow_row_range { WINNOW_ALL_ROWS = 0, WINNOW_WITHOUT_TAIL, WINNOW_TAIL_ONLY } winnow_row_range;

typedef enum winnow_scorer {
    WINNOW_TREE_PROBE = 0,   /* binary search by probes at branch centres; the best probe on the path is the score */
    WINNOW_TREE_PROBE_FIRST, /* binary search by the first key of each branch; the last one is the score */
    WINNOW_CENTRE_PROBE,     /* one probe, in the middle of the chunk */
    WINNOW_MEAN_KEY,         /* one probe, the mean of the chunk's keys */
    WINNOW_MIN_MAX_BOUND,    /* the most that a key within the chunk's bounds can give */
    WINNOW_ANTIDIAGONAL      /* the best sum of scores over the antidiagonal of query_stride rows and keys */
} winnow_scorer;

typedef enum winnow_scan_style { WINNOW_RELATIVE = 0, WINNOW_CHUNK_INDEXED } winnow_scan_style;
typedef enum winnow_probe_path { WINNOW_PATH_PER_HEAD = 0, WINNOW_PATH_PER_KV_GROUP } winnow_probe_path;

/* The two channels of a head that turn together. */
typedef enum winnow_rope_pairing {
    WINNOW_HALVES = 0, /* i and i + rotary_dim / 2 */
    WINNOW_ADJACENT    /* 2 i and 2 i + 1 */
} winnow_rope_pairing;

typedef enum winnow_sharing { WINNOW_PER_BATCH = 0, WINNOW_PER_KV_GROUP, WINNOW_PER_HEAD } winnow_sharing;

#define WINNOW_MAX_STAGES 8

/* One stage of pruning. */
typedef struct winnow_stage {
    int32_t query_block;  /* query rows that share a list, 1 to 128; divides the stage before's */
    int32_t query_stride; /* consecutive rows averaged before scoring; divides query_block */
    int32_t chunk;        /* keys per chunk, a power of two, smaller than the stage before's */
    int32_t keep;         /* chunks kept */
} winnow_stage;

/* A pruning method: stages from coarse to fine. The last stage's chunks are the selected blocks. */
typedef struct winnow_method {
    winnow_stage stages[WINNOW_MAX_STAGES];
    int32_t stage_count;
    winnow_window window; /* sinks and recent keys, which pruning leaves to attention */
    int32_t scorer;       /* winnow_scorer */
    int32_t path;         /* winnow_probe_path */
    int32_t sharing;      /* winnow_sharing */
} winnow_method;

/* A preset by its name in the C++ headers: "hip_3k", "hip_3k_early_layer", "hip_5k", "hip_v1", "hip_tiny". */
WINNOW_API winnow_status winnow_method_preset(const char* name, winnow_method* method);

/* Decode steps between two refreshes of each stage. */
typedef struct winnow_intervals {
    int32_t steps[WINNOW_MAX_STAGES];
} winnow_intervals;

/* A preset by name: "default", "fast", "flash". */
WINNOW_API winnow_status winnow_intervals_preset(const char* name, winnow_intervals* intervals);

/* Lists kept between decode steps, one set per slot. A slot belongs to one running request: when one enters, or its
 * sequence is cut, forked or replaced, the caller writes step[slot] = 0 on the device. */
typedef struct winnow_stage_cache {
    int32_t* step;              /* [slots] decode steps since the slot was reset; winnow_sparse_decode adds 1 */
    int32_t* lists;             /* winnow_stage_cache_entries() int32, need not be initialised */
    const int32_t* slot;        /* [batch] slot of each request; outside [0, slots), by custom -1: padding; null: row */
    int32_t slots;              /* slots there are */
    winnow_intervals intervals; /* steps between two refreshes of each stage */
} winnow_stage_cache;

/* int32 elements of winnow_stage_cache.lists; 0 for arguments that no call accepts. */
WINNOW_API size_t winnow_stage_cache_entries(const winnow_method* method, int32_t heads, int32_t kv_heads,
                                             int32_t slots);

/* Summaries of whole chunks of keys, kept beside a cache: WINNOW_MEAN_KEY and WINNOW_MIN_MAX_BOUND then read one or two
 * rows a chunk instead of its keys. All zero: there are none. winnow_summarise fills them. */
typedef struct winnow_key_summary {
    void* data;         /* T, winnow_summary_elements() elements */
    int32_t rows;       /* requests that there is room for */
    int32_t max_keys;   /* keys of a request that there is room for */
    const int32_t* row; /* [batch] row of each request; outside [0, rows): none; null: row = request */
} winnow_key_summary;

/* Elements of winnow_key_summary.data; 0 for arguments that no call accepts, and for scorers that read none. */
WINNOW_API size_t winnow_summary_elements(const winnow_method* method, int32_t kv_heads, int32_t head_dim, int32_t rows,
                                          int32_t max_keys);

#define WINNOW_MAX_LEVELS 16

typedef enum winnow_cascade_heads { WINNOW_OWN_TOKENS = 0, WINNOW_SHARED_TOKENS } winnow_cascade_heads;
typedef enum winnow_cascade_keys { WINNOW_UNROTATED_KEYS = 0, WINNOW_ROTATED_COPY } winnow_cascade_keys;
typedef enum winnow_cascade_positions {
    WINNOW_CACHED_POSITIONS = 0,
    WINNOW_ORIGINAL_POSITIONS
} winnow_cascade_positions;
typedef enum winnow_cascade_reduction { WINNOW_MAX = 0, WINNOW_MEAN, WINNOW_MEDIAN } winnow_cascade_reduction;

/* Sinks and sub-caches of one sequence. */
typedef struct winnow_cascade_layout {
    int32_t sinks;                     /* first tokens, kept for good */
    int32_t levels;                    /* sub-caches */
    int32_t size[WINNOW_MAX_LEVELS];   /* slots of each */
    int32_t period[WINNOW_MAX_LEVELS]; /* each accepts one step in so many, >= 1 */
    int32_t eager_fill;                /* 0 or 1: accept always until the cache is full */
} winnow_cascade_layout;

/* `levels` equal sub-caches that share `slots`, with periods 1, 2, 4, ...; one level is a sliding window. */
WINNOW_API winnow_status winnow_cascade_layout_even(int32_t sinks, int32_t slots, int32_t levels,
                                                    winnow_cascade_layout* layout);

/* Caches of some sequences, in device memory that the caller owns. Zero all of it once. */
typedef struct winnow_cascade_cache {
    void* memory;                 /* winnow_cascade_cache_bytes(), aligned to 256 */
    winnow_cascade_layout layout; /* the same for all sequences */
    int32_t sequences;            /* that there is memory for */
    int32_t kv_heads;
    int32_t head_dim;
    int32_t heads;  /* winnow_cascade_heads */
    int32_t stored; /* winnow_cascade_keys; a rotated copy serves decode steps and takes half as much memory again */
} winnow_cascade_cache;

/* Bytes of its memory, exactly; 0 for caches that no call accepts. `memory` is not looked at. */
WINNOW_API size_t winnow_cascade_cache_bytes(const winnow_cascade_cache* cache, int32_t dtype);

/* Forgets the tokens of a sequence; clear erases them as well. Asynchronous, capturable. */
WINNOW_API winnow_status winnow_cascade_reset(const winnow_cascade_cache* cache, int32_t dtype, int32_t sequence,
                                              void* stream);
WINNOW_API winnow_status winnow_cascade_clear(const winnow_cascade_cache* cache, int32_t dtype, int32_t sequence,
                                              void* stream);
/* Makes sequence `to` a copy of sequence `from`. Asynchronous, capturable. */
WINNOW_API winnow_status winnow_cascade_fork(const winnow_cascade_cache* cache, int32_t dtype, int32_t from, int32_t to,
                                             void* stream);

/* How tokens are scored. */
typedef struct winnow_cascade_scorer {
    double beta;       /* in (0, 1]: old scores fade by beta a token */
    int32_t rows;      /* last rows of a chunk that count; 0: all, exact */
    int32_t reduction; /* winnow_cascade_reduction over heads */
} winnow_cascade_scorer;

/* --- Params: one struct an operator ------------------------------------------------------------------------------ */
/* T is bf16 or fp16, as `dtype` says; head_dim is 64, 128 or 256. Channels have stride 1; the other strides of T tensors
 * are multiples of 16 bytes. */

/* A rotary embedding; all zero: none. */
typedef struct winnow_rope {
    float theta;                    /* base of the frequencies, >= 1; 0 without a table: no rotation */
    int32_t rotary_dim;             /* leading channels that turn, a multiple of 16; 0: all of them */
    int32_t pairing;                /* winnow_rope_pairing */
    const float* inverse_frequency; /* [rotary_dim / 2] radians per position; null: from theta */
} winnow_rope;

typedef enum winnow_stored { WINNOW_AS_DTYPE = 0, WINNOW_AS_FP8_E4M3 } winnow_stored;

/* How a cache holds keys and values; all zero: as `dtype` says. In fp8, element x of a key stands for x * key_scale. Where
 * it is fp8: attention takes decode steps, up to 16 rows (tokens times heads of a KV head) that share keys; pruning takes
 * WINNOW_TREE_PROBE and WINNOW_CENTRE_PROBE; neither takes a rotation. */
typedef struct winnow_cache_format {
    int32_t stored;           /* winnow_stored */
    int32_t scale_heads;      /* 0 or 1: one scale for the tensor; else the number of KV heads */
    const float* key_scale;   /* [scale_heads] on the device, > 0; null: 1 */
    const float* value_scale; /* the same of values */
} winnow_cache_format;

/* Softmax attention over sinks + window + listed key blocks. */
typedef struct winnow_attend_params {
    uint32_t struct_size;       /* sizeof(winnow_attend_params) */
    int32_t dtype;              /* winnow_dtype */
    winnow_tensor queries;      /* T [batch, token, head, channel]; ragged [1, row, head, channel] */
    winnow_tensor keys;         /* T or fp8 [batch | 1 | page, token, kv_head, channel] */
    winnow_tensor values;       /* axes of keys, own strides */
    winnow_kv_index kv;         /* where tokens live */
    winnow_query_index rows;    /* ragged queries */
    winnow_selection selection; /* selected key blocks; default none */
    winnow_window window;       /* sinks and recent keys; default the whole context */
    winnow_tensor output;       /* T, axes of queries */
    winnow_lse lse;             /* optional */
    float scale;                /* of the scores, usually 1 / sqrt(head_dim); > 0 */
    float soft_cap;             /* > 0: scores become soft_cap * tanh(score / soft_cap) */
    winnow_mask mask;           /* default causal, queries at the end of the context */
    int32_t range;              /* winnow_row_range */
    int32_t tail;               /* rows at the end of each request that `range` leaves out, or takes alone */
    int32_t tail_step;          /* the tail begins at a position that this divides, up to so many rows earlier; >= 1 */
    winnow_rope rotation;       /* queries and cached keys come without it: turned by streaming positions */
    const float* sink_logits;   /* [head] learned sinks: a logit more in each row's softmax; optional */
    winnow_cache_format format; /* of keys and values; default T */
} winnow_attend_params;

typedef enum winnow_delta_form {
    WINNOW_COMPLEMENT = 0, /* the difference between dense and sparse rows, without cancellation */
    WINNOW_DIFFERENCE,
    WINNOW_MASS_PRESERVING, /* the omitted keys with their mass */
    WINNOW_RECOMPUTE        /* dense rows alone, nothing for those between */
} winnow_delta_form;

/* How much of a prefill is computed densely, and what becomes of it. */
typedef struct winnow_delta_options {
    int32_t gamma;      /* positions between two dense rows, >= 1; 64 is usual. In a sparse prefill 0: none */
    int32_t dense_tail; /* last rows that are dense at least; 128 is usual */
    int32_t form;       /* winnow_delta_form */
    int32_t last_chunk; /* not 0: the rows end their prompts; 0: no tail, more chunks follow */
} winnow_delta_options;

/* Sparse attention whose rows are corrected by what it missed at every gamma-th row. */
typedef struct winnow_delta_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_attend_params base; /* the sparse call over keys in T; receives the result. Its own struct_size and dtype are
                                * not read */
    winnow_delta_options options;
} winnow_delta_params;

/* Hierarchical top-k pruning: queries and keys to lists of key blocks. */
typedef struct winnow_prune_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor queries;
    winnow_tensor keys;
    winnow_kv_index kv;
    winnow_query_index rows;
    winnow_method method;
    winnow_selection selection; /* out; extents as winnow_prune_extents says, blocks as the last stage */
    winnow_mask mask;
    int32_t lookahead;          /* decode steps a list must stay complete for */
    winnow_rope rotation;       /* queries and cached keys come without it */
    int32_t scan;               /* winnow_scan_style; with a rotation: where probes stand */
    winnow_cache_format format; /* of keys; default T */
    winnow_key_summary summary; /* of keys, changes no list; optional */
} winnow_prune_params;

/* Extents of the selection that `params` asks for: [batch, list head, query block, entry]. Reads method, tensor extents
 * and indices; the selection itself may still be empty. */
WINNOW_API winnow_status winnow_prune_extents(const winnow_prune_params* params, int32_t extents[4]);

/* Pruning and attention for prompts, or chunks of them, in one call. */
typedef struct winnow_sparse_prefill_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor queries;
    winnow_tensor keys;
    winnow_tensor values;
    winnow_kv_index kv;
    winnow_query_index rows;
    winnow_method method; /* stages, scorer, sharing, sinks and window */
    winnow_tensor output;
    winnow_lse lse;
    float scale;
    float soft_cap;
    winnow_mask mask;
    int32_t dense_tail;         /* last rows of each request that attend to everything; 0 with delta */
    winnow_delta_options delta; /* correction of the rows; gamma 0: none */
    winnow_rope rotation;       /* queries and cached keys come without it */
    int32_t scan;               /* winnow_scan_style */
    const float* sink_logits;   /* [head] as in attention; not with delta; optional */
    winnow_key_summary summary; /* as in pruning */
} winnow_sparse_prefill_params;

/* One new token per request, whose key and value are in the cache already; lists are kept between steps. */
typedef struct winnow_sparse_decode_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor queries; /* T [batch, 1, head, channel] */
    winnow_tensor keys;
    winnow_tensor values;
    winnow_kv_index kv;
    winnow_method method;
    winnow_stage_cache cache;
    winnow_tensor output; /* T [batch, 1, head, channel]; a padded row (slot -1 or length 0) gives 0 */
    winnow_lse lse;
    float scale;
    float soft_cap;
    winnow_rope rotation;       /* queries and cached keys come without it */
    int32_t scan;               /* winnow_scan_style */
    const float* sink_logits;   /* [head] as in attention; optional */
    winnow_cache_format format; /* of keys and values; default T */
    winnow_key_summary summary; /* as in pruning; its rows are best the slots of requests */
} winnow_sparse_decode_params;

/* Summaries of the chunks that a method looks at; after new keys came, of those completed since. */
typedef struct winnow_summarise_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor keys; /* T [batch | 1 | page, token, kv_head, channel] */
    winnow_kv_index kv;
    int32_t batch;              /* requests */
    int32_t max_new;            /* bound of keys beyond `known`; 0: any number */
    winnow_method method;       /* stages, sinks, and a scorer that has summaries */
    winnow_key_summary summary; /* out */
    const int32_t* known;       /* [batch] keys that are summarised already; null: none */
} winnow_summarise_params;

/* Combines partial results over disjoint sets of keys. `dtype` may be WINNOW_FP32 as well. */
typedef struct winnow_merge_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor outputs; /* T [part, row, head, channel]; channels up to 1024 */
    winnow_tensor lses;    /* fp32 [part, row, head] */
    int32_t base;          /* winnow_lse_base of `lses` and `lse` */
    winnow_tensor output;  /* T [row, head, channel] */
    winnow_tensor lse;     /* fp32 [row, head]; optional */
} winnow_merge_params;

/* New rows of keys and values into a paged or contiguous cache. */
typedef struct winnow_append_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor keys;         /* T [row, kv_head, channel] */
    winnow_tensor values;       /* T [row, kv_head, channel], own head_dim; zero, with value_cache: keys only */
    winnow_tensor key_cache;    /* T or fp8 [page, token in page, kv_head, channel] */
    winnow_tensor value_cache;  /* same pages, tokens and kv_heads, own strides */
    const int64_t* slot;        /* [row] page * page size + token; negative (padding) or beyond: nothing is written */
    const int32_t* position;    /* [row]; with a rotation only, and then needed */
    winnow_rope rotation;       /* of keys and queries */
    winnow_tensor queries;      /* T [row, head, channel]; optional, rotated in place */
    winnow_cache_format format; /* of the caches; default T. In fp8, x is stored as x / scale, rounded, 448 at most */
} winnow_append_params;

/* A chunk of tokens over a cascading cache and over itself. The chunk is not in the cache yet. */
typedef struct winnow_cascade_attend_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor queries;        /* T [batch, token, head, channel]; ragged [1, row, head, channel] */
    winnow_tensor keys;           /* T [batch | 1, token, kv_head, channel], not rotated */
    winnow_tensor values;         /* axes of keys, own strides */
    winnow_query_index rows;      /* ragged chunks */
    winnow_cascade_cache cache;   /* read; its scores change where `scores` is given */
    const int32_t* sequence;      /* [batch] sequence of each request; outside the cache: padding; null: request */
    winnow_tensor output;         /* axes of queries */
    winnow_lse lse;               /* optional */
    float scale;                  /* of the scores; > 0 */
    winnow_rope rotation;         /* of keys and queries */
    int32_t positions;            /* winnow_cascade_positions */
    winnow_tensor scores;         /* fp32 [batch, token, token head], written; zero: nothing is scored */
    winnow_cascade_scorer scorer; /* how tokens are scored */
} winnow_cascade_attend_params;

/* Puts the tokens of a chunk into the cache. */
typedef struct winnow_cascade_insert_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor keys; /* as in winnow_cascade_attend_params */
    winnow_tensor values;
    winnow_query_index rows;
    winnow_cascade_cache cache; /* changed in place */
    const int32_t* sequence;
    winnow_tensor scores; /* fp32 [batch, token, token head]; zero: all are 0 */
    winnow_rope rotation; /* with a rotated copy: as in winnow_cascade_attend_params, always the same */
    int32_t positions;    /* likewise */
} winnow_cascade_insert_params;

/* Whole sequences chunk by chunk. */
typedef struct winnow_cascade_prefill_params {
    uint32_t struct_size;
    int32_t dtype;
    winnow_tensor queries; /* T [batch, token, head, channel] */
    winnow_tensor keys;
    winnow_tensor values;
    winnow_cascade_cache cache;
    const int32_t* sequence;
    winnow_tensor output;
    winnow_lse lse;
    float scale;
    winnow_rope rotation;
    int32_t positions;
    winnow_cascade_scorer scorer;
    int32_t chunk; /* tokens of a chunk */
} winnow_cascade_prefill_params;

/* --- Calls ------------------------------------------------------------------------------------------------------- */
/* `workspace` is device memory aligned to 256 bytes; null where the query said 0 bytes. Launches that may run at the
 * same time need one each. `stream` is a cudaStream_t; null is the legacy default stream. `device` describes the
 * device that is current in the calling thread. */

WINNOW_API winnow_status winnow_attend_workspace(const winnow_attend_params* params, const winnow_device* device,
                                                 size_t* bytes);
WINNOW_API winnow_status winnow_attend(const winnow_attend_params* params, const winnow_device* device, void* workspace,
                                       size_t workspace_bytes, void* stream);

WINNOW_API winnow_status winnow_prune_workspace(const winnow_prune_params* params, const winnow_device* device,
                                                size_t* bytes);
WINNOW_API winnow_status winnow_prune(const winnow_prune_params* params, const winnow_device* device, void* workspace,
                                      size_t workspace_bytes, void* stream);

WINNOW_API winnow_status winnow_delta_workspace(const winnow_delta_params* params, const winnow_device* device,
                                                size_t* bytes);
WINNOW_API winnow_status winnow_delta(const winnow_delta_params* params, const winnow_device* device, void* workspace,
                                      size_t workspace_bytes, void* stream);

WINNOW_API winnow_status winnow_sparse_prefill_workspace(const winnow_sparse_prefill_params* params,
                                                         const winnow_device* device, size_t* bytes);
WINNOW_API winnow_status winnow_sparse_prefill(const winnow_sparse_prefill_params* params, const winnow_device* device,
                                               void* workspace, size_t workspace_bytes, void* stream);

/* Afterwards the step of every slot that was used is one higher. */
WINNOW_API winnow_status winnow_sparse_decode_workspace(const winnow_sparse_decode_params* params,
                                                        const winnow_device* device, size_t* bytes);
WINNOW_API winnow_status winnow_sparse_decode(const winnow_sparse_decode_params* params, const winnow_device* device,
                                              void* workspace, size_t workspace_bytes, void* stream);

/* Its workspace is 0 bytes. */
WINNOW_API winnow_status winnow_summarise_workspace(const winnow_summarise_params* params, const winnow_device* device,
                                                    size_t* bytes);
WINNOW_API winnow_status winnow_summarise(const winnow_summarise_params* params, const winnow_device* device,
                                          void* workspace, size_t workspace_bytes, void* stream);

/* Its workspace is 0 bytes. */
WINNOW_API winnow_status winnow_merge_workspace(const winnow_merge_params* params, const winnow_device* device,
                                                size_t* bytes);
WINNOW_API winnow_status winnow_merge(const winnow_merge_params* params, const winnow_device* device, void* workspace,
                                      size_t workspace_bytes, void* stream);

/* Its workspace is 0 bytes. */
WINNOW_API winnow_status winnow_append_workspace(const winnow_append_params* params, const winnow_device* device,
                                                 size_t* bytes);
WINNOW_API winnow_status winnow_append(const winnow_append_params* params, const winnow_device* device, void* workspace,
                                       size_t workspace_bytes, void* stream);

/* A request whose sequence is padding gives output 0 and lse -inf. */
WINNOW_API winnow_status winnow_cascade_attend_workspace(const winnow_cascade_attend_params* params,
                                                         const winnow_device* device, size_t* bytes);
WINNOW_API winnow_status winnow_cascade_attend(const winnow_cascade_attend_params* params, const winnow_device* device,
                                               void* workspace, size_t workspace_bytes, void* stream);

WINNOW_API winnow_status winnow_cascade_insert_workspace(const winnow_cascade_insert_params* params,
                                                         const winnow_device* device, size_t* bytes);
WINNOW_API winnow_status winnow_cascade_insert(const winnow_cascade_insert_params* params, const winnow_device* device,
                                               void* workspace, size_t workspace_bytes, void* stream);

WINNOW_API winnow_status winnow_cascade_prefill_workspace(const winnow_cascade_prefill_params* params,
                                                          const winnow_device* device, size_t* bytes);
WINNOW_API winnow_status winnow_cascade_prefill(const winnow_cascade_prefill_params* params,
                                                const winnow_device* device, void* workspace, size_t workspace_bytes,
                                                void* stream);

/* --- Defaults ---------------------------------------------------------------------------------------------------- */
/* Structs with their size and the library's defaults set; the rest is zero. Compiled into the caller, so that
 * struct_size is the caller's. Methods are empty: take a preset or fill one. */

/* Row-major tensor; give 1 for the axes behind a tensor of lower rank. */
static inline winnow_tensor winnow_packed(void* data, int64_t a, int64_t b, int64_t c, int64_t d) {
    winnow_tensor t = {data, {a, b, c, d}, {b * c * d, c * d, d, 1}};
    return t;
}

static inline winnow_attend_params winnow_attend_defaults(void) {
    winnow_attend_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.selection.query_block = 1;
    p.window.recent = WINNOW_WHOLE_CONTEXT;
    p.mask.offset = WINNOW_END_ALIGNED;
    p.tail_step = 1;
    return p;
}

static inline winnow_delta_options winnow_delta_options_defaults(void) {
    winnow_delta_options o;
    o.gamma = 64;
    o.dense_tail = 128;
    o.form = WINNOW_COMPLEMENT;
    o.last_chunk = 1;
    return o;
}

static inline winnow_delta_params winnow_delta_defaults(void) {
    winnow_delta_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.base = winnow_attend_defaults();
    p.options = winnow_delta_options_defaults();
    return p;
}

static inline winnow_prune_params winnow_prune_defaults(void) {
    winnow_prune_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.mask.offset = WINNOW_END_ALIGNED;
    return p;
}

static inline winnow_sparse_prefill_params winnow_sparse_prefill_defaults(void) {
    winnow_sparse_prefill_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.mask.offset = WINNOW_END_ALIGNED;
    p.delta = winnow_delta_options_defaults();
    p.delta.gamma = 0;
    return p;
}

static inline winnow_sparse_decode_params winnow_sparse_decode_defaults(void) {
    winnow_sparse_decode_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    return p;
}

static inline winnow_summarise_params winnow_summarise_defaults(void) {
    winnow_summarise_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    return p;
}

static inline winnow_merge_params winnow_merge_defaults(void) {
    winnow_merge_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    return p;
}

static inline winnow_append_params winnow_append_defaults(void) {
    winnow_append_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    return p;
}

static inline winnow_cascade_attend_params winnow_cascade_attend_defaults(void) {
    winnow_cascade_attend_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.scorer.beta = 0.9999;
    return p;
}

static inline winnow_cascade_insert_params winnow_cascade_insert_defaults(void) {
    winnow_cascade_insert_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    return p;
}

static inline winnow_cascade_prefill_params winnow_cascade_prefill_defaults(void) {
    winnow_cascade_prefill_params p;
    memset(&p, 0, sizeof p);
    p.struct_size = sizeof p;
    p.scorer.beta = 0.9999;
    p.chunk = 4096;
    return p;
}

#ifdef __cplusplus
}
#endif

#endif
