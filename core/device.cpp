#include "core/device.h"

#include "core/parse_number.h"

namespace limbeck {

std::string Device::to_string() const {
  switch (type) {
    case DeviceType::kCpu: return "cpu";
    case DeviceType::kMeta: return "meta";
    case DeviceType::kCuda: return fmt::format("cuda:{}", static_cast<int>(index));
  }
  return "?";
}

Device Device::parse(std::string_view text) {
  if (text == "cpu") return kCpu;
  if (text == "meta") return kMeta;
  if (text == "cuda") return {DeviceType::kCuda, 0};
  if (text.starts_with("cuda:")) {
    const auto index = parse_number<int>(text.substr(5));
    if (index && *index >= 0 && *index < 128) return {DeviceType::kCuda, static_cast<std::int8_t>(*index)};
  }
  fail<ConfigError>("device", "unknown device '{}', expected cpu, cuda or cuda:N", text);
}

}  // namespace limbeck
