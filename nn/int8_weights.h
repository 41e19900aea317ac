// What this is: the convolutions of a network in 8 bits as named tensors, which a file can hold in place of its weights, and the way back
//   into a network, which then computes in f32 with the rounded weights.
// What it is not: the ranges of its values (nn/calibration.h), or the file (apps/model_io.h).
// Read next: ops/packed_conv2d_i8.h (FiltersI8), nn/int8_plan.h.
//
// Note [weights in 8 bits]
//   Batch norm is folded first, so a convolution is three tensors, under the name of its module:
//     NAME.weight  u8 [O, I/G, KH, KW]   q + 128, 1..255
//     NAME.scale   f32 [O]               what q counts
//     NAME.bias    f32 [O]
//   A network goes that way if it has no other weights.
#pragma once

#include <map>
#include <string>

#include "nn/graph.h"
#include "nn/module.h"
#include "ops/packed_conv2d_i8.h"

namespace limbeck::nn {

/// By the name of the module.
using Int8Weights = std::map<std::string, ops::FiltersI8>;

/// The filters of one convolution, rounded.
/// Shapes: none
[[nodiscard]] ops::FiltersI8 filters_of(const ConvStep& conv);

/// Those of a graph without taps.
/// Shapes: none
/// Throws: Error naming the module for weights outside of convolutions, and for a convolution that runs twice.
[[nodiscard]] Int8Weights int8_weights(const Graph& graph);

/// As Note [weights in 8 bits] says.
/// Shapes: there
[[nodiscard]] StateDict to_state(const Int8Weights& weights);
/// Shapes: there
/// Throws: WeightsError naming the tensor that is missing, unexpected, of another type or shape, or holds what it must not.
[[nodiscard]] Int8Weights from_state(const StateDict& state);

/// The convolutions of the graph are those of the weights, and have their shapes.
/// Shapes: none
/// Throws: WeightsError naming the first tensor that differs.
void check_fit(const Graph& graph, const Int8Weights& weights);

/// Writes what the bytes stand for into the tensors of `graph`, which are those of the module that it was captured from. A batch norm
/// behind a convolution adds the bias and does nothing else. `graph` is as captured, not folded.
/// Shapes: none
/// Throws: as check_fit(); WeightsError for a bias that has no place.
void restore(const Graph& graph, const Int8Weights& weights);

}  // namespace limbeck::nn
