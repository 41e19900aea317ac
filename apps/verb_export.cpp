// The verb `export`: a trained network as a file for other programs, and the proof that the file computes what the network does.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

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

/// What --format says, or else the name of the file; both must agree.
std::string format_of(const ExportArgs& args) {
  constexpr std::array<std::pair<const char*, const char*>, 4> kFormats{
      {{".onnx", "onnx"}, {".safetensors", "safetensors"}, {".pth", "pth-compatible"}, {".pt", "pth-compatible"}}};
  const auto known = [&](const std::string& format) {
    return std::any_of(kFormats.begin(), kFormats.end(), [&](const auto& f) { return format == f.second; });
  };
  if (!args.format.empty() && !known(args.format))
    fail<ConfigError>("export", "--format {}, expected onnx, safetensors or pth-compatible", args.format);
  const std::string suffix = fs::path(args.out).extension().string();
  const auto named = std::find_if(kFormats.begin(), kFormats.end(), [&](const auto& f) { return suffix == f.first; });
  if (named == kFormats.end()) {
    if (args.format.empty())
      fail<ConfigError>("export", "--out {} ends with none of .onnx, .safetensors and .pth; give --format", args.out);
    return args.format;
  }
  if (!args.format.empty() && args.format != named->second)
    fail<ConfigError>("export", "--out {} is the name of a file of format {}, but --format is {}", args.out,
                      named->second, args.format);
  return named->second;
}

/// Pictures of one size: the given ones, or generated scenes.
std::vector<datasets::Image> sample_images(const ExportArgs& args, std::int64_t h, std::int64_t w) {
  std::vector<datasets::Image> images;
  for (const auto& file : image_files(args.samples, "export"))
    images.push_back(datasets::resize(datasets::read_photo(file), h, w));
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
  JsonObject o;
  o.add("file", fs::path(args.out).filename().string())
      .add("model", args.model)
      .add("opset", args.opset)
      .add("precision", args.precision)
      .add("batch_norm", args.keep_batch_norm ? "kept" : "folded")
      .add("output", to_string(what.output))
      .add("run_by", proof.run_by)
      .add("samples",
           args.samples.empty() ? std::string("generated scenes") : fmt::format("{}", fmt::join(args.samples, " ")))
      .add("images", proof.images)
      .add("pixels", proof.pixels)
      .add("max_difference", proof.max_difference)
      .add("max_logit", proof.max_logit)
      .add("argmax_agreement", proof.agreement)
      .add("required_agreement", proof.required_agreement());
  if (proof.int8) {
    o.add("difference_share", proof.share_of_int8()).add("allowed_share", kAllowedOfInt8);
  } else {
    o.add("allowed_difference", kAllowedDifference * proof.max_logit);
  }
  return o.add("passed", proof.passed()).str();
}

/// How far the file is from what it should compute, and how far it may be.
std::string distance_of(const Proof& proof) {
  if (proof.int8) {
    return fmt::format("differs by {:.0f} % of what 8 bits change, expected at most {:.0f} %",
                       100 * proof.share_of_int8(), 100 * kAllowedOfInt8);
  }
  return fmt::format("differs by {:.2e}, expected at most {:.2e}", proof.max_difference,
                     kAllowedDifference * proof.max_logit);
}

/// A file under a temporary name, which disappears unless it has been proved.
class Unproved {
 public:
  explicit Unproved(fs::path final) : final_(std::move(final)), path_(final_.string() + ".unproved") {
    if (fs::exists(final_) && !fs::is_regular_file(final_))
      fail("export", "cannot write {}: it exists and is not a regular file", final_.string());
  }
  Unproved(const Unproved&) = delete;
  Unproved& operator=(const Unproved&) = delete;
  ~Unproved() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const noexcept { return path_; }
  void accept() { fs::rename(path_, final_); }

 private:
  fs::path final_, path_;
};

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
  if (args.precision == "int8") {
    what.ranges = &int8_ranges(loaded);
    what.filters = loaded.bytes ? &*loaded.bytes : nullptr;
  }
  what.metadata["source"] = loaded.file.string();
  what.metadata["source_crc32c"] = fmt::format("{:08x}", crc32c_of_file(loaded.file));
  if (!loaded.imported_from.empty()) what.metadata["imported_from"] = loaded.imported_from;
  Unproved file(args.out);
  export_onnx(file.path(), *loaded.model, loaded.card, what);
  std::string absent;
  const Proof proof = prove(args, file.path(), loaded, what, absent);
  if (!proof.passed()) {
    fail("export",
         "{}: run by {}, the file agrees with the network on {:.4f} % of the pixels, expected {:.6g} %, and {}; "
         "nothing was written",
         args.out, proof.run_by, 100 * proof.agreement, 100 * proof.required_agreement(), distance_of(proof));
  }
  file.accept();
  const std::string json = proof_json(args, what, proof);
  write_file_atomic(args.out + ".json", json + "\n");
  if (args.json) {
    fmt::print("{}\n", json);
  } else {
    fmt::print("{}: opset {}, {}, batch norm {}, output {}\n", args.out, args.opset, args.precision,
               args.keep_batch_norm ? "kept" : "folded", to_string(what.output));
    fmt::print(
        "run by {} on {}: largest difference {:.2e} (largest logit {:.3g}), argmax agrees on {:.4f} % of {} "
        "pixels\n",
        proof.run_by, format_count(proof.images, "image"), proof.max_difference, proof.max_logit, 100 * proof.agreement,
        proof.pixels);
    if (proof.int8) {
      fmt::print("compared with the network in 8 bits: it {}\n", distance_of(proof));
    }
    if (!absent.empty()) fmt::print("not run in ONNX Runtime: {}\n", absent);
  }
  return 0;
}

}  // namespace

int run_export(const ExportArgs& args) {
  const std::string format = format_of(args);
  if (format == "onnx" && !onnx_available()) write_onnx({}, {}, {});  // says what is missing
  const bool int8 = args.precision == "int8";
  if (!int8 && args.precision != "f32")
    fail<ConfigError>("export", "--precision {}, expected f32 or int8", args.precision);
  if (int8 && format != "onnx")
    fail<ConfigError>("export", "--precision int8: only ONNX files hold 8 bits, not {}", format);
  const LoadedModel loaded = load_model(args.model);
  if (loaded.ranges && !int8) {
    log_warn("{}: the ranges for 8 bits are not exported{}; {} computes in f32{}", loaded.file.string(),
             format == "onnx" ? " (--precision int8 does)" : "", args.out,
             loaded.bytes ? ", with weights that were rounded to 8 bits" : "");
  }
  if (format == "onnx") return export_onnx(args, loaded);
  export_weights(args.out, *loaded.model, loaded.card, format == "pth-compatible");
  fmt::print("{}: {} tensors of {}\n", args.out, loaded.model->state_dict().size(), loaded.card.spec.name);
  return 0;
}

}  // namespace limbeck::apps
