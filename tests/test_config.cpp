// The configuration: values, defaults, overrides, and the text of every error.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/config.h"
#include "core/file_io.h"
#include "core/nearest_word.h"
#include "core/parse_number.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;
using test::TempDir;

TEST_SUITE_BEGIN("config");

namespace {

constexpr const char* kText = R"(# an example
model:
  name: deeplabv3_resnet50
  classes: 11
train:
  lr: 1e-2
  max_iters: 4e4
  nesterov: true
  crop: [256, 320]
  label: "007"
losses:
  - {type: cwd, weight: 3}
  - {type: kd, weight: 0.5, tau: 4}
)";

Config example() { return Config::parse(kText, "x.yaml"); }

}  // namespace

TEST_CASE("typed values, nested sections, dotted paths, lists") {
  const Config c = example();
  CHECK(c.get<std::string>("model.name") == "deeplabv3_resnet50");
  const Config train = c.section("train");
  CHECK(train.get<double>("lr") == 0.01);
  CHECK(train.get<std::int64_t>("max_iters") == 40000);
  CHECK(train.get<bool>("nesterov"));
  CHECK(train.get<std::vector<std::int64_t>>("crop") == std::vector<std::int64_t>{256, 320});
  CHECK(train.get<std::string>("label") == "007");
  CHECK(train.get<std::vector<double>>("lr") == std::vector<double>{0.01});  // one value serves as a list
  const auto losses = c.sections("losses");
  REQUIRE(losses.size() == 2);
  CHECK(losses[1].get<std::string>("type") == "kd");
  CHECK(losses[1].get<double>("weight") == 0.5);
  CHECK(losses[0].get<double>("tau", 1.0) == 1.0);
  CHECK(!c.find<int>("seed"));
  CHECK(!c.has("data.root"));
  CHECK(c.has("model.classes"));
  CHECK(c.where("train.lr") == "x.yaml:6");
  CHECK(train.where("none") == "x.yaml:5");
  CHECK(c.keys() == std::vector<std::string>{"model", "train", "losses", "data"});
}

TEST_CASE("a copy of a section sees the same tree") {
  Config c = example();
  c.override_with("train.lr=0.5");
  const Config train = c.section("train");
  CHECK(train.get<double>("lr") == 0.5);
}

