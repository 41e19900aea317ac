// A folder that lives as long as the test case, and a check of an exception's text.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace limbeck::test {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "limbeck-test-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  /// Names of the entries, sorted and joined with a space; shows files that should not be there.
  [[nodiscard]] std::string list() const;

 private:
  std::filesystem::path path_;
};

inline std::string TempDir::list() const {
  std::string out;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  for (const auto& n : names) out += (out.empty() ? "" : " ") + n;
  return out;
}

/// Runs `action`, which must throw an E whose text contains every one of `parts`.
template <class E, class Action>
void check_throws(const Action& action, std::initializer_list<std::string_view> parts) {
  try {
    action();
    FAIL_CHECK("no exception");
  } catch (const E& e) {
    const std::string_view text = e.what();
    for (const auto part : parts)
      CHECK_MESSAGE(text.find(part) != std::string_view::npos, "'", part, "' not in: ", text);
  } catch (const std::exception& e) {
    FAIL_CHECK("exception of another type: ", e.what());
  }
}

}  // namespace limbeck::test
