// Data sets on disk: layouts, list files, ids, and one clear error for each thing that can be missing.
#include "datasets/palettes.h"
#include "datasets/readers.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

TEST_CASE("readers: camvid, with foreign paths in the list and id 11 ignored") {
  const TempFolder folder;
  write_pair(folder, "train/a.png", "trainannot/a.png", mask_of({0, 10, 11}));
  write_pair(folder, "train/b.png", "trainannot/b.png", mask_of({3, 3, 3}));
  write_pair(folder, "val/c.png", "valannot/c.png", mask_of({1, 2, 11}));
  write_text(folder / "train.txt",
             "/SegNet/CamVid/train/b.png /SegNet/CamVid/trainannot/b.png\r\n"
             "# a comment\n\n"
             "train/a.jpg trainannot\\a.png\n");  // .jpg in the list, .png on disk; a path from Windows
  write_text(folder / "val.txt", "val/c.png\tvalannot/c.png\n");
  const auto train = make_dataset(spec_of("camvid", folder.path()));
  REQUIRE(train->size() == 2);
  CHECK(train->name(0) == "b");  // the order of the list
  CHECK(train->load(1).mask.ids == std::vector<std::uint8_t>{0, 10, 255});
  CHECK(train->load(1).image == noise_image(1, 3, 4));
  CHECK(train->classes().names[3] == "road");
  CHECK(make_dataset(spec_of("camvid", folder.path(), "train+val"))->size() == 3);
  CHECK(make_dataset(spec_of("camvid", folder.path(), "trainval"))->size() == 3);
  auto limited = spec_of("camvid", folder.path());
  limited.limit = 1;
  CHECK(make_dataset(limited)->size() == 1);
  // Without lists the folders are paired by name.
  std::filesystem::remove(folder / "train.txt");
  CHECK(make_dataset(spec_of("camvid", folder.path()))->name(0) == "a");
}

TEST_CASE("readers: each missing or wrong thing is one DataError that says what") {
  const TempFolder folder;
  auto spec = spec_of("camvid", folder / "nowhere");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "nowhere");

  spec = spec_of("camvid", folder.path());
  write_text(folder / "train.txt", "\n# nothing\n");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "empty");

  write_pair(folder, "train/a.png", "trainannot/a.png", mask_of({0, 1}));
  write_text(folder / "train.txt",
             "train/a.png trainannot/a.png\ntrain/x.png trainannot/a.png\ntrain/a.png no/y.png\n");
  const std::string missing = error_of([&] { (void)make_dataset(spec); });
  for (const char* part : {"2 files are missing", "image train/x.png", "mask no/y.png", "train.txt:2"}) {
    CHECK_CONTAINS(missing, part);
  }
  write_text(folder / "train.txt", "train/a.png\n");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "train.txt:1");

  write_text(folder / "train.txt", "train/a.png trainannot/a.png\n");
  write_grey_mask(folder / "trainannot/a.png", mask_of({0, 19}));
  const std::string bad = error_of([&] { (void)make_dataset(spec)->load(0); });
  for (const char* part : {"a.png", "id 19", "x=1 y=0", "11 classes"}) CHECK_CONTAINS(bad, part);

  write_grey_mask(folder / "trainannot/a.png", mask_of({0, 1, 2}));
  const std::string size = error_of([&] { (void)make_dataset(spec)->load(0); });
  for (const char* part : {"train/a.png", "trainannot/a.png", "2x1", "3x1"}) CHECK_CONTAINS(size, part);

  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec_of("camvit", folder.path())); }), "camvid");
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec_of("camvid", folder.path(), "train+")); }),
                 "part");
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec_of("camvid", "")); }), "root");
}

