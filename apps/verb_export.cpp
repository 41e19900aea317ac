// The verb `export`: a trained network as a file for other programs, and the proof that the file computes what the network does.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>

#include "apps/cli.h"
#include "apps/export.h"
#include "apps/model_io.h"
#include "core/file_io.h"
#include "core/json.h"
#include "core/log.h"
#include "datasets/image_io.h"
#include "datasets/resample.h"
#include "datasets/scenes.h"
#include "models/weights.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

/// Pictures of one size: the given ones, or generated scenes.
std::vector<datasets::Image> sample_images(const ExportArgs& args, std::int64_t h, std::int64_t w) {
  std::vector<datasets::Image> images;
  for (const auto& file : args.samples) images.push_back(datasets::resize(datasets::read_image(file), h, w));
  const datasets::SceneOptions scene{.seed = 1,
                                     .split = "export",
                                     .height = std::clamp<std::int64_t>(h, 16, 4096),
                                     .width = std::clamp<std::int64_t>(w, 16, 4096)};
  for (std::uint64_t k = 0; args.samples.empty() && k < 4; ++k) {
    images.push_back(datasets::resize(datasets::make_scene(scene, k).image, h, w));
  }
  return images;
}

/// The file against the network: run by limbeck's kernels, and by ONNX Runtime unless that is absent (then `absent` says why) or not
/// wanted.
Proof prove(const ExportArgs& args, const fs::path& file, const LoadedModel& loaded, const OnnxExport& what,
            std::string& absent) {
  Proof total;
  std::vector<std::array<std::int64_t, 2>> sizes{{what.height, what.width}};
  if (args.dynamic_size)
    sizes.push_back({what.height + 24, what.width + 40});  // the arithmetic of sizes inside the file
  std::optional<Proof> runtime = Proof{};
  for (const auto& [h, w] : sizes) {
    const auto images = sample_images(args, h, w);
    total.add(prove_onnx(file, *loaded.model, loaded.card, what, images));
    if (args.runtime == "limbeck" || !runtime) continue;
    const auto one = prove_in_onnx_runtime(file, *loaded.model, loaded.card, what, images, absent);
    if (one) {
      runtime->add(*one);
      runtime->run_by = one->run_by;
    } else {
      runtime.reset();
    }
  }
  if (runtime && runtime->pixels > 0) total.also(*runtime);
  if (!runtime && args.runtime == "onnxruntime") {
    fail<ConfigError>("export", "--runtime onnxruntime: {}; set LIMBECK_PYTHON to a Python with numpy and onnxruntime",
                      absent);
  }
  return total;
}

std::string proof_json(const ExportArgs& args, const OnnxExport& what, const Proof& proof) {
  return JsonObject()
      .add("file", fs::path(args.out).filename().string())
      .add("model", args.model)
      .add("opset", args.opset)
      .add("batch_norm", args.keep_batch_norm ? "kept" : "folded")
      .add("output", to_string(what.output))
      .add("run_by", proof.run_by)
      .add("samples",
           args.samples.empty() ? std::string("generated scenes") : fmt::format("{} files", args.samples.size()))
      .add("images", proof.images)
      .add("pixels", proof.pixels)
      .add("max_difference", proof.max_difference)
      .add("max_logit", proof.max_logit)
      .add("argmax_agreement", proof.agreement)
      .add("required_agreement", kRequiredAgreement)
      .add("allowed_difference", kAllowedDifference * proof.max_logit)
      .add("passed", proof.passed())
      .str();
}

int export_onnx(const ExportArgs& args, const LoadedModel& loaded) {
  const auto size = parse_size(args.size, "export --size");
  if (args.runtime != "auto" && args.runtime != "onnxruntime" && args.runtime != "limbeck") {
    fail<ConfigError>("export", "--runtime {}, expected auto, onnxruntime or limbeck", args.runtime);
  }
  if (args.batch < 1) fail<ConfigError>("export", "--batch {}, expected at least 1", args.batch);
  OnnxExport what{.opset = args.opset,
                  .fold = !args.keep_batch_norm,
                  .batch = args.batch,
                  .height = size[0],
                  .width = size[1],
                  .dynamic_batch = args.dynamic_batch,
                  .dynamic_size = args.dynamic_size,
                  .normalise = args.normalise,
                  .output = parse_output(args.output, loaded.card.spec)};
  what.metadata["source"] = loaded.file.string();
  // Under a temporary name until it has been proved.
  const fs::path file = args.out, unproved = args.out + ".unproved";
  export_onnx(unproved, *loaded.model, loaded.card, what);
  Proof proof;
  std::string absent;
  try {
    proof = prove(args, unproved, loaded, what, absent);
  } catch (...) {
    fs::remove(unproved);
    throw;
  }
  const std::string json = proof_json(args, what, proof);
  write_file_atomic(args.out + ".json", json + "\n");
  if (!proof.passed()) {
    fs::remove(unproved);
    fail("export",
         "{}: run by {}, the file agrees with the network on {:.4f} % of the pixels, expected {} %, and differs by "
         "{:.2e}, expected at "
         "most {:.2e}; the file was removed, the numbers are in {}.json",
         args.out, proof.run_by, 100 * proof.agreement, 100 * kRequiredAgreement, proof.max_difference,
         kAllowedDifference * proof.max_logit, args.out);
  }
  fs::rename(unproved, file);
  if (args.json) {
    fmt::print("{}\n", json);
  } else {
    fmt::print("{}: opset {}, batch norm {}, output {}\n", args.out, args.opset,
               args.keep_batch_norm ? "kept" : "folded", to_string(what.output));
    fmt::print(
        "run by {} on {} images: largest difference {:.2e} (largest logit {:.3g}), argmax agrees on {:.4f} % of {} "
        "pixels\n",
        proof.run_by, proof.images, proof.max_difference, proof.max_logit, 100 * proof.agreement, proof.pixels);
    if (!absent.empty()) fmt::print("not run in ONNX Runtime: {}\n", absent);
  }
  return 0;
}

}  // namespace

int run_export(const ExportArgs& args) {
  if (args.format == "onnx" && !onnx_available()) write_onnx({}, {}, {});  // says what is missing
  if (args.format != "onnx" && args.format != "safetensors" && args.format != "pth-compatible") {
    fail<ConfigError>("export", "--format {}, expected onnx, safetensors or pth-compatible", args.format);
  }
  const LoadedModel loaded = load_model(args.model);
  if (args.format == "onnx") return export_onnx(args, loaded);
  export_weights(args.out, *loaded.model, loaded.card, args.format == "pth-compatible");
  fmt::print("{}: {} tensors of {}\n", args.out, loaded.model->state_dict().size(), loaded.card.spec.name);
  return 0;
}

}  // namespace limbeck::apps
