// What this is: the recording half of nn/tracer.h.
#include "nn/tracer.h"

#include <algorithm>

#include "core/autograd.h"
#include "nn/module.h"

namespace limbeck::nn {

void LayerTracer::record(const UnaryModule& layer, const Shape& input, const Tensor& output, const char* suffix) {
  const bool first = std::find(seen_.begin(), seen_.end(), &layer) == seen_.end();
  if (first) seen_.push_back(&layer);
  records_.push_back({ScopeName::current(), layer.type() + suffix, input, output.shape(), output.dtype(),
                      first ? layer.own_parameter_count() : 0, layer.macs(input, output.shape())});
}

std::int64_t LayerTracer::total_params() const noexcept {
  std::int64_t sum = 0;
  for (const LayerRecord& r : records_) sum += r.params;
  return sum;
}

std::int64_t LayerTracer::total_macs() const noexcept {
  std::int64_t sum = 0;
  for (const LayerRecord& r : records_) sum += r.macs;
  return sum;
}

}  // namespace limbeck::nn
