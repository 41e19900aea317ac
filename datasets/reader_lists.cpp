// List files and folder pairing: what all readers share.
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "core/error.h"
#include "datasets/image_io.h"
#include "datasets/readers.h"

namespace limbeck::datasets {

namespace fs = std::filesystem;

std::vector<std::string> split_parts(const std::string& split) {
  std::vector<std::string> parts(1);
  for (const char c : split) {
    if (c == '+') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (std::any_of(parts.begin(), parts.end(), [](const auto& p) { return p.empty(); })) {
    fail<ConfigError>("data", "split '{}' has an empty part, expected e.g. 'train' or 'train+val'", split);
  }
  return parts;
}

namespace {

bool contains(const std::string& text, char c) { return text.find(c) != std::string::npos; }

}  // namespace

std::vector<ListLine> read_list(const fs::path& path) {
  std::ifstream in(path);
  if (!in || fs::is_directory(path)) fail<DataError>("list", "{}: the list file cannot be opened", path.string());
  std::vector<ListLine> lines;
  int number = 0;
  for (std::string text; std::getline(in, text);) {
    if (++number == 1 && text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // byte order mark of Windows editors
    while (!text.empty() && (text.back() == '\r' || text.back() == ' ' || text.back() == '\t')) text.pop_back();
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string::npos || text[first] == '#') continue;
    text.erase(0, first);
    std::replace(text.begin(), text.end(), '\\', '/');
    ListLine line{number, {}};
    const char separator = contains(text, '\t') ? '\t' : contains(text, ',') ? ',' : ' ';
    std::stringstream stream(text);
    for (std::string field; std::getline(stream, field, separator);) {
      if (!field.empty()) line.fields.push_back(field);
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

namespace {

std::optional<fs::path> existing(const fs::path& path, bool is_image) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return path;
  if (!is_image) return std::nullopt;
  for (const char* suffix : {".jpg", ".png", ".jpeg", ".JPG"}) {
    fs::path other = path;
    other.replace_extension(suffix);
    if (fs::is_regular_file(other, ignored)) return other;
  }
  return std::nullopt;
}

/// Name of `file` relative to `folder` without `suffix`; nothing if it does not end in it.
std::optional<std::string> stem_of(const fs::path& file, const fs::path& folder, const std::string& suffix) {
  std::string name = file.lexically_relative(folder).generic_string();
  if (suffix.empty()) return name.substr(0, name.size() - file.extension().string().size());
  if (!name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

}  // namespace

std::optional<fs::path> resolve_listed(const fs::path& root, const std::string& listed, bool is_image) {
  const fs::path path(listed);
  if (path.is_absolute()) {
    if (auto found = existing(path, is_image)) return found;
  }
  std::vector<fs::path> components;
  for (const auto& c : path.relative_path()) components.push_back(c);
  for (std::size_t skip = 0; skip < components.size(); ++skip) {
    fs::path candidate = root;
    for (std::size_t i = skip; i < components.size(); ++i) candidate /= components[i];
    if (auto found = existing(candidate, is_image)) return found;
  }
  return std::nullopt;
}

void add_pair(Pair pair, Source& source) {
  std::error_code ignored;
  if (!fs::is_regular_file(pair.image, ignored)) {
    source.missing.push_back(fmt::format("image {} is missing (mask {})", pair.image.string(), pair.label.string()));
  } else if (!fs::is_regular_file(pair.label, ignored)) {
    source.missing.push_back(fmt::format("mask {} is missing (image {})", pair.label.string(), pair.image.string()));
  } else {
    source.pairs.push_back(std::move(pair));
  }
}

void add_listed_pairs(const fs::path& list, const fs::path& root, Source& source) {
  for (const auto& line : read_list(list)) {
    if (line.fields.size() != 2) {
      fail<DataError>("list", "{}:{}: {} fields, expected `image mask`; separate them by a tab if names contain spaces",
                      list.string(), line.number, line.fields.size());
    }
    const auto image = resolve_listed(root, line.fields[0], true);
    const auto label = resolve_listed(root, line.fields[1], false);
    if (!image || !label) {
      const char* what = image ? "mask" : "image";
      source.missing.push_back(
          fmt::format("{}:{}: {} {} is missing", list.string(), line.number, what, line.fields[image ? 1 : 0]));
      continue;
    }
    source.pairs.push_back({image->stem().string(), *image, *label});
  }
}

void add_folder_pairs(const fs::path& images, const fs::path& labels, const std::string& image_suffix,
                      const std::string& label_suffix, Source& source) {
  std::map<std::string, fs::path> masks;
  std::set<std::string> named;  // masks that belong to an image; the rest lost theirs
  for (const auto& file : list_images(labels)) {
    if (const auto stem = stem_of(file, labels, label_suffix)) masks.emplace(*stem, file);
  }
  for (const auto& file : list_images(images)) {
    const auto stem = stem_of(file, images, image_suffix);
    if (!stem) continue;
    const auto mask = masks.find(*stem);
    if (mask == masks.end()) {
      source.missing.push_back(fmt::format("mask {} is missing (image {})",
                                           (labels / (*stem + (label_suffix.empty() ? ".png" : label_suffix))).string(),
                                           file.string()));
      continue;
    }
    named.insert(*stem);
    source.pairs.push_back({*stem, file, mask->second});
  }
  for (const auto& [stem, file] : masks) {
    if (!named.contains(stem)) {
      source.missing.push_back(fmt::format("image for mask {} is missing in {}", file.string(), images.string()));
    }
  }
}

fs::path first_folder(const std::string& where, const std::vector<fs::path>& candidates) {
  std::string tried;
  for (const auto& c : candidates) {
    if (fs::is_directory(c)) return c;
    tried += (tried.empty() ? "" : ", ") + c.string();
  }
  fail<DataError>(where, "none of these folders exists: {}; check `root` and the name of the split", tried);
}

}  // namespace limbeck::datasets
