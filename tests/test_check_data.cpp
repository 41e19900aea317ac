// Every kind of broken data set must be found, with the file, the pixel and the way out; a good one must pass.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "datasets/check_data.h"
#include "datasets/png_codec.h"
#include "datasets/readers.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

/// A data set of kind `folder` with two splits of four samples; three classes, ids 0..2 and 255.
struct Fixture {
  TempFolder folder;
  DatasetSpec train, val;

  Fixture() {
    train.kind = "folder";
    train.root = folder.path();
    train.split = "train";
    train.classes = {"road", "sky", "car"};
    val = train;
    val.split = "val";
    for (int i = 0; i < 8; ++i) write(i, mask(i));
  }
  static Mask mask(int i) {
    Mask m = noise_mask(10, 20, 3, static_cast<std::uint64_t>(i));
    m.at(0, 0) = kIgnoreId;
    return m;
  }
  static std::string name(int i) { return fmt::format("{}/s{}", i < 4 ? "train" : "val", i); }
  [[nodiscard]] std::filesystem::path label(int i) const { return folder / ("labels/" + name(i) + ".png"); }
  [[nodiscard]] std::filesystem::path image(int i) const { return folder / ("images/" + name(i) + ".png"); }
  void write(int i, const Mask& m) const {
    write_image(image(i), noise_image(m.h, m.w, static_cast<std::uint64_t>(i)));
    write_grey_mask(label(i), m);
  }
  [[nodiscard]] CheckReport check(const CheckOptions& options = {}) const { return check_data({train, val}, options); }
};

const Finding* find(const CheckReport& report, const std::string& code) {
  for (const auto& f : report.findings) {
    if (f.code == code) return &f;
  }
  return nullptr;
}

/// The finding with this code; fails the test when it is absent or the verdict does not fit.
Finding expect(const CheckReport& report, const std::string& code, bool error) {
  const Finding* f = find(report, code);
  REQUIRE_MESSAGE(f != nullptr, code << " is missing in:\n" << to_text(report));
  CHECK(f->error == error);
  if (error) CHECK_FALSE(report.ok);
  return *f;
}

}  // namespace

TEST_CASE("check-data: a good data set passes, with the right numbers") {
  const Fixture fx;
  const CheckReport report = fx.check();
  CHECK(report.ok);
  CHECK(report.findings.empty());
  REQUIRE(report.splits.size() == 2);
  const SplitReport& train = report.splits[0];
  CHECK(train.listed == 4);
  CHECK(train.pixels == 800);
  CHECK(train.ignored == 4);
  CHECK(train.max_w == 20);
  CHECK(train.mask_formats.at("8-bit grey") == 4);
  std::array<std::uint64_t, 3> expected{};
  for (int i = 0; i < 4; ++i) {
    for (const auto id : Fixture::mask(i).ids) {
      if (id < 3) ++expected[id];
    }
  }
  for (std::size_t k = 0; k < 3; ++k) CHECK(train.class_pixels[k] == expected[k]);
  CHECK(train.class_images == std::vector<std::uint64_t>{4, 4, 4});
  const std::string text = to_text(report);
  for (const char* part : {"verdict: ok\n", "split train: 4 pairs, 20x10", "class_weights: [", "car"}) {
    CHECK_CONTAINS(text, part);
  }
}

TEST_CASE("check-data: median frequency weights by hand") {
  SplitReport split;
  split.class_pixels = {60, 20, 10, 0};
  split.class_image_pixels = {100, 100, 20, 0};  // frequencies 0.6, 0.2, 0.5 -> median 0.5
  const auto w = median_frequency_weights(split);
  CHECK(w[0] == doctest::Approx(0.5 / 0.6));
  CHECK(w[1] == doctest::Approx(2.5));
  CHECK(w[2] == doctest::Approx(1.0));
  CHECK(w[3] == 1.0);
  split.class_pixels = {60, 20, 0, 0};  // an even number of classes: the mean of the two in the middle
  CHECK(median_frequency_weights(split)[0] == doctest::Approx(0.4 / 0.6));
}

TEST_CASE("check-data: ids out of range, with file, pixel and count") {
  const Fixture fx;
  Mask m = Fixture::mask(2);
  m.at(3, 7) = 9;
  m.at(4, 1) = 9;
  fx.write(2, m);
  m = Fixture::mask(3);
  m.at(9, 19) = 9;
  m.at(0, 1) = 254;
  fx.write(3, m);
  const CheckReport report = fx.check();
  const Finding f = expect(report, "bad-id", true);
  for (const char* part : {"id 9 on 3 pixels of 2 files", "s2.png x=7 y=3", "0..2"}) CHECK_CONTAINS(f.text, part);
  CHECK(std::count_if(report.findings.begin(), report.findings.end(),
                      [](const auto& g) { return g.code == "bad-id"; }) == 2);
  CHECK_CONTAINS(to_text(report), "ignore_index: 254");
  CHECK_CONTAINS(to_text(report), "verdict: not ok (2 errors, 0 warnings)");
}

