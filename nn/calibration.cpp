// What this is: see nn/calibration.h.
#include "nn/calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/file_io.h"

namespace limbeck::nn {
namespace {

constexpr const char* kName = "calibrate";

/// Sums over the bins below an index, so that the error of a range takes no loop.
class Moments {
 public:
  Moments(const std::vector<std::int64_t>& counts, double reach)
      : reach_(reach), bins_(counts.size()), n_(bins_ + 1, 0), x_(bins_ + 1, 0), xx_(bins_ + 1, 0) {
    for (std::size_t i = 0; i < bins_; ++i) {
      const double centre = reach * ((2 * static_cast<double>(i) + 1) / static_cast<double>(bins_) - 1);
      const auto n = static_cast<double>(counts[i]);
      n_[i + 1] = n_[i] + n;
      x_[i + 1] = x_[i] + n * centre;
      xx_[i + 1] = xx_[i] + n * centre * centre;
    }
  }

  /// E(low, high) of Note [ranges].
  [[nodiscard]] double error(double low, double high) const {
    const std::size_t first = bin(low), last = std::max(first, bin(high));
    const double step = (high - low) / 255;
    return (n_[last] - n_[first]) * step * step / 12 + squares(0, first, low) + squares(last, bins_, high);
  }

 private:
  /// First bin whose centre is not below x.
  [[nodiscard]] std::size_t bin(double x) const {
    const double at = std::ceil((x / reach_ + 1) / 2 * static_cast<double>(bins_) - 0.5);
    return static_cast<std::size_t>(std::clamp(at, 0.0, static_cast<double>(bins_)));
  }
  /// Sum of (x - end)^2 over bins.
  [[nodiscard]] double squares(std::size_t first, std::size_t last, double end) const {
    const double sum = xx_[last] - xx_[first] - 2 * end * (x_[last] - x_[first]) + end * end * (n_[last] - n_[first]);
    return std::max(sum, 0.0);
  }

  double reach_;
  std::size_t bins_;
  std::vector<double> n_, x_, xx_;
};

/// For each value the first of those that share its range.
std::vector<std::size_t> range_groups(const Graph& graph, const std::vector<bool>& bytes) {
  std::vector<std::size_t> first(bytes.size());
  std::iota(first.begin(), first.end(), std::size_t{0});
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    if (!bytes[k + 1] || !moves_bytes(graph.nodes[k].step)) continue;
    for (const ValueId v : graph.nodes[k].inputs) {
      const std::size_t a = first[static_cast<std::size_t>(v)], b = first[k + 1];
      std::replace(first.begin(), first.end(), std::max(a, b), std::min(a, b));
    }
  }
  return first;
}

}  // namespace

Graph inference_graph(const Graph& graph) { return fuse_epilogues(fold_batch_norms(graph)); }

bool moves_bytes(const Step& step) {
  const auto* concat = std::get_if<ConcatStep>(&step);
  return (concat != nullptr && concat->dim == 1) || std::holds_alternative<MaxPoolStep>(step) ||
         std::holds_alternative<ResizeStep>(step);
}

std::vector<bool> byte_values(const Graph& graph) {
  std::vector<bool> bytes(graph.nodes.size() + 1, false);
  for (std::size_t k = graph.nodes.size(); k-- > 0;) {
    const GraphNode& node = graph.nodes[k];
    const bool output = static_cast<ValueId>(k + 1) == graph.output;
    if (!std::holds_alternative<ConvStep>(node.step) && (output || !bytes[k + 1] || !moves_bytes(node.step))) continue;
    for (const ValueId v : node.inputs) bytes[static_cast<std::size_t>(v)] = true;
  }
  return bytes;
}

std::uint32_t checksum_of(const Graph& graph) { return crc32c(to_string(graph)); }

void Calibration::check(const Graph& graph) const {
  LIMBECK_CHECK(
      values.size() == graph.nodes.size() + 1 && checksum == checksum_of(graph), kName,
      "the ranges of {} values (network {:08x}) are not those of this network ({} values, {:08x}); calibrate it again",
      values.size(), checksum, graph.nodes.size() + 1, checksum_of(graph));
  for (const ops::Quantisation& q : values) ops::check_quantisation(kName, q);
}

