"""libwinnow.so from Python: winnow_c.h as ctypes structs, and a Library that loads it, checks the ABI and raises errors.

Needs no tensor library. `tensor(pointer, shape)` makes a packed tensor of a device pointer, `tensor_of(x)` one of anything
with data_ptr(), shape and stride() (PyTorch) or __cuda_array_interface__ (CuPy, Numba). Fields are explained in winnow_c.h.

    library = winnow.Library("./libwinnow.so")
    device = library.query_device(0)
    p = winnow.AttendParams(dtype=winnow.BF16, queries=winnow.tensor_of(q), keys=winnow.tensor_of(k), ...)
    bytes_needed = library.workspace_bytes(p, device)
    library.launch(p, device, workspace_pointer, bytes_needed, stream)
"""
import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p

ABI_VERSION = 4

# Enumerations.
OK, WRONG_ABI = 0, 100
BF16, FP16, FP8_E4M3, FP32 = range(4)
CONTIGUOUS, RAGGED, BLOCK_TABLE, PAGE_LIST = range(4)
CAUSAL, FULL = range(2)
NATURAL, BASE_2 = range(2)
ALL_ROWS, WITHOUT_TAIL, TAIL_ONLY = range(3)
TREE_PROBE, TREE_PROBE_FIRST, CENTRE_PROBE, MEAN_KEY, MIN_MAX_BOUND, ANTIDIAGONAL = range(6)
RELATIVE, CHUNK_INDEXED = range(2)
PATH_PER_HEAD, PATH_PER_KV_GROUP = range(2)
PER_BATCH, PER_KV_GROUP, PER_HEAD = range(3)
HALVES, ADJACENT = range(2)
AS_DTYPE, AS_FP8_E4M3 = range(2)
OWN_TOKENS, SHARED_TOKENS = range(2)
UNROTATED_KEYS, ROTATED_COPY = range(2)
CACHED_POSITIONS, ORIGINAL_POSITIONS = range(2)
MAX, MEAN, MEDIAN = range(3)
COMPLEMENT, DIFFERENCE, MASS_PRESERVING, RECOMPUTE = range(4)
WHOLE_CONTEXT, END_ALIGNED, MAX_STAGES, MAX_LEVELS = 2**31 - 1, -2**31, 8, 16


class Status(ctypes.Structure):
    _fields_ = [("code", c_int32), ("field", c_char_p), ("rule", c_char_p), ("value", c_int64)]


class Device(ctypes.Structure):
    _fields_ = [("compute_capability", c_int32), ("multiprocessors", c_int32), ("shared_memory_per_block", c_int32),
                ("l2_bytes", c_int64), ("instructions", c_int32)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("extent", c_int64 * 4), ("stride", c_int64 * 4)]


class KvIndex(ctypes.Structure):
    _fields_ = [("layout", c_int32), ("max_length", c_int32), ("length", c_void_p), ("start", c_void_p),
                ("pages", c_void_p), ("table_stride", c_int64), ("last_page_length", c_void_p)]


class QueryIndex(ctypes.Structure):
    _fields_ = [("start", c_void_p), ("batch", c_int32), ("max_length", c_int32)]


class Window(ctypes.Structure):
    _fields_ = [("sinks", c_int32), ("recent", c_int32)]


class Mask(ctypes.Structure):
    _fields_ = [("kind", c_int32), ("offset", c_int32)]


class Selection(ctypes.Structure):
    _fields_ = [("blocks", Tensor), ("counts", Tensor), ("block_size", c_int32), ("query_block", c_int32),
                ("list_row", c_void_p)]


class Lse(ctypes.Structure):
    _fields_ = [("values", Tensor), ("base", c_int32)]


class Stage(ctypes.Structure):
    _fields_ = [("query_block", c_int32), ("query_stride", c_int32), ("chunk", c_int32), ("keep", c_int32)]


class Method(ctypes.Structure):
    _fields_ = [("stages", Stage * MAX_STAGES), ("stage_count", c_int32), ("window", Window), ("scorer", c_int32),
                ("path", c_int32), ("sharing", c_int32)]


class Intervals(ctypes.Structure):
    _fields_ = [("steps", c_int32 * MAX_STAGES)]


