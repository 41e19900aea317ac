// Reference kernel of the autoencoder's objective: the formula of distill/ka_autoencoder_loss.h, any strides, f32 and
// f64.
#include <cmath>

#include "distill/ka_autoencoder_loss_kernels.h"

namespace limbeck::distill {
namespace {

template <class Body>
void for_elements(const TensorView& x, const Body& body) {
  for (std::int64_t n = 0; n < x.n(); ++n) {
    for (std::int64_t c = 0; c < x.c(); ++c) {
      for (std::int64_t h = 0; h < x.h(); ++h) {
        for (std::int64_t w = 0; w < x.w(); ++w) body(n, c, h, w);
      }
    }
  }
}

template <class T>
void run(const TensorView& r, const TensorView& e, const TensorView& map, const TensorView& loss, const TensorView& gr,
         const TensorView& ge, const KaAutoencoderOptions& options) {
  const auto count = static_cast<double>(r.numel());
  const double factor = ka_code_factor(e, options);
  const auto error = [&](auto n, auto c, auto h, auto w) {
    return static_cast<double>(r.at<T>(n, c, h, w)) - static_cast<double>(map.at<T>(n, c, h, w));
  };
  double squares = 0;
  for_elements(r, [&](auto n, auto c, auto h, auto w) {
    const double d = error(n, c, h, w);
    squares += d * d;
  });
  double magnitudes = 0;
  for_elements(
      e, [&](auto n, auto c, auto h, auto w) { magnitudes += std::abs(static_cast<double>(e.at<T>(n, c, h, w))); });
  *loss.ptr<T>() = static_cast<T>(squares / count + factor * magnitudes);
  if (gr.defined()) {
    for_elements(r, [&](auto n, auto c, auto h, auto w) {
      gr.at<T>(n, c, h, w) = static_cast<T>(2 * error(n, c, h, w) / count);
    });
  }
  if (!ge.defined()) return;
  for_elements(e, [&](auto n, auto c, auto h, auto w) {
    const T v = e.at<T>(n, c, h, w);
    const auto slope = static_cast<T>(factor);
    ge.at<T>(n, c, h, w) = v < 0 ? -slope : v > 0 ? slope : v;
  });
}

}  // namespace

void ka_autoencoder_loss_ref(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                             const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                             const KaAutoencoderOptions& options) {
  LIMBECK_CHECK(reconstruction.dtype == map.dtype && code.dtype == map.dtype, "ka_autoencoder_loss",
                "the reference takes one type, got {}, {} and {}", name_of(reconstruction.dtype), name_of(code.dtype),
                name_of(map.dtype));
  visit_reference_dtype("ka_autoencoder_loss", map.dtype, [&](auto tag) {
    run<decltype(tag)>(reconstruction, code, map, loss, greconstruction, gcode, options);
  });
}

}  // namespace limbeck::distill
