// What this is: the likely word behind a typing mistake, for "did you mean ...?".
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace limbeck {

/// Number of single-character insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);
/// The entry of `words` nearest to `word`, or empty when none is close enough to be a likely typing mistake.
[[nodiscard]] std::string nearest_word(std::string_view word, const std::vector<std::string>& words);

}  // namespace limbeck
