// What this is: the one question that texts from files need answered: are these bytes UTF-8?
// Read next: core/json.cpp and core/config_tree.cpp, which ask it.
#pragma once

#include <cstddef>
#include <string_view>

namespace limbeck {

/// Bytes (1 to 4) of the UTF-8 character that `s` begins with; 0 if `s` is empty or begins with none. Overlong forms, surrogates
/// and code points above U+10FFFF are none.
[[nodiscard]] std::size_t utf8_length(std::string_view s);

}  // namespace limbeck
