#include "core/cuda/cudnn_convolution_graph.h"

#include <array>
#include <utility>

namespace limbeck::cuda {
namespace {

/// Values that only pass from one operation to the next, besides the tensors of the header.
enum Passing : std::int64_t { kProduct = 16, kSum, kShifted };

cudnnDataType_t type_of(DType dtype) { return dtype == DType::kBF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT; }

/// A dense channels-last tensor. A virtual one is never stored.
BackendDescriptor tensor(std::int64_t id, const Shape& s, cudnnDataType_t type, bool is_virtual) {
  BackendDescriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const std::array<std::int64_t, 4> sizes{s[0], s[1], s[2], s[3]};
  const std::array<std::int64_t, 4> strides{s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]};
  const std::int64_t alignment = 16;
  d.set_one(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  d.set_numbers(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes);
  d.set_numbers(CUDNN_ATTR_TENSOR_STRIDES, strides);
  d.set_one(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
  d.set_one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
  d.set_one(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, is_virtual);
  d.finalize();
  return d;
}

BackendDescriptor convolution(const ConvolutionProblem& p) {
  BackendDescriptor d(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const std::int64_t dimensions = 2;
  d.set_one(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, dimensions);
  d.set_one(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  d.set_one(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
  d.set_numbers(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, p.padding);
  d.set_numbers(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, p.padding);
  d.set_numbers(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, p.stride);
  d.set_numbers(CUDNN_ATTR_CONVOLUTION_DILATIONS, p.dilation);
  d.finalize();
  return d;
}

BackendDescriptor pointwise(cudnnPointwiseMode_t mode, double most) {
  BackendDescriptor d(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  d.set_one(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  d.set_one(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  if (most > 0) d.set_one(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE, most);
  d.finalize();
  return d;
}

/// The three operations have attributes of their own for the same things.
struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
};

OperationNames names_of(ConvolutionPass pass) {
  switch (pass) {
    case ConvolutionPass::kForward: break;
    case ConvolutionPass::kData:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvolutionPass::kWeights:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
}

class Builder {
 public:
  explicit Builder(const ConvolutionProblem& p) : p_(p) {
    steps_left_ = (p.residual ? 1 : 0) + (p.bias ? 1 : 0) + (p.relu ? 1 : 0);
    add_convolution();
    if (p.residual) add_sum(kTensorResidual, p.y, p.dtype, kSum);
    if (p.bias) add_sum(kTensorBias, Shape{1, p.y[1], 1, 1}, p.bias_dtype(), kShifted);
    if (p.relu) add_relu();
  }

  std::shared_ptr<const std::vector<BackendDescriptor>> finish(const PlanTarget& target) && {
    BackendDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    target.enter_graph(graph);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              static_cast<std::int64_t>(operations_.size()), operations_.data());
    if (!graph.try_finalize()) return nullptr;
    keep(std::move(graph));
    return std::make_shared<const std::vector<BackendDescriptor>>(std::move(kept_));
  }

 private:
  cudnnBackendDescriptor_t keep(BackendDescriptor d) {
    kept_.push_back(std::move(d));
    return kept_.back().raw();
  }
  cudnnBackendDescriptor_t stored(ConvolutionTensor id, const Shape& shape, DType dtype) {
    return keep(tensor(id, shape, type_of(dtype), false));
  }
  /// What an operation of the forward pass makes: y, if none follows.
  cudnnBackendDescriptor_t result(Passing id) {
    value_ = steps_left_-- == 0 ? stored(kTensorY, p_.y, p_.dtype) : keep(tensor(id, p_.y, CUDNN_DATA_FLOAT, true));
    return value_;
  }

  void add_convolution() {
    const float one = 1;
    const float zero = 0;
    const OperationNames names = names_of(p_.pass);
    BackendDescriptor op(names.type);
    op.set_descriptor(names.convolution, keep(convolution(p_)));
    op.set_descriptor(names.x, stored(kTensorX, p_.x, p_.dtype));
    op.set_descriptor(names.w, stored(kTensorW, p_.w, p_.dtype));
    op.set_descriptor(names.y, result(kProduct));
    op.set_one(names.alpha, CUDNN_TYPE_FLOAT, one);
    op.set_one(names.beta, CUDNN_TYPE_FLOAT, zero);
    op.finalize();
    operations_.push_back(keep(std::move(op)));
  }

  void add_sum(ConvolutionTensor operand, const Shape& shape, DType dtype, Passing name) {
    BackendDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, keep(pointwise(CUDNN_POINTWISE_ADD, 0)));
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, value_);
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, stored(operand, shape, dtype));
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result(name));
    op.finalize();
    operations_.push_back(keep(std::move(op)));
  }

  void add_relu() {
    BackendDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, keep(pointwise(CUDNN_POINTWISE_RELU_FWD, p_.most)));
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, value_);
    op.set_descriptor(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result(kShifted));
    op.finalize();
    operations_.push_back(keep(std::move(op)));
  }

  const ConvolutionProblem& p_;
  std::vector<BackendDescriptor> kept_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  cudnnBackendDescriptor_t value_ = nullptr;  // what the next operation takes
  int steps_left_ = 0;                        // operations behind the next one
};

}  // namespace

std::shared_ptr<const std::vector<BackendDescriptor>> convolution_graph(const ConvolutionProblem& problem,
                                                                        const PlanTarget& target) {
  return Builder(problem).finish(target);
}

}  // namespace limbeck::cuda
