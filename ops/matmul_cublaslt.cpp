// Matrix products by cuBLASLt, which is column-major: the row-major C = A B is its C' = B' A'. A transposed operand is a
// view with swapped strides and becomes a transposed operand there; one without a unit stride is copied first.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>

#include <cublasLt.h>

#include "core/cuda.h"
#include "core/cuda/allocator.h"
#include "core/cuda/cudnn.h"
#include "core/cuda/runtime.h"
#include "core/lru_cache.h"
#include "ops/matmul_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

constexpr std::size_t kWorkspace = std::size_t{32} << 20U;

const Library& cublaslt() {
  static const Library library("cuBLASLt", {fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR), "libcublasLt.so"});
  return library;
}

void check_cublas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  static auto* const text = cublaslt().function<decltype(cublasLtGetStatusString)>("cublasLtGetStatusString");
  fail(current_op(), "{} on {}: {}", call, current_device().to_string(), text(status));
}

#define LIMBECK_CUBLASLT(name, ...)                                           \
  do {                                                                        \
    static auto* const function = cublaslt().function<decltype(name)>(#name); \
    check_cublas(function(__VA_ARGS__), #name);                               \
  } while (false)

cublasLtHandle_t handle() {
  static std::mutex mutex;
  static auto* handles = new std::array<cublasLtHandle_t, 128>{};  // never destroyed: see core/cuda/runtime.cpp
  const std::lock_guard lock(mutex);
  cublasLtHandle_t& entry = handles->at(static_cast<std::size_t>(current_device().index));
  if (entry == nullptr) LIMBECK_CUBLASLT(cublasLtCreate, &entry);
  return entry;
}

/// One matrix, or a batch of them, as cuBLASLt stores it: column-major `rows` x `columns`.
struct Operand {
  const void* data;
  DType dtype;
  std::int64_t rows, columns, ld, batch_stride;
  bool transpose;
  std::unique_ptr<Scratch> copy;

  /// `v` [.., M, N] is seen as its transposed, N x M.
  explicit Operand(TensorView v) : dtype(v.dtype) {
    const std::size_t d = v.shape.size();
    const auto plain = [](const TensorView& t, std::size_t r) { return t.strides[r] == 1 || t.shape[r] == 1; };
    if (!plain(v, d - 1) && !plain(v, d - 2)) {
      copy = std::make_unique<Scratch>(static_cast<std::size_t>(v.numel()) * size_of(v.dtype));
      const TensorView packed{copy->as<void>(), v.dtype, v.shape, row_major_strides(v.shape)};
      copy_view(current_device(), v, packed);
      v = packed;
    }
    const std::int64_t m = v.shape[d - 2];
    const std::int64_t n = v.shape[d - 1];
    data = v.data;
    transpose = !plain(v, d - 1);
    rows = transpose ? m : n;
    columns = transpose ? n : m;
    // With a single column its distance to the next does not matter, but must look sound.
    ld = std::max(v.strides[transpose ? d - 1 : d - 2], rows);
    batch_stride = d == 3 ? v.strides[0] : 0;
  }
  /// The largest power of two up to 256 that divides the address.
  [[nodiscard]] std::uint32_t alignment() const {
    std::uint32_t a = 256;
    while (reinterpret_cast<std::uintptr_t>(data) % a != 0) a /= 2;
    return a;
  }
};

cudaDataType_t type_of(DType dtype) {
  if (dtype == DType::kF32) return CUDA_R_32F;
  if (dtype == DType::kBF16) return CUDA_R_16BF;
  fail("matmul", "got {}, expected f32 or bf16", name_of(dtype));
}

class Layout {
 public:
  Layout(const Operand& o, std::int64_t batches) {
    LIMBECK_CUBLASLT(cublasLtMatrixLayoutCreate, &layout_, type_of(o.dtype), static_cast<std::uint64_t>(o.rows),
                     static_cast<std::uint64_t>(o.columns), o.ld);
    if (batches == 1) return;
    const auto count = static_cast<std::int32_t>(batches);
    LIMBECK_CUBLASLT(cublasLtMatrixLayoutSetAttribute, layout_, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                     sizeof count);
    LIMBECK_CUBLASLT(cublasLtMatrixLayoutSetAttribute, layout_, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                     &o.batch_stride, sizeof o.batch_stride);
  }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  ~Layout() {
    static auto* const destroy =
        cublaslt().function<decltype(cublasLtMatrixLayoutDestroy)>("cublasLtMatrixLayoutDestroy");
    destroy(layout_);
  }
  [[nodiscard]] cublasLtMatrixLayout_t get() const noexcept { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

class Description {
 public:
  Description(bool transpose_a, bool transpose_b) {
    const cublasComputeType_t compute = tf32_allowed() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    LIMBECK_CUBLASLT(cublasLtMatmulDescCreate, &description_, compute, CUDA_R_32F);
    const cublasOperation_t a = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    LIMBECK_CUBLASLT(cublasLtMatmulDescSetAttribute, description_, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a);
    LIMBECK_CUBLASLT(cublasLtMatmulDescSetAttribute, description_, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;
  ~Description() {
    static auto* const destroy = cublaslt().function<decltype(cublasLtMatmulDescDestroy)>("cublasLtMatmulDescDestroy");
    destroy(description_);
  }
  [[nodiscard]] cublasLtMatmulDesc_t get() const noexcept { return description_; }

 private:
  cublasLtMatmulDesc_t description_ = nullptr;
};

struct Key {
  std::int64_t numbers[24];
};

Key key_of(const Operand& a, const Operand& b, const Operand& c, std::int64_t batches) {
  Key key{};
  std::size_t i = 0;
  key.numbers[i++] = current_device().index;
  key.numbers[i++] = batches;
  for (const Operand* o : {&a, &b, &c}) {
    for (const std::int64_t v : {o->rows, o->columns, o->ld, o->batch_stride, std::int64_t{o->alignment()}})
      key.numbers[i++] = v;
    key.numbers[i++] = static_cast<std::int64_t>(o->dtype) * 2 + (o->transpose ? 1 : 0);
  }
  return key;
}

cublasLtMatmulAlgo_t choose(const Operand& a, const Operand& b, const Operand& c, const Description& description,
                            const Layout& la, const Layout& lb, const Layout& lc) {
  cublasLtMatmulPreference_t preference = nullptr;
  LIMBECK_CUBLASLT(cublasLtMatmulPreferenceCreate, &preference);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
    LIMBECK_CUBLASLT(cublasLtMatmulPreferenceSetAttribute, preference, what, &value, sizeof value);
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  // Sums that are split over blocks are added through the workspace, in a fixed order.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a.alignment());
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b.alignment());
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c.alignment());
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.alignment());
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  LIMBECK_CUBLASLT(cublasLtMatmulAlgoGetHeuristic, handle(), description.get(), la.get(), lb.get(), lc.get(), lc.get(),
                   preference, 1, &result, &count);
  LIMBECK_CUBLASLT(cublasLtMatmulPreferenceDestroy, preference);
  LIMBECK_CHECK(count > 0 && result.state == CUBLAS_STATUS_SUCCESS, "matmul",
                "cuBLASLt offers no algorithm for a product of {} x {} x {}", c.columns, c.rows,
                a.transpose ? a.rows : a.columns);
  return result.algo;
}

}  // namespace

void matmul_cuda(const TensorView& a_view, const TensorView& b_view, const TensorView& bias, const TensorView& c_view) {
  const std::int64_t batches = c_view.shape.size() == 3 ? c_view.shape[0] : 1;
  const Operand a(b_view);  // the first factor there is the second here
  const Operand b(a_view);
  const Operand c(c_view);
  LIMBECK_CHECK(!c.transpose && c.copy == nullptr, "matmul", "the result of shape {} is not row-major", c_view.shape);
  const float one = 1;
  float beta = 0;
  if (bias.defined()) {
    Strides repeated;
    repeated.resize(c_view.shape.size());
    repeated[c_view.shape.size() - 1] = bias.strides[0];
    copy_view(current_device(), {bias.data, bias.dtype, c_view.shape, repeated}, c_view);
    beta = 1;
  }
  const Description description(a.transpose, b.transpose);
  const Layout la(a, batches);
  const Layout lb(b, batches);
  const Layout lc(c, batches);
  static std::mutex mutex;
  static auto* algorithms = new LruCache<Key, cublasLtMatmulAlgo_t>(1024);
  cublasLtMatmulAlgo_t algorithm{};
  {
    const std::lock_guard lock(mutex);
    algorithm = algorithms->get(key_of(a, b, c, batches), [&] { return choose(a, b, c, description, la, lb, lc); });
  }
  const Scratch workspace(kWorkspace);
  LIMBECK_CUBLASLT(cublasLtMatmul, handle(), description.get(), &one, a.data, la.get(), b.data, lb.get(), &beta, c.data,
                   lc.get(), c_view.data, lc.get(), &algorithm, workspace.as<void>(), kWorkspace, stream());
}

}  // namespace limbeck::ops