TEST_CASE("readers: voc2012 with palette masks, and the enlarged training set") {
  const TempFolder folder;
  const std::string voc = "VOCdevkit/VOC2012/";
  write_image(folder / (voc + "JPEGImages/p.jpg"), noise_image(1, 3, 4));
  write_mask(folder / (voc + "SegmentationClass/p.png"), mask_of({0, 20, 255}));
  write_mask(folder / (voc + "SegmentationClassAug/p.png"), mask_of({1, 1, 255}));
  write_text(folder / (voc + "ImageSets/Segmentation/train.txt"), "p\n");
  write_text(folder / (voc + "ImageSets/Segmentation/train_aug.txt"),
             "/JPEGImages/p.jpg /SegmentationClassAug/p.png\n");
  for (const auto& root : {folder.path(), folder.path() / "VOCdevkit/VOC2012"}) {
    const auto plain = make_dataset(spec_of("voc2012", root));
    CHECK(plain->load(0).mask.ids == std::vector<std::uint8_t>{0, 20, 255});
    CHECK(make_dataset(spec_of("voc2012", root, "trainaug"))->load(0).mask.ids == std::vector<std::uint8_t>{1, 1, 255});
  }
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("voc2012", folder.path(), "val")); }), "val.txt");
  write_text(folder / (voc + "ImageSets/Segmentation/val.txt"), "p\nq\n");
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("voc2012", folder.path(), "val")); }), "q.jpg");
}

TEST_CASE("readers: cityscapes maps label ids, and takes train ids where they are alone") {
  const TempFolder folder;
  const auto add = [&](const std::string& name, const std::string& kind, const Mask& mask) {
    write_image(folder / ("leftImg8bit/train/ulm/" + name + "_leftImg8bit.png"), noise_image(mask.h, mask.w, 4));
    write_grey_mask(folder / ("gtFine/train/ulm/" + name + "_gtFine_" + kind + ".png"), mask);
  };
  Mask all(1, 34);
  for (std::int64_t k = 0; k < 34; ++k) all.at(0, k) = static_cast<std::uint8_t>(k);
  add("ulm_1", "labelIds", all);
  add("ulm_2", "labelTrainIds", mask_of({0, 18, 255}));
  const auto set = make_dataset(spec_of("cityscapes", folder.path()));
  REQUIRE(set->size() == 2);
  CHECK(set->name(0) == "ulm_1");
  std::vector<std::uint8_t> expected(34, 255);
  const std::array<int, 19> ids{7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33};
  for (std::size_t k = 0; k < ids.size(); ++k)
    expected[static_cast<std::size_t>(ids[k])] = static_cast<std::uint8_t>(k);
  CHECK(set->load(0).mask.ids == expected);
  CHECK(set->load(1).mask.ids == std::vector<std::uint8_t>{0, 18, 255});
  // A label id file wins over a train id file of the same image.
  write_grey_mask(folder / "gtFine/train/ulm/ulm_2_gtFine_labelIds.png", mask_of({7, 33, 0}));
  CHECK(make_dataset(spec_of("cityscapes", folder.path()))->load(1).mask.ids == std::vector<std::uint8_t>{0, 18, 255});
  write_grey_mask(folder / "gtFine/train/ulm/ulm_2_gtFine_labelIds.png", mask_of({7, 34, 0}));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec_of("cityscapes", folder.path()))->load(1); }), "id 34");
}

