// What this is: joining strings for messages. (fmt::join sets off a false -Wstringop-overflow in g++ 12.)
#pragma once

#include <string>
#include <vector>

namespace limbeck::datasets {

[[nodiscard]] inline std::string join(const std::vector<std::string>& parts, const char* between) {
  std::string out;
  for (const auto& part : parts) {
    if (!out.empty()) out += between;
    out += part;
  }
  return out;
}

}  // namespace limbeck::datasets