TEST_CASE("wrong types name place, key, expected and found") {
  const Config c = Config::parse(
      "a: x\nb:\n  c: [1, y]\n  d: 1.5\n  e: \"3\"\n  f: yes\n  g: 1e400\n  h: 99999999999\ni:\n", "t.yaml");
  check_throws<ConfigError>([&] { static_cast<void>(c.get<double>("a")); },
                            {"t.yaml:1: 'a': expected a finite number, found 'x'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<std::vector<std::int64_t>>("b.c")); },
                            {"t.yaml:3: 'b.c.1': expected an integer, found 'y'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<std::int64_t>("b.d")); },
                            {"t.yaml:4: 'b.d': expected an integer, found '1.5'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<int>("b.e")); }, {"t.yaml:5"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<bool>("b.f")); },
                            {"t.yaml:6", "expected true or false, found 'yes'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<double>("b.g")); }, {"finite"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<int>("b.h")); }, {"32 bits"});
  CHECK(c.get<std::int64_t>("b.h") == 99999999999);
  check_throws<ConfigError>([&] { static_cast<void>(c.get<int>("b")); }, {"found a section"});
  check_throws<ConfigError>([&] { static_cast<void>(c.section("a")); },
                            {"t.yaml:1: 'a': expected a section, found 'x'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<int>("a.z")); }, {"t.yaml:1: 'a': expected a section"});
  check_throws<ConfigError>([&] { static_cast<void>(c.sections("a")); }, {"expected a list of sections, found 'x'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.sections("b.c")); }, {"'b.c.0': expected a section, found '1'"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<int>("b.none")); }, {"t.yaml:2: 'b.none' is missing"});
  check_throws<ConfigError>([&] { static_cast<void>(c.get<int>("i")); }, {"'i' is missing"});  // present but empty
  CHECK(c.get<int>("i", 7) == 7);
  try {
    static_cast<void>(c.get<double>("a"));
  } catch (const Error& e) {
    CHECK(e.exit_code() == ExitCode::kUsage);
  }
}

TEST_CASE("ranges and choices") {
  const Config c = Config::parse("lr: 7\npolicy: cosin\n", "t.yaml");
  check_throws<ConfigError>([&] { static_cast<void>(c.get_in_range<double>("lr", 0.01, 0.0, 1.0)); },
                            {"t.yaml:1: 'lr': expected 0 to 1, found 7"});
  CHECK(c.get_in_range<std::int64_t>("lr", 1, 7) == 7);
  CHECK(c.get_in_range<int>("batch", 4, 1, 64) == 4);
  check_throws<ConfigError>([&] { static_cast<void>(c.get_in_range<int>("workers", 99, 0, 64)); },
                            {"'workers'", "found 99"});
  check_throws<ConfigError>(
      [&] {
        static_cast<void>(c.choice("policy", "poly", {"poly", "cosine", "step"}));
      },
      {"t.yaml:2: 'policy': expected one of poly, cosine, step, found 'cosin'; did you mean 'cosine'?"});
  CHECK(c.choice("warmup", "none", {"none", "linear"}) == "none");
}

TEST_CASE("keys nobody asked for") {
  const Config c =
      Config::parse("train:\n  lr: 1\n  bach_size: 8\n  losses:\n    - {weight: 1, tua: 4}\nfoo: 1\nlr: 3\n", "t.yaml");
  const Config train = c.section("train");
  static_cast<void>(train.get<double>("lr"));
  static_cast<void>(train.get("batch_size", std::int64_t{4}));
  for (const auto& loss : train.sections("losses")) {
    static_cast<void>(loss.get<double>("weight"));
    static_cast<void>(loss.get("tau", 1.0));
  }
  check_throws<ConfigError>([&] { c.check_all_used(); },
                            {"t.yaml:3: unknown key 'train.bach_size', did you mean 'batch_size'?",
                             "t.yaml:5: unknown key 'train.losses.0.tua', did you mean 'tau'?",
                             "t.yaml:6: unknown key 'foo'\n",  // nothing is near
                             "t.yaml:7: unknown key 'lr', did you mean 'train.lr'?"});
}

TEST_CASE("an unread section is one error, a fully read file none") {
  const Config c = Config::parse("a: {x: 1, y: 2}\nb: [1, 2]\n", "t.yaml");
  try {
    c.check_all_used();
    FAIL_CHECK("no exception");
  } catch (const ConfigError& e) {
    CHECK(std::string(e.what()) == "t.yaml:1: unknown key 'a'\nt.yaml:2: unknown key 'b'");
  }
  static_cast<void>(c.get<int>("a.x"));
  static_cast<void>(c.get<int>("a.y"));
  static_cast<void>(c.get<std::vector<std::int64_t>>("b"));
  c.check_all_used();
  const Config all = example();
  CHECK(all.has("model.name"));
}

TEST_CASE("duplicate keys give both lines") {
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("a: 1\nb: 2\na: 3\n", "t.yaml")); },
                            {"t.yaml:3: duplicate key 'a', first given at t.yaml:1"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("s:\n  k: 1\n  k: 1\n", "t.yaml")); },
                            {"t.yaml:3", "t.yaml:2"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("s: {k: 1, k: 2}\n", "t.yaml")); },
                            {"duplicate key 'k'"});
  static_cast<void>(Config::parse("a: {k: 1}\nb: {k: 1}\n", "t.yaml"));
}

TEST_CASE("texts that are no configuration") {
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("a: [1\n", "t.yaml")); },
                            {"t.yaml:", "not valid YAML"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("a: 1\n b: 2\n", "t.yaml")); },
                            {"t.yaml:2", "not valid YAML"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("- 1\n- 2\n", "t.yaml")); },
                            {"t.yaml:1", "found a list"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("just text", "t.yaml")); }, {"found 'just text'"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("a: 1\n---\nb: 2\n", "t.yaml")); },
                            {"second document"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("a.b: 1\n", "t.yaml")); },
                            {"t.yaml:1", "contains a dot"});
  check_throws<ConfigError>([] { static_cast<void>(Config::parse("? [1]\n: 2\n", "t.yaml")); }, {"plain text"});
  check_throws<ConfigError>([] { static_cast<void>(Config::load("/none.yaml")); }, {"/none.yaml", "No such file"});
  static_cast<void>(Config::parse("", "t.yaml"));
  static_cast<void>(Config::parse("# nothing\n", "t.yaml"));
}

