// What this is: limbeck_c.h. Every function is one call of the C++ library between a lock and a catch.
#include "apps/limbeck_c.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "apps/inference.h"
#include "apps/model_io.h"

struct limbeck_model {
  limbeck::apps::LoadedModel loaded;
  limbeck::apps::InferenceOptions options;
  limbeck::apps::ForwardFn network;
  std::mutex busy;
};

namespace {

using namespace limbeck;

constexpr std::int64_t kTile = 1024;

thread_local std::string last_error;

int32_t failed(int32_t code, const char* text) noexcept {
  try {
    last_error = text;
  } catch (...) {
    last_error.clear();  // no memory left even for the text
  }
  return code;
}

/// Runs `body` and turns exceptions into codes.
template <class Body>
int32_t guarded(const Body& body) noexcept {
  last_error.clear();
  try {
    body();
    return LIMBECK_OK;
  } catch (const Error& e) {
    const int code = static_cast<int>(e.exit_code());
    return failed(code >= LIMBECK_FAILED && code <= LIMBECK_WEIGHTS ? code : LIMBECK_FAILED, e.what());
  } catch (const std::bad_alloc&) {
    return failed(LIMBECK_FAILED, "[limbeck] out of memory");
  } catch (const std::exception& e) {
    return failed(LIMBECK_FAILED, e.what());
  } catch (...) {
    return failed(LIMBECK_FAILED, "[limbeck] unknown exception");
  }
}

template <class T>
void check_buffer(const char* name, const T* buffer, std::size_t have, std::size_t need) {
  if (buffer == nullptr) fail<ConfigError>("limbeck_c", "{} is NULL", name);
  if (have < need) fail<ConfigError>("limbeck_c", "{} has room for {}, expected {}", name, have, need);
}

datasets::Image picture(const limbeck_model* model, const std::uint8_t* rgb, std::size_t rgb_bytes, std::int32_t height,
                        std::int32_t width) {
  if (model == nullptr) fail<ConfigError>("limbeck_c", "the model is NULL");
  if (height < 1 || width < 1) fail<ConfigError>("limbeck_c", "a picture of {} x {} pixels", height, width);
  const auto bytes = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3;
  check_buffer("rgb", rgb, rgb_bytes, bytes);
  datasets::Image image(height, width);
  std::copy(rgb, rgb + bytes, image.rgb.begin());
  return image;
}

}  // namespace

extern "C" {

int32_t limbeck_abi(void) { return LIMBECK_C_ABI; }

const char* limbeck_last_error(void) { return last_error.c_str(); }

int32_t limbeck_load(const char* path, limbeck_model** model) {
  if (model != nullptr) *model = nullptr;
  return guarded([&] {
    if (path == nullptr || model == nullptr) fail<ConfigError>("limbeck_c", "path or model is NULL");
    auto made = std::make_unique<limbeck_model>();
    made->loaded = apps::load_model(path);
    const apps::ModelCard& card = made->loaded.card;
    if (models::is_classification(card.spec.name)) {
      fail<ConfigError>("limbeck_c", "{} classifies whole pictures, it does not segment", card.spec.name);
    }
    made->network =
        apps::network_of(made->loaded, made->loaded.ranges ? apps::Precision::kInt8 : apps::Precision::kF32);
    made->options.normalisation = datasets::Normalisation::parse(card.normalisation);
    made->options.align_corners = card.align_corners;
    made->options.tile_h = made->options.tile_w = kTile;
    made->options.overlap = kTile / 4;
    *model = made.release();
  });
}

void limbeck_free(limbeck_model* model) { delete model; }

int32_t limbeck_class_count(const limbeck_model* model) {
  return model == nullptr ? 0 : static_cast<int32_t>(model->loaded.card.classes.names.size());
}

const char* limbeck_class_name(const limbeck_model* model, int32_t index) {
  if (index < 0 || index >= limbeck_class_count(model)) return nullptr;
  return model->loaded.card.classes.names[static_cast<std::size_t>(index)].c_str();
}

int32_t limbeck_class_colour(const limbeck_model* model, int32_t index, uint8_t* rgb, size_t rgb_bytes) {
  return guarded([&] {
    if (index < 0 || index >= limbeck_class_count(model)) fail<ConfigError>("limbeck_c", "there is no class {}", index);
    check_buffer("rgb", rgb, rgb_bytes, 3);
    const datasets::Rgb colour = model->loaded.card.classes.palette.at(static_cast<std::size_t>(index));
    std::copy(colour.begin(), colour.end(), rgb);
  });
}

int32_t limbeck_segment(limbeck_model* model, const uint8_t* rgb, size_t rgb_bytes, int32_t height, int32_t width,
                        uint8_t* ids, size_t ids_bytes) {
  return guarded([&] {
    const datasets::Image image = picture(model, rgb, rgb_bytes, height, width);
    check_buffer("ids", ids, ids_bytes, image.rgb.size() / 3);
    const std::scoped_lock lock(model->busy);
    const datasets::Mask mask = apps::predict_mask(model->network, image, model->options);
    std::copy(mask.ids.begin(), mask.ids.end(), ids);
  });
}

int32_t limbeck_scores(limbeck_model* model, const uint8_t* rgb, size_t rgb_bytes, int32_t height, int32_t width,
                       float* scores, size_t scores_count) {
  return guarded([&] {
    const datasets::Image image = picture(model, rgb, rgb_bytes, height, width);
    check_buffer("scores", scores, scores_count,
                 image.rgb.size() / 3 * static_cast<std::size_t>(limbeck_class_count(model)));
    const std::scoped_lock lock(model->busy);
    const auto values = apps::predict_scores(model->network, image, model->options).to_vector<float>();
    std::copy(values.begin(), values.end(), scores);
  });
}

}  // extern "C"
