// The large scene data sets (Pascal Context, COCO-Stuff, ADE20K), COCO as VOC, odd but legal files, and the real
// samples.
#include <set>

#include "datasets/check_data.h"
#include "datasets/palettes.h"
#include "datasets/png_codec.h"
#include "datasets/readers.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

std::vector<std::uint8_t> ids_of(const DatasetSpec& spec, std::size_t index = 0) {
  return make_dataset(spec)->load(index).mask.ids;
}

bool check_ok(const DatasetSpec& spec) {
  const CheckReport report = check_data({spec});
  for (const auto& f : report.findings) {
    if (f.error) MESSAGE(f.code, ": ", f.text);
  }
  return report.ok;
}

}  // namespace

TEST_CASE("readers: class lists have the published sizes and no name or colour is missing") {
  const std::pair<const ClassInfo&, std::int64_t> lists[] = {{ade20k_classes(), 150},
                                                             {coco_stuff_classes(), 171},
                                                             {pascal_context_classes(true), 60},
                                                             {pascal_context_classes(false), 59}};
  for (const auto& [info, count] : lists) {
    CHECK(info.count() == count);
    CHECK(info.palette.size() == info.names.size());
    CHECK(std::set<std::string>(info.names.begin(), info.names.end()).size() == info.names.size());
  }
  CHECK(ade20k_classes().names[149] == "flag");
  CHECK(pascal_context_classes(true).names[0] == "background");
  CHECK(pascal_context_classes(false).names[0] == "aeroplane");
  CHECK(pascal_context_classes(false).palette[0] == pascal_context_classes(true).palette[1]);
  CHECK(coco_stuff_classes().names[80] == "banner");  // 80 things, then 91 kinds of stuff
}

TEST_CASE("readers: pascal_context with 60 and 59 classes") {
  const TempFolder folder;
  const std::string voc = "VOC2010/";
  write_image(folder / (voc + "JPEGImages/p.jpg"), noise_image(1, 4, 4));
  write_mask(folder / (voc + "SegmentationClassContext/p.png"), mask_of({0, 1, 59, 255}));
  write_text(folder / (voc + "ImageSets/SegmentationContext/train.txt"), "p\n");
  for (const auto& root : {folder.path(), folder.path() / "VOC2010"}) {
    CHECK(ids_of(spec_of("pascal_context", root)) == std::vector<std::uint8_t>{0, 1, 59, 255});
    CHECK(ids_of(spec_of("pascal_context59", root)) == std::vector<std::uint8_t>{255, 0, 58, 255});
  }
  CHECK(check_ok(spec_of("pascal_context", folder.path())));
  CHECK(check_ok(spec_of("pascal_context59", folder.path())));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("pascal_context", folder.path(), "val")); }), "val.txt");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("pascal_context", folder / "VOC2010/JPEGImages")); }),
                 "SegmentationClassContext");
  write_mask(folder / (voc + "SegmentationClassContext/p.png"), mask_of({0, 1, 60, 255}));
  CHECK_CONTAINS(error_of([&] { (void)ids_of(spec_of("pascal_context", folder.path())); }), "id 60 at pixel x=2");
}

TEST_CASE("readers: coco_stuff maps 182 ids to 171 classes") {
  // The 11 ids without pictures; the classes close the gaps.
  const std::set<int> removed{12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91};
  std::uint8_t next = 0;
  CHECK(coco_stuff_train_ids()[0] == kIgnoreId);
  for (int id = 1; id <= 182; ++id) {
    CHECK(coco_stuff_train_ids()[static_cast<std::size_t>(id)] == (removed.contains(id) ? kIgnoreId : next++));
  }
  CHECK(next == 171);

  const TempFolder folder;
  // person, toothbrush (COCO 90), banner (92), wood (182), a removed id, not labelled
  write_pair(folder, "images/train2017/a.jpg", "annotations/train2017/a.png", mask_of({0, 89, 91, 181, 11, 255}));
  write_pair(folder, "images/train2017/b.jpg", "annotations/train2017/b_labelTrainIds.png",
             mask_of({0, 79, 80, 170, 255, 255}));
  const auto spec = spec_of("coco_stuff", folder.path());
  CHECK(ids_of(spec, 0) == std::vector<std::uint8_t>{0, 79, 80, 170, 255, 255});
  CHECK(ids_of(spec, 1) == std::vector<std::uint8_t>{0, 79, 80, 170, 255, 255});
  CHECK(make_dataset(spec)->classes().names[170] == "wood");
  CHECK(check_ok(spec));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("coco_stuff", folder.path(), "val")); }), "val2017");
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec_of("coco_stuff", folder.path(), "test")); }),
                 "expected train or val");
}

