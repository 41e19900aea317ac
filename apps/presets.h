// What this is: the configurations of apps/configs/, embedded by apps/CMakeLists.txt.
#pragma once

#include <span>
#include <string_view>

namespace limbeck::apps {

struct Preset {
  std::string_view name;  ///< "scenes/teacher"
  std::string_view text;  ///< the YAML file
};

[[nodiscard]] std::span<const Preset> presets();

}  // namespace limbeck::apps
