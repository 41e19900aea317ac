// What this is: a ConvolutionProblem as a graph of cuDNN's operations.
#pragma once

#include <memory>
#include <vector>

#include "core/cuda/cudnn_convolution_plan.h"

namespace limbeck::cuda {

/// The descriptors of a graph, the graph itself last; they refer to each other. Null if cuDNN does not know such a graph.
[[nodiscard]] std::shared_ptr<const std::vector<BackendDescriptor>> convolution_graph(const ConvolutionProblem& problem,
                                                                                      const PlanTarget& target);

/// The tensors of a graph: what a plan is given addresses for.
enum ConvolutionTensor : std::int64_t { kTensorX = 1, kTensorW, kTensorY, kTensorBias, kTensorResidual };

}  // namespace limbeck::cuda
