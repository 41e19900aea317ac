#include "core/cuda/cudnn_graph.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "core/choices.h"
#include "core/cuda/allocator.h"
#include "core/cuda/clock.h"
#include "core/cuda/cudnn.h"
#include "core/cuda/runtime.h"

namespace limbeck::cuda {
namespace {

constexpr std::size_t kWorkspaceLimit = std::size_t{1} << 28U;
constexpr std::int64_t kMostConfigurations = 16;
constexpr int kMostTimed = 4;

/// Names of the tensors within a graph.
enum Id : std::int64_t { kX = 1, kW, kBias, kResidual, kY, kProduct, kSum, kShifted };

template <class T>
void set_one(BackendDescriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
  d.set(name, type, 1, &value);
}
void set_descriptor(BackendDescriptor& d, cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
  set_one(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, value);
}
void set_numbers(BackendDescriptor& d, cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
  d.set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
}

cudnnDataType_t type_of(DType dtype) { return dtype == DType::kBF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT; }

/// A dense channels-last tensor. What only passes from one operation to the next is virtual: it is never stored.
BackendDescriptor tensor(Id id, const Shape& s, cudnnDataType_t type, bool passes = false) {
  BackendDescriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const std::array<std::int64_t, 4> sizes{s[0], s[1], s[2], s[3]};
  const std::array<std::int64_t, 4> strides{s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]};
  const std::int64_t alignment = 16;
  const std::int64_t name = id;
  set_one(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  set_numbers(d, CUDNN_ATTR_TENSOR_DIMENSIONS, sizes);
  set_numbers(d, CUDNN_ATTR_TENSOR_STRIDES, strides);
  set_one(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, name);
  set_one(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
  set_one(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, passes);
  d.finalize();
  return d;
}

BackendDescriptor convolution(const FusedProblem& p) {
  BackendDescriptor d(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const std::int64_t dimensions = 2;
  set_one(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, dimensions);
  set_one(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  set_one(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
  set_numbers(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, p.padding);
  set_numbers(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, p.padding);
  set_numbers(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, p.stride);
  set_numbers(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, p.dilation);
  d.finalize();
  return d;
}

BackendDescriptor pointwise(cudnnPointwiseMode_t mode, const FusedProblem& p) {
  BackendDescriptor d(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set_one(d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  set_one(d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  if (mode == CUDNN_POINTWISE_RELU_FWD && p.most > 0)
    set_one(d, CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE, p.most);
  d.finalize();
  return d;
}

/// True if the engine of a configuration gives the same bits every time, and in f32 multiplies f32 numbers.
bool suits(const BackendDescriptor& configuration, const FusedProblem& p) {
  BackendDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  std::int64_t count = 0;
  LIMBECK_CUDNN(cudnnBackendGetAttribute, configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE,
                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw);
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  LIMBECK_CUDNN(cudnnBackendGetAttribute, engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                static_cast<std::int64_t>(notes.size()), &count, notes.data());
  const std::span known(notes.data(), static_cast<std::size_t>(count));
  const auto has = [&](cudnnBackendNumericalNote_t note) {
    return std::find(known.begin(), known.end(), note) != known.end();
  };
  const bool exact = p.dtype == DType::kF32 && !tf32_allowed();
  return !has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) && !has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) &&
         !(exact && (has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) || has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)));
}

// Deprecated since cuDNN could be asked about devices that are not there; without them earlier versions 9 refuse.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
constexpr auto kGraphHandle = CUDNN_ATTR_OPERATIONGRAPH_HANDLE;
constexpr auto kPlanHandle = CUDNN_ATTR_EXECUTION_PLAN_HANDLE;
#pragma GCC diagnostic pop

/// The graph of a problem under construction. Descriptors are referred to by others, so all are kept.
class Builder {
 public:
  explicit Builder(const FusedProblem& p) : p_(p) {
    add_convolution();
    if (p.residual) add_sum(kResidual, p.y, type_of(p.dtype), kSum);
    add_sum(kBias, Shape{1, p.y[1], 1, 1}, CUDNN_DATA_FLOAT, p.relu ? kShifted : kY);
    if (p.relu) add_relu();
    BackendDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set_one(graph, kGraphHandle, CUDNN_TYPE_HANDLE, cudnn_handle());
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              static_cast<std::int64_t>(operations_.size()), operations_.data());
    if (graph.try_finalize() == CUDNN_STATUS_SUCCESS) graph_ = keep(std::move(graph));
  }
  /// Null if cuDNN knows no such graph.
  [[nodiscard]] cudnnBackendDescriptor_t graph() const noexcept { return graph_; }
  [[nodiscard]] std::vector<BackendDescriptor> release() { return std::move(kept_); }

 private:
  cudnnBackendDescriptor_t keep(BackendDescriptor d) {
    kept_.push_back(std::move(d));
    return kept_.back().get();
  }
  /// The value that an operation makes; the last one is y.
  cudnnBackendDescriptor_t result(Id id) {
    return keep(id == kY ? tensor(kY, p_.y, type_of(p_.dtype)) : tensor(id, p_.y, CUDNN_DATA_FLOAT, true));
  }

  void add_convolution() {
    const float one = 1;
    const float zero = 0;
    value_ = result(kProduct);
    BackendDescriptor op(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, keep(convolution(p_)));
    set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, keep(tensor(kX, p_.x, type_of(p_.dtype))));
    set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, keep(tensor(kW, p_.w, type_of(p_.dtype))));
    set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, value_);
    set_one(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, one);
    set_one(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, zero);
    op.finalize();
    operations_.push_back(keep(std::move(op)));
  }

