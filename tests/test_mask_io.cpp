// Ids in and out of mask files, and their translation to train ids.
#include <cstring>

#include "datasets/mask_io.h"
#include "datasets/palettes.h"
#include "datasets/png_codec.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

std::filesystem::path write_png(const TempFolder& folder, const PngPicture& picture) {
  write_data_file(folder / "m.png", png_encode(picture, "m"));
  return folder / "m.png";
}

/// Packs ids into rows of `depth` bits each, most significant first.
PngPicture packed(PngColour colour, int depth, std::int64_t h, std::int64_t w, const std::vector<std::uint8_t>& ids) {
  PngPicture p{h, w, colour, depth, {}, {}};
  p.bytes.assign(p.row_bytes() * static_cast<std::size_t>(h), 0);
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      const auto bit = static_cast<std::size_t>(x * depth);
      auto& byte = p.bytes[static_cast<std::size_t>(y) * p.row_bytes() + bit / 8];
      const unsigned shift = 8U - static_cast<unsigned>(depth) - static_cast<unsigned>(bit % 8);
      byte = static_cast<std::uint8_t>(byte | (ids[static_cast<std::size_t>(y * w + x)] << shift));
    }
  }
  if (colour == PngColour::kPalette) p.palette.assign(std::size_t{1} << depth, Rgb{200, 100, 50});
  return p;
}

}  // namespace

TEST_CASE("mask_io: what is written comes back, palette and grey") {
  const TempFolder folder;
  for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {9, 17}}) {
    Mask mask = noise_mask(h, w, 256, 5);
    write_mask(folder / "p.png", mask);
    CHECK(read_mask(folder / "p.png") == mask);
    write_grey_mask(folder / "g.png", mask);
    CHECK(read_mask(folder / "g.png") == mask);
    CHECK(read_mask_file(folder / "p.png").format == MaskFormat::kPalette);
    CHECK(read_mask_file(folder / "g.png").format == MaskFormat::kGrey);
  }
  // The colours are those asked for, and do not change the ids.
  Mask mask(1, 2, 1);
  write_mask(folder / "p.png", mask, {{1, 2, 3}, {4, 5, 6}});
  CHECK(read_mask_file(folder / "p.png").palette[1] == Rgb{4, 5, 6});
  CHECK(read_image(folder / "p.png").rgb == std::vector<std::uint8_t>{4, 5, 6, 4, 5, 6});
}

TEST_CASE("mask_io: 1, 2, 4 and 8 bits per id are read unscaled") {
  const TempFolder folder;
  for (const int depth : {1, 2, 4, 8}) {
    for (const PngColour colour : {PngColour::kGrey, PngColour::kPalette}) {
      for (const std::int64_t w : {1, 5, 8, 11}) {
        CAPTURE(depth);
        CAPTURE(w);
        const Mask expected = noise_mask(3, w, std::uint64_t{1} << static_cast<unsigned>(depth), 9);
        const auto path = write_png(folder, packed(colour, depth, 3, w, expected.ids));
        CHECK(read_mask(path) == expected);
        CHECK(read_mask_file(path).bit_depth == depth);
      }
    }
  }
}

TEST_CASE("mask_io: 16-bit masks pass while the ids fit") {
  const TempFolder folder;
  const auto write = [&](std::vector<std::uint16_t> values) {
    PngPicture p{1, static_cast<std::int64_t>(values.size()), PngColour::kGrey, 16, {}, {}};
    p.bytes.resize(values.size() * 2);
    std::memcpy(p.bytes.data(), values.data(), p.bytes.size());
    return write_png(folder, p);
  };
  CHECK(read_mask(write({0, 7, 255})).ids == std::vector<std::uint8_t>{0, 7, 255});
  const std::string instance = error_of([&] { (void)read_mask(write({3, 26001})); });
  CHECK_CONTAINS(instance, "26001");
  CHECK_CONTAINS(instance, "x=1 y=0");
  CHECK_CONTAINS(instance, "instance");
  CHECK_CONTAINS(error_of([&] { (void)read_mask(write({300})); }), "300");
}

TEST_CASE("mask_io: RGB, JPEG and damaged masks are errors with a way out") {
  const TempFolder folder;
  Image colours(2, 2, {128, 64, 128});
  write_image(folder / "c.png", colours);
  CHECK_CONTAINS(error_of([&] { (void)read_mask(folder / "c.png"); }), "mask_decode: colour");
  write_image(folder / "g.png", Image(2, 2, {3, 3, 3}));
  CHECK_CONTAINS(error_of([&] { (void)read_mask(folder / "g.png"); }), "mask_decode: first_channel");
  CHECK(read_mask(folder / "g.png", MaskDecode::kFirstChannel).ids == std::vector<std::uint8_t>{3, 3, 3, 3});
  // Colours that differ are no grey mask, whatever the setting says.
  CHECK_CONTAINS(error_of([&] { (void)read_mask(folder / "c.png", MaskDecode::kFirstChannel); }), "c.png");
  write_image(folder / "j.jpg", colours);
  CHECK_CONTAINS(error_of([&] { (void)read_mask(folder / "j.jpg"); }), "JPEG");
  write_mask(folder / "cut.png", noise_mask(40, 40, 11, 1));
  std::filesystem::resize_file(folder / "cut.png", std::filesystem::file_size(folder / "cut.png") / 2);
  CHECK_CONTAINS(error_of([&] { (void)read_mask(folder / "cut.png"); }), "cut.png");
}

