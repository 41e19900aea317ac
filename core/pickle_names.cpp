#include "core/pickle_names.h"

#include <algorithm>
#include <array>

namespace limbeck {
namespace {

constexpr auto kNames = std::to_array<PickleName>({
    {"collections OrderedDict", PickleCall::kDict},
    {"torch._utils _rebuild_tensor_v2", PickleCall::kTensor},
    {"torch._utils _rebuild_tensor", PickleCall::kTensor},
    {"torch._utils _rebuild_parameter", PickleCall::kParameter},
    {"torch._utils _rebuild_parameter_with_state", PickleCall::kParameter},
    {"torch Size", PickleCall::kFirstArgument},
    {"torch device", PickleCall::kFirstArgument},
    {"_codecs encode", PickleCall::kFirstArgument},  // how protocol 2 writes bytes
    {"builtins set", PickleCall::kFirstArgument},
    {"__builtin__ set", PickleCall::kFirstArgument},
    {"torch FloatStorage", PickleCall::kStorage},
    {"torch DoubleStorage", PickleCall::kStorage},
    {"torch HalfStorage", PickleCall::kStorage},
    {"torch BFloat16Storage", PickleCall::kStorage},
    {"torch LongStorage", PickleCall::kStorage},
    {"torch IntStorage", PickleCall::kStorage},
    {"torch ShortStorage", PickleCall::kStorage},
    {"torch CharStorage", PickleCall::kStorage},
    {"torch ByteStorage", PickleCall::kStorage},
    {"torch BoolStorage", PickleCall::kStorage},
    {"torch float32", PickleCall::kNone},
    {"torch float64", PickleCall::kNone},
    {"torch float16", PickleCall::kNone},
    {"torch bfloat16", PickleCall::kNone},
    {"torch int64", PickleCall::kNone},
    {"torch int32", PickleCall::kNone},
    {"torch int16", PickleCall::kNone},
    {"torch int8", PickleCall::kNone},
    {"torch uint8", PickleCall::kNone},
    {"torch bool", PickleCall::kNone},
    {"torch.serialization _get_layout", PickleCall::kNone},
    {"torch strided", PickleCall::kNone},
});

}  // namespace

const PickleName* find_pickle_name(std::string_view name) noexcept {
  const auto* found = std::find_if(kNames.begin(), kNames.end(), [&](const PickleName& n) { return n.name == name; });
  return found == kNames.end() ? nullptr : found;
}

}  // namespace limbeck
