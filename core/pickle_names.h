// What this is: everything that a pickle may name. A name that is not in this table is refused, whatever it is.
// What it is not: names to run. The reader (core/pickle.cpp) knows what to put in the place of each.
// Read next: core/pickle.h, Note [hostile pickles].
#pragma once

#include <cstdint>
#include <string_view>

namespace limbeck {

/// What stands in the place of a call.
enum class PickleCall : std::uint8_t {
  kNone,     ///< it is not called: a value of torch that appears in metadata, with which nothing is done
  kStorage,  ///< not called either: only ever an argument of a persistent id
  kDict,
  kTensor,
  kParameter,
  kFirstArgument
};

struct PickleName {
  std::string_view name;  ///< "module name"
  PickleCall call;
};

/// The entry of the table, or null. Its text outlives every document.
[[nodiscard]] const PickleName* find_pickle_name(std::string_view name) noexcept;

}  // namespace limbeck