TEST_CASE("readers: coco_stuff10k in its two layouts") {
  const TempFolder folder;
  write_pair(folder, "images/train2014/a.jpg", "annotations/train2014/a.png", mask_of({1, 90, 92, 182, 0}));
  write_pair(folder, "images/train2014/b.jpg", "annotations/train2014/b_labelTrainIds.png",
             mask_of({1, 80, 81, 171, 0}));
  const std::vector<std::uint8_t> expected{0, 79, 80, 170, 255};
  CHECK(ids_of(spec_of("coco_stuff10k", folder.path()), 0) == expected);
  CHECK(ids_of(spec_of("coco_stuff10k", folder.path()), 1) == expected);
  CHECK(check_ok(spec_of("coco_stuff10k", folder.path())));

  const TempFolder flat;
  write_pair(flat, "images/x.jpg", "annotations/x.png", mask_of({1, 90, 92, 182, 0}));
  write_text(flat / "imageLists/test.txt", "x\n");
  CHECK(ids_of(spec_of("coco_stuff10k", flat.path(), "val")) == expected);
  write_text(flat / "imageLists/train.txt", "x\ny\n");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("coco_stuff10k", flat.path())); }), "y.jpg");
}

TEST_CASE("readers: coco_voc paints COCO with the classes of VOC") {
  const TempFolder folder;
  // person, bicycle, tv, elephant (no VOC class), sky (stuff), not labelled
  write_pair(folder, "images/train2017/a.jpg", "annotations/train2017/a.png", mask_of({0, 1, 71, 21, 156, 255}));
  const auto set = make_dataset(spec_of("coco_voc", folder.path()));
  CHECK(set->load(0).mask.ids == std::vector<std::uint8_t>{15, 2, 20, 0, 0, 255});
  CHECK(set->classes().names[15] == "person");
  // Each VOC class comes from exactly one COCO thing, and the names agree where both lists use one word.
  std::set<int> seen;
  const std::set<std::string> renamed{"aeroplane", "motorbike", "sofa", "tvmonitor", "diningtable", "pottedplant"};
  for (std::size_t id = 1; id <= 182; ++id) {
    const int voc = coco_voc_train_ids()[id];
    if (voc == 0) continue;
    CHECK(seen.insert(voc).second);
    const std::string& name = voc_classes().names[static_cast<std::size_t>(voc)];
    if (!renamed.contains(name)) CHECK(name == coco_stuff_classes().names[coco_stuff_train_ids()[id]]);
  }
  CHECK(seen.size() == 20);
  // Converted ids have lost COCO's numbers, so such a file does not count.
  write_pair(folder, "images/train2017/b.jpg", "annotations/train2017/b_labelTrainIds.png", mask_of({0}));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("coco_voc", folder.path())); }), "b.png is missing");
}

TEST_CASE("readers: ade20k leaves out 0 and counts from 1") {
  const TempFolder folder;
  const std::string root = "ADEChallengeData2016/";
  write_pair(folder, root + "images/training/a.jpg", root + "annotations/training/a.png", mask_of({0, 1, 150}));
  for (const char* split : {"training", "train"}) {
    CHECK(ids_of(spec_of("ade20k", folder.path(), split)) == std::vector<std::uint8_t>{255, 0, 149});
    CHECK(ids_of(spec_of("ade20k", folder / "ADEChallengeData2016", split)) == std::vector<std::uint8_t>{255, 0, 149});
  }
  CHECK(check_ok(spec_of("ade20k", folder.path())));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("ade20k", folder.path(), "val")); }), "validation");
  write_grey_mask(folder / (root + "annotations/training/a.png"), mask_of({0, 1, 151}));
  CHECK_CONTAINS(error_of([&] { (void)ids_of(spec_of("ade20k", folder.path())); }), "id 151");
  CHECK_FALSE(check_data({spec_of("ade20k", folder.path())}).ok);
}

TEST_CASE("readers: voc2012 finds trainaug under both names of its list") {
  for (const char* name : {"trainaug.txt", "train_aug.txt"}) {
    const TempFolder folder;
    write_image(folder / "JPEGImages/p.jpg", noise_image(1, 2, 4));
    write_mask(folder / "SegmentationClassAug/p.png", mask_of({1, 255}));
    write_text(folder / (std::string("ImageSets/Segmentation/") + name), "p\n");
    for (const char* split : {"trainaug", "train_aug"}) {
      CHECK(ids_of(spec_of("voc2012", folder.path(), split)) == std::vector<std::uint8_t>{1, 255});
    }
    std::filesystem::remove_all(folder / "SegmentationClassAug");
    CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("voc2012", folder.path(), "trainaug")); }),
                   "SegmentationClassAug");
  }
}

