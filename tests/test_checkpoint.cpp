// Checkpoints: exact round trips, every kind of damage, and a resumed run that repeats bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/file_io.h"
#include "nn/checkpoint.h"
#include "nn/ema.h"
#include "nn/fused.h"
#include "nn/schedule.h"
#include "nn/sgd.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;
using test::TempDir;
namespace fs = std::filesystem;

namespace {

/// Convolution, batch norm, dropout: everything that carries state from step to step.
struct Net : nn::Module {
  explicit Net(std::uint64_t seed) : Net(Generator(seed)) {}
  explicit Net(Generator g)
      : first({.in = 3, .out = 6, .kernel = 3, .padding = 1, .bias = false}, g), bn(6), last({.in = 6, .out = 2}, g) {
    register_module("first", first);
    register_module("bn", bn);
    register_module("dropout", dropout);
    register_module("last", last);
  }
  Tensor operator()(const Tensor& x) { return last(dropout(nn::conv_bn_act(first, bn, ops::Activation::kRelu, x))); }
  nn::Conv2d first;
  nn::BatchNorm2d bn;
  nn::Dropout dropout{0.3};
  nn::Conv2d last;
};

struct Run {
  explicit Run(std::uint64_t seed) : net(seed), sgd({group()}, {.momentum = 0.9, .nesterov = true}), ema(net) {}
  nn::ParameterGroup group() { return {net.named_parameters(), 1.0, 1e-3}; }

  void step() {
    Generator data(99, static_cast<std::uint64_t>(iteration));
    const Tensor x = Tensor::empty({2, 3, 6, 5});
    fill_normal_(x, data, 0.0, 1.0);
    const nn::GeneratorScope scope(noise);
    const Tensor loss = ops::mean(ops::square(net(x)));
    loss.backward();
    const nn::ScheduleOptions schedule{.base_lr = 0.1, .total_steps = 20};
    sgd.step(nn::learning_rate(schedule, iteration));
    sgd.zero_grad();
    ema.update();
    last_loss = loss.item();
    ++iteration;
  }
  nn::Checkpoint save() const {
    nn::Checkpoint c;
    c.step = iteration;
    c.model = net.state_dict();
    c.parts = {{"optimizer", sgd.state_dict()}, {"ema", ema.state_dict()}};
    c.generators = {{"noise", noise}};
    return c;
  }
  void load(const nn::Checkpoint& c) {
    iteration = c.step;
    net.load_state_dict(c.model);
    sgd.load_state_dict(c.parts.at("optimizer"));
    ema.load_state_dict(c.parts.at("ema"));
    noise = c.generators.at("noise");
  }

  Net net;
  nn::Sgd sgd;
  nn::Ema ema;
  Generator noise{7, 3};
  std::int64_t iteration = 0;
  double last_loss = 0;
};

nn::Checkpoint small_checkpoint() {
  nn::Checkpoint c;
  c.step = 1200;
  Generator g(1);
  const Tensor w = Tensor::empty({3, 2, 3, 3});
  fill_normal_(w, g, 0.0, 1.0);
  c.model = {{"conv.weight", w}, {"bn.num_batches_tracked", Tensor::full(Shape{}, 5, DType::kI64)}};
  c.model_metadata = {{"classes", "11"}};
  c.parts = {{"optimizer", {{"momentum.conv.weight", w.copy()}}}, {"empty", {}}};
  c.counters = {{"epoch", 3}, {"big", std::numeric_limits<std::int64_t>::max()}};
  c.numbers = {{"best", 0.1 + 0.2}, {"nan", NAN}, {"inf", -INFINITY}, {"tiny", 5e-324}};
  c.texts = {{"config", "a: \"x\"\nb: \u00fc\n"}};
  Generator noise(0xFFFFFFFFFFFFFFFFULL, 0x8000000000000001ULL);
  noise.set_offset(0x123456789ABCDEF0ULL);
  c.generators = {{"noise", noise}};
  return c;
}

void damage(const fs::path& file, std::size_t at, char mask) {
  std::string bytes = read_file(file);
  bytes.at(at) = static_cast<char>(bytes.at(at) ^ mask);
  write_file_atomic(file, bytes);
}

}  // namespace

TEST_SUITE_BEGIN("checkpoint");

TEST_CASE("everything comes back exactly") {
  const TempDir dir;
  const fs::path path = dir / nn::checkpoint_name(1200);
  CHECK(path.filename() == "step_00001200");
  const nn::Checkpoint a = small_checkpoint();
  nn::save_checkpoint(path, a);
  CHECK(dir.list() == "step_00001200");
  const nn::Checkpoint b = nn::load_checkpoint(path);
  CHECK(b.step == 1200);
  CHECK(b.model.size() == 2);
  CHECK(b.model.at("conv.weight").to_vector<float>() == a.model.at("conv.weight").to_vector<float>());
  CHECK(b.model.at("bn.num_batches_tracked").dtype() == DType::kI64);
  CHECK(b.model_metadata.at("classes") == "11");
  CHECK(b.parts.size() == 2);
  CHECK(b.parts.at("empty").empty());
  CHECK(b.parts.at("optimizer").at("momentum.conv.weight").shape() == Shape{3, 2, 3, 3});
  CHECK(b.counters == a.counters);
  CHECK(b.numbers.at("best") == 0.1 + 0.2);
  CHECK(std::isnan(b.numbers.at("nan")));
  CHECK(b.numbers.at("inf") == -INFINITY);
  CHECK(b.numbers.at("tiny") == 5e-324);
  CHECK(b.texts == a.texts);
  CHECK(b.generators.at("noise").seed() == 0xFFFFFFFFFFFFFFFFULL);
  CHECK(b.generators.at("noise").stream() == 0x8000000000000001ULL);
  CHECK(b.generators.at("noise").offset() == 0x123456789ABCDEF0ULL);
}

