// What this is: apps/export.h.
#include "apps/export.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "apps/onnx_runtime.h"
#include "core/autograd.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "datasets/convert.h"
#include "models/frozen_model.h"
#include "nn/int8_plan.h"
#include "nn/layers.h"
#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"

namespace limbeck::apps {
namespace {

constexpr double kUsualEps = 1e-5;

nn::ResizeStep::Mode resize_mode(const ModelCard& card) {
  return card.align_corners ? nn::ResizeStep::Mode::kAlignCorners : nn::ResizeStep::Mode::kHalfPixel;
}

std::vector<double> doubles(const std::array<float, 3>& v) { return {v.begin(), v.end()}; }

/// Everything a program needs besides the numbers, as texts.
std::map<std::string, std::string> metadata_of(const ModelCard& card, const OnnxExport& what) {
  auto metadata = to_metadata(card);
  const auto scaling = datasets::Normalisation::parse(card.normalisation);
  // y = x * scale + shift = (x / 255 - mean) / std
  std::array<double, 3> mean{}, deviation{};
  for (std::size_t c = 0; c < 3; ++c) {
    deviation[c] = 1.0 / (255.0 * static_cast<double>(scaling.scale[c]));
    mean[c] = -static_cast<double>(scaling.shift[c]) * deviation[c];
  }
  const auto list = [](const std::array<double, 3>& v) {
    return fmt::format("[{:.6g},{:.6g},{:.6g}]", v[0], v[1], v[2]);
  };
  metadata["mean"] = list(mean);
  metadata["std"] = list(deviation);
  const std::string channels = scaling.bgr ? "BGR" : "RGB";  // mean and std are in this order
  metadata["channels"] = channels;
  metadata["input"] = what.normalise ? "RGB, 0..255, NCHW; scaled inside" : channels + ", (x / 255 - mean) / std, NCHW";
  metadata["output"] = to_string(what.output);
  metadata["batch_norm"] = what.fold ? "folded" : "kept";
  metadata["precision"] = what.ranges != nullptr ? "int8" : "f32";
  metadata["exported_by"] = "limbeck " LIMBECK_VERSION;
  for (const auto& [key, value] : what.metadata) metadata[key] = value;
  return metadata;
}

/// The bias of a convolution in units of its products, as files in 8 bits hold it; where one does not fit into 32 bits, none changes.
void round_bias(ops::FiltersI8& f, const ops::Quantisation& x) {
  std::vector<float> rounded;
  for (std::size_t o = 0; o < f.bias.size(); ++o) {
    const auto unit = static_cast<double>(x.scale * f.scale[o]);
    const double count = std::nearbyint(static_cast<double>(f.bias[o]) / unit);
    if (!(std::abs(count) <= kMostBias)) return;
    rounded.push_back(static_cast<float>(count * unit));
  }
  f.bias = std::move(rounded);
}

/// How the values and filters of an inference graph are held in 8 bits.
OnnxBytes bytes_of(const nn::Graph& graph, const OnnxExport& what) {
  what.ranges->check(graph);
  OnnxBytes bytes;
  std::vector<bool> held = nn::byte_values(graph);
  held[static_cast<std::size_t>(graph.output)] = false;
  for (std::size_t v = 0; v < held.size(); ++v)
    bytes.values.push_back(held[v] ? std::optional(what.ranges->values[v]) : std::nullopt);
  if (what.filters != nullptr) nn::check_fit(graph, *what.filters);
  for (const nn::GraphNode& node : graph.nodes) {
    const auto* conv = std::get_if<nn::ConvStep>(&node.step);
    if (conv == nullptr) continue;
    ops::FiltersI8 f = what.filters != nullptr ? what.filters->at(node.name) : nn::filters_of(*conv);
    round_bias(f, *bytes.values[static_cast<std::size_t>(node.inputs[0])]);
    bytes.filters.emplace(node.name, std::move(f));
  }
  return bytes;
}

/// What the file is compared with: the network itself, or its int8 plan with the biases of the file.
class Original {
 public:
  Original(models::Model& model, const ModelCard& card, const OnnxExport& what)
      : model_(model), card_(card), output_(what.output) {
    if (what.ranges == nullptr) return;
    const nn::Graph graph = models::logits_graph(model);
    const nn::Int8Weights filters = bytes_of(nn::inference_graph(graph), what).filters;
    plan_.emplace(graph, *what.ranges, &filters);
  }
  [[nodiscard]] bool int8() const noexcept { return plan_.has_value(); }
  /// Scores at the size that the file gives them.
  [[nodiscard]] Tensor scores(const Tensor& x) const { return plan_ ? resized((*plan_)(x), x) : in_f32(x); }
  [[nodiscard]] Tensor in_f32(const Tensor& x) const { return resized(model_.forward(x).logits, x); }

