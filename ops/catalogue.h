// What this is: the names of all differentiable ops. The tests fail for a name without OpCases, and backends are
//   checked against this list.
#pragma once

#include <array>
#include <string_view>

namespace limbeck::ops {

/// Shapes: not applicable; names as they appear in error messages.
inline constexpr std::array kCatalogue = std::to_array<std::string_view>({
    // elementwise.h
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "add_scalar",
    "mul_scalar",
    "pow_scalar",
    "neg",
    "relu",
    "relu6",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "sqrt",
    "square",
    "abs",
    "clamp",
    // reduce.h
    "sum",
    "mean",
    "amax",
    // matmul.h
    "matmul",
    "linear",
    // copy.h, concat.h, slice.h, pad.h
    "cast",
    "clone",
    "reshape",
    "permute",
    "concat",
    "slice",
    "pad2d",
    // dropout.h
    "dropout",
    "dropout2d",
    // conv2d.h, conv_transpose2d.h
    "conv2d",
    "depthwise_conv2d",
    "conv_transpose2d",
    // batch_norm.h
    "batch_norm",
    // pool2d.h
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "global_avg_pool2d",
    // interpolate.h
    "resize_bilinear",
    "resize_nearest",
    // softmax.h, cross_entropy.h
    "softmax",
    "log_softmax",
    "cross_entropy",
});

}  // namespace limbeck::ops
