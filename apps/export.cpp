// What this is: apps/export.h.
#include "apps/export.h"

#include <algorithm>
#include <cmath>

#include "apps/onnx_runtime.h"
#include "core/autograd.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "datasets/convert.h"
#include "models/frozen_model.h"
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
  metadata["exported_by"] = "limbeck " LIMBECK_VERSION;
  for (const auto& [key, value] : what.metadata) metadata[key] = value;
  return metadata;
}

/// The network's own scores, at the size that the file gives them.
Tensor eager_scores(models::Model& model, const ModelCard& card, ExportOutput output, const Tensor& x) {
  const Tensor logits = model.forward(x).logits;
  if (output == ExportOutput::kLogits || logits.ndim() != 4) return logits;
  return ops::resize_bilinear(logits, {x.size(2), x.size(3)}, card.align_corners);
}

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

/// `actual`: scores, or the ids of the largest ones (i64).
Proof compare(const std::filesystem::path& path, const Tensor& actual, const Tensor& expected) {
  const Tensor truth = ops::argmax(expected, 1);
  const bool scores = actual.dtype() == DType::kF32;
  LIMBECK_CHECK(actual.shape() == (scores ? expected : truth).shape(), "export", "{} gives {}, the network {}",
                path.string(), actual.shape(), (scores ? expected : truth).shape());
  Proof one;
  if (scores) {
    const auto a = actual.to_vector<float>(), e = expected.to_vector<float>();
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(e[i]));
      // A NaN must not hide behind max().
      one.max_difference = std::isnan(difference) ? difference : std::max(one.max_difference, difference);
      one.max_logit = std::max(one.max_logit, std::abs(static_cast<double>(e[i])));
    }
  }
  const auto ids = (scores ? ops::argmax(actual, 1) : actual).to_vector<std::int64_t>(),
             wanted = truth.to_vector<std::int64_t>();
  std::int64_t right = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) right += ids[i] == wanted[i] ? 1 : 0;
  one.images = 1;
  one.pixels = static_cast<std::int64_t>(ids.size());
  one.agreement = std::isnan(one.max_difference) ? 0 : static_cast<double>(right) / static_cast<double>(one.pixels);
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
  if (what.fold) graph = nn::fuse_epilogues(nn::fold_batch_norms(graph));
  const bool map = !models::is_classification(card.spec.name);
  if (map && what.output != ExportOutput::kLogits) graph = nn::resize_output(std::move(graph), resize_mode(card));
  if (what.output == ExportOutput::kIds) graph = nn::argmax_output(std::move(graph));
  if (what.normalise) {
    const auto scaling = datasets::Normalisation::parse(card.normalisation);
    graph = nn::scale_input(graph, {doubles(scaling.scale), doubles(scaling.shift), scaling.bgr});
  }
  write_onnx(path, graph,
             {.opset = what.opset,
              .input = {what.batch, 3, what.height, what.width},
              .dynamic_batch = what.dynamic_batch,
              .dynamic_size = what.dynamic_size,
              .graph_name = card.spec.name,
              .metadata = metadata_of(card, what)});
}

void Proof::add(const Proof& other) {
  const double right = agreement * static_cast<double>(pixels) + other.agreement * static_cast<double>(other.pixels);
  images += other.images;
  pixels += other.pixels;
  max_difference = std::max(max_difference, other.max_difference);
  max_logit = std::max(max_logit, other.max_logit);
  agreement = pixels > 0 ? right / static_cast<double>(pixels) : 1;
}

void Proof::also(const Proof& other) {
  max_difference = std::max(max_difference, other.max_difference);
  max_logit = std::max(max_logit, other.max_logit);
  agreement = std::min(agreement, other.agreement);
  run_by += ", " + other.run_by;
}

Proof prove_onnx(const std::filesystem::path& path, models::Model& model, const ModelCard& card, const OnnxExport& what,
                 std::span<const datasets::Image> images) {
  const NoGradGuard off;
  const OnnxProgram program(path);
  Proof total;
  for (const datasets::Image& image : images) {
    const Tensor expected = eager_scores(model, card, what.output, batch_of(image, card, what, false));
    const Tensor actual = program.run(batch_of(image, card, what, true), {"logits"}).at(0);
    total.add(compare(path, actual, expected));
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
  Proof total;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const Tensor expected = eager_scores(model, card, what.output, batch_of(images[i], card, what, false));
    total.add(compare(path, answer->outputs[i], expected));
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
