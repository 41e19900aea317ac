// The scan: every sample once, in parallel, into one record per sample. The records are judged in order afterwards, so
// the report does not depend on the number of threads.
#include "datasets/check_data.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "datasets/check_scan.h"
#include "datasets/image_io.h"
#include "datasets/readers.h"

namespace limbeck::datasets {
namespace {

std::uint64_t hash_pixels(const Image& image) noexcept {
  std::uint64_t h = 0x9E3779B97F4A7C15U ^ static_cast<std::uint64_t>(image.h * 65537 + image.w);
  std::size_t i = 0;
  for (; i + 8 <= image.rgb.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, image.rgb.data() + i, 8);
    h = (h ^ word) * 0xFF51AFD7ED558CCDU;
    h ^= h >> 32U;
  }
  for (; i < image.rgb.size(); ++i) h = (h ^ image.rgb[i]) * 0x100000001B3U;
  return h ^ (h >> 29U);
}

void count_ids(const std::vector<std::uint8_t>& ids, SampleScan& scan) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (scan.histogram[ids[i]]++ == 0) scan.first[ids[i]] = static_cast<std::uint32_t>(i);
  }
  scan.has_ids = true;
}

std::string format_name(const MaskFile& file) {
  switch (file.format) {
    case MaskFormat::kGrey: return fmt::format("{}-bit grey", file.bit_depth);
    case MaskFormat::kPalette: return fmt::format("{}-bit palette", file.bit_depth);
    case MaskFormat::kGrey16: return "16-bit grey";
    case MaskFormat::kColour: return "RGB";
  }
  return "?";
}

void scan_mask(const Source& source, SampleScan& scan) {
  MaskFile file = read_mask_file(scan.label);
  scan.mask_h = file.h;
  scan.mask_w = file.w;
  scan.format = format_name(file);
  if (file.format == MaskFormat::kColour && source.decode == MaskDecode::kIndex) {
    scan.colour = true;
    scan.colour_is_grey = file.colours_are_grey();
    return;
  }
  if (file.format == MaskFormat::kGrey16) {
    const unsigned largest = file.wide.empty() ? 0U : *std::max_element(file.wide.begin(), file.wide.end());
    if (largest > 255) {
      scan.wide_value = largest;
      return;
    }
  }
  count_ids(decode_mask(std::move(file), scan.label, source.decode, source.classes.palette).ids, scan);
}

SampleScan scan_pair(const Source& source, const Pair& pair) {
  SampleScan scan;
  scan.name = pair.name;
  scan.image = pair.image;
  scan.label = pair.label;
  scan.map = pair.map;
  try {
    const Image image = read_image(pair.image);
    scan.h = image.h;
    scan.w = image.w;
    scan.hash = hash_pixels(image);
  } catch (const Error& e) {
    scan.image_error = e.what();
  }
  try {
    scan_mask(source, scan);
  } catch (const Error& e) {
    scan.mask_error = e.what();
  }
  return scan;
}

/// Data sets without mask files (scenes, class folders): the samples as load() gives them.
SampleScan scan_loaded(const Dataset& dataset, std::size_t index) {
  SampleScan scan;
  scan.name = dataset.name(index);
  scan.image = scan.label = scan.name;
  scan.format = "generated";
  try {
    const Sample sample = dataset.load(index);
    scan.h = sample.image.h;
    scan.w = sample.image.w;
    if (sample.label >= 0) {
      scan.format = "none";
      scan.whole_label = sample.label;
      scan.hash = hash_pixels(sample.image);
      return scan;
    }
    scan.mask_h = sample.mask.h;
    scan.mask_w = sample.mask.w;
    scan.hash = hash_pixels(sample.image);
    count_ids(sample.mask.ids, scan);
  } catch (const Error& e) {
    scan.image_error = e.what();
  }
  return scan;
}

