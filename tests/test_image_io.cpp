// Pictures in and out of files; the pictures that compose.h makes.
#include <unistd.h>

#include <cmath>

#include "datasets/compose.h"
#include "datasets/image_io.h"
#include "datasets/orientation.h"
#include "datasets/palettes.h"
#include "datasets/png_codec.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::datasets;
using namespace limbeck::test;

namespace {

void cut_file(const std::filesystem::path& path, double share) {
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, static_cast<std::uintmax_t>(share * static_cast<double>(size)));
}

Image smooth_image(std::int64_t h, std::int64_t w) {
  Image image(h, w);
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      image.at(y, x)[0] = static_cast<std::uint8_t>(255 * x / w);
      image.at(y, x)[1] = static_cast<std::uint8_t>(255 * y / h);
      image.at(y, x)[2] = 90;
    }
  }
  return image;
}

/// A TIFF structure with one tag.
std::string tiff(bool little, unsigned tag, unsigned type, unsigned value) {
  const auto number = [&](unsigned v, int size) {
    std::string bytes;
    for (int i = 0; i < size; ++i) bytes += static_cast<char>(v >> 8 * (little ? i : size - 1 - i) & 0xFFU);
    return bytes;
  };
  return (little ? "II" : "MM") + number(42, 2) + number(8, 4) + number(1, 2) + number(tag, 2) + number(type, 2) +
         number(1, 4) + number(value, 2) + number(0, 2) + number(0, 4);
}

/// The file with a segment of metadata behind its first marker.
std::string with_exif(const std::string& jpeg, const std::string& tiff) {
  const std::string segment = std::string("Exif\0\0", 6) + tiff;
  const std::size_t length = segment.size() + 2;
  return jpeg.substr(0, 2) + "\xFF\xE1" + static_cast<char>(length >> 8U) + static_cast<char>(length & 0xFFU) +
         segment + jpeg.substr(2);
}

double mean_difference(const Image& a, const Image& b) {
  REQUIRE(a.rgb.size() == b.rgb.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(int{a.rgb[i]} - int{b.rgb[i]});
  return sum / static_cast<double>(a.rgb.size());
}

}  // namespace

TEST_CASE("image_io: PNG keeps every pixel") {
  const TempFolder folder;
  for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 13}, {31, 2}}) {
    const Image image = noise_image(h, w, 1);
    write_image(folder / "a.png", image);
    CHECK(read_image(folder / "a.png") == image);
    CHECK(decode_image(encode_png(image), "memory") == image);
  }
}

TEST_CASE("image_io: JPEG is close and has the right orientation") {
  const TempFolder folder;
  const Image image = smooth_image(40, 64);
  write_image(folder / "a.jpg", image, 95);
  const Image back = read_image(folder / "a.jpg");
  REQUIRE(back.h == 40);
  REQUIRE(back.w == 64);
  CHECK(mean_difference(image, back) < 2.0);
  CHECK(mean_difference(image, noise_image(40, 64, 3)) > 20.0);  // the bound above means something
}

TEST_CASE("orientation: the eight ways to hold a camera") {
  // a b c
  // d e f    by the place of its first row and column: 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, ...
  Image stored(2, 3);
  for (std::size_t i = 0; i < stored.rgb.size(); ++i) stored.rgb[i] = static_cast<std::uint8_t>('a' + i / 3);
  const auto seen = [&](int orientation) {
    const Image image = upright(stored, orientation);
    std::string rows;
    for (std::int64_t y = 0; y < image.h; ++y) {
      for (std::int64_t x = 0; x < image.w; ++x) rows += static_cast<char>(image.at(y, x)[2]);
      rows += y + 1 < image.h ? "/" : "";
    }
    return rows;
  };
  CHECK(seen(1) == "abc/def");
  CHECK(seen(2) == "cba/fed");
  CHECK(seen(3) == "fed/cba");
  CHECK(seen(4) == "def/abc");
  CHECK(seen(5) == "ad/be/cf");
  CHECK(seen(6) == "da/eb/fc");
  CHECK(seen(7) == "fc/eb/da");
  CHECK(seen(8) == "cf/be/ad");
  CHECK_CONTAINS(error_of<Error>([&] { (void)upright(stored, 0); }), "0, expected 1 to 8");
}

