// What this is: the data set of a configuration for verbs that read nothing else of it: eval, check-data, visualize.
// Read next: settings.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/settings.h"

namespace limbeck::apps {

/// As read_data, and what would have no effect is an error: keys of the section `data` that nobody knows, and assignments of the
/// command line to other sections, except the keys in `also`.
[[nodiscard]] DataSettings read_data_part(const Config& config, const std::vector<std::string>& overrides,
                                          const std::vector<std::string_view>& also = {});

}  // namespace limbeck::apps
