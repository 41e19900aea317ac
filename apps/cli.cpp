#include "apps/cli.h"

#include <charconv>

namespace limbeck::apps {

Config load_config(const CommonArgs& args) {
  if (args.config.empty()) {
    fail<ConfigError>("config", "no configuration: give one with -c FILE.yaml (`limbeck init-config` prints ready ones)");
  }
  Config config = Config::load(args.config);
  for (const auto& assignment : args.overrides) config.override_with(assignment);
  return config;
}

std::array<std::int64_t, 2> parse_size(const std::string& text, const char* option) {
  const auto number = [&](std::string_view part) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc{} || end != part.data() + part.size() || value < 1 || value > 65536) {
      fail<ConfigError>(option, "got '{}', expected HEIGHTxWIDTH such as 256x512", text);
    }
    return value;
  };
  const std::string_view all = text;
  const auto x = all.find('x');
  if (x == std::string_view::npos) return {number(all), number(all)};
  return {number(all.substr(0, x)), number(all.substr(x + 1))};
}

}  // namespace limbeck::apps
