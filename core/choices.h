// What this is: what has been found by timing: which of several ways of computing the same is the fastest on a device. They
//   give results that differ in the last bits, so what was chosen once is kept with a checkpoint, and a run that is resumed
//   goes on with it.
// What it is not: the ways themselves; core/cuda/cudnn_convolution_plan.h has some.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace limbeck::choices {

/// True if nothing may be timed: then the first of the ways that a library proposes is taken, the same in every run.
/// LIMBECK_CUDNN=ranked or timed decides before what set_ranked() has said.
/// Throws: ConfigError for another value there.
[[nodiscard]] bool ranked();
void set_ranked(bool wanted) noexcept;

/// What was chosen for `key`, which names device, library and problem in one line.
[[nodiscard]] std::optional<std::int64_t> find(const std::string& key);
void remember(const std::string& key, std::int64_t choice);

/// All of them, a line each, in the order of their keys; empty if there are none.
[[nodiscard]] std::string to_text();
/// Takes what to_text() wrote. Of two choices for one key the one that is there stays: plans have been made with it.
/// Throws: DataError for a line that is none.
void adopt(const std::string& text);

}  // namespace limbeck::choices