TEST_CASE("aliases are copies, and a bomb of aliases is refused") {
  const Config c = Config::parse("base: &b {lr: 1}\nother: *b\n", "t.yaml");
  CHECK(c.get<double>("other.lr") == 1);
  check_throws<ConfigError>([&] { c.check_all_used(); }, {"'base'"});
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    bomb += fmt::format("a{}: &a{} [", i, i);
    for (int k = 0; k < 10; ++k) bomb += fmt::format("{}*a{}", k == 0 ? "" : ", ", i - 1);
    bomb += "]\n";
  }
  check_throws<ConfigError>([&] { static_cast<void>(Config::parse(bomb, "t.yaml")); }, {"too many values"});
}

TEST_CASE("a copy holds what was written, and merging joins sections") {
  Config base = Config::parse("train: {lr: 0.1, steps: 10}\nlist: [1, 2]\nname: base\n", "base.yaml");
  static_cast<void>(base.get<double>("train.momentum", 0.9));  // a default is not copied
  Config copy = base.copy({"name"});
  CHECK(copy.keys() == std::vector<std::string>{"train", "list"});
  CHECK_FALSE(copy.has("train.momentum"));
  CHECK(copy.is_section("train"));
  CHECK_FALSE(copy.is_section("list"));
  CHECK_FALSE(copy.is_section("train.lr.x"));
  const Config top = Config::parse("train: {lr: 0.5, warmup: 3}\nlist: [7]\n", "top.yaml");
  copy.merge(top);
  CHECK(copy.get<double>("train.lr") == 0.5);
  CHECK(copy.get<int>("train.steps") == 10);
  CHECK(copy.get<int>("train.warmup") == 3);
  CHECK(copy.get<std::vector<std::int64_t>>("list") == std::vector<std::int64_t>{7});
  CHECK(base.get<double>("train.lr") == 0.1);     // the original is untouched
  CHECK(copy.where("train.lr") == "top.yaml:1");  // places travel with the values
  CHECK(copy.where("train.steps") == "base.yaml:1");
  top.check_all_used();  // merging asked for everything
  Config odd = base.copy();
  odd.merge(Config::parse("train: {stepz: 1}\n", "odd.yaml"));
  static_cast<void>(odd.get<double>("train.lr"));
  static_cast<void>(odd.get<int>("train.steps"));
  static_cast<void>(odd.get<std::string>("name"));
  static_cast<void>(odd.get<std::vector<std::int64_t>>("list"));
  check_throws<ConfigError>([&] { odd.check_all_used(); },
                            {"odd.yaml:1: unknown key 'train.stepz', did you mean 'steps'?"});
}

TEST_CASE("overrides change, add and reach into lists") {
  Config c = example();
  c.override_with("train.lr=0.5");
  c.override_with("train.crop=[64, 64]");
  c.override_with("losses.1.tau=2");
  c.override_with("data.root=/a=b");
  c.override_with("train.label=");
  CHECK(c.get<double>("train.lr") == 0.5);
  CHECK(c.get<std::vector<std::int64_t>>("train.crop") == std::vector<std::int64_t>{64, 64});
  CHECK(c.sections("losses")[1].get<double>("tau") == 2);
  CHECK(c.get<std::string>("data.root") == "/a=b");
  CHECK(!c.has("train.label"));
  check_throws<ConfigError>([&] { c.override_with("train.lr"); }, {"command line 'train.lr': expected key=value"});
  check_throws<ConfigError>([&] { c.override_with("=3"); }, {"expected key=value"});
  check_throws<ConfigError>([&] { c.override_with("train..lr=3"); }, {"empty key"});
  check_throws<ConfigError>([&] { c.override_with("train.lr.x=3"); }, {"command line", "'0.5'", "no section"});
  check_throws<ConfigError>([&] { c.override_with("losses.2.tau=3"); },
                            {"'2' is no entry of a list of 2 (from x.yaml:11)"});
  check_throws<ConfigError>([&] { c.override_with("a=[1"); }, {"command line 'a=[1'", "not valid YAML"});

  Config d;
  d.override_with("train.batchsize=x");
  check_throws<ConfigError>([&] { static_cast<void>(d.get<int>("train.batchsize")); },
                            {"command line 'train.batchsize=x'", "expected an integer"});
  Config e;
  e.override_with("train.batchsize=8");
  static_cast<void>(e.get("train.batch_size", 4));
  check_throws<ConfigError>(
      [&] { e.check_all_used(); },
      {"command line 'train.batchsize=8': unknown key 'train.batchsize', did you mean 'batch_size'?"});
}