 private:
  [[nodiscard]] Tensor resized(const Tensor& logits, const Tensor& x) const {
    if (output_ == ExportOutput::kLogits || logits.ndim() != 4) return logits;
    return ops::resize_bilinear(logits, {x.size(2), x.size(3)}, card_.align_corners);
  }

  models::Model& model_;
  const ModelCard& card_;
  ExportOutput output_;
  std::optional<nn::Int8Plan> plan_;
};

/// A batch of equal pictures (what is proved is the file, not the picture), as the network takes it or as the file does.
Tensor batch_of(const datasets::Image& image, const ModelCard& card, const OnnxExport& what, bool for_file) {
  auto scaling = datasets::Normalisation::parse(card.normalisation);
  if (for_file && what.normalise) {
    scaling = {};
    scaling.scale = {1, 1, 1};
  }
  const std::vector<Tensor> copies(static_cast<std::size_t>(what.batch), datasets::to_tensor(image, scaling));
  return ops::concat(copies, 0);
}

double agreement_of(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  std::int64_t same = 0;
  for (std::size_t i = 0; i < a.size(); ++i) same += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(same) / static_cast<double>(a.size());
}

/// `actual`: scores of the file for `x`, or the ids of the largest ones (i64).
Proof compare(const std::filesystem::path& path, const Tensor& actual, const Original& original, const Tensor& x) {
  const Tensor expected = original.scores(x), truth = ops::argmax(expected, 1);
  const bool scores = actual.dtype() == DType::kF32;
  LIMBECK_CHECK(actual.shape() == (scores ? expected : truth).shape(), "export", "{} gives {}, the network {}",
                path.string(), actual.shape(), (scores ? expected : truth).shape());
  const auto e = expected.to_vector<float>();
  const auto wanted = truth.to_vector<std::int64_t>();
  Proof one;
  if (scores) {
    const auto a = actual.to_vector<float>();
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(e[i]));
      // A NaN must not hide behind max().
      one.max_difference = std::isnan(difference) ? difference : std::max(one.max_difference, difference);
      one.max_logit = std::max(one.max_logit, std::abs(static_cast<double>(e[i])));
      one.squares += difference * difference;
    }
  }
  one.images = 1;
  one.pixels = static_cast<std::int64_t>(wanted.size());
  const auto ids = (scores ? ops::argmax(actual, 1) : actual).to_vector<std::int64_t>();
  one.agreement = std::isnan(one.max_difference) ? 0 : agreement_of(ids, wanted);
  one.int8 = original.int8();
  if (!one.int8) return one;
  const Tensor exact = original.in_f32(x);
  const auto f = exact.to_vector<float>();
  for (std::size_t i = 0; i < f.size(); ++i) {
    const double change = static_cast<double>(e[i]) - static_cast<double>(f[i]);
    one.int8_squares += change * change;
  }
  one.int8_agreement = agreement_of(ops::argmax(exact, 1).to_vector<std::int64_t>(), wanted);
  return one;
}

}  // namespace

ExportOutput parse_output(const std::string& text, const models::ModelSpec& spec) {
  const bool classifier = models::is_classification(spec.name);
  if (text.empty()) return classifier ? ExportOutput::kLogits : ExportOutput::kResized;
  if (text == "logits") return ExportOutput::kLogits;
  if (text == "ids") return ExportOutput::kIds;
  if (text != "resized") fail<ConfigError>("export", "--output {}, expected logits, resized or ids", text);
  if (classifier)
    fail<ConfigError>("export", "--output resized: {} gives one class per image; use logits or ids", spec.name);
  return ExportOutput::kResized;
}

std::string to_string(ExportOutput output) {
  switch (output) {
    case ExportOutput::kLogits: return "logits";
    case ExportOutput::kResized: return "resized";
    case ExportOutput::kIds: return "ids";
  }
  return "?";
}

void export_onnx(const std::filesystem::path& path, models::Model& model, const ModelCard& card,
                 const OnnxExport& what) {
  nn::Graph graph = models::logits_graph(model);
  if (what.fold) graph = nn::inference_graph(graph);
  std::optional<OnnxBytes> bytes;
  if (what.ranges != nullptr) {
    if (!what.fold)
      fail<ConfigError>("export", "in 8 bits batch norm is a part of the convolutions, it cannot be kept");
    bytes = bytes_of(graph, what);
  }
  const bool map = !models::is_classification(card.spec.name);
  if (map && what.output != ExportOutput::kLogits) graph = nn::resize_output(std::move(graph), resize_mode(card));
  if (what.output == ExportOutput::kIds) graph = nn::argmax_output(std::move(graph));
  if (what.normalise) {
    const auto scaling = datasets::Normalisation::parse(card.normalisation);
    graph = nn::scale_input(graph, {doubles(scaling.scale), doubles(scaling.shift), scaling.bgr});
    if (bytes) bytes->values.insert(bytes->values.begin(), std::nullopt);
  }
  if (bytes) bytes->values.resize(graph.nodes.size() + 1);  // what follows the scores is in floats
  write_onnx(path, graph,
             {.opset = what.opset,
              .input = {what.batch, 3, what.height, what.width},
              .dynamic_batch = what.dynamic_batch,
              .dynamic_size = what.dynamic_size,
              .graph_name = card.spec.name,
              .metadata = metadata_of(card, what),
              .bytes = std::move(bytes)});
}

