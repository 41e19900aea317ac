#include "apps/cli.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "apps/inference.h"
#include "core/cuda.h"
#include "core/device.h"
#include "core/log.h"
#include "core/parse_number.h"
#include "datasets/image_io.h"

namespace limbeck::apps {

namespace {

/// A run's length is given as steps or as epochs. One of them on the command line replaces the other one of the file, also
/// below a stage (stages.teacher.train.steps); both on the command line stay, and the settings refuse them.
void replace_length(Config& config, const std::vector<std::string>& overrides) {
  const auto given = [&](const std::string& key) {
    return std::any_of(overrides.begin(), overrides.end(),
                       [&](const std::string& text) { return text.starts_with(key + '='); });
  };
  for (const std::string& text : overrides) {
    const std::string key = text.substr(0, text.find('='));
    for (const auto& [mine, other] :
         {std::pair{"train.steps", "train.epochs"}, std::pair{"train.epochs", "train.steps"}}) {
      if (!key.ends_with(mine)) continue;
      const std::string replaced = key.substr(0, key.size() - std::string_view(mine).size()) + other;
      if (!given(replaced)) config.override_with(replaced + "=null");
    }
  }
}

}  // namespace

Config load_config(const CommonArgs& args) {
  if (args.config.empty()) {
    fail<ConfigError>("config",
                      "no configuration: give one with -c FILE.yaml (`limbeck init-config` prints ready ones)");
  }
  Config config = Config::load(args.config);
  apply_overrides(config, args.overrides);
  return config;
}

Config stored_config(const CommonArgs& args, const std::string& model) {
  if (!args.config.empty()) return load_config(args);
  namespace fs = std::filesystem;
  fs::path folder = model;
  if (!fs::exists(folder)) fail<WeightsError>("weights", "{} does not exist", model);
  if (!fs::is_directory(folder)) folder = folder.parent_path();
  for (const fs::path& candidate : {folder / "config.yaml", folder.parent_path() / "config.yaml"}) {
    if (fs::exists(candidate)) {
      CommonArgs stored = args;
      stored.config = candidate.string();
      return load_config(stored);
    }
  }
  fail<ConfigError>("config", "no data set: {} is not inside a run folder, so give a configuration with -c", model);
}

void apply_overrides(Config& config, const std::vector<std::string>& overrides) {
  for (const auto& assignment : overrides) config.override_with(assignment);
  replace_length(config, overrides);
}

std::vector<std::filesystem::path> image_files(const std::vector<std::string>& arguments, const char* verb) {
  std::vector<std::filesystem::path> files;
  for (const auto& a : arguments) {
    std::error_code unreadable;  // is said when the file is read
    if (std::filesystem::is_directory(a, unreadable)) {
      const auto inside = datasets::list_images(a);
      if (inside.empty()) fail<DataError>(verb, "the folder {} holds no .png, .jpg or .jpeg file", a);
      files.insert(files.end(), inside.begin(), inside.end());
    } else {
      files.emplace_back(a);
    }
  }
  return files;
}

void fail_unreadable(const char* verb, std::uint64_t unreadable, std::uint64_t all) {
  fail<DataError>(verb, "{} of {} could not be read, see above", unreadable, format_count(all, "picture"));
}

std::array<std::int64_t, 2> parse_size(const std::string& text, const char* option, const char* expected) {
  const auto number = [&](std::string_view part) {
    const auto value = parse_number<std::int64_t>(part);
    if (!value || *value < 1 || *value > 65536) fail<ConfigError>(option, "got '{}', expected {}", text, expected);
    return *value;
  };
  const std::string_view all = text;
  const auto x = all.find('x');
  if (x == std::string_view::npos) return {number(all), number(all)};
  return {number(all.substr(0, x)), number(all.substr(x + 1))};
}

void read_protocol(const ProtocolArgs& args, InferenceOptions& options) {
  options.flip = args.flip;
  const std::string& scales = args.scales;
  const std::string& tile = args.tile;
  const std::int64_t overlap = args.overlap;
  if (!scales.empty()) options.scales.clear();
  for (std::size_t begin = 0; begin < scales.size();) {
    const std::size_t end = std::min(scales.find(',', begin), scales.size());
    const auto value = parse_number<double>(std::string_view(scales).substr(begin, end - begin));
    if (!value || !(*value >= 0.05 && *value <= 20)) {
      fail<ConfigError>("--scales", "got '{}', expected factors from 0.05 to 20 such as 0.75,1,1.25", scales);
    }
    options.scales.push_back(*value);
    begin = end + 1;
  }
  if (!tile.empty()) {
    const auto size = parse_size(tile, "--tile");
    options.tile_h = size[0];
    options.tile_w = size[1];
    options.overlap = overlap < 0 ? std::min(size[0], size[1]) / 4 : overlap;
    if (options.overlap >= std::min(size[0], size[1])) {
      fail<ConfigError>("--overlap", "{} pixels, expected less than a side of the tile, {}", options.overlap, tile);
    }
  } else if (overlap >= 0) {
    fail<ConfigError>("--overlap", "there are no tiles to overlap; give --tile HxW");
  }
}

Device open_device(const std::string& text) {
  const Device device = Device::parse(text);
  if (device.is_cuda()) cuda::activate(device, "device");
  return device;
}

}  // namespace limbeck::apps