TEST_CASE("check-data: ids that count from 1, binary masks and label ids get their own advice") {
  {
    const Fixture fx;
    for (int i = 0; i < 8; ++i) {
      Mask m = Fixture::mask(i);
      for (auto& id : m.ids) id = id == kIgnoreId ? id : static_cast<std::uint8_t>(id + 1);
      fx.write(i, m);
    }
    CHECK_CONTAINS(expect(fx.check(), "bad-id", true).fix, "reduce_zero_label: true");
    DatasetSpec fixed = fx.train;
    fixed.reduce_zero_label = true;
    CHECK(check_data({fixed}).ok);  // the advice helps
  }
  {
    Fixture fx;
    for (int i = 0; i < 8; ++i) {
      Mask m = Fixture::mask(i);
      for (auto& id : m.ids) id = id == 1 ? 255 : 0;
      fx.write(i, m);
    }
    fx.train.classes = {"background", "thing"};
    CHECK_CONTAINS(expect(check_data({fx.train}), "binary-0-255", true).fix, "label_map: {0: 0, 255: 1}");
    fx.train.label_map = {{0, 0}, {255, 1}};
    CHECK(check_data({fx.train}).ok);
  }
  {
    Fixture fx;
    for (int i = 0; i < 8; ++i) fx.write(i, noise_mask(20, 20, 34, static_cast<std::uint64_t>(i)));
    fx.train.classes.clear();
    fx.train.num_classes = 19;
    const Finding f = expect(check_data({fx.train}), "bad-id", true);
    CHECK_CONTAINS(f.fix, "labelIds, not trainIds");
    CHECK_CONTAINS(f.text, "15 ids are not allowed");
  }
}

TEST_CASE("check-data: files that are missing, damaged, of another size or kind") {
  const Fixture fx;
  SUBCASE("missing mask") {
    std::filesystem::remove(fx.label(1));
    CHECK_CONTAINS(expect(fx.check(), "missing-file", true).text, "s1.png");
  }
  SUBCASE("missing image") {
    std::filesystem::remove(fx.image(5));
    const Finding f = expect(fx.check(), "missing-file", true);
    CHECK(f.split == "val");
    CHECK_CONTAINS(f.text, "s5.png");
  }
  SUBCASE("damaged image") {
    std::filesystem::resize_file(fx.image(0), std::filesystem::file_size(fx.image(0)) - 30);
    CHECK_CONTAINS(expect(fx.check(), "unreadable", true).text, "s0.png");
  }
  SUBCASE("size") {
    write_grey_mask(fx.label(0), Mask(5, 6, 1));
    CHECK_CONTAINS(expect(fx.check(), "size-mismatch", true).text, "20x10, its mask 6x5");
  }
  SUBCASE("colours") {
    write_image(fx.label(0), noise_image(10, 20, 1));
    CHECK_CONTAINS(expect(fx.check(), "rgb-mask", true).fix, "mask_decode: colour");
  }
  SUBCASE("grey saved as RGB") {
    write_image(fx.label(0), Image(10, 20, {1, 1, 1}));
    CHECK_CONTAINS(expect(fx.check(), "grey-rgb-mask", true).fix, "first_channel");
    expect(fx.check(), "mixed-formats", false);
  }
  SUBCASE("16 bits") {
    PngPicture p{10, 20, PngColour::kGrey, 16, {}, std::vector<std::uint8_t>(400, 0x66)};
    write_data_file(fx.label(0), png_encode(p, "p"));
    CHECK_CONTAINS(expect(fx.check(), "16-bit-mask", true).fix, "instance");
  }
  SUBCASE("JPEG mask under a PNG name") {
    write_image(fx.folder / "x.jpg", noise_image(10, 20, 1));
    std::filesystem::rename(fx.folder / "x.jpg", fx.label(0));
    CHECK_CONTAINS(expect(fx.check(), "unreadable", true).text, "JPEG");
  }
  SUBCASE("no folder") {
    DatasetSpec other = fx.val;
    other.split = "test";
    const CheckReport report = check_data({fx.train, other});
    CHECK(expect(report, "not-found", true).split == "test");
    CHECK(report.splits[0].listed == 4);  // the other split is still checked
    CHECK_FALSE(to_text(report).empty());
  }
}

TEST_CASE("check-data: the same image in train and val is an error, twice in train a warning") {
  const Fixture fx;
  write_image(fx.image(6), noise_image(10, 20, 1));  // the picture of sample 1
  const Finding leak = expect(fx.check(), "leak", true);
  CHECK(leak.split == "train/val");
  CHECK_CONTAINS(leak.text, "s1.png = ");
  CHECK_CONTAINS(leak.text, "s6.png");
  write_image(fx.image(6), noise_image(10, 20, 6));
  write_image(fx.image(3), noise_image(10, 20, 1));
  const CheckReport report = fx.check();
  CHECK(report.ok);
  expect(report, "duplicate", false);
}