double Proof::required_agreement() const noexcept {
  return int8 ? std::min(kRequiredAgreementInt8, int8_agreement) : kRequiredAgreement;
}

double Proof::share_of_int8() const noexcept { return std::sqrt(squares / std::max(int8_squares, 1e-30)); }

bool Proof::passed() const noexcept {
  if (pixels == 0 || !(agreement >= required_agreement())) return false;
  return int8 ? share_of_int8() <= kAllowedOfInt8 : max_difference <= kAllowedDifference * max_logit;
}

void Proof::add(const Proof& other) {
  const auto mean = [&](double mine, double its) {
    return (mine * static_cast<double>(pixels) + its * static_cast<double>(other.pixels)) /
           static_cast<double>(std::max<std::int64_t>(pixels + other.pixels, 1));
  };
  agreement = mean(agreement, other.agreement);
  int8_agreement = mean(int8_agreement, other.int8_agreement);
  int8 = int8 || other.int8;
  squares += other.squares;
  int8_squares += other.int8_squares;
  images += other.images;
  pixels += other.pixels;
  max_difference = std::max(max_difference, other.max_difference);
  max_logit = std::max(max_logit, other.max_logit);
}

void Proof::also(const Proof& other) {
  max_difference = std::max(max_difference, other.max_difference);
  max_logit = std::max(max_logit, other.max_logit);
  agreement = std::min(agreement, other.agreement);
  squares = std::max(squares, other.squares);
  run_by += ", " + other.run_by;
}

Proof prove_onnx(const std::filesystem::path& path, models::Model& model, const ModelCard& card, const OnnxExport& what,
                 std::span<const datasets::Image> images) {
  const NoGradGuard off;
  const OnnxProgram program(path);
  const Original original(model, card, what);
  Proof total;
  for (const datasets::Image& image : images) {
    const Tensor actual = program.run(batch_of(image, card, what, true), {"logits"}).at(0);
    total.add(compare(path, actual, original, batch_of(image, card, what, false)));
  }
  return total;
}

std::optional<Proof> prove_in_onnx_runtime(const std::filesystem::path& path, models::Model& model,
                                           const ModelCard& card, const OnnxExport& what,
                                           std::span<const datasets::Image> images, std::string& absent) {
  const NoGradGuard off;
  std::vector<Tensor> inputs;
  for (const datasets::Image& image : images) inputs.push_back(batch_of(image, card, what, true));
  const auto answer = run_in_onnx_runtime(path, inputs, absent);
  if (!answer) return std::nullopt;
  const Original original(model, card, what);
  Proof total;
  for (std::size_t i = 0; i < images.size(); ++i) {
    total.add(compare(path, answer->outputs[i], original, batch_of(images[i], card, what, false)));
  }
  total.run_by = "ONNX Runtime " + answer->version;
  return total;
}

namespace {

/// Parameters and buffers for batch norms with torchvision's eps: what another eps is more, the variance is more.
nn::StateDict with_usual_eps(models::Model& model) {
  nn::StateDict state = model.state_dict();
  for (const auto& m : model.named_modules()) {
    const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(m.module);
    if (bn == nullptr || bn->eps() == kUsualEps) continue;
    Tensor& variance = state.at(m.name + ".running_var");
    variance = ops::add_scalar(variance, bn->eps() - kUsualEps);
  }
  return state;
}

}  // namespace

void export_weights(const std::filesystem::path& path, models::Model& model, const ModelCard& card, bool pth) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : with_usual_eps(model)) tensors.push_back({name, tensor});
  if (pth) {
    save_torch_file(path, tensors);
    return;
  }
  ModelCard usual = card;
  usual.spec.bn_eps = kUsualEps;
  usual.spec.head_bn_eps = 0;
  auto metadata = to_metadata(usual);
  metadata["exported_by"] = "limbeck " LIMBECK_VERSION;
  save_safetensors(path, tensors, metadata);
}

}  // namespace limbeck::apps
