// What this is: the bricks of self-contained HTML pages: no script, no network, pictures inside.
// Read next: report.cpp, sweep_table.cpp, verb_visualize.cpp.
#pragma once

#include <string>
#include <string_view>

#include "datasets/dataset.h"

namespace limbeck::apps {

/// `text` with &, <, > and " written as entities.
[[nodiscard]] std::string html_escape(std::string_view text);

/// Head, style and <h1> of a page; close it with html_end().
[[nodiscard]] std::string html_begin(std::string_view title);
[[nodiscard]] std::string html_end();

/// <img> with the bytes of a PNG file inside.
[[nodiscard]] std::string html_png(std::string_view alt, std::string_view png);
[[nodiscard]] std::string html_picture(std::string_view alt, const datasets::Image& image);

}  // namespace limbeck::apps