TEST_CASE("readers: odd but legal files") {
  const TempFolder folder;
  const auto path = folder / "mask.png";
  const auto raw = [&](PngColour colour, int depth, std::int64_t w, std::vector<std::uint8_t> bytes) {
    const std::vector<Rgb> palette = colour == PngColour::kPalette ? voc_colours(16) : std::vector<Rgb>{};
    write_data_file(path, png_encode({1, w, colour, depth, palette, std::move(bytes)}, "test"));
  };
  raw(PngColour::kPalette, 4, 3, {0x1F, 0x20});
  CHECK(read_mask(path).ids == std::vector<std::uint8_t>{1, 15, 2});
  raw(PngColour::kGrey, 16, 2, {7, 0, 255, 0});  // host order
  CHECK(read_mask(path).ids == std::vector<std::uint8_t>{7, 255});
  raw(PngColour::kGrey, 16, 2, {7, 0, 0, 3});
  CHECK_CONTAINS(error_of([&] { (void)read_mask(path); }), "768 at pixel x=1");
}

TEST_CASE("readers: real scene samples") {
  if (const auto root = real_data("samples/ADEChallengeData2016")) {
    const auto set = make_dataset(spec_of("ade20k", *root, "val"));
    CHECK(set->size() == 3);
    const auto ids = set->load(0).mask.ids;
    CHECK(std::count(ids.begin(), ids.end(), 0) > 1000);  // wall
    CHECK(check_ok(spec_of("ade20k", *root, "val")));
  }
  if (const auto root = real_data("samples/coco_stuff")) {
    for (const char* kind : {"coco_stuff", "coco_voc"}) {
      CHECK(make_dataset(spec_of(kind, *root))->size() == 13);
      CHECK(check_ok(spec_of(kind, *root)));
      CHECK(check_ok(spec_of(kind, *root, "val")));
    }
    // 000000000139: a living room with a tv and chairs. COCO ids 72 and 62.
    const auto stuff = make_dataset(spec_of("coco_stuff", *root, "val"))->load(0);
    CHECK(stuff.name == "000000000139");
    const auto has = [](const Mask& mask, std::int64_t id) {
      return std::count(mask.ids.begin(), mask.ids.end(), static_cast<std::uint8_t>(id)) > 50;
    };
    const auto& names = coco_stuff_classes().names;
    CHECK(has(stuff.mask, std::find(names.begin(), names.end(), "tv") - names.begin()));
    CHECK(has(make_dataset(spec_of("coco_voc", *root, "val"))->load(0).mask, 20));  // tvmonitor
  }
  if (const auto root = real_data("samples/mmseg_misc")) {
    CHECK(read_mask_file(*root / "seg.png").bit_depth == 4);
    CHECK(read_mask(*root / "pseudo_dataset/gts/00003_gt.png").ids.size() == 256 * 128);
    const Image grey = read_image(*root / "gray.jpg");
    CHECK(std::equal(grey.at(5, 7), grey.at(5, 7) + 2, grey.at(5, 7) + 1));  // one channel becomes three
    CHECK_CONTAINS(error_of([&] { (void)read_mask(*root / "gray.jpg"); }), "save masks as PNG");
    const auto depth = *root / "pseudo_nyu_dataset/annotations/bookstore_0001d_00001.png";
    CHECK_CONTAINS(error_of([&] { (void)read_mask(depth); }), "16-bit mask with value 2189");
    CHECK_CONTAINS(error_of([&] { (void)read_mask(*root / "pseudo_potsdam_dataset/img_dir/2_10_0_0_512_512.png"); }),
                   "mask_decode: colour");
    auto bdd = spec_of("folder", *root / "pseudo_bdd100k_dataset");
    bdd.image_dir = "images/10k/{split}";
    bdd.label_dir = "labels/sem_seg/masks/{split}";
    bdd.num_classes = 19;
    CHECK(make_dataset(bdd)->size() == 3);
    CHECK(check_data({bdd}).splits[0].listed == 3);
    auto lip = spec_of("folder", *root / "pseudo_lip_dataset");
    lip.image_dir = "train_images";
    lip.label_dir = "train_segmentations";
    lip.num_classes = 20;
    CHECK(check_ok(lip));
  }
}
