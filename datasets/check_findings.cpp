// The rules: from the records of the scan to findings with a fix. Each rule answers a question that users of
// segmentation code ask again and again, see README.md.
#include <algorithm>
#include <set>
#include <unordered_map>

#include "core/error.h"
#include "core/log.h"
#include "datasets/check_scan.h"
#include "datasets/palettes.h"
#include "datasets/text.h"

namespace limbeck::datasets {
namespace {

constexpr std::size_t kShown = 5;  // examples per finding

/// "12 (first: a; b; c)"
std::string with_examples(const std::string& what, const std::vector<std::string>& places) {
  const std::vector<std::string> shown(places.begin(),
                                       places.begin() + static_cast<std::ptrdiff_t>(std::min(places.size(), kShown)));
  return fmt::format("{} {}{}: {}", places.size(), what, places.size() > kShown ? ", the first" : "",
                     join(shown, "; "));
}

void add_if_any(const std::vector<std::string>& places, const char* code, const std::string& split, const char* what,
                const char* fix, std::vector<Finding>& findings) {
  if (!places.empty()) findings.push_back({true, code, split, with_examples(what, places), fix});
}

// --- files --------------------------------------------------------------------------------------------------------

void judge_files(const SplitScan& scan, std::vector<Finding>& findings) {
  std::vector<std::string> unreadable;
  std::vector<std::string> sizes;
  std::vector<std::string> colour;
  std::vector<std::string> grey_rgb;
  std::vector<std::string> wide;
  unsigned widest = 0;
  for (const auto& s : scan.samples) {
    if (!s.image_error.empty()) unreadable.push_back(s.image_error);
    if (!s.mask_error.empty()) unreadable.push_back(s.mask_error);
    if (s.h > 0 && s.mask_h > 0 && (s.h != s.mask_h || s.w != s.mask_w)) {
      sizes.push_back(fmt::format("{} is {}x{}, its mask {}x{}", s.image.string(), s.w, s.h, s.mask_w, s.mask_h));
    }
    if (s.colour) (s.colour_is_grey ? grey_rgb : colour).push_back(s.label.string());
    if (s.wide_value) {
      wide.push_back(fmt::format("{} (up to {})", s.label.string(), *s.wide_value));
      widest = std::max(widest, *s.wide_value);
    }
  }
  add_if_any(scan.missing, "missing-file", scan.name, "files are missing",
             "copy them, or take their lines out of the list", findings);
  add_if_any(unreadable, "unreadable", scan.name, "files cannot be read", "copy them again, or re-save them", findings);
  add_if_any(sizes, "size-mismatch", scan.name, "masks have another size than their image",
             "resize with nearest neighbour, or pair the right files", findings);
  add_if_any(colour, "rgb-mask", scan.name, "masks are colour pictures, ids are expected",
             "set `mask_decode: colour` (colours are looked up in `palette`), or convert to 8-bit index PNG", findings);
  add_if_any(grey_rgb, "grey-rgb-mask", scan.name, "masks are grey but saved as RGB",
             "set `mask_decode: first_channel`, or re-save as 8-bit grey PNG", findings);
  add_if_any(wide, "16-bit-mask", scan.name, "masks have 16-bit values beyond 255",
             widest >= 1000 ? "values of 1000 and more look like instance ids (class * 1000 + instance): use the label "
                              "id files"
                            : "convert to 8-bit ids",
             findings);
}

// --- ids ----------------------------------------------------------------------------------------------------------

struct BadId {
  std::uint64_t pixels = 0;
  std::size_t files = 0;
  std::string first;  // file and pixel
};

/// Ids that the label maps do not allow, and all ids that occur at all.
void collect_ids(const SplitScan& scan, std::map<int, BadId>& bad, std::set<int>& present) {
  for (const auto& s : scan.samples) {
    if (!s.has_ids) continue;
    for (int id = 0; id < 256; ++id) {
      const auto k = static_cast<std::size_t>(id);
      if (s.histogram[k] == 0) continue;
      present.insert(id);
      if (scan.maps[s.map].lookup(id)) continue;
      BadId& b = bad[id];
      b.pixels += s.histogram[k];
      if (b.files++ == 0) {
        b.first = fmt::format("{} x={} y={}", s.label.string(), s.first[k] % s.mask_w, s.first[k] / s.mask_w);
      }
    }
  }
}

/// One sentence that explains all bad ids at once, if there is one; else empty.
std::string common_cause(const SplitScan& scan, const std::map<int, BadId>& bad, const std::set<int>& present,
                         std::int64_t classes) {
  const int last = bad.rbegin()->first;
  if (scan.kind == "cityscapes") return "these are not Cityscapes masks: label ids run from 0 to 33";
  if (bad.size() == 1 && last == classes && !present.contains(0)) {
    return fmt::format("ids run from 1 to {}: set `reduce_zero_label: true`, which makes id k class k-1", classes);
  }
  if (scan.kind == "camvid" && last <= 31) {
    return "this looks like the CamVid with 32 classes: get the version with 11 (SegNet), or use kind `folder` with a "
           "`label_map`";
  }
  const bool like_label_ids = classes >= 16 && classes <= 20 && last > 20 && last <= 33 && bad.size() >= 3;
  if (like_label_ids) {
    return "these look like Cityscapes labelIds, not trainIds: use `kind: cityscapes`, or list them in `label_map`";
  }
  if (bad.size() > 30)
    return "so many ids look like grey levels of a picture, not a mask: check which file is the mask";
  return {};
}

void judge_ids(const SplitScan& scan, std::int64_t classes, std::vector<Finding>& findings) {
  std::map<int, BadId> bad;
  std::set<int> present;
  collect_ids(scan, bad, present);
  if (!bad.empty()) {
    const std::string cause = common_cause(scan, bad, present, classes);
    std::vector<std::string> lines;
    for (const auto& [id, b] : bad) {
      lines.push_back(fmt::format("id {} on {} of {}, first {}", id, format_count(b.pixels, "pixel"),
                                  format_count(b.files, "file"), b.first));
    }
    if (!cause.empty()) {
      findings.push_back(
          {true, "bad-id", scan.name,
           fmt::format("{} (expected 0..{}, 255 = ignore)", with_examples("ids are not allowed", lines), classes - 1),
           cause});
    } else {
      std::size_t i = 0;
      for (const auto& [id, b] : bad) {
        findings.push_back({true, "bad-id", scan.name,
                            fmt::format("{} (expected 0..{}, 255 = ignore)", lines[i++], classes - 1),
                            hint_for_bad_id(id, classes)});
      }
    }
  }
  const bool only_0_and_255 = present == std::set<int>{0, 255} || present == std::set<int>{255};
  const bool ignores_255 = !scan.maps.empty() && scan.maps[0].lookup(255) == kIgnoreId;
  if (classes == 2 && only_0_and_255 && ignores_255) {
    findings.push_back(
        {true, "binary-0-255", scan.name,
         "only the ids 0 and 255 occur, and 255 means ignore: class 1 has no pixel and the loss will be 0",
         "set `label_map: {0: 0, 255: 1}`"});
  }
}

// --- balance --------------------------------------------------------------------------------------------------------

void judge_balance(const SplitScan& scan, const SplitReport& report, const ClassInfo& classes,
                   std::vector<Finding>& findings) {
  std::vector<std::string> empty;
  for (const auto& s : scan.samples) {
    if (!s.has_ids) continue;
    std::uint64_t labelled = 0;
    for (int id = 0; id < 256; ++id) {
      if (scan.maps[s.map].lookup(id).value_or(0) != kIgnoreId) labelled += s.histogram[static_cast<std::size_t>(id)];
    }
    if (labelled == 0) empty.push_back(s.label.string());
  }
  if (!empty.empty()) {
    findings.push_back({false, "all-ignored", scan.name, with_examples("masks have no labelled pixel", empty),
                        "harmless, but these samples teach nothing"});
  }
  if (report.pixels == 0) return;
  const double ignored = static_cast<double>(report.ignored) / static_cast<double>(report.pixels);
  if (ignored > 0.3) {
    findings.push_back({false, "much-ignored", scan.name,
                        fmt::format("{:.1f} % of the pixels are ignored", 100 * ignored),
                        "check `ignore_index` and `label_map`: is a class taken for void?"});
  }
  std::vector<std::string> absent;
  const std::uint64_t labelled = report.pixels - report.ignored;
  for (std::size_t k = 0; k < report.class_pixels.size(); ++k) {
    if (report.class_pixels[k] == 0) absent.push_back(fmt::format("{} ({})", classes.names[k], k));
    if (labelled > 0 && static_cast<double>(report.class_pixels[k]) > 0.95 * static_cast<double>(labelled) &&
        report.class_pixels.size() > 1) {
      findings.push_back({false, "one-class", scan.name,
                          fmt::format("class {} ({}) covers {:.1f} % of the {}", k, classes.names[k],
                                      100 * static_cast<double>(report.class_pixels[k]) / static_cast<double>(labelled),
                                      report.whole_images ? "pictures" : "labelled pixels"),
                          report.whole_images
                              ? "a network can win by predicting only this class: use class weights"
                              : "a network can win by predicting only this class: use class weights, and watch mIoU, "
                                "not pixel accuracy"});
    }
  }
  if (!absent.empty()) {
    findings.push_back({false, "absent-class", scan.name, with_examples("classes never occur", absent),
                        report.whole_images ? "put pictures into their folders, or take the folders away"
                                            : "they are left out of mIoU; check the class list and `label_map`"});
  }
}

}  // namespace

SplitReport summarise(const SplitScan& scan, std::int64_t classes) {
  SplitReport r;
  r.name = scan.name;
  r.listed = scan.listed;
  r.scanned = scan.samples.size();
  const auto count = static_cast<std::size_t>(classes);
  r.class_pixels.assign(count, 0);
  r.class_images.assign(count, 0);
  r.class_image_pixels.assign(count, 0);
  for (const auto& s : scan.samples) {
    if (s.h > 0) {
      const bool first = r.max_h == 0;
      r.min_h = first ? s.h : std::min(r.min_h, s.h);
      r.min_w = first ? s.w : std::min(r.min_w, s.w);
      r.max_h = std::max(r.max_h, s.h);
      r.max_w = std::max(r.max_w, s.w);
    }
    if (!s.format.empty()) ++r.mask_formats[s.format];
    if (s.whole_label >= 0) {
      r.whole_images = true;
      ++r.pixels;
      ++r.class_pixels[static_cast<std::size_t>(s.whole_label)];
      ++r.class_images[static_cast<std::size_t>(s.whole_label)];
    }
    if (!s.has_ids) continue;
    std::vector<std::uint64_t> here(256, 0);  // by train id
    for (int id = 0; id < 256; ++id) {
      const std::uint64_t pixels = s.histogram[static_cast<std::size_t>(id)];
      r.pixels += pixels;
      if (const auto train_id = scan.maps[s.map].lookup(id)) here[*train_id] += pixels;
    }
    r.ignored += here[kIgnoreId];
    for (std::size_t k = 0; k < count; ++k) {
      r.class_pixels[k] += here[k];
      if (here[k] == 0) continue;
      ++r.class_images[k];
      r.class_image_pixels[k] += static_cast<std::uint64_t>(s.mask_h * s.mask_w);
    }
  }
  if (r.whole_images) r.class_image_pixels.assign(count, r.pixels);  // a frequency is a share of all pictures
  return r;
}

void judge_split(const SplitScan& scan, const SplitReport& report, const ClassInfo& classes,
                 std::vector<Finding>& findings) {
  judge_files(scan, findings);
  const bool not_found = std::any_of(findings.begin(), findings.end(),
                                     [&](const Finding& f) { return f.code == "not-found" && f.split == scan.name; });
  if (scan.listed == 0 && !not_found) {
    findings.push_back({true, "empty", scan.name, "no image with a mask was found",
                        "check the name of the split, `image_suffix` and `label_suffix`"});
  }
  if (scan.listed == 0) return;
  judge_ids(scan, classes.count(), findings);
  judge_balance(scan, report, classes, findings);
  if (report.mask_formats.size() > 1) {
    std::vector<std::string> formats;
    for (const auto& [name, files] : report.mask_formats) formats.push_back(fmt::format("{} x {}", files, name));
    findings.push_back({false, "mixed-formats", scan.name, "masks have different formats: " + join(formats, ", "),
                        "check that all come from the same tool"});
  }
}

void judge_duplicates(const std::vector<SplitScan>& scans, std::vector<Finding>& findings) {
  struct Place {
    std::size_t split;
    std::string name;
  };
  std::unordered_map<std::uint64_t, Place> seen;
  std::map<std::pair<std::size_t, std::size_t>, std::vector<std::string>> pairs;  // by the two splits
  for (std::size_t split = 0; split < scans.size(); ++split) {
    for (const auto& s : scans[split].samples) {
      if (s.h == 0) continue;
      const auto [at, fresh] = seen.emplace(s.hash, Place{split, s.image.string()});
      if (!fresh) pairs[{at->second.split, split}].push_back(at->second.name + " = " + s.image.string());
    }
  }
  for (const auto& [splits, places] : pairs) {
    const bool between = splits.first != splits.second;
    const std::string where =
        between ? scans[splits.first].name + "/" + scans[splits.second].name : scans[splits.first].name;
    findings.push_back(
        {between, between ? "leak" : "duplicate", where,
         with_examples(between ? "images are in both splits" : "images occur twice", places),
         between ? "take them out of one split: scores on seen images mean nothing" : "they count twice in training"});
  }
}

}  // namespace limbeck::datasets