TEST_CASE("readers: cityscapes joins fine and coarse masks") {
  const TempFolder folder;
  const auto add = [&](const std::string& part, const std::string& name, const char* truth, const Mask& mask) {
    write_image(folder / ("leftImg8bit/" + part + "/ulm/" + name + "_leftImg8bit.png"), noise_image(mask.h, mask.w, 4));
    write_grey_mask(folder / (std::string(truth) + "/" + part + "/ulm/" + name + "_" + truth + "_labelIds.png"), mask);
  };
  add("train", "a", "gtFine", mask_of({7, 7, 8}));
  add("val", "b", "gtFine", mask_of({8, 8, 8}));
  add("train_extra", "c", "gtCoarse", mask_of({7, 0, 0}));
  add("train_extra", "d", "gtCoarse", mask_of({0, 0, 23}));
  auto spec = spec_of("cityscapes", folder.path(), "train+val");
  spec.coarse_split = "train_extra";
  const auto set = make_dataset(spec);
  REQUIRE(set->size() == 4);
  CHECK(set->load(0).mask.ids == std::vector<std::uint8_t>{0, 0, 1});
  CHECK(set->load(1).mask.ids == std::vector<std::uint8_t>{1, 1, 1});
  CHECK(set->load(2).mask.ids == std::vector<std::uint8_t>{0, 255, 255});
  CHECK(set->load(3).mask.ids == std::vector<std::uint8_t>{255, 255, 10});
  CHECK(split_text(spec) == "train+val and coarse train_extra");

  spec.coarse_split = "train_extra+val";
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec); }),
                 "part 'val' is in split 'train+val' and in coarse_split 'train_extra+val'");
  spec.coarse_split = "test";
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "leftImg8bit/test");
  for (const char* kind : {"voc2012", "scenes"}) {
    auto other = spec_of(kind, folder.path());
    other.coarse_split = "train_extra";
    CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(other); }), "only cityscapes has coarse masks");
  }
}

TEST_CASE("readers: folders in the usual arrangements") {
  for (const auto& [images, labels] : {std::pair<std::string, std::string>{"images/train", "labels/train"},
                                       {"img_dir/train", "ann_dir/train"},
                                       {"train/images", "train/masks"}}) {
    const TempFolder folder;
    CAPTURE(images);
    write_pair(folder, images + "/sub/b.png", labels + "/sub/b.png", mask_of({1, 0}));
    write_image(folder / (images + "/a.jpg"), noise_image(1, 2, 4));
    write_grey_mask(folder / (labels + "/a.png"), mask_of({0, 255}));
    auto spec = spec_of("folder", folder.path());
    spec.classes = {"one", "two"};
    const auto set = make_dataset(spec);
    REQUIRE(set->size() == 2);
    CHECK(set->name(0) == "a");
    CHECK(set->name(1) == "sub/b");
    CHECK(set->load(0).mask.ids == std::vector<std::uint8_t>{0, 255});
  }
}

TEST_CASE("readers: folder finds orphans, suffixes, lists and class files") {
  const TempFolder folder;
  write_pair(folder, "imgs/00_img.png", "gts/00_gt.png", mask_of({0, 1, 2}));
  write_pair(folder, "imgs/01_img.png", "gts/01_gt.png", mask_of({2, 2, 4}));
  write_text(folder / "splits/train.txt", "01\n");
  write_text(folder / "classes.txt", "road 1 2 3\ntraffic light,4,5,6\nsky\n");
  auto spec = spec_of("folder", folder.path());
  spec.image_suffix = "_img.png";
  spec.label_suffix = "_gt.png";
  spec.ignore_index = 4;
  const auto set = make_dataset(spec);
  REQUIRE(set->size() == 1);
  CHECK(set->name(0) == "01");
  CHECK(set->load(0).mask.ids == std::vector<std::uint8_t>{2, 2, 255});
  CHECK(set->classes().names == std::vector<std::string>{"road", "traffic light", "sky"});
  CHECK(set->classes().palette[1] == Rgb{4, 5, 6});
  CHECK(set->classes().palette[2] == voc_colours(3)[2]);

  // No list and no folder of the split: train and val would be the same files.
  spec.split = "val";
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "val.txt");
  spec.split = "all";
  CHECK(make_dataset(spec)->size() == 2);
  write_grey_mask(folder / "gts/02_gt.png", mask_of({0}));
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "02_gt.png");

  spec = spec_of("folder", folder.path());
  spec.num_classes = 5;
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec); }), "classes.txt");
  std::filesystem::remove(folder / "classes.txt");
  spec.num_classes = 0;
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)make_dataset(spec); }), "num_classes");
}

