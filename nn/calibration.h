// What this is: how the values of a network are held in 8 bits, found by running it on pictures.
// What it is not: the network in 8 bits (nn/int8_plan.h), or a file (apps/model_io.h).
// Read next: ops/quantise.h, then nn/int8_plan.h.
//
// Note [ranges]
//   The network runs in f32, and a histogram is kept of every value. Of all ranges [l, h] that contain zero, the one with the
//   smallest mean squared error is taken:
//     E(l, h) = sum over l <= x <= h of s^2 / 12  +  sum over x > h of (x - h)^2  +  sum over x < l of (x - l)^2,  s = (h - l) / 255
//   The first term is the rounding error of numbers that fall anywhere between two steps, the others cut off outliers. Exact zeros are not
//   counted: 8 bits hold them exactly, and half of what a ReLU gives is zero.
//   Steps that move bytes without arithmetic (maximum, resize, concat) have the same range on both sides: their histograms are added.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nn/graph.h"
#include "ops/quantise.h"

namespace limbeck::nn {

/// The graph that plans run and calibration looks at: batch norms folded, sums and activations fused.
[[nodiscard]] Graph inference_graph(const Graph& graph);

/// Which values of an inference graph are read as bytes: by convolutions, and by byte steps before them.
[[nodiscard]] std::vector<bool> byte_values(const Graph& graph);
/// True if the step moves bytes without arithmetic.
[[nodiscard]] bool moves_bytes(const Step& step);

/// How each value of an inference graph is held in 8 bits; that of values which are not is of no meaning.
struct Calibration {
  std::vector<ops::Quantisation> values;
  std::int64_t pictures = 0;   ///< they were found on
  std::uint32_t checksum = 0;  ///< of the graph's text

  /// Throws Error unless this belongs to `graph`, an inference graph, and is sound.
  void check(const Graph& graph) const;
};

/// crc32c of to_string(graph).
[[nodiscard]] std::uint32_t checksum_of(const Graph& graph);

/// How often numbers of which size were seen. The bins cover [-reach, reach]; where numbers lie beyond, the reach is doubled.
class Histogram {
 public:
  /// Throws Error for a number that is not finite.
  void add(std::span<const float> values);
  void add(const Histogram& other);
  /// The range with the smallest error, see Note [ranges].
  [[nodiscard]] ops::Quantisation best() const;

 private:
  static constexpr std::size_t kBins = 4096;
  void widen(double reach);

  std::vector<std::int64_t> counts_ = std::vector<std::int64_t>(kBins, 0);
  double reach_ = 0;  // a power of two; 0: nothing seen but zeros
  double low_ = 0, high_ = 0;
};

/// Collects histograms over pictures.
class Calibrator {
 public:
  /// `graph` is an inference graph.
  explicit Calibrator(const Graph& graph);
  /// Shapes: x f32 [N, channels, H, W], as the network gets it
  /// Throws: Error naming the layer where a number is not finite.
  void add(const Tensor& x);
  /// Throws: Error without pictures.
  [[nodiscard]] Calibration finish() const;

 private:
  Graph graph_;
  std::vector<bool> bytes_;
  std::vector<Histogram> histograms_;  // by value; empty for those that are not bytes
  std::int64_t pictures_ = 0;
};

}  // namespace limbeck::nn