TEST_CASE("mask_io: colours are looked up in the palette") {
  const TempFolder folder;
  Image image(1, 4, {0, 0, 0});
  const auto& palette = camvid_classes().palette;
  std::copy(palette[3].begin(), palette[3].end(), image.at(0, 1));
  std::copy(palette[0].begin(), palette[0].end(), image.at(0, 2));
  std::fill_n(image.at(0, 3), 3, std::uint8_t{255});
  write_image(folder / "c.png", image);
  CHECK(read_mask(folder / "c.png", MaskDecode::kColour, palette).ids ==
        std::vector<std::uint8_t>{kIgnoreId, 3, 0, kIgnoreId});
  image.at(0, 2)[1] = 7;
  write_image(folder / "c.png", image);
  const std::string error = error_of([&] { (void)read_mask(folder / "c.png", MaskDecode::kColour, palette); });
  CHECK_CONTAINS(error, "128,7,128");
  CHECK_CONTAINS(error, "x=2 y=0");
}

TEST_CASE("label map: identity, ignore, and the error with pixel, id and class count") {
  Mask mask(2, 3, 0);
  mask.ids = {0, 1, 2, 11, 255, 2};
  LabelMap(3, 11).apply(mask, "f.png");
  CHECK(mask.ids == std::vector<std::uint8_t>{0, 1, 2, 255, 255, 2});
  mask.ids = {0, 1, 2, 2, 9, 2};
  const Mask before = mask;
  const std::string error = error_of([&] { LabelMap(3).apply(mask, "dir/f.png"); });
  for (const char* part : {"dir/f.png", "id 9", "x=1 y=1", "3 classes", "0..2"}) CHECK_CONTAINS(error, part);
  CHECK(mask == before);
  CHECK_CONTAINS(error_of([&] {
                   mask.ids[0] = 3;
                   LabelMap(3).apply(mask, "f");
                 }),
                 "reduce_zero_label");
  CHECK_CONTAINS(error_of([&] {
                   mask.ids[0] = 254;
                   LabelMap(3).apply(mask, "f");
                 }),
                 "ignore_index: 254");
  CHECK_CONTAINS(error_of<ConfigError>([] { LabelMap(300); }), "300");
}

TEST_CASE("label map: from a specification") {
  DatasetSpec spec;
  spec.reduce_zero_label = true;
  const LabelMap reduced = LabelMap::from_spec(spec, 150);
  CHECK(reduced.lookup(0) == kIgnoreId);
  CHECK(reduced.lookup(1) == 0);
  CHECK(reduced.lookup(150) == 149);
  CHECK_FALSE(reduced.lookup(151).has_value());

  spec = {};
  spec.label_map = {{0, 0}, {255, 1}};
  const LabelMap binary = LabelMap::from_spec(spec, 2);
  CHECK(binary.lookup(0) == 0);
  CHECK(binary.lookup(255) == 1);
  CHECK_FALSE(binary.lookup(1).has_value());  // not listed: silence here would mix two numberings

  spec.label_map_other = 255;
  CHECK(LabelMap::from_spec(spec, 2).lookup(1) == kIgnoreId);
  spec.label_map = {{7, 2}};
  CHECK_CONTAINS(error_of<ConfigError>([&] { (void)LabelMap::from_spec(spec, 2); }), "class 2");

  // Swapping two ids must not depend on the order of the entries.
  spec = {};
  spec.label_map = {{0, 1}, {1, 0}};
  Mask mask(1, 2, 0);
  mask.ids = {0, 1};
  LabelMap::from_spec(spec, 2).apply(mask, "f");
  CHECK(mask.ids == std::vector<std::uint8_t>{1, 0});
}

TEST_CASE("mask_io: real files") {
  if (const auto root = real_data("samples/mmseg_misc")) {
    const MaskFile four_bit = read_mask_file(*root / "pseudo_dataset/gts/00000_gt.png");
    CHECK(four_bit.format == MaskFormat::kPalette);
    CHECK(four_bit.ids.size() == static_cast<std::size_t>(four_bit.h * four_bit.w));
    for (const auto id : four_bit.ids) REQUIRE(id < 16);
  }
  if (const auto root = real_data("samples/VOC2012_labelme/VOCdevkit/VOC2012")) {
    const Mask mask = read_mask(*root / "SegmentationClass/2011_000003.png");
    CHECK(std::count(mask.ids.begin(), mask.ids.end(), kIgnoreId) > 0);
    CHECK(std::all_of(mask.ids.begin(), mask.ids.end(), [](auto id) { return id < 21 || id == kIgnoreId; }));
  }
  if (const auto root = real_data("samples/cityscapes/gtFine/train/aachen")) {
    const auto file = *root / "aachen_000000_000019_gtFine_instanceIds.png";
    CHECK_CONTAINS(error_of([&] { (void)read_mask(file); }), "instance");
  }
}