TEST_CASE("readers: list files with options for the ids") {
  const TempFolder folder;
  write_pair(folder, "x/a.png", "y/a.png", mask_of({0, 1, 150}));
  write_text(folder / "my list.txt", "x/a.png,y/a.png\n");
  auto spec = spec_of("list", folder.path());
  spec.list = "my list.txt";
  spec.num_classes = 150;
  spec.reduce_zero_label = true;
  CHECK(make_dataset(spec)->load(0).mask.ids == std::vector<std::uint8_t>{255, 0, 149});
  CHECK(make_dataset(spec)->classes().names[2] == "class 2");
  spec.reduce_zero_label = false;
  spec.label_map = {{0, 1}, {1, 0}, {150, 255}};
  CHECK(make_dataset(spec)->load(0).mask.ids == std::vector<std::uint8_t>{1, 0, 255});
  spec.list = "other.txt";
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec); }), "other.txt");
}

TEST_CASE("readers: colour masks through the palette") {
  const TempFolder folder;
  write_image(folder / "images/all/a.png", noise_image(1, 2, 4));
  Image colours(1, 2, {9, 9, 9});
  colours.at(0, 1)[0] = 200;
  write_image(folder / "labels/all/a.png", colours);
  auto spec = spec_of("folder", folder.path(), "all");
  spec.classes = {"a", "b"};
  CHECK_CONTAINS(error_of([&] { (void)make_dataset(spec)->load(0); }), "mask_decode");
  spec.mask_decode = MaskDecode::kColour;
  spec.palette = {{200, 9, 9}, {9, 9, 9}};
  CHECK(make_dataset(spec)->load(0).mask.ids == std::vector<std::uint8_t>{1, 0});
}

TEST_CASE("readers: real data") {
  if (const auto root = real_data("camvid")) {
    const std::pair<const char*, std::size_t> splits[] = {{"train", 367}, {"val", 101}, {"test", 233}};
    for (const auto& [split, size] : splits) {
      const auto set = make_dataset(spec_of("camvid", *root, split));
      CHECK(set->size() == size);
      const Sample sample = set->load(size - 1);
      CHECK(sample.image.w == 480);
      CHECK(sample.image.h == 360);
    }
  }
  if (const auto root = real_data("samples/VOC2012_labelme")) {
    const auto set = make_dataset(spec_of("voc2012", *root, "train+val"));
    CHECK(set->size() == 3);
    for (std::size_t i = 0; i < set->size(); ++i) CHECK(set->load(i).mask.ids.size() > 1000);
  }
  if (const auto root = real_data("samples/cityscapes")) {
    const auto train = make_dataset(spec_of("cityscapes", *root));
    CHECK(train->size() == 4);
    const Sample sample = train->load(0);
    CHECK(sample.mask.w == 2048);
    CHECK(std::count(sample.mask.ids.begin(), sample.mask.ids.end(), 0) > 100000);  // road
    CHECK(make_dataset(spec_of("cityscapes", *root, "val"))->load(0).mask.ids.size() > 0);
  }
  if (const auto root = real_data("samples/ADEChallengeData2016")) {
    auto spec = spec_of("folder", *root, "validation");
    spec.num_classes = 150;
    spec.reduce_zero_label = true;
    const auto set = make_dataset(spec);
    CHECK(set->size() == 3);
    for (std::size_t i = 0; i < 3; ++i) (void)set->load(i);
  }
  if (const auto root = real_data("samples/mmseg_misc/pseudo_dataset")) {
    auto spec = spec_of("folder", *root, "val");
    spec.num_classes = 7;
    spec.image_suffix = "_img.jpg";
    spec.label_suffix = "_gt.png";
    CHECK(make_dataset(spec)->size() == 1);
    CHECK(make_dataset(spec)->load(0).image.h > 0);
  }
}
