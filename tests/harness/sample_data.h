// Where the optional real data lies: $LIMBECK_DATA, or ../shared/data next to the project. Tests that need it are
// skipped with a message when it is absent.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>

namespace limbeck::test {

/// The path of `name` inside the data folder, if it exists.
[[nodiscard]] inline std::optional<std::filesystem::path> sample_data(std::string_view name) {
  const char* set = std::getenv("LIMBECK_DATA");
  const std::filesystem::path root = set != nullptr && *set != '\0'
                                         ? std::filesystem::path(set)
                                         : std::filesystem::path(__FILE__).parent_path() / "../../../shared/data";
  const std::filesystem::path path = root / name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

}  // namespace limbeck::test