TEST_CASE("check-data: warnings about balance") {
  Fixture fx;
  fx.write(0, Mask(10, 20, kIgnoreId));
  fx.train.classes.push_back("train");
  const CheckReport report = check_data({fx.train});
  CHECK(report.ok);
  CHECK_CONTAINS(expect(report, "all-ignored", false).text, "s0.png");
  CHECK_CONTAINS(expect(report, "absent-class", false).text, "train (3)");
  CHECK_CONTAINS(to_text(report), "verdict: ok (2 warnings)");
  for (int i = 1; i < 4; ++i) fx.write(i, Mask(10, 20, 1));
  CHECK_CONTAINS(expect(check_data({fx.train}), "one-class", false).text, "class 1 (sky)");
  fx.write(1, Mask(10, 20, kIgnoreId));
  expect(check_data({fx.train}), "much-ignored", false);
}

TEST_CASE("check-data: the report is the same for any number of threads; progress and limit") {
  const Fixture fx;
  Mask m = Fixture::mask(2);
  m.ids[55] = 77;
  fx.write(2, m);
  fx.write(3, m);
  CheckOptions one;
  one.threads = 1;
  CheckOptions many;
  many.threads = 7;
  CHECK(to_text(fx.check(one)) == to_text(fx.check(many)));
  CHECK(to_json(fx.check(one)) == to_json(fx.check(many)));
  std::vector<std::size_t> seen;
  many.progress = [&](std::size_t done, std::size_t total) {
    CHECK(total == 8);
    seen.push_back(done);
  };
  (void)fx.check(many);
  CHECK(seen == std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7, 8});
  many.progress = [](std::size_t, std::size_t) { fail("progress", "the window was closed"); };
  CHECK_THROWS_WITH_AS((void)fx.check(many), doctest::Contains("the window was closed"), Error);  // in whichever thread
  CheckOptions sampled;
  sampled.limit = 2;
  const CheckReport report = fx.check(sampled);
  CHECK(report.splits[0].listed == 4);
  CHECK(report.splits[0].scanned == 2);
  CHECK_CONTAINS(to_text(report), "(2 looked at)");
}

TEST_CASE("check-data: JSON") {
  const Fixture fx;
  std::filesystem::remove(fx.label(1));
  const auto json = nlohmann::json::parse(to_json(fx.check()));
  CHECK(json.at("ok") == false);
  CHECK(json.at("classes").at(1) == "sky");
  CHECK(json.at("splits").at(0).at("pairs") == 3);
  CHECK(json.at("splits").at(1).at("class_pixels").size() == 3);
  CHECK(json.at("findings").at(0).at("code") == "missing-file");
  CHECK(json.at("findings").at(0).at("severity") == "error");
  CHECK(json.at("class_weights").size() == 3);
}

TEST_CASE("check-data: generated scenes and configuration mistakes") {
  DatasetSpec scenes;
  scenes.kind = "scenes";
  scenes.height = 32;
  scenes.width = 48;
  scenes.samples = 40;
  const CheckReport report = check_data({scenes});
  CHECK(report.ok);
  CHECK(report.splits[0].mask_formats.at("generated") == 40);
  CHECK(report.splits[0].class_pixels[3] > 1000);
  scenes.kind = "folders";
  scenes.root = "/";
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)check_data({scenes}); }), "folders");
}

TEST_CASE("check-data: real data") {
  if (const auto root = real_data("camvid")) {
    DatasetSpec train;
    train.root = *root;
    DatasetSpec val = train;
    val.split = "val";
    const CheckReport report = check_data({train, val});
    CHECK(report.ok);
    // The known counts of the data set: ids 0..10, then the unlabelled pixels.
    const std::array<std::uint64_t, 11> pixels{10682767, 14750079, 623349,  20076880, 2845085, 6166762,
                                               743859,   714595,   3719877, 405385,   184967};
    for (std::size_t k = 0; k < pixels.size(); ++k) CHECK(report.splits[0].class_pixels[k] == pixels[k]);
    CHECK(report.splits[0].ignored == 2503995);
    CHECK(report.splits[0].listed == 367);
    CHECK(report.splits[1].listed == 101);
    CHECK(report.class_weights[3] < 0.3);  // road
    CHECK(report.class_weights[9] > 3);    // pedestrian
  }
  if (const auto root = real_data("samples/cityscapes")) {
    // The same masks read as a plain folder: label ids must be recognised.
    DatasetSpec spec;
    spec.kind = "folder";
    spec.root = *root;
    spec.split = "train";
    spec.image_dir = "leftImg8bit";
    spec.label_dir = "gtFine";
    spec.image_suffix = "_leftImg8bit.png";
    spec.label_suffix = "_gtFine_labelIds.png";
    spec.num_classes = 19;
    CHECK_CONTAINS(expect(check_data({spec}), "bad-id", true).fix, "labelIds");
    spec = {};
    spec.kind = "cityscapes";
    spec.root = *root;
    CHECK(check_data({spec}).ok);
  }
}