TEST_CASE("orientation: photos are turned, pictures of data sets are not") {
  const TempFolder folder;
  write_image(folder / "plain.jpg", smooth_image(24, 40), 95);
  const std::string plain = read_data_file(folder / "plain.jpg");
  const Image stored = read_image(folder / "plain.jpg");
  CHECK(read_photo(folder / "plain.jpg") == stored);
  for (const bool little : {false, true}) {
    for (unsigned orientation = 1; orientation <= 8; ++orientation) {
      write_text(folder / "turned.jpg", with_exif(plain, tiff(little, 0x0112, 3, orientation)));
      CHECK(read_image(folder / "turned.jpg") == stored);
      CHECK(read_photo(folder / "turned.jpg") == upright(stored, static_cast<int>(orientation)));
    }
  }
  const auto found = [&](const std::string& file) { return orientation_of(bytes_of(file)); };
  const std::string six = tiff(true, 0x0112, 3, 6);
  CHECK(found(with_exif(plain, six)) == 6);
  CHECK(found(with_exif(plain, tiff(true, 0x0112, 3, 9))) == 1);  // there is no such way
  CHECK(found(with_exif(plain, tiff(true, 0x0112, 4, 6))) == 1);  // of another type
  CHECK(found(with_exif(plain, tiff(true, 0x0113, 3, 6))) == 1);  // another tag
  CHECK(found(plain) == 1);
  CHECK(found("") == 1);
  CHECK(found("no JPEG") == 1);
  // Cut off anywhere: nothing is read behind the end.
  const std::string whole = with_exif(plain, six);
  for (std::size_t length = 0; length < 60; ++length) {
    const int cut = found(whole.substr(0, length));
    CHECK(cut == (length < 2 + 4 + 6 + six.size() ? 1 : 6));
    if (length <= six.size()) CHECK(found(with_exif(plain, six.substr(0, length))) == (length < 8 + 2 + 12 ? 1 : 6));
  }
  std::string beyond = six;  // the directory lies outside
  beyond[7] = '\x7F';
  CHECK(found(with_exif(plain, beyond)) == 1);
}

TEST_CASE("image_io: pictures below a folder, through links, but not in circles") {
  const TempFolder folder;
  for (const char* name : {"b.png", "a/c.JPG", "a/deep/d.jpeg", "other/e.png"}) write_text(folder / name, "x");
  write_text(folder / "a/notes.txt", "x");
  const auto names = [&](const std::filesystem::path& from) {
    std::string all;
    for (const auto& path : list_images(from)) all += path.lexically_relative(from).string() + " ";
    return all;
  };
  CHECK(names(folder.path() / "a") == "c.JPG deep/d.jpeg ");
  std::filesystem::create_directory_symlink(folder.path() / "other", folder.path() / "a" / "link");
  std::filesystem::create_directory_symlink(folder.path(), folder.path() / "a" / "deep" / "up");
  CHECK(names(folder.path() / "a") == "c.JPG deep/d.jpeg deep/up/b.png deep/up/other/e.png link/e.png ");
  CHECK_CONTAINS(error_of([&] { (void)list_images(folder.path() / "b.png"); }), "b.png: is not a folder");
  if (::geteuid() != 0) {  // the superuser may list everything
    std::filesystem::permissions(folder.path() / "other", std::filesystem::perms::none);
    CHECK_CONTAINS(error_of([&] { (void)list_images(folder.path()); }), "cannot list");
    std::filesystem::permissions(folder.path() / "other", std::filesystem::perms::owner_all);
  }
}

TEST_CASE("image_io: grey, palette, 16-bit and alpha PNG become RGB") {
  const TempFolder folder;
  const auto write = [&](PngPicture p) {
    write_data_file(folder / "x.png", png_encode(p, "x"));
    return read_image(folder / "x.png");
  };
  const Image grey = write({1, 3, PngColour::kGrey, 8, {}, {0, 100, 255}});
  CHECK(grey.rgb == std::vector<std::uint8_t>{0, 0, 0, 100, 100, 100, 255, 255, 255});
  const Image palette = write({1, 2, PngColour::kPalette, 8, {{1, 2, 3}, {40, 50, 60}}, {1, 0}});
  CHECK(palette.rgb == std::vector<std::uint8_t>{40, 50, 60, 1, 2, 3});
  const Image alpha = write({1, 1, PngColour::kRgba, 8, {}, {9, 8, 7, 0}});
  CHECK(alpha.rgb == std::vector<std::uint8_t>{9, 8, 7});
  // One 16-bit grey sample, in the byte order of this machine.
  const std::uint16_t value = 0x8000;
  std::vector<std::uint8_t> bytes(2);
  std::memcpy(bytes.data(), &value, 2);
  const Image deep = write({1, 1, PngColour::kGrey, 16, {}, bytes});
  CHECK(deep.rgb == std::vector<std::uint8_t>{128, 128, 128});
}

