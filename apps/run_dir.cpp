#include "apps/run_dir.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "core/onednn/compat.h"
#include "core/parallel.h"
#include "nn/checkpoint.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

}  // namespace

void create_run_dir(const fs::path& path, bool force) {
  std::error_code error;
  const bool used = fs::exists(path / "config.yaml") || !nn::list_checkpoints(path).empty();
  if (used && !force) {
    fail<ConfigError>(
        "run", "{} already holds a run; continue it with --resume, replace it with --force, or choose another --out",
        path.string());
  }
  if (used) {
    // Only what a run writes is removed: the folder may hold files of the user's own.
    for (const auto& step : nn::list_checkpoints(path)) fs::remove_all(step);
    for (const char* name : {"best", "pictures"}) fs::remove_all(path / name);
    for (const char* name : {"config.yaml", "run.json", "metrics.jsonl", "report.html"}) fs::remove(path / name);
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().filename().string().starts_with("events.out.tfevents.")) fs::remove(entry.path());
    }
  }
  fs::create_directories(path, error);
  if (error) fail("run", "cannot create the folder {}: {}", path.string(), error.message());
  // Fail now rather than after an hour of training.
  write_file_atomic(path / ".writable", "");
  fs::remove(path / ".writable");
}

fs::path find_weights(const fs::path& model) {
  if (fs::is_regular_file(model)) return model;
  if (!fs::exists(model)) fail<WeightsError>("weights", "{} does not exist", model.string());
  for (const fs::path& candidate : {model / "model.safetensors", model / "best" / "model.safetensors"}) {
    if (fs::is_regular_file(candidate)) return candidate;
  }
  if (const auto step = nn::latest_checkpoint(model)) return *step / "model.safetensors";
  fail<WeightsError>("weights", "{} holds no checkpoint (looked for model.safetensors, best/, step_N/)",
                     model.string());
}

std::string environment_json() {
  const dnnl_version_t* dnnl = dnnl_version();
  return JsonObject()
      .add("limbeck", LIMBECK_VERSION)
      .add("compiler", __VERSION__)
      .add("onednn", fmt::format("{}.{}.{}", dnnl->major, dnnl->minor, dnnl->patch))
      .add("threads", max_threads())
      .str();
}

}  // namespace limbeck::apps
