#include "core/choices.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <string_view>

#include "core/error.h"
#include "core/parse_number.h"

namespace limbeck::choices {
namespace {

std::mutex mutex;
bool ranked_wanted = false;

std::map<std::string, std::int64_t>& table() {
  static auto* all = new std::map<std::string, std::int64_t>;
  return *all;
}

}  // namespace

bool ranked() {
  if (const char* value = std::getenv("LIMBECK_CUDNN")) {
    const std::string_view word = value;
    if (word != "ranked" && word != "timed")
      fail<ConfigError>("LIMBECK_CUDNN", "is '{}', expected ranked or timed", word);
    return word == "ranked";
  }
  const std::lock_guard lock(mutex);
  return ranked_wanted;
}

void set_ranked(bool wanted) noexcept {
  const std::lock_guard lock(mutex);
  ranked_wanted = wanted;
}

std::optional<std::int64_t> find(const std::string& key) {
  const std::lock_guard lock(mutex);
  const auto found = table().find(key);
  return found == table().end() ? std::nullopt : std::optional(found->second);
}

void remember(const std::string& key, std::int64_t choice) {
  const std::lock_guard lock(mutex);
  table()[key] = choice;
}

std::string to_text() {
  const std::lock_guard lock(mutex);
  std::string text;
  for (const auto& [key, choice] : table()) text += fmt::format("{}\t{}\n", key, choice);
  return text;
}

void adopt(const std::string& text) {
  std::istringstream lines(text);
  std::map<std::string, std::int64_t> given;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t tab = line.rfind('\t');
    const auto choice =
        tab == std::string::npos ? std::nullopt : parse_number<std::int64_t>(std::string_view(line).substr(tab + 1));
    if (!choice) fail<DataError>("choices", "got the line '{}', expected a key, a tab and a number", line);
    given.emplace(line.substr(0, tab), *choice);
  }
  const std::lock_guard lock(mutex);
  table().merge(given);
}

}  // namespace limbeck::choices
