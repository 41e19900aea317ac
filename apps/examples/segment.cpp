// segment MODEL PICTURE MASK: segments a picture with a trained network and says what is in it.
#include <fmt/core.h>

#include "apps/inference.h"
#include "apps/model_io.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"

using namespace limbeck;

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  const apps::LoadedModel student = apps::load_model(argv[1]);
  apps::InferenceOptions options;
  options.normalisation = datasets::Normalisation::parse(student.card.normalisation);
  options.align_corners = student.card.align_corners;

  const datasets::Image picture = datasets::read_photo(argv[2]);
  const datasets::Mask mask = apps::predict_mask(apps::frozen(*student.model), picture, options);
  datasets::write_mask(argv[3], mask, student.card.classes.palette);

  std::vector<int> pixels(student.card.classes.names.size());
  for (const auto id : mask.ids) ++pixels.at(id);
  for (std::size_t k = 0; k < pixels.size(); ++k) {
    fmt::print("{:12} {:5.1f} %\n", student.card.classes.names[k],
               100.0 * pixels[k] / static_cast<double>(mask.ids.size()));
  }
  return 0;
} catch (const Error& e) {
  fmt::print(stderr, "{}\n", e.what());
  return static_cast<int>(e.exit_code());
}
