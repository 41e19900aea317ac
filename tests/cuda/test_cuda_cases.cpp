// Runs the families of tests/cases on the GPU, real or emulated, against the f64 reference on the CPU.
#include <doctest/doctest.h>

#include <string_view>

#include "core/cuda.h"
#include "tests/cases/all_cases.h"
#include "tests/cuda/missing.h"

using namespace limbeck;

namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

void check_missing(const test::OpCase& c) {
  CAPTURE(c.op);
  Generator g(1234);
  std::vector<Tensor> inputs;
  for (const Tensor& t : c.inputs(g)) {
    inputs.push_back((is_floating(t.dtype()) ? t.copy_as(DType::kF32) : t).to(kGpu));
  }
  CHECK_THROWS_WITH_AS(static_cast<void>(c.forward(inputs)), doctest::Contains("no CUDA kernel"), Error);
}

void check_family(const char* name) {
  if (cuda::device_count() == 0) {
    MESSAGE("skipped: ", cuda::describe_devices());
    return;
  }
  for (const auto& family : test::kFamilies) {
    if (std::string_view(family.name) != name) continue;
    for (const auto& c : family.cases()) {
      if (test::is_missing_on_cuda(c.op)) {
        check_missing(c);
      } else {
        test::check_case_on(kGpu, c);
      }
    }
    return;
  }
  FAIL("no such family");
}

}  // namespace

TEST_SUITE_BEGIN("cuda_cases");

#define LIMBECK_FAMILY_TEST(family) \
  TEST_CASE("cases of " #family " on cuda:0") { check_family(#family); }
LIMBECK_CASE_FAMILIES(LIMBECK_FAMILY_TEST)

TEST_CASE("every family is run on cuda:0") {
  CHECK(std::size(test::kFamilies) == 28);  // the list above
}

TEST_SUITE_END();
