#include "apps/calibrate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "apps/evaluate.h"
#include "core/autograd.h"
#include "core/log.h"
#include "datasets/convert.h"
#include "models/frozen_model.h"
#include "nn/int8_plan.h"
#include "ops/interpolate.h"

namespace limbeck::apps {
namespace {

/// A picture as the network gets it.
Tensor network_input(const datasets::Image& image, const InferenceOptions& options) {
  const Tensor x = datasets::to_tensor(image, options.normalisation);
  return options.resize_h > 0 ? ops::resize_bilinear(x, {options.resize_h, options.resize_w}, false) : x;
}

double agreement_of(const datasets::Mask& a, const datasets::Mask& b) {
  std::size_t same = 0;
  for (std::size_t i = 0; i < a.ids.size(); ++i) same += a.ids[i] == b.ids[i] ? 1 : 0;
  return static_cast<double>(same) / static_cast<double>(a.ids.size());
}

/// Sums of squares of the results and of their errors.
struct Squares {
  double signal = 0, noise = 0, seconds = 0;
};

void add_squares(const Tensor& exact, const Tensor& kept, const ops::Quantisation* how, Squares& sums) {
  const Tensor is = how != nullptr ? ops::dequantise(kept, *how) : kept.dense(), should = exact.dense();
  for (std::int64_t i = 0; i < should.numel(); ++i) {
    const auto want = static_cast<double>(should.data<float>()[i]);
    const double off = static_cast<double>(is.data<float>()[i]) - want;
    sums.signal += want * want;
    sums.noise += off * off;
  }
}

}  // namespace

Pictures spread(const Pictures& all, std::size_t count) {
  if (count >= all.count) return all;
  Pictures some = all;
  some.count = count;
  some.load = [all, count](std::size_t i) { return all.load(i * all.count / count); };
  return some;
}

nn::Calibration find_ranges(models::Model& model, const Pictures& pictures, const InferenceOptions& options) {
  const NoGradGuard off;
  nn::Calibrator calibrator(nn::inference_graph(models::logits_graph(model)));
  Progress progress("calibrate", static_cast<std::int64_t>(pictures.count));
  for (std::size_t i = 0; i < pictures.count; ++i) {
    calibrator.add(network_input(prepare_sample(pictures.load(i), options).image, options));
    progress.advance();
  }
  progress.finish();
  return calibrator.finish();
}

std::vector<PrecisionScore> compare_precisions(const LoadedModel& loaded, const Pictures& pictures,
                                               const InferenceOptions& options) {
  struct Candidate {
    PrecisionScore score;
    ForwardFn network;
    datasets::ConfusionMatrix matrix;
  };
  std::vector<Candidate> candidates;
  for (const Precision p : {Precision::kF32, Precision::kBF16, Precision::kInt8}) {
    candidates.push_back(
        {{p, {}, 0, 0}, network_of(loaded, p), datasets::ConfusionMatrix(loaded.card.classes.count())});
  }
  Progress progress("compare", static_cast<std::int64_t>(pictures.count));
  for (std::size_t i = 0; i < pictures.count; ++i) {
    const datasets::Sample sample = prepare_sample(pictures.load(i), options);
    datasets::Mask first;
    for (Candidate& c : candidates) {
      InferenceOptions own = options;
      own.precision = c.score.precision;
      const double start = monotonic_seconds();
      const datasets::Mask mask = predict_mask(c.network, sample.image, own);
      c.score.seconds += monotonic_seconds() - start;
      if (first.ids.empty()) first = mask;
      c.score.agreement += agreement_of(first, mask);
      if (pictures.labelled) c.matrix.update(sample.mask, mask);
    }
    progress.advance();
  }
  progress.finish();
  std::vector<PrecisionScore> scores;
  for (Candidate& c : candidates) {
    if (pictures.labelled) c.score.metrics = c.matrix.compute(options.absent);
    c.score.agreement /= static_cast<double>(pictures.count);
    c.score.seconds /= static_cast<double>(pictures.count);
    scores.push_back(c.score);
  }
  return scores;
}

std::vector<LayerError> layer_errors(models::Model& model, const nn::Calibration& ranges, const Pictures& pictures,
                                     const InferenceOptions& options) {
  const NoGradGuard off;
  const nn::Int8Plan plan(models::logits_graph(model), ranges);
  const nn::Graph& graph = plan.graph();
  const auto is_conv = [&](std::size_t value) {
    return value > 0 && std::holds_alternative<nn::ConvStep>(graph.nodes[value - 1].step);
  };
  std::map<std::size_t, Squares> squares;  // by value
  for (std::size_t i = 0; i < pictures.count; ++i) {
    const Tensor x = network_input(prepare_sample(pictures.load(i), options).image, options);
    std::map<std::size_t, Tensor> exact;
    static_cast<void>(nn::run(graph, x, [&](std::size_t value, const Tensor& t) {
      if (is_conv(value)) exact.emplace(value, t);
    }));
    static_cast<void>(plan(x, [&](std::size_t value, const Tensor& kept, const ops::Quantisation* how) {
      if (is_conv(value)) add_squares(exact.at(value), kept, how, squares[value]);
    }));
    double last = monotonic_seconds();  // alone, so that only the plan is timed
    static_cast<void>(plan(x, [&](std::size_t value, const Tensor&, const ops::Quantisation*) {
      const double now = monotonic_seconds();
      if (is_conv(value)) squares[value].seconds += now - last;
      last = now;
    }));
  }
  std::vector<std::string> lines;
  std::istringstream text(nn::to_string(graph));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  std::vector<LayerError> errors;
  for (const auto& [value, sums] : squares) {
    const std::string& line = lines[value - 1];
    const std::size_t begin = line.find(' ') + 1;
    errors.push_back({graph.nodes[value - 1].name, line.substr(begin, line.find(" (", begin) - begin),
                      std::sqrt(sums.noise / std::max(sums.signal, 1e-30)),
                      1e3 * sums.seconds / static_cast<double>(pictures.count)});
  }
  return errors;
}

}  // namespace limbeck::apps