TEST_CASE("the dump holds file values, overrides and defaults, and reads back the same") {
  Config c = example();
  c.override_with("train.lr=0.25");
  static_cast<void>(c.get("train.momentum", 0.9));
  static_cast<void>(c.get("train.tag", "1e3"));  // text that looks like a number
  static_cast<void>(c.get("data.mean", std::vector<double>{0.5, 0.1}));
  static_cast<void>(c.get("data.list", "a: b # c"));
  static_cast<void>(c.get("data.seed", std::int64_t{5}));
  static_cast<void>(c.get("data.names", std::vector<std::string>{"x", "true"}));
  static_cast<void>(c.section("never_filled"));
  const std::string text = c.dump();
  CHECK(text.find("never_filled") == std::string::npos);
  CHECK(text.find("lr: 0.25") != std::string::npos);
  const Config again = Config::parse(text, "dump.yaml");
  CHECK(again.get<double>("train.momentum") == 0.9);
  CHECK(again.get<std::string>("train.tag") == "1e3");
  check_throws<ConfigError>([&] { static_cast<void>(again.get<double>("train.tag")); }, {"train.tag"});  // still text
  CHECK(again.get<std::vector<double>>("data.mean") == std::vector<double>{0.5, 0.1});
  CHECK(again.get<std::string>("data.list") == "a: b # c");
  CHECK(again.get<std::vector<std::string>>("data.names") == std::vector<std::string>{"x", "true"});
  CHECK(again.get<std::string>("train.label") == "007");
  CHECK(again.sections("losses")[1].get<double>("tau") == 4);
  CHECK(again.dump() == text);

  const TempDir dir;
  write_file_atomic(dir / "c.yaml", text);
  CHECK(Config::load(dir / "c.yaml").dump() == text);
}

TEST_CASE("control characters are refused with their line; tabs and line ends are not") {
  CHECK_THROWS_WITH_AS((void)Config::parse("a: 1\r\nb: \x17\n", "x.yaml"),
                       doctest::Contains("x.yaml:2: a control character (byte 0x17), expected printable text"),
                       ConfigError);
  CHECK_THROWS_AS((void)Config::parse("a: \x7F", "x.yaml"), ConfigError);
  CHECK_THROWS_AS((void)Config::parse("a: 1\rb: 2", "x.yaml"), ConfigError);
  CHECK_THROWS_WITH_AS((void)Config::parse("b: 1\na: \"an escaped \\a bell\"", "x.yaml"),
                       doctest::Contains("x.yaml:2: a control character (byte 0x07), expected printable text"),
                       ConfigError);
  CHECK_THROWS_AS((void)Config::parse("a: \"next \\N line\"", "x.yaml"), ConfigError);
  CHECK(Config::parse("a: 1\t# one\r\n", "x.yaml").get<int>("a") == 1);
}

TEST_CASE("a configuration is UTF-8") {
  CHECK(Config::parse("a: \xC3\xA9t\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", "x.yaml").get<std::string>("a") ==
        "\xC3\xA9t\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
  CHECK_THROWS_WITH_AS((void)Config::parse("a: 1\nb: caf\xE9\n", "x.yaml"),
                       doctest::Contains("x.yaml:2: byte 0xE9 is not UTF-8, expected a text in UTF-8"), ConfigError);
  for (const char* text : {"\xFE\xFFT", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\x80"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)Config::parse(std::string("a: ") + text, "x.yaml"), ConfigError);
  }
}

TEST_CASE("a number is the whole text and fits its type, or there is none") {
  CHECK(parse_number<int>("-12") == -12);
  CHECK(parse_number<std::uint64_t>("ff", 16) == 255);
  CHECK(parse_number<double>("2.5e-3") == 2.5e-3);
  for (const char* text : {"", " 1", "1 ", "+1", "12 apples", "0x10", "2147483648", "1.5", "one"}) {
    CAPTURE(text);
    CHECK(!parse_number<int>(text));
  }
  CHECK(!parse_number<std::uint8_t>("-1"));
  CHECK(!parse_number<double>("1e999"));
}

TEST_CASE("edit distance and the nearest word") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("tua", "tau") == 1);
  CHECK(edit_distance("same", "same") == 0);
  CHECK(nearest_word("lerning_rate", {"momentum", "learning_rate"}) == "learning_rate");
  CHECK(nearest_word("lr", {"tau", "seed"}).empty());
  CHECK(nearest_word("weight", {"weights", "weight_decay"}) == "weights");
  CHECK(nearest_word("anything", {}).empty());
}

TEST_SUITE_END();
