// The verb `init-config`: the presets of apps/configs/, compiled into the program.
#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>

#include "apps/cli.h"
#include "apps/presets.h"
#include "core/config.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/nearest_word.h"

namespace limbeck::apps {

namespace {

/// The first sentence of the comment that a preset begins with.
std::string first_sentence(std::string_view text) {
  std::string comment;
  while (text.starts_with("# ")) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    comment += std::string(comment.empty() ? "" : " ") + std::string(text.substr(2, end - 2));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return comment.substr(0, comment.find(". "));
}

}  // namespace

int run_init_config(const InitConfigArgs& args) {
  std::vector<std::string> names;
  for (const auto& preset : presets()) names.emplace_back(preset.name);
  if (args.preset.empty()) {
    for (const auto& preset : presets()) fmt::print("{:<44} {}\n", preset.name, first_sentence(preset.text));
    return 0;
  }
  for (const auto& preset : presets()) {
    if (args.preset != preset.name) continue;
    if (args.out.empty()) {
      fmt::print("{}", preset.text);
    } else {
      if (std::filesystem::exists(args.out))
        fail<ConfigError>("init-config", "{} exists; choose another --out", args.out);
      write_file_atomic(args.out, preset.text);
      log_info("wrote {}", args.out);
    }
    return 0;
  }
  const std::string near = nearest_word(args.preset, names);
  fail<ConfigError>("init-config", "unknown preset '{}'{}; presets: {}", args.preset,
                    near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", "));
}

}  // namespace limbeck::apps