class StageCache(ctypes.Structure):
    _fields_ = [("step", c_void_p), ("lists", c_void_p), ("slot", c_void_p), ("slots", c_int32),
                ("intervals", Intervals)]


class KeySummary(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("rows", c_int32), ("max_keys", c_int32), ("row", c_void_p)]


def assign(struct, fields):
    """Sets fields by name. ctypes would take a wrong name for a new attribute, which nobody reads."""
    own = {name for name, _ in struct._fields_}
    for name, value in fields.items():
        if name not in own:
            raise TypeError(f"{type(struct).__name__} has no field {name}")
        setattr(struct, name, value)


class Params(ctypes.Structure):
    """Base of the params structs: fields are given by name, and the rest takes the defaults of winnow_c.h."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)))
        own = {name for name, _ in self._fields_}
        if "mask" in own:
            self.mask.offset = END_ALIGNED
        if "window" in own:
            self.window.recent = WHOLE_CONTEXT
            self.selection.query_block = 1
        if "tail_step" in own:
            self.tail_step = 1
        if "options" in own:
            self.base, self.options = AttendParams(), DeltaOptions()
        if "delta" in own:
            self.delta = DeltaOptions(gamma=0)
        if "scorer" in own:
            self.scorer.beta = 0.9999
        if "chunk" in own:
            self.chunk = 4096
        assign(self, fields)


class Rope(ctypes.Structure):
    _fields_ = [("theta", c_float), ("rotary_dim", c_int32), ("pairing", c_int32), ("inverse_frequency", c_void_p)]


class CacheFormat(ctypes.Structure):
    _fields_ = [("stored", c_int32), ("scale_heads", c_int32), ("key_scale", c_void_p), ("value_scale", c_void_p)]


class AttendParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("queries", Tensor), ("keys", Tensor), ("values", Tensor),
                ("kv", KvIndex), ("rows", QueryIndex), ("selection", Selection), ("window", Window), ("output", Tensor),
                ("lse", Lse), ("scale", c_float), ("soft_cap", c_float), ("mask", Mask), ("range", c_int32),
                ("tail", c_int32), ("tail_step", c_int32), ("rotation", Rope), ("sink_logits", c_void_p),
                ("format", CacheFormat)]


class DeltaOptions(ctypes.Structure):
    _fields_ = [("gamma", c_int32), ("dense_tail", c_int32), ("form", c_int32), ("last_chunk", c_int32)]

    def __init__(self, gamma=64, dense_tail=128, form=COMPLEMENT, last_chunk=1):
        super().__init__(gamma, dense_tail, form, last_chunk)


class DeltaParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("base", AttendParams), ("options", DeltaOptions)]


class PruneParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("queries", Tensor), ("keys", Tensor), ("kv", KvIndex),
                ("rows", QueryIndex), ("method", Method), ("selection", Selection), ("mask", Mask), ("lookahead", c_int32),
                ("rotation", Rope), ("scan", c_int32), ("format", CacheFormat), ("summary", KeySummary)]


class SparsePrefillParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("queries", Tensor), ("keys", Tensor), ("values", Tensor),
                ("kv", KvIndex), ("rows", QueryIndex), ("method", Method), ("output", Tensor), ("lse", Lse),
                ("scale", c_float), ("soft_cap", c_float), ("mask", Mask), ("dense_tail", c_int32),
                ("delta", DeltaOptions), ("rotation", Rope), ("scan", c_int32),
                ("sink_logits", c_void_p), ("summary", KeySummary)]


class SparseDecodeParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("queries", Tensor), ("keys", Tensor), ("values", Tensor),
                ("kv", KvIndex), ("method", Method), ("cache", StageCache), ("output", Tensor), ("lse", Lse),
                ("scale", c_float), ("soft_cap", c_float), ("rotation", Rope), ("scan", c_int32),
                ("sink_logits", c_void_p), ("format", CacheFormat), ("summary", KeySummary)]


class SummariseParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("keys", Tensor), ("kv", KvIndex), ("batch", c_int32),
                ("max_new", c_int32), ("method", Method), ("summary", KeySummary), ("known", c_void_p)]


class MergeParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("outputs", Tensor), ("lses", Tensor), ("base", c_int32),
                ("output", Tensor), ("lse", Tensor)]


class AppendParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("keys", Tensor), ("values", Tensor), ("key_cache", Tensor),
                ("value_cache", Tensor), ("slot", c_void_p), ("position", c_void_p), ("rotation", Rope),
                ("queries", Tensor), ("format", CacheFormat)]


class CascadeLayout(ctypes.Structure):
    _fields_ = [("sinks", c_int32), ("levels", c_int32), ("size", c_int32 * MAX_LEVELS), ("period", c_int32 * MAX_LEVELS),
                ("eager_fill", c_int32)]


class CascadeCache(ctypes.Structure):
    _fields_ = [("memory", c_void_p), ("layout", CascadeLayout), ("sequences", c_int32), ("kv_heads", c_int32),
                ("head_dim", c_int32), ("heads", c_int32), ("stored", c_int32)]


class CascadeScorer(ctypes.Structure):
    _fields_ = [("beta", c_double), ("rows", c_int32), ("reduction", c_int32)]


class CascadeAttendParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("queries", Tensor), ("keys", Tensor), ("values", Tensor),
                ("rows", QueryIndex), ("cache", CascadeCache), ("sequence", c_void_p), ("output", Tensor), ("lse", Lse),
                ("scale", c_float), ("rotation", Rope), ("positions", c_int32), ("scores", Tensor),
                ("scorer", CascadeScorer)]


class CascadeInsertParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("keys", Tensor), ("values", Tensor), ("rows", QueryIndex),
                ("cache", CascadeCache), ("sequence", c_void_p), ("scores", Tensor), ("rotation", Rope), ("positions", c_int32)]


class CascadePrefillParams(Params):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("queries", Tensor), ("keys", Tensor), ("values", Tensor),
                ("cache", CascadeCache), ("sequence", c_void_p), ("output", Tensor), ("lse", Lse), ("scale", c_float),
                ("rotation", Rope), ("positions", c_int32), ("scorer", CascadeScorer), ("chunk", c_int32)]


OPERATORS = {AttendParams: "attend", DeltaParams: "delta", PruneParams: "prune", SparsePrefillParams: "sparse_prefill",
             SparseDecodeParams: "sparse_decode", SummariseParams: "summarise", MergeParams: "merge",
             AppendParams: "append", CascadeAttendParams: "cascade_attend", CascadeInsertParams: "cascade_insert",
             CascadePrefillParams: "cascade_prefill"}


def tensor(pointer, shape, strides=None):
    """A Tensor; strides count elements and default to packed rows."""
    if strides is None:
        strides = [1] * len(shape)
        for axis in reversed(range(len(shape) - 1)):
            strides[axis] = strides[axis + 1] * shape[axis + 1]
    unused = 4 - len(shape)
    return Tensor(pointer, (c_int64 * 4)(*shape, *[1] * unused), (c_int64 * 4)(*strides, *[1] * unused))


def tensor_of(array):
    """A Tensor of a PyTorch tensor, or of an array with __cuda_array_interface__."""
    if hasattr(array, "data_ptr"):
        return tensor(array.data_ptr(), array.shape, array.stride())
    about = array.__cuda_array_interface__
    item = int(about["typestr"][2:])
    strides = about.get("strides")
    return tensor(about["data"][0], about["shape"], strides and [stride // item for stride in strides])


class WinnowError(RuntimeError):
    """A status that is not ok."""

    def __init__(self, status, text):
        super().__init__(text)
        self.code, self.value = status.code, status.value
        self.field, self.rule = status.field.decode(), status.rule.decode()


class Library:
    """libwinnow.so; refuses one that was built from another version of winnow_c.h."""

    def __init__(self, path):
        self.functions = ctypes.CDLL(path)
        declare = self._declare
        declare("winnow_check_abi", Status, c_int32)
        declare("winnow_format_status", c_size_t, Status, c_void_p, c_size_t)
        self.check(self.functions.winnow_check_abi(ABI_VERSION))
        declare("winnow_version", c_char_p)
        declare("winnow_query_device", Status, c_int32, POINTER(Device))
        declare("winnow_example_device", None, POINTER(Device))
        declare("winnow_method_preset", Status, c_char_p, POINTER(Method))
        declare("winnow_intervals_preset", Status, c_char_p, POINTER(Intervals))
        declare("winnow_stage_cache_entries", c_size_t, POINTER(Method), c_int32, c_int32, c_int32)
        declare("winnow_summary_elements", c_size_t, POINTER(Method), c_int32, c_int32, c_int32, c_int32)
        declare("winnow_prune_extents", Status, POINTER(PruneParams), POINTER(c_int32))
        declare("winnow_cascade_layout_even", Status, c_int32, c_int32, c_int32, POINTER(CascadeLayout))
        declare("winnow_cascade_cache_bytes", c_size_t, POINTER(CascadeCache), c_int32)
        declare("winnow_cascade_reset", Status, POINTER(CascadeCache), c_int32, c_int32, c_void_p)
        declare("winnow_cascade_clear", Status, POINTER(CascadeCache), c_int32, c_int32, c_void_p)
        declare("winnow_cascade_fork", Status, POINTER(CascadeCache), c_int32, c_int32, c_int32, c_void_p)
        for params, name in OPERATORS.items():
            declare(f"winnow_{name}_workspace", Status, POINTER(params), POINTER(Device), POINTER(c_size_t))
            declare(f"winnow_{name}", Status, POINTER(params), POINTER(Device), c_void_p, c_size_t, c_void_p)
        self.version = self.functions.winnow_version().decode()

    def _declare(self, name, result, *arguments):
        function = getattr(self.functions, name)
        function.restype, function.argtypes = result, arguments

    def check(self, status):
        """Raises a WinnowError unless the status is ok."""
        if status.code == OK:
            return
        text = ctypes.create_string_buffer(256)
        self.functions.winnow_format_status(status, text, len(text))
        raise WinnowError(status, text.value.decode())

    def query_device(self, ordinal=0):
        device = Device()
        self.check(self.functions.winnow_query_device(ordinal, device))
        return device

    def example_device(self):
        """An H100, to size workspaces where there is no device."""
        device = Device()
        self.functions.winnow_example_device(device)
        return device

    def method(self, name, **changes):
        """A preset by name, with fields changed: method("hip_3k", sharing=PER_KV_GROUP)."""
        found = Method()
        self.check(self.functions.winnow_method_preset(name.encode(), found))
        assign(found, changes)
        return found

    def intervals(self, name="default"):
        found = Intervals()
        self.check(self.functions.winnow_intervals_preset(name.encode(), found))
        return found

    def stage_cache_entries(self, method, heads, kv_heads, slots):
        return self.functions.winnow_stage_cache_entries(method, heads, kv_heads, slots)

    def summary_elements(self, method, kv_heads, head_dim, rows, max_keys):
        """Elements of the keys' type that the summaries of `rows` requests take."""
        return self.functions.winnow_summary_elements(method, kv_heads, head_dim, rows, max_keys)

    def prune_extents(self, params):
        """[batch, list head, query block, entry] of the selection to allocate."""
        extents = (c_int32 * 4)()
        self.check(self.functions.winnow_prune_extents(params, extents))
        return list(extents)

    def cascade_layout(self, sinks, slots, levels):
        """Equal sub-caches with periods 1, 2, 4, ...."""
        found = CascadeLayout()
        self.check(self.functions.winnow_cascade_layout_even(sinks, slots, levels, found))
        return found

    def cascade_cache_bytes(self, cache, dtype):
        return self.functions.winnow_cascade_cache_bytes(cache, dtype)

    def cascade_reset(self, cache, dtype, sequence, stream=None):
        self.check(self.functions.winnow_cascade_reset(cache, dtype, sequence, stream))

    def cascade_clear(self, cache, dtype, sequence, stream=None):
        self.check(self.functions.winnow_cascade_clear(cache, dtype, sequence, stream))

    def cascade_fork(self, cache, dtype, source, target, stream=None):
        self.check(self.functions.winnow_cascade_fork(cache, dtype, source, target, stream))

    def workspace_bytes(self, params, device):
        found = c_size_t()
        name = OPERATORS[type(params)]
        self.check(getattr(self.functions, f"winnow_{name}_workspace")(params, device, found))
        return found.value

    def launch(self, params, device, workspace=None, workspace_bytes=0, stream=None):
        """Enqueues the work on a cudaStream_t; workspace is a device pointer."""
        function = getattr(self.functions, "winnow_" + OPERATORS[type(params)])
        self.check(function(params, device, workspace, workspace_bytes, stream))
