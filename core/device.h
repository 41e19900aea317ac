// What this is: where a tensor's bytes live.
// Read next: core/dispatch.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"

namespace limbeck {

enum class DeviceType : std::uint8_t {
  kCpu,
  kCuda,
  kMeta  ///< shapes only: no bytes, kernels do not run; used by `limbeck summary` and memory planning
};

struct Device {
  DeviceType type = DeviceType::kCpu;
  std::int8_t index = 0;

  [[nodiscard]] bool is_cpu() const noexcept { return type == DeviceType::kCpu; }
  [[nodiscard]] bool is_cuda() const noexcept { return type == DeviceType::kCuda; }
  [[nodiscard]] bool is_meta() const noexcept { return type == DeviceType::kMeta; }
  friend bool operator==(const Device&, const Device&) = default;
  /// "cpu", "cuda:0", "meta"
  [[nodiscard]] std::string to_string() const;
  /// Reads "cpu", "meta", "cuda" or "cuda:N"; throws ConfigError otherwise.
  [[nodiscard]] static Device parse(std::string_view text);
};

inline constexpr Device kCpu{DeviceType::kCpu, 0};
inline constexpr Device kMeta{DeviceType::kMeta, 0};

}  // namespace limbeck