TEST_CASE("image_io: damaged and missing files are errors that name the file") {
  const TempFolder folder;
  const auto png = folder / "cut.png";
  const auto jpg = folder / "cut.jpg";
  for (const double share : {0.99, 0.9, 0.5, 0.1}) {
    CAPTURE(share);
    write_image(png, noise_image(50, 50, 1));
    cut_file(png, share);
    CHECK_CONTAINS(error_of([&] { (void)read_image(png); }), "cut.png");
    write_image(jpg, noise_image(50, 50, 1));
    cut_file(jpg, share);
    CHECK_CONTAINS(error_of([&] { (void)read_image(jpg); }), "cut.jpg");
  }
  // A flipped bit in the compressed data: the checksum of the chunk notices.
  write_image(png, noise_image(50, 50, 1));
  {
    std::fstream file(png, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file.put('\x5A');
  }
  CHECK_CONTAINS(error_of([&] { (void)read_image(png); }), "damaged");
  CHECK_CONTAINS(error_of([&] { (void)read_image(folder / "none.png"); }), "none.png");
  write_text(folder / "empty.png", "");
  CHECK_CONTAINS(error_of([&] { (void)read_image(folder / "empty.png"); }), "empty");
  write_text(folder / "text.png", "this is no picture");
  CHECK_CONTAINS(error_of([&] { (void)read_image(folder / "text.png"); }), "neither PNG nor JPEG");
  CHECK_CONTAINS(error_of([&] { write_image(folder / "a.bmp", noise_image(2, 2, 1)); }), ".bmp");
}

TEST_CASE("image_io: list_images is sorted, recursive and leaves other files out") {
  const TempFolder folder;
  for (const char* name : {"b.png", "sub/a.JPG", "a.jpeg", "notes.txt"}) write_text(folder / name, "x");
  const auto found = list_images(folder.path());
  REQUIRE(found.size() == 3);
  CHECK(found[0].filename() == "a.jpeg");
  CHECK(found[1].filename() == "b.png");
  CHECK(found[2].filename() == "a.JPG");
  CHECK_CONTAINS(error_of([&] { (void)list_images(folder / "absent"); }), "absent");
}

TEST_CASE("palettes: known colours") {
  const auto voc = voc_colours(22);
  CHECK(voc[0] == Rgb{0, 0, 0});
  CHECK(voc[1] == Rgb{128, 0, 0});
  CHECK(voc[8] == Rgb{64, 0, 0});
  CHECK(voc[15] == Rgb{192, 128, 128});  // person
  CHECK(voc[20] == Rgb{0, 64, 128});     // tvmonitor
  CHECK(voc_colours(256)[255] == Rgb{224, 224, 192});
  for (const ClassInfo* info : {&camvid_classes(), &voc_classes(), &cityscapes_classes()}) {
    CHECK(info->names.size() == info->palette.size());
  }
  CHECK(camvid_classes().count() == 11);
  CHECK(voc_classes().count() == 21);
  CHECK(cityscapes_classes().count() == 19);
  CHECK(cityscapes_train_ids()[7] == 0);
  CHECK(cityscapes_train_ids()[33] == 18);
  CHECK(cityscapes_train_ids()[0] == kIgnoreId);
  CHECK(cityscapes_train_ids()[29] == kIgnoreId);
}

TEST_CASE("compose: overlay, colour mask and error map") {
  Image image(1, 3, {100, 100, 100});
  Mask mask(1, 3, 0);
  mask.ids = {1, kIgnoreId, 9};
  const std::vector<Rgb> palette{{0, 0, 0}, {200, 0, 50}};
  CHECK(overlay(image, mask, palette, 0.5).rgb == std::vector<std::uint8_t>{150, 50, 75, 100, 100, 100, 178, 50, 178});
  CHECK(overlay(image, mask, palette, 0.0) == image);
  CHECK(colour_mask(mask, palette).rgb == std::vector<std::uint8_t>{200, 0, 50, 0, 0, 0, 255, 0, 255});
  Mask predicted(1, 3, 1);
  const Image errors = error_map(mask, predicted, palette);
  CHECK(errors.at(0, 0)[0] == errors.at(0, 0)[1]);  // right: grey
  CHECK(errors.at(0, 1)[0] == 0);                   // no label: black
  CHECK(errors.at(0, 2)[0] == 255);                 // wrong: the truth's colour
  CHECK_CONTAINS(error_of<Error>([&] { (void)overlay(image, Mask(2, 3), palette); }), "3x2");
}

TEST_CASE("compose: panels are placed where they belong") {
  const Image red(4, 6, {255, 0, 0});
  const Image green(3, 5, {0, 255, 0});
  const Image sheet = side_by_side({{red, ""}, {green, ""}, {green, ""}}, 2);
  const auto count = [&](Rgb colour) {
    int n = 0;
    for (std::size_t i = 0; i < sheet.rgb.size(); i += 3) {
      n += sheet.rgb[i] == colour[0] && sheet.rgb[i + 1] == colour[1] && sheet.rgb[i + 2] == colour[2];
    }
    return n;
  };
  CHECK(count({255, 0, 0}) == 24);
  CHECK(count({0, 255, 0}) == 30);
  CHECK(side_by_side({{red, "a long caption"}}).w >= text_width("a long caption"));
}

TEST_CASE("compose: letters") {
  Image image(9, 20);
  draw_text(image, 1, 1, "L", {255, 255, 255});
  const auto on = [&](std::int64_t y, std::int64_t x) { return image.at(y, x)[0] == 255; };
  for (std::int64_t y = 0; y < 7; ++y) CHECK(on(1 + y, 1));  // the stem
  for (std::int64_t x = 0; x < 5; ++x) CHECK(on(7, 1 + x));  // the foot
  CHECK_FALSE(on(1, 3));
  draw_text(image, -3, 17, "W\xFFW", {1, 2, 3}, 3);  // clipped, unknown letters: must not write outside
  CHECK(text_width("abc") == 17);
  CHECK(text_width("") == 0);
  const Image patches = legend(camvid_classes(), 120);
  CHECK(patches.w == 120);
  CHECK(patches.h > 30);  // several lines
}