  void add_sum(Id operand, const Shape& shape, cudnnDataType_t type, Id name) {
    const cudnnBackendDescriptor_t to = result(name);
    BackendDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, keep(pointwise(CUDNN_POINTWISE_ADD, p_)));
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, value_);
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, keep(tensor(operand, shape, type)));
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, to);
    op.finalize();
    operations_.push_back(keep(std::move(op)));
    value_ = to;
  }

  void add_relu() {
    BackendDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, keep(pointwise(CUDNN_POINTWISE_RELU_FWD, p_)));
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, value_);
    set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result(kY));
    op.finalize();
    operations_.push_back(keep(std::move(op)));
  }

  const FusedProblem& p_;
  std::vector<BackendDescriptor> kept_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  cudnnBackendDescriptor_t value_ = nullptr;  // what the next operation takes
  cudnnBackendDescriptor_t graph_ = nullptr;
};

}  // namespace

BackendDescriptor::BackendDescriptor(cudnnBackendDescriptorType_t type) {
  LIMBECK_CUDNN(cudnnBackendCreateDescriptor, type, &descriptor_);
}
BackendDescriptor::BackendDescriptor(BackendDescriptor&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
BackendDescriptor::~BackendDescriptor() {
  static auto* const destroy =
      cudnn_library().function<decltype(cudnnBackendDestroyDescriptor)>("cudnnBackendDestroyDescriptor");
  if (descriptor_ != nullptr) destroy(descriptor_);
}
void BackendDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                            const void* values) {
  LIMBECK_CUDNN(cudnnBackendSetAttribute, descriptor_, name, type, count, values);
}
cudnnStatus_t BackendDescriptor::try_finalize() {
  static auto* const finalize_it = cudnn_library().function<decltype(cudnnBackendFinalize)>("cudnnBackendFinalize");
  return finalize_it(descriptor_);
}
void BackendDescriptor::finalize() { check_cudnn(try_finalize(), "cudnnBackendFinalize"); }

std::array<std::int64_t, 17> FusedProblem::numbers() const {
  std::array<std::int64_t, 17> out{};
  std::size_t i = 0;
  const auto put = [&](std::int64_t v) { out.at(i++) = v; };
  put(static_cast<std::int64_t>(dtype));
  put((residual ? 2 : 0) + (relu ? 1 : 0));
  put(static_cast<std::int64_t>(most));
  for (const Shape* s : {&x, &w}) std::for_each(s->begin(), s->end(), put);
  for (const auto* pair : {&stride, &padding, &dilation}) std::for_each(pair->begin(), pair->end(), put);
  return out;
}

