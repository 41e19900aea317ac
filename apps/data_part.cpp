#include "apps/data_part.h"

#include <algorithm>

namespace limbeck::apps {

DataSettings read_data_part(const Config& config, const std::vector<std::string>& overrides,
                            const std::vector<std::string_view>& also) {
  for (const std::string_view assignment : overrides) {
    const std::string_view key = assignment.substr(0, assignment.find('='));
    if (key == "data" || key.starts_with("data.") || std::find(also.begin(), also.end(), key) != also.end()) continue;
    throw ConfigError(fmt::format("command line '{}': '{}' has no effect here; expected a key of data{}{}", assignment,
                                  key, also.empty() ? "" : " or ", fmt::join(also, ", ")));
  }
  const std::vector<std::string> keys = config.keys();
  std::vector<std::string_view> others(keys.begin(), keys.end());
  std::erase(others, "data");
  const Config part = config.copy(others);
  DataSettings data = read_data(part);
  part.check_all_used();
  return data;
}

}  // namespace limbeck::apps