/// Calls `body(k)` for k in [0, count) from several threads. The first exception ends them all and is rethrown here.
template <class Body>
void in_threads(std::size_t count, int threads, const Body& body) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr error;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (std::size_t k = next++; k < count; k = next++) body(k);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  const auto wanted = threads > 0 ? static_cast<std::size_t>(threads)
                                  : static_cast<std::size_t>(std::max(1U, std::thread::hardware_concurrency()));
  std::vector<std::jthread> pool;  // joins by itself, also where a thread cannot be started
  for (std::size_t t = 1; t < std::min(wanted, count); ++t) pool.emplace_back(work);
  work();
  pool.clear();
  if (error) std::rethrow_exception(error);
}

/// Samples to look at: all, or `limit` evenly spread ones.
std::vector<std::size_t> choose(std::size_t count, std::size_t limit) {
  const std::size_t wanted = limit == 0 ? count : std::min(limit, count);
  std::vector<std::size_t> chosen(wanted);
  for (std::size_t i = 0; i < wanted; ++i) chosen[i] = i * count / wanted;
  return chosen;
}

struct Opened {
  Source source;
  std::shared_ptr<const Dataset> generated;
  SplitScan scan;
  std::vector<std::size_t> chosen;
};

Opened open_split(const DatasetSpec& spec, const CheckOptions& options, std::vector<Finding>& findings) {
  Opened opened;
  opened.scan.name = split_text(spec);
  opened.scan.kind = spec.kind;
  try {
    if (spec.kind == "scenes" || spec.kind == "image_folder") {
      opened.generated = make_dataset(spec);
      opened.source.classes = opened.generated->classes();
      if (opened.generated->target() == Target::kPixels) {
        opened.source.maps = {LabelMap(opened.source.classes.count())};
      }
      opened.scan.listed = opened.generated->size();
    } else {
      opened.source = open_source(spec);
      opened.scan.listed = opened.source.pairs.size();
      opened.scan.missing = opened.source.missing;
    }
  } catch (const DataError& e) {
    findings.push_back(
        {true, "not-found", spec.split, e.what(), "check `root`, the name of the split and the folders"});
  }
  opened.scan.maps = opened.source.maps;
  if (opened.source.decode == MaskDecode::kColour) {  // colours were looked up in the palette: ids are classes
    opened.scan.maps = {LabelMap(opened.source.classes.count())};
  }
  opened.chosen = choose(opened.scan.listed, options.limit);
  opened.scan.samples.resize(opened.chosen.size());
  return opened;
}

}  // namespace

CheckReport check_data(const std::vector<DatasetSpec>& specs, const CheckOptions& options) {
  LIMBECK_CHECK(!specs.empty(), "check-data", "no split to check");
  CheckReport report;
  report.kind = specs.front().kind;
  report.root = specs.front().root.string();

  std::vector<Opened> splits;
  std::size_t total = 0;
  for (const auto& spec : specs) {
    splits.push_back(open_split(spec, options, report.findings));
    total += splits.back().chosen.size();
    if (report.classes.names.empty()) report.classes = splits.back().source.classes;
  }

  std::mutex mutex;
  std::size_t done = 0;
  for (auto& split : splits) {
    in_threads(split.chosen.size(), options.threads, [&](std::size_t k) {
      const std::size_t index = split.chosen[k];
      split.scan.samples[k] =
          split.generated ? scan_loaded(*split.generated, index) : scan_pair(split.source, split.source.pairs[index]);
      const std::lock_guard lock(mutex);
      ++done;
      if (options.progress) options.progress(done, total);
    });
  }

  std::vector<SplitScan> scans;
  for (auto& split : splits) {
    report.splits.push_back(summarise(split.scan, report.classes.count()));
    judge_split(split.scan, report.splits.back(), report.classes, report.findings);
    scans.push_back(std::move(split.scan));
  }
  judge_duplicates(scans, report.findings);
  std::stable_sort(report.findings.begin(), report.findings.end(),
                   [](const Finding& a, const Finding& b) { return a.error && !b.error; });
  report.ok = std::none_of(report.findings.begin(), report.findings.end(), [](const Finding& f) { return f.error; });
  report.class_weights = median_frequency_weights(report.splits.front());
  return report;
}

}  // namespace limbeck::datasets
