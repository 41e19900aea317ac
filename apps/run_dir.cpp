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

/// False, too, for a folder that cannot be looked into: making it says why.
bool holds_run(const fs::path& path) {
  std::error_code error;
  return fs::exists(path / "config.yaml", error) ||
         (fs::is_directory(path, error) && !nn::list_checkpoints(path).empty());
}

}  // namespace

void require_new_run_dir(const fs::path& path) {
  if (!holds_run(path)) return;
  fail<ConfigError>(
      "run", "{} already holds a run; continue it with --resume, replace it with --force, or choose another --out",
      path.string());
}

void create_run_dir(const fs::path& path, bool force) {
  std::error_code error;
  if (!force) require_new_run_dir(path);
  if (holds_run(path)) {
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
