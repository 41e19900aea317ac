// The knowledge-adaptation system as configurations use it: an autoencoder's file that is tied to its teacher.
#include <doctest/doctest.h>

#include <memory>

#include "core/rng.h"
#include "distill/teacher_code.h"
#include "models/zoo.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::distill;
using limbeck::test::check_throws;

TEST_SUITE_BEGIN("ka_distill");

namespace {

std::shared_ptr<models::Model> network(std::uint64_t seed) {
  Generator g(seed);
  return models::make_model({.name = "deeplabv3_mobilenet_v2", .classes = 3, .width = 0.25}, g);
}

}  // namespace

TEST_CASE("the fingerprint of a teacher: its weights and nothing else") {
  const auto teacher = network(1);
  const std::string fingerprint = teacher_fingerprint(*teacher);
  CHECK(teacher_fingerprint(*network(1)) == fingerprint);
  CHECK(teacher_fingerprint(*network(2)) != fingerprint);
  teacher->freeze();
  CHECK(teacher_fingerprint(*teacher) == fingerprint);
  for (const auto& [name, buffer] : teacher->named_buffers()) {
    if (name.ends_with("num_batches_tracked")) buffer.fill_(7);
  }
  CHECK(teacher_fingerprint(*teacher) == fingerprint);
  const Tensor last = teacher->parameters().back().detach();
  last.fill_(0.125);
  CHECK(teacher_fingerprint(*teacher) != fingerprint);
}

TEST_SUITE_END();