void Histogram::widen(double reach) {
  if (reach_ == 0) reach_ = reach;
  for (; reach_ < reach; reach_ *= 2) {
    std::vector<std::int64_t> wide(kBins, 0);
    for (std::size_t i = 0; i < kBins; ++i) wide[kBins / 4 + i / 2] += counts_[i];
    counts_ = std::move(wide);
  }
}

void Histogram::add(std::span<const float> values) {
  float low = 0, high = 0;
  bool finite = true;
  for (const float v : values) {
    low = std::min(low, v);
    high = std::max(high, v);
    finite = finite && std::isfinite(v);
  }
  LIMBECK_CHECK(finite, kName, "a result is NaN or infinite");
  const double most = std::max<double>(-static_cast<double>(low), static_cast<double>(high));
  if (most == 0) return;
  low_ = std::min(low_, static_cast<double>(low));
  high_ = std::max(high_, static_cast<double>(high));
  widen(std::exp2(std::ceil(std::log2(most))));
  const auto scale = static_cast<float>(static_cast<double>(kBins) / (2 * reach_));
  const auto reach = static_cast<float>(reach_);
  for (const float v : values) {
    if (v == 0.0F) continue;
    const auto bin = static_cast<std::size_t>((v + reach) * scale);
    ++counts_[std::min(bin, kBins - 1)];
  }
}

void Histogram::add(const Histogram& other) {
  if (other.reach_ == 0) return;
  Histogram same = other;
  widen(other.reach_);
  same.widen(reach_);
  for (std::size_t i = 0; i < kBins; ++i) counts_[i] += same.counts_[i];
  low_ = std::min(low_, other.low_);
  high_ = std::max(high_, other.high_);
}

// One end after the other, from the whole range inwards, until both rest.
ops::Quantisation Histogram::best() const {
  if (reach_ == 0) return {};
  constexpr int kCandidates = 256, kRounds = 4;
  const Moments moments(counts_, reach_);
  double low = low_, high = high_;
  for (int round = 0; round < kRounds; ++round) {
    double best_low = low, best_high = high;
    double least = moments.error(low, high);
    const auto take = [&](double l, double h) {
      const double error = moments.error(l, h);
      if (error >= least) return;
      least = error;
      best_low = l;
      best_high = h;
    };
    for (int k = 1; k <= kCandidates; ++k) take(low, high_ * k / kCandidates);
    const double rest = best_high;
    for (int k = 1; k <= kCandidates; ++k) take(low_ * k / kCandidates, rest);
    if (best_low == low && best_high == high) break;
    low = best_low;
    high = best_high;
  }
  return ops::quantisation_of(low, high);
}

Calibrator::Calibrator(const Graph& graph)
    : graph_(graph), bytes_(byte_values(graph)), histograms_(graph.nodes.size() + 1) {}

void Calibrator::add(const Tensor& x) {
  static_cast<void>(run(graph_, x, [&](std::size_t v, const Tensor& t) {
    if (!bytes_[v]) return;
    const Tensor dense = t.dense();
    try {
      histograms_[v].add({dense.data<float>(), static_cast<std::size_t>(dense.numel())});
    } catch (const Error& e) {
      fail(kName, "{}: {}", v == 0 ? "the input" : graph_.nodes[v - 1].name, e.what());
    }
  }));
  pictures_ += x.size(0);
}

Calibration Calibrator::finish() const {
  LIMBECK_CHECK(pictures_ > 0, kName, "no pictures");
  const std::vector<std::size_t> first = range_groups(graph_, bytes_);
  std::vector<Histogram> groups = histograms_;
  for (std::size_t v = 0; v < first.size(); ++v) {
    if (first[v] != v) groups[first[v]].add(histograms_[v]);
  }
  Calibration calibration{{}, pictures_, checksum_of(graph_)};
  for (const std::size_t f : first) calibration.values.push_back(groups[f].best());
  return calibration;
}

}  // namespace limbeck::nn