TEST_CASE("saving again replaces the directory") {
  const TempDir dir;
  nn::Checkpoint c = small_checkpoint();
  nn::save_checkpoint(dir / "x", c);
  c.counters["epoch"] = 4;
  nn::save_checkpoint(dir / "x", c);
  CHECK(nn::load_checkpoint(dir / "x").counters.at("epoch") == 4);
  CHECK(dir.list() == "x");
}

TEST_CASE("any flipped bit in any file is found and named") {
  for (const std::string name : {"model.safetensors", "training.safetensors", "state.json", "checksums.txt"}) {
    for (const double where : {0.0, 0.3, 0.999}) {
      CAPTURE(name);
      CAPTURE(where);
      const TempDir dir;
      nn::save_checkpoint(dir / "x", small_checkpoint());
      const fs::path file = dir.path() / "x" / name;
      damage(file, static_cast<std::size_t>(where * static_cast<double>(fs::file_size(file))), 1);
      check_throws<WeightsError>([&] { static_cast<void>(nn::load_checkpoint(dir / "x")); },
                                 {"[checkpoint]", name, "found", "expected"});
    }
  }
}

TEST_CASE("truncated, empty and missing files are found and named") {
  for (const std::string name : {"model.safetensors", "training.safetensors", "state.json", "checksums.txt"}) {
    CAPTURE(name);
    const TempDir dir;
    nn::save_checkpoint(dir / "x", small_checkpoint());
    const fs::path file = dir.path() / "x" / name;
    const std::string bytes = read_file(file);
    write_file_atomic(file, bytes.substr(0, bytes.size() - 1));
    check_throws<WeightsError>([&] { static_cast<void>(nn::load_checkpoint(dir / "x")); }, {name});
    write_file_atomic(file, "");
    check_throws<WeightsError>([&] { static_cast<void>(nn::load_checkpoint(dir / "x")); }, {name});
    fs::remove(file);
    check_throws<WeightsError>([&] { nn::verify_checkpoint(dir / "x"); }, {name, "No such file"});
  }
  const TempDir dir;
  check_throws<WeightsError>([&] { static_cast<void>(nn::load_checkpoint(dir / "none")); }, {"none", "No such file"});
}

TEST_CASE("size errors give both sizes") {
  const TempDir dir;
  nn::save_checkpoint(dir / "x", small_checkpoint());
  const fs::path file = dir.path() / "x" / "model.safetensors";
  const std::string bytes = read_file(file);
  write_file_atomic(file, bytes.substr(0, 10));
  check_throws<WeightsError>([&] { nn::verify_checkpoint(dir / "x"); },
                             {"size", "found 10 bytes", fmt::format("expected {} bytes", bytes.size())});
}

TEST_CASE("a part name with a slash and text that is not UTF-8 are refused before anything is written") {
  const TempDir dir;
  nn::Checkpoint c = small_checkpoint();
  c.parts["a/b"];
  check_throws<WeightsError>([&] { nn::save_checkpoint(dir / "x", c); }, {"'a/b'"});
  nn::Checkpoint text = small_checkpoint();
  text.texts["bad"] = "\xff";
  check_throws<WeightsError>([&] { nn::save_checkpoint(dir / "x", text); }, {"UTF-8"});
  CHECK(dir.list().empty());
}

TEST_CASE("listing sees complete checkpoints only, in numeric order") {
  const TempDir dir;
  CHECK(!nn::latest_checkpoint(dir.path()));
  CHECK(!nn::latest_checkpoint(dir / "none"));
  nn::Checkpoint c;
  for (const std::int64_t step : {900, 1000, 123456789}) {
    c.step = step;
    nn::save_checkpoint(dir / nn::checkpoint_name(step), c);
  }
  fs::create_directory(dir / "step_99999999.tmp-17");  // a crash while writing
  fs::create_directory(dir / "step_00002000");         // not a checkpoint: no checksums
  const auto all = nn::list_checkpoints(dir.path());
  REQUIRE(all.size() == 3);
  CHECK(all[0].filename() == "step_00000900");
  CHECK(nn::latest_checkpoint(dir.path())->filename() == "step_123456789");
  nn::prune_checkpoints(dir.path(), 1);
  CHECK(nn::list_checkpoints(dir.path()).size() == 1);
  CHECK(nn::latest_checkpoint(dir.path())->filename() == "step_123456789");
}

TEST_CASE("ten steps equal four steps, a new process's objects, and six steps") {
  const TempDir dir;
  Run straight(1);
  for (int i = 0; i < 10; ++i) straight.step();

  {
    Run first(1);
    for (int i = 0; i < 4; ++i) first.step();
    nn::save_checkpoint(dir / "x", first.save());
  }
  Run second(2);  // other initial weights: all of them must come from the file
  second.load(nn::load_checkpoint(dir / "x"));
  for (int i = 0; i < 6; ++i) second.step();

  CHECK(straight.last_loss == second.last_loss);
  const nn::StateDict a = straight.net.state_dict();
  const nn::StateDict b = second.net.state_dict();
  for (const auto& [name, tensor] : a)
    CHECK_MESSAGE(tensor.to_vector<double>() == b.at(name).to_vector<double>(), name);
  const nn::StateDict ea = straight.ema.averages();
  for (const auto& [name, tensor] : ea) {
    CHECK_MESSAGE(tensor.to_vector<double>() == second.ema.averages().at(name).to_vector<double>(), name);
  }
}

TEST_SUITE_END();