std::unique_ptr<FusedPlan> FusedPlan::make(const FusedProblem& problem) {
  Builder builder(problem);
  if (builder.graph() == nullptr) return nullptr;
  BackendDescriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  set_descriptor(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, builder.graph());
  set_one(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
  if (heuristics.try_finalize() != CUDNN_STATUS_SUCCESS) return nullptr;

  std::vector<BackendDescriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < kMostConfigurations; ++i) {
    configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    raw.push_back(configurations.back().get());
  }
  std::int64_t count = 0;
  LIMBECK_CUDNN(cudnnBackendGetAttribute, heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                CUDNN_TYPE_BACKEND_DESCRIPTOR, kMostConfigurations, &count, raw.data());
  const auto graph = std::make_shared<const std::vector<BackendDescriptor>>(builder.release());
  const auto numbers = problem.numbers();
  const std::string name = choice_key("fused convolution", numbers);
  const bool ranked = choices::ranked();
  const auto known = ranked ? std::nullopt : choices::find(name);
  std::unique_ptr<FusedPlan> best;
  std::int64_t number_of_best = 0;
  float least = 0;
  int timed = 0;
  for (std::int64_t i = 0; i < std::min(count, kMostConfigurations) && timed < kMostTimed; ++i) {
    BackendDescriptor& configuration = configurations[static_cast<std::size_t>(i)];
    if ((known && *known != i) || !suits(configuration, problem)) continue;
    BackendDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set_one(plan, kPlanHandle, CUDNN_TYPE_HANDLE, cudnn_handle());
    set_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration.get());
    if (plan.try_finalize() != CUDNN_STATUS_SUCCESS) continue;
    std::int64_t workspace = 0;
    std::int64_t read = 0;
    LIMBECK_CUDNN(cudnnBackendGetAttribute, plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                  &read, &workspace);
    if (workspace < 0 || static_cast<std::size_t>(workspace) > kWorkspaceLimit) continue;
    std::unique_ptr<FusedPlan> made(new FusedPlan(graph, std::move(configuration), std::move(plan),
                                                  static_cast<std::size_t>(workspace), problem.residual));
    if (ranked || known || capturing()) return made;
    const float ms = made->milliseconds(problem);
    ++timed;
    if (best && ms >= least) continue;
    least = ms;
    number_of_best = i;
    best = std::move(made);
  }
  if (best) choices::remember(name, number_of_best);
  return best;
}

/// On maps of no particular contents.
float FusedPlan::milliseconds(const FusedProblem& p) const {
  const auto bytes = [&](const Shape& s) { return static_cast<std::size_t>(s.numel()) * size_of(p.dtype); };
  const Scratch x(bytes(p.x));
  const Scratch w(bytes(p.w));
  const Scratch bias(static_cast<std::size_t>(p.y[1]) * sizeof(float));
  const Scratch residual(p.residual ? bytes(p.y) : 0);
  const Scratch y(bytes(p.y));
  const Scratch space(workspace_);
  return Clock().milliseconds(
      [&] { run(x.as<void>(), w.as<void>(), bias.as<void>(), residual.as<void>(), y.as<void>(), space.as<void>()); });
}

void FusedPlan::run(const void* x, const void* w, const void* bias, const void* residual, void* y,
                    void* workspace) const {
  BackendDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  const std::array<std::int64_t, 5> ids{kX, kW, kBias, kY, kResidual};
  const std::array<const void*, 5> pointers{x, w, bias, y, residual};
  const std::int64_t count = residual_ ? 5 : 4;
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers.data());
  set_one(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  pack.finalize();
  LIMBECK_CUDNN(cudnnBackendExecute, cudnn_handle(), plan_.get(), pack.get());
}

}  // namespace limbeck::cuda
