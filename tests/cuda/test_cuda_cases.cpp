// Runs the families of tests/cases on the GPU, real or emulated, against the f64 reference on the CPU.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <string_view>

#include "core/cuda.h"
#include "distill/catalogue.h"
#include "ops/catalogue.h"
#include "tests/cases/all_cases.h"

using namespace limbeck;

namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

std::set<std::string, std::less<>>& tested_families() {
  static std::set<std::string, std::less<>> names;
  return names;
}

void check_family(const char* name) {
  if (cuda::device_count() == 0) {
    MESSAGE("skipped: ", cuda::describe_devices());
    return;
  }
  for (const auto& family : test::kFamilies) {
    if (std::string_view(family.name) != name) continue;
    for (const auto& c : family.cases()) test::check_case_on(kGpu, c);
    return;
  }
  FAIL("no such family");
}

}  // namespace

TEST_SUITE_BEGIN("cuda_cases");

#define LIMBECK_FAMILY_TEST(family)                                      \
  TEST_CASE("cases of " #family " on cuda:0") { check_family(#family); } \
  [[maybe_unused]] const bool kOnCuda_##family = tested_families().insert(#family).second;
LIMBECK_CASE_FAMILIES(LIMBECK_FAMILY_TEST)

TEST_CASE("every op of the catalogues is run on cuda:0") {
  // An op without a CUDA kernel throws in the test of its family; here every op must have cases in a family with such a test.
  std::set<std::string, std::less<>> covered;
  for (const auto& family : test::kFamilies) {
    if (tested_families().count(family.name) == 0) continue;
    for (const auto& c : family.cases()) covered.insert(c.op);
  }
  for (const auto name : ops::kCatalogue) CHECK_MESSAGE(covered.count(name) == 1, name, " is not run on cuda:0");
  for (const auto name : distill::kCatalogue) CHECK_MESSAGE(covered.count(name) == 1, name, " is not run on cuda:0");
}

TEST_SUITE_END();
